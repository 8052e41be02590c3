"""How care of a cluster ends, and how it is handed on: nothing is abandoned, and nothing stays behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import generate_latest

from luban.core.model import ClusterRef
from luban.errors import TemporaryError
from luban.ports import HostRef
from tests.fakes.managed import World
from tests.fakes.operator_harness import cluster_body

pytestmark = pytest.mark.looptime(end=7200)


class Slow:
    """Each domain's removal takes its time; what became of it."""

    def __init__(self, world: World, seconds: float) -> None:
        self.begun: set[str] = set()
        self.given_up = 0
        self._seconds, self._remove = seconds, world.harness.hypervisor.remove
        world.harness.hypervisor.remove = self  # type: ignore[method-assign]

    async def __call__(self, host: HostRef, uuid: str, pool: str) -> None:
        """In place of remove."""
        try:
            if uuid not in self.begun:
                self.begun.add(uuid)
                await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        await self._remove(host, uuid, pool)


async def test_what_is_under_way_when_a_loop_is_handed_on_goes_on() -> None:
    """The daemon's loop ends when the cluster is to be deleted; libvirt still works on what it asked for."""
    world = World()
    await world.run(60)
    slow = Slow(world, seconds=30)
    world.delete()
    for _ in range(20):
        await world.run(5)
    assert (len(slow.begun), slow.given_up) == (2, 0)
    assert world.harness.consistent(0)


@pytest.mark.parametrize("end", ["stop", "forget"])
async def test_at_the_end_nothing_goes_on(end: str) -> None:
    world = World()
    await world.run(60)
    slow = Slow(world, seconds=600)
    world.delete()
    await world.run(20)
    if end == "stop":
        await world.manager.stop()
    else:
        world.manager.forget(world.body()["metadata"]["uid"])
        await asyncio.sleep(1)
    assert (len(slow.begun), slow.given_up) == (2, 2)


async def slow_tick(world: World) -> asyncio.Task[bool]:
    """The cluster's loop, in the middle of a tick."""
    real = world.api.list_vms

    async def waits(cluster: ClusterRef, **how: bool) -> list[dict[str, Any]]:
        await asyncio.sleep(5)
        return await real(cluster, **how)

    loop = asyncio.ensure_future(world.manager.reconcile(world.body(), asyncio.Event()))
    await asyncio.sleep(60)
    world.api.list_vms = waits  # type: ignore[method-assign]
    world.manager.wake("default", "luban")
    await asyncio.sleep(1)
    return loop


async def test_a_cluster_that_goes_in_the_middle_of_a_tick_leaves_no_series() -> None:
    world = World()
    loop = await slow_tick(world)
    world.manager.forget(world.body()["metadata"]["uid"])
    assert await loop is False, "its loop ends by itself"
    assert 'cluster="luban"' not in generate_latest(world.registry).decode()


async def test_a_new_cluster_of_its_name_keeps_its_series() -> None:
    world = World()
    loop = await slow_tick(world)
    uid = world.body()["metadata"]["uid"]
    world.edit(lambda body: body["metadata"].update(finalizers=[]))
    world.delete()
    world.api.create(cluster_body({}))
    world.manager.take(world.body())
    world.manager.forget(uid)
    await loop
    assert 'luban_cluster_vms{cluster="luban"' in generate_latest(world.registry).decode()


async def test_after_the_stop_no_loop_begins() -> None:
    """kopf may call a handler once more before it is stopped itself, and another operator may act then."""
    world = World()
    await world.manager.stop()
    assert await world.run(60) is False
    assert world.api.calls["list_vms"] == 0


async def deletion(world: World) -> asyncio.Task[bool]:
    """A deletion that a silent host holds up."""
    await world.run(60)
    world.harness.hypervisor.disconnect("host-b")
    world.delete()
    task = asyncio.ensure_future(world.manager.delete(world.body()))
    await asyncio.sleep(600)
    return task


async def test_a_deletion_that_waits_writes_nothing_and_gives_nothing_up() -> None:
    world = World()
    task = await deletion(world)
    world.api.calls.clear()
    await asyncio.sleep(3600)
    assert not task.done()
    assert {name for name in world.api.calls if not name.startswith(("list", "read", "balancer"))} == set()
    world.harness.hypervisor.host("host-b").reachable = True
    assert await task
    assert world.harness.consistent(0)


async def test_what_a_user_changes_meanwhile_is_seen() -> None:
    """Also while the API server fails now and then."""
    world = World()
    task = await deletion(world)
    world.api.fail_next("read_cluster", TemporaryError("Timeout", "no answer"), times=2)
    world.edit(lambda body: body["spec"].update(hosts=body["spec"]["hosts"][1:]))
    assert await asyncio.wait_for(task, 1800), "the silent host is given up"
    assert not world.harness.vms()


async def test_a_finalizer_that_is_taken_off_meanwhile_ends_it() -> None:
    world = World()
    task = await deletion(world)
    world.edit(lambda body: body["metadata"].update(finalizers=[]))
    assert await asyncio.wait_for(task, 60)
    assert 'cluster="luban"' not in generate_latest(world.registry).decode()
    world.harness.hypervisor.host("host-b").reachable = True
    await asyncio.sleep(60)
    assert world.harness.consistent(0), "its VM was asked to leave before, and nobody tells of it again"


async def test_a_deletion_that_is_broken_off_is_not_done() -> None:
    """kopf would take the finalizer off."""
    world = World()
    task = await deletion(world)
    await world.manager.stop()
    assert await asyncio.wait_for(task, 60) is False
