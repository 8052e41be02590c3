"""Which libvirt URIs are accepted. https://libvirt.org/uri.html

A URI comes from whoever may create a LubanCluster, while libvirt's client acts on it inside the operator: a driver that
reads files there (test with a path) and parameters that name a program to run are not for them. So this is a list of
what is allowed; libvirt compares parameters without case and splits them at `;` too, which a list of what is forbidden
would have to know.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qs, urlsplit

from luban.adapters.libvirt_hosts.errors import invalid_uri
from luban.ports import HostRef

DRIVERS = frozenset({"qemu"})
SIMULATED = "test:///default"
"""libvirt's own simulated hypervisor, for trying things out. With any other path it would read that file."""
TRANSPORTS = frozenset({"", "unix", "tcp", "tls", "ssh", "libssh", "libssh2"})
PARAMETERS = frozenset({"mode", "no_verify", "socket"})
"""`mode`: which daemon to look for. `socket`: path of the daemon's socket. `no_verify`: 1 to accept any certificate."""


def _split(host: HostRef) -> SplitResult:
    try:
        return urlsplit(host.uri)
    except ValueError as error:
        raise invalid_uri(host, str(error)) from error


def check_uri(host: HostRef) -> None:
    """Raises PermanentError InvalidURI for what cannot work or must not be used."""
    if host.uri == SIMULATED:
        return
    parts = _split(host)
    driver, _, transport = parts.scheme.partition("+")
    if driver not in DRIVERS:
        raise invalid_uri(host, f"driver {driver!r} is not one of {', '.join(sorted(DRIVERS))}")
    if transport not in TRANSPORTS:
        raise invalid_uri(host, f"transport {transport!r} is not one of {', '.join(sorted(TRANSPORTS - {''}))}")
    if ";" in parts.query or parts.fragment:
        raise invalid_uri(host, "only & may stand between parameters, and no # after them")
    if others := parse_qs(parts.query, keep_blank_values=True).keys() - PARAMETERS:
        raise invalid_uri(host, f"parameter {', '.join(sorted(others))} is not one of {', '.join(sorted(PARAMETERS))}")


def is_local(host: HostRef) -> bool:
    """Whether the daemon runs on this machine, so that /proc here tells about its CPU."""
    parts = _split(host)
    return not parts.netloc and parts.scheme.partition("+")[2] in {"", "unix"}
