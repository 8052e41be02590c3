"""The Sessions policy: every branch of Luban cloud [L], Fig. 3, with the figures of the paper's experiment."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from luban.api.cluster import Sessions
from luban.core.policies.base import Recommendation, ScalingLimits
from luban.core.policies.sessions import judge_load, percent

PAPER = Sessions(max_per_vm=100, upper_percent=60, lower_percent=10, lower_quorum=2)


def room(**fields: Any) -> ScalingLimits:
    """The paper's six VMs on two hosts, two of them running, unless told otherwise."""
    return ScalingLimits(
        **{"total": 2, "starting": 0, "minimum": 2, "maximum": 6, "has_host": True, "removable": 4, **fields}
    )


def judged(
    loads: dict[str, int | None], limits: Sessions = PAPER, *, failing: Collection[str] = (), **fields: Any
) -> Recommendation:
    """The wish for these loads; None: unknown. N is the number of loads unless told otherwise."""
    known = {name: load for name, load in loads.items() if load is not None}
    return judge_load(list(loads), known, limits, room(**{"total": len(loads), **fields}), failing=failing)


class TestLines10To12:
    """All VMs exceed: one more."""

    def test_minute_five_of_the_experiment(self) -> None:
        wish = judged({"vm-1": 68, "vm-2": 64})
        assert (wish.verdict, wish.reason, wish.delta) == ("ScaleUp", "AllAboveUpper", 1)
        assert wish.message == "vm-1 is at 68 %, vm-2 is at 64 %: all at or above 60 %"

    def test_exactly_sixty_is_enough(self) -> None:
        assert judged({"vm-1": 60, "vm-2": 60}).verdict == "ScaleUp"

    def test_one_short_of_sixty_is_not(self) -> None:
        wish = judged({"vm-1": 60, "vm-2": 59})
        assert (wish.verdict, wish.reason, wish.delta) == ("Hold", "NotAllAboveUpper", 0)
        assert wish.message == "vm-2 is at 59 %, all must be at or above 60 %"

    def test_the_share_is_not_rounded_up(self) -> None:
        limits = Sessions(max_per_vm=1000)
        assert judged({"vm-1": 599, "vm-2": 600}, limits).message == "vm-1 is at 59.9 %, all must be at or above 60 %"
        assert judged({"vm-1": 600, "vm-2": 600}, limits).verdict == "ScaleUp"

    def test_inputs_are_kept_for_the_user(self) -> None:
        wish = judged({"vm-1": 68, "vm-2": None, "vm-3": 5})
        assert [(it.vm, it.sessions, it.percent) for it in wish.inputs] == [
            ("vm-1", 68, 68),
            ("vm-2", None, None),
            ("vm-3", 5, 5),
        ]

    @pytest.mark.parametrize(("step", "maximum", "delta"), [(1, 6, 1), (3, 6, 3), (3, 4, 2), (3, 3, 1)])
    def test_the_step_ends_at_max_vms(self, step: int, maximum: int, delta: int) -> None:
        assert judged({"vm-1": 70, "vm-2": 70}, up_step=step, maximum=maximum).delta == delta

    def test_one_that_starts_is_waited_for(self) -> None:
        wish = judged({"vm-1": 70, "vm-2": 70}, total=3, starting=1)
        assert (wish.verdict, wish.reason) == ("Hold", "WarmingUp")
        assert wish.message.endswith("of 3 wanted VMs 1 do not serve yet")

    def test_an_overloaded_vm_is_above_a_hundred_percent(self) -> None:
        assert judged({"vm-1": 250, "vm-2": 100}).message.startswith("vm-1 is at 250 %")


class TestLines7To9:
    """The maximum is reached: the admin is told."""

    def test_six_of_six(self) -> None:
        wish = judged({f"vm-{index}": 80 for index in range(1, 7)})
        assert (wish.verdict, wish.reason, wish.delta) == ("AtMaximum", "MaxVMs", 0)
        assert wish.message.endswith("all at or above 60 %, but maxVMs 6 is reached")

    def test_no_host_has_room(self) -> None:
        wish = judged({"vm-1": 80, "vm-2": 80}, has_host=False)
        assert (wish.verdict, wish.reason) == ("AtMaximum", "NoHostHasRoom")

    def test_six_that_do_not_exceed_are_no_reason(self) -> None:
        loads: dict[str, int | None] = {f"vm-{index}": 80 for index in range(1, 6)}
        assert judged(loads | {"vm-6": 40}).verdict == "Hold"

    def test_one_that_starts_does_not_hide_the_maximum(self) -> None:
        assert judged({"vm-1": 80}, total=6, starting=5).verdict == "AtMaximum"


class TestUpperQuorum:
    """A share of the VMs is enough."""

    HALF = PAPER.model_copy(update={"upper_quorum_percent": 50})

    def test_half_of_four(self) -> None:
        wish = judged({"vm-1": 70, "vm-2": 90, "vm-3": 20, "vm-4": 30}, self.HALF)
        assert wish.verdict == "ScaleUp"
        assert wish.message == "vm-1 is at 70 %, vm-2 is at 90 %: 50 % of the VMs at or above 60 %"

    def test_half_of_five_is_three(self) -> None:
        loads = {"vm-1": 70, "vm-2": 90, "vm-3": 20, "vm-4": 30, "vm-5": 55}
        wish = judged(dict(loads), self.HALF)
        assert wish.verdict == "Hold"
        # The two lightest may stay light: the third one must follow.
        assert wish.message == "vm-5 is at 55 %, 50 % of the VMs must be at or above 60 %"

    def test_unknown_ones_count_against_it(self) -> None:
        assert judged({"vm-1": 70, "vm-2": None}, self.HALF).verdict == "ScaleUp"
        assert judged({"vm-1": 70, "vm-2": 20, "vm-3": None}, self.HALF).verdict == "Hold"


class TestLines13To17:
    """Enough VMs are idle: one goes."""

    def test_two_idle_ones_of_three(self) -> None:
        wish = judged({"vm-1": 9, "vm-2": 30, "vm-3": 7})
        assert (wish.verdict, wish.reason, wish.delta) == ("ScaleDown", "EnoughBelowLower", -1)
        assert wish.message == "vm-1 is at 9 %, vm-3 is at 7 %: at or below 10 %"

    def test_exactly_ten_is_idle(self) -> None:
        """Prose and experiment; the figure's line 4 prints >=."""
        assert judged({"vm-1": 10, "vm-2": 10, "vm-3": 50}).verdict == "ScaleDown"
        assert judged({"vm-1": 10, "vm-2": 11, "vm-3": 50}).verdict == "Hold"

    def test_the_share_is_not_rounded_down(self) -> None:
        limits = Sessions(max_per_vm=1000)
        assert judged({"vm-1": 100, "vm-2": 100, "vm-3": 500}, limits).verdict == "ScaleDown"
        wish = judged({"vm-1": 100, "vm-2": 109, "vm-3": 500}, limits)
        assert (wish.verdict, wish.reason) == ("Hold", "TooFewBelowLower")
        assert wish.message == "vm-2 is at 10.9 %, 2 VMs must be at or below 10 %"

    def test_one_idle_vm_is_too_few(self) -> None:
        """The figure's NBelow >= 2: another light VM must be there to take the load."""
        wish = judged({"vm-1": 40, "vm-2": 35, "vm-3": 7})
        assert (wish.verdict, wish.reason) == ("Hold", "TooFewBelowLower")
        assert wish.message == "vm-2 is at 35 %, 2 VMs must be at or below 10 %"

    def test_fewer_vms_than_the_quorum(self) -> None:
        assert judged({"vm-1": 3}, total=3).reason == "TooFewBelowLower"

    def test_min_vms_stay(self) -> None:
        """The end of the experiment: vm-1 and vm-2 are idle and stay."""
        wish = judged({"vm-1": 4, "vm-2": 6})
        assert (wish.verdict, wish.reason) == ("Hold", "MinVMs")
        assert wish.message.endswith("but the minimum of 2 VMs is reached")
        of_hosts = judged({"vm-1": 4, "vm-2": 6}, minimum_of_hosts=True)
        assert of_hosts.message.endswith("but the minimum of 2 VMs is reached (hosts[].vms.min add up to it)")

    def test_no_host_can_give_one(self) -> None:
        assert judged({"vm-1": 4, "vm-2": 6, "vm-3": 5}, removable=0).reason == "HostMinimum"

    @pytest.mark.parametrize(("step", "removable", "delta"), [(1, 4, -1), (3, 4, -3), (9, 4, -3), (3, 2, -2)])
    def test_the_step_ends_at_the_minima(self, step: int, removable: int, delta: int) -> None:
        loads: dict[str, int | None] = dict.fromkeys(("vm-1", "vm-2", "vm-3", "vm-4", "vm-5"), 1)
        assert judged(loads, down_step=step, removable=removable).delta == delta

    def test_one_that_does_not_serve_yet_holds_nothing_up(self) -> None:
        """It would be the first to go; otherwise a VM that never comes up would keep idle ones running for ever."""
        assert judged({"vm-1": 4, "vm-2": 6}, total=3, starting=1).verdict == "ScaleDown"

    def test_growing_comes_first(self) -> None:
        """Both could only be true with a quorum; more is safer."""
        limits = PAPER.model_copy(update={"upper_quorum_percent": 50})
        assert judged({"vm-1": 90, "vm-2": 90, "vm-3": 1, "vm-4": 1}, limits).verdict == "ScaleUp"


class TestThePapersTwoReadings:
    """`lowerQuorum` 2 is the figure, 1 is the prose: the idle VM's own host must run another."""

    PROSE = PAPER.model_copy(update={"lower_quorum": 1})

    def test_minute_fifteen_of_the_experiment(self) -> None:
        """vm-3 fell below ten, vm-1 and vm-2 did not: only the prose shuts it down, as the experiment did."""
        loads: dict[str, int | None] = {"vm-1": 22, "vm-2": 18, "vm-3": 8}
        movable = frozenset({"vm-1", "vm-3"})
        assert judged(loads, self.PROSE, removable=1, movable=movable).verdict == "ScaleDown"
        assert judged(loads, PAPER, removable=1, movable=movable).verdict == "Hold"

    def test_an_idle_vm_alone_on_its_host_takes_no_busy_one_down(self) -> None:
        """host-b: vm-1 and vm-3, busy; host-c: vm-2, idle and the only one there."""
        wish = judged({"vm-1": 55, "vm-2": 5, "vm-3": 50}, self.PROSE, removable=1, movable=frozenset({"vm-1", "vm-3"}))
        assert (wish.verdict, wish.reason) == ("Hold", "HostMinimum")
        assert wish.message == "vm-2 is at 5 %: at or below 10 %, but no host with an idle VM is above its vms.min"

    def test_with_the_figure_the_light_ones_take_over(self) -> None:
        wish = judged({"vm-1": 55, "vm-2": 5, "vm-3": 50, "vm-4": 5}, removable=1, movable=frozenset({"vm-1", "vm-3"}))
        assert wish.verdict == "ScaleDown"


class TestUnknownLoads:
    """Missing data never removes anything, and adds only on what is known."""

    def test_one_unknown_forbids_to_shrink(self) -> None:
        wish = judged({"vm-1": 1, "vm-2": 2, "vm-3": None})
        assert (wish.verdict, wish.reason) == ("Hold", "LoadUnknown")
        assert wish.message.endswith("but sessions of vm-3 are unknown")

    def test_one_unknown_delays_growing(self) -> None:
        wish = judged({"vm-1": 90, "vm-2": 90, "vm-3": None})
        assert (wish.verdict, wish.reason, wish.message) == ("Hold", "LoadUnknown", "sessions of vm-3 are unknown")

    def test_exactly_half_is_judged(self) -> None:
        limits = PAPER.model_copy(update={"upper_quorum_percent": 50})
        assert judged({"vm-1": 90, "vm-2": None}, limits).verdict == "ScaleUp"

    def test_over_half_is_not(self) -> None:
        limits = PAPER.model_copy(update={"upper_quorum_percent": 1})
        wish = judged({"vm-1": 90, "vm-2": None, "vm-3": None}, limits)
        assert (wish.verdict, wish.message) == ("Hold", "sessions of vm-2, vm-3 are unknown")

    def test_nothing_serves(self) -> None:
        assert judged({}).reason == "NothingServes"


class TestFailingVMs:
    """VMs that the balancers pass over because they fail their health checks."""

    def test_they_do_not_hold_growing_up(self) -> None:
        """It hangs and so has no sessions; the others are overloaded because of it."""
        wish = judged({"vm-1": 90, "vm-2": 0, "vm-3": 80}, failing=["vm-2"])
        assert wish.verdict == "ScaleUp"
        assert wish.message == "vm-1 is at 90 %, vm-3 is at 80 %: all at or above 60 %"
        assert [it.vm for it in wish.inputs] == ["vm-1", "vm-2", "vm-3"]

    def test_they_are_not_idle(self) -> None:
        assert judged({"vm-1": 40, "vm-2": 0, "vm-3": 5}, failing=["vm-2"]).reason == "TooFewBelowLower"

    def test_nothing_is_scaled_down_while_there_is_one(self) -> None:
        wish = judged({"vm-1": 4, "vm-2": 0, "vm-3": 5}, failing=["vm-2"])
        assert (wish.verdict, wish.reason) == ("Hold", "NotAnswering")
        assert wish.message.endswith("at or below 10 %, but vm-2 fails its health check")

    def test_the_minimum_is_the_better_reason(self) -> None:
        assert judged({"vm-1": 4, "vm-2": 0, "vm-3": 5}, failing=["vm-2"], minimum=3).reason == "MinVMs"


def test_within_the_band_the_lightest_is_named() -> None:
    wish = judged({"vm-1": 45, "vm-2": 33, "vm-3": 50})
    assert (wish.reason, wish.message) == ("WithinBand", "vm-2 is at 33 %, between 10 % and 60 %")


def test_percent_is_rounded_down() -> None:
    assert [percent(count, 7) for count in (0, 4, 5, 7)] == [0, 57, 71, 100]
