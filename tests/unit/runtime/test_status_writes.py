"""The status is written when it says something new, whatever the clocks do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from luban.core.times import rfc3339
from luban.errors import Conflict
from luban.runtime.status import VOLATILE_SECONDS
from tests.fakes.operator_harness import NAMESPACE, START, OperatorHarness, VirtualClock


class TremblingClock(VirtualClock):
    """Some time passes between one look at a clock and the next; sometimes more, sometimes less."""

    def __init__(self, trembles: Iterator[float]) -> None:
        super().__init__()
        self._trembles = trembles

    def monotonic(self) -> float:
        """A little later than it should be."""
        return super().monotonic() + next(self._trembles)


def writes(harness: OperatorHarness) -> int:
    return harness.api.calls["patch_cluster_status"]


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.75])
async def test_a_calm_cluster_is_not_written_after_a_restart(fraction: float) -> None:
    clock = TremblingClock(itertools.cycle([0.0, 3e-6, 1e-6, 0.002, 2e-6]))
    clock.seconds += fraction
    harness = OperatorHarness(clock=clock)
    await harness.run(60)
    harness.change(replicas=3)
    await harness.run(60)
    assert harness.consistent(3)
    told = harness.body()["status"]["lastScaleTime"]
    harness.new_operator()
    await harness.run(10)
    before = writes(harness)
    await harness.run(600)
    assert writes(harness) == before
    assert harness.body()["status"]["lastScaleTime"] == told


async def test_another_scaling_is_another_time() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.change(replicas=3)
    await harness.run(60)
    first = harness.body()["status"]["lastScaleTime"]
    harness.change(replicas=4)
    await harness.run(60)
    assert rfc3339(START) < first < harness.body()["status"]["lastScaleTime"]


async def test_figures_that_move_are_told_though_the_time_of_day_is_set_back() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    for step, flying in ((4000, 3), (-3600, 7)):
        harness.clock.seconds += step
        harness.balancer.in_flight = dict.fromkeys((vm["metadata"]["name"] for vm in harness.vms()), flying)
        await harness.run(2 * VOLATILE_SECONDS)
        assert harness.body()["status"]["sessions"] == 2 * flying


@pytest.mark.parametrize("times", [1, 3, 20], ids=["once", "some", "all-the-time"])
async def test_edits_that_come_between_are_no_trouble(times: int) -> None:
    """A lost optimistic lock is nothing that a user could mend: no condition and no Event tells of it."""
    harness = OperatorHarness()
    await harness.run(60)
    harness.api.fail_next("patch_cluster_status", Conflict("Conflict", "the object has been modified"), times=times)
    harness.change(replicas=3)
    await harness.run(60)
    assert harness.consistent(3)
    status = harness.body()["status"]
    assert status["vms"]["desired"] == 3
    assert {it["type"]: it["status"] for it in status["conditions"]}["Reconciled"] == "True"
    assert not [it for it in harness.api.events(NAMESPACE) if "modified" in it.message or "Reconciled" in it.reason]
