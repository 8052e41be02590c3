"""When to read: at once after an event, twice more while the kernel settles, and regularly. Pure."""

from __future__ import annotations

ECHOES = (0.15, 4.0)
"""Seconds after the last event at which to read again. Port states inside and right after an event are stale: the
bond's own monitoring follows within its interval (100 ms mostly), LACP within three seconds and without an event."""
SPACING = 0.02
"""Seconds between two readings at least: in a storm of events each reading stands for many."""


class Schedule:
    """Times are seconds of a monotonic clock."""

    def __init__(self, resync: float, now: float) -> None:
        self._resync = resync
        self._dues = {"resync": now}
        self._last = now - SPACING

    def event(self, now: float) -> None:
        """Something changed. Only the last event's echoes are kept: the events before it have readings of their own."""
        self._dues["event"] = min(now, self._dues.get("event", now))
        for delay in ECHOES:
            self._dues[f"echo {delay:g}"] = now + delay

    def due(self) -> float:
        """When to read next."""
        return max(min(self._dues.values()), self._last + SPACING)

    def reading(self, now: float) -> None:
        """A reading begins: it is what all that was due until now waited for."""
        self._last = now
        self._dues = {name: at for name, at in self._dues.items() if at > now} | {"resync": now + self._resync}
