"""An older operator after a rollback: newer words in a status, and one LubanVM that it cannot read at all."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import generate_latest

from luban.api import names
from luban.runtime.records import VMReader
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness


def failed_ticks(harness: OperatorHarness) -> list[str]:
    """Samples of the metric that counts them."""
    text = generate_latest(harness.runtime.metrics.registry).decode()
    return [line for line in text.splitlines() if line.startswith("luban_tick_errors_total{")]


def condition(harness: OperatorHarness, type_: str) -> dict[str, Any]:
    """One condition of the cluster."""
    found: dict[str, Any] = next(it for it in harness.body()["status"]["conditions"] if it["type"] == type_)
    return found


def make_unreadable(body: dict[str, Any]) -> None:
    """What a newer operator may have written: this one cannot read it."""
    del body["spec"]["host"]
    body["metadata"]["resourceVersion"] += "0"


async def test_a_vm_in_a_newer_phase_keeps_serving() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.vms()[0]["status"]["phase"] = "Frozen"
    harness.vms()[0]["status"]["transitions"].append({"phase": "Frozen", "at": "2026-01-31T12:00:00Z"})
    harness.new_operator()
    await harness.run(30)
    assert failed_ticks(harness) == []
    assert harness.consistent(2) or {vm["status"]["phase"] for vm in harness.vms()} == {"Ready", "Frozen"}
    assert harness.body()["status"]["summary"] == "2/2"


async def test_a_newer_word_in_the_status_of_the_cluster_is_written_anew() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.body()["status"]["decision"]["verdict"] = "Expand"
    harness.new_operator()
    await harness.run(30)
    assert failed_ticks(harness) == []
    assert harness.body()["status"]["decision"]["verdict"] == "Hold"


async def test_one_vm_that_cannot_be_read_leaves_the_others_in_care() -> None:
    harness = OperatorHarness({"replicas": 3})
    await harness.run(60)
    bad, other, _ = harness.vms()
    make_unreadable(bad)
    harness.hypervisor.power_off(other["metadata"]["uid"])
    await harness.run(600)
    assert failed_ticks(harness) == []
    told = condition(harness, "VMsHealthy")
    assert (told["status"], told["reason"]) == ("False", "VMUnreadable")
    assert f"LubanVM {bad['metadata']['name']} cannot be read: spec.host" in told["message"]
    names = {vm["metadata"]["name"] for vm in harness.vms()}
    assert bad["metadata"]["name"] in names, "nothing is done with it"
    assert other["metadata"]["name"] not in names, "the dead one was replaced"
    assert bad["metadata"]["uid"] in harness.domains(), "its domain is no stray"


async def test_each_vm_is_read_apart() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    good, bad = harness.vms()
    bad["spec"] = {}
    good["status"]["balancers"] = "all"
    reader = VMReader()
    read = reader.read([good, bad])
    assert [vm.name for vm in read.records] == [good["metadata"]["name"]]
    assert [vm.uid for vm in read.unreadable] == [bad["metadata"]["uid"]]
    assert list(read.left_out) == [good["metadata"]["name"]]
    assert (read.records[0].host, read.records[0].balancers) == (good["spec"]["host"], ())
    again = reader.read([good])
    assert again.records[0] is read.records[0], "a version that was read is not read again"
    assert not again.unreadable
    good["status"]["balancers"] = ["luban-balancer-0"]
    good["metadata"]["resourceVersion"] += "0"
    assert reader.read([good]).records[0].balancers == ("luban-balancer-0",)


async def test_vms_of_one_template_share_it() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    first, second = harness.vms()
    reader = VMReader()
    one, other = reader.read([first, second]).records
    assert one.template is other.template
    second["spec"]["template"]["port"] = 8099
    second["metadata"]["resourceVersion"] += "0"
    one, other = reader.read([first, second]).records
    assert (one.template.port, other.template.port) == (8080, 8099)


async def test_whoever_deletes_one_that_cannot_be_read_is_not_kept_waiting() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    bad = harness.vms()[0]
    make_unreadable(bad)
    await harness.run(30)
    harness.api.remove("LubanVM", NAMESPACE, bad["metadata"]["name"])
    await harness.run(20)
    assert bad["metadata"]["name"] not in {vm["metadata"]["name"] for vm in harness.vms()}
    assert condition(harness, "VMsHealthy")["reason"] == "StrayDomain"
    await harness.run(400)
    assert harness.consistent(2), "its domain was removed as a stray"


@pytest.mark.parametrize("policy", ["Delete", "Orphan"])
async def test_a_cluster_with_one_that_cannot_be_read_can_be_deleted(policy: str) -> None:
    harness = OperatorHarness({"deletionPolicy": policy})
    await harness.run(60)
    bad, other = harness.vms()
    uids = {bad["metadata"]["uid"], other["metadata"]["uid"]}
    del bad["spec"]["hostURI"]
    await harness.run(10)
    harness.api.remove("LubanCluster", NAMESPACE, "luban")
    harness.runtime.update(harness.body())
    await harness.run(120)
    assert harness.runtime.finished
    left = harness.domains()
    assert (left == set()) if policy == "Delete" else (left >= uids)
    assert all(names.FINALIZER_VM not in vm["metadata"].get("finalizers", ()) for vm in harness.vms())
