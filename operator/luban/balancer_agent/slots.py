"""Which of httpd's slots serves which member, and in which state each slot should be: pure functions.

A slot's life: free (parked, disabled) -> pointed at a member -> settled (httpd looks names up again within a second) ->
open -> closed -> drained -> free. The table is what the agent remembers; everything in httpd follows from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from luban.adapters.apache_httpd.manager import LiveSlot, SlotState
from luban.core.model import Member, MemberState
from luban.render.balancer import SLOT_STEP, route_of
from luban.render.httpd import PARKED_ADDRESS, SlotLine, slot_name

SETTLE_SECONDS = 2.0
"""After a slot was pointed elsewhere, no request goes to it for so long: httpd keeps looked-up addresses for 1 s."""
CLOSED = frozenset("D")
OPEN: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Slot:
    """One slot and whom it serves."""

    index: int
    """Counted from 1."""
    port: int
    member: Member | None = None
    """The member as last wanted; None: the slot is free."""
    leaving: bool = False
    """The member is not wanted any more, and may still have requests in flight."""
    settled: bool = False
    """httpd knows the address of the member for certain."""
    served_before: int = 0
    """Requests that httpd had counted for the slot before this member."""

    @property
    def name(self) -> str:
        """s001 and so on."""
        return slot_name(self.index)

    @property
    def address(self) -> str:
        """Where the slot's name points."""
        return self.member.address if self.member else PARKED_ADDRESS

    @property
    def endpoint(self) -> tuple[str, int]:
        """Address and port."""
        return self.address, self.port

    @property
    def serves(self) -> str:
        """Name of the member; empty: the slot is free."""
        return self.member.name if self.member else ""

    @property
    def wanted(self) -> MemberState:
        """How the member is to be treated; free slots are disabled."""
        return "Disabled" if self.member is None or self.leaving else self.member.state


Table = tuple[Slot, ...]


@dataclass(frozen=True)
class Facts:
    """What the agent sees before it decides where members go."""

    live: Mapping[str, LiveSlot] = field(default_factory=dict)
    """httpd's slots by name."""
    drained: Collection[str] = ()
    """Names of slots that are closed and have had nothing in flight for long enough."""
    rested: Collection[str] = ()
    """Names of slots whose address has not changed for SETTLE_SECONDS."""

    def takes_nothing(self, slot: Slot) -> bool:
        """Whether httpd is known to send nothing to a slot of this name and port."""
        seen = self.live.get(slot.name)
        return seen is not None and seen.port == slot.port and "D" in seen.state.flags


@dataclass(frozen=True)
class View:
    """What else decides on a member's state."""

    sticky: bool = False
    sessions: Mapping[str, int] = field(default_factory=dict)
    """By member: sticky sessions of the last minute, or requests in flight where they are more."""
    failing: Collection[str] = ()
    """Members that do not pass their health check."""


def resized(table: Table, slots: int, port: int) -> Table:
    """The table for new settings: `slots` slots or more, the free ones with `port`. Members keep their slots."""
    kept = [slot if slot.member else Slot(slot.index, port) for slot in table]
    while len(kept) > slots and kept[-1].member is None:
        kept.pop()
    return (*kept, *(Slot(index, port) for index in range(len(kept) + 1, slots + 1)))


def placed(table: Table, members: Sequence[Member], facts: Facts) -> Table:
    """The table with each wanted member in a slot and each drained one that is not wanted gone."""
    wanted = {_identity(member): member for member in members}
    kept = tuple(_kept(slot, wanted, facts) for slot in table)
    held = {_identity(slot.member) for slot in kept if slot.member and not slot.leaving}
    for identity, member in wanted.items():
        if identity not in held:
            kept = _with(kept, member, facts)
    return kept


def _identity(member: Member) -> tuple[str, str, int]:
    """A VM that comes back with another address is another member: its old slot drains, a new one opens."""
    return member.name, member.address, member.port


def _kept(slot: Slot, wanted: Mapping[tuple[str, str, int], Member], facts: Facts) -> Slot:
    if slot.member is None:
        return slot
    settled = slot.settled or slot.name in facts.rested
    member = wanted.get(_identity(slot.member))
    if member is not None:
        return replace(slot, member=member, leaving=False, settled=settled)
    if slot.name in facts.drained and facts.takes_nothing(slot):
        return Slot(slot.index, slot.port)
    return replace(slot, leaving=True, settled=settled)


def _with(table: Table, member: Member, facts: Facts) -> Table:
    """The table with the member in a free slot. One that httpd does not know yet needs a reload first."""
    free = [slot for slot in table if slot.member is None]
    ready = [slot for slot in free if slot.port == member.port and facts.takes_nothing(slot)]
    if not free:
        table = resized(table, len(table) + SLOT_STEP, member.port)
        free = [slot for slot in table if slot.member is None]
    chosen = min(ready or free, key=lambda slot: (slot.port != member.port, slot.index))
    seen = facts.live.get(chosen.name)
    taken = Slot(chosen.index, member.port, member, served_before=seen.served if seen else 0)
    return tuple(taken if slot.index == taken.index else slot for slot in table)


def state_of(slot: Slot, view: View) -> SlotState:
    """The state in which httpd should have a slot."""
    if slot.member is None or slot.leaving:
        return SlotState(CLOSED, _no_route(slot.index), 1)
    flags = _flags(slot, slot.member, view)
    if "D" not in flags and slot.member.name in view.failing:
        flags |= frozenset("C")
    return SlotState(flags, route_of(slot.member.name), slot.member.load_factor)


def _no_route(index: int) -> str:
    """Route of a slot that serves nobody. No VM is called so: their names hold no underscore."""
    return f"_{slot_name(index)}"


def _flags(slot: Slot, member: Member, view: View) -> frozenset[str]:
    if member.state == "Disabled" or not slot.settled:
        return CLOSED
    if member.state == "Enabled":
        return OPEN
    has_sessions = view.sticky and view.sessions.get(member.name, 0) > 0
    return frozenset("N") if has_sessions else frozenset("ND")


def changes(table: Iterable[Slot], live: Mapping[str, LiveSlot], view: View) -> list[tuple[Slot, SlotState]]:
    """Slots whose state in httpd is not what it should be, with the state to set. Closing comes before opening."""
    pairs = [(slot, state_of(slot, view)) for slot in table]
    wrong = [
        (slot, state)
        for slot, state in pairs
        if (seen := live.get(slot.name)) is not None and seen.port == slot.port and seen.state != state
    ]
    return sorted(wrong, key=lambda pair: "D" not in pair[1].flags)


def lines(table: Table, ports: Sequence[int], view: View) -> list[SlotLine]:
    """The slots as the configuration in force declares them (one for each of `ports`), in their present states."""
    return [
        _line(table[index] if index < len(table) else None, index + 1, port, view) for index, port in enumerate(ports)
    ]


def _line(slot: Slot | None, index: int, port: int, view: View) -> SlotLine:
    if slot is None or slot.port != port:
        return SlotLine(slot_name(index), port, _no_route(index))
    state = state_of(slot, view)
    # Not C: whether a member passes its health check is found out anew after a restart.
    flags = "".join(letter for letter in "DN" if letter in state.flags)
    return SlotLine(slot.name, port, state.route, flags, state.load_factor)


def ports_of(table: Table) -> tuple[int, ...]:
    """What of the table a configuration declares and only a reload can change."""
    return tuple(slot.port for slot in table)


def out_of_service(failing: Collection[str], table: Iterable[Slot]) -> frozenset[str]:
    """Members to take out because they fail their health check: those that fail, but never all.

    Where every member seems to fail, the checks may be what fails; sending requests anyway loses nothing then.
    """
    enabled = {slot.member.name for slot in table if slot.member and slot.wanted == "Enabled"}
    out = enabled & frozenset(failing)
    return frozenset(out) if out < enabled else frozenset()
