"""Writes the LubanHost: on every change, and as a sign of life. The latest status wins; none is lost, none queued.

Between writes it reads the object now and then, for the user may have changed its spec.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog

from luban.api.host import LubanHostStatus
from luban.core.times import rfc3339
from luban.errors import LubanError
from luban.node_agent.status import verdicts_of
from luban.ports import Clock, LubanHosts

log = structlog.get_logger(__name__)

SPACING_SECONDS = 1.0
"""Between two writes at least, if no verdict changed: counters of a flapping port would be written all the time."""
SPEC_SECONDS = 10.0
"""After a write or a reading of the object, the time until it is read again."""
PATIENCE_SECONDS = 1.0
"""How long such a reading may take: a new verdict would have to wait for it."""
TICK_SECONDS = 0.001
SHORTEST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
"""Seconds after a failed write, doubled with each further one, and varied so that nodes do not come all at once."""

Take = Callable[[Mapping[str, Any] | None], None]


class Reporter:
    """One LubanHost. `publish` what is so, `run` beside it. `take` gets the object whenever it was read or written."""

    def __init__(self, reports: LubanHosts, name: str, clock: Clock, take: Take, heartbeat: float) -> None:
        self._reports = reports
        self._name = name
        self._clock = clock
        self._take = take
        self._heartbeat = heartbeat
        self._wanted: LubanHostStatus | None = None
        self._written: LubanHostStatus | None = None
        self._wake = asyncio.Event()
        self._trouble = ""
        self.writes = 0
        self.failures = 0
        self.last_report: float | None = None
        """Seconds since the epoch of the last write that arrived."""

    def publish(self, status: LubanHostStatus) -> None:
        """This is so now. `last_report` is left to the reporter."""
        self._wanted = status
        if status != self._written:
            self._wake.set()

    async def run(self) -> None:
        """Read the object first, for its spec decides what is published; then write, for ever."""
        await self._insist(self._read)
        loop = asyncio.get_running_loop()
        while True:
            await self._insist(self._write)
            wrote = loop.time()
            await self._pause(wrote)

    async def flush(self, seconds: float) -> None:
        """At the end: write what is not written yet, if that can be done within so many seconds."""
        if self._wanted is not None and self._wanted != self._written:
            with suppress(LubanError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._write()

    async def _pause(self, wrote: float) -> None:
        """Until there is something to write: news, after SPACING_SECONDS; a new verdict, at once; or a sign of life."""
        loop = asyncio.get_running_loop()
        alive, look = wrote + self._heartbeat, wrote + SPEC_SECONDS
        while True:
            until = min(alive, wrote + SPACING_SECONDS) if self._news() else alive
            # Less than a timer can tell apart counts as now.
            if self._urgent() or loop.time() > until - TICK_SECONDS:
                return
            if loop.time() > look - TICK_SECONDS:
                await self._look()
                look = loop.time() + SPEC_SECONDS
                continue
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(until, look)):
                    await self._wake.wait()

    async def _look(self) -> None:
        """Read the object. One that is gone is made again at once; trouble is left to the next write."""
        with suppress(LubanError, TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                body = await self._reports.read(self._name)
            if body is None:
                self._written = None
            self._take(body)

    def _news(self) -> bool:
        return self._wanted is not None and self._wanted != self._written

    def _urgent(self) -> bool:
        wanted, written = self._wanted, self._written
        return wanted is not None and (written is None or verdicts_of(wanted) != verdicts_of(written))

    async def _insist(self, step: Callable[[], Any]) -> None:
        """Take a step again and again until it succeeds, more and more rarely."""
        pause = SHORTEST_PAUSE
        while True:
            try:
                await step()
            except LubanError as error:
                self.failures += 1
                self._complain(error)
            else:
                self._trouble = ""
                return
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 (spreads agents, hides nothing)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _complain(self, error: LubanError) -> None:
        """Once for each kind of trouble, not at each attempt."""
        say = log.debug if error.reason == self._trouble else log.warning
        say("LubanHost not written, trying again", host=self._name, reason=error.reason, error=error.message)
        self._trouble = error.reason

    async def _read(self) -> None:
        self._take(await self._reports.read(self._name))

    async def _write(self) -> None:
        status = self._wanted
        if status is None:
            await self._wake.wait()
            status = self._wanted
        if status is None:
            return
        now = self._clock.now()
        body = status.model_copy(update={"last_report": rfc3339(now)}).wire()
        answer = await self._reports.write(self._name, body)
        self._written = status
        self.writes += 1
        self.last_report = now
        self._take(answer)
