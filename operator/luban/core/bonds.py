"""The health of a host's bonds: from readings and memory to verdicts. Pure; see bond_rules for the rules.

A worse verdict is published at once. A better one is published when nothing worse has been found for `hold_seconds`:
what is published is the worst that was found within that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from luban.api.host import BondVerdict
from luban.core.bond_model import (
    SEVERITY,
    BondMemory,
    BondReading,
    Counted,
    HostReading,
    Judgement,
    PortMemory,
    PortReading,
    Settings,
    Sighting,
)
from luban.core.bond_rules import History, matches, mismatch, notes, port_judgement

MISMATCH_SECONDS = 5.0
"""Aggregators are reshuffled while LACP settles: different ones count after so long."""
RECOVERY_SECONDS = 2.4
"""What LACP with the fast rate needs from carrier to traffic."""
SAMPLES = 32
"""Values of a counter that are kept for one window: one port's memory stays small however fast it flaps."""
DEFAULTS = Settings()


def judge(
    reading: BondReading,
    expected_ports: int | None,
    memory: BondMemory | None,
    now: float,
    settings: Settings = DEFAULTS,
) -> Judgement:
    """Judge one bond. `expected_ports` None: as many as there are. `now` in seconds since the epoch."""
    before = _not_after(memory or BondMemory(), now)
    ports = {port.name: _remember(port, before.ports.get(port.name), now, settings) for port in reading.ports}
    mismatch_since = _since(before.mismatch_since, bool(mismatch(reading)), now)
    history = _history(ports, mismatch_since, now, settings)
    judged = tuple(port_judgement(port, reading) for port in reading.ports)
    total = max(expected_ports or 0, len(reading.ports))
    found = matches(reading, judged, total, history, settings)
    primary = found[0]
    seen = _sightings(before.seen, primary.verdict, Sighting(now, primary.message), now, settings)
    verdict = max(seen, key=SEVERITY.index)
    since = before.since if verdict == before.published else now
    message = primary.message
    if verdict != primary.verdict:
        held = f"{verdict} until it has been better for {settings.hold_seconds:g} s"
        message = f"{seen[verdict].message} (over: now {primary.verdict}; {held})"
    return Judgement(
        reading=reading,
        verdict=verdict,
        found=primary.verdict,
        reasons=tuple(match.verdict for match in found),
        message=message,
        notes=notes(reading),
        active=sum(port.usable is True for port in judged),
        total=total,
        since=since,
        ports=judged,
        memory=BondMemory(verdict, since, seen, mismatch_since, ports),
    )


def recall(memory: BondMemory, verdict: BondVerdict, since: float) -> BondMemory:
    """Memory with what was published before a restart: a verdict that is still the same is as old as it was."""
    if memory.published != verdict or since >= memory.since:
        return memory
    return replace(memory, since=since)


@dataclass(frozen=True)
class Wish:
    """What the spec says about a host."""

    bond: str = ""
    """Name of the bond that matters; empty: the one with the default route."""
    expected_ports: Mapping[str, int] = field(default_factory=dict)
    """Number of ports by bond."""
    settings: Settings = DEFAULTS


@dataclass(frozen=True)
class HostJudgement:
    """All bonds of a host."""

    bonds: tuple[Judgement, ...]
    """Those that are there and those that the spec names, by name."""
    primary: Judgement | None
    """The one that matters; None: there is no bond."""
    trouble: str
    """Why nothing could be read; empty: it could."""
    memory: Mapping[str, BondMemory]

    @property
    def verdict(self) -> BondVerdict:
        """The host's: None without a bond; Unknown if nothing could be read."""
        if self.primary is not None:
            return self.primary.verdict
        return "Unknown" if self.trouble else "None"


def judge_host(reading: HostReading, wish: Wish, memory: Mapping[str, BondMemory], now: float) -> HostJudgement:
    """Judge all bonds. Bonds that the spec names and the kernel does not have are Down.

    A reading with `trouble` has the bonds known before, emptied by `blank`: they are Unknown.
    """
    bonds = {bond.name: bond for bond in reading.bonds}
    if not reading.trouble:
        for name in {*wish.expected_ports, *([wish.bond] if wish.bond else [])} - bonds.keys():
            bonds[name] = BondReading(name, exists=False)
    judged = {
        name: judge(bonds[name], wish.expected_ports.get(name), memory.get(name), now, wish.settings)
        for name in sorted(bonds)
    }
    chosen = primary(replace(reading, bonds=tuple(bonds.values())), wish.bond)
    return HostJudgement(
        bonds=tuple(judged.values()),
        primary=judged[chosen.name] if chosen else None,
        trouble=reading.trouble,
        memory={name: judgement.memory for name, judgement in judged.items()},
    )


def blank(reading: HostReading, trouble: str, at: float) -> HostReading:
    """The same bonds with nothing known about them any more."""
    bonds = tuple(BondReading(bond.name, ports_known=False, carries=bond.carries) for bond in reading.bonds)
    return HostReading(at, bonds, reading.default_devices, trouble)


def primary(reading: HostReading, wanted: str = "") -> BondReading | None:
    """The bond that matters: the wanted one; else the one that carries the default route; else the first by name.

    The route's device may be the bond itself or stand on top of it: a bridge (IFLA_MASTER) or a VLAN (IFLA_LINK).
    None: there is no bond, or not the wanted one.
    """
    bonds = {bond.name: bond for bond in reading.bonds}
    if wanted:
        return bonds.get(wanted)
    for device in reading.default_devices:
        if device in bonds:
            return bonds[device]
        if below := [bond for bond in reading.bonds if device in bond.carries]:
            return min(below, key=lambda bond: bond.name)
    existing = [bond for bond in reading.bonds if bond.exists] or list(reading.bonds)
    return min(existing, key=lambda bond: bond.name, default=None)


def _not_after(memory: BondMemory, now: float) -> BondMemory:
    """Memory as of `now` at most: a clock that was set back must not make a hold last for hours."""
    return replace(
        memory,
        since=min(memory.since, now),
        seen={verdict: replace(one, last=min(one.last, now)) for verdict, one in memory.seen.items()},
        mismatch_since=None if memory.mismatch_since is None else min(memory.mismatch_since, now),
        ports={name: _port_not_after(port, now) for name, port in memory.ports.items()},
    )


def _port_not_after(port: PortMemory, now: float) -> PortMemory:
    up_at = None if port.carrier_up_at is None else min(port.carrier_up_at, now)
    return replace(port, carrier_up_at=up_at, downs=tuple(replace(one, at=min(one.at, now)) for one in port.downs))


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _sightings(
    before: Mapping[BondVerdict, Sighting], verdict: BondVerdict, sighting: Sighting, now: float, settings: Settings
) -> dict[BondVerdict, Sighting]:
    """The verdicts found within the hold, now's included."""
    recent = {name: one for name, one in before.items() if now - one.last < settings.hold_seconds}
    return {**recent, verdict: sighting}


def _history(ports: Mapping[str, PortMemory], mismatch_since: float | None, now: float, settings: Settings) -> History:
    counts = ((name, _downs_within(port, now, settings)) for name, port in ports.items())
    return History(
        mismatch_lasts=mismatch_since is not None and now - mismatch_since >= MISMATCH_SECONDS,
        flaps=tuple((name, count) for name, count in counts if count >= settings.flapping_downs),
        recovering=tuple(name for name, port in ports.items() if _recovers(port, now)),
    )


def _recovers(port: PortMemory, now: float) -> bool:
    return bool(port.carrier) and port.carrier_up_at is not None and now - port.carrier_up_at < RECOVERY_SECONDS


def _remember(port: PortReading, before: PortMemory | None, now: float, settings: Settings) -> PortMemory:
    """Memory of a port after this reading."""
    counter, count = _downs_counter(port)
    if before is None:
        return PortMemory(port.carrier, None, counter, _first(count, now))
    downs = before.downs
    if count is not None:
        if counter != before.counter or not downs or count < downs[-1].count:
            # Another counter, or one that began anew: the difference to the old one means nothing.
            downs = _first(count, now)
        else:
            downs = tuple(_counted(downs, count, now, settings.flapping_window_seconds))
    carrier = before.carrier if port.carrier is None else port.carrier
    missed = count is not None and counter == before.counter and bool(before.downs) and count > before.downs[-1].count
    came_back = bool(port.carrier) and (before.carrier is False or missed)
    up_at = now if came_back else before.carrier_up_at
    return PortMemory(carrier, up_at, counter if count is not None else before.counter, downs)


def _downs_counter(port: PortReading) -> tuple[str, int | None]:
    """The kernel's own count of lost carriers, or where that is missing the bond's, which sees fewer."""
    if port.carrier_downs is not None:
        return "carrier", port.carrier_downs
    return "bond", port.link_failures


def _first(count: int | None, now: float) -> tuple[Counted, ...]:
    return () if count is None else (Counted(now, count),)


def _counted(downs: tuple[Counted, ...], count: int, now: float, window: float) -> Iterable[Counted]:
    """The values that the window needs: those within it, and the last one before."""
    start = now - window
    old = [one for one in downs if one.at <= start]
    kept = [*old[-1:], *(one for one in downs if one.at > start)]
    if count == kept[-1].count:
        return kept
    latest = Counted(now, count)
    # The first value is what all others are compared with, so it is never replaced.
    crowded = len(kept) > 1 and now - kept[-2].at < window / SAMPLES
    return [*kept[:-1], latest] if crowded else [*kept, latest]


def _downs_within(port: PortMemory, now: float, settings: Settings) -> int:
    """How often the carrier went within the window."""
    if not port.downs:
        return 0
    start = now - settings.flapping_window_seconds
    old = [one for one in port.downs if one.at <= start]
    baseline = old[-1] if old else port.downs[0]
    return port.downs[-1].count - baseline.count
