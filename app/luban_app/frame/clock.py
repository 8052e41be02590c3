"""Time as the service sees it; tests put their own clock in its place."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where the service gets its time from."""

    def now(self) -> float:
        """Seconds on a clock that never goes back; its zero has no meaning."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` >= 0."""
        ...

    async def burn(self, seconds: float) -> None:
        """Use `seconds` >= 0 of processor time, letting other requests run in between."""
        ...


SLICE_SECONDS = 0.005
"""The longest that `burn` keeps the event loop to itself, so that health checks are answered meanwhile."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep without keeping the processor."""
        await asyncio.sleep(seconds)

    async def burn(self, seconds: float) -> None:
        """Spin in slices. Counts processor time: a busy host lengthens it as it does real work."""
        left = seconds
        while left > 0:
            start = time.thread_time()
            deadline = start + min(left, SLICE_SECONDS)
            while time.thread_time() < deadline:
                pass
            left -= time.thread_time() - start
            await asyncio.sleep(0)
