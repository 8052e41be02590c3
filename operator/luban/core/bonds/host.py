"""The health of a host's bonds, and which of them matters. Pure; see judge.py for a single bond.

What was there counts until somebody says otherwise: a bond that is gone is Down, and the bond that carried the default
route goes on to matter when it loses the route, for that is what its failure looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from luban.api.host import MAX_BONDS, BondVerdict, ChosenBy
from luban.core.bonds.identity import (
    BondIdentity,
    after_reboot,
    bond_successors,
    identity_of_memory,
    identity_of_reading,
)
from luban.core.bonds.judge import DEFAULTS, FORGET_SECONDS, judge_bond, recall_bond
from luban.core.bonds.model import (
    SEVERITY,
    BondMemory,
    BondReading,
    BondSettings,
    Gone,
    HostReading,
    Judgement,
)


@dataclass(frozen=True)
class BondExpectation:
    """What the spec says about a host."""

    bond: str = ""
    """Name of the bond that matters; empty: the one with the default route."""
    expected_ports: Mapping[str, int] = field(default_factory=dict)
    """Number of ports by bond."""
    settings: BondSettings = DEFAULTS


@dataclass(frozen=True)
class Route:
    """Which bond carries the default route."""

    bond: str = ""
    """The one that does or did last; empty: none was ever seen to."""
    rival: str = ""
    """Another one that does now, but not for long enough yet."""
    rival_since: float = 0.0
    """Seconds of the clock that readings are judged by."""


@dataclass(frozen=True)
class HostMemory:
    """What is remembered of a host."""

    bonds: Mapping[str, BondMemory] = field(default_factory=dict)
    known: Mapping[str, Gone | None] = field(default_factory=dict)
    """The bonds that are or were there, each with when it went away."""
    route: Route = Route()
    boot: str = ""
    """Which start of the kernel the indexes are of; empty: not known."""


@dataclass(frozen=True)
class HostJudgement:
    """All bonds of a host."""

    bonds: tuple[Judgement, ...]
    """Those that are or were there and those that the spec names, by name."""
    primary: Judgement | None
    """The one that matters; None: there is no bond."""
    chosen_by: ChosenBy | None
    """Why that one."""
    trouble: str
    """Why nothing could be read; empty: it could."""
    memory: HostMemory

    @property
    def verdict(self) -> BondVerdict:
        """The host's: None without a bond, now and of late; Unknown if nothing could be read."""
        if self.primary is not None:
            return self.primary.verdict
        return "Unknown" if self.trouble else "None"


def judge_host(
    reading: HostReading, expectation: BondExpectation, memory: HostMemory, now: float, wall: float | None = None
) -> HostJudgement:
    """Judge all bonds, those included that the spec names or memory knows and the kernel does not have.

    `now`: seconds of a clock that is never set. `wall`: the same moment in seconds since the epoch; None: as `now`.
    """
    wall = now if wall is None else wall
    if not reading.trouble:
        memory = _as_called_now(memory, {bond.name: identity_of_reading(bond) for bond in reading.bonds}, reading.boot)
    known = _known(memory.known, reading, expectation, now, wall)
    bonds = {bond.name: bond for bond in reading.bonds}
    for name in {*known, *expectation.expected_ports, *([expectation.bond] if expectation.bond else [])} - bonds.keys():
        bonds[name] = _absent(name, known.get(name), trouble=bool(reading.trouble))
    elsewhere = {port.index: bond.name for bond in reading.bonds for port in bond.ports if port.index is not None}
    judged = {
        name: judge_bond(
            bonds[name],
            expectation.expected_ports.get(name),
            memory.bonds.get(name),
            now,
            expectation.settings,
            wall=wall,
            elsewhere=elsewhere,
        )
        for name in sorted(bonds)
    }
    route = memory.route if memory.route.bond in judged else Route()
    if not reading.trouble:
        route = followed(route, carrier_of_route(reading), now, expectation.settings.hold_seconds)
    chosen, why = _chosen(judged, expectation.bond, route.bond)
    remembered = {name: judgement.memory for name, judgement in judged.items()}
    memory = HostMemory(remembered, known, route, reading.boot or memory.boot)
    return HostJudgement(tuple(judged.values()), chosen, why, reading.trouble, memory)


def carrier_of_route(reading: HostReading) -> str:
    """Name of the bond that carries the default route, empty if none does.

    The route's device may be the bond itself or stand on top of it: a bridge (IFLA_MASTER) or a VLAN (IFLA_LINK).
    """
    names = {bond.name for bond in reading.bonds}
    for device in reading.default_devices:
        if device in names:
            return device
        if below := [bond.name for bond in reading.bonds if device in bond.carries]:
            return min(below)
    return ""


def followed(before: Route, carrier: str, now: float, hold: float) -> Route:
    """The route's bond, when `carrier` has the route now (empty: none).

    Networks are set up so that a bond without carrier loses its routes: that it has none must not make another bond
    matter at once, nor a route that comes and goes. Another one counts when it had the route for `hold` seconds.
    """
    if not carrier or carrier == before.bond:
        return Route(before.bond)
    if not before.bond:
        return Route(carrier)
    since = before.rival_since if carrier == before.rival else now
    return Route(carrier) if now - since >= hold else Route(before.bond, carrier, since)


def recall_host(live: HostMemory, before: HostMemory, now: float, settings: BondSettings = DEFAULTS) -> HostMemory:
    """`live` memory with what was known before a restart."""
    there = {name: identity_of_memory(live.bonds[name]) for name, gone in live.known.items() if gone is None}
    before = _as_called_now(before, there, live.boot)
    bonds = {name: recall_bond(live.bonds.get(name), memory, now, settings) for name, memory in before.bonds.items()}
    route = before.route if before.route.bond else live.route
    if route.bond != live.route.bond and live.route.bond:
        route = Route(route.bond, live.route.bond, now)
    return HostMemory({**live.bonds, **bonds}, {**before.known, **live.known}, route, live.boot or before.boot)


def without_gone(memory: HostMemory) -> HostMemory:
    """Memory in which nothing is missed that is gone by now."""
    known = {name: None for name, gone in memory.known.items() if gone is None}
    bonds = {
        name: replace(bond, ports={port: it for port, it in bond.ports.items() if it.gone is None})
        for name, bond in memory.bonds.items()
    }
    return replace(memory, bonds=bonds, known=known)


def _as_called_now(memory: HostMemory, now: Mapping[str, BondIdentity], boot: str) -> HostMemory:
    """Memory by the names that bonds have now. A bond whose name another one has now is forgotten."""
    if boot and memory.boot and boot != memory.boot:
        memory = replace(memory, bonds={name: after_reboot(bond) for name, bond in memory.bonds.items()})
    were = bond_successors(now, {name: identity_of_memory(bond) for name, bond in memory.bonds.items()})
    if all(name == old for name, old in were.items()):
        return memory
    names = {old: name for name, old in were.items()}
    names = {old: old for old in memory.bonds.keys() - names.keys() - now.keys()} | names
    route = memory.route
    return replace(
        memory,
        bonds={names[old]: bond for old, bond in memory.bonds.items() if old in names},
        known={names[old]: gone for old, gone in memory.known.items() if old in names},
        route=Route(names.get(route.bond, route.bond), names.get(route.rival, route.rival), route.rival_since),
    )


def _known(
    before: Mapping[str, Gone | None], reading: HostReading, expectation: BondExpectation, now: float, wall: float
) -> dict[str, Gone | None]:
    """The bonds that are or were there. One that is gone is forgotten after a while, or when the spec names another."""
    if reading.trouble:
        return dict(before)
    there = {bond.name: None for bond in reading.bonds if bond.exists}
    gone = {name: since or Gone(now, wall) for name, since in before.items() if name not in there}
    missed = [
        (name, since)
        for name, since in gone.items()
        if now - since.at < FORGET_SECONDS and expectation.bond in ("", name)
    ]
    missed.sort(key=lambda one: -one[1].at)
    return {**there, **dict(missed[:MAX_BONDS])}


def _absent(name: str, gone: Gone | None, *, trouble: bool) -> BondReading:
    if trouble:
        return BondReading(name, ports_known=False)
    return BondReading(name, exists=False, gone_since=None if gone is None else gone.since)


def _chosen(judged: Mapping[str, Judgement], wanted: str, route: str) -> tuple[Judgement, ChosenBy] | tuple[None, None]:
    """The bond that matters: the wanted one; else the one with the default route; else the worst."""
    if wanted:
        return judged[wanted], "Spec"
    if route:
        return judged[route], "DefaultRoute"
    if not judged:
        return None, None
    worst = max(SEVERITY.index(bond.verdict) for bond in judged.values())
    return next(bond for bond in judged.values() if SEVERITY.index(bond.verdict) == worst), "Worst"
