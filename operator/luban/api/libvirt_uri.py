"""Which libvirt URIs may be named, as one pattern. https://libvirt.org/uri.html

A URI comes from whoever may create a LubanCluster, while libvirt's client acts on it with the operator's rights: it
pastes some parameters into a shell on the host, runs programs that others name, and reads files. So the pattern lists
what is allowed, character by character; a percent-encoded character is allowed only where the plain one is. The libvirt
adapter checks the same by taking the URI apart, and says what is wrong.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field

from luban.api.common import IPV4, remedy

SIMULATED = "test:///default"
"""libvirt's own simulated hypervisor, for trying things out. With any other path it would read that file."""
USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
"""Login name (SSH). The first character keeps it from being taken for an option."""
_LABEL_CHARACTER = "[A-Za-z0-9_-]"
_LABEL = rf"[A-Za-z0-9_]{_LABEL_CHARACTER}{{0,62}}"
_LAST_LABEL = rf"([A-Za-z_]{_LABEL_CHARACTER}{{0,62}}|[0-9]{{1,15}}[A-Za-z_-]{_LABEL_CHARACTER}{{0,47}})"
"""Not digits alone: the resolver takes 999.1 or 1 for an IPv4 address."""
_HOST_NAME = rf"({_LABEL}\.)*{_LAST_LABEL}"
"""Labels of at most 63 characters between single dots: what DNS can hold. Python's resolver refuses others in an error of
its own kind."""
_GROUP = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    [
        f"({_GROUP}:){{7}}({_GROUP}|:)",
        *(f"({_GROUP}:){{{before}}}((:{_GROUP}){{1,{7 - before}}}|:)" for before in range(1, 7)),
        f":((:{_GROUP}){{1,7}}|:)",
        rf"::([Ff]{{4}}:)?{IPV4}",
    ]
)
"""By how many groups come before `::`. Short, for the API server counts what a pattern costs by its length."""
ADDRESS = rf"({IPV4}|{_HOST_NAME}|\[({_IPV6})\])"
"""Host name or IP address."""
PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
PATH = r"/(system|session)"
"""Which daemon of the host. `embed` would run QEMU inside this program."""
MODE = r"mode=(auto|direct|legacy)"
NO_VERIFY = r"no_verify=[01]"
SOCKET_PATH = r"/[A-Za-z0-9/._~@:,=+-]*"
"""Path of a daemon's socket on this machine."""
_ENCODED_SAFE = r"%(2[B-Fb-f]|3[0-9AaDd]|4[0-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])"
"""A character of SOCKET_PATH, percent-encoded."""
_SOCKET = rf"socket=(/|%2[Ff])([A-Za-z0-9/._~@:,=+-]|{_ENCODED_SAFE})*"

_LOCAL = rf"qemu(\+unix)?://{PATH}(\?({MODE}|({MODE}&)?{_SOCKET}|{_SOCKET}&{MODE}))?"
_TLS = rf"qemu(\+tls)?://{ADDRESS}(:{PORT})?{PATH}(\?{NO_VERIFY})?"
_TCP = rf"qemu\+tcp://{ADDRESS}(:{PORT})?{PATH}"
_SSH = (
    rf"qemu\+(ssh|libssh|libssh2)://({USER}@)?{ADDRESS}(:{PORT})?{PATH}"
    rf"(\?({MODE}|{NO_VERIFY}|{MODE}&{NO_VERIFY}|{NO_VERIFY}&{MODE}))?"
)
LIBVIRT_URI = rf"^({SIMULATED}|{_LOCAL}|{_TLS}|{_TCP}|{_SSH})$"
REMEDY = (
    "must be a libvirt URI such as qemu+tls://host-b/system; of its parameters, mode and no_verify can be given, "
    "and socket without a host"
)
"""What a value that does not match must be, as the end of a sentence about the field."""


LONGEST = 512
TCP_PORTS = {"tcp": 16509, "tls": 16514, "libssh": 22, "libssh2": 22}
"""Where libvirt connects itself. For ssh it runs a program, which may know other ways to the host."""
_SAID_ANYWAY = frozenset({("mode", "auto"), ("no_verify", "0")})
"""Parameters that say what holds without them."""


def checked(uri: str) -> str:
    """The URI. Raises ValueError in words that help more than the pattern."""
    if not re.fullmatch(LIBVIRT_URI, uri):
        raise ValueError(REMEDY)
    return uri


def _checked_if_given(uri: str) -> str:
    return checked(uri) if uri else uri


LibvirtURI = Annotated[
    str,
    AfterValidator(checked),
    Field(max_length=LONGEST, json_schema_extra={"pattern": LIBVIRT_URI, **remedy(REMEDY)}),
]
"""A field that takes one of these URIs."""
LibvirtURIOrNone = Annotated[
    str,
    AfterValidator(_checked_if_given),
    Field(max_length=LONGEST, json_schema_extra={"pattern": f"^$|{LIBVIRT_URI}", **remedy(f"{REMEDY}; or empty")}),
]
"""The same, or nothing."""


@lru_cache(maxsize=4096)
def normal_form(uri: str) -> str:
    """One spelling for all URIs that libvirt takes for the same: transport and user included, for another one of these
    comes with other rights. Two ways to one daemon are not told to be one. What is none of ours stays as it is."""
    if uri == SIMULATED or not re.fullmatch(LIBVIRT_URI, uri):
        return uri
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2] or ("tls" if parts.netloc else "unix")
    user = f"{parts.username}@" if parts.username else ""
    port = parts.port or TCP_PORTS.get(transport)
    # A plus stays one: libvirt does not take it for a space.
    given = set(parse_qsl(parts.query.replace("+", "%2B"))) - _SAID_ANYWAY
    return f"{transport}://{user}{_address(parts.hostname or '')}:{port}{parts.path}?{sorted(given)}"


def _address(host: str) -> str:
    """As the resolver takes it: names without regard to case, IPv6 addresses in their shortest form."""
    return str(ipaddress.IPv6Address(host)) if ":" in host else host
