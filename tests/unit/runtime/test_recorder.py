"""Events: what repeats itself is counted, what is said of many VMs is said once."""

from __future__ import annotations

from luban.core.model import ClusterRef
from luban.errors import TemporaryError
from luban.runtime.events import Event
from luban.runtime.recorder import EPISODE_SECONDS, SINGLE, EventRecorder
from tests.fakes.cluster import FakeCluster

REF = ClusterRef("default", "luban", "uid-1")


class Desk:
    """A recorder with its clock and its API."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.api = FakeCluster()
        self.recorder = EventRecorder(self.api, REF, lambda: self.seconds)

    async def say(self, name: str = "luban-a", message: str = "no image", *, series: str = "") -> None:
        await self.recorder.record(
            Event("LubanVM", name, f"uid of {name}", "Warning", "ImageNotFound", message, series)
        )

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
