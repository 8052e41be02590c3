"""What VMs use: two looks make a rate, nobody waits, and what is old or began anew says nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.core.figures import Figures
from luban.errors import HostUnreachable
from luban.ports import GuestMemory, HostRef, Usage
from luban.senses.usage import FORGET_SECONDS, LATE_SECONDS, UsageSenses
from tests.fakes.hypervisor import FakeHypervisor

pytestmark = pytest.mark.looptime(end=36000)

HOST, OTHER = HostRef("host-b", "qemu+tls://host-b/system"), HostRef("host-c", "qemu+tls://host-c/system")
PERIOD = 10.0


def now() -> float:
    return asyncio.get_running_loop().time()


class Daemon(FakeHypervisor):
    """A host whose answers the test arranges. Its own clock is another than ours."""

    def __init__(self) -> None:
        super().__init__(now)
        self.said: dict[str, Usage] = {}
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: Exception | None = None

    def use(self, uuid: str = "a", **fields: Any) -> None:
        usage = self.said.get(uuid, Usage(0.0, run=1, cpu_seconds=0.0, vcpus=2, network_bytes=0))
        self.said[uuid] = replace(usage, at=now() + 1e6, **fields)

    async def usage(self, host: HostRef) -> dict[str, Usage]:
        self.asked += 1
        await self.answers.wait()
        if self.error:
            raise self.error
        return dict(self.said)


class Scene:
    """One host."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.senses = UsageSenses(self.daemon, now)

    async def look(self, after: float = 0.0, uuid: str = "a", **used: Any) -> Figures | None:
        """What is known so many seconds later, once the host has answered."""
        await asyncio.sleep(after)
        if used:
            self.daemon.use(uuid, **used)
        self.known()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.known().get(uuid)

    def known(self) -> Mapping[str, Figures]:
        return self.senses.look([HOST], {"a"}, PERIOD)


async def test_two_looks_make_a_rate() -> None:
    scene = Scene()
    assert await scene.look(cpu_seconds=100.0, network_bytes=5000) == Figures(since=math.inf)
    found = await scene.look(PERIOD, cpu_seconds=105.0, network_bytes=25_000)
    assert found == Figures(cpu=25.0, network=2000.0, since=0.0)
    found = await scene.look(PERIOD, cpu_seconds=105.0)
    assert found == Figures(cpu=0.0, network=0.0, since=10.0)


async def test_nobody_waits_and_hosts_are_asked_no_more_often_than_a_period() -> None:
    scene = Scene()
    scene.daemon.answers.clear()
    assert scene.known() == {}
    await asyncio.sleep(3 * PERIOD)
    assert scene.known() == {}
    assert scene.daemon.asked == 1
    scene.daemon.answers.set()
    await asyncio.sleep(0.1)
    for _ in range(20):
        scene.known()
        await asyncio.sleep(PERIOD / 10)
    assert scene.daemon.asked == 3


async def test_the_shortest_period_of_all_clusters_counts() -> None:
    scene = Scene()
    for _ in range(40):
        scene.senses.look([HOST], {"a"}, 30.0)
        scene.senses.look([HOST], {"a"}, PERIOD)
        await asyncio.sleep(1)
    assert scene.daemon.asked == 4


@pytest.mark.parametrize(
    "change",
    [{"run": 2, "cpu_seconds": 900.0}, {"cpu_seconds": 1.0}, {"cpu_seconds": None}, {"vcpus": None}, {"vcpus": 0}],
)
async def test_no_figure_after_a_new_start_or_of_what_is_not_told(change: dict[str, Any]) -> None:
    scene = Scene()
    await scene.look(cpu_seconds=100.0)
    await scene.look(PERIOD, cpu_seconds=101.0)
    found = await scene.look(PERIOD, **{"cpu_seconds": 102.0, **change})
    assert found is not None
    assert found.cpu is None


async def test_no_figure_over_a_gap() -> None:
    scene = Scene()
    await scene.look(cpu_seconds=100.0)
    found = await scene.look(2 * PERIOD + LATE_SECONDS + 1, cpu_seconds=101.0)
    assert found == Figures(since=math.inf)


async def test_what_is_too_old_is_unknown() -> None:
    scene = Scene()
    await scene.look(cpu_seconds=100.0)
    await scene.look(PERIOD, cpu_seconds=101.0)
    scene.daemon.error = HostUnreachable("HostUnreachable", "host-b: silent")
    assert await scene.look(2 * PERIOD + LATE_SECONDS) == Figures(cpu=5.0, network=0.0, since=0.0)
    assert await scene.look(0.1) is None


async def test_a_host_that_fails_is_told_once_and_asked_again() -> None:
    scene = Scene()
    scene.daemon.error = HostUnreachable("HostUnreachable", "host-b: silent")
    with capture_logs() as logs:
        for _ in range(3):
            await scene.look(PERIOD)
    assert [(it["event"], it["host"]) for it in logs] == [("what VMs use is not known", "host-b")]
    scene.daemon.error = None
    await scene.look(PERIOD, cpu_seconds=1.0)
    assert await scene.look(PERIOD, cpu_seconds=2.0) is not None


async def test_a_fault_is_logged_and_ends_nothing() -> None:
    scene = Scene()
    scene.daemon.error = RuntimeError("no")
    with capture_logs() as logs:
        await scene.look(PERIOD)
    assert [it["event"] for it in logs] == ["unexpected error of a host"]
    scene.daemon.error = None
    assert await scene.look(PERIOD, cpu_seconds=1.0) is not None


async def test_memory_as_a_guest_tells_it() -> None:
    scene = Scene()
    memory = GuestMemory(used=256, maximum=1024, told=7)
    first = await scene.look(memory=memory)
    assert first is not None
    assert first.memory is None
    found = await scene.look(PERIOD, memory=replace(memory, used=512, told=8))
    assert found is not None
    assert found.memory == 50.0
    for _ in range(3):
        found = await scene.look(PERIOD, cpu_seconds=0.0)
        assert found is not None
        assert found.memory == 50.0
    found = await scene.look(PERIOD, cpu_seconds=0.0)
    assert found is not None
    assert found.memory is None, "a guest that has told nothing for long may hang"


async def test_what_runs_no_more_and_hosts_that_nobody_looks_at_are_forgotten() -> None:
    scene = Scene()
    await scene.look(cpu_seconds=1.0)
    scene.daemon.said.clear()
    assert await scene.look(PERIOD) is None
    scene.senses.look([OTHER], {"a"}, PERIOD)
    await asyncio.sleep(FORGET_SECONDS + 1)
    scene.senses.look([OTHER], {"a"}, PERIOD)
    asked = scene.daemon.asked
    scene.senses.look([HOST], {"a"}, PERIOD)
    await asyncio.sleep(0)
    assert scene.daemon.asked > asked


async def test_only_what_was_asked_about_is_told() -> None:
    scene = Scene()
    scene.daemon.use("b")
    await scene.look(cpu_seconds=1.0)
    assert scene.senses.look([HOST], {"b", "c"}, PERIOD).keys() == {"b"}


async def test_closing_ends_what_is_under_way() -> None:
    scene = Scene()
    scene.daemon.answers.clear()
    before = asyncio.all_tasks()
    scene.known()
    assert len(asyncio.all_tasks() - before) == 1
    scene.senses.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before
