"""The warm pool on the lab: a warm start beside a cold one, and a VM that goes back into the pool."""

from __future__ import annotations

from typing import Any

import pytest

from bench.reaction import answering_vm
from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def pool(scene: LabView) -> dict[str, str]:
    """VMs of the pool: their hosts by name."""
    return {vm["metadata"]["name"]: vm["spec"]["host"] for vm in scene.vms() if vm["spec"]["role"] == "Warm"}


def settled(scene: LabView, serving: int, warm: int) -> bool:
    """Whether so many serve, so many are warm, and nothing else is there."""
    vms: dict[str, Any] = scene.status()["vms"]
    return (vms["serving"], vms["warm"], len(scene.vms())) == (serving, warm, serving + warm)


def test_out_of_the_pool_and_back(scene: LabView) -> None:
    """It is never all on one host; the VM that answers is one of it; and what is one too many becomes warm again."""
    scene.patch({"spec": {"pool": {"size": 2, "balloon": {"min": "256Mi"}}}})
    try:
        scene.until(lambda: settled(scene, 2, 2), "two VMs are warm")
        waiting = pool(scene)
        assert set(waiting.values()) == {"host-b", "host-c"}
        for name, host in waiting.items():
            assert "paused" in scene.virsh(host, "list", "--all"), name
        scene.patch({"spec": {"replicas": 3, "pool": {"size": 1}}})
        scene.until(lambda: answering_vm(scene.lab) in waiting, "one of them answers")
        scene.until(lambda: settled(scene, 3, 1), "three serve, one is warm")
        uids = {vm["metadata"]["uid"] for vm in scene.vms()}
        scene.patch({"spec": {"replicas": 2, "pool": {"size": 2}}})
        scene.until(lambda: settled(scene, 2, 2), "it is warm again")
        assert {vm["metadata"]["uid"] for vm in scene.vms()} == uids
    finally:
        scene.patch({"spec": {"replicas": 2, "pool": {"size": 0, "balloon": None}}})
        scene.until(lambda: scene.consistent(2), "two VMs are left")
