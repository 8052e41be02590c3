"""The balancers' sense: who is asked, who is followed, whom a look waits for, and what still holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from luban.core.model import BalancerReport, ClusterRef, MemberReport
from luban.senses.balancers import AGAIN_SECONDS, PACE_SECONDS, PATIENCE_SECONDS, REPORT_SECONDS, Agent, BalancerSense
from tests.fakes.balancers import FakeBalancers

pytestmark = pytest.mark.looptime
CLUSTER = ClusterRef("default", "shop", "uid")
NAME, OTHER = "shop-balancer-0", "shop-balancer-1"
ENDPOINT, ELSEWHERE = "http://192.0.2.1:9180", "http://192.0.2.2:9180"
MEMBER = MemberReport("shop-a", "Enabled", "192.0.2.11", 8080, True, 3, 40, False, 1234)
REPORT = BalancerReport(NAME, True, True, "v1", "", (MEMBER,))
AGENTS = {NAME: Agent(ENDPOINT, 16)}


class Scene:
    """Agents, and who listens to them."""

    def __init__(self) -> None:
        self.agents = FakeBalancers({ENDPOINT: REPORT, ELSEWHERE: replace(REPORT, name=OTHER)})
        self.woken = 0
        self.sense = BalancerSense(self.agents, asyncio.get_running_loop().time, self._wake)
        self.breathing: asyncio.Task[None] | None = None

    def _wake(self) -> None:
        self.woken += 1

    async def look(self, agents: dict[str, Agent] | None = None) -> dict[str, BalancerReport]:
        """One look, and what it begins."""
        found = await self.sense.look(CLUSTER, AGENTS if agents is None else agents)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return found

    def breathe(self) -> None:
        """Let the agents give signs of life from now on."""
        self.breathing = asyncio.ensure_future(self._breathe())

    async def _breathe(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for endpoint in list(self.agents.agents):
                self.agents.change(endpoint, None)

    @property
    def asked(self) -> int:
        """Requests to agents so far, those to follow them included."""
        return len(self.agents.asked)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    made.sense.close()
    if made.breathing is not None:
        made.breathing.cancel()
    await asyncio.sleep(0)


async def test_the_first_look_asks_and_from_then_on_the_agent_tells(scene: Scene) -> None:
    assert await scene.look() == {NAME: REPORT}
    assert scene.asked == 2, "the report, and to follow it"
    scene.breathe()
    for _ in range(60):
        await asyncio.sleep(5.0)
        assert await scene.look() == {NAME: REPORT}
    assert scene.asked == 2
    assert scene.woken == 0


async def test_a_change_is_known_at_once_and_wakes(scene: Scene) -> None:
    await scene.look()
    sick = replace(REPORT, members=(replace(MEMBER, healthy=False),))
    scene.agents.change(ENDPOINT, sick)
    assert scene.woken == 1
    assert await scene.look() == {NAME: sick}
    assert scene.asked == 2


async def test_figures_are_known_and_wake_nobody(scene: Scene) -> None:
    await scene.look()
    busy = replace(REPORT, members=(replace(MEMBER, sessions=99, in_flight=9, served=5000),))
    scene.agents.change(ENDPOINT, busy)
    assert await scene.look() == {NAME: busy}
    assert scene.woken == 0


async def test_when_the_time_is_over_it_is_followed_anew_and_nobody_notices(scene: Scene) -> None:
    await scene.look()
    scene.breathe()
    await asyncio.sleep(30.0)
    scene.agents.end(ENDPOINT)
    await asyncio.sleep(0.01)
    assert await scene.look() == {NAME: REPORT}
    assert (scene.asked, scene.woken) == (3, 0)


async def test_one_that_ends_at_once_is_not_followed_again_and_again(scene: Scene) -> None:
    await scene.look()
    for _ in range(100):
        await asyncio.sleep(PACE_SECONDS / 10)
        scene.agents.end(ENDPOINT)
    assert scene.asked <= 2 + 12


async def test_an_agent_that_ends_is_not_reachable_and_back_when_it_is_back(scene: Scene) -> None:
    await scene.look()
    scene.agents.lose(ENDPOINT)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scene.woken == 1, "a tick sees to it at once"
    assert not (await scene.look())[NAME].reachable
    scene.agents.agents[ENDPOINT] = REPORT
    assert await scene.look() == {NAME: REPORT}
    await asyncio.sleep(PACE_SECONDS)
    await scene.look()
    assert scene.agents.followers[ENDPOINT]


async def test_what_a_silent_agent_said_is_soon_too_old(scene: Scene) -> None:
    await scene.look()
    scene.agents.silent.add(ENDPOINT)
    await asyncio.sleep(REPORT_SECONDS)
    assert await scene.look() == {NAME: REPORT}, "it was heard until now"
    await asyncio.sleep(0.1)
    assert not (await scene.look())[NAME].reachable
    scene.agents.silent.clear()
    scene.agents.change(ENDPOINT, None)
    assert (await scene.look())[NAME].reachable, "it was slow, and told nothing new"


async def test_one_of_an_earlier_version_is_asked_in_each_look(scene: Scene) -> None:
    scene.agents.old.add(ENDPOINT)
    for _ in range(10):
        assert await scene.look() == {NAME: REPORT}
        await asyncio.sleep(5.0)
    assert scene.asked == 10 + 1, "and was tried to be followed once"
    scene.agents.old.clear()
    await asyncio.sleep(AGAIN_SECONDS)
    await scene.look()
    assert scene.agents.followers[ENDPOINT], "it was replaced meanwhile"


async def test_one_that_hangs_is_waited_for_once_and_the_others_never(scene: Scene) -> None:
    gate, real = asyncio.Event(), scene.agents.report

    async def slow(cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        if name == OTHER:
            await gate.wait()
        return await real(cluster, name, endpoint, members=members)

    scene.agents.report = slow  # type: ignore[method-assign]
    both = {**AGENTS, OTHER: Agent(ELSEWHERE, 16)}
    loop, waited = asyncio.get_running_loop(), []
    scene.breathe()
    for _ in range(3):
        begun = loop.time()
        found = await scene.look(both)
        waited.append(round(loop.time() - begun, 3))
        assert found[NAME] == REPORT
        assert not found[OTHER].reachable
        await asyncio.sleep(5.0)
    assert waited == [PATIENCE_SECONDS, 0.0, 0.0]
    gate.set()
    await asyncio.sleep(0.01)
    assert (await scene.look(both))[OTHER].reachable


async def test_another_endpoint_is_another_agent(scene: Scene) -> None:
    await scene.look()
    scene.agents.agents[ELSEWHERE] = replace(REPORT, applied="v2")
    moved = {NAME: Agent(ELSEWHERE, 16)}
    assert (await scene.look(moved))[NAME].applied == "v2"
    await asyncio.sleep(0)
    assert not scene.agents.followers[ENDPOINT]
    assert scene.agents.followers[ELSEWHERE]


async def test_who_is_not_looked_for_is_not_followed(scene: Scene) -> None:
    await scene.look()
    assert await scene.look({}) == {}
    await asyncio.sleep(0)
    assert not scene.agents.followers[ENDPOINT]


async def test_a_fault_of_ours_ends_no_look(scene: Scene) -> None:
    async def breaks(*_: object, **__: object) -> BalancerReport | None:
        raise ValueError("no such thing")

    scene.agents.follow = breaks  # type: ignore[method-assign]
    for _ in range(3):
        assert await scene.look() == {NAME: REPORT}
