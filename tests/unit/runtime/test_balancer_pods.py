"""The operator makes what a cluster needs in front of its VMs, keeps it so, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

from luban.api import names
from luban.errors import PermanentError
from luban.render.balancer_objects import AgentProgram
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness, lease_body

KINDS = ("ServiceAccount", "Role", "RoleBinding", "Service", "PodDisruptionBudget", "StatefulSet")
CROSS = {"replicas": {"min": 1, "max": 3}, "attachment": {"mode": "Cross", "p": 2, "dMax": 20}}


def harness_with(**spec: Any) -> OperatorHarness:
    """An operator with an image for balancers."""
    harness = OperatorHarness(spec)
    harness.api.create(lease_body(index=1))
    harness.agents = AgentProgram("luban-cloud:1", names.OPERATOR_USER)
    harness.new_operator()
    return harness


def pods(harness: OperatorHarness) -> int | None:
    """How many Pods are asked for; None: there is no StatefulSet."""
    found = harness.api.find("StatefulSet", NAMESPACE, "luban-balancer")
    return int(found["spec"]["replicas"]) if found is not None else None


def writes(harness: OperatorHarness) -> int:
    return harness.api.calls["apply_object"]


async def test_all_is_made_and_owned() -> None:
    harness = harness_with()
    await harness.run(20)
    for kind in KINDS:
        body = harness.api.find(kind, NAMESPACE, "luban-balancer")
        assert body is not None, kind
        assert body["metadata"]["ownerReferences"][0]["name"] == "luban"
    assert harness.api.find("Service", NAMESPACE, "luban") is not None
    assert pods(harness) == 1


async def test_a_steady_cluster_writes_nothing() -> None:
    harness = harness_with()
    await harness.run(20)
    before = writes(harness)
    await harness.run(60)
    assert writes(harness) == before == 7


async def test_what_somebody_changed_or_removed_is_made_anew() -> None:
    harness = harness_with()
    await harness.run(20)
    harness.api.remove("StatefulSet", NAMESPACE, "luban-balancer")
    await harness.run(10)
    assert pods(harness) == 1
    harness.api.change("StatefulSet", NAMESPACE, "luban-balancer", lambda it: it["spec"].update(replicas=5))
    await harness.run(10)
    assert pods(harness) == 1


async def test_a_new_operator_makes_sure_once() -> None:
    harness = harness_with()
    await harness.run(20)
    harness.api.remove("Service", NAMESPACE, "luban")
    harness.new_operator()
    await harness.run(10)
    assert harness.api.find("Service", NAMESPACE, "luban") is not None


async def test_the_spec_changes_them() -> None:
    harness = harness_with()
    await harness.run(20)
    harness.change(balancer={"template": {"service": {"type": "LoadBalancer"}}})
    await harness.run(10)
    front = harness.api.find("Service", NAMESPACE, "luban")
    assert front is not None
    assert front["spec"]["type"] == "LoadBalancer"


async def test_as_many_pods_as_balancers() -> None:
    harness = harness_with(balancer=CROSS)
    await harness.run(40)
    assert pods(harness) == 2


async def test_a_stranger_in_the_way_is_named() -> None:
    harness = harness_with()
    harness.api.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "luban", "namespace": NAMESPACE}})
    await harness.run(20)
    condition = next(it for it in harness.body()["status"]["conditions"] if it["type"] == "BalancersReady")
    assert (condition["status"], condition["reason"]) == ("False", "ForeignObject")
    assert pods(harness) is None


async def test_a_missing_right_is_told() -> None:
    harness = harness_with()
    harness.api.fail_next("apply_object", PermanentError("Forbidden", "cannot create roles"), times=100)
    await harness.run(10)
    condition = next(it for it in harness.body()["status"]["conditions"] if it["type"] == "BalancersReady")
    assert condition["reason"] == "Forbidden"


async def test_a_missing_right_to_look_keeps_no_vm_waiting() -> None:
    harness = harness_with()
    forbidden = PermanentError("Forbidden", "cannot get statefulsets")
    for method in ("read_balancer_set", "apply_object"):
        harness.api.fail_next(method, forbidden, times=1000)
    await harness.run(60)
    assert harness.consistent(2)
    condition = next(it for it in harness.body()["status"]["conditions"] if it["type"] == "BalancersReady")
    assert (condition["status"], condition["reason"]) == ("False", "Forbidden")


async def test_paused_changes_nothing() -> None:
    harness = harness_with(paused=True)
    await harness.run(20)
    assert writes(harness) == 0


async def test_without_an_image_nothing_is_made() -> None:
    harness = OperatorHarness({})
    await harness.run(20)
    assert writes(harness) == 0
    assert harness.api.calls["read_balancer_set"] == 0


async def test_orphans_keep_their_balancers() -> None:
    harness = harness_with()
    await harness.run(40)
    harness.change(deletionPolicy="Orphan")
    harness.api.change(
        "LubanCluster", NAMESPACE, "luban", lambda it: it["metadata"].update(deletionTimestamp="2027-01-15T08:00:00Z")
    )
    harness.runtime.update(harness.body())
    await harness.run(60)
    for kind in KINDS:
        body = harness.api.find(kind, NAMESPACE, "luban-balancer")
        assert body is not None, kind
        assert not body["metadata"]["ownerReferences"]
