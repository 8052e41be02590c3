"""Each rule can be broken: an operator that is sabotaged in one way is found out, and the one as it is, is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from tests.referee.bridge import (
    BALANCER,
    EPOCH,
    SURPLUS,
    Action,
    CreateVM,
    DeleteVM,
    DestroyDomain,
    EnsureDomain,
    Member,
    Plan,
    PublishBalancer,
    ReleaseVM,
    ShutdownDomain,
    SuspendDomain,
    UpdateVM,
    WatchedOperator,
)
from tests.referee.centre import DataCentre
from tests.referee.drive import play
from tests.referee.known import DEFAULTS, NO_MINIMA, spec, story
from tests.referee.rules import RULES
from tests.referee.shrink import shortest
from tests.referee.story import Story

Twist = Callable[[DataCentre, list[Action]], list[Action]]


class Saboteur(WatchedOperator):
    """An operator whose plans are changed on the way to the world, from a minute on."""

    twist: Twist

    def look(self) -> Plan:
        """The plan as it should not be."""
        # Its own patience would keep back what the sabotage adds.
        self.retries.forget()
        made = super().look()
        centre = self.world
        assert isinstance(centre, DataCentre)
        if centre.now < EPOCH + 60.0:
            return made
        return replace(made, actions=tuple(self.twist(centre, list(made.actions))))


def saboteur(twist: Twist) -> Callable[[DataCentre], WatchedOperator]:
    """Makes such operators."""

    def make(centre: DataCentre) -> WatchedOperator:
        operator = Saboteur(centre)
        operator.twist = twist
        return operator

    return make


def adding(make: Callable[[DataCentre], list[Action]]) -> Twist:
    """More actions than there should be."""
    return lambda centre, actions: [*actions, *make(centre)]


def dropping(*kinds: type[Action]) -> Twist:
    """Actions of these kinds are never carried out."""
    return lambda _, actions: [it for it in actions if not isinstance(it, kinds)]


def deleting(host: str, reason: str) -> Twist:
    """The VMs on the host are deleted."""

    def make(centre: DataCentre) -> list[Action]:
        return [DeleteVM(vm.name, reason) for vm in centre.by_age()[:6] if vm.host == host]

    return adding(make)


def creating(host: str, most: int) -> Twist:
    """A VM is created on the host while the cluster has no more than `most`."""

    def make(centre: DataCentre) -> list[Action]:
        action = CreateVM(f"luban-{len(centre.vms)}", host, f"qemu+tls://{host}/system", "", "Whim")
        return [action] if len(centre.vms) <= most else []

    return adding(make)


def blanked(_: DataCentre, actions: list[Action]) -> list[Action]:
    """Nothing has a reason."""
    return [replace(it, reason="") for it in actions]


def at_one_address(_: DataCentre, actions: list[Action]) -> list[Action]:
    """All members are published at one address."""
    return [
        replace(it, members=tuple(replace(member, address="10.0.0.1") for member in it.members))
        if isinstance(it, PublishBalancer)
        else it
        for it in actions
    ]


def stopping(centre: DataCentre) -> list[Action]:
    """A VM is stopped as it is."""
    return [ShutdownDomain(vm, "Whim") for vm in centre.by_age()[:1]]


def pulling_the_plug(centre: DataCentre) -> list[Action]:
    """VMs that leave are cut short."""
    return [DestroyDomain(vm, "Whim") for vm in centre.by_age() if vm.phase == "Stopping"]


def letting_go(centre: DataCentre) -> list[Action]:
    """VMs that leave are forgotten."""
    return [ReleaseVM(vm.name, "Whim") for vm in centre.by_age() if vm.deleting_since is not None]


def insisting(centre: DataCentre) -> list[Action]:
    """What failed is tried again at once."""
    return [EnsureDomain(vm, "Whim") for vm in centre.by_age() if centre.domain(vm) is None]


def writing(centre: DataCentre) -> list[Action]:
    """A status is written again and again."""
    return [UpdateVM(vm.name, vm.phase, "Whim", "", vm.address, vm.balancers) for vm in centre.by_age()[:1]]


def publishing_nobody(centre: DataCentre) -> list[Action]:
    """The balancer is told of no VM."""
    nobody: tuple[Member, ...] = ()
    return [PublishBalancer(BALANCER, nobody, "Whim")]


@dataclass(frozen=True)
class Case:
    """A story in which the operator as it is keeps a rule, and a sabotaged one breaks it."""

    rule: str
    twist: Twist
    story: Story


QUIET = spec(DEFAULTS, minVMs=2, maxVMs=2)
LOOSE = spec(NO_MINIMA, minVMs=1, maxVMs=3)
MANUAL = spec(DEFAULTS, replicas=1, minVMs=1, maxVMs=3, policy="Manual")

CASES = (
    Case("answers", deleting("host-b", "Whim"), story(100, QUIET, (60, "load-is", 100))),
    Case("missing-data", deleting("host-b", "Whim"), story(100, QUIET, (60, "host-hangs", "host-b"))),
    Case("blind-removal", deleting("host-b", "Whim"), story(100, QUIET, (60, "agent-is-silent"))),
    Case("true-cause", deleting("host-b", SURPLUS), story(150, LOOSE, (60, "load-is", 80))),
    Case("host-minimum", deleting("host-b", SURPLUS), story(0, spec(DEFAULTS, minVMs=1, maxVMs=3), (60, "load-is", 0))),
    Case("drain", adding(stopping), story(100, QUIET, (60, "load-is", 100))),
    Case("grace", adding(pulling_the_plug), story(0, QUIET, (60, "user-deletes-vm", 0))),
    Case("nothing-left", adding(letting_go), story(0, QUIET, (60, "user-deletes-vm", 0))),
    Case("deletion-ends", dropping(ReleaseVM), story(0, QUIET, (60, "user-deletes-vm", 0))),
    Case("maximum", creating("host-b", 2), story(100, QUIET, (60, "load-is", 100))),
    Case("placement", creating("host-c", 2), story(0, LOOSE, (60, "user-cordons", "host-c"))),
    Case("one-address", at_one_address, story(0, QUIET, (60, "user-deletes-vm", 0))),
    Case("reason", blanked, story(0, QUIET, (60, "user-deletes-vm", 0))),
    Case("paused", adding(writing), story(0, QUIET, (60, "user-pauses", True))),
    Case(
        "patience",
        adding(insisting),
        story(0, QUIET, (60, "host-refuses", "host-b", "image"), (0, "vm-crashes", "host-b")),
    ),
    Case("route", dropping(PublishBalancer), story(100, QUIET, (60, "vm-crashes", "host-b"))),
    Case("rest", adding(writing), story(0, QUIET, (60, "load-is", 0))),
    Case("end", dropping(CreateVM), story(0, MANUAL, (60, "vm-crashes", 0))),
    Case("pool", dropping(SuspendDomain), story(0, QUIET, (60, "user-sets-pool", 1, False))),
    Case("cluster-deletion", dropping(DeleteVM), replace(story(0, QUIET), ending="deletes")),
)
BY_RULES = spec(NO_MINIMA, minVMs=1, maxVMs=3, policy="Rules", rules=[{"metric": "CPU", "max": 70, "min": 20}])
TO_TARGET = spec(NO_MINIMA, minVMs=1, maxVMs=3, policy="Target", target={"metric": "Memory", "percent": 40})
MORE_CASES = (
    Case("true-cause", deleting("host-b", SURPLUS), story(150, BY_RULES, (60, "load-is", 80))),
    Case("end", dropping(CreateVM), story(0, BY_RULES, (60, "load-is", 150))),
    Case("true-cause", deleting("host-b", SURPLUS), story(100, TO_TARGET, (60, "load-is", 90))),
    Case("end", dropping(CreateVM), story(0, TO_TARGET, (60, "load-is", 150))),
)
"""The same rules under other policies."""


def breaks(rule: str, of: Story, twist: Twist | None = None) -> bool:
    """Whether the rule is broken."""
    make = saboteur(twist) if twist is not None else WatchedOperator
    return any(it.rule == rule for it in play(of, make=make, stop_at=rule).violations)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_finds_who_breaks_it(case: Case) -> None:
    """And nobody else."""
    assert breaks(case.rule, case.story, case.twist)
    assert not breaks(case.rule, case.story)


@pytest.mark.parametrize("case", MORE_CASES, ids=lambda case: f"{case.rule}-{case.story.spec['scaling']['policy']}")
def test_a_rule_finds_it_under_every_policy(case: Case) -> None:
    """Judged by what each policy asks for."""
    assert breaks(case.rule, case.story, case.twist)
    assert not breaks(case.rule, case.story)


def test_every_rule_has_a_case() -> None:
    """A rule that cannot be broken says nothing."""
    assert {case.rule for case in CASES} == {rule.name for rule in RULES}


def test_an_operator_that_raises_is_found() -> None:
    """A tick that fails is a violation of its own, not the end of the run."""

    def failing(_: DataCentre, actions: list[Action]) -> list[Action]:
        raise OverflowError(f"year out of range, {len(actions)} actions lost")

    assert breaks("tick", story(0, QUIET, (60, "load-is", 0)), failing)


def test_the_shortest_story_holds_nothing_else() -> None:
    """Of noise, a fault and more noise only the fault is left."""
    long = story(
        100,
        spec(DEFAULTS, replicas=2, minVMs=2, maxVMs=3, policy="Manual"),
        (60, "load-is", 30),
        (5, "user-sets-interval", "60s"),
        (20, "user-pauses", True),
        (3, "load-is", 500),
        (9, "requests-take", 4.0),
    )

    def disobeying(centre: DataCentre) -> list[Action]:
        return writing(centre) if centre.spec.paused else []

    short = shortest(replace(long, dice=7), "paused/UpdateVM", make=saboteur(adding(disobeying)))
    assert [it.kind for it in short.happenings[:-1]] == ["user-pauses"]
    assert len(short.happenings) <= 2
    assert short.dice is None
    assert "policy" not in short.spec.get("scaling", {})
