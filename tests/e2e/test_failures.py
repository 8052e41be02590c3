"""Parts of the data centre fail; the cluster heals and says what was the matter."""

from __future__ import annotations

import pytest

from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_killed_vm_is_replaced(scene: LabView) -> None:
    """A VM without power: out of the balancer at once, replaced on the host that has fewest, and nothing is left."""
    victim = scene.vms()[0]
    name, uid = victim["metadata"]["name"], victim["metadata"]["uid"]
    scene.lab.pull_the_plug(victim["spec"]["host"], uid)
    scene.until(lambda: name not in {vm["metadata"]["name"] for vm in scene.vms()}, "the dead VM's object is gone")
    scene.until(lambda: scene.consistent(2), "a new VM serves in its place")
    assert uid not in scene.domains()
    assert scene.events("DomainStopped")
    assert {vm["spec"]["host"] for vm in scene.vms()} == {"host-b", "host-c"}


def test_a_deleted_lubanvm_is_drained_and_replaced(scene: LabView) -> None:
    """`kubectl delete lvm` takes a VM out in order."""
    name = scene.vms()[0]["metadata"]["name"]
    scene.lab.kubectl("delete", "lubanvm", name, "--wait=false")
    scene.until(lambda: name not in {vm["metadata"]["name"] for vm in scene.vms()}, "the VM is gone")
    scene.until(lambda: scene.consistent(2), "a new VM serves in its place")


def test_api_server_restarted_mid_scale_up(scene: LabView) -> None:
    """The API server goes away while a VM is being made."""
    scene.scale(3)
    scene.lab.control_plane.restart_api_server()
    scene.until(lambda: scene.consistent(3), "three VMs serve after the restart")
    scene.scale(2)
    scene.until(lambda: scene.consistent(2), "two VMs are left")


def test_a_silent_host_loses_nothing(scene: LabView) -> None:
    """libvirtd of a host stops: its VMs run on, nothing is removed, the condition says so; then it comes back."""
    before = scene.domains()
    scene.lab.hosts.stop("host-b")
    scene.until(lambda: scene.condition("HostsReachable").get("status") == "False", "the condition names the host")
    assert "host-b" in scene.condition("HostsReachable")["message"]
    assert len(scene.vms()) == 2
    scene.lab.hosts.start("host-b")
    scene.until(lambda: scene.condition("HostsReachable").get("status") == "True", "the host is back")
    scene.until(lambda: scene.consistent(2), "the same two VMs serve")
    assert scene.domains() == before


def test_balancer_agent_killed(scene: LabView) -> None:
    """The agent dies: the operator says so and heals when it is back; the VMs are the same."""
    before = scene.domains()
    scene.lab.balancers.stop()
    scene.lab.agent.kill()
    scene.until(lambda: scene.condition("BalancersReady").get("status") == "False", "the condition says so")
    scene.lab.start_balancers()
    scene.until(lambda: scene.consistent(2), "the same two VMs serve")
    assert scene.domains() == before
