"""What the end-to-end tests look at: the lab's Kubernetes objects beside the hosts' domains and volumes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.datacentre import CLUSTER, NAMESPACE, DataCentre

DEADLINE = 180.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class LabView:
    """One lab with the sample cluster."""

    lab: DataCentre

    def until(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        """Poll until `condition` gives something true; fails naming `what`, with all that can be seen."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if result := condition():
                return result
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"{what}: not within {deadline:g} s\n{self.describe()}")

    def describe(self) -> str:
        """Objects, domains and the end of the operator's log."""
        objects = self.lab.kubectl("-n", NAMESPACE, "get", "lc,lvm", "-o", "wide")
        return f"{objects}\ndomains {self.domains()}\nvolumes {self.volumes()}\n{self.lab.operator.tail(20)}"

    def get(self, *what: str) -> dict[str, Any]:
        """An object or a list as JSON."""
        return dict(json.loads(self.lab.kubectl("-n", NAMESPACE, "get", *what, "-o", "json")))

    def status(self, name: str = CLUSTER) -> dict[str, Any]:
        """A cluster's status."""
        return dict(self.get("lubancluster", name).get("status", {}))

    def vms(self, name: str = CLUSTER) -> list[dict[str, Any]]:
        """LubanVMs of a cluster."""
        return list(self.get("lubanvms", "-l", f"luban.cloud/cluster={name}")["items"])

    def condition(self, type_: str, name: str = CLUSTER) -> dict[str, Any]:
        """A condition of a cluster; empty: not there yet."""
        return next((it for it in self.status(name).get("conditions", []) if it["type"] == type_), {})

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Events with this reason."""
        return [it for it in self.get("events")["items"] if it.get("reason") == reason]

    def virsh(self, host: str, *arguments: str) -> str:
        """Run virsh on a host of the lab."""
        command = ["virsh", "-q", "-c", self.lab.hosts.uris()[host], *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def domains(self) -> set[str]:
        """UUIDs of all domains on all hosts."""
        return {uuid for host in self.lab.hosts.uris() for uuid in self.virsh(host, "list", "--all", "--uuid").split()}

    def volumes(self) -> set[str]:
        """Names of the volumes that VMs own, on all hosts."""
        listed = (self.virsh(host, "vol-list", "default") for host in self.lab.hosts.uris())
        names = (line.split()[0] for text in listed for line in text.splitlines() if line.strip())
        return {name for name in names if name.startswith("luban-") and name != "luban-web.qcow2"}

    def consistent(self, count: int) -> bool:
        """Whether exactly `count` VMs serve, each with its domain, overlay and seed, and nothing else is there."""
        vms, status = self.vms(), self.status()
        uuids = {vm["metadata"]["uid"] for vm in vms}
        return (
            len(vms) == count
            and status.get("phase") == "Ready"
            and status["vms"]["serving"] == count
            and self.domains() == uuids
            and self.volumes() == {f"luban-{uuid}{end}" for uuid in uuids for end in (".qcow2", "-seed.iso")}
        )

    def patch(self, patch: dict[str, Any], name: str = CLUSTER) -> None:
        """Merge-patch a cluster."""
        self.lab.kubectl("-n", NAMESPACE, "patch", "lubancluster", name, "--type=merge", "-p", json.dumps(patch))

    def scale(self, count: int) -> None:
        """kubectl scale."""
        self.lab.kubectl("-n", NAMESPACE, "scale", "lubancluster", CLUSTER, f"--replicas={count}")
