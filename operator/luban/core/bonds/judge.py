"""The health of one bond: from readings and memory to a verdict. Pure; see rules.py for the rules.

A worse verdict is published at once. A better one is published when nothing worse has been found for `hold_seconds`:
what is published is the worst that was found within that time.

Times that are compared (`now`) are those of a clock that is never set; times that are shown (`wall`) are seconds since
the epoch. So a clock that is set neither ends a hold nor makes it last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from luban.api.host import MAX_PORTS, BondVerdict
from luban.core.bonds.identity import apart_from, is_same, not_replaced, successors
from luban.core.bonds.model import (
    SEVERITY,
    BondMemory,
    BondReading,
    BondSettings,
    Counted,
    Gone,
    Judgement,
    PortMemory,
    PortReading,
    Sighting,
)
from luban.core.bonds.rules import History, Match, matches, mismatch, notes, port_judgement

MISMATCH_SECONDS = 5.0
"""Aggregators are reshuffled while LACP settles: different ones count after so long."""
RECOVERY_SECONDS = 2.4
"""What LACP with the fast rate needs from carrier to traffic."""
FORGET_SECONDS = 3600.0
"""How long a bond or a port that is gone is missed, if the spec does not say that it need not be there."""
SAMPLES = 32
"""Values of a counter that are kept for one window: one port's memory stays small however fast it flaps."""
DEFAULTS = BondSettings()
HELD = " (over: now "
"""Begins what is added to the message of a verdict that is held."""


def judge_bond(
    reading: BondReading,
    expected_ports: int | None,
    memory: BondMemory | None,
    now: float,
    settings: BondSettings = DEFAULTS,
    *,
    wall: float | None = None,
    elsewhere: Mapping[int, str] = MappingProxyType({}),
) -> Judgement:
    """Judge one bond. `expected_ports` None: as many as it had at one time, not long ago. `wall` None: as `now`.

    `elsewhere`: bonds by the indexes of the ports that they have now.
    """
    wall = now if wall is None else wall
    before = memory or BondMemory()
    ports = _ports_after(reading, expected_ports, before.ports, Gone(now, wall), settings)
    present = {port.name: ports[port.name] for port in reading.ports}
    reading = _with_gone(reading, ports, elsewhere)
    mismatch_since = _since(before.mismatch_since, bool(mismatch(reading)), now)
    judged = tuple(port_judgement(port, reading) for port in reading.ports)
    total = max(expected_ports or 0, len(reading.ports))
    found = matches(reading, judged, total, _history(present, mismatch_since, now, settings), settings)
    primary = found[0]
    seen = {**counting(before.seen, now, settings), primary.verdict: Sighting(now, primary.message)}
    verdict = max(seen, key=SEVERITY.index)
    since = before.since if verdict == before.published else wall
    return Judgement(
        reading=reading,
        verdict=verdict,
        found=primary.verdict,
        reasons=tuple(match.verdict for match in found),
        message=_message(primary, verdict, seen[verdict], settings),
        notes=notes(reading),
        active=sum(port.usable is True for port in judged),
        total=total,
        since=since,
        ports=judged,
        memory=BondMemory(verdict, since, seen, mismatch_since, ports, _index(reading.index, before.index)),
    )


def recall_bond(
    live: BondMemory | None, before: BondMemory, now: float, settings: BondSettings = DEFAULTS
) -> BondMemory:
    """Memory with what was known before a restart: verdicts that still count, how old they are, and missing ports.

    `live` is what was seen since; None: nothing.
    """
    if live is None:
        return before
    counts = counting(before.seen, now, settings)
    worst = max((*counts, *counting(live.seen, now, settings)), key=SEVERITY.index, default=None)
    older = before.published == live.published and before.since <= live.since
    goes_on = before.published is not None and (older or (worst == before.published != live.published))
    published, since = (before.published, before.since) if goes_on else (live.published, live.since)
    return replace(
        live,
        published=published,
        since=since,
        seen={**counts, **live.seen},
        ports=_recalled_ports(live.ports, before.ports),
        index=_index(live.index, before.index),
    )


def counting(seen: Mapping[BondVerdict, Sighting], now: float, settings: BondSettings) -> dict[BondVerdict, Sighting]:
    """The verdicts that were found so recently that they still count."""
    return {name: one for name, one in seen.items() if now - one.last < max(settings.hold_seconds, one.keep)}


def _message(primary: Match, verdict: BondVerdict, sighting: Sighting, settings: BondSettings) -> str:
    if verdict == primary.verdict:
        return primary.message
    seconds = max(settings.hold_seconds, sighting.keep)
    held = f"{verdict} until it has been better for {seconds:g} s"
    return f"{sighting.message}{HELD}{primary.verdict}; {held})"


def _recalled_ports(live: Mapping[str, PortMemory], before: Mapping[str, PortMemory]) -> dict[str, PortMemory]:
    """Ports of both times. Those that came meanwhile take the place of as many that went."""
    were = successors(_indexes(live), _indexes(before))
    ports = {name: _recalled_port(port, before.get(were.get(name, ""))) for name, port in live.items()}
    left = {name: port for name, port in before.items() if name not in were.values()}
    arrivals = sum(port.gone is None and name not in were for name, port in live.items())
    return {**ports, **apart_from(ports, not_replaced(left, arrivals))}


def _recalled_port(live: PortMemory, before: PortMemory | None) -> PortMemory:
    """A port's memory, its counter's value before the restart included."""
    if before is None or not is_same(live.index, before.index):
        return live
    live = replace(live, index=_index(live.index, before.index))
    if before.counter != live.counter or not before.downs or not live.downs:
        return live
    older = before.downs[-1]
    return replace(live, downs=(older, *live.downs)) if older.count <= live.downs[0].count else live


def _ports_after(
    reading: BondReading,
    expected: int | None,
    before: Mapping[str, PortMemory],
    now: Gone,
    settings: BondSettings,
) -> dict[str, PortMemory]:
    """Memory of the ports after this reading, those included that are gone. `now` is when one is missed first."""
    were = successors({port.name: port.index for port in reading.ports}, _indexes(before))
    ports = {
        port.name: _remember(port, before.get(were.get(port.name, "")), now.at, settings) for port in reading.ports
    }
    left = {name: port for name, port in before.items() if name not in were.values()}
    others = apart_from(ports, not_replaced(left, len(ports) - len(were)))
    if reading.exists and reading.ports_known:
        # The kernel keeps no trace of a port that was taken out. With the number in the spec none is needed.
        missed = {} if expected is not None else others
        others = _still_missed(missed, before, len(ports), now)
    return {**ports, **others}


def _still_missed(
    missed: Mapping[str, PortMemory], before: Mapping[str, PortMemory], present: int, now: Gone
) -> dict[str, PortMemory]:
    """The ports without which there are fewer than at one time within the last hour.

    Each loss counts for an hour, and each port that comes makes up for the latest loss, whichever port that was: so
    the hour of a port may have begun with the loss of one that is back.
    """
    losses = sorted(port.gone.at for port in before.values() if port.gone is not None)
    fewer = len(before) - len(losses) - present
    losses = losses + fewer * [now.at] if fewer > 0 else losses[: max(0, len(losses) + fewer)]
    oldest_first = sorted(missed.items(), key=lambda item: now.at if item[1].gone is None else item[1].gone.at)
    counted = [
        (name, replace(port, gone=replace(port.gone or now, at=at)))
        for (name, port), at in zip(oldest_first, losses, strict=False)
        if now.at - at < FORGET_SECONDS
    ]
    return dict(counted[-MAX_PORTS:])


def _with_gone(reading: BondReading, ports: Mapping[str, PortMemory], elsewhere: Mapping[int, str]) -> BondReading:
    if not (reading.exists and reading.ports_known):
        return reading
    present = {port.name for port in reading.ports}
    lost = [
        PortReading(
            name,
            index=port.index,
            gone_since=port.gone.since,
            gone_to="" if port.index is None else elsewhere.get(port.index, ""),
        )
        for name, port in sorted(ports.items())
        if port.gone is not None and name not in present
    ]
    return replace(reading, ports=(*reading.ports, *lost))


def _indexes(ports: Mapping[str, PortMemory]) -> dict[str, int | None]:
    return {name: port.index for name, port in ports.items()}


def _index(now: int | None, before: int | None) -> int | None:
    return before if now is None else now


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _history(
    ports: Mapping[str, PortMemory], mismatch_since: float | None, now: float, settings: BondSettings
) -> History:
    counts = ((name, _downs_within(port, now, settings)) for name, port in ports.items())
    return History(
        mismatch_lasts=mismatch_since is not None and now - mismatch_since >= MISMATCH_SECONDS,
        flaps=tuple((name, count) for name, count in counts if count >= settings.flapping_downs),
        recovering=tuple(name for name, port in ports.items() if _recovers(port, now)),
    )


def _recovers(port: PortMemory, now: float) -> bool:
    return bool(port.carrier) and port.carrier_up_at is not None and now - port.carrier_up_at < RECOVERY_SECONDS


def _remember(port: PortReading, before: PortMemory | None, now: float, settings: BondSettings) -> PortMemory:
    """Memory of a port after this reading."""
    counter, count = _downs_counter(port)
    if before is None or not is_same(port.index, before.index):
        return PortMemory(port.carrier, None, counter, _first(count, now), index=port.index)
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
    counter = counter if count is not None else before.counter
    return PortMemory(carrier, up_at, counter, downs, index=_index(port.index, before.index))


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


def _downs_within(port: PortMemory, now: float, settings: BondSettings) -> int:
    """How often the carrier went within the window."""
    if not port.downs:
        return 0
    start = now - settings.flapping_window_seconds
    old = [one for one in port.downs if one.at <= start]
    baseline = old[-1] if old else port.downs[0]
    return port.downs[-1].count - baseline.count
