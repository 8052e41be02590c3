"""From a wish to a wanted number: windows, cooldowns, pauses, and what a decision remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from luban.api.cluster import LubanClusterSpec
from luban.core.memory import ClusterMemory
from luban.core.model import Observation, VMRecord
from luban.core.policies.base import ScalingLimits
from luban.core.scaling import Room, ScalingResult, decide_scaling, maximum, minimum, next_look
from luban.core.snapshot import Snapshot
from luban.core.state import State
from luban.core.times import Now, rfc3339
from tests.fakes.simulator import EPOCH, balancer_with, hosts_with, make_spec, make_vm

BUSY, CALM, BETWEEN = 80, 3, 40


def spec_with(
    *, up: dict[str, Any] | None = None, down: dict[str, Any] | None = None, **scaling: Any
) -> LubanClusterSpec:
    """Two hosts, two to six VMs, a look each 15 s; no windows unless asked for."""
    behavior = {"scaleUp": up or {}, "scaleDown": {"stabilizationWindow": "0s", **(down or {})}}
    return make_spec(scaling={"behavior": behavior, **scaling})


@dataclass
class Judge:
    """Judges a cluster again and again, remembering what is to be remembered."""

    spec: LubanClusterSpec
    count: int = 3
    memory: ClusterMemory = field(default_factory=ClusterMemory)
    now: float = EPOCH
    has_host: bool = True
    settled: bool = True
    """Whether all that is above a lower number could go at once."""
    extra: tuple[VMRecord, ...] = ()
    silent: tuple[str, ...] = ()

    def __call__(self, load: int | None, after: float = 0.0) -> ScalingResult:
        """The verdict so many seconds later, with this load on every VM (None: unknown)."""
        self.now += after
        serving = [make_vm(f"vm-{index}", host=("host-b", "host-c")[index % 2]) for index in range(1, self.count + 1)]
        vms = (*serving, *self.extra)
        observation = Observation(
            vms=vms,
            hosts=hosts_with(vms, silent=self.silent),
            balancers=(balancer_with({vm.name: "Enabled" for vm in serving}),),
            sessions={} if load is None else {vm.name: load for vm in serving},
        )
        state = State(observation)

        def limits(desired: int) -> ScalingLimits:
            found = Snapshot(self.spec, state, self.memory, self.now).limits(desired)
            has_host = desired < maximum(self.spec) and (self.has_host or len(state.live) > desired)
            return replace(found, has_host=has_host, removable=4)

        room = Room(limits, lambda _: self.settled, lambda: len(state.live))
        verdict = decide_scaling(self.spec, state, self.memory, Now(self.now, self.now), room)
        self.memory = verdict.memory
        assert verdict.memory.desired == verdict.desired
        assert verdict.memory.decision == verdict.decision
        return verdict


def said(verdict: ScalingResult) -> tuple[str, str, int]:
    return verdict.decision.verdict, verdict.decision.reason, verdict.desired


class TestWithoutWindows:
    """The paper's rule: what is wished is done."""

    def test_up(self) -> None:
        decide = Judge(spec_with())
        assert said(decide(BUSY)) == ("ScaleUp", "AllAboveUpper", 4)
        assert decide.memory.last_scale == EPOCH

    def test_down(self) -> None:
        assert said(Judge(spec_with())(CALM)) == ("ScaleDown", "EnoughBelowLower", 2)

    def test_hold(self) -> None:
        decide = Judge(spec_with())
        assert said(decide(BETWEEN)) == ("Hold", "WithinBand", 3)
        assert decide.memory.last_scale is None

    def test_steps(self) -> None:
        assert Judge(spec_with(up={"step": 2}))(BUSY).desired == 5
        assert Judge(spec_with(down={"step": 3}), count=6)(CALM).desired == 3


class TestInterval:
    """Loads are looked at once in `interval`; in between the decision stands."""

    def test_the_decision_stands_in_between(self) -> None:
        decide = Judge(spec_with())
        first = decide(BETWEEN)
        assert decide(BUSY, after=14.9).decision == first.decision
        assert decide(BUSY, after=0.1).decision.verdict == "ScaleUp"

    def test_so_does_the_wanted_number(self) -> None:
        decide = Judge(spec_with())
        decide(BUSY)
        assert said(decide(BUSY, after=5.0)) == ("ScaleUp", "AllAboveUpper", 4)

    def test_when_the_next_look_is(self) -> None:
        decide = Judge(spec_with())
        assert next_look(decide.spec, decide.memory, EPOCH) == 0.0
        decide(BETWEEN)
        assert next_look(decide.spec, decide.memory, EPOCH + 5.0) == 10.0
        assert next_look(decide.spec, decide.memory, EPOCH + 50.0) == 0.0


class TestStabilization:
    """A wish must have held for its window without a break."""

    def test_down_after_five_minutes_by_default(self) -> None:
        decide = Judge(make_spec())
        verdict = decide(CALM)
        assert said(verdict) == ("Hold", "Stabilizing", 3)
        assert verdict.decision.eligible_at == rfc3339(EPOCH + 300)
        assert verdict.decision.message.startswith("ScaleDown because vm-1 is at 3 %")
        assert verdict.decision.message.endswith(f"; waiting until {rfc3339(EPOCH + 300)}")
        for _ in range(19):
            assert said(decide(CALM, after=15.0)) == ("Hold", "Stabilizing", 3)
        assert said(decide(CALM, after=15.0)) == ("ScaleDown", "EnoughBelowLower", 2)

    def test_a_break_starts_it_anew(self) -> None:
        decide = Judge(make_spec())
        decide(CALM)
        decide(BETWEEN, after=150.0)
        assert decide(CALM, after=15.0).decision.eligible_at == rfc3339(EPOCH + 465)

    def test_unknown_loads_are_a_break(self) -> None:
        decide = Judge(make_spec())
        decide(CALM)
        assert decide(None, after=15.0).decision.reason == "LoadUnknown"
        assert decide(CALM, after=285.0).decision.reason == "Stabilizing"

    def test_it_is_looked_at_when_the_window_ends_even_between_two_intervals(self) -> None:
        decide = Judge(spec_with(interval="5m", down={"stabilizationWindow": "20s"}))
        decide(CALM)
        assert next_look(decide.spec, decide.memory, EPOCH) == 20.0
        assert decide(CALM, after=19.0).decision.reason == "Stabilizing"
        assert decide(CALM, after=1.0).decision.verdict == "ScaleDown"

    def test_up_has_a_window_of_its_own(self) -> None:
        decide = Judge(spec_with(up={"stabilizationWindow": "30s"}))
        assert decide(BUSY).decision.reason == "Stabilizing"
        assert said(decide(BUSY, after=30.0)) == ("ScaleUp", "AllAboveUpper", 4)

    def test_each_step_needs_a_window(self) -> None:
        decide = Judge(spec_with(down={"stabilizationWindow": "30s"}), count=5)
        decide(CALM)
        assert decide(CALM, after=30.0).desired == 4
        decide.count = 4
        assert said(decide(CALM, after=15.0)) == ("Hold", "Stabilizing", 4)
        assert decide(CALM, after=30.0).desired == 3


class TestCooldown:
    """Time after the last scaling in any direction."""

    def test_up_after_up(self) -> None:
        decide = Judge(spec_with(up={"cooldown": "60s"}))
        assert decide(BUSY).desired == 4
        decide.count = 4
        verdict = decide(BUSY, after=15.0)
        assert said(verdict) == ("Hold", "CoolingDown", 4)
        assert verdict.decision.eligible_at == rfc3339(EPOCH + 60)
        assert said(decide(BUSY, after=45.0)) == ("ScaleUp", "AllAboveUpper", 5)

    def test_down_after_up(self) -> None:
        decide = Judge(spec_with(down={"cooldown": "60s"}))
        decide(BUSY)
        decide.count = 4
        assert decide(CALM, after=15.0).decision.reason == "CoolingDown"

    def test_it_survives_a_restart(self) -> None:
        decide = Judge(spec_with(up={"cooldown": "60s"}), memory=ClusterMemory(last_scale=EPOCH - 10, desired=3))
        assert decide(BUSY).decision.reason == "CoolingDown"

    def test_the_later_of_both_counts(self) -> None:
        decide = Judge(
            spec_with(up={"cooldown": "60s", "stabilizationWindow": "90s"}),
            memory=ClusterMemory(last_scale=EPOCH, desired=3),
        )
        assert decide(BUSY).decision.reason == "Stabilizing"
        decide.spec = spec_with(up={"cooldown": "120s", "stabilizationWindow": "90s"})
        assert decide(BUSY, after=15.0).decision.reason == "CoolingDown"


class TestPauses:
    """Decisions are made and shown, and not carried out."""

    def test_pause_scale_in(self) -> None:
        decide = Judge(spec_with(pauseScaleIn=True))
        verdict = decide(CALM)
        assert said(verdict) == ("Hold", "ScaleInPaused", 3)
        assert verdict.decision.message.endswith("; scaling.pauseScaleIn is set")
        assert decide.memory.last_scale is None
        assert decide(BUSY, after=15.0).desired == 4

    def test_paused_holds_both(self) -> None:
        """The wanted number must not run away while nothing is carried out."""
        decide = Judge(spec_with().model_copy(update={"paused": True}))
        for load, word in ((BUSY, "ScaleUp"), (CALM, "ScaleDown"), (CALM, "ScaleDown")):
            verdict = decide(load, after=15.0)
            assert said(verdict) == ("Hold", "Paused", 3)
            assert verdict.decision.message.startswith(f"{word} because vm-1 is at")
        assert decide.memory.last_scale is None

    def test_paused_holds_manual_too(self) -> None:
        spec = make_spec(scaling={"policy": "Manual"}, replicas=5, paused=True)
        assert said(Judge(spec)(BETWEEN)) == ("Hold", "Paused", 3)


class TestManual:
    """spec.replicas decides, so that /scale does."""

    @staticmethod
    def manual(replicas: int | None, **rest: Any) -> Judge:
        spec = make_spec(scaling={"policy": "Manual", **rest})
        return Judge(spec.model_copy(update={"replicas": replicas}))

    def test_at_once_and_without_windows(self) -> None:
        assert said(self.manual(5)(CALM)) == ("ScaleUp", "Manual", 5)
        assert said(self.manual(2)(BUSY)) == ("ScaleDown", "Manual", 2)

    def test_between_two_intervals_too(self) -> None:
        decide = self.manual(3)
        assert said(decide(BUSY)) == ("Hold", "Manual", 3)
        decide.spec = decide.spec.model_copy(update={"replicas": 4})
        assert said(decide(BUSY, after=1.0)) == ("ScaleUp", "Manual", 4)
        assert said(decide(BUSY, after=1.0)) == ("Hold", "Manual", 4)

    def test_within_the_limits(self) -> None:
        verdict = self.manual(99)(BETWEEN)
        assert verdict.desired == 6
        assert verdict.decision.message == "spec.replicas asks for 99 VMs, kept within 2 and 6: 6"
        assert self.manual(0)(BETWEEN).desired == 2

    def test_a_minimum_that_the_hosts_ask_for_says_so(self) -> None:
        spec = make_spec(
            hosts=[{"name": "host-b", "vms": {"min": 2}}, {"name": "host-c"}], scaling={"policy": "Manual"}
        )
        said_so = Judge(spec.model_copy(update={"replicas": 1}))(BETWEEN).decision.message
        assert said_so == "spec.replicas asks for 1 VM, kept within 3 (hosts[].vms.min add up to it) and 6: 3"

    def test_not_set_keeps_what_is(self) -> None:
        verdict = self.manual(None)(BUSY)
        assert said(verdict) == ("Hold", "Manual", 3)
        assert verdict.decision.message == "spec.replicas is not set, so 3 VMs stay"

    def test_pause_scale_in_holds_it(self) -> None:
        assert said(self.manual(2, pauseScaleIn=True)(BETWEEN)) == ("Hold", "ScaleInPaused", 3)


class TestTimeOfADecision:
    """`at` is when a state began, or when something was done."""

    def test_a_hold_keeps_its_time_while_it_stands(self) -> None:
        decide = Judge(spec_with())
        decide(BETWEEN)
        verdict = decide(BETWEEN + 1, after=15.0)
        assert verdict.decision.at == rfc3339(EPOCH)
        assert verdict.decision.message.startswith("vm-1 is at 41 %")

    def test_so_does_at_maximum_once_per_episode(self) -> None:
        decide = Judge(spec_with(), count=6)
        decide(BUSY)
        for _ in range(3):
            assert decide(BUSY, after=15.0).decision.at == rfc3339(EPOCH)
        decide(BETWEEN, after=15.0)
        assert decide(BUSY, after=15.0).decision.at == rfc3339(EPOCH + 75)

    def test_and_after_a_restart(self) -> None:
        decide = Judge(spec_with(), count=6)
        old = decide(BUSY).decision
        decide.memory = ClusterMemory(decision=old, desired=6)
        assert decide(BUSY, after=60.0).decision.at == old.at

    def test_another_reason_is_another_state(self) -> None:
        decide = Judge(spec_with())
        decide(BETWEEN)
        assert decide(None, after=15.0).decision.at == rfc3339(EPOCH + 15)

    def test_two_scalings_are_two(self) -> None:
        decide = Judge(spec_with())
        decide(BUSY)
        decide.count = 4
        assert decide(BUSY, after=15.0).decision.at == rfc3339(EPOCH + 15)


class TestWantedNumber:
    """What is carried from one tick to the next."""

    def test_at_first_what_lives_or_the_minimum(self) -> None:
        assert Judge(spec_with(), count=3)(BETWEEN).desired == 3
        assert Judge(spec_with(), count=0)(BETWEEN).desired == 2

    def test_after_a_restart_what_the_status_says(self) -> None:
        """One VM is lost just now: it is missing, not superfluous."""
        assert Judge(spec_with(), count=3, memory=ClusterMemory(desired=4))(BETWEEN).desired == 4

    def test_the_spec_has_the_last_word(self) -> None:
        decide = Judge(spec_with(), count=6)
        decide(BETWEEN)
        decide.spec = spec_with(maxVMs=4)
        assert decide(BETWEEN, after=1.0).desired == 4
        decide.spec = spec_with(minVMs=5)
        assert decide(BETWEEN, after=1.0).desired == 5

    def test_hosts_have_a_word_too(self) -> None:
        hosts = [{"name": "host-b", "vms": {"min": 2, "max": 2}}, {"name": "host-c", "vms": {"min": 1, "max": 1}}]
        spec = make_spec(hosts, scaling={"minVMs": 1})
        assert (minimum(spec), maximum(spec)) == (3, 3)
        cordoned = make_spec([{**hosts[0], "cordoned": True}, hosts[1]], scaling={"minVMs": 1})
        assert (minimum(cordoned), maximum(cordoned)) == (1, 3)

    def test_it_never_falls_below_the_minimum_however_long_leaving_takes(self) -> None:
        """Nothing can leave (a silent host, say): the number must not be counted down each time."""
        decide = Judge(spec_with(), count=4)
        assert [decide(CALM, after=15.0).desired for _ in range(5)] == [3, 2, 2, 2, 2]
        assert decide(CALM, after=15.0).decision.reason == "MinVMs"


class TestStarting:
    """VMs that do not serve yet."""

    def test_growing_waits_for_one_that_boots_and_for_a_failed_one(self) -> None:
        for phase in ("Pending", "Provisioning", "Booting", "Ready", "Failed"):
            decide = Judge(spec_with(), extra=(make_vm("vm-9", phase),))
            assert said(decide(BUSY)) == ("Hold", "WarmingUp", 4), phase

    def test_but_not_for_one_above_the_wanted_number(self) -> None:
        """A rollout's successor: a long rollout would stop all growing."""
        decide = Judge(spec_with(), extra=(make_vm("vm-9", "Booting"),), memory=ClusterMemory(desired=3))
        assert said(decide(BUSY)) == ("ScaleUp", "AllAboveUpper", 4)

    def test_and_for_one_that_is_not_even_created(self) -> None:
        decide = Judge(spec_with(), memory=ClusterMemory(desired=4))
        assert decide(BUSY).decision.reason == "WarmingUp"

    def test_but_not_for_one_on_a_silent_host(self) -> None:
        """It may never come; those that serve are overloaded now."""
        silent = make_vm("vm-9", "Booting", "host-z")
        decide = Judge(spec_with(), extra=(silent,), silent=("host-z",))
        assert said(decide(BUSY)) == ("ScaleUp", "AllAboveUpper", 5)

    def test_shrinking_does_not_wait(self) -> None:
        decide = Judge(spec_with(), extra=(make_vm("vm-9", "Failed"),))
        assert said(decide(CALM)) == ("ScaleDown", "EnoughBelowLower", 3)

    def test_one_too_many_needs_no_host_with_room(self) -> None:
        """A surge VM serves already: wanting it costs nothing."""
        decide = Judge(spec_with(), count=4, memory=ClusterMemory(desired=3), has_host=False)
        assert said(decide(BUSY)) == ("ScaleUp", "AllAboveUpper", 4)
        assert said(decide(BUSY, after=15.0)) == ("AtMaximum", "NoHostHasRoom", 4)


def test_hosts_that_are_full_by_their_own_maxima_are_no_room() -> None:
    """maxVMs 6, but the hosts take 3: nobody wishes for a fourth again and again."""
    hosts = [{"name": "host-b", "vms": {"max": 2}}, {"name": "host-c", "vms": {"max": 1}}]
    decide = Judge(make_spec(hosts), count=4, memory=ClusterMemory(desired=3))
    assert said(decide(BUSY)) == ("AtMaximum", "NoHostHasRoom", 3)


def test_a_big_step_ends_where_the_hosts_end() -> None:
    hosts = [{"name": "host-b", "vms": {"max": 2}}, {"name": "host-c", "vms": {"max": 2}}]
    decide = Judge(make_spec(hosts, scaling={"behavior": {"scaleUp": {"step": 2}}}))
    assert said(decide(BUSY)) == ("ScaleUp", "AllAboveUpper", 4)


@pytest.mark.parametrize("load", [BUSY, CALM, BETWEEN, None])
def test_every_decision_has_a_reason_in_words(load: int | None) -> None:
    decision = Judge(spec_with())(load).decision
    assert decision.reason
    assert "vm-1" in decision.message
