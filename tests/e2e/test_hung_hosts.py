"""One host hangs, packets to another get lost: a third is none the slower, and both are back soon after they answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.distant_host import URI, DistantHost, distant_host
from tests.e2e.lab_view import LabView

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace"),
]
HUNG_SECONDS, LOST_SECONDS = 60.0, 90.0
BACK_SECONDS = 5.0
ROUNDS = 3
SLOWER_SECONDS = 1.0
"""What a busy machine may add to one of ROUNDS, and nobody waits longer for a host than that."""


@pytest.fixture
def distant(scene: LabView) -> Iterator[DistantHost]:
    """The sample cluster with a third host, on which nothing runs; one VM each on the others, more on host-c alone."""
    spec = scene.get("lubancluster", "luban")["spec"]
    with distant_host(scene.lab.layout.state) as host:
        scene.lab.operator.stop()
        scene.lab.start_operator("--allow-insecure-hosts")
        limits = {"host-b": {"min": 1, "max": 1}, "host-c": {"min": 1, "max": 3}}
        hosts = [{**it, "vms": limits[it["name"]]} for it in spec["hosts"]]
        far = {
            "name": "host-d",
            "uri": URI,
            "cordoned": True,
            "vms": {"min": 0, "max": 1},
            "forwardRange": "127.0.180.0/24",
        }
        scene.patch({"spec": {"hosts": [*hosts, far]}})
        scene.until(lambda: reachable(scene) == {"host-b", "host-c", "host-d"} and scene.consistent(2), "all is well")
        yield host
        scene.lab.hosts.thaw("host-b")
        host.find_packets()
        scene.patch({"spec": {"hosts": spec["hosts"]}})
        scene.until(lambda: scene.consistent(2), "two VMs serve")
        scene.lab.operator.stop()
        scene.lab.start_operator()


def reachable(scene: LabView) -> set[str]:
    """Hosts that answer, as the status says."""
    return {it["name"] for it in scene.status().get("hosts", ()) if it["reachable"]}


def reaction(scene: LabView) -> float:
    """Seconds from `kubectl scale` to another domain that runs on host-c; then it is taken back."""
    begun = time.monotonic()
    scene.scale(3)
    scene.until(lambda: running_on_c(scene) == 2, "a second domain runs on host-c")
    seconds = time.monotonic() - begun
    scene.scale(2)
    scene.until(lambda: running_on_c(scene) == 1 and len(scene.vms()) == 2, "it is gone again")
    return seconds


def running_on_c(scene: LabView) -> int:
    return len(scene.virsh("host-c", "list", "--uuid").split())


def test_hosts_that_hang_slow_no_other_and_are_back_at_once(
    scene: LabView, distant: DistantHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGSTOP to one libvirtd for a minute, packets to another lost for one and a half; figures are printed."""
    before = scene.domains()
    calm = [reaction(scene) for _ in range(ROUNDS)]
    begun = time.monotonic()
    scene.lab.hosts.freeze("host-b")
    distant.lose_packets()
    troubled = [reaction(scene)]
    scene.until(lambda: reachable(scene) == {"host-c"}, "both are seen to be silent")
    troubled += [reaction(scene) for _ in range(ROUNDS - 1)]
    back = {
        "host-b": back_after(scene, "host-b", begun + HUNG_SECONDS, lambda: scene.lab.hosts.thaw("host-b")),
        "host-d": back_after(scene, "host-d", begun + LOST_SECONDS, distant.find_packets),
    }
    with capsys.disabled():
        figures = {"calm": calm, "troubled": troubled, "back after": list(back.values())}
        print("", *(f"{name}: {', '.join(f'{it:.1f}' for it in them)} s" for name, them in figures.items()), sep="\n  ")
    assert min(troubled) <= min(calm) + SLOWER_SECONDS
    assert max(troubled) <= max(calm) + 2 * SLOWER_SECONDS
    assert max(back.values()) <= BACK_SECONDS
    assert scene.domains() == before
    scene.until(lambda: scene.consistent(2), "the same two VMs serve")


def back_after(scene: LabView, host: str, moment: float, mend: Any) -> float:
    """Mend a host at a moment. Seconds until the status says that it answers."""
    scene.until(lambda: time.monotonic() >= moment, "it is time")
    assert host not in reachable(scene)
    mend()
    begun = time.monotonic()
    scene.until(lambda: host in reachable(scene), f"{host} is back")
    return time.monotonic() - begun
