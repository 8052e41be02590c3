"""The Target policy: the formula of Kubernetes' HorizontalPodAutoscaler, its tolerance, and what is unknown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban.core.figures import Figures
from luban.core.policies.base import PolicyInput, Recommendation, ScalingLimits
from luban.core.policies.target import TARGET
from tests.fakes.simulator import make_spec


def wish(
    loads: Sequence[float | None], percent: int = 60, *, failing: Sequence[str] = (), **room: Any
) -> Recommendation:
    """VMs with this CPU (None: unknown), one to twelve allowed, in any steps."""
    names = [f"vm-{number}" for number in range(1, len(loads) + 1)]
    usual = {"starting": 0, "minimum": 1, "maximum": 12, "has_host": True, "removable": 12, "up_step": 12}
    limits = ScalingLimits(**{"total": len(loads), "down_step": 12, **usual, **room})
    given_ = PolicyInput(
        spec=make_spec(scaling={"policy": "Target", "target": {"percent": percent}, "maxVMs": 12}),
        desired=limits.total,
        serving=names,
        sessions={},
        not_answering=failing,
        limits=lambda: limits,
        figures={name: Figures(cpu=load) for name, load in zip(names, loads, strict=True) if load is not None},
    )
    return TARGET.recommend(given_)


def said(found: Recommendation) -> tuple[str, str, int, int | None]:
    return found.verdict, found.reason, found.delta, found.wanted


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([60, 60], ("Hold", "OnTarget", 0, 2)),
        ([66, 66], ("Hold", "OnTarget", 0, 2)),
        ([67, 67], ("ScaleUp", "AboveTarget", 1, 3)),
        ([100, 100], ("ScaleUp", "AboveTarget", 2, 4)),
        ([54, 54, 54], ("Hold", "OnTarget", 0, 3)),
        ([40, 40, 40], ("ScaleDown", "BelowTarget", -1, 2)),
        ([41, 40, 40], ("Hold", "OnTarget", 0, 3)),
        ([0, 0, 0], ("ScaleDown", "BelowTarget", -2, 1)),
        ([20, 20, 20, 20, 20, 20], ("ScaleDown", "BelowTarget", -4, 2)),
    ],
)
def test_formula_and_tolerance(loads: list[float], expected: tuple[str, str, int, int]) -> None:
    assert said(wish(loads)) == expected


def test_words_and_metric() -> None:
    found = wish([100, 100])
    assert found.message == "CPU is at 100 % on 2 VMs, the target is 60 %: 4 would be right for 200 % in all"
    assert [(it.name, it.value, it.unknown) for it in found.metrics] == [("CPU", 100.0, 0)]


def test_step_and_maximum_limit_what_is_done_not_what_is_right() -> None:
    assert said(wish([100, 100], up_step=1)) == ("ScaleUp", "AboveTarget", 1, 4)
    assert said(wish([300, 300, 300])) == ("ScaleUp", "AboveTarget", 9, 15)
    assert said(wish([0, 0, 0, 0], down_step=1)) == ("ScaleDown", "BelowTarget", -1, 1)
    assert said(wish([99, 99], total=12)) == ("ScaleDown", "BelowTarget", -8, 4)


def test_vms_on_their_way_are_counted_on() -> None:
    assert said(wish([100, 100], total=4, starting=2)) == ("Hold", "OnTarget", 0, 4)
    assert said(wish([150, 150], total=4, starting=2)) == ("ScaleUp", "AboveTarget", 1, 5)


def test_limits() -> None:
    assert said(wish([100, 100], maximum=2))[:3] == ("AtMaximum", "MaxVMs", 0)
    assert said(wish([100, 100], has_host=False))[:3] == ("AtMaximum", "NoHostHasRoom", 0)
    assert said(wish([1, 1], minimum=2))[:3] == ("Hold", "MinVMs", 0)


def test_unknown() -> None:
    assert said(wish([100, None])) == ("Hold", "OnTarget", 0, 2)
    assert said(wish([200, None])) == ("ScaleUp", "AboveTarget", 2, 4)
    assert said(wish([1, 1, 1, None]))[:3] == ("Hold", "LoadUnknown", 0)
    assert said(wish([200, None, None])) == ("Hold", "LoadUnknown", 0, None)
    assert said(wish([1, 1, 1], failing=["vm-3"]))[:3] == ("Hold", "NotAnswering", 0)
    assert said(wish([1], failing=["vm-1"]))[:3] == ("Hold", "NothingAnswers", 0)
    assert said(wish([]))[:3] == ("Hold", "NothingServes", 0)


@given(
    loads=st.lists(st.floats(0, 400) | st.none(), min_size=1, max_size=12),
    percent=st.integers(1, 200),
    step=st.integers(1, 12),
)
def test_whatever_the_load(loads: list[float | None], percent: int, step: int) -> None:
    """Never above maxVMs, never fewer for want of data, and the same load on what is left is no reason to grow."""
    found = wish(loads, percent, up_step=step, down_step=step)
    after = len(loads) + found.delta
    assert 1 <= after <= 12
    if found.delta < 0:
        known = [load for load in loads if load is not None]
        assert len(known) == len(loads)
        assert wish([sum(known) / after] * after, percent).delta <= 0
    if found.delta > 0:
        assert after <= math.ceil(sum(load or 0 for load in loads) / percent)
