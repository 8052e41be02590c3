"""Health checks of the members that take requests.

Not httpd's own (mod_proxy_hcheck): that keeps the address which a slot's name had at its first check, and waits as
long for an answer as for a request. The path, interval and timeout are those of the VM's readiness probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from luban.ports import Probes

log = structlog.get_logger(__name__)

SECOND_SHARE = 0.5
"""A member that has not answered after this share of its timeout is asked a second time. Only if both get no answer it
fails: one alone may be our own fault, on a busy machine. A refused connection or a bad status counts at once."""


@dataclass(frozen=True)
class Check:
    """What to ask."""

    address: str
    port: int
    path: str
    interval: float
    """Seconds between two checks."""
    timeout: float
    """Seconds until a check without an answer has failed."""


class HealthChecks:
    """One task for each member. Call `follow` when members change, `close` at the end."""

    def __init__(self, probes: Probes, wake: Callable[[], None]) -> None:
        self._probes = probes
        self._wake = wake
        self._tasks: dict[str, tuple[Check, asyncio.Task[None]]] = {}
        self._failing: set[str] = set()

    @property
    def failing(self) -> frozenset[str]:
        """Members that do not pass."""
        return frozenset(self._failing)

    def follow(self, checks: Mapping[str, Check]) -> None:
        """Check these members from now on, and no others."""
        for member, (check, task) in list(self._tasks.items()):
            if checks.get(member) != check:
                task.cancel()
                del self._tasks[member]
                self._failing.discard(member)
        for member, check in checks.items():
            if member not in self._tasks:
                task = asyncio.create_task(self._watch(member, check), name=f"health {member}")
                self._tasks[member] = check, task

    async def close(self) -> None:
        """End all checks."""
        tasks = [task for _, task in self._tasks.values()]
        self.follow({})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, member: str, check: Check) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._judge(member, await self._passes(check))
            await asyncio.sleep(max(0.0, check.interval - (loop.time() - started)))

    async def _passes(self, check: Check) -> bool:
        """Whether the member passes one check, of one question or two."""
        first = asyncio.create_task(self._ask(check))
        pending = {first}
        try:
            done, _ = await asyncio.wait(pending, timeout=SECOND_SHARE * check.timeout)
            if done:
                return first.result()
            pending.add(asyncio.create_task(self._ask(check)))
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if any(question.result() for question in done):
                    return True
            return False
        finally:
            for question in pending:
                question.cancel()

    async def _ask(self, check: Check) -> bool:
        return await self._probes.ready(check.address, check.port, check.path, check.timeout)

    def _judge(self, member: str, passed: bool) -> None:
        if passed == (member not in self._failing):
            return
        (self._failing.discard if passed else self._failing.add)(member)
        log.info("health changed", member=member, healthy=passed)
        self._wake()
