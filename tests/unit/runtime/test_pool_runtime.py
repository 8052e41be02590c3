"""The warm pool through the whole runtime: objects, domains, balancer, status, words."""

from __future__ import annotations

from typing import Any

import pytest

from luban.api.cluster import LubanCluster
from luban.api.vm import LubanVM
from luban.cli.explain import explain
from luban.errors import TemporaryError
from luban.render.balancer import parse_balancer_json
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness

SPEC = {
    "replicas": 2,
    "pool": {"size": 1, "balloon": {"min": "256Mi"}},
    "scaling": {"policy": "Manual", "minVMs": 2, "maxVMs": 4},
}


async def filled(spec: dict[str, Any] | None = None) -> OperatorHarness:
    """A cluster whose pool is full."""
    harness = OperatorHarness({**SPEC, **(spec or {})})
    await harness.run(90)
    assert harness.body()["status"]["vms"]["warm"] == 1
    return harness


def warm(harness: OperatorHarness) -> dict[str, Any]:
    """The LubanVM in the pool."""
    (found,) = [vm for vm in harness.vms() if vm["spec"]["role"] == "Warm"]
    return found


def members(harness: OperatorHarness) -> dict[str, str]:
    """What the balancer was told of each VM."""
    data = harness.api.find("ConfigMap", NAMESPACE, "luban-balancer-0")
    assert data is not None
    return {it.name: it.state for it in parse_balancer_json(data["data"]["balancer.json"]).members}


async def test_a_warm_vm_is_seen_as_one() -> None:
    harness = await filled()
    vm = warm(harness)
    domain = harness.hypervisor.domain(vm["metadata"]["uid"])
    assert domain is not None
    assert (domain.state, domain.reason, domain.balloon) == ("Paused", "User", 256 * 2**20)
    assert vm["status"]["phase"] == "Warm"
    assert members(harness)[vm["metadata"]["name"]] == "Disabled"
    text = explain(LubanCluster.parse(harness.body()), [LubanVM.parse(it) for it in harness.vms()])
    assert "1 of 1 warm" in text
    assert "Warm (ProbeAnswered), in the pool" in text


async def test_it_comes_with_its_memory_and_the_time_of_day() -> None:
    harness = await filled()
    vm = warm(harness)
    domain = harness.hypervisor.domain(vm["metadata"]["uid"])
    assert domain is not None
    domain.has_agent = True
    harness.change(replicas=3)
    taken = harness.clock.now()
    await harness.run(2)
    assert harness.body()["status"]["vms"]["serving"] == 3
    assert (domain.state, domain.balloon, domain.clock) == ("Running", 2**30, taken)
    assert members(harness)[vm["metadata"]["name"]] == "Enabled"


async def test_without_an_agent_it_serves_all_the_same() -> None:
    harness = await filled()
    harness.change(replicas=3)
    await harness.run(2)
    assert harness.body()["status"]["vms"]["serving"] == 3


async def test_one_that_does_not_go_on_is_replaced_by_a_new_one() -> None:
    harness = await filled()
    vm = warm(harness)
    harness.hypervisor.host(vm["spec"]["host"]).failures.append(TemporaryError("LibvirtError", "no"))
    harness.change(replicas=3)
    await harness.run(60)
    assert harness.body()["status"]["vms"]["serving"] == 3
    assert vm["metadata"]["uid"] not in harness.domains()
    assert "ResumeFailed" in {event.reason for event in harness.api.event_log} | {
        event.message.rpartition("(")[2].rstrip(")") for event in harness.api.event_log
    }


@pytest.mark.parametrize("seconds", [0, 1, 3])
async def test_a_new_operator_goes_on_with_it(seconds: int) -> None:
    harness = await filled()
    vm = warm(harness)
    harness.change(replicas=3)
    await harness.run(seconds)
    await harness.runtime.close()
    harness.new_operator()
    await harness.run(5)
    assert harness.body()["status"]["vms"]["serving"] == 3
    assert vm["metadata"]["uid"] in harness.domains()


async def test_what_is_one_too_many_stays_as_the_same_vm() -> None:
    harness = await filled({"replicas": 3})
    before = harness.domains()
    harness.change(replicas=2, pool={"size": 2})
    await harness.run(60)
    assert harness.domains() == before
    assert harness.body()["status"]["vms"] | {"warm": 2, "serving": 2, "desired": 2} == harness.body()["status"]["vms"]
