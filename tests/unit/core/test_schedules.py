"""Schedules: more VMs at times of day, whatever the policy is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from luban.core.schedules import in_force, raises
from tests.fakes.simulator import EPOCH, Operator, World, make_spec

# EPOCH is 2023-11-14, 22:13:20 UTC.
HALF_PAST = datetime(2023, 11, 14, 22, 30, tzinfo=UTC).timestamp()
MORNING = {"name": "morning", "cron": "30 22 * * *", "duration": "1h", "minVMs": 4}


def world(*schedules: dict[str, Any], **scaling: Any) -> tuple[World, Operator]:
    hosts = [{"name": name, "vms": {"min": 0, "max": 6}} for name in ("host-b", "host-c")]
    made = World(make_spec(hosts, scaling={"schedules": schedules, "minVMs": 2, "maxVMs": 6, **scaling}))
    return made, Operator(made)


def live(world: World) -> int:
    return sum(vm.deleting_since is None for vm in world.vms.values())


def test_without_schedules_the_spec_is_the_same() -> None:
    spec = make_spec()
    assert in_force(spec, EPOCH) is spec


def test_the_highest_of_those_that_last_counts() -> None:
    spec = make_spec(scaling={"schedules": [MORNING, {**MORNING, "name": "more", "minVMs": 5, "duration": "10m"}]})
    found = [(it.scaling.min_vms, raises(it)) for s in (-1, 0, 599, 600, 3600) if (it := in_force(spec, HALF_PAST + s))]
    assert found == [(2, ""), (5, "more"), (5, "more"), (4, "morning"), (2, "")]


def test_one_that_asks_for_less_than_min_vms_changes_nothing() -> None:
    spec = make_spec(scaling={"schedules": [MORNING], "minVMs": 5})
    assert (in_force(spec, HALF_PAST).scaling.min_vms, raises(in_force(spec, HALF_PAST))) == (5, "")


@pytest.mark.parametrize("wall", [-1e12, 0.0, 1e15])
def test_whatever_the_clock_says(wall: float) -> None:
    assert in_force(make_spec(scaling={"schedules": [MORNING]}), wall).scaling.min_vms == 2


@pytest.mark.parametrize("policy", ["Sessions", "Target", "Manual"])
def test_it_raises_the_number_at_once_and_says_so(policy: str) -> None:
    it, operator = world(MORNING, policy=policy, behavior={"scaleUp": {"cooldown": "1h"}})
    operator.run(HALF_PAST - EPOCH - 1)
    assert live(it) == 2
    it.advance(5)
    made = operator.tick()
    assert (made.decision.verdict, made.decision.reason, made.desired) == ("ScaleUp", "Scheduled", 4)
    assert made.decision.message == "schedule morning asks for at least 4 VMs"
    operator.run(120)
    assert live(it) == 4
    operator.tick()
    assert operator.last is not None
    assert operator.last.decision.verdict == "Hold"


def test_while_it_lasts_nothing_goes_below_it_and_the_words_name_it() -> None:
    it, operator = world(MORNING)
    operator.run(HALF_PAST - EPOCH + 1800)
    assert live(it) == 4
    assert operator.last is not None
    assert (operator.last.decision.reason, live(it)) == ("MinVMs", 4)
    assert operator.last.decision.message.endswith("the minimum of 4 VMs is reached (schedule morning)")


def test_afterwards_the_policy_decides_with_its_window() -> None:
    it, operator = world(MORNING)
    operator.run(HALF_PAST - EPOCH + 3600)
    operator.run(280)
    assert live(it) == 4
    operator.run(1200)
    assert live(it) == 2


def test_a_restart_in_the_middle_changes_nothing() -> None:
    it, operator = world(MORNING)
    operator.run(HALF_PAST - EPOCH + 600)
    operator.restart()
    operator.run(600)
    assert (live(it), sum(vm.phase == "Ready" for vm in it.vms.values())) == (4, 4)


def test_paused_makes_nothing() -> None:
    it, operator = world(MORNING)
    operator.run(60)
    it.change(paused=True)
    operator.run(HALF_PAST - EPOCH + 60)
    assert live(it) == 2
