"""The node agent: an event or the clock -> read -> judge -> report what changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from luban.adapters.clock import SystemClock
from luban.adapters.http_endpoints import HttpEndpoints
from luban.adapters.kernel_bonds import HANGS, KernelBonds
from luban.adapters.kubernetes_api import connect_hosts
from luban.api.host import LubanHostSpec, LubanHostStatus, read_host_status
from luban.core.bonds.host import BondExpectation, HostJudgement, HostMemory, judge_host, recall_host, without_gone
from luban.core.bonds.model import HostReading
from luban.errors import LubanError, TemporaryError
from luban.node_agent.memory import RestoredMemory
from luban.node_agent.metrics import Metrics
from luban.node_agent.reporter import Reporter
from luban.node_agent.schedule import Schedule
from luban.node_agent.status import expectation_of, status_of
from luban.ports import BondSource, Clock, LubanHosts

log = structlog.get_logger(__name__)

GRACE_SECONDS = 5.0
"""A reading is believed for so long while no new one succeeds."""
PATIENCE_SECONDS = 1.0
"""Every reading may take at least so long, also when the one before it is not believed any more."""
STALLED_SECONDS = 30.0
"""The agent counts as dead when the last reading that came back, good or not, did so longer ago than this."""
FLUSH_SECONDS = 2.0
TICK_SECONDS = 0.001


@dataclass(frozen=True)
class AgentOptions:
    """How an agent is started; `luban node-agent --help` says what each option means."""

    node_name: str
    kubeconfig: str | None = None
    proc_root: Path = Path("/proc")
    sys_root: Path = Path("/sys")
    resync: float = 1.0
    events: bool = True
    heartbeat: float = 60.0
    listen_address: str = "0.0.0.0"  # noqa: S104 (Prometheus asks from another machine)
    listen_port: int = 9182


async def run(options: AgentOptions, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises PermanentError without credentials, or if the port is taken."""
    structlog.contextvars.bind_contextvars(node=options.node_name)
    async with contextlib.AsyncExitStack() as stack:
        source = KernelBonds(options.proc_root, options.sys_root)
        stack.push_async_callback(source.close)
        reports = await connect_hosts(options.kubeconfig)
        stack.push_async_callback(reports.close)
        agent = Agent(options, source, reports, SystemClock())
        endpoints = HttpEndpoints(agent.metrics.registry, alive=agent.trouble, ready=agent.trouble)
        await endpoints.listen(options.listen_address, options.listen_port)
        stack.push_async_callback(endpoints.close)
        log.info("node agent started", port=options.listen_port, events=options.events)
        await agent.run(stop)


class Agent:
    """All parts of one agent. Made inside a running event loop."""

    def __init__(self, options: AgentOptions, source: BondSource, reports: LubanHosts, clock: Clock) -> None:
        self._options = options
        self._source = source
        self._clock = clock
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._schedule = Schedule(options.resync, loop.time())
        self._reporter = Reporter(reports, options.node_name, clock, self._take, options.heartbeat)
        self.metrics = Metrics(self._reporter)
        self._wake = asyncio.Event()
        self._came_back_at = loop.time()
        self._reading: HostReading | None = None
        """The last good one."""
        self._judged: HostReading | None = None
        """That, or the empty one that took its place."""
        self._read_at = loop.time()
        self._expectation = BondExpectation()
        # What the object has that our first write makes.
        self._generation = 1
        self._uid = ""
        self._memory = HostMemory()
        self._status: LubanHostStatus | None = None
        self._first_object = True

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; what is not written by then gets one more try."""
        unwatch = self._watch()
        tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._reporter.run())]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            unwatch()
            for task in (stopped, *tasks):
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        await self._reporter.flush(FLUSH_SECONDS)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def trouble(self) -> str:
        """What is wrong with the agent: readings that do not come back; empty: nothing."""
        stalled = self._time() - self._came_back_at >= STALLED_SECONDS
        return "bonds are not read any more" if stalled else ""

    def _watch(self) -> Callable[[], None]:
        if not self._options.events:
            return lambda: None
        try:
            return self._source.watch(self._event)
        except LubanError as error:
            log.warning("no events, polling only", reason=error.reason, error=error.message)
            return lambda: None

    def _event(self, reason: str) -> None:
        self.metrics.events.labels(reason).inc()
        self._schedule.event(self._time())
        self._wake.set()

    async def _look(self) -> None:
        while True:
            # Less than a timer can tell apart counts as now.
            while (wait := (due := self._schedule.due()) - self._time()) > TICK_SECONDS:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
            self._schedule.reading(max(due, self._time()))
            self._judge(await self._read())

    async def _read(self) -> HostReading | None:
        """A fresh reading; the last one for a while if there is none; then one that says that nothing is known."""
        try:
            reading = await self._in_time()
        except LubanError as error:
            self.metrics.reads.labels("failed").inc()
            log.warning("bonds not read", reason=error.reason, error=error.message)
            now = self._time()
            if error.reason != HANGS:
                self._came_back_at = now
            if now - self._read_at < GRACE_SECONDS:
                return self._reading
            return HostReading(self._clock.now(), trouble=error.message)
        self.metrics.reads.labels("good").inc()
        self.metrics.last_read.set(reading.at)
        self._reading = reading
        self._read_at = self._came_back_at = self._time()
        return reading

    async def _in_time(self) -> HostReading:
        """A reading, unless it takes longer than the last one is believed. Raises LubanError."""
        left = self._read_at + GRACE_SECONDS - self._time()
        try:
            async with asyncio.timeout(max(PATIENCE_SECONDS, left)):
                return await self._source.read()
        except TimeoutError as error:
            raise TemporaryError(HANGS, "a reading of the network devices has not come back in time") from error

    def _judge(self, reading: HostReading | None) -> None:
        if reading is None:
            return
        self._judged = reading
        wall = self._clock.now()
        judgement = judge_host(reading, self._expectation, self._memory, self._time(), wall)
        self._tell(judgement)
        self._memory = judgement.memory
        self.metrics.judgement = judgement
        self._status = status_of(judgement, self._status, self._generation, wall)
        self._reporter.publish(self._status)

    def _tell(self, judgement: HostJudgement) -> None:
        """Log what is published anew."""
        for bond in judgement.bonds:
            before = self._memory.bonds.get(bond.reading.name)
            if before is None or before.published != bond.verdict:
                log.info("bond", bond=bond.reading.name, verdict=bond.verdict, message=bond.message)

    def _take(self, body: Mapping[str, Any] | None) -> None:
        """The object as it is in the cluster: its spec counts from now on; its status goes on where an agent ended."""
        body = body or {}
        try:
            expectation = expectation_of(LubanHostSpec.model_validate(body.get("spec") or {}))
        except ValidationError as error:
            log.warning("spec cannot be read, the one before stays", error=str(error))
            expectation, generation = self._expectation, self._generation
        else:
            generation = (body.get("metadata") or {}).get("generation", 1)
        changed = (expectation, generation) != (self._expectation, self._generation)
        self._expectation, self._generation = expectation, generation
        if self._is_another(body):
            # Whoever deletes the object wants a fresh start: what is gone need not be missed any more.
            self._memory, changed = without_gone(self._memory), True
        if self._first_object:
            self._first_object = False
            changed = self._recall(body.get("status")) or changed
        if changed:
            self._judge(self._judged)

    def _is_another(self, body: Mapping[str, Any]) -> bool:
        """Whether the object was deleted and made anew since it was seen last."""
        before, uid = self._uid, str((body.get("metadata") or {}).get("uid", ""))
        self._uid = uid or before
        return bool(before and uid and uid != before)

    def _recall(self, status: Any) -> bool:
        """Go on with what the agent before us wrote. Returns whether there is something."""
        now, settings = self._time(), self._expectation.settings
        try:
            written, left_out = read_host_status(status)
            before = RestoredMemory(written, now, self._clock.now(), self._options.heartbeat, settings).memory()
        except (ValueError, OverflowError) as error:
            log.warning("the status of the agent before cannot be read, it counts for nothing", error=str(error))
            return False
        if left_out:
            log.warning("parts of the status of the agent before left out", parts=left_out)
        self._memory = recall_host(self._memory, before, now, settings)
        if self._status is None:
            self._status = written
        else:
            self._status = self._status.model_copy(update={"conditions": written.conditions})
        return True
