"""observe -> plan -> apply -> report on fakes and a virtual clock: whole stories, no waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from luban.api import names
from luban.errors import PermanentError, TemporaryError
from luban.ports import HostRef, Inventory
from luban.runtime import observe
from luban.runtime.status import VOLATILE_SECONDS
from luban.senses import hosts
from tests.fakes.hosts import body, bond
from tests.fakes.operator_harness import NAMESPACE, Killed, OperatorHarness


async def test_two_vms_come_up_one_on_each_host() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    assert harness.consistent(2)
    assert {vm["spec"]["host"] for vm in harness.vms()} == {"host-b", "host-c"}
    status = harness.body()["status"]
    assert (status["phase"], status["summary"], status["balancerSummary"]) == ("Ready", "2/2", "1/1")
    assert {it["type"]: it["status"] for it in status["conditions"]}["Ready"] == "True"


async def test_a_steady_cluster_writes_nothing() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.api.calls.clear()
    await harness.run(300)
    writes = {
        name: count for name, count in harness.api.calls.items() if not name.startswith(("list", "read", "balancer"))
    }
    assert writes == {}


async def test_at_most_two_status_writes_per_transition() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.api.calls.clear()
    harness.change(replicas=3)
    await harness.run(60)
    assert harness.consistent(3)
    newest = max(harness.vms(), key=lambda vm: vm["metadata"]["creationTimestamp"])
    assert harness.api.calls["patch_vm_status"] <= 2 * len(newest["status"]["transitions"])


async def test_scale_down_drains_before_the_power_button() -> None:
    harness = OperatorHarness({"replicas": 3})
    await harness.run(60)
    assert harness.consistent(3)
    for vm in harness.vms():
        harness.balancer.in_flight[vm["metadata"]["name"]] = 4
    harness.change(replicas=2)
    await harness.run(20)
    leaving = [vm for vm in harness.vms() if "deletionTimestamp" in vm["metadata"]]
    assert [vm["status"]["phase"] for vm in leaving] == ["Draining"]
    assert not any(call == "shutdown" for host in harness.hypervisor.hosts.values() for call, _ in host.calls)
    harness.balancer.in_flight.clear()
    await harness.run(30)
    assert harness.consistent(2)


async def test_a_dead_vm_is_replaced_and_leaves_the_balancer() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    dead = harness.vms()[0]
    harness.hypervisor.power_off(dead["metadata"]["uid"], "Crashed")
    await harness.tick()
    published = harness.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
    assert published is not None
    assert dead["metadata"]["name"] not in published["data"]["balancer.json"]
    await harness.run(60)
    assert harness.consistent(2)
    assert "DomainCrashed" in {event.reason for event in harness.api.events(NAMESPACE)}


async def test_missing_image_is_a_condition_and_leaves_nothing() -> None:
    harness = OperatorHarness({"template": {"spec": {"image": {"volume": "none.qcow2"}, "network": {"type": "User"}}}})
    await harness.run(20)
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["VMsHealthy"]
    assert (condition["status"], condition["reason"]) == ("False", "ImageNotFound")
    assert "none.qcow2" in condition["message"]
    assert harness.domains() == set()
    assert harness.overlays() == set()


async def test_missing_secret_names_the_secret() -> None:
    cloud_init = {"userDataSecretRef": {"name": "absent"}}
    template = {"spec": {"image": {"volume": "luban-web.qcow2"}, "network": {"type": "User"}, "cloudInit": cloud_init}}
    harness = OperatorHarness({"template": template})
    await harness.run(20)
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["VMsHealthy"]
    assert condition["reason"] == "SecretNotFound"
    assert "absent" in condition["message"]


async def test_temporary_failure_is_tried_again() -> None:
    harness = OperatorHarness()
    harness.hypervisor.host("host-b").failures.append(TemporaryError("Busy", "try again"))
    await harness.run(60)
    assert harness.consistent(2)


async def test_api_server_away_for_a_while() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.api.fail_next("*", TemporaryError("Unavailable", "connection refused"), times=30)
    await harness.run(120)
    assert harness.consistent(2)


async def test_silent_host_keeps_its_vms() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    before = harness.domains()
    harness.hypervisor.disconnect("host-b")
    await harness.run(60)
    assert harness.domains() == before
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["HostsReachable"]
    assert condition["status"] == "False"
    assert "host-b" in condition["message"]


async def test_a_host_that_hesitates_is_not_called_unreachable_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0.01)
    harness = OperatorHarness()
    await harness.run(60)
    gate, real = asyncio.Event(), harness.hypervisor.inventory

    async def hesitates(host: HostRef) -> Inventory:
        await gate.wait()
        return await real(host)

    harness.hypervisor.inventory = hesitates  # type: ignore[method-assign]
    await harness.tick()
    assert reachable(harness) == "True"
    await harness.run(15)
    assert reachable(harness) == "False"
    gate.set()
    await harness.run(15)
    assert reachable(harness) == "True"
    assert harness.consistent(2)


def reachable(harness: OperatorHarness) -> str:
    """Status of the condition HostsReachable."""
    return {it["type"]: it for it in harness.body()["status"]["conditions"]}["HostsReachable"]["status"]


async def test_the_next_vm_avoids_an_impaired_bond_and_says_so() -> None:
    harness = OperatorHarness({"scaling": {"policy": "Manual"}})
    await harness.run(60)
    reports = harness.runtime.senses.bonds
    degraded = bond(verdict="Degraded", active=1, message="bond0: eth2 has no carrier")
    reports.take(body(degraded, node="host-b", at=harness.clock.seconds), harness.clock.seconds, harness.clock.seconds)
    reports.take(body(node="host-c", at=harness.clock.seconds), harness.clock.seconds, harness.clock.seconds)
    harness.change(replicas=3)
    await harness.run(40)
    hosts = [vm["spec"]["host"] for vm in harness.vms()]
    assert sorted(hosts) == ["host-b", "host-c", "host-c"]
    newest = harness.vms()[-1]
    assert newest["spec"]["placement"] == "host-c; not host-b: its bond is Degraded"
    status = harness.body()["status"]
    assert status["bondSummary"] == "1/2"
    assert status["placement"]["reason"] == "BetterBond"
    (condition,) = (it for it in status["conditions"] if it["type"] == "BondsHealthy")
    assert (condition["status"], condition["message"]) == ("False", "host-b: bond0: eth2 has no carrier")
    assert ("LubanCluster", "BondDegraded") in {(it.kind, it.reason) for it in harness.api.events(NAMESPACE)}


async def test_bond_events_on_transitions_of_each_host() -> None:
    harness = OperatorHarness({"scaling": {"policy": "Manual"}})
    await harness.run(60)

    async def becomes(host: str, verdict: str) -> list[str]:
        """Reasons of the events that follow."""
        before, now = len(harness.api.event_log), harness.clock.seconds
        harness.runtime.senses.bonds.take(body(bond(verdict=verdict), node=host, at=now), now, now)
        await harness.run(20)
        return [it.reason for it in harness.api.event_log[before:]]

    assert await becomes("host-b", "Healthy") == [], "good news at the beginning is no news"
    assert await becomes("host-c", "Flapping") == ["BondFlapping"]
    assert await becomes("host-b", "Down") == ["BondDown"]
    assert await becomes("host-b", "Down") == []
    assert await becomes("host-b", "Unknown") == ["BondUnknown"], "nobody says that it is well again"
    assert await becomes("host-b", "Healthy") == ["BondHealthy"]
    assert await becomes("host-c", "Healthy") == ["BondHealthy"]


async def test_a_flapping_port_does_not_write_the_clusters_status_again_and_again() -> None:
    harness = OperatorHarness({"scaling": {"policy": "Manual"}})
    await harness.run(60)
    reports, writes, begun = harness.runtime.senses.bonds, [], harness.clock.seconds
    real = harness.api.patch_cluster_status

    async def counted(*arguments: Any, **options: Any) -> str:
        writes.append(harness.clock.seconds)
        return await real(*arguments, **options)

    harness.api.patch_cluster_status = counted  # type: ignore[method-assign]
    for number in range(30):
        told = bond(verdict="Flapping", message=f"eth1: went {number} times in 60 s")
        news = reports.take(
            body(told, node="host-b", at=harness.clock.seconds), harness.clock.seconds, harness.clock.seconds
        )
        assert news == (number == 0), "a counter is no news"
        await harness.run(1)
    assert len(writes) <= 1 + (harness.clock.seconds - begun) / VOLATILE_SECONDS


async def test_replicas_that_do_not_count_are_named() -> None:
    harness = OperatorHarness({"scaling": {"policy": "Sessions"}})
    await harness.run(30)
    harness.change(replicas=5)
    await harness.run(10)
    (condition,) = (it for it in harness.body()["status"]["conditions"] if it["type"] == "SpecValid")
    assert (condition["status"], condition["reason"]) == ("True", "ReplicasIgnored")
    assert "counts only with scaling.policy Manual" in condition["message"]
    assert len(harness.vms()) == 2


async def test_a_bad_spec_leaves_the_last_good_one_in_force() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.runtime.update({**harness.body(), "spec": {"hosts": []}})
    await harness.run(10)
    conditions = {it["type"]: it for it in harness.body()["status"]["conditions"]}
    assert conditions["SpecValid"]["status"] == "False"
    assert "last good spec" in conditions["SpecValid"]["message"]
    assert harness.consistent(2)


@pytest.mark.parametrize("policy", ["Delete", "Orphan"])
async def test_deletion(policy: str) -> None:
    harness = OperatorHarness({"deletionPolicy": policy})
    await harness.run(60)
    harness.api.remove("LubanCluster", NAMESPACE, "luban")
    harness.runtime.update(harness.body())
    await harness.run(120)
    assert harness.runtime.finished
    if policy == "Delete":
        assert harness.consistent(0)
        assert harness.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0)) is None
    else:
        assert len(harness.domains()) == 2
        assert all(not vm["metadata"].get("finalizers") for vm in harness.vms())
        kept = harness.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
        assert kept is not None
        assert not kept["metadata"].get("ownerReferences")


async def test_a_config_map_in_the_way_is_a_condition() -> None:
    harness = OperatorHarness()
    foreign = PermanentError("ForeignConfigMap", "ConfigMap luban-balancer-0 is not ours: rename it")
    harness.api.fail_next("apply_config_map", foreign, times=1000)
    await harness.run(20)
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["BalancersReady"]
    assert (condition["status"], condition["reason"]) == ("False", "ForeignConfigMap")


async def test_a_creation_that_is_refused_is_a_condition_until_it_is_not() -> None:
    harness = OperatorHarness()
    harness.api.fail_next("create_vm", PermanentError("Forbidden", "may not create lubanvms: grant it"), times=6)
    await harness.run(2)
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["VMsHealthy"]
    assert (condition["status"], condition["reason"]) == ("False", "Forbidden")
    await harness.run(120)
    assert harness.consistent(2)
    assert {it["type"]: it["status"] for it in harness.body()["status"]["conditions"]}["VMsHealthy"] == "True"


async def test_a_slow_probe_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "PROBE_PATIENCE_SECONDS", 0.01)
    harness = OperatorHarness()
    await harness.run(60)
    real, gate = harness.probes.ready, asyncio.Event()

    async def slow(address: str, port: int, path: str, timeout: float) -> bool:
        if address == "127.0.17.2":
            await gate.wait()
        return await real(address, port, path, timeout)

    harness.probes.ready = slow  # type: ignore[method-assign]
    harness.change(replicas=3)
    await harness.run(30)
    assert harness.consistent(3)
    gate.set()


async def test_events_only_on_transitions() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    seen = len(harness.api.event_log)
    await harness.run(120)
    assert len(harness.api.event_log) == seen


def _die_at(harness: OperatorHarness, call: int) -> None:
    """Have the n-th write from now on be carried out, and the operator die before it learns of it."""
    count = 0

    def wrap(port: Any, name: str) -> None:
        real = getattr(port, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if harness.dead:
                raise Killed
            result = await real(*args, **kwargs)
            count += 1
            if count == call:
                harness.dead = True
                raise Killed
            return result

        setattr(port, name, wrapped)

    for name in (
        "create_vm",
        "delete_vm",
        "patch_vm_status",
        "release_vm",
        "apply_config_map",
        "disown_config_map",
        "patch_cluster_status",
    ):
        wrap(harness.api, name)
    for name in ("ensure_running", "shutdown", "destroy", "remove"):
        wrap(harness.hypervisor, name)


async def _story_with_death(call: int, target: int) -> bool:
    """Scale to `target`, die after write `call`, be replaced; returns whether there was such a write."""
    harness = OperatorHarness({"replicas": 2})
    await harness.run(60)
    assert harness.consistent(2)
    _die_at(harness, call)
    harness.change(replicas=target)
    await harness.run(60)
    died = harness.dead
    harness.dead = False
    harness.new_operator()
    await harness.run(180)
    assert harness.consistent(max(2, target))
    return died


@pytest.mark.parametrize("target", [3, 4])
async def test_killed_at_any_write_of_a_scale_up(target: int) -> None:
    """Whatever write the operator dies after, its successor reaches the same end state."""
    deaths = [await _story_with_death(call, target) for call in range(1, 15)]
    assert sum(deaths) >= 9


async def test_killed_at_any_write_of_a_scale_down() -> None:
    """From three to two; the same."""
    deaths = 0
    for call in range(1, 12):
        harness = OperatorHarness({"replicas": 3})
        await harness.run(60)
        _die_at(harness, call)
        harness.change(replicas=2)
        await harness.run(60)
        deaths += harness.dead
        harness.dead = False
        harness.new_operator()
        await harness.run(180)
        assert harness.consistent(2)
    assert deaths >= 7


@pytest.mark.parametrize("call", range(1, 6))
async def test_a_scaling_is_not_taken_back(call: int) -> None:
    """Policy Sessions, killed right after the decision: the successor wants the same number and makes no second VM."""
    scaling = {"policy": "Sessions", "minVMs": 2, "maxVMs": 6, "interval": "15s"}
    harness = OperatorHarness({"scaling": scaling})
    await harness.run(60)
    for vm in harness.vms():
        harness.balancer.in_flight[vm["metadata"]["name"]] = 80
    _die_at(harness, call)
    await harness.run(20)
    harness.dead = False
    harness.new_operator()
    await harness.run(20)
    assert len(harness.vms()) == 3
    assert not any("deletionTimestamp" in vm["metadata"] for vm in harness.vms())


async def test_permanent_failure_is_replaced_elsewhere() -> None:
    harness = OperatorHarness({"replicas": 2})
    full = PermanentError("StoragePoolFull", "pool default on host-b has 12 MiB left: free some")
    harness.hypervisor.host("host-b").failures.append(full)
    await harness.run(30)
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["VMsHealthy"]
    assert condition["reason"] == "StoragePoolFull"
    await harness.run(200)
    assert harness.consistent(2)
    assert {vm["spec"]["host"] for vm in harness.vms()} == {"host-c"}
    await harness.run(400)
    assert harness.consistent(2)
    assert {vm["spec"]["host"] for vm in harness.vms()} == {"host-b", "host-c"}, "host-b is tried again after a while"


async def test_a_balancer_that_nobody_deployed_is_told_with_the_remedy() -> None:
    harness = OperatorHarness()
    harness.api.remove("Lease", NAMESPACE, names.balancer_name("luban", 0))
    await harness.run(10)
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["BalancersReady"]
    assert condition["message"] == (
        "luban-balancer-0: its agent has not reported yet: start the operator with --balancer-image, or run "
        f"`luban balancer-agent --cluster luban --namespace {NAMESPACE} --index 0`"
    )
