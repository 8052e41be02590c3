"""What of a balancer's report is news when it changes: figures change all the time."""

from __future__ import annotations

from dataclasses import replace

from luban.core.model import BalancerReport


def without_figures(report: BalancerReport) -> BalancerReport:
    """The report without how much there is to do: whether it serves, which members it has, and how they are."""
    members = tuple(
        replace(it, in_flight=0, sessions=0, served=0, answers=0, answer_seconds=0.0) for it in report.members
    )
    return replace(report, members=members, users=None)


def is_news(before: BalancerReport | None, after: BalancerReport) -> bool:
    """Whether somebody should look at once."""
    return before is None or without_figures(before) != without_figures(after)
