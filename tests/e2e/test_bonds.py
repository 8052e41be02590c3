"""Bond health in the whole lab: a real kernel's bond in a guest, its agent, the API server, the placement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.bonds.guest import BondGuest, Fault
from lab.bonds.image import ensure_bond_guest
from lab.bonds.reporting import GuestAgent, ReportWatch, api_relay
from lab.bonds.settings import BondSettings, Mode
from lab.datacentre import CLUSTER, NAMESPACE, DataCentre
from luban.api.cluster import LubanCluster
from luban.api.vm import LubanVM
from luban.cli.explain import explain
from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HOST = "host-b"
"""Its node is played by the guest: the first in the spec, so that it would win every tie."""


@dataclass(frozen=True)
class Rack:
    """The guest that plays the node of host-b, and all LubanHosts."""

    guest: BondGuest
    watch: ReportWatch


@pytest.fixture(scope="module")
def rack(lab: DataCentre) -> Iterator[Rack]:
    """A guest with an 802.3ad bond of two ports, whose agent reports as host-b. host-c keeps its own agent."""
    (own,) = (agent for agent in lab.node_agents if agent.host == HOST)
    own.daemon.stop()
    with BondGuest(ensure_bond_guest()) as guest, ReportWatch(lab.control_plane) as watch:
        guest.configure(BondSettings(Mode.LACP))
        agent = GuestAgent.start(guest, lab.control_plane, own, api_relay(guest, lab.control_plane))
        watch.until(HOST, lambda one: one.verdict == "Healthy", "a healthy bond", timeout=90)
        yield Rack(guest, watch)
        agent.stop()
    # Its own agent would go on where the guest's ended, and miss the guest's bond.
    lab.kubectl("delete", "lubanhost", HOST)
    own.start(lab.control_plane, cwd=lab.layout.state)


def row(scene: LabView) -> list[str]:
    """The host as `kubectl get lh` shows it, without ages."""
    return scene.lab.kubectl("get", "lh", HOST, "--no-headers").split()[:5]


def told(scene: LabView) -> str:
    """What `kubectl luban explain` says."""
    cluster = LubanCluster.parse(json.loads(scene.lab.kubectl("-n", NAMESPACE, "get", "lc", CLUSTER, "-o", "json")))
    return explain(cluster, [LubanVM.parse(vm) for vm in scene.vms()])


def test_a_pulled_cable_sends_the_next_vm_elsewhere(rack: Rack, scene: LabView) -> None:
    assert row(scene) == [HOST, "Healthy", "802.3ad", "2/2", "2000"]
    scene.until(lambda: scene.status().get("bondSummary") == "2/2", "both hosts are sound")
    assert scene.status()["placement"]["host"] == HOST, "a tie goes to the first in the spec"

    pulled, _ = rack.guest.break_cable(1, Fault.PULLED)
    seen = rack.watch.until(HOST, lambda one: one.verdict == "Degraded", "degraded", since=pulled, timeout=30)
    assert seen.usable == {"eth2"}
    assert row(scene) == [HOST, "Degraded", "802.3ad", "1/2", "1000"]
    scene.until(lambda: scene.condition("BondsHealthy").get("status") == "False", "the cluster says so")
    assert f"{HOST}: eth1: no carrier" in scene.condition("BondsHealthy")["message"]
    assert scene.events("BondDegraded")

    scene.patch({"spec": {"replicas": 3}})
    scene.until(lambda: scene.consistent(3), "three VMs serve")
    hosts = sorted(vm["spec"]["host"] for vm in scene.vms())
    assert hosts == ["host-b", "host-c", "host-c"]
    words = told(scene)
    assert f"not {HOST}: its bond is Degraded" in words
    assert "the bond decides (bondPolicy Prefer)" in words

    # Of two equals the VM on the worse bond leaves; of host-b's one VM and host-c's two, none is an equal.
    _, whole = rack.guest.restore_cable(1)
    rack.watch.until(HOST, lambda one: one.verdict == "Healthy", "healthy again", since=whole, timeout=60)
    scene.until(lambda: scene.condition("BondsHealthy").get("status") == "True", "the cluster says so too")
    scene.patch({"spec": {"replicas": 2}})
    scene.until(lambda: scene.consistent(2), "two VMs serve")


def test_with_policy_require_an_impaired_host_takes_none_and_the_reason_is_said(rack: Rack, scene: LabView) -> None:
    """host-c's node has no bond at all, which Require does not admit either."""
    scene.patch({"spec": {"bondPolicy": "Require"}})
    rack.guest.break_cable(2, Fault.PULLED)
    try:
        scene.until(lambda: scene.status()["placement"]["reason"] == "NoRoom", "no host is good enough")
        scene.patch({"spec": {"replicas": 3}})
        message = scene.until(
            lambda: (it := scene.condition("Ready")).get("reason") == "NoRoom" and it["message"], "Ready says why"
        )
        assert f"not {HOST}: its bond is Degraded (bondPolicy Require)" in message
        assert "not host-c: its bond is None (bondPolicy Require)" in message
        assert len(scene.vms()) == 2
        rack.guest.restore_cable(2)
        scene.until(lambda: scene.consistent(3), "the third VM comes when the bond is healthy again")
        assert sorted(vm["spec"]["host"] for vm in scene.vms()) == ["host-b", "host-b", "host-c"]
    finally:
        rack.guest.restore_all()
        scene.patch({"spec": {"bondPolicy": "Prefer", "replicas": 2}})
        scene.until(lambda: scene.consistent(2), "two VMs serve")
