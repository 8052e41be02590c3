"""Routes, rules and next-hop objects of rtnetlink, decoded as far as default routes are concerned.

Numbers are those of the uapi headers rtnetlink.h, fib_rules.h and nexthop.h. As in wire.py the decoder never
raises. A host may have hundreds of thousands of routes: what no default route can be made of is
left by one look at its header.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from luban.adapters.kernel_bonds.routes import LONGEST_PART, Route, Rule
from luban.adapters.kernel_bonds.wire import aligned, attributes, number_in

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWRULE, RTM_GETRULE = 32, 34
RTM_NEWNEXTHOP, RTM_GETNEXTHOP = 104, 106

_ROUTE = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, destination's and source's bits, TOS, table, protocol, scope, type, flags."""
_RULE = struct.Struct("=BBBBBBBBI")
"""fib_rule_hdr: family, destination's and source's bits, TOS, table, two reserved, action, flags."""
_NEXTHOP = struct.Struct("=BBBxI")
"""nhmsg: family, scope, protocol, flags."""
ROUTES_REQUEST, RULES_REQUEST, NEXTHOPS_REQUEST = bytes(_ROUTE.size), bytes(_RULE.size), bytes(_NEXTHOP.size)
"""Ask for those of all families and tables."""
_HOP = struct.Struct("=HBBi")
"""rtnexthop: length, flags, weight, device."""
_MEMBER = struct.Struct("=IBBH")
"""nexthop_grp: number, weight, its upper half, reserved."""
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_UNICAST, _TO_TABLE = 1, 1
_CLONED, _INVERTED = 0x200, 0x2
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_NH_ID = 1, 4, 6, 9, 15, 30
_FRA_PRIORITY, _FRA_SUPPRESS_LENGTH, _FRA_TABLE, _FRA_L3MDEV = 6, 14, 15, 19
_FRA_INDIFFERENT = {_FRA_PRIORITY, 11, 13, _FRA_SUPPRESS_LENGTH, _FRA_TABLE, 18, 21}
"""What does not narrow a rule: also its realm, suppressed interface group, padding and origin."""
_NHA_ID, _NHA_GROUP, _NHA_OIF = 1, 2, 5


@dataclass(frozen=True)
class NextHop:
    """A next-hop object, or a group of some."""

    number: int
    device: int | None
    members: tuple[int, ...] = ()


def route_of(payload: bytes) -> Route[int] | None:
    """The message's route, if a default route may be made of it."""
    if len(payload) < _ROUTE.size or payload[1] > LONGEST_PART or payload[0] not in _FAMILIES:
        return None
    family, length, _, _, table, _, _, type_, flags = _ROUTE.unpack_from(payload)
    if type_ != _UNICAST or flags & _CLONED:
        return None
    found = attributes(payload[_ROUTE.size :])
    return Route(
        family=family,
        destination=int.from_bytes(found.get(_RTA_DST, b""), "big"),
        length=length,
        devices=tuple(_devices(found)),
        metric=number_in(found.get(_RTA_PRIORITY), 4) or 0,
        table=number_in(found.get(_RTA_TABLE), 4) or table,
        nexthop=number_in(found.get(_RTA_NH_ID), 4),
    )


def rule_of(payload: bytes) -> Rule | None:
    """The message's rule, if it leads to a table."""
    if len(payload) < _RULE.size:
        return None
    family, to, from_, tos, table, _, _, action, flags = _RULE.unpack_from(payload)
    if family not in _FAMILIES or action != _TO_TABLE:
        return None
    found = attributes(payload[_RULE.size :])
    suppressed = number_in(found.get(_FRA_SUPPRESS_LENGTH), 4)
    return Rule(
        family=family,
        priority=number_in(found.get(_FRA_PRIORITY), 4) or 0,
        table=number_in(found.get(_FRA_TABLE), 4) or table,
        selective=bool(to or from_ or tos or flags & _INVERTED or found.keys() - _FRA_INDIFFERENT),
        suppressed=-1 if suppressed is None or suppressed > 128 else suppressed,
        for_vrfs=bool(number_in(found.get(_FRA_L3MDEV), 1)),
    )


def nexthop_of(payload: bytes) -> NextHop | None:
    """The message's next hop."""
    found = attributes(payload[_NEXTHOP.size :])
    number = number_in(found.get(_NHA_ID), 4)
    if number is None:
        return None
    group = found.get(_NHA_GROUP, b"")
    whole = len(group) - len(group) % _MEMBER.size
    members = tuple(member for member, *_ in _MEMBER.iter_unpack(group[:whole]))
    return NextHop(number, number_in(found.get(_NHA_OIF), 4), members)


def with_devices(route: Route[int], nexthops: Mapping[int, NextHop]) -> Route[int]:
    """The route with the devices of its next-hop object, if it has none of its own. Groups hold no groups."""
    hop = nexthops.get(-1 if route.nexthop is None else route.nexthop)
    if route.devices or hop is None:
        return route
    hops = (hop, *(nexthops[member] for member in hop.members if member in nexthops))
    return replace(route, devices=tuple(one.device for one in hops if one.device is not None))


def _devices(route: Mapping[int, bytes]) -> Iterator[int]:
    if (device := number_in(route.get(_RTA_OIF), 4)) is not None:
        yield device
    hops, offset = route.get(_RTA_MULTIPATH, b""), 0
    while offset + _HOP.size <= len(hops):
        length, _, _, device = _HOP.unpack_from(hops, offset)
        if length < _HOP.size:
            return
        yield device
        offset += aligned(length)
