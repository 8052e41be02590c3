"""Policies whose wish is a number: shrinking takes the highest within its window, and growing asks no window of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from luban.api.cluster import LubanClusterSpec
from luban.core.figures import Figures
from luban.core.memory import ClusterMemory, Wish
from luban.core.model import Observation
from luban.core.policies.base import ScalingLimits
from luban.core.scaling import Room, ScalingResult, decide_scaling
from luban.core.state import State
from luban.core.times import Now
from luban.core.wishes import below_from, highest, noted
from tests.fakes.simulator import EPOCH, balancer_with, hosts_with, make_spec, make_vm

WINDOW = 300.0


def target_spec(**scaling: Any) -> LubanClusterSpec:
    """CPU is to be at 50 percent, on one to ten VMs, in steps of any size."""
    behavior = {"scaleUp": {"step": 10}, "scaleDown": {"step": 10, **scaling.pop("down", {})}}
    hosts = [{"name": name, "vms": {"min": 0, "max": 10}} for name in ("host-b", "host-c")]
    usual = {"policy": "Target", "target": {"percent": 50}, "minVMs": 1, "maxVMs": 10, "behavior": behavior}
    return make_spec(hosts, scaling={**usual, **scaling})


@dataclass
class Judge:
    """Judges a cluster again and again; what it wants is there at once."""

    spec: LubanClusterSpec = field(default_factory=target_spec)
    count: int = 4
    memory: ClusterMemory = field(default_factory=ClusterMemory)
    now: float = EPOCH

    def __call__(self, load: float | None, after: float = 15.0, **seen: Any) -> ScalingResult:
        """The verdict so many seconds later, with so much percent of one VM's CPU in all (None: unknown)."""
        self.now += after
        vms = tuple(make_vm(f"vm-{index}") for index in range(self.count))
        observation = Observation(
            vms=vms,
            hosts=hosts_with(vms),
            balancers=(balancer_with({vm.name: "Enabled" for vm in vms}),),
            figures={} if load is None else {vm.name: Figures(cpu=load / self.count) for vm in vms},
            **seen,
        )
        state = State(observation)

        def limits(desired: int) -> ScalingLimits:
            return ScalingLimits(desired, 0, 1, 10, has_host=True, up_step=10, down_step=10, removable=10)

        room = Room(limits, lambda _: True, lambda: self.count)
        verdict = decide_scaling(self.spec, state, self.memory, Now(self.now, self.now), room)
        self.memory, self.count = verdict.memory, verdict.desired
        return verdict


def said(verdict: ScalingResult) -> tuple[str, str, int]:
    return verdict.decision.verdict, verdict.decision.reason, verdict.desired


class TestWishes:
    """The window itself."""

    def test_what_was_before_the_first_look_counts_as_the_number_so_far(self) -> None:
        assert noted((), 2, 5, 10.0) == (Wish(10.0, 5), Wish(10.0, 2))
        assert noted((), 7, 5, 10.0) == (Wish(10.0, 7),)

    def test_a_lower_one_before_a_higher_one_is_forgotten(self) -> None:
        wishes = noted(noted(noted((), 3, 5, 1.0), 2, 5, 2.0), 4, 5, 3.0)
        assert wishes == (Wish(1.0, 5), Wish(3.0, 4))

    def test_what_was_right_at_the_last_look_was_so_until_this_one(self) -> None:
        assert noted((Wish(1.0, 5), Wish(2.0, 4)), 3, 5, 9.0) == (Wish(1.0, 5), Wish(9.0, 4), Wish(9.0, 3))

    def test_it_stays_small_however_long_the_window_is(self) -> None:
        wishes: tuple[Wish, ...] = ()
        for second in range(10_000):
            wishes = noted(wishes, (second * 7) % 50, 50, float(second))
        assert len(wishes) <= 51

    def test_highest_within_the_window(self) -> None:
        wishes = (Wish(0.0, 5), Wish(10.0, 3), Wish(20.0, 1))
        assert [highest(wishes, 15.0, now) for now in (14.9, 15.0, 24.9, 25.0, 99.0)] == [5, 3, 3, 1, 1]
        assert highest(wishes, 0.0, 20.0) == 1
        assert (below_from(wishes, 5, 15.0), below_from(wishes, 3, 15.0)) == (15.0, 25.0)


class TestShrinking:
    """behavior.scaleDown for policies that count."""

    def test_only_after_a_whole_window_and_then_to_what_is_right(self) -> None:
        decide = Judge()
        assert said(decide(90)) == ("Hold", "Stabilizing", 4)
        assert decide.memory.eligible == decide.now + WINDOW
        assert said(decide(90, WINDOW - 1)) == ("Hold", "Stabilizing", 4)
        assert said(decide(90, 1)) == ("ScaleDown", "BelowTarget", 2)

    def test_the_highest_within_the_window_holds(self) -> None:
        decide = Judge()
        decide(90)
        decide(140, 200)
        assert said(decide(40, 100)) == ("ScaleDown", "BelowTarget", 3)
        assert said(decide(40, 299)) == ("Hold", "Stabilizing", 3)
        assert said(decide(40, 1)) == ("ScaleDown", "BelowTarget", 1)

    def test_what_is_unknown_counts_as_the_number_so_far(self) -> None:
        decide = Judge()
        decide(90)
        assert decide(None, 200).decision.reason == "LoadUnknown"
        assert said(decide(90, 100)) == ("Hold", "Stabilizing", 4)
        assert said(decide(90, 299)) == ("Hold", "Stabilizing", 4)
        assert said(decide(90, 1)) == ("ScaleDown", "BelowTarget", 2)

    def test_a_vm_that_fails_our_probe_breaks_it_off(self) -> None:
        decide = Judge()
        decide(90)
        assert decide(90, WINDOW, probes={"vm-1": False}).decision.reason == "NotAnswering"
        assert said(decide(90)) == ("Hold", "Stabilizing", 4)

    def test_growing_is_not_held_up_and_starts_the_window_anew(self) -> None:
        decide = Judge()
        decide(90)
        assert said(decide(290)) == ("ScaleUp", "AboveTarget", 6)
        assert said(decide(90, 15)) == ("Hold", "Stabilizing", 6)
        assert said(decide(90, 299)) == ("Hold", "Stabilizing", 6)
        assert said(decide(90, 1)) == ("ScaleDown", "BelowTarget", 2)

    def test_a_step_goes_on_without_another_window(self) -> None:
        decide = Judge(target_spec(down={"step": 1}))
        decide(40)
        decide.spec = target_spec(down={"step": 10})
        assert said(decide(40, WINDOW)) == ("ScaleDown", "BelowTarget", 1)

    def test_no_window(self) -> None:
        decide = Judge(target_spec(down={"stabilizationWindow": "0s"}))
        assert said(decide(90)) == ("ScaleDown", "BelowTarget", 2)

    def test_paused_goes_on_counting(self) -> None:
        decide = Judge(target_spec(pauseScaleIn=True))
        decide(90)
        assert said(decide(90, WINDOW)) == ("Hold", "ScaleInPaused", 4)
        decide.spec = target_spec()
        assert said(decide(90)) == ("ScaleDown", "BelowTarget", 2)

    def test_another_policy_forgets_it(self) -> None:
        decide = Judge()
        decide(90)
        decide.spec = target_spec(policy="Sessions")
        decide(90)
        assert decide.memory.wishes == ()

    def test_a_restart_waits_a_whole_window(self) -> None:
        decide = Judge()
        decide(90)
        decide.memory = ClusterMemory(desired=4)
        assert said(decide(90, WINDOW)) == ("Hold", "Stabilizing", 4)

    def test_the_status_tells_the_metrics(self) -> None:
        decision = Judge()(100).decision
        assert [it.wire() for it in decision.metrics] == [{"name": "CPU", "value": 25.0, "unknown": 0}]
