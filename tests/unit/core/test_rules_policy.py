"""The Rules policy: ordered bands, what is unknown, shrinking without flapping, and who leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban.core.figures import Figures
from luban.core.policies.base import PolicyInput, Recommendation, ScalingLimits
from luban.core.policies.rules import RULES
from tests.fakes.simulator import make_spec

CPU = {"metric": "CPU", "max": 70, "min": 20}
MEMORY = {"metric": "Memory", "max": 80, "min": 30}


def asked(
    loads: Sequence[Figures | None],
    *rules: dict[str, Any],
    sessions: Sequence[int | None] = (),
    failing: Sequence[str] = (),
    room: dict[str, Any] | None = None,
    **scaling: Any,
) -> PolicyInput:
    """VMs with these figures (None: unknown), two to six of them allowed unless told otherwise."""
    names = [f"vm-{number}" for number in range(1, len(loads) + 1)]
    limits = ScalingLimits(
        **{
            "total": len(loads),
            "starting": 0,
            "minimum": 2,
            "maximum": 6,
            "has_host": True,
            "removable": 9,
            **(room or {}),
        }
    )
    return PolicyInput(
        spec=make_spec(scaling={"policy": "Rules", "rules": rules or (CPU,), **scaling}),
        desired=limits.total,
        serving=names,
        sessions={name: count for name, count in zip(names, sessions, strict=False) if count is not None},
        not_answering=failing,
        limits=lambda: limits,
        figures={name: it for name, it in zip(names, loads, strict=True) if it is not None},
    )


def cpu(*loads: float | None) -> list[Figures | None]:
    return [None if load is None else Figures(cpu=load, memory=50.0) for load in loads]


def wish(*given: Any, **more: Any) -> Recommendation:
    return RULES.recommend(asked(*given, **more))


def said(found: Recommendation) -> tuple[str, str, int]:
    return found.verdict, found.reason, found.delta


class TestBands:
    """The first rule whose metric is outside its band decides."""

    def test_above_max_one_more(self) -> None:
        found = wish(cpu(80, 70))
        assert said(found) == ("ScaleUp", "AboveMax", 1)
        assert found.message == "CPU is at 75 %, above its max of 70 %"

    def test_exactly_max_is_inside(self) -> None:
        assert said(wish(cpu(70, 70))) == ("Hold", "WithinBand", 0)

    def test_below_min_one_fewer(self) -> None:
        found = wish(cpu(10, 11, 12))
        assert said(found) == ("ScaleDown", "BelowMin", -1)
        assert found.message == "CPU is at 11 %, below its min of 20 %"

    def test_exactly_min_is_inside(self) -> None:
        assert said(wish(cpu(20, 20, 20))) == ("Hold", "WithinBand", 0)

    def test_inside_names_all_bands(self) -> None:
        assert wish(cpu(40, 50), CPU, MEMORY).message == "CPU is at 45 % (20 to 70 %), Memory is at 50 % (30 to 80 %)"

    def test_the_order_decides_in_the_paper(self) -> None:
        loads = [Figures(cpu=10.0, memory=90.0)] * 3
        assert said(wish(loads, CPU, MEMORY, safeShrink=False)) == ("ScaleDown", "BelowMin", -1)
        assert said(wish(loads, MEMORY, CPU, safeShrink=False)) == ("ScaleUp", "AboveMax", 1)

    def test_a_rule_that_may_not_shrink_lets_the_others_decide(self) -> None:
        assert said(wish([Figures(cpu=10.0, memory=90.0)] * 3, CPU, MEMORY)) == ("ScaleUp", "AboveMax", 1)

    def test_metrics_are_kept_for_the_user(self) -> None:
        found = wish([Figures(cpu=33.333, memory=None), Figures(cpu=33.333)], CPU, MEMORY)
        assert [(it.name, it.value, it.unknown) for it in found.metrics] == [("CPU", 33.3, 0), ("Memory", None, 2)]


class TestMetrics:
    """Each in percent of what one VM can do."""

    @pytest.mark.parametrize(
        ("rule", "percent"),
        [
            ({"metric": "CPU"}, 40.0),
            ({"metric": "Memory"}, 50.0),
            ({"metric": "Network"}, 25.0),
            ({"metric": "Requests"}, 30.0),
            ({"metric": "Sessions"}, 120.0),
            ({"metric": "Average", "weights": {"cpu": 3, "requests": 1}}, 37.5),
        ],
    )
    def test_percent(self, rule: dict[str, Any], percent: float) -> None:
        figures = Figures(cpu=40.0, memory=50.0, network=25e6, requests=60.0)
        per_vm = {"network": "100M", "requests": 200}
        found = wish([figures, figures], {**rule, "max": 99}, sessions=(120, 120), perVM=per_vm)
        assert [it.value for it in found.metrics] == [percent]

    def test_an_average_says_of_what(self) -> None:
        found = wish(cpu(80, 80), {"metric": "Average", "weights": {"cpu": 2, "memory": 1}, "max": 60})
        assert found.message == "Average(CPU 2, Memory 1) is at 70 %, above its max of 60 %"

    def test_an_average_of_something_unknown_is_unknown(self) -> None:
        found = wish(cpu(80, 80), {"metric": "Average", "weights": {"cpu": 2, "requests": 1}, "max": 60})
        assert found.reason == "LoadUnknown"


class TestUnknown:
    """Missing data removes nothing, and adds only for what is known."""

    def test_one_of_four_counts_as_idle_when_growing(self) -> None:
        assert said(wish(cpu(99, 99, 99, None))) == ("ScaleUp", "AboveMax", 1)
        found = wish(cpu(90, 90, 90, None))
        assert said(found) == ("Hold", "LoadUnknown", 0)
        assert found.message == "CPU is at 90 % as far as it is known; CPU of vm-4 is unknown"
        assert said(wish(cpu(60, 60, 60, None))) == ("Hold", "WithinBand", 0)

    def test_most_of_them(self) -> None:
        found = wish(cpu(99, None, None))
        assert said(found) == ("Hold", "LoadUnknown", 0)
        assert found.message == "CPU is at 99 % as far as it is known; CPU of vm-2, vm-3 is unknown"

    def test_any_forbids_shrinking(self) -> None:
        found = wish(cpu(1, 1, 1, None))
        assert said(found) == ("Hold", "LoadUnknown", 0)
        assert found.message == "CPU is at 1 %, below its min of 20 %, but CPU of vm-4 is unknown"

    @pytest.mark.parametrize("safe", [True, False])
    def test_also_one_of_another_rule(self, safe: bool) -> None:
        loads = [Figures(cpu=1.0, memory=50.0)] * 3 + [Figures(cpu=1.0)]
        assert said(wish(loads, CPU, MEMORY, safeShrink=safe)) == ("Hold", "LoadUnknown", 0)

    def test_a_rule_that_is_unknown_leaves_growing_to_the_others(self) -> None:
        assert said(wish(cpu(80, 80), {"metric": "Requests", "max": 50}, CPU, perVM={"requests": 9})) == (
            "ScaleUp",
            "AboveMax",
            1,
        )

    def test_a_full_scale_that_is_missing(self) -> None:
        assert wish(cpu(80, 80), {"metric": "Network", "max": 50}).reason == "LoadUnknown"

    def test_those_that_fail_carry_nothing_and_forbid_shrinking(self) -> None:
        assert said(wish(cpu(80, 0), failing=["vm-2"])) == ("ScaleUp", "AboveMax", 1)
        assert said(wish(cpu(1, 1, 1), failing=["vm-2"])) == ("Hold", "NotAnswering", 0)
        assert said(wish(cpu(1, 1), failing=["vm-1", "vm-2"])) == ("Hold", "NothingAnswers", 0)

    def test_nothing_serves(self) -> None:
        assert said(wish([])) == ("Hold", "NothingServes", 0)


class TestSafeShrink:
    """After a shrink with the same load no rule is above its max."""

    def test_another_metric_would_be(self) -> None:
        found = wish([Figures(cpu=10.0, memory=60.0)] * 3, CPU, MEMORY)
        assert said(found) == ("Hold", "ShrinkUnsafe", 0)
        assert found.message == (
            "CPU is at 10 %, below its min of 20 %, but Memory would be at 90 % on 2 VMs, and its max is 80 %"
        )

    def test_not_in_the_paper(self) -> None:
        loads = [Figures(cpu=10.0, memory=60.0)] * 3
        assert said(wish(loads, CPU, MEMORY, safeShrink=False)) == ("ScaleDown", "BelowMin", -1)

    def test_as_many_of_a_step_as_are_safe(self) -> None:
        loads = [Figures(cpu=10.0, memory=50.0)] * 6
        assert said(wish(loads, CPU, MEMORY, room={"down_step": 3})) == ("ScaleDown", "BelowMin", -2)

    @given(
        loads=st.lists(st.tuples(*[st.floats(0, 300) | st.none()] * 2), min_size=1, max_size=8),
        bands=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 200)), min_size=2, max_size=2),
        step=st.integers(1, 4),
        minimum=st.integers(1, 4),
        safe=st.booleans(),
    )
    def test_whatever_the_load(self, loads: Any, bands: Any, step: int, minimum: int, safe: bool) -> None:
        """Never above max, never below min, never fewer for want of data, and no flapping."""
        rules = [
            {"metric": metric, "min": low, "max": low + width}
            for metric, (low, width) in zip(("CPU", "Memory"), bands, strict=True)
        ]
        figures = [Figures(cpu=cpu, memory=memory) for cpu, memory in loads]
        limits = {"up_step": step, "down_step": step, "minimum": minimum}
        found = wish(figures, *rules, room=limits, safeShrink=safe)
        assert len(loads) + found.delta <= max(6, len(loads))
        if found.delta < 0:
            assert all(value is not None for pair in loads for value in pair)
            left = len(loads) + found.delta
            assert left >= minimum
            for rule, column in zip(rules, zip(*loads, strict=True), strict=True):
                assert not safe or sum(column) / left <= rule["max"]


class TestLimits:
    """The same as for every policy."""

    def test_max_vms(self) -> None:
        assert said(wish(cpu(*[99] * 6))) == ("AtMaximum", "MaxVMs", 0)

    def test_no_host_has_room(self) -> None:
        assert said(wish(cpu(99, 99), room={"has_host": False})) == ("AtMaximum", "NoHostHasRoom", 0)

    def test_a_vm_that_starts_is_waited_for(self) -> None:
        assert said(wish(cpu(99, 99), room={"total": 3, "starting": 1})) == ("Hold", "WarmingUp", 0)

    def test_min_vms(self) -> None:
        found = wish(cpu(1, 1), room={"schedule": "morning"})
        assert said(found) == ("Hold", "MinVMs", 0)
        assert found.message.endswith("the minimum of 2 VMs is reached (schedule morning)")

    def test_hosts_minimum(self) -> None:
        assert said(wish(cpu(1, 1, 1), room={"removable": 0})) == ("Hold", "HostMinimum", 0)

    def test_step_of_growing_up_to_the_maximum(self) -> None:
        assert wish(cpu(99, 99), room={"up_step": 3}).delta == 3
        assert wish(cpu(99, 99), room={"up_step": 9}).delta == 4


class TestVictim:
    """Who is how loaded, for the choice of who leaves."""

    def test_nearest_to_a_max(self) -> None:
        given_ = asked([Figures(cpu=35.0, memory=72.0), Figures(cpu=70.0, memory=8.0)], CPU, MEMORY)
        assert RULES.burdens(given_) == {"vm-1": pytest.approx(0.9), "vm-2": pytest.approx(1.0)}

    def test_least_sessions(self) -> None:
        assert RULES.burdens(asked(cpu(1, 2), victim="LeastSessions")) is None
