"""What the agent says about its members, from the table and the last look at httpd: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from luban.adapters.apache_httpd.connections import Endpoint
from luban.adapters.apache_httpd.manager import LiveSlot
from luban.balancer_agent.drain_watch import DrainWatch
from luban.balancer_agent.requests import Answers
from luban.balancer_agent.slots import Slot, Table
from luban.core.model import MemberReport, MemberState
from luban.render.balancer import route_of


@dataclass(frozen=True)
class HttpdLook:
    """The last look at httpd."""

    live: Mapping[str, LiveSlot] = field(default_factory=dict)
    """Slots by name."""
    connections: Counter[Endpoint] = field(default_factory=Counter)
    quiet: Mapping[str, DrainWatch] = field(default_factory=dict)
    """By slot name, for closed slots with a member."""
    sessions: Mapping[str, int] = field(default_factory=dict)
    """Sticky sessions of the last minute by member."""
    sticky: bool = False
    """Whether there are sticky sessions. If not, or if they are more, requests in flight count as sessions: a WebSocket
    is logged only when it ends."""


def member_reports(
    table: Table, seen: HttpdLook, failing: Collection[str], answers: Mapping[str, Answers]
) -> tuple[MemberReport, ...]:
    """One report per member, those included that are not wanted any more but may have requests in flight.

    `answers`: by route.
    """
    held: dict[str, list[Slot]] = {}
    # A member that moved to another address has two slots: the one that is not leaving comes first.
    for slot in sorted(table, key=lambda slot: slot.leaving):
        if slot.member:
            held.setdefault(slot.serves, []).append(slot)
    return tuple(
        _report(name, held[name], seen, name in failing, answers.get(route_of(name), Answers()))
        for name in sorted(held)
    )


def why_not_ready(live: Mapping[str, LiveSlot]) -> str:
    """Why clients should not be sent to an httpd with these slots; empty: they should.

    A balancer that is new has no VM yet, and would answer 503 while others serve.
    """
    if not live:
        return "httpd does not serve"
    return "" if any(_state(slot) == "Enabled" for slot in live.values()) else "no VM takes requests"


def _report(name: str, slots: Sequence[Slot], seen: HttpdLook, failing: bool, answers: Answers) -> MemberReport:
    first, live = slots[0], seen.live.get(slots[0].name)
    in_flight = sum(seen.connections[endpoint] for endpoint in {slot.endpoint for slot in slots})
    return MemberReport(
        name=name,
        state=_state(live),
        address=first.address,
        port=first.port,
        healthy=not failing and not (live is not None and live.in_error),
        in_flight=in_flight,
        sessions=max(seen.sessions.get(name, 0) if seen.sticky else 0, in_flight),
        drained=all(slot.name in seen.quiet and seen.quiet[slot.name].drained for slot in slots),
        served=sum(_served(slot, seen.live.get(slot.name)) for slot in slots),
        answers=answers.count,
        answer_seconds=answers.seconds,
    )


def _state(live: LiveSlot | None) -> MemberState:
    """What httpd does with a slot, in the operator's words. One that it does not know takes nothing."""
    if live is None:
        return "Disabled"
    if "N" in live.state.flags:
        return "Draining"
    return "Disabled" if "D" in live.state.flags else "Enabled"


def _served(slot: Slot, live: LiveSlot | None) -> int:
    """Requests of this member. A reload sets httpd's counter back to zero."""
    if live is None:
        return 0
    return live.served - slot.served_before if live.served >= slot.served_before else live.served
