"""Progress of a long build for people: each step with its elapsed time on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

TICK_SECONDS = 1.0


class Progress:
    """Prints steps as they start and end; on a terminal the running step's time counts up."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}
        """How long each finished step took."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show `name` while the block runs, and its time when it ends well."""
        started = time.monotonic()
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(name, started, done), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()
        self.seconds[name] = round(time.monotonic() - started, 1)
        self.say(f"{name}: {self.seconds[name]:.1f} s")

    def say(self, text: str) -> None:
        """One line, with the time since the build began."""
        print(f"\r[{time.monotonic() - self._started:6.1f} s] {text}", file=sys.stderr, flush=True)

    def _tick(self, name: str, started: float, done: threading.Event) -> None:
        if not sys.stderr.isatty():
            return
        while not done.wait(TICK_SECONDS):
            elapsed = time.monotonic() - started
            print(
                f"\r[{time.monotonic() - self._started:6.1f} s] {name}: {elapsed:.0f} s ...",
                end="",
                file=sys.stderr,
                flush=True,
            )
