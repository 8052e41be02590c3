"""A ConfigMap of the balancer's name that is not ours, or not any more: left alone, and no deletion waits for it."""

from __future__ import annotations

from typing import Any

import pytest

from luban.api import names
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness

NAME = names.balancer_name("luban", 0)


async def settled(policy: str = "Delete") -> OperatorHarness:
    harness = OperatorHarness({"deletionPolicy": policy})
    await harness.run(60)
    assert harness.consistent(2)
    return harness


def edit(harness: OperatorHarness, **metadata: Any) -> None:
    harness.api.change("ConfigMap", NAMESPACE, NAME, lambda body: body["metadata"].update(metadata))


def config_map(harness: OperatorHarness) -> dict[str, Any]:
    found = harness.api.find("ConfigMap", NAMESPACE, NAME)
    assert found is not None
    return found


async def delete(harness: OperatorHarness, seconds: float = 300.0) -> None:
    harness.api.remove("LubanCluster", NAMESPACE, "luban")
    harness.runtime.update(harness.body())
    await harness.run(seconds)


@pytest.mark.parametrize("labels", [{}, {names.LABEL_CLUSTER: "another"}])
async def test_deletion_ends_without_the_label(labels: dict[str, str]) -> None:
    harness = await settled()
    edit(harness, labels=labels)
    await delete(harness)
    assert harness.runtime.finished
    assert harness.consistent(0)
    assert config_map(harness)["metadata"]["labels"] == labels, "it is somebody else's now"


async def test_deletion_ends_with_somebodys_finalizer() -> None:
    harness = await settled()
    edit(harness, finalizers=["example.com/backup"])
    await delete(harness)
    assert harness.runtime.finished
    assert config_map(harness)["metadata"]["deletionTimestamp"]
    assert harness.api.calls["delete_config_map"] == 1


async def test_vms_are_set_free_without_the_label() -> None:
    harness = await settled("Orphan")
    edit(harness, labels={})
    data = config_map(harness)["data"]
    await delete(harness)
    assert harness.runtime.finished
    assert not any(vm["metadata"].get("finalizers") for vm in harness.vms())
    found = config_map(harness)
    assert not found["metadata"].get("ownerReferences"), "garbage collection would take it from the VMs"
    assert found["data"] == data


async def test_while_the_cluster_lives_it_is_in_the_way_and_what_balancers_are_told() -> None:
    harness = await settled()
    edit(harness, labels={})
    told = config_map(harness)["data"]
    await harness.run(60)
    assert harness.consistent(2)
    harness.change(replicas=3)
    await harness.run(60)
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["BalancersReady"]
    assert (condition["status"], condition["reason"]) == ("False", "ForeignConfigMap")
    assert config_map(harness)["data"] == told
