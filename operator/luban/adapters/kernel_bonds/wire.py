"""RTM_NEWLINK messages of rtnetlink, decoded as far as bonds are concerned.

Numbers are those of the uapi headers rtnetlink.h, if_link.h and if.h. The decoder never raises: what is cut off or too
short is left out. It reads a dozen of the sixty attributes of a link, because a host with hundreds of virtual links is
read every second; and it takes names as bytes, which they are.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
"""In an answer: the list of links changed while it was dumped, so it may be inconsistent."""
IFF_UP = 0x1

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_INFO = struct.Struct("=BxHiII")
"""ifinfomsg: family, type, index, flags, change mask."""
_ATTRIBUTE = struct.Struct("=HH")
"""nlattr: length, type."""
_TYPE_MASK = 0x3FFF
"""Without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
IFLA_EXT_MASK = 29
_SKIP_STATS = 1 << 3

_IFNAME, _LINK, _MASTER, _LINKINFO = 3, 5, 10, 18
_CARRIER, _LINK_NETNSID, _CARRIER_CHANGES, _CARRIER_DOWNS = 33, 37, 35, 48
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5

_Name = TypeVar("_Name", bound=str)
BondField = Literal[
    "mode", "active_slave", "miimon", "arp_interval", "min_links", "lacp_rate", "aggregator", "partner_mac"
]
_BOND_NUMBERS: Mapping[int, tuple[BondField, int]] = {
    1: ("mode", 1),
    2: ("active_slave", 4),
    3: ("miimon", 4),
    7: ("arp_interval", 4),
    18: ("min_links", 4),
    21: ("lacp_rate", 1),
}
"""IFLA_BOND_*: field and bytes."""
_VRF_TABLE = 1
_BOND_AD_INFO = 23
_AD_AGGREGATOR, _AD_PARTNER_MAC = 1, 5
PortField = Literal[
    "state",
    "mii",
    "link_failures",
    "aggregator",
    "actor_state",
    "partner_state",
    "churn_actor",
    "churn_partner",
]
_PORT_NUMBERS: Mapping[int, tuple[PortField, int]] = {
    1: ("state", 1),
    2: ("mii", 1),
    3: ("link_failures", 4),
    6: ("aggregator", 2),
    7: ("actor_state", 1),
    8: ("partner_state", 2),
    11: ("churn_actor", 1),
    12: ("churn_partner", 1),
}
"""IFLA_BOND_SLAVE_*: field and bytes."""


@dataclass(frozen=True)
class BondData:
    """IFLA_INFO_DATA of a bond."""

    numbers: Mapping[BondField, int]
    partner_mac: str | None = None


@dataclass(frozen=True)
class Link:
    """One network device. None: the kernel does not say."""

    index: int
    name: bytes
    flags: int
    carrier: bool | None = None
    carrier_downs: int | None = None
    carrier_changes: int | None = None
    master: int | None = None
    """Index of the device that it is a port of."""
    lower: int | None = None
    """Index of the device that it stands on, in the same network namespace."""
    bond: BondData | None = None
    """Set if it is a bond."""
    vrf_table: int | None = None
    """Routing table, if it is a VRF."""
    port: Mapping[PortField, int] | None = None
    """IFLA_INFO_SLAVE_DATA, if its master is a bond."""

    @property
    def admin_up(self) -> bool:
        """IFF_UP."""
        return bool(self.flags & IFF_UP)


class Message(NamedTuple):
    """One netlink message."""

    type: int
    flags: int
    sequence: int
    payload: bytes


LINKS_REQUEST = _INFO.pack(0, 0, 0, 0, 0) + _ATTRIBUTE.pack(8, IFLA_EXT_MASK) + struct.pack("=I", _SKIP_STATS)
"""Asks for links without their statistics."""


def dump_request(type_: int, body: bytes, sequence: int) -> bytes:
    """A request for all that there is of a type."""
    return HEADER.pack(HEADER.size + len(body), type_, NLM_F_REQUEST | NLM_F_DUMP, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of a datagram, up to the first that is cut off."""
    offset = 0
    while offset + HEADER.size <= len(datagram):
        length, type_, flags, sequence, _ = HEADER.unpack_from(datagram, offset)
        if length < HEADER.size or offset + length > len(datagram):
            return
        yield Message(type_, flags, sequence, datagram[offset + HEADER.size : offset + length])
        offset += aligned(length)


def link_of(payload: bytes) -> Link | None:
    """The link that a message of type RTM_NEWLINK or RTM_DELLINK tells about; None: it has no name."""
    if len(payload) < _INFO.size:
        return None
    _, _, index, flags, _ = _INFO.unpack_from(payload)
    found = attributes(payload[_INFO.size :])
    if not (name := _text(found.get(_IFNAME))):
        return None
    info = attributes(found.get(_LINKINFO, b""))
    carrier = number_in(found.get(_CARRIER), 1)
    lower = number_in(found.get(_LINK), 4)
    return Link(
        index=index,
        name=name,
        flags=flags,
        carrier=None if carrier is None else bool(carrier),
        carrier_downs=number_in(found.get(_CARRIER_DOWNS), 4),
        carrier_changes=number_in(found.get(_CARRIER_CHANGES), 4),
        master=number_in(found.get(_MASTER), 4) or None,
        # The lower device of a container's link has an index of another namespace's.
        lower=None if _LINK_NETNSID in found else lower or None,
        bond=_bond(info) if _text(info.get(_INFO_KIND)) == b"bond" else None,
        vrf_table=_vrf_table(info) if _text(info.get(_INFO_KIND)) == b"vrf" else None,
        port=_port(info) if _text(info.get(_INFO_SLAVE_KIND)) == b"bond" else None,
    )


def error_number(message: Message) -> int:
    """errno of an NLMSG_ERROR, or of an NLMSG_DONE that ends a dump early; 0: none."""
    if len(message.payload) < 4:
        return 0
    return -int(struct.unpack_from("=i", message.payload)[0])


def aligned(length: int) -> int:
    """A length up to where the next message, attribute or next hop begins."""
    return (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by type, up to the first that is cut off."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, type_ = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            break
        found[type_ & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += aligned(length)
    return found


def number_in(data: bytes | None, size: int) -> int | None:
    """An unsigned number of `size` bytes; None if it has fewer."""
    if data is None or len(data) < size:
        return None
    return int.from_bytes(data[:size], sys.byteorder)


def _numbers(attributes: Mapping[int, bytes], table: Mapping[int, tuple[_Name, int]]) -> dict[_Name, int]:
    read = ((name, number_in(attributes.get(type_), size)) for type_, (name, size) in table.items())
    return {name: number for name, number in read if number is not None}


def _mac(data: bytes | None) -> str | None:
    return data.hex(":") if data is not None and len(data) == 6 else None


def _text(data: bytes | None) -> bytes:
    """A C string."""
    return (data or b"").partition(b"\0")[0]


def _vrf_table(info: Mapping[int, bytes]) -> int | None:
    return number_in(attributes(info.get(_INFO_DATA, b"")).get(_VRF_TABLE), 4)


def _bond(info: Mapping[int, bytes]) -> BondData:
    data = attributes(info.get(_INFO_DATA, b""))
    numbers = _numbers(data, _BOND_NUMBERS)
    lacp = attributes(data.get(_BOND_AD_INFO, b""))
    aggregator = number_in(lacp.get(_AD_AGGREGATOR), 2)
    if aggregator is not None:
        numbers["aggregator"] = aggregator
    return BondData(numbers, _mac(lacp.get(_AD_PARTNER_MAC)))


def _port(info: Mapping[int, bytes]) -> dict[PortField, int]:
    return _numbers(attributes(info.get(_INFO_SLAVE_DATA, b"")), _PORT_NUMBERS)
