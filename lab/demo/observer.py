"""What an onlooker sees of the cluster: its objects through kubectl, its loads through the agent and the metrics."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from lab.datacentre import NAMESPACE, DataCentre

PERIOD = 1.0


@dataclass(frozen=True)
class Snapshot:
    """One look. `at`: seconds on the monotonic clock."""

    at: float
    cluster: dict[str, Any]
    vms: tuple[dict[str, Any], ...]
    report: dict[str, Any]

    @property
    def status(self) -> dict[str, Any]:
        """The cluster's status."""
        return dict(self.cluster.get("status", {}))

    @property
    def serving(self) -> int:
        """VMs that serve, as the operator says."""
        return int(self.status.get("vms", {}).get("serving", 0))

    def sessions(self) -> dict[str, int]:
        """Sessions of each member, as the balancer counts them now."""
        return {it["name"]: int(it["sessions"]) for it in self.report.get("members", [])}

    def phases(self) -> dict[str, str]:
        """Phase of each VM."""
        return {it["metadata"]["name"]: it.get("status", {}).get("phase", "Pending") for it in self.vms}

    def ready_per_host(self) -> dict[str, int]:
        """Ready VMs by host."""
        counts = {host["name"]: 0 for host in self.cluster.get("spec", {}).get("hosts", [])}
        for vm in self.vms:
            host = vm["spec"]["host"]
            counts[host] += vm.get("status", {}).get("phase") == "Ready"
        return counts


@dataclass
class Onlooker:
    """Looks once a second and keeps what it saw."""

    lab: DataCentre
    seen: list[Snapshot] = field(default_factory=list)
    decisions: list[tuple[float, str]] = field(default_factory=list)
    """When each decision was first seen, and its words."""

    async def run(self) -> None:
        """Look until cancelled."""
        headers = {"Authorization": f"Bearer {await asyncio.to_thread(self.lab.report_token)}"}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2), headers=headers) as session:
            while True:
                begun = time.monotonic()
                await self._look(session)
                await asyncio.sleep(max(0.0, PERIOD - (time.monotonic() - begun)))

    async def _look(self, session: aiohttp.ClientSession) -> None:
        objects, report = await asyncio.gather(asyncio.to_thread(self._objects), self._report(session))
        if objects is None:
            return
        cluster, vms = objects
        snapshot = Snapshot(time.monotonic(), cluster, vms, report)
        self.seen.append(snapshot)
        self._note_decision(snapshot)

    def _note_decision(self, snapshot: Snapshot) -> None:
        decision = snapshot.status.get("decision")
        if not decision:
            return
        words = f"{decision['verdict']} {decision['reason']}: {decision['message']}"
        key = (decision["verdict"], decision["reason"])
        if not self.decisions or tuple(self.decisions[-1][1].split(":")[0].split(" ")) != key:
            self.decisions.append((snapshot.at, words))

    def _objects(self) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]] | None:
        """The LubanCluster and its LubanVMs; None if the API server does not answer now."""
        kubectl = [str(self.lab.control_plane.binaries.kubectl), "--kubeconfig", str(self.lab.layout.admin_kubeconfig)]
        command = [*kubectl, "-n", NAMESPACE, "get", "lubanclusters,lubanvms", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode != 0:
            return None
        items = json.loads(done.stdout)["items"]
        clusters = [it for it in items if it["kind"] == "LubanCluster"]
        vms = [it for it in items if it["kind"] == "LubanVM"]
        return (clusters[0] if clusters else {}), tuple(sorted(vms, key=lambda it: it["metadata"]["creationTimestamp"]))

    async def _report(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        try:
            async with session.get(f"{self.lab.addresses.agent}/v1/report") as answer:
                return dict(await answer.json())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return {}
