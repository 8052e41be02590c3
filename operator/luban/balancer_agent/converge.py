"""Making httpd what it should be: look, decide, act, look again. Level-triggered: any step may be the first one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import structlog

from luban.adapters.apache_httpd.connections import Endpoint
from luban.adapters.apache_httpd.manager import LiveSlot, SlotState
from luban.balancer_agent.drain_watch import SAMPLE_SECONDS, DrainWatch
from luban.balancer_agent.loader import Loader
from luban.balancer_agent.memory import Store
from luban.balancer_agent.metrics import Metrics, kind_of
from luban.balancer_agent.report import HttpdLook, member_reports
from luban.balancer_agent.requests import Traffic
from luban.balancer_agent.server import Server
from luban.balancer_agent.slots import (
    SETTLE_SECONDS,
    Facts,
    Slot,
    View,
    changes,
    out_of_service,
    placed,
    resized,
)
from luban.core.model import BalancerReport
from luban.errors import FolderUnusable, LubanError, TemporaryError
from luban.render.balancer import BalancerDocument, route_of

log = structlog.get_logger(__name__)

IDLE_SECONDS = 1.0
"""Time between two looks when nothing is under way."""
RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 4.0
NOTHING_WANTED = "no configuration yet"


@dataclass(frozen=True)
class Inputs:
    """Where the converger finds what neither httpd nor its own memory knows."""

    clock: Callable[[], float]
    """Monotonic seconds."""
    sessions: Callable[[], Mapping[str, int]]
    """Sticky sessions of the last minute by route."""
    failing: Callable[[], Collection[str]]
    """Members that fail their health check."""
    traffic: Traffic = field(default_factory=Traffic)
    """Who used the balancer, and how soon members answered."""


class Converger:
    """One httpd on its way to one document. `step` is called again and again, never twice at the same time."""

    def __init__(self, server: Server, loader: Loader, store: Store, metrics: Metrics, inputs: Inputs) -> None:
        self._server = server
        self._loader = loader
        self._store = store
        self._metrics = metrics
        self._inputs = inputs
        self.seen = HttpdLook()
        self.applied = ""
        """Version of the document that httpd has carried out in full."""
        self.problem = NOTHING_WANTED
        """Why httpd does not serve as wanted; empty: it does."""
        self._pointed: dict[tuple[str, str], float] = {}
        self._asked: dict[str, float] = {}
        self._wanted: BalancerDocument | None = None
        self._patience = RETRY_SECONDS

    def accept(self, document: BalancerDocument) -> None:
        """Take on at the next step what is wanted from now on."""
        if document != (self._wanted or self._store.memory.document):
            self._wanted = document
            self._loader.reconsider()

    async def step(self) -> float:
        """One look and all that follows from it. Returns seconds until the next one is due.

        What cannot be done is told in `problem` and tried again, with growing patience; httpd goes on as it was.
        """
        refused = self._take_on()
        try:
            delay = await self._look_and_act()
        except LubanError as error:
            self._say(refused or error.message)
            delay, self._patience = self._patience, min(LONGEST_RETRY_SECONDS, 2.0 * self._patience)
            return delay
        self._patience = RETRY_SECONDS
        self._say(refused or self._loader.problem)
        return delay

    def fail(self, error: Exception) -> None:
        """Tell of an error that nobody foresaw."""
        self._say(f"the agent fails: {error!r}")

    def _take_on(self) -> str:
        """Remember a document that was accepted. Returns why it cannot be remembered; then the one before it holds."""
        if self._wanted is None:
            return ""
        try:
            self._remember(self._wanted)
        except FolderUnusable as error:
            return error.message
        self._wanted = None
        return ""

    def _remember(self, document: BalancerDocument) -> None:
        memory = self._store.memory
        before, wanted, table = memory.document, document.settings, memory.table
        if before is None or (before.settings.slots, before.settings.vm_port) != (wanted.slots, wanted.vm_port):
            table = resized(table, wanted.slots, wanted.vm_port)
        self._store.update(replace(memory, document=document, table=table))
        now = self._inputs.clock()
        known = {member.name: member for member in before.members} if before else {}
        self._asked.update({member.name: now for member in document.members if known.get(member.name) != member})
        log.info("configuration accepted", version=document.version, members=len(document.members))

    async def _look_and_act(self) -> float:
        document = self._store.memory.document
        if document is None:
            raise TemporaryError("NothingWanted", NOTHING_WANTED)
        return await self._step(document)

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.warning("httpd does not serve as wanted", problem=problem)
        self.problem = problem
        self._metrics.ready.set(int(not problem))

    async def _step(self, document: BalancerDocument) -> float:
        if not self._server.running:
            if self._loader.start_delay() > 0:
                raise TemporaryError("HttpdEnded", self.problem or "httpd ended, and is started again in a moment")
            await self._start(document)
        live: Mapping[str, LiveSlot] = await self._server.slots()
        facts = self._look(live)
        table = placed(self._store.table, document.members, facts)
        self._store.update(replace(self._store.memory, table=table))
        view = self._view()
        self._loader.write(view)
        self._note_pointed()
        live = await self._apply(live, view)
        # Only now: children of before a reload go on with the states that they knew then.
        if await self._loader.reload(view):
            live = await self._apply(await self._server.slots(), view)
        return self._conclude(document, live, view)

    async def _start(self, document: BalancerDocument) -> None:
        """Start httpd. It has no addresses in mind yet, so every member is settled, and its counters are at zero."""
        table = placed(self._store.table, document.members, Facts())
        fresh = tuple(replace(slot, settled=slot.member is not None, served_before=0) for slot in table)
        self._store.update(replace(self._store.memory, table=fresh))
        self.seen = HttpdLook(sessions=self.seen.sessions)
        await self._loader.start(self._view())

    def _look(self, live: Mapping[str, LiveSlot]) -> Facts:
        """Note what is in flight, and derive what may be decided upon."""
        now = self._inputs.clock()
        connections = self._count_connections()
        facts = Facts(live)
        closed = {slot.name: slot for slot in self._store.table if slot.member and facts.takes_nothing(slot)}
        quiet = {
            name: self.seen.quiet.get(name, DrainWatch(now)).after(self._in_flight(slot, connections), now)
            for name, slot in closed.items()
        }
        self.seen = HttpdLook(live, connections, quiet, self._sessions(), self._loader.sticky)
        rested = {name for (name, _), moment in self._pointed.items() if now - moment >= SETTLE_SECONDS}
        return Facts(live, {name for name, seen in quiet.items() if seen.drained}, rested)

    def count(self) -> None:
        """Count connections anew; all else is as old as the last step."""
        try:
            self.seen = replace(self.seen, connections=self._count_connections())
        except LubanError as error:
            log.debug("connections not counted", error=error.message)

    def report(self, name: str) -> BalancerReport:
        """What there is to say since the last step."""
        return BalancerReport(
            name=name,
            reachable=True,
            ready=not self.problem,
            applied=self.applied,
            message=self.problem,
            members=member_reports(
                self._store.table, self.seen, self._inputs.failing(), self._inputs.traffic.answers()
            ),
            users=self._inputs.traffic.users(self._inputs.clock()),
        )

    def _count_connections(self) -> Counter[Endpoint]:
        """Open connections to every member, now."""
        return self._server.connections({slot.endpoint for slot in self._store.table if slot.member})

    def _in_flight(self, slot: Slot, connections: Counter[Endpoint]) -> int:
        """Requests in flight on a closed slot. An address that a newer VM has by now says nothing about the old one."""
        successor = any(
            not other.leaving and other.index != slot.index and other.endpoint == slot.endpoint
            for other in self._store.table
        )
        return 0 if successor else connections[slot.endpoint]

    def _sessions(self) -> dict[str, int]:
        counts = self._inputs.sessions()
        return {
            slot.member.name: counts.get(route_of(slot.member.name), 0) for slot in self._store.table if slot.member
        }

    def _view(self) -> View:
        failing = out_of_service(self._inputs.failing(), self._store.table)
        return View(self._loader.sticky, self._held(), failing)

    def _held(self) -> dict[str, int]:
        """What holds members' slots open for their sessions: sessions, and requests in flight, which are logged at
        their end only. A slot that was closed stays so whatever connects to the member, somebody's probe perhaps."""
        held = self._sessions()
        for slot in self._store.table:
            if slot.member and slot.name not in self.seen.quiet:
                in_flight = self.seen.connections[slot.endpoint]
                held[slot.serves] = max(held.get(slot.serves, 0), in_flight)
        return held

    def _note_pointed(self) -> None:
        """Remember since when slots that have not settled point where they do."""
        now = self._inputs.clock()
        waiting = [(slot.name, slot.address) for slot in self._store.table if slot.member and not slot.settled]
        self._pointed = {key: self._pointed.get(key, now) for key in waiting}

    async def _apply(self, live: Mapping[str, LiveSlot], view: View) -> Mapping[str, LiveSlot]:
        """Set what is not as it should be, and read back: httpd answers the same whether it obeyed or not."""
        wrong = changes(self._store.table, live, view)
        if not wrong:
            return live
        for slot, state in wrong:
            await self._server.set(slot.name, slot.port, state)
        after = await self._server.slots()
        for slot, state in wrong:
            if slot.name in after and after[slot.name].state == state:
                self._confirm(slot, live[slot.name].state, state)
            else:
                log.warning("httpd did not take a change", slot=slot.name, wanted=sorted(state.flags))
        return after

    def _confirm(self, slot: Slot, before: SlotState, after: SlotState) -> None:
        self._metrics.changed(before, after)
        log.info("member changed", member=slot.serves, slot=slot.name, change=kind_of(before, after))
        done = bool(after.flags & frozenset("DN")) == (slot.wanted != "Enabled")
        if done and (asked := self._asked.pop(slot.serves, None)) is not None:
            self._metrics.change_seconds.observe(self._inputs.clock() - asked)

    def _conclude(self, document: BalancerDocument, live: Mapping[str, LiveSlot], view: View) -> float:
        """Say how far things are, and when to look again."""
        table, facts = self._store.table, Facts(live)
        closed = {slot.name for slot in table if facts.takes_nothing(slot)}
        self.seen = replace(
            self.seen, live=live, quiet={name: quiet for name, quiet in self.seen.quiet.items() if name in closed}
        )
        opening = [slot for slot in table if slot.wanted == "Enabled" and not slot.settled]
        wrong = changes(table, live, view)
        known = all(slot.name in live for slot in table)
        if known and self._loader.in_force and not wrong and not opening:
            self.applied = document.version
        if wrong or not self._server.running:
            return SAMPLE_SECONDS
        return min(IDLE_SECONDS, max(SAMPLE_SECONDS, min(self._dues(), default=IDLE_SECONDS)))

    def _dues(self) -> Iterator[float]:
        """Seconds until things that take their time may be further, each by itself."""
        now, facts, quiet = self._inputs.clock(), Facts(self.seen.live), self.seen.quiet
        for slot in self._store.table:
            if slot.wanted == "Enabled":
                if not slot.settled:
                    yield self._pointed.get((slot.name, slot.address), now) + SETTLE_SECONDS - now
            elif slot.member and facts.takes_nothing(slot):
                yield quiet[slot.name].due(now) if slot.name in quiet else SAMPLE_SECONDS
        if not self._loader.in_force and not self._loader.problem:
            yield self._loader.reload_delay()
