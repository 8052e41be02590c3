"""What VMs use, from hosts and balancers to decisions, status and metrics; and schedules in the spec's condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luban.core.model import BalancerReport, ClusterRef
from luban.runtime.usage import usage_period
from tests.fakes.operator_harness import FollowingBalancer, OperatorHarness
from tests.fakes.simulator import make_spec

RULES = {"policy": "Rules", "rules": [{"metric": "CPU", "max": 70, "min": 20}], "interval": "10s"}
SERVED = 50
"""Requests that a VM gets between two reports."""


class CountingBalancer(FollowingBalancer):
    """It sends so many requests to each VM between two reports."""

    served = 0

    async def report(self, cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        said = await super().report(cluster, name, endpoint, members=members)
        self.served += SERVED
        return replace(said, members=tuple(replace(it, served=self.served) for it in said.members))


class Busy(OperatorHarness):
    """VMs that compute as much as the test says."""

    def __init__(self, **scaling: Any) -> None:
        super().__init__({"scaling": {"minVMs": 2, "maxVMs": 4, **RULES, **scaling}, "replicas": None})
        self.balancer = CountingBalancer(self.api)
        self.runtime = self.new_operator()
        self.percent = 0.0
        self.told = self.clock.now()

    async def tick(self) -> float:
        passed, self.told = self.clock.now() - self.told, self.clock.now()
        for host in self.hypervisor.hosts.values():
            for domain in host.domains.values():
                before = domain.usage.get("cpu_seconds", 0.0)
                domain.usage["cpu_seconds"] = before + passed * self.percent / 100
        return await super().tick()

    def decision(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body()["status"]["decision"]
        return found

    def condition(self, name: str) -> tuple[str, str, str]:
        found = next(it for it in self.body()["status"]["conditions"] if it["type"] == name)
        return found["status"], found["reason"], found["message"]

    def metric(self, name: str) -> set[float]:
        families = self.runtime.metrics.registry.collect()
        return {round(sample.value, 1) for family in families for sample in family.samples if sample.name == name}


async def test_a_busy_cluster_grows_by_rules_and_shrinks_again() -> None:
    harness = Busy(behavior={"scaleDown": {"stabilizationWindow": "1m"}})
    harness.percent = 45.0
    await harness.run(120)
    assert harness.consistent(2)
    assert harness.decision()["reason"] == "WithinBand"
    assert harness.decision()["metrics"] == [{"name": "CPU", "value": 45.0, "unknown": 0}]
    assert harness.condition("LoadKnown")[:2] == ("True", "AllKnown")
    harness.percent = 90.0
    while len(harness.vms()) < 3:
        await harness.tick()
    harness.percent = 45.0
    await harness.run(120)
    assert harness.consistent(3)
    harness.percent = 10.0
    await harness.run(240)
    assert harness.consistent(2)


async def test_metrics_of_each_vm() -> None:
    harness = Busy()
    harness.percent = 45.0
    await harness.run(120)
    assert harness.metric("luban_vm_cpu_percent") == {45.0}
    (rate,) = harness.metric("luban_vm_requests_per_second")
    assert rate > 0
    assert harness.metric("luban_vm_memory_percent") == set()


async def test_a_silent_host_makes_its_vms_unknown_and_removes_nothing() -> None:
    harness = Busy(behavior={"scaleDown": {"stabilizationWindow": "0s"}}, minVMs=1)
    harness.percent = 45.0
    await harness.run(150)
    harness.hypervisor.disconnect("host-b")
    harness.percent = 1.0
    await harness.run(300)
    assert len(harness.vms()) == 2
    status, reason, message = harness.condition("LoadKnown")
    assert (status, reason) == ("False", "MetricUnknown")
    assert message.startswith("CPU of luban-")
    assert harness.decision()["metrics"][0]["unknown"] == 1


async def test_what_a_vm_used_to_boot_is_no_load() -> None:
    harness = Busy()
    harness.percent = 100.0
    while harness.body().get("status", {}).get("summary") != "2/2":
        await harness.tick()
    harness.percent = 45.0
    await harness.run(120)
    assert harness.consistent(2)


async def test_hosts_are_asked_at_the_pace_of_the_policy() -> None:
    harness = Busy()
    await harness.run(60)
    calls = harness.hypervisor.host("host-b").calls
    calls.clear()
    await harness.run(300)
    assert 25 <= sum(name == "usage" for name, _ in calls) <= 31


@pytest.mark.parametrize(
    ("scaling", "seconds"),
    [
        ({}, 30.0),
        ({**RULES, "interval": "12s"}, 12.0),
        ({**RULES, "interval": "1s"}, 5.0),
        ({**RULES, "interval": "5m"}, 30.0),
        ({"policy": "Target", "interval": "15s"}, 15.0),
    ],
)
def test_pace(scaling: dict[str, Any], seconds: float) -> None:
    assert usage_period(make_spec(scaling=scaling)) == seconds


async def test_a_schedule_that_never_begins_is_told_and_the_rest_holds() -> None:
    schedule = {"name": "sale", "cron": "0 8 * * *", "timeZone": "Asia/Taipeh", "duration": "1h", "minVMs": 4}
    harness = Busy(schedules=[schedule])
    harness.percent = 45.0
    await harness.run(60)
    assert harness.consistent(2)
    status, reason, message = harness.condition("SpecValid")
    assert (status, reason) == ("False", "ScheduleRefused")
    assert message.startswith("scaling.schedules[sale].timeZone Asia/Taipeh is not known")
    harness.change(scaling={**RULES, "minVMs": 2, "maxVMs": 4, "schedules": [{**schedule, "timeZone": "Asia/Taipei"}]})
    await harness.run(10)
    assert harness.condition("SpecValid")[:2] == ("True", "Valid")
