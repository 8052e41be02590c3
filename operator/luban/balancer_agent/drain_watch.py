"""When a closed slot counts as drained: pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

QUIET_SECONDS = 1.0
"""A request that chose the member just before it was closed has connected, or given up, after this time."""
SAMPLES = 3
SAMPLE_SECONDS = 0.1
"""A drained member has no open connection in SAMPLES looks in a row, at least this far apart."""

IN_FLIGHT_SECONDS = 0.25
"""Between two looks at a member that has requests in flight."""


@dataclass(frozen=True)
class DrainWatch:
    """What was seen of a slot since it was closed. Once drained it stays so: nothing new is sent to it."""

    closed_at: float
    """Seconds of a monotonic clock."""
    zeros: int = 0
    """Looks in a row that found nothing in flight."""
    looked_at: float = 0.0

    @property
    def drained(self) -> bool:
        """Whether nothing is in flight, for certain."""
        return self.zeros >= SAMPLES

    def after(self, connections: int, now: float) -> DrainWatch:
        """The same slot after a look at its open connections."""
        if self.drained or now < self.closed_at + QUIET_SECONDS:
            return self
        if connections:
            return replace(self, zeros=0, looked_at=now)
        if self.zeros and now < self.looked_at + SAMPLE_SECONDS:
            return self
        return replace(self, zeros=self.zeros + 1, looked_at=now)

    def due(self, now: float) -> float:
        """Seconds until the next look at the slot tells something new."""
        if self.drained:
            return math.inf
        if now < self.closed_at + QUIET_SECONDS:
            return self.closed_at + QUIET_SECONDS - now
        return SAMPLE_SECONDS if self.zeros else IN_FLIGHT_SECONDS
