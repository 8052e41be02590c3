"""Series of VMs, hosts and balancers go with what they are about, and cost no other cluster anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Gauge

from luban.core.model import BalancerReport, ClusterRef, HostObservation, MemberReport, Observation
from luban.core.plan import plan
from luban.core.times import Now
from luban.runtime.metrics import Metrics
from tests.fakes.operator_harness import OperatorHarness
from tests.fakes.simulator import BALANCER, make_vm

BUSY = Observation(
    vms=(make_vm("luban-a", "Ready", "host-b"), make_vm("luban-b", "Ready", "host-c")),
    hosts=(HostObservation("host-b", True), HostObservation("host-c", False)),
    balancers=(BalancerReport(BALANCER, reachable=False),),
    sessions={"luban-a": 3, "luban-b": 4},
)
ONE, TWO = ClusterRef("default", "one"), ClusterRef("default", "two")


def record(metrics: Metrics, ref: ClusterRef, observation: Observation) -> None:
    harness = OperatorHarness()
    made = plan(
        harness.runtime.cluster.spec, ref.name, observation, harness.runtime.memory, Now(0.0, 0.0), deleting=False
    )
    metrics.record(ref, observation, made)


def shown(metrics: Metrics, ref: ClusterRef, *labels: str) -> set[tuple[str, ...]]:
    """Name and labels of the samples of a cluster that have such labels."""
    return {
        (sample.name, *(sample.labels[name] for name in labels))
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.labels.get("cluster") == ref.name and set(labels) <= sample.labels.keys()
    }


def test_who_serves_and_who_is_known_to_answer_are_told_apart() -> None:
    metrics = Metrics(CollectorRegistry())
    silent = tuple(HostObservation(name, False) for name in ("host-b", "host-c"))
    vms = tuple(replace(vm, balancers=(BALANCER,)) for vm in BUSY.vms)
    record(metrics, ONE, replace(BUSY, vms=vms, hosts=silent, probes={"luban-a": True, "luban-b": False}))

    def count(state: str) -> float | None:
        labels = {"namespace": ONE.namespace, "cluster": ONE.name, "state": state}
        return metrics.registry.get_sample_value("luban_cluster_vms", labels)

    assert (count("serving"), count("answering")) == (2.0, 1.0)


def test_what_is_gone_is_shown_no_more_and_other_clusters_stay() -> None:
    metrics = Metrics(CollectorRegistry())
    for ref in (ONE, TWO):
        record(metrics, ref, BUSY)
    less = replace(BUSY, vms=BUSY.vms[:1], hosts=BUSY.hosts[:1], sessions={"luban-a": 3})
    record(metrics, ONE, less)
    assert shown(metrics, ONE, "vm") == {("luban_vm_sessions", "luban-a")}
    assert {host for _, host in shown(metrics, ONE, "host")} == {"host-b"}
    record(metrics, ONE, replace(less, balancers=()))
    assert shown(metrics, ONE, "balancer") == set()
    assert {vm for _, vm in shown(metrics, TWO, "vm")} == {"luban-a", "luban-b"}
    assert {host for _, host in shown(metrics, TWO, "host")} == {"host-b", "host-c"}
    assert shown(metrics, TWO, "balancer", "state") >= {("luban_balancer_members", BALANCER, "Draining")}
    metrics.forget(TWO)
    assert shown(metrics, TWO) == set()
    record(metrics, TWO, BUSY)
    assert {vm for _, vm in shown(metrics, TWO, "vm")} == {"luban-a", "luban-b"}


def test_no_tick_looks_at_the_series_of_all_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    def scans(gauge: Gauge, labels: Mapping[str, str]) -> None:
        raise AssertionError(f"{gauge} is searched for {labels}")

    metrics = Metrics(CollectorRegistry())
    monkeypatch.setattr(Gauge, "remove_by_labels", scans)
    record(metrics, ONE, BUSY)
    record(metrics, ONE, BUSY)


def test_users_and_connections_are_told_as_far_as_they_are_known() -> None:
    metrics = Metrics(CollectorRegistry())
    members = tuple(
        MemberReport(name, "Enabled", in_flight=number) for name, number in (("luban-a", 3), ("luban-b", 0))
    )
    balancer = BalancerReport(BALANCER, reachable=True, ready=True, members=members, users=7)
    labels = {"namespace": ONE.namespace, "cluster": ONE.name}

    def connections(vm: str, host: str) -> float | None:
        return metrics.registry.get_sample_value("luban_vm_active_connections", {**labels, "vm": vm, "host": host})

    record(metrics, ONE, replace(BUSY, balancers=(balancer,)))
    assert metrics.registry.get_sample_value("luban_cluster_users", labels) == 7.0
    assert (connections("luban-a", "host-b"), connections("luban-b", "host-c")) == (3.0, 0.0)
    # An agent that does not tell, or of two one that does not, is no zero.
    for others in ((replace(balancer, users=None),), (balancer, BalancerReport("other", reachable=False))):
        record(metrics, ONE, replace(BUSY, balancers=others))
        assert metrics.registry.get_sample_value("luban_cluster_users", labels) is None
