"""What ports.Balancers promises, held by the fake and by the adapter against agents that really listen."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any, Protocol

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from luban.adapters.balancers_http import REPORT_PATH, HttpBalancers, parse_report, report_json
from luban.adapters.http_endpoints import HttpEndpoints
from luban.balancer_agent.feed import ReportFeed
from luban.core.model import BalancerReport, ClusterRef, MemberReport
from luban.ports import Balancers
from tests.fakes.balancers import FakeBalancers

pytestmark = pytest.mark.contract

CLUSTER = ClusterRef("default", "shop")
NAME = "shop-balancer-0"
REPORT = BalancerReport(
    name=NAME,
    reachable=True,
    ready=True,
    applied="0123456789abcdef",
    message="",
    members=(
        MemberReport("shop-a", "Enabled", "192.0.2.11", 8080, True, 3, 40, False, 1234, 1200, 6.25),
        MemberReport("shop-b", "Draining", "2001:db8::12", 8080, False, 0, 0, True, 5),
    ),
)
DEADLINE = 0.5


class Side(Protocol):
    """One implementation, and agents for it to ask."""

    balancers: Balancers

    async def agent(self, report: BalancerReport, cluster: ClusterRef = CLUSTER) -> str:
        """Start an agent of this cluster that says this; its endpoint."""

    async def silent_agent(self) -> str:
        """Start an agent that accepts and does not answer; its endpoint."""

    async def old_agent(self, report: BalancerReport) -> str:
        """Start an agent of an earlier version; its endpoint."""

    async def change(self, endpoint: str, report: BalancerReport) -> None:
        """Let an agent say something else."""

    async def lose(self, endpoint: str) -> None:
        """End an agent."""

    async def close(self) -> None:
        """End all."""


class FakeSide:
    """The fake."""

    def __init__(self) -> None:
        self.fake = FakeBalancers()
        self.balancers: Balancers = self.fake

    async def agent(self, report: BalancerReport, cluster: ClusterRef = CLUSTER) -> str:
        """See Side."""
        endpoint = f"http://127.0.32.1:{len(self.fake.agents) + 1}"
        self.fake.agents[endpoint] = report
        self.fake.clusters[endpoint] = cluster
        return endpoint

    async def silent_agent(self) -> str:
        """See Side."""
        endpoint = await self.agent(REPORT)
        self.fake.silent.add(endpoint)
        return endpoint

    async def old_agent(self, report: BalancerReport) -> str:
        """See Side."""
        endpoint = await self.agent(report)
        self.fake.old.add(endpoint)
        return endpoint

    async def change(self, endpoint: str, report: BalancerReport) -> None:
        """See Side."""
        self.fake.change(endpoint, report)

    async def lose(self, endpoint: str) -> None:
        """See Side."""
        self.fake.lose(endpoint)

    async def close(self) -> None:
        """See Side."""
        await self.balancers.close()


class RealAgent:
    """As much of an agent as reports."""

    def __init__(self, report: BalancerReport, cluster: ClusterRef) -> None:
        self.report, self.cluster = report, cluster
        self.feed = ReportFeed(lambda: self.report, asyncio.get_running_loop().time)
        self.endpoints = HttpEndpoints(
            CollectorRegistry(),
            documents={REPORT_PATH: lambda: report_json(self.report, cluster)},
            feeds={REPORT_PATH: self._follow},
        )

    async def _follow(self, seconds: float) -> AsyncGenerator[Any, None]:
        async for report in self.feed.follow(seconds):
            yield report_json(report, self.cluster) if report is not None else None

    async def start(self) -> str:
        """Listen; the endpoint."""
        await self.endpoints.listen("127.0.32.1", 0)
        return f"http://127.0.32.1:{self.endpoints.addresses[0][1]}"


class RealSide:
    """The adapter, over HTTP."""

    def __init__(self) -> None:
        self.balancers: Balancers = HttpBalancers(deadline=DEADLINE, networks=[ipaddress.ip_network("127.0.32.0/24")])
        self._runners: list[web.AppRunner] = []
        self._agents: dict[str, RealAgent] = {}
        self._ended = asyncio.Event()

    async def agent(self, report: BalancerReport, cluster: ClusterRef = CLUSTER) -> str:
        """See Side."""
        agent = RealAgent(report, cluster)
        endpoint = await agent.start()
        self._agents[endpoint] = agent
        return endpoint

    async def old_agent(self, report: BalancerReport) -> str:
        """See Side."""
        return await self.serve(json.dumps(report_json(report, CLUSTER)))

    async def change(self, endpoint: str, report: BalancerReport) -> None:
        """See Side."""
        self._agents[endpoint].report = report
        self._agents[endpoint].feed.looked()

    async def lose(self, endpoint: str) -> None:
        """See Side."""
        await self._agents.pop(endpoint).endpoints.close()

    async def silent_agent(self) -> str:
        """See Side."""
        return await self.serve(None)

    async def serve(self, text: str | None, status: int = 200) -> str:
        """An agent that answers so; None: never."""

        async def handle(_: web.Request) -> web.Response:
            if text is None:
                await self._ended.wait()
            return web.Response(text=text, status=status, content_type="application/json")

        app = web.Application()
        app.router.add_get(REPORT_PATH, handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.32.1", 0)
        await site.start()
        self._runners.append(runner)
        return f"http://127.0.32.1:{runner.addresses[0][1]}"

    async def close(self) -> None:
        """See Side."""
        self._ended.set()
        await self.balancers.close()
        for endpoint in list(self._agents):
            await self.lose(endpoint)
        for runner in self._runners:
            await runner.cleanup()


@pytest.fixture(params=[FakeSide, RealSide], ids=["fake", "real"])
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Side]:
    side = request.param()
    yield side
    await side.close()


@pytest.fixture
async def real() -> AsyncIterator[RealSide]:
    side = RealSide()
    yield side
    await side.close()


async def ask(side: Side, endpoint: str, name: str = NAME) -> BalancerReport:
    """What an endpoint says of a balancer of our cluster."""
    return await side.balancers.report(CLUSTER, name, endpoint, members=16)


async def test_a_report_arrives_as_it_was_made(side: Side) -> None:
    assert await ask(side, await side.agent(REPORT)) == REPORT


async def test_an_agent_that_is_not_there_is_not_reachable(side: Side) -> None:
    report = await ask(side, "http://127.0.32.1:9")
    assert (report.name, report.reachable, report.members) == (NAME, False, ())
    assert "127.0.32.1:9" in report.message


async def test_an_agent_that_does_not_answer_delays_only_itself(side: Side) -> None:
    silent, alive = await side.silent_agent(), await side.agent(REPORT)
    slow = asyncio.create_task(ask(side, silent))
    assert (await ask(side, alive)).reachable
    assert not (await asyncio.wait_for(slow, 4 * DEADLINE)).reachable


async def test_the_agent_of_another_balancer_says_nothing_about_this_one(side: Side) -> None:
    report = await ask(side, await side.agent(REPORT), name="other-balancer-0")
    assert (report.name, report.reachable, report.members) == ("other-balancer-0", False, ())
    assert NAME not in report.message, "who it is instead is nobody's business"


@pytest.mark.parametrize("other", [ClusterRef("team-b", "shop"), ClusterRef("default", "shop-2")], ids=str)
async def test_the_agent_of_another_cluster_says_nothing_about_this_one(side: Side, other: ClusterRef) -> None:
    report = await ask(side, await side.agent(REPORT, other))
    assert (report.reachable, report.members) == (False, ())
    assert f"{other.namespace}/{NAME}" not in report.message


class Follower:
    """Follows an agent."""

    def __init__(self, side: Side, endpoint: str, name: str = NAME) -> None:
        self.heard: asyncio.Queue[BalancerReport | None] = asyncio.Queue()
        follow = side.balancers.follow(CLUSTER, name, endpoint, members=16, heard=self.heard.put_nowait)
        self.task = asyncio.ensure_future(follow)

    async def next(self) -> BalancerReport:
        """The next report; signs of life are passed over."""
        async with asyncio.timeout(10):
            while (report := await self.heard.get()) is None:
                pass
        return report

    async def end(self) -> BalancerReport | None:
        """What ended it."""
        return await asyncio.wait_for(self.task, 10)


async def test_an_agent_that_is_followed_tells_its_report_and_each_change(side: Side) -> None:
    endpoint = await side.agent(REPORT)
    follower = Follower(side, endpoint)
    assert await follower.next() == REPORT
    for changed in (replace(REPORT, ready=False, message="no"), replace(REPORT, members=REPORT.members[:1])):
        await side.change(endpoint, changed)
        assert await follower.next() == changed
    follower.task.cancel()


async def test_figures_are_told_too(side: Side) -> None:
    endpoint = await side.agent(REPORT)
    follower = Follower(side, endpoint)
    await follower.next()
    busier = replace(REPORT, members=(replace(REPORT.members[0], sessions=41), REPORT.members[1]))
    await side.change(endpoint, busier)
    assert await follower.next() == busier
    follower.task.cancel()


async def test_an_agent_that_ends_is_not_reachable_for_its_followers(side: Side) -> None:
    endpoint = await side.agent(REPORT)
    follower = Follower(side, endpoint)
    await follower.next()
    await side.lose(endpoint)
    ended = await follower.end()
    assert ended is not None
    assert (ended.name, ended.reachable) == (NAME, False)


async def test_an_agent_of_an_earlier_version_answers_once(side: Side) -> None:
    follower = Follower(side, await side.old_agent(REPORT))
    assert await follower.end() == REPORT
    assert follower.heard.empty()


async def test_one_that_does_not_answer_or_is_anothers_is_not_followed(side: Side) -> None:
    endpoints = (
        await side.silent_agent(),
        "http://127.0.32.1:9",
        await side.agent(REPORT, ClusterRef("team-b", "shop")),
    )
    followers = [Follower(side, it) for it in endpoints]
    for ended in await asyncio.gather(*(it.end() for it in followers)):
        assert ended is not None
        assert (ended.reachable, ended.members) == (False, ())
    assert all(it.heard.empty() for it in followers)


async def test_two_may_follow_one_agent(side: Side) -> None:
    endpoint = await side.agent(REPORT)
    followers = [Follower(side, endpoint) for _ in range(2)]
    assert [await it.next() for it in followers] == [REPORT, REPORT]
    for it in followers:
        it.task.cancel()


async def test_closing_twice_does_no_harm(side: Side) -> None:
    await ask(side, await side.agent(REPORT))
    await side.balancers.close()
    await side.balancers.close()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 200),
        ("[]", 200),
        ("null", 200),
        ('{"name": "shop-balancer-0"}', 200),
        (json.dumps(report_json(REPORT, CLUSTER)), 503),
        (json.dumps(report_json(REPORT, CLUSTER)).replace("Draining", "Dreaming"), 200),
        (json.dumps(report_json(REPORT, CLUSTER)).replace('"drained": true', '"drained": "true"'), 200),
        (json.dumps(report_json(REPORT, CLUSTER)).replace('"inFlight": 3', '"inFlight": "many"'), 200),
    ],
)
async def test_an_answer_that_is_no_report_is_none(real: RealSide, text: str, status: int) -> None:
    report = await ask(real, await real.serve(text, status))
    assert not report.reachable


@pytest.mark.parametrize("endpoint", ["", "nonsense", "ftp://127.0.32.1", "http://", "http://127.0.32.1:99999"])
async def test_an_endpoint_that_is_none(real: RealSide, endpoint: str) -> None:
    assert not (await ask(real, endpoint)).reachable


def test_the_wire_format_is_as_documented() -> None:
    wire: dict[str, Any] = report_json(REPORT, CLUSTER)
    assert set(wire) == {"namespace", "cluster", "name", "ready", "applied", "message", "node", "users", "members"}
    assert wire["members"][0] == {
        "name": "shop-a",
        "state": "Enabled",
        "address": "192.0.2.11",
        "port": 8080,
        "healthy": True,
        "inFlight": 3,
        "sessions": 40,
        "drained": False,
        "served": 1234,
        "answers": 1200,
        "answerSeconds": 6.25,
    }
    assert parse_report(json.dumps({**wire, "fresh": 1}).encode()) == (CLUSTER, REPORT)
