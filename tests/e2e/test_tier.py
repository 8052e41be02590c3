"""Three balancers, each VM attached to two of them, while VMs come and go and one httpd is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.datacentre import NAMESPACE
from lab.process import Daemon
from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

P, D_MAX = 2, 4
TIER = {"replicas": {"min": 3, "max": 3}, "attachment": {"mode": "Cross", "p": P, "dMax": D_MAX}}
ONE = {"replicas": None, "attachment": None}
PAUSE_SECONDS = 0.05
"""Between two requests of a client."""
MOST_REQUESTS = 20_000


@dataclass
class Client:
    """One request after the other to one balancer, bounded in number."""

    url: str
    answered: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self, stopped: threading.Event) -> None:
        while not stopped.wait(PAUSE_SECONDS) and self.answered + len(self.failures) < MOST_REQUESTS:
            try:
                with urllib.request.urlopen(self.url, timeout=10) as answer:
                    self.answered += answer.status == 200
            except (urllib.error.URLError, OSError) as error:
                self.failures.append(f"{time.monotonic():.2f} {error}")


@contextmanager
def clients(addresses: dict[str, str]) -> Iterator[dict[str, Client]]:
    """One for each balancer, for the block."""
    stopped = threading.Event()
    made = {name: Client(f"http://{address}:8080/healthz") for name, address in addresses.items()}
    threads = [threading.Thread(target=it.run, args=(stopped,)) for it in made.values()]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


class Tier:
    """The sample's balancers."""

    def __init__(self, scene: LabView) -> None:
        self.scene = scene
        self.counted: list[dict[str, int]] = []
        """VMs of each balancer at each look."""

    def addresses(self) -> dict[str, str]:
        """By balancer."""
        pods = self.scene.get("pods", "-l", "luban.cloud/cluster=luban")["items"]
        return {pod["metadata"]["name"]: pod["status"].get("podIP", "") for pod in pods}

    def told(self) -> dict[str, set[str]]:
        """By balancer: VMs that its ConfigMap attaches to it."""
        maps = self.scene.get("configmaps", "-l", "luban.cloud/cluster=luban")["items"]
        return {it["metadata"]["name"]: _enabled(it) for it in maps}

    def look(self) -> None:
        """What holds at any time."""
        counts = {name: len(vms) for name, vms in self.told().items()}
        self.counted.append(counts)
        assert max(counts.values()) <= D_MAX, counts

    def settled(self, vms: int, balancers: int) -> bool:
        """Whether each of so many VMs has P balancers, and the balancers have as many as each other."""
        self.look()
        told, status = self.told(), self.scene.status()
        ready = [it["name"] for it in status["balancers"] if it["ready"]]
        counts = [len(told.get(name, ())) for name in ready]
        serving = [it for it in self.scene.vms() if it.get("status", {}).get("phase") == "Ready"]
        return (
            len(ready) == balancers
            and len(serving) == vms
            and all(len({*it["status"].get("balancers", [])} & {*ready}) == P for it in serving)
            and max(counts) - min(counts) <= 1
        )

    def httpd(self, name: str) -> list[int]:
        """The pids of a balancer's httpd: that of the first process, and its children's, which would serve on."""
        folder = self.scene.lab.layout.state / "balancers" / NAMESPACE / name / "state"
        first = int(next(Path(folder).rglob("httpd.pid")).read_text())
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]


def _enabled(config_map: dict[str, Any]) -> set[str]:
    content = json.loads(config_map["data"]["balancer.json"])
    return {it["name"] for it in content["members"] if it["state"] == "Enabled"}


@pytest.fixture
def tier(scene: LabView) -> Iterator[Tier]:
    """Three balancers and two VMs; one balancer again afterwards."""
    scene.patch({"spec": {"balancer": TIER}})
    made = Tier(scene)
    scene.until(lambda: made.settled(2, 3), "three balancers serve, each VM has two")
    yield made
    scene.patch({"spec": {"balancer": ONE}})
    scene.until(lambda: made.addresses().keys() == {"luban-balancer-0"}, "one balancer is left")


def test_one_of_three_balancers_is_killed_while_vms_come_and_go(tier: Tier) -> None:
    scene, addresses = tier.scene, tier.addresses()
    victim, others = "luban-balancer-1", ("luban-balancer-0", "luban-balancer-2")
    with clients(addresses) as load:
        scene.scale(4)
        scene.until(lambda: tier.settled(4, 3), "four VMs, two balancers each")
        # The machine of one is gone: its httpd, its agent, and whoever would start them again.
        scene.lab.balancers.stop()
        Daemon(f"balancer-agent-{NAMESPACE}-{victim}", scene.lab.layout.state).kill()
        for pid in tier.httpd(victim):
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        scene.until(lambda: tier.settled(4, 2), "its VMs are attached to the others")
        print(f"healed {time.monotonic() - killed:.1f} s after the kill")
        scene.scale(3)
        scene.until(lambda: tier.settled(3, 2), "one VM less, though a balancer is silent")
        scene.lab.start_balancers()
        scene.until(lambda: tier.settled(3, 3), "it is back, and has VMs")
    assert load[victim].failures, "it was not dead at all"
    for name in others:
        assert load[name].failures == [], name
        assert load[name].answered > 100
    print({name: (it.answered, len(it.failures)) for name, it in load.items()}, "VMs:", tier.counted[-1])


def test_a_tier_grows_for_want_of_room_and_shrinks_again(scene: LabView) -> None:
    """Slices of two VMs: 1 balancer, then 2, then 1, and no request fails."""
    room = {"replicas": {"min": 1, "max": 3}, "attachment": {"mode": "Slice", "dMax": 2}}
    scene.patch({"spec": {"balancer": room}})
    it = Tier(scene)
    with clients({"luban-balancer-0": scene.lab.layout.httpd}) as load:
        scene.scale(4)
        scene.until(lambda: it.told().keys() == {"luban-balancer-0", "luban-balancer-1"}, "a second balancer")
        scene.until(lambda: sorted(map(len, it.told().values())) == [2, 2], "each has two VMs")
        scene.scale(2)
        scene.until(lambda: it.told().keys() == {"luban-balancer-0"}, "one balancer again")
        scene.until(lambda: it.addresses().keys() == {"luban-balancer-0"}, "and its Pod alone")
    assert load["luban-balancer-0"].failures == []
    scene.patch({"spec": {"balancer": ONE}})
