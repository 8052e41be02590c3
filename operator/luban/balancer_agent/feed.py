"""The report for those that follow it: told when it changes, with a sign of life in between.

Figures change with every request: they are told in turn, every other second. All else is told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from luban.core.model import BalancerReport
from luban.core.news import is_news

FIGURES_SECONDS = 2.0
"""Between two reports in which nothing but figures differs: the operator believes figures for 2.5 s."""
SIGN_SECONDS = 1.0
"""A follower hears something at least so often."""
PAUSE_SECONDS = 0.1
"""And at most so often, whatever changes."""


class ReportFeed:
    """Feeds all followers."""

    def __init__(self, report: Callable[[], BalancerReport], clock: Callable[[], float]) -> None:
        """`report`: what there is to say. `clock`: monotonic seconds."""
        self._report, self._clock = report, clock
        self._wakes: set[asyncio.Event] = set()

    def looked(self) -> None:
        """There may be something new to say."""
        for wake in self._wakes:
            wake.set()

    async def follow(self, seconds: float) -> AsyncGenerator[BalancerReport | None, None]:
        """The report as it is, then each change of it, for so long. None: nothing is new."""
        wake, end = asyncio.Event(), self._clock() + seconds
        told: BalancerReport | None = None
        told_at = spoke_at = float("-inf")
        self._wakes.add(wake)
        try:
            while (now := self._clock()) < end:
                wake.clear()
                found = self._report()
                if is_news(told, found) or (found != told and now - told_at >= FIGURES_SECONDS):
                    told, told_at, spoke_at = found, now, now
                    yield found
                    await asyncio.sleep(PAUSE_SECONDS)
                elif now - spoke_at >= SIGN_SECONDS:
                    spoke_at = now
                    yield None
                await _until(wake, min(end, spoke_at + SIGN_SECONDS) - self._clock())
        finally:
            self._wakes.discard(wake)


async def _until(wake: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), max(0.0, seconds))
