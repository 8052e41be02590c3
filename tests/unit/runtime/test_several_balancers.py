"""A cluster behind several balancers, through the whole runtime."""

from __future__ import annotations

import json
from typing import Any

from luban.api import names
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness, lease_body

FIRST, SECOND, THIRD = (names.balancer_name("luban", index) for index in range(3))
CROSS = {"replicas": {"min": 1, "max": 3}, "attachment": {"mode": "Cross", "p": 2, "dMax": 20}}
SCALING = {
    "policy": "Manual",
    "minVMs": 2,
    "maxVMs": 6,
    "interval": "5s",
    "behavior": {"scaleDown": {"stabilizationWindow": "20s"}},
}


def harness_with(**balancer: Any) -> OperatorHarness:
    """Agents of three balancers are there."""
    harness = OperatorHarness({"balancer": balancer, "scaling": SCALING})
    for index in (1, 2):
        harness.api.create(lease_body(index=index))
    return harness


def members(harness: OperatorHarness, balancer: str) -> dict[str, str] | None:
    """What a balancer is told: how to treat whom. None: it has no ConfigMap."""
    found = harness.api.find("ConfigMap", NAMESPACE, balancer)
    if found is None:
        return None
    content = json.loads(found["data"]["balancer.json"])
    return {member["name"]: member["state"] for member in content["members"]}


async def test_each_vm_has_two_balancers_and_says_so() -> None:
    harness = harness_with(**CROSS)
    await harness.run(40)
    everybody = {vm["metadata"]["name"]: "Enabled" for vm in harness.vms()}
    assert members(harness, FIRST) == members(harness, SECOND) == everybody
    assert members(harness, THIRD) is None, "nobody needs it"
    assert [vm["status"]["balancers"] for vm in harness.vms()] == [[FIRST, SECOND]] * 2
    status = harness.body()["status"]
    assert status["tier"]["desired"] == 2
    assert status["tier"]["reason"] == "BalancersPerVM"
    assert status["balancerSummary"] == "2/2"
    assert [it["name"] for it in status["balancers"]] == [FIRST, SECOND]


async def test_the_tier_outlives_the_operator_and_shrinks_when_asked_to() -> None:
    harness = harness_with(**CROSS)
    await harness.run(40)
    harness.new_operator()
    await harness.run(10)
    assert members(harness, SECOND)
    harness.change(balancer={})
    harness.balancer.gone.add(SECOND)
    await harness.run(40)
    assert members(harness, SECOND) is None
    status = harness.body()["status"]
    assert "tier" not in status
    assert [it["name"] for it in status["balancers"]] == [FIRST]


async def test_one_that_is_silent_is_named_and_another_one_stands_in() -> None:
    harness = harness_with(**CROSS)
    await harness.run(40)
    harness.balancer.gone.add(FIRST)
    await harness.run(40)
    status = harness.body()["status"]
    assert status["tier"]["desired"] == 3
    assert [vm["status"]["balancers"] for vm in harness.vms()] == [[SECOND, THIRD]] * 2
    condition = next(it for it in status["conditions"] if it["type"] == "BalancersReady")
    assert condition["status"] == "False"
    assert FIRST in condition["message"]
    assert SECOND not in condition["message"]


async def test_metrics_say_who_has_how_many() -> None:
    harness = harness_with(**CROSS)
    await harness.run(40)
    read = harness.runtime.metrics.registry.get_sample_value
    labels = {"namespace": NAMESPACE, "cluster": "luban"}
    assert read("luban_balancer_attached_vms", {**labels, "balancer": SECOND}) == 2
    assert read("luban_cluster_balancers", {**labels, "state": "ready"}) == 2
    assert read("luban_cluster_attachment_violations", {**labels, "invariant": "TooFewBalancers"}) == 0


async def test_deletion_removes_all_their_config_maps_and_leases() -> None:
    harness = harness_with(**CROSS)
    label = {"labels": {names.LABEL_CLUSTER: "luban"}}
    for name in (FIRST, SECOND):
        harness.api.change("Lease", NAMESPACE, name, lambda it: it["metadata"].update(label))
    await harness.run(40)
    harness.api.change(
        "LubanCluster", NAMESPACE, "luban", lambda it: it["metadata"].update(deletionTimestamp="2027-01-15T08:00:00Z")
    )
    harness.runtime.update(harness.body())
    await harness.run(120)
    assert harness.runtime.finished
    for name in (FIRST, SECOND):
        assert members(harness, name) is None
        assert harness.api.find("Lease", NAMESPACE, name) is None


async def test_orphans_keep_all_their_config_maps() -> None:
    harness = harness_with(**CROSS)
    await harness.run(40)
    harness.change(deletionPolicy="Orphan")
    harness.api.change(
        "LubanCluster", NAMESPACE, "luban", lambda it: it["metadata"].update(deletionTimestamp="2027-01-15T08:00:00Z")
    )
    harness.runtime.update(harness.body())
    await harness.run(60)
    for name in (FIRST, SECOND):
        found = harness.api.find("ConfigMap", NAMESPACE, name)
        assert found is not None
        assert not found["metadata"].get("ownerReferences")
