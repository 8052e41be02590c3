"""When followers of a report are told something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest

from luban.balancer_agent.feed import FIGURES_SECONDS, PAUSE_SECONDS, SIGN_SECONDS, ReportFeed
from luban.core.model import BalancerReport, MemberReport

pytestmark = pytest.mark.looptime
MEMBER = MemberReport("shop-a", "Enabled", "192.0.2.11", 8080, True, 3, 40, False, 1234)
REPORT = BalancerReport("shop-balancer-0", True, True, "v1", "", (MEMBER,))


class Agent:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.report = REPORT
        self.feed = ReportFeed(lambda: self.report, asyncio.get_running_loop().time)
        self.told: list[tuple[float, BalancerReport | None]] = []

    def change(self, **member: object) -> None:
        """A look finds something of a member changed."""
        self.report = replace(self.report, members=(replace(self.report.members[0], **member),))  # type: ignore[arg-type]
        self.feed.looked()

    async def follow(self, seconds: float) -> None:
        """Note what a follower is told, and when."""
        begun = asyncio.get_running_loop().time()
        async with aclosing(self.feed.follow(seconds)) as reports:
            async for report in reports:
                self.told.append((asyncio.get_running_loop().time() - begun, report))

    @property
    def reports(self) -> list[tuple[float, BalancerReport]]:
        """What was told, without signs of life."""
        return [(at, report) for at, report in self.told if report is not None]


@pytest.fixture
async def agent() -> Agent:
    return Agent()


async def meanwhile(agent: Agent, seconds: float, *changes: tuple[float, Callable[[], object]]) -> None:
    """Follow for so long; changes come at their times."""
    for at, change in changes:
        asyncio.get_running_loop().call_later(at, change)
    await agent.follow(seconds)


async def test_a_calm_balancer_gives_signs_of_life_alone(agent: Agent) -> None:
    await agent.follow(30.0)
    assert [report for _, report in agent.reports] == [REPORT]
    times = [at for at, _ in agent.told]
    assert len(times) in {30, 31}
    assert max(b - a for a, b in pairwise(times)) <= SIGN_SECONDS + 0.01


@pytest.mark.parametrize(
    "change", [{"healthy": False}, {"state": "Draining"}, {"drained": True}, {"address": "192.0.2.12"}], ids=str
)
async def test_what_matters_is_told_at_once(agent: Agent, change: dict[str, object]) -> None:
    await meanwhile(agent, 10.0, (3.21, lambda: agent.change(**change)))
    assert [round(at, 2) for at, _ in agent.reports] == [0.0, 3.21]


async def test_figures_that_change_all_the_time_are_told_every_other_second(agent: Agent) -> None:
    changes = [(number / 10, lambda number=number: agent.change(sessions=number)) for number in range(300)]
    await meanwhile(agent, 30.0, *changes)
    assert len(agent.reports) <= 30 / FIGURES_SECONDS + 1
    assert len(agent.reports) >= 30 / (FIGURES_SECONDS + SIGN_SECONDS)
    assert agent.reports[-1][1].members[0].sessions >= 260


async def test_a_change_of_figures_alone_is_told_though_nothing_follows_it(agent: Agent) -> None:
    await meanwhile(agent, 10.0, (0.5, lambda: agent.change(sessions=7)))
    assert [report.members[0].sessions for _, report in agent.reports] == [40, 7]
    assert agent.reports[1][0] <= FIGURES_SECONDS + SIGN_SECONDS


async def test_what_changes_back_and_forth_is_bounded(agent: Agent) -> None:
    changes = [(number / 100, lambda number=number: agent.change(healthy=number % 2 == 0)) for number in range(1000)]
    await meanwhile(agent, 10.0, *changes)
    assert len(agent.reports) <= 10.0 / PAUSE_SECONDS + 1


async def test_nobody_is_kept_in_mind_who_follows_no_more(agent: Agent) -> None:
    await agent.follow(1.0)
    follower = asyncio.ensure_future(agent.follow(10.0))
    await asyncio.sleep(0.5)
    assert len(agent.feed._wakes) == 1
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    assert not agent.feed._wakes
