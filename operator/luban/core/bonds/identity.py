"""Who is who among devices. Each has an index of the kernel's, which it keeps when it is renamed; names change hands.

Where an index is not known, on either side, the name decides. Indexes mean nothing after a reboot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from luban.core.bonds.model import BondMemory, BondReading, Gone, PortMemory

Indexes = Mapping[str, int | None]
"""Devices by name."""


@dataclass(frozen=True)
class BondIdentity:
    """What a bond is known by."""

    index: int | None
    port_indexes: frozenset[int]
    port_names: frozenset[str]

    def shared(self, other: BondIdentity) -> int:
        """Number of ports that both have or had."""
        if self.port_indexes and other.port_indexes:
            return len(self.port_indexes & other.port_indexes)
        return len(self.port_names & other.port_names)


def is_same(one: int | None, other: int | None) -> bool:
    """Whether two indexes may be one device's."""
    return one is None or other is None or one == other


def successors(now: Indexes, before: Indexes) -> dict[str, str]:
    """The names of now, each with the name of before whose place it has: the same device, or else one of that name."""
    known = {index: name for name, index in before.items() if index is not None}
    found = {name: known[index] for name, index in now.items() if index in known}
    taken = set(found.values())
    return found | {name: name for name in now if name not in found and name in before and name not in taken}


def not_replaced(left: Mapping[str, PortMemory], arrivals: int) -> dict[str, PortMemory]:
    """Ports that are missed although so many new ones came: each takes the place of the one that went last."""
    newest_first = sorted(left, key=lambda name: (-_gone_at(left[name].gone), name))
    return {name: left[name] for name in newest_first[arrivals:]}


def apart_from(names: Mapping[str, object], left: Mapping[str, PortMemory]) -> dict[str, PortMemory]:
    """`left` by names that are not among `names`: whoever has such a name now is another device."""
    return {_distinct(name, port) if name in names else name: port for name, port in left.items()}


def bond_successors(now: Mapping[str, BondIdentity], before: Mapping[str, BondIdentity]) -> dict[str, str]:
    """As `successors`; and a new bond that has ports of one that is gone takes its place."""
    found = successors({name: it.index for name, it in now.items()}, {name: it.index for name, it in before.items()})
    for name in sorted(now.keys() - found.keys()):
        left = sorted(before.keys() - found.values() - now.keys())
        heir_of = max(left, key=lambda old: now[name].shared(before[old]), default="")
        if heir_of and now[name].shared(before[heir_of]):
            found[name] = heir_of
    return found


def identity_of_reading(bond: BondReading) -> BondIdentity:
    """A bond that is there."""
    return _identity(bond.index, {port.name: port.index for port in bond.ports})


def identity_of_memory(bond: BondMemory) -> BondIdentity:
    """A bond that is or was there, with the ports that it has or had."""
    return _identity(bond.index, {name: port.index for name, port in bond.ports.items()})


def after_reboot(bond: BondMemory) -> BondMemory:
    """A bond without what the kernel counts from its start: indexes and losses of carrier."""
    ports = {name: replace(port, index=None, counter="", downs=()) for name, port in bond.ports.items()}
    return replace(bond, index=None, ports=ports)


def _identity(index: int | None, ports: Indexes) -> BondIdentity:
    return BondIdentity(index, frozenset(it for it in ports.values() if it is not None), frozenset(ports))


def _gone_at(gone: Gone | None) -> float:
    """Those that are missed from now on are the last."""
    return math.inf if gone is None else gone.at


def _distinct(name: str, port: PortMemory) -> str:
    return f"{name} (former)" if port.index is None else f"{name} (ifindex {port.index})"
