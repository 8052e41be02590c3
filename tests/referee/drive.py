"""Playing a story under virtual time, with every rule watching."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tests.referee import wishes
from tests.referee.bridge import EPOCH, LubanClusterSpec, Plan, WatchedOperator
from tests.referee.centre import DataCentre
from tests.referee.events import Stage, happen
from tests.referee.rules import RULES, ClusterDeletionEnds, Rest, Rule, Violation, WarmPool, WellInTheEnd
from tests.referee.rules.truth import host_of, is_emptied
from tests.referee.story import BadStory, Story

LONGEST_REST_SECONDS = 5400.0
"""Virtual time in which a cluster must come to rest once nothing goes wrong any more."""
GIVING_UP_SECONDS = 700.0
"""Time for what stands on a host that was given up, for domains that no LubanVM stands for, and for paused ones."""
FAREWELL_SECONDS = 900.0
MOST_VIOLATIONS = 40

AnyRule = TypeVar("AnyRule", bound=Rule)
Maker = Callable[[DataCentre], WatchedOperator]


class Enough(Exception):
    """What was looked for has been found."""


class RefereeError(Exception):
    """The referee itself is broken."""


@dataclass
class Outcome:
    """What came of a story."""

    story: Story
    violations: list[Violation] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def of(self, name: str) -> Violation | None:
        """The first violation of this name."""
        return next((it for it in self.violations if it.name == name), None)


class Play:
    """One story on its stage. `stop_at`: end as soon as this rule is broken, or broken in this way (rule/key)."""

    def __init__(self, story: Story, *, make: Maker = WatchedOperator, stop_at: str = "") -> None:
        self.story, self.stop_at = story, stop_at
        try:
            spec = LubanClusterSpec.model_validate(story.spec)
        except ValueError as error:
            raise BadStory(f"its spec is refused: {error}") from error
        centre = DataCentre(spec, load=story.load)
        dice = random.Random(story.dice) if story.dice is not None else None
        self.stage = Stage(centre, make(centre), dice)
        self.outcome = Outcome(story, log=centre.log)
        self._seen: set[str] = set()
        self.rules: list[Rule] = [rule(self.stage, self._report) for rule in RULES]
        centre.before = lambda _, action: self._ask(lambda rule: rule.before(action))
        centre.after = lambda action, failure: self._ask(lambda rule: rule.after(action, failure))

    def run(self) -> Outcome:
        """Play it to its end."""
        try:
            self._beginning()
            self._end()
        except Enough:
            pass
        return self.outcome

    def _ask(self, question: Callable[[Rule], None]) -> None:
        """Ask every rule; what goes wrong in one is no fault of the operator's."""
        try:
            for rule in self.rules:
                question(rule)
        except Enough:
            raise
        except Exception as error:
            raise RefereeError("a rule fails") from error

    def _report(self, rule: str, key: str, message: str) -> None:
        centre = self.stage.centre
        found = Violation(rule, key, message, centre.now - EPOCH, len(centre.log))
        if found.name in self._seen:
            return
        self._seen.add(found.name)
        centre.note(f"!! {found.name}: {message}")
        self.outcome.violations.append(found)
        if self.stop_at in (found.name, found.rule) or len(self._seen) >= MOST_VIOLATIONS:
            raise Enough

    # Time.

    def _beginning(self) -> None:
        for event in self.story.happenings:
            self._pass(event.pause)
            happen(self.stage, event)
            for rule in self.rules:
                rule.event(event)

    def _pass(self, seconds: float) -> None:
        end = self.stage.centre.now + seconds
        while (left := end - self.stage.centre.now) > 1e-6:
            if self.stage.away > 0 or self.stage.operator.finished:
                self._wait(min(left, self.stage.away or left), working=False)
                continue
            made = self._tick()
            self._wait(min(max(0.5, made.requeue_after), left), working=True)

    def _wait(self, seconds: float, *, working: bool) -> None:
        centre = self.stage.centre
        centre.advance(seconds)
        self.stage.away = max(0.0, self.stage.away - seconds)
        works = working and (centre.deleting or not centre.spec.paused)
        for rule in self.rules:
            rule.passed(seconds, working=works)

    def _tick(self) -> Plan:
        stage = self.stage
        dies_after, stage.dies_after = stage.dies_after, None
        if dies_after is not None:
            stage.centre.note(f"   the operator dies after {dies_after} actions of this plan")
        try:
            return stage.operator.tick(dice=stage.dice, killed_after=dies_after, told=stage.told)
        except (Enough, RefereeError):
            raise
        except Exception as error:
            self._report("tick", type(error).__name__, f"a tick fails: {error!r}")
            raise Enough from error

    # The end.

    def _end(self) -> None:
        self._heal()
        if self.stage.centre.deleting:
            self._farewell()
            return
        self._settle()
        if self.story.ending == "deletes":
            self.stage.centre.note("** the cluster is deleted")
            self.stage.centre.deleting = True
            self._farewell()

    def _heal(self) -> None:
        centre, stage = self.stage.centre, self.stage
        given_up = {name for name in centre.machines if is_emptied(centre, name) and not centre.rack(name).reachable}
        dead = frozenset(given_up) if self.story.ending == "buries" else frozenset()
        centre.note(f"** all heals{', except ' + ', '.join(sorted(dead)) if dead else ''}")
        centre.heal(dead=dead)
        if centre.spec.paused:
            wishes.ask(stage, paused=False)
        stage.away, stage.dies_after = 0.0, None
        for rule in self.rules:
            rule.healed()

    def _settle(self) -> None:
        """Run until nothing has happened for long, and look at what is there then."""
        centre = self.stage.centre
        begun = quiet = centre.now
        enough = self._quiet_seconds()
        while centre.now - quiet < enough or centre.now - begun < self._least_seconds():
            made = self._tick()
            quiet = centre.now if made.actions else quiet
            if centre.now - begun > LONGEST_REST_SECONDS:
                self._restless(centre.now - begun, made)
                return
            self._wait(made.requeue_after, working=True)
        self._each(Rest, lambda rule: rule.rested())
        self._each(WellInTheEnd, lambda rule: rule.rested())
        self._each(WarmPool, lambda rule: rule.rested())

    def _restless(self, seconds: float, made: Plan) -> None:
        self._each(Rest, lambda rule: rule.restless(seconds, made))

    def _each(self, kind: type[AnyRule], do: Callable[[AnyRule], None]) -> None:
        for rule in self.rules:
            if isinstance(rule, kind):
                do(rule)

    def _quiet_seconds(self) -> float:
        """Longer than any window, cooldown or retention of the spec, and than what failed may wait."""
        behavior = self.stage.centre.spec.scaling.behavior
        times = [
            it.seconds
            for way in (behavior.scale_up, behavior.scale_down)
            for it in (way.stabilization_window, way.cooldown)
        ]
        return max(300.0, *times) + self.stage.centre.spec.scaling.interval.seconds + 65.0

    def _least_seconds(self) -> float:
        centre = self.stage.centre
        buried = any(host_of(centre, vm.host) is None for vm in centre.vms.values())
        strays = centre.domains().keys() - {vm.uid for vm in centre.vms.values()}
        warm = {vm.uid for vm in centre.vms.values() if vm.role == "Warm"}
        paused = any(it.state == "Paused" and it.uuid not in warm for it in centre.domains().values())
        return GIVING_UP_SECONDS if buried or strays or paused else 0.0

    def _farewell(self) -> None:
        """The cluster is being deleted."""
        centre, operator = self.stage.centre, self.stage.operator
        before = {vm.name for vm in centre.serving() if vm.deleting_since is None and vm.name not in centre.asked}
        begun, end = centre.now, centre.now + FAREWELL_SECONDS
        while not operator.finished and centre.now < end:
            made = self._tick()
            self._wait(made.requeue_after, working=True)
        if operator.finished:
            self._wait(30.0, working=False)
        self._each(ClusterDeletionEnds, lambda rule: rule.ended(centre.now - begun, before))


def play(story: Story, *, make: Maker = WatchedOperator, stop_at: str = "") -> Outcome:
    """Play a story. Raises BadStory if it cannot be played. `make`: the operator; `stop_at`: see Play."""
    return Play(story, make=make, stop_at=stop_at).run()
