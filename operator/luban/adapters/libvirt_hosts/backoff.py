"""When something that failed may be tried again."""

from __future__ import annotations

from dataclasses import dataclass

from luban.errors import LubanError

MAX_STUCK = 8
"""Threads of one lane that may hang at a time in calls about the host before new attempts become rare."""
MAX_HUNG = 16
"""The same in calls about single domains. Each keeps one of the daemon's workers, of which there are 20 by default
(max_workers)."""


@dataclass(frozen=True)
class Pace:
    """Times in seconds."""

    connect: float = 5.0
    """Deadline for opening a connection."""
    first_retry: float = 0.5
    """After a failure, calls are refused for so long; doubles with each further failure."""
    last_retry: float = 15.0
    """Longest such time."""
    last_knock: float = 2.0
    """Longest such time where the machine does not even take a TCP connection: to look costs next to nothing."""
    stuck_retry: float = 600.0
    """Such time while that many threads hang, unless one of them ends: each attempt could cost another one for ever."""
    close: float = 2.0
    """Longest wait for a thread to end."""


class Backoff:
    """Refuses attempts for a while after failures. Times are those of any clock in seconds."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0
        self._stuck = 0
        self._error: LubanError | None = None
        self._until = float("-inf")

    def check(self, now: float, *, stuck: int = 0) -> None:
        """Raises the last failure again while it is too early. `stuck` threads hang now.

        In the same words each time: they go into a status, which is written only when it changes. That a thread has
        come back is news of the host: then it is tried at once.
        """
        if stuck < self._stuck:
            self._until = now
        self._stuck = stuck
        if self._error is not None and now < self._until:
            raise _afresh(self._error)

    def failed(
        self, now: float, error: LubanError, *, stuck: int = 0, crowded: bool = False, longest: float | None = None
    ) -> None:
        """It failed; `stuck` threads hang. `crowded`: these are too many.

        `longest`: pause in seconds at most, instead of the pace's.
        """
        usual = min(
            self._pace.last_retry if longest is None else longest,
            self._pace.first_retry * 2.0 ** min(self._failures, 16),
        )
        self._until = now + (self._pace.stuck_retry if crowded else usual)
        self._failures += 1
        self._stuck, self._error = stuck, _afresh(error)

    def over_since(self, at: float) -> bool:
        """Whether nothing is held back any more since that time."""
        return self._until <= at

    def succeeded(self) -> None:
        """It works."""
        self._failures, self._error = 0, None


def _afresh(error: LubanError) -> LubanError:
    """The same without its traceback, which holds all that the failed job had in hand."""
    return type(error)(error.reason, error.message)
