"""deletionPolicy Orphan, then the same manifest again: what serves goes on serving."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from luban.api import names
from luban.errors import PermanentError
from luban.ports import HostRef, Inventory
from luban.senses import hosts
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness, cluster_body

ORPHAN = {"deletionPolicy": "Orphan"}


def enabled(harness: OperatorHarness) -> set[str]:
    """Members that take requests, as published."""
    found = harness.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
    assert found is not None
    return {it["name"] for it in json.loads(found["data"]["balancer.json"])["members"] if it["state"] == "Enabled"}


async def orphaned() -> tuple[OperatorHarness, dict[str, str]]:
    """A cluster was deleted and left two VMs running: uid by name."""
    harness = OperatorHarness(ORPHAN)
    await harness.run(60)
    left = {vm["metadata"]["name"]: vm["metadata"]["uid"] for vm in harness.vms()}
    harness.api.remove("LubanCluster", NAMESPACE, "luban")
    harness.runtime.update(harness.body())
    await harness.run(30)
    assert harness.runtime.finished
    harness.api.change("LubanCluster", NAMESPACE, "luban", lambda body: body["metadata"].update(finalizers=[]))
    assert enabled(harness) == left.keys()
    return harness, left


def apply_again(harness: OperatorHarness, **spec: Any) -> None:
    """kubectl apply."""
    harness.api.create(cluster_body({**ORPHAN, **spec}))
    harness.new_operator()


async def test_the_same_manifest_again_takes_over_what_serves() -> None:
    harness, left = await orphaned()
    apply_again(harness)
    for _ in range(60):
        await harness.tick()
        assert enabled(harness) == left.keys(), "not one of them missing for a moment"
    assert harness.domains() == set(left.values())
    assert harness.consistent(2)
    uid = harness.body()["metadata"]["uid"]
    assert all(vm["metadata"]["ownerReferences"][0]["uid"] == uid for vm in harness.vms())
    assert harness.body()["status"]["summary"] == "2/2"


async def test_what_was_adopted_can_be_deleted() -> None:
    harness, _ = await orphaned()
    apply_again(harness, deletionPolicy="Delete")
    await harness.run(30)
    harness.api.remove("LubanCluster", NAMESPACE, "luban")
    harness.runtime.update(harness.body())
    await harness.run(120)
    assert harness.runtime.finished
    assert harness.consistent(0)


async def test_what_was_adopted_is_replaced_when_it_dies_and_goes_when_it_is_too_many() -> None:
    harness, left = await orphaned()
    apply_again(harness)
    await harness.run(30)
    first, other = left.values()
    harness.hypervisor.power_off(first)
    await harness.run(60)
    assert harness.consistent(2)
    assert other in harness.domains()
    assert first not in harness.domains()
    harness.change(replicas=3)
    await harness.run(60)
    assert harness.consistent(3)


@pytest.mark.parametrize(
    "change",
    [
        {"template": {"spec": {"image": {"volume": "luban-web.qcow2"}, "network": {"type": "User"}, "port": 8081}}},
        {
            "hosts": [
                {"name": name, "uri": f"qemu+tls://{name}/system", "vms": {"min": 1, "max": 3}, "forwardRange": net}
                for name, net in (("host-d", "127.0.19.0/24"), ("host-e", "127.0.20.0/24"))
            ]
        },
        {
            "hosts": [
                {"name": name, "uri": f"qemu+tls://{name}.new/system", "vms": {"min": 1, "max": 3}, "forwardRange": net}
                for name, net in (("host-b", "127.0.19.0/24"), ("host-c", "127.0.20.0/24"))
            ]
        },
    ],
    ids=["template", "hosts", "uris"],
)
async def test_what_would_be_made_otherwise_now_serves_until_others_do_and_lives_on(change: dict[str, Any]) -> None:
    harness, left = await orphaned()
    apply_again(harness, **change)
    await harness.tick()
    assert enabled(harness) == left.keys()
    for _ in range(100):
        await harness.tick()
        assert enabled(harness)
    assert not enabled(harness) & left.keys()
    assert set(left.values()) <= harness.domains(), "nobody asked for their end"
    assert all(not vm["metadata"]["ownerReferences"] for vm in harness.vms() if vm["metadata"]["name"] in left)


async def test_a_paused_cluster_adopts_nothing() -> None:
    harness, _ = await orphaned()
    apply_again(harness, paused=True)
    await harness.run(30)
    assert harness.api.calls["adopt_vm"] == 0


async def test_one_that_cannot_be_had_holds_up_no_cluster() -> None:
    harness, left = await orphaned()
    apply_again(harness)
    harness.api.fail_next("adopt_vm", PermanentError("Forbidden", "grant it"), times=10**6)
    await harness.run(600)
    assert harness.api.calls["adopt_vm"] <= 20
    conditions = {it["type"]: it["status"] for it in harness.body()["status"]["conditions"]}
    assert (conditions["Reconciled"], conditions["Ready"]) == ("True", "True")
    assert set(left.values()) < harness.domains()


@pytest.mark.parametrize("slow_call", [1, 2], ids=["asked-before", "seen-before"])
async def test_a_picture_from_before_loses_nobody(slow_call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that answers slowly just then: what it said before knows nothing of what was adopted."""
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0.01)
    harness, left = await orphaned()
    apply_again(harness)
    held, answer = asyncio.Event(), harness.hypervisor.inventory
    asked: Counter[str] = Counter()

    async def slow(host: HostRef) -> Inventory:
        asked[host.name] += 1
        if asked[host.name] != slow_call:
            return await answer(host)
        before = await answer(host)
        await held.wait()
        return before

    harness.hypervisor.inventory = slow  # type: ignore[method-assign]
    await harness.tick()
    assert enabled(harness) == left.keys()
    assert {vm["status"]["phase"] for vm in harness.vms()} == {"Ready"}
    held.set()
    await harness.run(30)
    assert enabled(harness) == left.keys()
    assert harness.domains() == set(left.values())
