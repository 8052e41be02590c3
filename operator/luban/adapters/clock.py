"""The machine's clock behind the Clock port."""

from __future__ import annotations

import time


class SystemClock:
    """Wall-clock time, and the time that nobody sets."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; nobody sets it."""
        return time.monotonic()
