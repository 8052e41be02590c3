"""Taking libvirt URIs apart: which are accepted, whether they lead to another machine. https://libvirt.org/uri.html

The same list of what is allowed as luban.api.libvirt_uri, piece by piece, so that the answer names what is wrong. Also
URIs that never passed the API server's check end here: those of LubanVMs, and those from before a check was made
stricter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from luban.adapters.libvirt_hosts.errors import insecure_host, invalid_uri
from luban.api.libvirt_uri import ADDRESS, PATH, PORT, SIMULATED, SOCKET_PATH, TCP_PORTS, USER
from luban.ports import HostRef

_PARTS = re.compile(
    r"(?P<driver>[^:/+]*)(\+(?P<transport>[^:/]*))?:"
    r"//((?P<user>[^@/?#]*)@)?(?P<address>\[[^\]/?#]*\]|[^\[:/?#]*)(:(?P<port>[^/?#]*))?"
    r"(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
_VALUES = {"mode": "auto|direct|legacy", "no_verify": "0|1", "socket": SOCKET_PATH}
"""What the value of a parameter may be once it is decoded."""
_SSH_PARAMETERS = frozenset({"mode", "no_verify"})
_PARAMETERS = {
    "unix": frozenset({"mode", "socket"}),
    "tcp": frozenset[str](),
    "tls": frozenset({"no_verify"}),
    "ssh": _SSH_PARAMETERS,
    "libssh": _SSH_PARAMETERS,
    "libssh2": _SSH_PARAMETERS,
}
"""By transport. `socket` only for this machine: over SSH, libvirt pastes it into a command line of the other one."""


@dataclass(frozen=True)
class Parts:
    """A URI that is accepted."""

    transport: str
    """unix, tcp, tls, ssh, libssh or libssh2; a URI that names none means unix, or tls if it names a host."""
    address: str = ""
    port: str = ""
    unverified: bool = False
    """Whether any certificate or host key is taken."""


class _RefusedError(Exception):
    """Why a URI is not accepted, in words."""


def check_uri(host: HostRef, *, allow_insecure: bool = False) -> None:
    """Raises PermanentError InvalidURI for what cannot work or must not be used, InsecureHost for what the operator's
    settings forbid."""
    parts = _taken_apart(host)
    if allow_insecure:
        return
    if parts.transport == "tcp":
        raise insecure_host(host, "transport tcp neither encrypts nor asks who is at the other end")
    if parts.unverified:
        raise insecure_host(host, "with no_verify=1 anybody can be at the other end")


def is_local(host: HostRef) -> bool:
    """Whether the daemon runs on this machine, so that /proc here tells about its CPU. Raises as check_uri."""
    return _taken_apart(host).transport == "unix"


def tcp_endpoint(host: HostRef) -> tuple[str, int] | None:
    """Address and port that libvirt will connect to itself; None: it takes another way. Raises as check_uri."""
    parts = _taken_apart(host)
    default = TCP_PORTS.get(parts.transport)
    return (parts.address.strip("[]"), int(parts.port or default)) if default else None


def _taken_apart(host: HostRef) -> Parts:
    if host.uri == SIMULATED:
        return Parts("unix")
    try:
        return _parse(host.uri)
    except _RefusedError as refusal:
        raise invalid_uri(host, str(refusal)) from None


def _parse(uri: str) -> Parts:
    if not all("!" <= character <= "~" for character in uri):
        raise _RefusedError("only printable ASCII characters and no spaces may stand in it")
    found = _PARTS.fullmatch(uri)
    if found is None:
        raise _RefusedError("it has not the form driver+transport://host/path")
    pieces = {name: value or "" for name, value in found.groupdict().items()}
    if pieces["driver"] != "qemu":
        raise _RefusedError(f"driver {pieces['driver']!r} is not qemu")
    if ";" in pieces["query"] or found["fragment"] is not None:
        raise _RefusedError("only & may stand between parameters, and no # after them")
    transport = pieces["transport"] or ("tls" if found["address"] else "unix")
    if transport not in _PARAMETERS or found["transport"] == "":
        raise _RefusedError(f"transport {pieces['transport']!r} is not one of {', '.join(_PARAMETERS)}")
    _check_authority(transport, found)
    _require(PATH, pieces["path"], "path {!r} is neither /system nor /session")
    values = _parameters(found["query"], _PARAMETERS[transport], transport)
    return Parts(transport, pieces["address"], pieces["port"], values.get("no_verify") == "1")


def _check_authority(transport: str, found: re.Match[str]) -> None:
    user, address, port = found["user"], found["address"], found["port"]
    if transport == "unix":
        if address or user is not None or port is not None:
            raise _RefusedError("transport unix is for this machine: no host can be named")
        return
    _require(ADDRESS, address, "host {!r} is neither an IP address nor labels of at most 63 characters between dots")
    if port is not None:
        _require(PORT, port, "port {!r} is not a number from 1 to 65535")
    if user is not None:
        if transport in {"tcp", "tls"}:
            raise _RefusedError(f"transport {transport} takes no user")
        _require(USER, user, "user {!r} is not made of letters, digits, dots, hyphens and underscores")


def _parameters(query: str | None, allowed: frozenset[str], transport: str) -> dict[str, str]:
    """Their decoded values. libvirt takes names without regard to case, and the last of several: here they are exact,
    and given once."""
    values: dict[str, str] = {}
    for pair in query.split("&") if query is not None else ():
        name, _, value = pair.partition("=")
        if name not in allowed:
            names = ", ".join(sorted(allowed)) or "none"
            raise _RefusedError(
                f"parameter {name} cannot be given with transport {transport} (those that can: {names})"
            )
        if name in values:
            raise _RefusedError(f"parameter {name} is given more than once")
        values[name] = _decoded(value) if name == "socket" else value
        _require(_VALUES[name], values[name], f"parameter {name} has the value {{!r}}, which is not allowed")
    return values


def _decoded(value: str) -> str:
    """As libvirt decodes it: a plus stays one."""
    if re.search("%(?![0-9A-Fa-f]{2})", value):
        raise _RefusedError(f"{value!r} is not encoded correctly: % must be followed by two hexadecimal digits")
    return unquote_to_bytes(value).decode("latin-1")


def _require(pattern: str, value: str, complaint: str) -> None:
    if not re.fullmatch(pattern, value):
        raise _RefusedError(complaint.format(value))
