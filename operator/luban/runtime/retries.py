"""Growing patience with actions that fail: doubling from one second to five minutes, and tried by one, not by all.

What fails on a host for one reason, for whichever VM, is one trouble: while it lasts, one of them alone tries again.
Pure; times are seconds on a clock that nobody sets.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from luban.core.model import (
    Action,
    CreateVM,
    DestroyDomain,
    EnsureDomain,
    Failure,
    PublishBalancer,
    RemoveDomain,
    RemoveStray,
    ShutdownDomain,
    UpdateVM,
)

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
LONGEST_UNTOLD_SECONDS = 30.0
"""For what tells balancers and users how things are: they act on it meanwhile."""

Attempt = tuple[str, str]
"""What is tried: a subject, and the kind of action."""
Trouble = tuple[str, str, str]
"""What fails: where, the kind of action, and the reason."""


@dataclass
class _Wait:
    longest: float
    count: int = 0
    next_at: float = 0.0

    @property
    def seconds(self) -> float:
        return float(min(self.longest, FIRST_SECONDS * 2.0 ** min(self.count - 1, 16)))


@dataclass(frozen=True)
class _Failed:
    """An attempt that failed: with other inputs it is another one."""

    trouble: Trouble
    inputs: Hashable


@dataclass
class Retries:
    """What failed lately, and when it may be tried again."""

    _troubles: dict[Trouble, _Wait] = field(default_factory=dict)
    _of: dict[Attempt, _Failed] = field(default_factory=dict)
    """How an attempt failed last."""

    def may_try(self, subject: str, action: Action, now: float) -> bool:
        """Whether the action may be tried now. A yes to one is a no to all others that met the same trouble."""
        wait = self._wait_of(subject, action)
        if wait is None:
            return True
        if now < wait.next_at:
            return False
        wait.next_at = now + wait.seconds
        return True

    def waits(self, subject: str, action: Action, now: float) -> bool:
        """Whether the action is not tried now, since it failed before."""
        wait = self._wait_of(subject, action)
        return wait is not None and now < wait.next_at

    def _wait_of(self, subject: str, action: Action) -> _Wait | None:
        """What the same action has to wait for; None: nothing."""
        failed = self._of.get((subject, type(action).__name__))
        return self._troubles.get(failed.trouble) if failed is not None and failed.inputs == _inputs(action) else None

    def failed(self, subject: str, action: Action, failure: Failure, now: float) -> None:
        """The action was tried in vain."""
        kind = type(action).__name__
        trouble = (_where(subject, action), kind, failure.reason)
        longest = LONGEST_UNTOLD_SECONDS if isinstance(action, PublishBalancer | UpdateVM) else LONGEST_SECONDS
        wait = self._troubles.setdefault(trouble, _Wait(longest))
        wait.count += 1
        wait.next_at = now + wait.seconds
        self._of[subject, kind] = _Failed(trouble, _inputs(action))

    def succeeded(self, subject: str, action: Action) -> None:
        """The action was carried out: whatever stood in its way there is gone."""
        where, kind = _where(subject, action), type(action).__name__
        self._of.pop((subject, kind), None)
        for trouble in [it for it in self._troubles if it[:2] == (where, kind)]:
            del self._troubles[trouble]

    def forget_subjects(self, gone: Callable[[str], bool]) -> None:
        """Drop what is about subjects that are no more."""
        self._of = {attempt: failed for attempt, failed in self._of.items() if not gone(attempt[0])}
        self._troubles = {trouble: wait for trouble, wait in self._troubles.items() if not gone(trouble[0])}

    def forget_untried(self, tried: Callable[[str], bool]) -> None:
        """Drop what is about subjects on which nobody acts any more, and the troubles that they alone met."""
        dropped = {failed.trouble for (subject, _), failed in self._of.items() if not tried(subject)}
        self._of = {attempt: failed for attempt, failed in self._of.items() if tried(attempt[0])}
        for trouble in dropped - {failed.trouble for failed in self._of.values()}:
            self._troubles.pop(trouble, None)

    def forget(self) -> None:
        """Something changed that may be the remedy: everything may be tried at once."""
        self._troubles.clear()
        self._of.clear()


def _inputs(action: Action) -> Hashable:
    """What an attempt depends on, beyond its subject: who has new members to publish does not wait for the old."""
    match action:
        case PublishBalancer():
            return action
        case EnsureDomain(vm):
            return vm.host_uri, vm.template
        case UpdateVM():
            return action.phase, action.reason, action.address, action.balancers
        case _:
            return None


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
