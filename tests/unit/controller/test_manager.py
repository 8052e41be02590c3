"""Which cluster ticks when: taking, waking, refusing, deleting, under the event loop's own virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from luban.api import names
from luban.controller.manager import Manager
from luban.errors import TemporaryError
from luban.runtime.metrics import Metrics
from tests.fakes.hosts import body as lubanhost
from tests.fakes.managed import BAD, World
from tests.fakes.operator_harness import NAMESPACE, cluster_body

pytestmark = pytest.mark.looptime(end=7200)


async def test_a_cluster_comes_up() -> None:
    world = World()
    assert not await world.run(60)
    assert world.harness.consistent(2)


@pytest.mark.parametrize("what", BAD)
async def test_one_that_was_never_good_can_be_deleted(what: str) -> None:
    world = World()
    world.spoil(**BAD[what])
    world.delete()
    assert await world.run(60)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("what", BAD)
async def test_good_then_bad_then_deleted(what: str, restarted: bool) -> None:
    """Deleted from what the LubanVMs say; clients notice nothing of the settings that cannot be read."""
    world = World({"balancer": {"listen": {"port": 8099}}})
    await world.run(60)
    before = world.settings()
    world.spoil(**BAD[what])
    if restarted:
        world.restart()
    else:
        world.manager.changed(world.body())
        await world.run(10)
        assert world.harness.consistent(2), "the last good spec stays in force"
    for vm in world.harness.vms():
        world.harness.balancer.in_flight[vm["metadata"]["name"]] = 3
    world.delete()
    world.manager.changed(world.body())
    assert not await world.run(20)
    assert world.settings() == before
    assert len(world.harness.domains()) == 2, "drained first"
    world.harness.balancer.in_flight.clear()
    assert await world.run(120)
    assert world.harness.consistent(0)
    assert world.settings() is None


@pytest.mark.parametrize("policy", ["Orphan", "Retain", 7])
@pytest.mark.parametrize("restarted", [False, True])
async def test_what_is_to_live_on_lives_on_whatever_the_spec_says(policy: object, restarted: bool) -> None:
    """A policy that this version does not know must not destroy anything."""
    world = World()
    await world.run(60)
    world.spoil(scaling="many", deletionPolicy=policy)
    if restarted:
        world.restart()
    world.delete()
    world.manager.changed(world.body())
    assert await world.run(60)
    assert len(world.harness.domains()) == 2
    assert world.settings() is not None


async def test_the_sweep_knows_of_vms_and_of_the_pools_that_clusters_name() -> None:
    world = World()
    await world.run(60)
    uids = {it["metadata"]["uid"] for it in world.harness.vms()}
    await world.manager.begin()
    sweeper, api = world.manager.sweeper, world.harness.api
    assert sweeper._vms == uids
    assert [it.metadata.name for it in sweeper.clusters()] == ["luban"]
    gone = world.harness.vms()[0]["metadata"]
    api.change("LubanVM", NAMESPACE, gone["name"], lambda body: body["metadata"].update(finalizers=[]))
    api.remove("LubanVM", NAMESPACE, gone["name"])
    assert sweeper._vms == uids - {gone["uid"]}
    await world.manager.stop()


async def woken(world: World, change: Callable[[], object]) -> bool:
    """Whether a change wakes the cluster."""
    entry = world.manager.take(world.body())
    entry.runtime.wake.clear()
    change()
    return entry.runtime.wake.is_set()


async def test_it_hears_of_vms_and_hosts_that_are_there_and_of_what_becomes_of_them() -> None:
    world = World()
    await world.run(60)
    name = world.harness.vms()[0]["metadata"]["name"]
    await world.manager.begin()
    await world.harness.api.begin_anew()
    await world.manager.begin()
    api = world.harness.api
    status = {"status": {"phase": "Ready"}}
    hears = [
        (lambda: api.change("LubanVM", NAMESPACE, name, lambda body: body.update(status)), False),
        (lambda: api.remove("LubanVM", NAMESPACE, name), True),
        (lambda: api.change("LubanVM", NAMESPACE, name, lambda body: body["metadata"].update(finalizers=[])), True),
        (lambda: api.create({"kind": "LubanHost", **registered("host-b")}), True),
        (lambda: api.remove("LubanHost", "default", "host-b"), True),
    ]
    assert [await woken(world, change) for change, _ in hears] == [wanted for _, wanted in hears]
    await world.manager.stop()
    # Watches last longer than a manager does. One that acts no more lets nothing go that others may look after.
    api.remove("LubanVM", NAMESPACE, world.harness.vms()[0]["metadata"]["name"])
    assert not world.manager._leftovers


async def test_who_wakes_a_cluster() -> None:
    world = World()
    await world.run(60)
    world.manager.take(world.body())
    uid = world.harness.vms()[0]["metadata"]["uid"]
    (tell, *_) = world.harness.hypervisor.hosts["host-b"].watchers
    hears = [
        (lambda: tell(uid), True),
        (lambda: tell(""), True),
        (lambda: tell("00000000-0000-4000-9000-000000000000"), False),
        (lambda: world.manager.changed(world.body()), False),
        (lambda: world.manager.wake(NAMESPACE, "luban"), True),
        (lambda: world.manager.wake(NAMESPACE, "another"), False),
        (lambda: world.manager.wake("team-b", "luban"), False),
        (lambda: world.manager.host_changed(lubanhost(node="host-b")), True),
        (lambda: world.manager.host_changed(lubanhost(node="host-b")), False),
        (lambda: world.manager.host_changed(lubanhost(node="rack-9")), False),
        (lambda: world.manager.host_gone("host-b"), True),
    ]
    assert [await woken(world, change) for change, _ in hears] == [wanted for _, wanted in hears]


def registered(name: str, **libvirt: Any) -> dict[str, Any]:
    """A LubanHost as an administrator writes it."""
    return {"metadata": {"name": name}, "spec": {"libvirt": {"uri": f"qemu+tls://{name}/system", **libvirt}}}


async def test_a_lubanhost_wakes_those_that_name_it_and_those_whose_node_it_is() -> None:
    hosts = cluster_body({})["spec"]["hosts"]
    world = World({"hosts": [{**hosts[0], "nodeName": "rack-1"}, {**hosts[1], "uri": ""}]})
    world.manager.host_changed(registered("host-c"))
    await world.run(60)
    assert world.harness.consistent(2)
    hears = [
        (lambda: world.manager.host_changed(registered("host-c", namespaces=["team-b"])), True),
        (lambda: world.manager.host_changed(registered("host-c", namespaces=["team-b"])), False),
        (lambda: world.manager.host_changed(registered("host-b", cidr="127.0.0.0/8")), True),
        (lambda: world.manager.host_changed(registered("host-x")), False),
        (lambda: world.manager.host_changed(registered("rack-1")), True),
        (lambda: world.manager.host_changed(registered("rack-1", cidr="127.0.0.0/8")), False),
        (lambda: world.manager.host_changed(lubanhost(node="rack-1")), True),
        (lambda: world.manager.host_changed(lubanhost(node="host-b")), True),
        (lambda: world.manager.host_changed(lubanhost(node="host-b")), False),
        (lambda: world.manager.host_gone("host-c"), True),
        (lambda: world.manager.host_gone("host-b"), False),
    ]
    assert [await woken(world, change) for change, _ in hears] == [wanted for _, wanted in hears]


async def test_the_operators_policy_holds_for_all_its_clusters() -> None:
    world = World()
    world.manager = Manager(world.harness.ports(), Metrics(CollectorRegistry()), "Registered")
    await world.run(60)
    assert world.harness.vms() == []
    assert world.condition("HostsAllowed")["reason"] == "InlineURIRefused"
    for name in ("host-b", "host-c"):
        world.manager.host_changed(registered(name))
    await world.run(60)
    assert world.harness.consistent(2)


async def test_our_own_status_does_not_wake_and_a_user_does() -> None:
    world = World()
    await world.run(60)
    world.edit(lambda body: body["status"].update(replicas=7))
    assert not await woken(world, lambda: world.manager.changed(world.body()))
    world.edit(lambda body: body["metadata"].update(annotations={"kopf.luban.cloud/x": "y"}))
    assert not await woken(world, lambda: world.manager.changed(world.body()))

    def scale() -> None:
        world.edit(lambda body: body["spec"].update(replicas=3))
        world.manager.changed(world.body())

    assert await woken(world, scale)

    def delete() -> None:
        world.delete()
        world.manager.changed(world.body())

    assert await woken(world, delete)


async def test_a_cluster_that_nobody_takes_care_of_is_not_taken_by_a_change() -> None:
    world = World()
    world.manager.changed(world.body())
    world.manager.host_changed(lubanhost(node="host-b"))
    world.manager.wake(NAMESPACE, "luban")
    world.manager.forget("unknown")
    assert world.api.calls["list_vms"] == 0


async def test_hosts_that_leave_the_spec_are_listened_to_no_more() -> None:
    world = World()

    def listeners() -> list[int]:
        return [len(world.harness.hypervisor.host(name).watchers) for name in ("host-b", "host-c")]

    await world.run(60)
    assert listeners() == [1, 1]
    for vm in world.harness.vms():
        if vm["spec"]["host"] == "host-c":
            world.api.remove("LubanVM", NAMESPACE, vm["metadata"]["name"])
    world.edit(lambda body: body["spec"].update(hosts=body["spec"]["hosts"][:1]))
    world.manager.changed(world.body())
    await world.run(60)
    assert listeners() == [1, 0]
    world.manager.forget(world.body()["metadata"]["uid"])
    await asyncio.sleep(1)
    assert listeners() == [0, 0]


async def test_two_loops_of_one_cluster_take_turns() -> None:
    """The daemon's and the deletion's: no tick overlaps another."""
    world = World()
    real, inside, most = world.api.list_vms, 0, 0

    async def counted(*arguments: Any, **how: bool) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.1)
        inside -= 1
        return await real(*arguments, **how)

    world.api.list_vms = counted  # type: ignore[method-assign]
    await asyncio.gather(world.run(10), world.run(20))
    assert most == 1


async def test_stop_ends_every_loop_after_its_tick() -> None:
    world = World()
    forever = asyncio.ensure_future(world.manager.reconcile(world.body(), asyncio.Event()))
    await asyncio.sleep(60)
    assert world.harness.consistent(2)
    await world.manager.stop()
    assert await forever is False


async def test_a_cluster_that_is_gone_leaves_no_metrics() -> None:
    world = World()
    await world.run(60)
    world.delete()
    assert await world.run(120)
    assert 'cluster="luban"' not in generate_latest(world.registry).decode()


async def test_at_rest_a_cluster_ticks_seldom_and_writes_nothing() -> None:
    world = World()
    with capture_logs():
        await world.run(60)
    world.api.calls.clear()
    with capture_logs():
        await world.run(300)
    assert world.api.calls["list_vms"] <= 61
    assert {name for name in world.api.calls if not name.startswith(("list", "read", "balancer"))} == set()


def owner_is_gone(world: World) -> None:
    """Somebody takes the LubanCluster's finalizer off; garbage collection takes its objects."""
    world.edit(lambda body: body["metadata"].update(finalizers=[]))
    world.delete()
    world.api.remove("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
    for vm in world.harness.vms():
        world.api.remove("LubanVM", NAMESPACE, vm["metadata"]["name"])


async def hear(world: World, seconds: float = 120) -> None:
    """kopf tells of the LubanVMs that are to be deleted; time passes."""
    for vm in world.harness.vms():
        if "deletionTimestamp" in vm["metadata"]:
            world.manager.vm_deleted(vm)
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_is_left_of_a_cluster_that_is_no_more_is_removed(restarted: bool) -> None:
    world = World()
    await world.run(60)
    uid = world.body()["metadata"]["uid"]
    owner_is_gone(world)
    if restarted:
        world.restart()
    else:
        world.manager.forget(uid)
    assert len(world.harness.domains()) == 2
    await hear(world)
    assert world.harness.consistent(0)
    assert world.settings() is None, "nobody writes a ConfigMap for it again"
    assert not world.manager._leftovers


async def test_a_new_cluster_of_its_name_notices_nothing() -> None:
    world = World()
    await world.run(60)
    old = {vm["metadata"]["uid"] for vm in world.harness.vms()}
    world.manager.forget(world.body()["metadata"]["uid"])
    owner_is_gone(world)
    world.api.create(cluster_body({"replicas": 2, "scaling": {"policy": "Manual", "minVMs": 2, "maxVMs": 3}}))
    both = asyncio.gather(world.run(300), hear(world, 300))
    await both
    assert world.harness.consistent(2)
    assert not old & world.harness.domains()
    assert world.condition("Ready")["status"] == "True"


async def test_a_vm_of_a_cluster_that_is_there_is_left_to_it() -> None:
    """Also when kopf tells of the LubanVM before it tells of its cluster."""
    world = World()
    await world.run(60)
    world.restart()
    world.api.remove("LubanVM", NAMESPACE, world.harness.vms()[0]["metadata"]["name"])
    await hear(world)
    assert len(world.harness.domains()) == 2
    await world.run(120)
    assert world.harness.consistent(2)


async def test_a_vm_without_an_owner_goes_if_it_is_asked_to_and_no_other() -> None:
    world = World()
    await world.run(60)
    world.manager.forget(world.body()["metadata"]["uid"])
    for vm in world.harness.vms():
        name = vm["metadata"]["name"]
        world.api.change("LubanVM", NAMESPACE, name, lambda body: body["metadata"].update(ownerReferences=[]))
    first, other = world.harness.vms()
    world.edit(lambda body: body["metadata"].update(finalizers=[]))
    world.delete()
    world.api.remove("LubanVM", NAMESPACE, first["metadata"]["name"])
    await hear(world)
    assert world.harness.domains() == {other["metadata"]["uid"]}
    assert [vm["metadata"]["name"] for vm in world.harness.vms()] == [other["metadata"]["name"]]


async def test_an_api_server_that_does_not_answer_is_asked_again() -> None:
    world = World()
    await world.run(60)
    world.manager.forget(world.body()["metadata"]["uid"])
    owner_is_gone(world)
    world.api.fail_next("read_cluster", TemporaryError("Timeout", "no answer"), times=3)
    await hear(world)
    assert world.harness.consistent(0)


async def test_stop_ends_what_is_left_too() -> None:
    world = World()
    await world.run(60)
    world.manager.forget(world.body()["metadata"]["uid"])
    owner_is_gone(world)
    world.harness.hypervisor.disconnect("host-b")
    await hear(world, 60)
    assert len(world.harness.domains()) == 1, "a silent host's VMs wait"
    await world.manager.stop()
    assert not world.manager._leftovers
