"""A failure is told as long as anything is tried that fails: it ends with its cause, however that goes."""

from __future__ import annotations

from typing import Any

from luban.core.model import ClusterRef
from luban.errors import PermanentError
from luban.ports import HostRef
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness


def told(harness: OperatorHarness, kind: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    found = {it["type"]: it for it in harness.body()["status"]["conditions"]}[kind]
    return found["status"], found["reason"]


async def settled(**scaling: Any) -> OperatorHarness:
    harness = OperatorHarness({"scaling": {"policy": "Manual", "minVMs": 2, "maxVMs": 6, "interval": "5s", **scaling}})
    await harness.run(60)
    assert harness.consistent(2)
    return harness


async def test_a_stray_that_the_administrator_removes() -> None:
    harness = await settled()
    metadata = harness.vms()[0]["metadata"]

    async def refuses(host: HostRef, uuid: str, pool: str) -> None:
        raise PermanentError("AccessDenied", "libvirt says no")

    harness.hypervisor.remove = refuses  # type: ignore[method-assign]
    harness.api.change("LubanVM", NAMESPACE, metadata["name"], lambda body: body["metadata"].update(finalizers=[]))
    harness.api.remove("LubanVM", NAMESPACE, metadata["name"])
    await harness.run(700)
    assert told(harness, "VMsHealthy") == ("False", "AccessDenied")
    for host in harness.hypervisor.hosts.values():
        host.domains.pop(metadata["uid"], None)
    await harness.run(60)
    assert told(harness, "VMsHealthy") == ("True", "AllHealthy")
    assert harness.body()["status"]["phase"] == "Ready"
    assert harness.runtime.applier.retries._troubles == {}


async def test_a_creation_that_nobody_wishes_any_more() -> None:
    harness = await settled()
    tries = 0

    async def forbids(ref: ClusterRef, body: Any) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        raise PermanentError("Forbidden", "exceeded quota")

    harness.api.create_vm = forbids  # type: ignore[method-assign]
    harness.change(replicas=3)
    await harness.run(300)
    assert told(harness, "VMsHealthy") == ("False", "Forbidden"), "told all the time that it is wished"
    assert tries < 15, "with patience"
    harness.change(replicas=2)
    await harness.run(60)
    assert told(harness, "VMsHealthy") == ("True", "AllHealthy")
    assert harness.body()["status"]["phase"] == "Ready"


async def test_a_member_that_was_refused_and_left() -> None:
    harness = await settled(minVMs=1)
    hosts = [{**host, "vms": {"min": 0, "max": 3}} for host in harness.body()["spec"]["hosts"]]
    bad = harness.vms()[0]["metadata"]
    for host in harness.hypervisor.hosts.values():
        if bad["uid"] in host.domains:
            host.domains[bad["uid"]].planned_address = "0.0.0.0"
    await harness.run(10)
    assert told(harness, "BalancersReady") == ("False", "MemberRefused")
    await harness.run(60)
    assert told(harness, "BalancersReady") == ("False", "MemberRefused"), "as long as it is there"
    harness.api.remove("LubanVM", NAMESPACE, bad["name"])
    harness.change(replicas=1, hosts=hosts)
    await harness.run(300)
    assert harness.consistent(1)
    assert told(harness, "BalancersReady") == ("True", "AllReady")
