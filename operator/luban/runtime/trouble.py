"""Ticks that fail: told in the status, and tried again ever more rarely."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from luban.core.model import ConditionState, Failure
from luban.senses.steady import SteadyWords

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2.0, 15.0
"""Time to the next tick after one that could not be finished: the first time, and at most."""
FAULT_SECONDS, LONGEST_FAULT_SECONDS = 10.0, 300.0
"""The same after a fault of our own: rare enough not to flood the log."""
BLIND_SECONDS = 30.0
"""Nobody has looked for so long: what the status says of readiness is old."""
RECONCILED = ConditionState("Reconciled", True, "Reconciled")


@dataclass
class Trouble:
    """The ticks that failed since the last good one. `monotonic`: seconds of a clock that nobody sets."""

    monotonic: Callable[[], float]
    failure: Failure | None = None
    """Why they fail; None: the last one did not. The words stay while they are told, and so does one of several causes
    that take turns: whatever is told in the status is written."""
    _words: SteadyWords = field(default_factory=SteadyWords)
    _count: int = 0
    _since: float = 0.0

    def failed(self, failure: Failure, *, fault: bool) -> float:
        """A tick failed, by a fault of our own or not. Returns the seconds until the next."""
        if self.failure is None:
            self._since, self._count = self.monotonic(), 0
        told = self._words.choose("tick", failure.reason)
        if self.failure is None or told != self.failure.reason:
            self.failure = failure
        self._count += 1
        first, longest = (FAULT_SECONDS, LONGEST_FAULT_SECONDS) if fault else (RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        return float(min(longest, first * 2.0 ** min(self._count - 1, 16)))

    def over(self) -> None:
        """A tick went well."""
        self.failure = None
        self._words.over("tick")

    @property
    def blind(self) -> bool:
        """Whether nobody has looked for so long that what is known is old."""
        return self.failure is not None and self.monotonic() - self._since >= BLIND_SECONDS

    def conditions(self) -> Iterator[ConditionState]:
        """What the status has to say of it."""
        if self.failure is None:
            yield RECONCILED
            return
        yield ConditionState("Reconciled", False, self.failure.reason, self.failure.message)
        if self.blind:
            yield ConditionState("Ready", None, "NotReconciled", "the operator cannot look: see condition Reconciled")
