"""observe -> plan -> apply -> report on fakes and a virtual clock: whole stories, no waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from luban.api import names
from luban.core.model import ClusterRef, DomainRecord
from luban.errors import PermanentError, TemporaryError
from luban.ports import HostRef
from luban.runtime import observe
from luban.runtime.status import VOLATILE_SECONDS
from tests.fakes.hosts import body, bond
from tests.fakes.operator_harness import NAMESPACE, Killed, Site


async def test_two_vms_come_up_one_on_each_host() -> None:
    site = Site()
    await site.run(60)
    assert site.consistent(2)
    assert {vm["spec"]["host"] for vm in site.vms()} == {"host-b", "host-c"}
    status = site.body()["status"]
    assert (status["phase"], status["summary"], status["balancerSummary"]) == ("Ready", "2/2", "1/1")
    assert {it["type"]: it["status"] for it in status["conditions"]}["Ready"] == "True"


async def test_a_steady_cluster_writes_nothing() -> None:
    site = Site()
    await site.run(60)
    site.api.calls.clear()
    await site.run(300)
    writes = {
        name: count for name, count in site.api.calls.items() if not name.startswith(("list", "read", "balancer"))
    }
    assert writes == {}


async def test_at_most_two_status_writes_per_transition() -> None:
    site = Site()
    await site.run(60)
    site.api.calls.clear()
    site.change(replicas=3)
    await site.run(60)
    assert site.consistent(3)
    newest = max(site.vms(), key=lambda vm: vm["metadata"]["creationTimestamp"])
    assert site.api.calls["patch_vm_status"] <= 2 * len(newest["status"]["transitions"])


async def test_scale_down_drains_before_the_power_button() -> None:
    site = Site({"replicas": 3})
    await site.run(60)
    assert site.consistent(3)
    for vm in site.vms():
        site.balancer.in_flight[vm["metadata"]["name"]] = 4
    site.change(replicas=2)
    await site.run(20)
    leaving = [vm for vm in site.vms() if "deletionTimestamp" in vm["metadata"]]
    assert [vm["status"]["phase"] for vm in leaving] == ["Draining"]
    assert not any(call == "shutdown" for host in site.hypervisor.hosts.values() for call, _ in host.calls)
    site.balancer.in_flight.clear()
    await site.run(30)
    assert site.consistent(2)


async def test_a_dead_vm_is_replaced_and_leaves_the_balancer() -> None:
    site = Site()
    await site.run(60)
    dead = site.vms()[0]
    site.hypervisor.power_off(dead["metadata"]["uid"], "Crashed")
    await site.tick()
    published = site.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
    assert published is not None
    assert dead["metadata"]["name"] not in published["data"]["balancer.json"]
    await site.run(60)
    assert site.consistent(2)
    assert "DomainStopped" in {event.reason for event in site.api.events(NAMESPACE)}


async def test_missing_image_is_a_condition_and_leaves_nothing() -> None:
    site = Site({"template": {"spec": {"image": {"volume": "none.qcow2"}, "network": {"type": "User"}}}})
    await site.run(20)
    condition = {it["type"]: it for it in site.body()["status"]["conditions"]}["VMsHealthy"]
    assert (condition["status"], condition["reason"]) == ("False", "ImageNotFound")
    assert "none.qcow2" in condition["message"]
    assert site.domains() == set()
    assert site.overlays() == set()


async def test_missing_secret_names_the_secret() -> None:
    cloud_init = {"userDataSecretRef": {"name": "absent"}}
    template = {"spec": {"image": {"volume": "luban-web.qcow2"}, "network": {"type": "User"}, "cloudInit": cloud_init}}
    site = Site({"template": template})
    await site.run(20)
    condition = {it["type"]: it for it in site.body()["status"]["conditions"]}["VMsHealthy"]
    assert condition["reason"] == "SecretNotFound"
    assert "absent" in condition["message"]


async def test_temporary_failure_is_tried_again() -> None:
    site = Site()
    site.hypervisor.host("host-b").failures.append(TemporaryError("Busy", "try again"))
    await site.run(60)
    assert site.consistent(2)


async def test_api_server_away_for_a_while() -> None:
    site = Site()
    await site.run(60)
    site.api.fail_next("*", TemporaryError("Unavailable", "connection refused"), times=30)
    await site.run(120)
    assert site.consistent(2)


async def test_silent_host_keeps_its_vms() -> None:
    site = Site()
    await site.run(60)
    before = site.domains()
    site.hypervisor.disconnect("host-b")
    await site.run(60)
    assert site.domains() == before
    condition = {it["type"]: it for it in site.body()["status"]["conditions"]}["HostsReachable"]
    assert condition["status"] == "False"
    assert "host-b" in condition["message"]


async def test_a_host_that_hesitates_is_not_called_unreachable_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "HOST_PATIENCE_SECONDS", 0.01)
    site = Site()
    await site.run(60)
    gate, real = asyncio.Event(), site.hypervisor.list_domains

    async def hesitates(host: HostRef, cluster: ClusterRef) -> dict[str, DomainRecord]:
        await gate.wait()
        return await real(host, cluster)

    site.hypervisor.list_domains = hesitates  # type: ignore[method-assign]
    await site.tick()
    assert reachable(site) == "True"
    await site.run(15)
    assert reachable(site) == "False"
    gate.set()
    await site.run(15)
    assert reachable(site) == "True"
    assert site.consistent(2)


def reachable(site: Site) -> str:
    """Status of the condition HostsReachable."""
    return {it["type"]: it for it in site.body()["status"]["conditions"]}["HostsReachable"]["status"]


async def test_the_next_vm_avoids_an_impaired_bond_and_says_so() -> None:
    site = Site({"scaling": {"policy": "Manual"}})
    await site.run(60)
    reports = site.runtime.reports
    degraded = bond(verdict="Degraded", active=1, message="bond0: eth2 has no carrier")
    reports.take(body(degraded, node="host-b", at=site.clock.seconds), site.clock.seconds, site.clock.seconds)
    reports.take(body(node="host-c", at=site.clock.seconds), site.clock.seconds, site.clock.seconds)
    site.change(replicas=3)
    await site.run(40)
    hosts = [vm["spec"]["host"] for vm in site.vms()]
    assert sorted(hosts) == ["host-b", "host-c", "host-c"]
    newest = site.vms()[-1]
    assert newest["spec"]["placement"] == "host-c; not host-b: its bond is Degraded"
    status = site.body()["status"]
    assert status["bondSummary"] == "1/2"
    assert status["placement"]["reason"] == "BetterBond"
    (condition,) = (it for it in status["conditions"] if it["type"] == "BondsHealthy")
    assert (condition["status"], condition["message"]) == ("False", "host-b: bond0: eth2 has no carrier")
    assert ("LubanCluster", "BondDegraded") in {(it.kind, it.reason) for it in site.api.events(NAMESPACE)}


async def test_bond_events_on_transitions_of_each_host() -> None:
    site = Site({"scaling": {"policy": "Manual"}})
    await site.run(60)

    async def becomes(host: str, verdict: str) -> list[str]:
        """Reasons of the events that follow."""
        before, now = len(site.api.event_log), site.clock.seconds
        site.runtime.reports.take(body(bond(verdict=verdict), node=host, at=now), now, now)
        await site.run(20)
        return [it.reason for it in site.api.event_log[before:]]

    assert await becomes("host-b", "Healthy") == [], "good news at the beginning is no news"
    assert await becomes("host-c", "Flapping") == ["BondFlapping"]
    assert await becomes("host-b", "Down") == ["BondDown"]
    assert await becomes("host-b", "Down") == []
    assert await becomes("host-b", "Unknown") == ["BondUnknown"], "nobody says that it is well again"
    assert await becomes("host-b", "Healthy") == ["BondHealthy"]
    assert await becomes("host-c", "Healthy") == ["BondHealthy"]


async def test_a_flapping_port_does_not_write_the_clusters_status_again_and_again() -> None:
    site = Site({"scaling": {"policy": "Manual"}})
    await site.run(60)
    reports, writes, begun = site.runtime.reports, [], site.clock.seconds
    real = site.api.patch_cluster_status

    async def counted(*arguments: Any) -> None:
        writes.append(site.clock.seconds)
        await real(*arguments)

    site.api.patch_cluster_status = counted  # type: ignore[method-assign]
    for number in range(30):
        told = bond(verdict="Flapping", message=f"eth1: went {number} times in 60 s")
        news = reports.take(body(told, node="host-b", at=site.clock.seconds), site.clock.seconds, site.clock.seconds)
        assert news == (number == 0), "a counter is no news"
        await site.run(1)
    assert len(writes) <= 1 + (site.clock.seconds - begun) / VOLATILE_SECONDS


async def test_replicas_that_do_not_count_are_named() -> None:
    site = Site({"scaling": {"policy": "Sessions"}})
    await site.run(30)
    site.change(replicas=5)
    await site.run(10)
    (condition,) = (it for it in site.body()["status"]["conditions"] if it["type"] == "SpecValid")
    assert (condition["status"], condition["reason"]) == ("True", "ReplicasIgnored")
    assert "counts only with scaling.policy Manual" in condition["message"]
    assert len(site.vms()) == 2


async def test_a_bad_spec_leaves_the_last_good_one_in_force() -> None:
    site = Site()
    await site.run(60)
    site.runtime.update({**site.body(), "spec": {"hosts": []}})
    await site.run(10)
    conditions = {it["type"]: it for it in site.body()["status"]["conditions"]}
    assert conditions["SpecValid"]["status"] == "False"
    assert "last good spec" in conditions["SpecValid"]["message"]
    assert site.consistent(2)


@pytest.mark.parametrize("policy", ["Delete", "Orphan"])
async def test_deletion(policy: str) -> None:
    site = Site({"deletionPolicy": policy})
    await site.run(60)
    site.api.remove("LubanCluster", NAMESPACE, "luban")
    site.runtime.update(site.body())
    await site.run(120)
    assert site.runtime.finished
    if policy == "Delete":
        assert site.consistent(0)
        assert site.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0)) is None
    else:
        assert len(site.domains()) == 2
        assert all(not vm["metadata"].get("finalizers") for vm in site.vms())
        kept = site.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
        assert kept is not None
        assert not kept["metadata"].get("ownerReferences")


async def test_a_config_map_in_the_way_is_a_condition() -> None:
    site = Site()
    foreign = PermanentError("ForeignConfigMap", "ConfigMap luban-balancer-0 is not ours: rename it")
    site.api.fail_next("apply_config_map", foreign, times=1000)
    await site.run(20)
    condition = {it["type"]: it for it in site.body()["status"]["conditions"]}["BalancersReady"]
    assert (condition["status"], condition["reason"]) == ("False", "ForeignConfigMap")


async def test_a_creation_that_is_refused_is_a_condition_until_it_is_not() -> None:
    site = Site()
    site.api.fail_next("create_vm", PermanentError("Forbidden", "may not create lubanvms: grant it"), times=6)
    await site.run(2)
    condition = {it["type"]: it for it in site.body()["status"]["conditions"]}["VMsHealthy"]
    assert (condition["status"], condition["reason"]) == ("False", "Forbidden")
    await site.run(120)
    assert site.consistent(2)
    assert {it["type"]: it["status"] for it in site.body()["status"]["conditions"]}["VMsHealthy"] == "True"


async def test_a_slow_probe_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "PROBE_PATIENCE_SECONDS", 0.01)
    site = Site()
    await site.run(60)
    real, gate = site.probes.ready, asyncio.Event()

    async def slow(address: str, port: int, path: str, timeout: float) -> bool:
        if address == "127.0.17.2":
            await gate.wait()
        return await real(address, port, path, timeout)

    site.probes.ready = slow  # type: ignore[method-assign]
    site.change(replicas=3)
    await site.run(30)
    assert site.consistent(3)
    gate.set()


async def test_events_only_on_transitions() -> None:
    site = Site()
    await site.run(60)
    seen = len(site.api.event_log)
    await site.run(120)
    assert len(site.api.event_log) == seen


def _die_at(site: Site, call: int) -> None:
    """Have the n-th write from now on be carried out, and the operator die before it learns of it."""
    count = 0

    def wrap(port: Any, name: str) -> None:
        real = getattr(port, name)

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if site.dead:
                raise Killed
            result = await real(*args, **kwargs)
            count += 1
            if count == call:
                site.dead = True
                raise Killed
            return result

        setattr(port, name, wrapped)

    for name in ("create_vm", "delete_vm", "patch_vm_status", "release_vm", "apply_config_map", "patch_cluster_status"):
        wrap(site.api, name)
    for name in ("ensure_running", "shutdown", "destroy", "remove"):
        wrap(site.hypervisor, name)


async def _story_with_death(call: int, target: int) -> bool:
    """Scale to `target`, die after write `call`, be replaced; returns whether there was such a write."""
    site = Site({"replicas": 2})
    await site.run(60)
    assert site.consistent(2)
    _die_at(site, call)
    site.change(replicas=target)
    await site.run(60)
    died = site.dead
    site.dead = False
    site.new_operator()
    await site.run(180)
    assert site.consistent(max(2, target))
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
        site = Site({"replicas": 3})
        await site.run(60)
        _die_at(site, call)
        site.change(replicas=2)
        await site.run(60)
        deaths += site.dead
        site.dead = False
        site.new_operator()
        await site.run(180)
        assert site.consistent(2)
    assert deaths >= 7


@pytest.mark.parametrize("call", range(1, 6))
async def test_a_scaling_is_not_taken_back(call: int) -> None:
    """Policy Sessions, killed right after the decision: the successor wants the same number and makes no second VM."""
    scaling = {"policy": "Sessions", "minVMs": 2, "maxVMs": 6, "interval": "15s"}
    site = Site({"scaling": scaling})
    await site.run(60)
    for vm in site.vms():
        site.balancer.in_flight[vm["metadata"]["name"]] = 80
    _die_at(site, call)
    await site.run(20)
    site.dead = False
    site.new_operator()
    await site.run(20)
    assert len(site.vms()) == 3
    assert not any("deletionTimestamp" in vm["metadata"] for vm in site.vms())


async def test_permanent_failure_is_replaced_elsewhere() -> None:
    site = Site({"replicas": 2})
    full = PermanentError("StoragePoolFull", "pool default on host-b has 12 MiB left: free some")
    site.hypervisor.host("host-b").failures.append(full)
    await site.run(30)
    condition = {it["type"]: it for it in site.body()["status"]["conditions"]}["VMsHealthy"]
    assert condition["reason"] == "StoragePoolFull"
    await site.run(200)
    assert site.consistent(2)
    assert {vm["spec"]["host"] for vm in site.vms()} == {"host-c"}
    await site.run(400)
    assert site.consistent(2)
    assert {vm["spec"]["host"] for vm in site.vms()} == {"host-b", "host-c"}, "host-b is tried again after a while"
