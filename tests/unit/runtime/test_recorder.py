"""Events: what repeats itself is counted, what is said of many VMs is said once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.core.model import ClusterRef
from luban.errors import TemporaryError
from luban.runtime.events import Event
from luban.runtime.recorder import CLOSE_SECONDS, EPISODE_SECONDS, MOST_WAITING, SINGLE, EventRecorder
from tests.fakes.cluster import FakeCluster
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness

REF = ClusterRef("default", "luban", "uid-1")


class Desk:
    """A recorder with its clock and its API."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.api = FakeCluster()
        self.recorder = EventRecorder(self.api, REF, lambda: self.seconds)

    def block(self) -> asyncio.Event:
        """Have the API answer only once this is set."""
        real, gate = self.api.event, asyncio.Event()

        async def slow(*args: Any, **more: Any) -> None:
            await gate.wait()
            await real(*args, **more)

        self.api.event = slow  # type: ignore[method-assign]
        return gate

    def mention(self, name: str = "luban-a", message: str = "no image", *, series: str = "") -> None:
        self.recorder.record(Event("LubanVM", name, f"uid of {name}", "Warning", "ImageNotFound", message, series))

    async def say(self, name: str = "luban-a", message: str = "no image", *, series: str = "") -> None:
        self.mention(name, message, series=series)
        await self.recorder.sent()

    def told(self) -> list[tuple[str, str, int]]:
        return [(it.name, it.message, it.times) for it in self.api.events("default")]


async def test_the_same_again_is_counted_and_written_ever_more_rarely() -> None:
    desk = Desk()
    for desk.seconds in range(3600):
        await desk.say()
    ((name, message, times),) = desk.told()
    assert (name, message) == ("luban-a", "no image")
    assert 3300 < times <= 3600
    assert desk.api.calls["event"] < 20


async def test_other_words_are_another_event_unless_they_are_of_a_series() -> None:
    desk = Desk()
    await desk.say(message="two became three")
    await desk.say(message="three became four")
    assert len(desk.told()) == 2
    await desk.say(message="12 MiB left", series="EnsureDomain")
    desk.seconds = 60
    await desk.say(message="11 MiB left", series="EnsureDomain")
    assert desk.told()[-1] == ("luban-a", "11 MiB left", 2)


async def test_many_vms_with_one_trouble_are_one_event_about_the_cluster() -> None:
    desk = Desk()
    for number in range(500):
        desk.seconds = number * EPISODE_SECONDS / 501
        await desk.say(f"luban-{number}")
    told = desk.told()
    assert len(told) == SINGLE + 1
    name, message, times = told[-1]
    assert name == "luban"
    assert int(message.partition(":")[0].removeprefix("luban-")) > SINGLE, "one of the later ones"
    assert times > 200
    assert desk.api.calls["event"] < 30


async def test_many_vms_that_do_well_over_hours_are_told_one_by_one() -> None:
    desk = Desk()
    for number in range(100):
        desk.seconds = number * EPISODE_SECONDS / (SINGLE - 2)
        await desk.say(f"luban-{number}")
    assert {name for name, _, _ in desk.told()} == {f"luban-{number}" for number in range(100)}


async def test_after_a_while_it_is_news_again() -> None:
    desk = Desk()
    await desk.say()
    desk.seconds = EPISODE_SECONDS
    await desk.say()
    assert desk.api.calls["event"] == 2


async def test_one_that_is_lost_costs_nothing_else() -> None:
    desk = Desk()
    desk.api.fail_next("event", TemporaryError("Busy", "no"))
    await desk.say()
    await desk.say("luban-b")
    assert [name for name, _, _ in desk.told()] == ["luban-b"]


async def test_a_fault_of_our_own_costs_nothing_else() -> None:
    desk = Desk()
    real = desk.api.event

    async def broken(*args: Any, **more: Any) -> None:
        if more["name"] == "luban-a":
            raise ZeroDivisionError("of ours")
        await real(*args, **more)

    desk.api.event = broken  # type: ignore[method-assign]
    desk.mention()
    desk.mention("luban-b")
    with capture_logs() as logs:
        await desk.recorder.sent()
    assert [name for name, _, _ in desk.told()] == ["luban-b"]
    assert any(line.get("exc_info") for line in logs)


async def test_what_happens_while_the_api_is_slow_is_counted_with_the_latest_words() -> None:
    desk = Desk()
    gate = desk.block()
    desk.mention("luban-b")
    await asyncio.sleep(0)
    for left in range(5):
        desk.mention(message=f"{left} MiB left", series="EnsureDomain")
    gate.set()
    await desk.recorder.sent()
    assert desk.told() == [("luban-b", "no image", 1), ("luban-a", "4 MiB left", 5)]


async def test_too_many_that_wait_push_the_oldest_out() -> None:
    desk = Desk()
    gate = desk.block()
    desk.mention(message="on its way")
    await asyncio.sleep(0)
    with capture_logs() as logs:
        for number in range(MOST_WAITING + 3):
            desk.mention(message=f"{number}")
    gate.set()
    await desk.recorder.sent()
    told = [message for _, message, _ in desk.told()]
    assert told == ["on its way", *(f"{number}" for number in range(3, MOST_WAITING + 3))]
    assert [line["event"] for line in logs] == ["event dropped, too many wait"] * 3


@pytest.mark.looptime
async def test_at_the_end_what_waits_is_sent_if_that_is_quick() -> None:
    desk = Desk()
    desk.mention()
    await desk.recorder.close()
    assert len(desk.told()) == 1
    desk.block()
    desk.mention("luban-b")
    desk.mention("luban-c")
    begun = asyncio.get_running_loop().time()
    with capture_logs() as logs:
        await desk.recorder.close()
    assert asyncio.get_running_loop().time() - begun == CLOSE_SECONDS
    assert [line["count"] for line in logs] == [2]


async def test_no_tick_waits_for_events_and_the_status_comes_first() -> None:
    harness = OperatorHarness()
    gate = asyncio.Event()
    order: list[str] = []

    async def slow(*_: Any, **more: Any) -> None:
        order.append(more["reason"])
        await gate.wait()

    real = harness.api.patch_cluster_status

    async def patch(*args: Any, **more: Any) -> str:
        order.append("status")
        # Whatever else could run meanwhile does.
        await asyncio.sleep(0)
        return await real(*args, **more)

    harness.api.event, harness.api.patch_cluster_status = slow, patch  # type: ignore[method-assign]
    for _ in range(60):
        harness.clock.seconds += await harness.runtime.tick()
    assert harness.consistent(2)
    assert order[0] == "status"
    assert len([it for it in order if it != "status"]) == 1, "one waits for its answer, all others behind it"
    gate.set()
    await harness.runtime.recorder.sent()
    assert "Placed" in order


async def test_what_was_done_is_told_though_the_status_cannot_be_written() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.api.fail_next("patch_cluster_status", TemporaryError("Busy", "no"), times=10**6)
    harness.hypervisor.power_off(harness.vms()[0]["metadata"]["uid"])
    await harness.run(20)
    assert "DomainStopped" in {it.reason for it in harness.api.events(NAMESPACE)}
