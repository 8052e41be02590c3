"""Of a balancer's report figures are no news, all else is: also what a later version adds."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from luban.core.model import BalancerReport, MemberReport
from luban.core.news import is_news

MEMBER = MemberReport("a", "Enabled", "192.0.2.1", 8080)
REPORT = BalancerReport("shop-balancer-0", reachable=True, ready=True, applied="1", members=(MEMBER,), users=1)
FIGURES = {"in_flight": 3, "sessions": 3, "served": 3, "answers": 3, "answer_seconds": 3.0}
NEWS: dict[str, Any] = {
    "name": "b",
    "state": "Draining",
    "address": "192.0.2.2",
    "port": 9090,
    "healthy": False,
    "drained": True,
}


def with_member(**changes: Any) -> BalancerReport:
    """The report with another member."""
    return replace(REPORT, members=(replace(MEMBER, **changes),))


def test_each_field_is_one_or_the_other() -> None:
    assert {field.name for field in fields(MemberReport)} == FIGURES.keys() | NEWS.keys()


@pytest.mark.parametrize(("name", "value"), FIGURES.items())
def test_figures_are_no_news(name: str, value: float) -> None:
    assert not is_news(REPORT, with_member(**{name: value}))


@pytest.mark.parametrize(("name", "value"), NEWS.items())
def test_how_a_member_is_treated_is_news(name: str, value: Any) -> None:
    assert is_news(REPORT, with_member(**{name: value}))


def test_the_first_report_and_another_configuration_are_news_and_users_are_not() -> None:
    assert is_news(None, REPORT)
    assert is_news(REPORT, replace(REPORT, applied="2"))
    assert is_news(REPORT, replace(REPORT, ready=False))
    assert not is_news(REPORT, replace(REPORT, users=9))
