"""LubanVMs that leave at the start: LubanClusters are asked for only if nobody tells of them, and few at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from luban.api import names
from luban.controller.manager import LEFTOVER_READS, TOLD_SECONDS
from luban.core.model import ClusterRef
from tests.fakes.managed import World
from tests.fakes.operator_harness import NAMESPACE

pytestmark = pytest.mark.looptime(end=7200)


def leaving(number: int, uid: str) -> dict[str, Any]:
    """A LubanVM that somebody deleted."""
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": "LubanCluster",
        "name": f"c{number}",
        "uid": uid,
        "controller": True,
    }
    metadata = {
        "name": f"c{number}-a",
        "namespace": NAMESPACE,
        "uid": f"vm-{number}",
        "finalizers": [names.FINALIZER_VM],
        "ownerReferences": [owner],
        "deletionTimestamp": "2026-11-28T00:00:00Z",
    }
    return {"kind": "LubanVM", "metadata": metadata, "spec": {"clusterName": f"c{number}", "host": "host-b"}}


async def test_a_cluster_that_is_told_of_is_not_asked_for() -> None:
    world = World()
    await world.run(60)
    vm = world.harness.vms()[0]["metadata"]["name"]
    world.api.remove("LubanVM", NAMESPACE, vm)
    manager = world.restart()
    world.api.calls.clear()
    await manager.begin()
    running = asyncio.ensure_future(world.run(30))
    await asyncio.sleep(2 * TOLD_SECONDS)
    assert not world.api.calls["read_cluster"]
    assert not manager._leftovers
    await running
    await manager.stop()


async def test_of_many_that_are_gone_few_are_asked_for_at_once() -> None:
    world = World()
    manager, inside, most, asked = world.manager, 0, 0, 0

    async def read(ref: ClusterRef) -> dict[str, Any] | None:
        nonlocal inside, most, asked
        inside, asked = inside + 1, asked + 1
        most = max(most, inside)
        await asyncio.sleep(0.1)
        inside -= 1
        return {"metadata": {"uid": ref.uid}}

    world.api.read_cluster = read  # type: ignore[method-assign]
    for number in range(20):
        manager.vm_told(leaving(number, f"uid-{number}"), False)
    await asyncio.sleep(TOLD_SECONDS + 60)
    assert (asked, most) == (20, LEFTOVER_READS)
    await manager.stop()


async def test_an_operator_that_ends_asks_for_none() -> None:
    world = World()
    world.manager.vm_told(leaving(1, "uid-1"), False)
    await asyncio.sleep(TOLD_SECONDS / 2)
    await world.manager.stop()
    assert not world.api.calls["read_cluster"]
