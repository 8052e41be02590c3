"""Two operators at one cluster: the one that does not lead does nothing, whenever it learns of it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from luban.api.cluster import LubanCluster
from luban.runtime.metrics import Metrics
from luban.runtime.tick import ClusterRuntime
from luban.senses import Senses
from tests.fakes.operator_harness import OperatorHarness

READS = {"list_vms", "read_config_map", "balancer_endpoint", "read_cluster", "read_secret"}


class Term:
    """Leads for so many questions."""

    def __init__(self, questions: int | None = None) -> None:
        self.left = questions

    def held(self) -> bool:
        """See Leadership."""
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


def rival(harness: OperatorHarness, term: Term) -> ClusterRuntime:
    """Another operator."""
    ports = harness.ports(term)
    return ClusterRuntime(ports, Metrics(CollectorRegistry()), LubanCluster.parse(harness.body()), Senses.of(ports))


def acts(harness: OperatorHarness) -> set[str]:
    """Writes so far."""
    calls = {call for host in harness.hypervisor.hosts.values() for call, _ in host.calls} - {"inventory", "usage"}
    return calls | (harness.api.calls.keys() - READS - {"event"})


async def test_two_at_once_are_one_that_acts() -> None:
    """Without leadership they made six VMs where four are allowed."""
    harness = OperatorHarness({"scaling": {"policy": "Manual", "minVMs": 2, "maxVMs": 4}, "replicas": 2})
    await harness.run(60)
    other = rival(harness, Term(0))
    harness.change(replicas=4)
    other.update(harness.body())
    most = 0
    for _ in range(60):
        await other.tick()
        await harness.tick()
        most = max(most, len(harness.vms()))
    assert most == 4
    assert harness.consistent(4)


async def test_who_does_not_lead_does_nothing() -> None:
    harness = OperatorHarness()
    runtime = rival(harness, Term(0))
    for _ in range(20):
        await runtime.tick()
        harness.clock.seconds += 5
    assert acts(harness) == set()


@pytest.mark.parametrize("questions", range(1, 12))
async def test_who_leads_no_more_stops_there(questions: int) -> None:
    """Whatever it was about to do: no write follows after the one at which it learns of it."""
    harness = OperatorHarness()
    term = Term(questions)
    runtime = rival(harness, term)
    for _ in range(5):
        await runtime.tick()
        harness.clock.seconds += 1
        if term.left is not None and term.left < 0:
            break
    harness.api.calls.clear()
    for host in harness.hypervisor.hosts.values():
        host.calls.clear()
    for _ in range(10):
        await runtime.tick()
        harness.clock.seconds += 5
    assert acts(harness) == set()
    assert runtime.applier.action_failures == {}, "nothing failed"


async def test_one_that_was_paused_does_not_overwrite_what_its_successor_wrote() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    term = Term()
    old = rival(harness, term)
    real = harness.api.patch_cluster_status

    async def paused(*arguments: Any, **options: Any) -> str:
        """SIGSTOP in the middle of the write; the successor writes; SIGCONT."""
        harness.api.patch_cluster_status = real  # type: ignore[method-assign]
        harness.change(replicas=3)
        await harness.run(60)
        assert harness.consistent(3)
        term.left = 0
        return await real(*arguments, **options)

    harness.api.patch_cluster_status = paused  # type: ignore[method-assign]
    harness.hypervisor.disconnect("host-b")
    await old.tick()
    harness.hypervisor.host("host-b").reachable = True
    assert harness.body()["status"]["summary"] == "3/3"


async def test_a_users_change_meanwhile_is_no_obstacle() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.api.change("LubanCluster", "default", "luban", lambda body: body["metadata"].update(labels={"a": "b"}))
    harness.hypervisor.disconnect("host-b")
    await harness.run(10)
    conditions = {it["type"]: it["status"] for it in harness.body()["status"]["conditions"]}
    assert conditions["HostsReachable"] == "False"
    assert conditions["Reconciled"] == "True"
