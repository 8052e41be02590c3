"""Which libvirt URIs are accepted. https://libvirt.org/uri.html

A URI comes from whoever may create a LubanCluster, while libvirt's client acts on it inside the operator: drivers that
need no daemon and parameters that name a program to run are not for them.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qs, urlsplit

from luban.adapters.libvirt_errors import invalid_uri
from luban.ports import HostRef

DRIVERS = frozenset({"qemu", "test"})
"""`test` is libvirt's own simulated hypervisor, for trying things out."""
TRANSPORTS = frozenset({"", "unix", "tcp", "tls", "ssh", "libssh", "libssh2"})
FORBIDDEN_PARAMETERS = frozenset({"command", "netcat"})


def _split(host: HostRef) -> SplitResult:
    try:
        return urlsplit(host.uri)
    except ValueError as error:
        raise invalid_uri(host, str(error)) from error


def check_uri(host: HostRef) -> None:
    """Raises PermanentError InvalidURI for what cannot work or must not be used."""
    parts = _split(host)
    driver, _, transport = parts.scheme.partition("+")
    if driver not in DRIVERS:
        raise invalid_uri(host, f"driver {driver!r} is not one of {', '.join(sorted(DRIVERS))}")
    if transport not in TRANSPORTS:
        raise invalid_uri(host, f"transport {transport!r} is not one of {', '.join(sorted(TRANSPORTS - {''}))}")
    if forbidden := FORBIDDEN_PARAMETERS & parse_qs(parts.query, keep_blank_values=True).keys():
        raise invalid_uri(host, f"parameter {', '.join(sorted(forbidden))} is not allowed")


def is_local(host: HostRef) -> bool:
    """Whether the daemon runs on this machine, so that /proc here tells about its CPU."""
    parts = _split(host)
    return not parts.netloc and parts.scheme.partition("+")[2] in {"", "unix"}
