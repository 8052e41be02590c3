"""The node agents of the lab's hosts. They see this machine's own network: most likely no bond at all."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from lab.controlplane import ControlPlane
from lab.hosts import HOST_NAMES
from lab.paths import Layout
from lab.process import Daemon

NAMESPACE = "luban-node"
SERVICE_ACCOUNT = "luban-node-agent"
PORT = 9182
FIRST_ADDRESS = 10
"""Last octet of the first agent's address."""


@dataclass(frozen=True)
class NodeAgent:
    """The agent of one host, under a token that is bound to the host's Node, as a DaemonSet's Pod would have."""

    layout: Layout
    host: str

    @property
    def daemon(self) -> Daemon:
        """Its process."""
        return Daemon(f"node-agent-{self.host}", self.layout.state)

    @property
    def address(self) -> str:
        """Where it serves /metrics and /healthz."""
        return self.layout.address(FIRST_ADDRESS + HOST_NAMES.index(self.host))

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{self.address}:{PORT}"

    def kubeconfig(self, plane: ControlPlane) -> Path:
        """Make the Node if there is none, and write a kubeconfig with a token that is bound to it."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.host}}
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(node))
        path = self.layout.state / f"node-agent-{self.host}.kubeconfig"
        plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT, path, node=self.host)
        return path

    def start(self, plane: ControlPlane, cwd: Path) -> None:
        """Start it."""
        options = {
            "node-name": self.host,
            "kubeconfig": str(self.kubeconfig(plane)),
            "listen-address": self.address,
            "listen-port": str(PORT),
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.daemon.start([sys.executable, "-m", "luban", "node-agent", *arguments], cwd=cwd)


def node_agents(layout: Layout) -> tuple[NodeAgent, ...]:
    """One for each host of the lab."""
    return tuple(NodeAgent(layout, host) for host in HOST_NAMES)
