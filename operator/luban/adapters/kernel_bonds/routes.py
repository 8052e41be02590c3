"""Which of the kernel's routes are default routes, and in which order it prefers them. Pure.

What leads everywhere is a default route, whatever it is made of: 0.0.0.0/0 and ::/0; prefixes that cover all unicast
addresses together, such as 0.0.0.0/1 and 128.0.0.0/1; and 2000::/3, which is all that is routed of IPv6. It may stand
in any table that a rule leads to.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

MAIN_TABLE = 254
LONGEST_PART = 8
"""Bits of the prefixes that a default route may be made of, at most."""
_BITS: Mapping[int, int] = {socket.AF_INET: 32, socket.AF_INET6: 128}
_UNICAST: Mapping[int, tuple[int, int]] = {
    socket.AF_INET: (0x01 << 24, (0xE0 << 24) - 1),
    socket.AF_INET6: (0x01 << 120, (0xFE << 120) - 1),
}
"""First and last address: neither "this network" nor multicast and what is above it."""
_GLOBAL_V6 = (0x2 << 124, 3)
Device = TypeVar("Device", int, bytes)
"""Index or name."""


@dataclass(frozen=True)
class Route(Generic[Device]):
    """A route for unicast. `destination` is the prefix's first address as a number."""

    family: int
    destination: int
    length: int
    devices: tuple[Device, ...]
    """Of all its next hops."""
    metric: int = 0
    table: int = MAIN_TABLE
    nexthop: int | None = None
    """Number of the next-hop object that has the devices."""

    @property
    def prefix(self) -> tuple[int, int]:
        """First address and length."""
        return self.destination, self.length

    @property
    def leads_everywhere(self) -> bool:
        """Whether it does so alone."""
        return not self.length or (self.family, self.prefix) == (socket.AF_INET6, _GLOBAL_V6)


@dataclass(frozen=True)
class Rule:
    """A rule of the policy database that leads to a table."""

    family: int
    priority: int
    table: int
    selective: bool = False
    """It holds for some packets only."""
    suppressed: int = -1
    """Routes with prefixes of so many bits or fewer are passed over; -1: none is."""
    for_vrfs: bool = False
    """It leads to each VRF's table instead."""


def default_devices(
    routes: Collection[Route[Device]], rules: Sequence[Rule] = (), vrf_tables: Collection[int] = ()
) -> list[Device]:
    """Devices of the default routes, the preferred ones first; without rules those of the main table.

    What holds for all packets comes before what holds for some, IPv4 before IPv6, then as the kernel looks: rules by
    priority, longer prefixes, lower metrics.
    """
    rules = [*rules, *(Rule(family, 0, MAIN_TABLE) for family in _BITS if family not in {it.family for it in rules})]
    found: list[Device] = []
    for rule in sorted(rules, key=lambda it: (it.selective, it.family, it.priority)):
        tables = vrf_tables if rule.for_vrfs else (rule.table,)
        seen = [it for it in routes if it.family == rule.family and it.table in tables and it.length > rule.suppressed]
        for table in tables:
            found += _devices([it for it in seen if it.table == table], rule.family)
    return list(dict.fromkeys(found))


def _devices(routes: Sequence[Route[Device]], family: int) -> list[Device]:
    """Devices of the default routes of one table."""
    chosen = [route for route in routes if route.leads_everywhere]
    chosen += _covering([route for route in routes if route.length], family)
    chosen.sort(key=lambda route: (-route.length, route.metric))
    return [device for route in chosen for device in route.devices]


def _covering(parts: Sequence[Route[Device]], family: int) -> list[Route[Device]]:
    """The routes that lead everywhere together, without those within another's prefix; none if they do not."""
    prefixes = {route.prefix for route in parts}
    outer = {prefix for prefix in prefixes if prefixes.isdisjoint(_around(prefix, family))}
    sizes = {prefix: _unicast_size(prefix, family) for prefix in outer}
    first, last = _UNICAST[family]
    if sum(sizes.values()) < last - first + 1:
        return []
    return [route for route in parts if sizes.get(route.prefix)]


def _around(prefix: tuple[int, int], family: int) -> Iterable[tuple[int, int]]:
    """The shorter prefixes that hold this one, but for that of all addresses."""
    destination, length = prefix
    bits = _BITS[family]
    return ((destination >> bits - shorter << bits - shorter, shorter) for shorter in range(1, length))


def _unicast_size(prefix: tuple[int, int], family: int) -> int:
    """Number of unicast addresses with this prefix."""
    destination, length = prefix
    first, last = _UNICAST[family]
    end = destination + (1 << _BITS[family] - length) - 1
    return max(0, min(end, last) - max(destination, first) + 1)
