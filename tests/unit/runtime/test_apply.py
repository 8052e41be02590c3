"""Actions that fail: one bad VM or member stops no other, what failed is told once, and is tried with patience."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from luban.api import names
from luban.core.model import ClusterRef, Machine
from luban.errors import Conflict, PermanentError, TemporaryError
from luban.ports import HostRef
from luban.runtime import apply
from tests.fakes.cluster import RecordedEvent
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness

MANUAL = {"scaling": {"policy": "Manual", "minVMs": 2, "maxVMs": 6}, "replicas": 3}


def members(harness: OperatorHarness) -> dict[str, str]:
    """State by member, as published."""
    found = harness.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
    assert found is not None
    return {it["name"]: it["state"] for it in json.loads(found["data"]["balancer.json"])["members"]}


def condition(harness: OperatorHarness, kind: str) -> dict[str, Any]:
    return {it["type"]: it for it in harness.body()["status"]["conditions"]}[kind]


def events(harness: OperatorHarness, reason: str) -> list[RecordedEvent]:
    return [it for it in harness.api.events(NAMESPACE) if it.reason == reason]


def metric(harness: OperatorHarness, start: str) -> list[str]:
    """Samples that begin so."""
    return [
        it for it in generate_latest(harness.runtime.metrics.registry).decode().splitlines() if it.startswith(start)
    ]


async def settled(count: int = 3) -> OperatorHarness:
    harness = OperatorHarness(MANUAL | {"replicas": count})
    await harness.run(90)
    assert harness.consistent(count)
    harness.api.calls.clear()
    return harness


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "fe80::1%eth0", "evil"])
async def test_one_bad_member_is_left_out_and_the_others_go_on(address: str) -> None:
    harness = await settled()
    bad, dead, good = (vm["metadata"] for vm in harness.vms())
    for host in harness.hypervisor.hosts.values():
        if bad["uid"] in host.domains:
            host.domains[bad["uid"]].planned_address = address
    await harness.run(10)
    assert bad["name"] not in members(harness)
    found = condition(harness, "BalancersReady")
    assert (found["status"], found["reason"]) == ("False", "MemberRefused")
    assert bad["name"] in found["message"]
    await harness.run(60)
    harness.hypervisor.power_off(dead["uid"])
    await harness.run(2)
    assert members(harness).get(dead["name"]) != "Enabled", "what the others need does not wait for the bad one"
    assert members(harness)[good["name"]] == "Enabled"


async def test_a_bad_member_is_not_written_in_every_tick() -> None:
    harness = await settled()
    bad = harness.vms()[0]["metadata"]
    for host in harness.hypervisor.hosts.values():
        if bad["uid"] in host.domains:
            host.domains[bad["uid"]].planned_address = "0.0.0.0"
    await harness.run(300)
    assert harness.api.calls["apply_config_map"] < 25
    assert max(it.times for it in events(harness, "MemberRefused")) > 1


async def test_a_fault_of_our_own_stops_one_vm_alone() -> None:
    harness = OperatorHarness(MANUAL)
    real = harness.hypervisor.ensure_running
    first: list[str] = []

    async def broken(host: HostRef, machine: Machine) -> None:
        if machine.uuid in first or not first:
            first.append(machine.uuid)
            raise ZeroDivisionError("of ours")
        await real(host, machine)

    harness.hypervisor.ensure_running = broken  # type: ignore[method-assign]
    with capture_logs() as logs:
        await harness.run(60)
    assert sum(vm["status"]["phase"] == "Ready" for vm in harness.vms()) == 2
    found = condition(harness, "VMsHealthy")
    assert (found["status"], found["reason"]) == ("False", "InternalError")
    assert "ZeroDivisionError" in found["message"]
    assert any(line.get("exc_info") and line["cluster"] == "default/luban" for line in logs)
    with capture_logs():
        await harness.run(200)
    assert len(first) <= 12, "tried with patience"
    assert "LubanVM" in {it.kind for it in events(harness, "InternalError")}


async def test_a_render_that_fails_is_a_failure_of_that_vm_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = OperatorHarness(MANUAL)

    def refuses(*_: Any) -> Any:
        raise ValueError("a label key that is none")

    with monkeypatch.context() as patch:
        patch.setattr("luban.runtime.carry_out.vm_body", refuses)
        await harness.run(5)
        assert "label key" in str(harness.runtime.applier.action_failures["creation"].message)
        assert members(harness) == {}
    await harness.run(120)
    assert harness.consistent(3)


async def test_events_and_metrics_are_of_what_was_done() -> None:
    harness = await settled(2)
    harness.api.fail_next("patch_vm_status", TemporaryError("Busy", "try again"), times=5)
    harness.api.event_log.clear()
    harness.change(replicas=3)
    await harness.run(2)
    assert events(harness, "Placed") == [], "it was not done"
    await harness.run(120)
    assert [it.times for it in events(harness, "Placed")] == [1]
    (failed,) = events(harness, "Busy")
    assert (failed.kind, failed.type, failed.message) == ("LubanVM", "Warning", "UpdateVM: try again")
    assert failed.times >= 2
    assert [it[-3:] for it in metric(harness, "luban_vm_phase_transition_seconds_count") if "Provisioning" in it] == [
        "3.0"
    ]
    (count,) = metric(harness, "luban_action_failures_total{")
    assert 'action="UpdateVM"' in count
    assert count.endswith(" 5.0")


async def test_what_fails_is_one_event_with_a_count_however_its_words_change() -> None:
    harness = OperatorHarness(MANUAL)
    left = iter(range(10**6, 0, -1))

    async def full(*_: Any) -> None:
        raise TemporaryError("StoragePoolBusy", f"{next(left)} bytes left")

    harness.hypervisor.ensure_running = full  # type: ignore[method-assign]
    await harness.run(250)
    told = events(harness, "StoragePoolBusy")
    assert len({it.uid for it in told}) == len(told), "one for each VM"
    assert any(it.times > 1 for it in told)


async def test_a_name_that_is_taken_is_not_counted_as_a_vm() -> None:
    harness = await settled(2)
    harness.api.fail_next("create_vm", Conflict("AlreadyExists", "the name is taken"))
    harness.change(replicas=3)
    with capture_logs() as logs:
        await harness.run(60)
    assert harness.consistent(3)
    (count,) = metric(harness, 'luban_actions_total{action="CreateVM"')
    assert count.endswith(" 3.0")
    assert sum(it["event"] == "action done" and it["action"] == "CreateVM" for it in logs) == 1
    assert any(it["event"] == "action left off" and "the name is taken" in it["why"] for it in logs)


@pytest.mark.parametrize("uri", ["qemu+tls://payroll-host/system", "qemu+tls://host-b.evil/system"])
@pytest.mark.parametrize("host", ["payroll", "host-b"])
async def test_nothing_is_started_on_a_host_that_the_spec_does_not_name(host: str, uri: str) -> None:
    harness = await settled()
    started: list[HostRef] = []
    real = harness.hypervisor.ensure_running

    async def ensure(where: HostRef, machine: Machine) -> None:
        started.append(where)
        await real(where, machine)

    harness.hypervisor.ensure_running = ensure  # type: ignore[method-assign]
    model = harness.vms()[0]
    harness.api.create(
        {
            **{key: model[key] for key in ("apiVersion", "kind")},
            "metadata": {**model["metadata"], "name": "luban-mine", "resourceVersion": ""},
            "spec": {**model["spec"], "host": host, "hostURI": uri, "address": "127.0.17.99"},
        }
    )
    harness.change(replicas=4)
    await harness.run(30)
    assert uri not in {it.uri for it in started}
    status = harness.api.find("LubanVM", NAMESPACE, "luban-mine")
    assert status is None or status["status"]["reason"] == "HostNotInSpec"


async def test_a_host_that_left_the_spec_is_still_cleaned_up() -> None:
    harness = await settled()
    hosts = harness.body()["spec"]["hosts"]
    harness.change(hosts=[{**hosts[0], "vms": {"min": 1, "max": 6}}])
    await harness.run(300)
    assert harness.consistent(3)
    assert not harness.hypervisor.hosts["host-c"].domains


async def test_a_config_map_in_the_way_is_written_soon_after_it_is_gone() -> None:
    harness = OperatorHarness(MANUAL)
    foreign = PermanentError("ForeignConfigMap", "ConfigMap luban-balancer-0 is not ours: rename it")
    harness.api.fail_next("apply_config_map", foreign, times=10**6)
    await harness.run(600)
    assert harness.api.calls["apply_config_map"] < 40
    harness.api._failures.clear()
    await harness.run(60)
    assert len(members(harness)) == 3


async def test_vms_that_are_still_being_made_are_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow API server: the next plans do not see them, and would make others under new names."""
    monkeypatch.setattr(apply, "PATIENCE_SECONDS", 0.01)
    harness = await settled(2)
    gate, real = asyncio.Event(), harness.api.create_vm

    async def slow(*arguments: Any) -> dict[str, Any]:
        await gate.wait()
        return await real(*arguments)

    harness.api.create_vm = slow  # type: ignore[method-assign]
    harness.change(replicas=4)
    for _ in range(5):
        await harness.runtime.tick()
        harness.clock.seconds += 1.0
    assert len(harness.vms()) == 2
    looked = harness.api.list_vms

    async def late(ref: ClusterRef, **how: bool) -> list[dict[str, Any]]:
        """They are made just after the look at what there is."""
        seen = await looked(ref, **how)
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        return seen

    harness.api.list_vms = late  # type: ignore[method-assign]
    await harness.runtime.tick()
    assert len(harness.vms()) == 4
    await harness.run(60)
    assert harness.consistent(4)


async def test_hundreds_of_new_vms_leave_room_for_what_others_and_the_balancer_write() -> None:
    hosts = [{"name": "host-b", "uri": "qemu+tls://host-b/system", "vms": {"min": 0, "max": 250}}]
    bridge = {"image": {"volume": "luban-web.qcow2"}, "network": {"type": "Bridge", "source": "br0"}}
    scaling = {"policy": "Manual", "minVMs": 1, "maxVMs": 250}
    harness = OperatorHarness({"hosts": hosts, "template": {"spec": bridge}, "scaling": scaling, "replicas": 200})
    create, under_way, most = harness.api.create_vm, 0, 0
    published = asyncio.Event()
    apply_config_map = harness.api.apply_config_map

    async def slow(cluster: ClusterRef, body: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        # None of them is done before the balancer was told what it needs.
        await published.wait()
        under_way -= 1
        return await create(cluster, body)

    async def publish(*arguments: Any) -> None:
        await apply_config_map(*arguments)
        published.set()

    harness.api.create_vm = slow  # type: ignore[method-assign]
    harness.api.apply_config_map = publish  # type: ignore[method-assign]
    await harness.tick()
    assert len(harness.vms()) == 200
    assert most == apply.OBJECTS_AT_ONCE
