"""Growing patience with actions that fail: doubling from one second to five minutes, and tried by one, not by all.

What fails on a host for one reason, for whichever VM, is one trouble: while it lasts, one of them alone tries again.
Pure; times are seconds on a clock that nobody sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from luban.core.model import (
    Action,
    CreateVM,
    DestroyDomain,
    EnsureDomain,
    Failure,
    RemoveDomain,
    RemoveStray,
    ShutdownDomain,
)

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0

Attempt = tuple[str, str]
"""What is tried: a subject, and the kind of action."""
Trouble = tuple[str, str, str]
"""What fails: where, the kind of action, and the reason."""


@dataclass
class _Wait:
    count: int = 0
    next_at: float = 0.0

    @property
    def seconds(self) -> float:
        return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.count - 1, 16)))


@dataclass
class Retries:
    """What failed lately, and when it may be tried again."""

    _troubles: dict[Trouble, _Wait] = field(default_factory=dict)
    _of: dict[Attempt, Trouble] = field(default_factory=dict)
    """The trouble that an attempt met last."""

    def may_try(self, subject: str, action: Action, now: float) -> bool:
        """Whether the action may be tried now. A yes to one is a no to all others that met the same trouble."""
        trouble = self._of.get((subject, type(action).__name__))
        wait = self._troubles.get(trouble) if trouble is not None else None
        if wait is None:
            return True
        if now < wait.next_at:
            return False
        wait.next_at = now + wait.seconds
        return True

    def failed(self, subject: str, action: Action, failure: Failure, now: float) -> None:
        """The action was tried in vain."""
        kind = type(action).__name__
        trouble = (_where(subject, action), kind, failure.reason)
        wait = self._troubles.setdefault(trouble, _Wait())
        wait.count += 1
        wait.next_at = now + wait.seconds
        self._of[subject, kind] = trouble

    def succeeded(self, subject: str, action: Action) -> None:
        """The action was carried out: whatever stood in its way there is gone."""
        where, kind = _where(subject, action), type(action).__name__
        self._of.pop((subject, kind), None)
        for trouble in [it for it in self._troubles if it[:2] == (where, kind)]:
            del self._troubles[trouble]

    def forget(self) -> None:
        """Something changed that may be the remedy: everything may be tried at once."""
        self._troubles.clear()
        self._of.clear()


def _where(subject: str, action: Action) -> str:
    match action:
        case EnsureDomain(vm) | ShutdownDomain(vm) | DestroyDomain(vm) | RemoveDomain(vm):
            return vm.host
        case RemoveStray(host):
            return host
        case CreateVM():
            return "creation"
        case _:
            return subject
