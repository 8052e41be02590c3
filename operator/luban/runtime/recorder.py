"""Events on their way to the API server: what repeats itself is counted, what is said of many VMs is said once.

A cluster that cannot work makes VMs that fail, each with a name of its own: without this they would be hundreds of
Events an hour that all say the same.

They are sent by a task of their own: an API server that is slow with Events holds up no decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from luban.core.model import ClusterRef
from luban.errors import LubanError
from luban.ports import Cluster
from luban.runtime.events import Event

log = structlog.get_logger(__name__)

EPISODE_SECONDS = 600.0
"""What was not said for so long is news again."""
SINGLE = 10
"""So many Events of one reason within an episode are told one by one, then as one with a count."""
FIRST_GAP_SECONDS, LONGEST_GAP_SECONDS = 10.0, 300.0
"""A count is written anew after the first, then ever more rarely."""
MOST_WAITING = 100
"""So many Events wait to be sent; then the oldest is dropped."""
CLOSE_SECONDS = 2.0
"""At the end what still waits has so long to be sent."""


@dataclass
class _Series:
    """One Event, and how often it happened."""

    last: float
    """When it happened last."""
    written: float = float("-inf")
    gap: float = 0.0
    unwritten: int = 0

    def happens(self, now: float) -> None:
        """Once more."""
        self.last, self.unwritten = now, self.unwritten + 1

    def due(self, now: float) -> bool:
        """Whether the count is worth a write."""
        return now - self.written >= self.gap

    def wrote(self, now: float) -> None:
        """The API server has the count."""
        self.written, self.unwritten = now, 0
        self.gap = min(LONGEST_GAP_SECONDS, max(FIRST_GAP_SECONDS, 2 * self.gap))


@dataclass
class _Kind:
    """Events of one reason."""

    first: float
    told: set[str] = field(default_factory=set)
    """About whom."""


@dataclass
class EventRecorder:
    """Records the Events of one cluster. `monotonic`: seconds of a clock that nobody sets."""

    api: Cluster
    ref: ClusterRef
    monotonic: Callable[[], float]
    _series: dict[Event, _Series] = field(default_factory=dict)
    _kinds: dict[tuple[str, str], _Kind] = field(default_factory=dict)
    _waiting: dict[Event, Event] = field(default_factory=dict)
    """By what they are counted by, the oldest first."""
    _sender: asyncio.Task[None] | None = None

    def record(self, event: Event) -> None:
        """Have an Event told, or counted. One that is lost costs a line in the log, nothing else."""
        now = self.monotonic()
        self._forget_old(now)
        event = self._folded(event, now)
        key = replace(event, message="") if event.series else event
        series = self._series.setdefault(key, _Series(now))
        series.happens(now)
        if series.due(now):
            self._enqueue(key, event)

    async def sent(self) -> None:
        """Wait until nothing waits to be sent."""
        if self._sender is not None:
            await asyncio.shield(self._sender)

    async def close(self) -> None:
        """Send what waits if that is quick, and end."""
        if self._sender is None:
            return
        _, slow = await asyncio.wait({self._sender}, timeout=CLOSE_SECONDS)
        for task in slow:
            log.warning("events dropped at the end", cluster=str(self.ref), count=len(self._waiting) + 1)
            task.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)

    def _enqueue(self, key: Event, event: Event) -> None:
        """The latest words of a series stand, in the place of the first."""
        if key not in self._waiting and len(self._waiting) >= MOST_WAITING:
            dropped = self._waiting.pop(next(iter(self._waiting)))
            log.warning("event dropped, too many wait", cluster=str(self.ref), event_reason=dropped.reason)
        self._waiting[key] = event
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send_all())

    async def _send_all(self) -> None:
        while self._waiting:
            key = next(iter(self._waiting))
            await self._send(self._waiting.pop(key), self._take_count(key))

    def _take_count(self, key: Event) -> int:
        """How often it happened that nobody was told of; it counts as told from now on."""
        series = self._series.get(key)
        if series is None:
            # It waited for so long that it is forgotten.
            return 1
        times = series.unwritten
        series.wrote(self.monotonic())
        return times

    async def _send(self, event: Event, times: int) -> None:
        try:
            await self._tell(event, times)
        except LubanError as error:
            log.warning("event not recorded", cluster=str(self.ref), reason=error.reason, error=error.message)
        except Exception:
            log.exception("event not recorded by a fault of the operator", cluster=str(self.ref))

    async def _tell(self, event: Event, times: int) -> None:
        await self.api.event(
            self.ref,
            kind=event.kind,
            name=event.name,
            uid=event.uid,
            type_=event.type,
            reason=event.reason,
            message=event.message,
            series=event.series,
            times=times,
        )

    def _folded(self, event: Event, now: float) -> Event:
        """The Event, or one about the cluster that stands for all of its reason once there are too many."""
        kind = self._kinds.setdefault((event.kind, event.reason), _Kind(now))
        kind.told.add(event.uid)
        if event.kind == "LubanCluster" or len(kind.told) <= SINGLE:
            return event
        message = f"{event.name}: {event.message} (as of over {SINGLE} VMs, counted here)"
        return replace(
            event, kind="LubanCluster", name=self.ref.name, uid=self.ref.uid, message=message, series=event.reason
        )

    def _forget_old(self, now: float) -> None:
        self._series = {key: it for key, it in self._series.items() if now - it.last < EPISODE_SECONDS}
        self._kinds = {key: it for key, it in self._kinds.items() if now - it.first < EPISODE_SECONDS}
