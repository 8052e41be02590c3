"""Two clusters of two namespaces on the same two hosts, whose limit is below what both want."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from lab.datacentre import NAMESPACE
from lab.demo.load import Load
from tests.e2e.lab_view import LabView
from tests.e2e.second_team import SHOP, TEAM, SecondTeam, registered

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
LIMIT = 2
"""VMs of all clusters on each host."""
SCALING = {
    "minVMs": 1,
    "maxVMs": 4,
    "interval": "5s",
    "policy": "Sessions",
    "sessions": {"maxPerVM": 4, "upperPercent": 60, "lowerPercent": 10},
}
USERS = 16
"""Of each cluster: enough for four VMs."""
HOLD_SECONDS = 2.0
MOST_REQUESTS = 20_000
LOOK_SECONDS = 0.25


@pytest.fixture
def shop(scene: LabView) -> Iterator[SecondTeam]:
    """The second team, with one VM; the first has one, too."""
    hosts = [{**it, "vms": {"min": 0, "max": 6}} for it in scene.get("lubancluster", "luban")["spec"]["hosts"]]
    scene.patch({"spec": {"hosts": hosts, "scaling": {**SCALING, "policy": "Manual"}, "replicas": 1}})
    scene.until(lambda: scene.consistent(1), "one VM of the first team serves")
    team = SecondTeam(scene)
    with registered(scene, vms={"max": LIMIT}):
        try:
            team.up(**SCALING)
            scene.patch({"spec": {"scaling": {"policy": "Sessions"}}})
            yield team
        finally:
            team.down()


class Watchman:
    """Counts what runs on each host, as somebody does who asks libvirt."""

    def __init__(self, scene: LabView) -> None:
        self._scene = scene
        self.most: dict[str, int] = {}
        self.looks = 0

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            for host in self._scene.lab.hosts.uris():
                listed = await asyncio.to_thread(self._scene.virsh, host, "list", "--uuid")
                self.most[host] = max(self.most.get(host, 0), len(listed.split()))
            self.looks += 1
            await asyncio.sleep(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def watched(scene: LabView) -> AsyncIterator[Watchman]:
    """For the block."""
    watchman = Watchman(scene)
    task = asyncio.ensure_future(watchman.watch())
    try:
        yield watchman
        assert not task.done(), "the watchman saw to the end"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_limit_over_both_holds_and_room_goes_to_the_other(scene: LabView, shop: SecondTeam) -> None:
    """Never exceeded while both grow under load; the refused one says so; when the first shrinks it gets the room."""
    until = scene.until

    def serving(status: dict[str, object]) -> int:
        vms = status.get("vms") or {}
        return int(vms["serving"]) if isinstance(vms, dict) else 0

    loads = [Load(url, hold=HOLD_SECONDS, limit=MOST_REQUESTS) for url in (scene.lab.addresses.service, shop.url)]
    async with watched(scene) as watchman:
        for load in loads:
            await load.set_users(USERS)
        await asyncio.to_thread(
            until, lambda: serving(scene.status()) + serving(shop.status()) == 2 * LIMIT, "all room"
        )
        refused = await asyncio.to_thread(until, lambda: told_of_full_hosts(scene, shop), "one says that it is full")
        assert f"{TEAM}/{SHOP}" in refused
        assert f"{NAMESPACE}/luban" in refused
        before = serving(shop.status())
        # The first one has no more users, and lets all but one of its VMs go.
        first = await loads[0].stop()
        await asyncio.to_thread(until, lambda: serving(scene.status()) == 1, "the first shrinks", 300.0)
        await asyncio.to_thread(until, lambda: serving(shop.status()) == 3, f"the second grows from {before}", 300.0)
        second = await loads[1].stop()
    assert watchman.most == {"host-b": LIMIT, "host-c": LIMIT}
    assert watchman.looks > 50
    assert not [*first.failures, *second.failures]


def told_of_full_hosts(scene: LabView, shop: SecondTeam) -> str:
    """What a cluster that wants more says; empty: none does yet."""
    for status in (scene.status(), shop.status()):
        told = {it["type"]: it for it in status.get("conditions", ())}.get("AtMaximum", {})
        full = f"all clusters fill it ({LIMIT} of {LIMIT} VMs"
        if told.get("reason") == "NoHostHasRoom" and told["message"].count(full) == 2:
            return str(told["message"])
    return ""
