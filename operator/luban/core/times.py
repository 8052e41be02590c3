"""Two clocks, and times as Kubernetes writes them. Pure: nothing here reads a clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
"""No later time can be written."""


@dataclass(frozen=True)
class Now:
    """One moment on both clocks, in seconds. Whatever waits or expires is counted on `monotonic`."""

    wall: float
    """Since the epoch; people set this clock. For what people read."""
    monotonic: float
    """Of a clock that nobody sets; its zero has no meaning."""

    def wall_of(self, monotonic: float) -> float:
        """The time of day that belongs to a moment of the other clock."""
        return self.wall + monotonic - self.monotonic

    def monotonic_of(self, wall: float) -> float:
        """The moment that a written time of day stands for: never in the future, whoever set the clock since."""
        return self.monotonic - max(0.0, self.wall - wall)


def rfc3339(seconds: float) -> str:
    """Kubernetes' form of a time: 2026-01-31T12:00:00Z, whole seconds of UTC. What cannot be written is clamped."""
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), LATEST), UTC)
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def seconds_of(text: str) -> float:
    """Inverse of `rfc3339`; reads times with a fraction too. Raises ValueError on anything else."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
