"""Hosts: asked once for all clusters, waited for once, and believed for as long as it is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from luban.core.model import ClusterRef, DomainRecord, HostObservation
from luban.errors import HostUnreachable
from luban.ports import HostRef, Inventory, MarkedDomain
from luban.senses.hosts import (
    DOUBT_SECONDS,
    FRESH_SECONDS,
    HASTY_SECONDS,
    MEMORY_SECONDS,
    PATIENCE_SECONDS,
    RETRY_SECONDS,
    HostSenses,
)
from tests.fakes.hypervisor import FakeHypervisor

pytestmark = pytest.mark.looptime(end=3600)

HOST = HostRef("host-b", "qemu+tls://host-b/system")
ONE, OTHER = ClusterRef("shop", "one", "1"), ClusterRef("shop", "other", "2")
DOMAINS = {
    "a": MarkedDomain(ONE, DomainRecord("a", "one-a", "Running")),
    "b": MarkedDomain(OTHER, DomainRecord("b", "other-b", "Running")),
    "c": MarkedDomain(ClusterRef("shop", "one", "0"), DomainRecord("c", "one-c", "Running")),
}


def monotonic() -> float:
    return asyncio.get_running_loop().time()


class Daemon(FakeHypervisor):
    """A host whose answers the test arranges."""

    def __init__(self) -> None:
        super().__init__(monotonic)
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.domains = DOMAINS
        self.errors: list[Exception] = []

    async def inventory(self, host: HostRef) -> Inventory:
        self.asked += 1
        said = Inventory(dict(self.domains))
        await self.answers.wait()
        if self.errors:
            raise self.errors.pop(0)
        return said


class Scene:
    """Two clusters on one host."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.senses = HostSenses(self.daemon, monotonic)
        self.heard: list[tuple[str, str]] = []
        for cluster in (ONE, OTHER):
            self.senses.follow(cluster, [HOST], lambda uuid, name=cluster.name: self.heard.append((name, uuid)))  # type: ignore[misc]

    async def look(
        self, cluster: ClusterRef = ONE, adopted: Collection[str] = (), *, hasty: bool = False
    ) -> HostObservation:
        (seen,) = await self.senses.look(cluster, adopted, {HOST: hasty})
        return seen

    def event(self, uuid: str) -> None:
        for wake in self.daemon.host(HOST.name).watchers:
            wake(uuid)

    def end(self) -> None:
        for cluster in (ONE, OTHER):
            self.senses.follow(cluster, (), lambda _uuid: None)


async def test_each_cluster_sees_its_own() -> None:
    scene = Scene()
    assert (await scene.look(ONE)).domains.keys() == {"a"}
    assert (await scene.look(ONE, {"b", "c"})).domains.keys() == {"a", "c"}, "adopted ones bear its name"
    assert (await scene.look(OTHER)).domains.keys() == {"b"}
    assert (await scene.look(ClusterRef("shop", "one"))).domains.keys() == {"a", "c"}
    assert scene.daemon.asked == 1


async def test_all_clusters_together_ask_once_in_a_period() -> None:
    scene = Scene()
    for _ in range(100):
        await asyncio.gather(*(scene.look(cluster) for cluster in (ONE, OTHER) for _ in range(10)))
        await asyncio.sleep(1)
    assert scene.daemon.asked <= 100 / FRESH_SECONDS + 1


async def test_who_waits_for_something_asks_more_often() -> None:
    scene = Scene()
    for _ in range(5):
        await scene.look(hasty=True)
        await asyncio.sleep(HASTY_SECONDS + 0.1)
    assert scene.daemon.asked == 5


@pytest.mark.parametrize("own", [True, False], ids=["own-action", "event"])
async def test_what_happened_makes_it_too_old(own: bool) -> None:
    scene = Scene()
    await scene.look()
    if own:
        scene.senses.touch(HOST)
    else:
        scene.event("a")
        assert scene.heard == [("one", "a"), ("other", "a")]
    await scene.look()
    assert scene.daemon.asked == 2
    await scene.look()
    assert scene.daemon.asked == 2


async def test_what_happens_while_it_is_asked_is_asked_for_behind() -> None:
    scene = Scene()
    scene.daemon.answers.clear()
    looking = asyncio.ensure_future(scene.look())
    await asyncio.sleep(0.1)
    scene.daemon.domains = {}
    scene.senses.touch(HOST)
    scene.daemon.answers.set()
    assert not (await looking).domains
    assert scene.daemon.asked == 2


@pytest.mark.parametrize("fails_first", [False, True])
async def test_that_all_is_gone_is_believed_when_it_has_been_said_for_a_while(fails_first: bool) -> None:
    """A libvirtd that was just started may not have read its domains yet."""
    scene = Scene()
    await scene.look()
    scene.daemon.domains = {}
    if fails_first:
        scene.daemon.errors = [HostUnreachable("HostUnreachable", "connection reset")]
        scene.event("")
        assert not (await scene.look()).reachable
    await asyncio.sleep((RETRY_SECONDS if fails_first else FRESH_SECONDS) + 0.1)
    for _ in range(2):
        seen = await scene.look()
        assert (seen.reachable, seen.domains.keys()) == (True, {"a"})
        await asyncio.sleep(DOUBT_SECONDS / 2)
    assert not (await scene.look()).domains
    asked = scene.daemon.asked
    await scene.look()
    assert scene.daemon.asked == asked, "there is nothing to doubt any more"


async def test_one_that_was_doubted_and_comes_back_was_never_gone() -> None:
    scene = Scene()
    await scene.look()
    for domains in ({}, DOMAINS, {}):
        scene.daemon.domains = domains
        await asyncio.sleep(FRESH_SECONDS + 0.1)
        assert (await scene.look()).domains.keys() == {"a"}


@pytest.mark.parametrize("own", [True, False], ids=["own-action", "event"])
async def test_what_happened_explains_that_all_is_gone(own: bool) -> None:
    scene = Scene()
    await scene.look()
    scene.daemon.domains = {}
    if own:
        scene.senses.touch(HOST)
    else:
        scene.event("a")
    assert not (await scene.look()).domains


async def test_an_answer_that_came_late_is_as_old_as_it_is() -> None:
    """Nobody looked for a while after it had come: what happened since is asked for."""
    scene = Scene()
    await scene.look()
    scene.daemon.answers.clear()
    scene.senses.touch(HOST)
    await scene.look()
    scene.daemon.answers.set()
    await asyncio.sleep(600)
    asked = scene.daemon.asked
    scene.daemon.domains = {"a": DOMAINS["a"], "b": DOMAINS["b"]}
    await scene.look()
    assert scene.daemon.asked == asked + 1


async def test_a_host_where_something_happens_all_the_time_is_asked_in_turns() -> None:
    scene = Scene()
    real = scene.daemon.inventory

    async def busy(host: HostRef) -> Inventory:
        said = await real(host)
        scene.event("b")
        return said

    scene.daemon.inventory = busy  # type: ignore[method-assign]
    begun = monotonic()
    assert (await scene.look()).reachable
    assert (monotonic(), scene.daemon.asked) == (begun, 2)


async def test_a_host_that_hangs_is_waited_for_once_and_remembered_for_a_while() -> None:
    scene = Scene()
    await scene.look()
    scene.daemon.answers.clear()
    scene.senses.touch(HOST)
    begun = monotonic()
    assert (await scene.look()).domains.keys() == {"a"}
    assert monotonic() - begun == pytest.approx(PATIENCE_SECONDS)
    for cluster in (ONE, OTHER):
        again = monotonic()
        assert (await scene.look(cluster)).reachable
        assert monotonic() == again, "nobody waits for it any more"
    await asyncio.sleep(MEMORY_SECONDS)
    silent = await scene.look()
    assert (silent.reachable, silent.domains) == (False, {})
    assert "has not answered yet" in silent.message
    assert scene.daemon.asked == 2
    scene.daemon.answers.set()
    await asyncio.sleep(0)
    assert (await scene.look()).reachable
    scene.end()


async def test_a_host_that_fails_is_asked_again_soon_by_all_together() -> None:
    scene = Scene()
    scene.daemon.errors = [HostUnreachable("HostUnreachable", "no route"), *[ValueError("odd")] * 2]
    for words in ("no route", "no route", "ValueError: odd"):
        for cluster in (ONE, OTHER):
            seen = await scene.look(cluster)
            assert (seen.reachable, seen.message) == (False, words), "words stay until others are said twice"
        await asyncio.sleep(HASTY_SECONDS + 0.1)
    assert scene.daemon.asked == 3
    assert (await scene.look()).reachable


async def test_who_follows_a_host_that_failed_is_woken_when_it_answers_again() -> None:
    scene = Scene()
    scene.daemon.errors = [HostUnreachable("HostUnreachable", "gone")] * 3
    assert not (await scene.look()).reachable
    scene.heard.clear()
    await asyncio.sleep(2.5 * RETRY_SECONDS)
    assert scene.heard == []
    await asyncio.sleep(RETRY_SECONDS)
    assert scene.heard == [("one", ""), ("other", "")]
    asked = scene.daemon.asked
    await asyncio.sleep(10 * RETRY_SECONDS)
    assert (scene.daemon.asked, len(scene.heard)) == (asked, 2), "one that answers is asked by those that look"
    assert (await scene.look()).reachable


async def test_one_that_nobody_follows_any_more_is_not_asked_again() -> None:
    scene = Scene()
    scene.daemon.errors = [HostUnreachable("HostUnreachable", "gone")] * 9
    await scene.look()
    scene.end()
    asked = scene.daemon.asked
    await asyncio.sleep(10 * RETRY_SECONDS)
    assert scene.daemon.asked == asked


async def test_a_call_that_is_given_up_says_nothing() -> None:
    scene = Scene()
    await scene.look()
    scene.daemon.errors = [asyncio.CancelledError()] * 100  # type: ignore[list-item]
    scene.senses.touch(HOST)
    assert (await scene.look()).reachable
    await asyncio.sleep(MEMORY_SECONDS + 1)
    assert not (await scene.look()).reachable
    scene.daemon.errors = []
    assert (await scene.look()).reachable


async def test_a_host_that_nobody_follows_is_let_go() -> None:
    scene = Scene()
    await scene.look()
    scene.senses.follow(ONE, (), lambda _uuid: None)
    assert scene.daemon.host(HOST.name).watchers
    scene.senses.follow(OTHER, (), lambda _uuid: None)
    assert not scene.daemon.host(HOST.name).watchers
    scene.senses.touch(HOST)
