"""What a rule is: it looks at each action, each stretch of time and each event, and reports what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.referee.bridge import SURPLUS, Action, AssignVM, DeleteVM, Failure, VMRecord
from tests.referee.centre import DataCentre
from tests.referee.events import KINDS, Stage
from tests.referee.story import Happening


@dataclass(frozen=True)
class Violation:
    """A rule was broken."""

    rule: str
    key: str
    """Which way of breaking it, in a word: two stories with the same rule and key show the same fault, as a rule."""
    message: str
    at: float
    """Virtual time in seconds since the beginning."""
    line: int
    """Where in the world's log it happened."""

    @property
    def name(self) -> str:
        """Rule and key."""
        return f"{self.rule}/{self.key}"


class Rule:
    """One invariant. The docstring of each says what it demands, and what it excuses and why."""

    name = ""

    def __init__(self, stage: Stage, report: Callable[[str, str, str], None]) -> None:
        """`report`: called with rule, key and message."""
        self.stage = stage
        self._report = report
        self.begin()

    def begin(self) -> None:
        """What the rule remembers is empty yet."""

    @property
    def centre(self) -> DataCentre:
        """The world."""
        return self.stage.centre

    def fault(self, key: str, message: str) -> None:
        """The rule is broken."""
        self._report(self.name, key, message)

    def before(self, action: Action) -> None:
        """An action is about to be carried out."""

    def after(self, action: Action, failure: Failure | None) -> None:
        """An action was carried out, or failed."""

    def passed(self, seconds: float, *, working: bool) -> None:
        """Time has passed. `working`: an operator was there, and was not told to pause."""

    def event(self, happening: Happening) -> None:
        """Something has happened to the world."""

    def healed(self) -> None:
        """All that was broken works again: the end of the story begins."""

    def matters(self, happening: Happening) -> bool:
        """Whether the event may change what can work."""
        return KINDS[happening.kind].matters


def is_own(centre: DataCentre, vm: VMRecord) -> bool:
    """Whether taking the VM away would be the operator's own decision.

    It is not if the user deleted this VM, tore it out, or deleted the cluster with its VMs, nor if the decision was
    taken before: a LubanVM with a deletion timestamp can only leave. One of the pool serves nobody.
    """
    dissolved = centre.deleting and centre.spec.deletion_policy == "Delete"
    return vm.deleting_since is None and vm.role == "Serving" and vm.name not in centre.asked and not dissolved


def decision(action: Action) -> tuple[str, str] | None:
    """Name of a VM that goes by this very decision, for good or to the pool, and the reason; None: none does."""
    if isinstance(action, DeleteVM):
        return action.name, action.reason
    if isinstance(action, AssignVM) and action.role == "Warm":
        return action.name, SURPLUS
    return None
