"""A second team beside the sample: a namespace, a LubanCluster and a balancer of its own on the same two hosts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import yaml

from lab.datacentre import NAMESPACE, ROOT, await_answer, luban
from lab.process import Daemon
from tests.e2e.lab_view import LabView

TEAM, SHOP = "team-b", "shop"
FIRST_OCTET = 170
"""Of the forward ranges of its VMs, one for each host."""
LAST_OCTET = 12
"""Of the lab's address on which its httpd listens."""


class SecondTeam:
    """What the second team made."""

    def __init__(self, scene: LabView) -> None:
        self.scene, self.lab = scene, scene.lab
        self.httpd = self.lab.layout.address(LAST_OCTET)
        self.url = f"http://{self.httpd}:8080"
        self.agent = Daemon("balancer-agent-shop", self.lab.layout.state)

    def up(self, **scaling: Any) -> None:
        """Make it; returns when its first VM answers through its httpd."""
        self.lab.kubectl("apply", "-f", "-", stdin=json.dumps(_namespace()))
        tenant = ROOT / "manifests" / "tenant"
        # The first namespace is the binding's own; its subject is the operator, where that is.
        bound = (tenant / "operator-rights.yaml").read_text()
        bound = bound.replace(f"namespace: {NAMESPACE}", f"namespace: {TEAM}", 1)
        self.lab.kubectl("apply", "-f", "-", stdin=bound)
        rights = (tenant / "balancer-rbac.yaml").read_text()
        rights = rights.replace(f"namespace: {NAMESPACE}", f"namespace: {TEAM}").replace(
            "luban-balancer-", f"{SHOP}-balancer-"
        )
        self.lab.kubectl("apply", "-f", "-", stdin=rights)
        reviews = [
            "--clusterrole=luban-balancer",
            f"--serviceaccount={TEAM}:luban-balancer",
            "--dry-run=client",
            "-oyaml",
        ]
        binding = self.lab.kubectl("create", "clusterrolebinding", f"{TEAM}-luban-balancer", *reviews)
        self.lab.kubectl("apply", "-f", "-", stdin=binding)
        secret = self.scene.get("secret", "luban-userdata")
        secret["metadata"] = {"name": "luban-userdata", "namespace": TEAM}
        self.lab.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        self.lab.kubectl("-n", TEAM, "apply", "-f", "-", stdin=json.dumps(self._cluster(scaling)))
        config = self.lab.layout.state / "shop-balancer.kubeconfig"
        self.lab.control_plane.service_account_kubeconfig(TEAM, "luban-balancer", config)
        self.agent.start([*luban(), *self._agent_arguments(str(config))], cwd=ROOT)
        await_answer(self.agent, f"{self.url}/readyz", timeout=180.0)

    def _cluster(self, scaling: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = yaml.safe_load(self.lab.sample())
        body["metadata"] = {"name": SHOP}
        body["spec"]["hosts"] = [
            {"name": host["name"], "forwardRange": f"127.0.{FIRST_OCTET + place}.0/24", "vms": {"min": 0, "max": 6}}
            for place, host in enumerate(body["spec"]["hosts"])
        ]
        body["spec"]["scaling"] = scaling
        body["spec"]["balancer"]["listen"]["address"] = self.httpd
        return body

    def _agent_arguments(self, config: str) -> list[str]:
        options = {
            "namespace": TEAM,
            "cluster": SHOP,
            "index": "0",
            "state-dir": str(self.lab.layout.state / "balancer-shop"),
            "listen-address": self.httpd,
            "report-address": self.httpd,
            "report-port": "9180",
            "stop-seconds": "5",
            "advertise": f"http://{self.httpd}:9180",
            "kubeconfig": config,
        }
        return ["balancer-agent", *(word for name, value in options.items() for word in (f"--{name}", value))]

    def status(self) -> dict[str, Any]:
        """Of its LubanCluster."""
        return dict(
            json.loads(self.lab.kubectl("-n", TEAM, "get", "lubancluster", SHOP, "-o", "json")).get("status", {})
        )

    def down(self) -> None:
        """Take all of it away."""
        self.lab.kubectl("-n", TEAM, "delete", "lubancluster", SHOP, "--wait=false", "--ignore-not-found")
        self.scene.until(lambda: not self._left(), "nothing of the second team's cluster is left")
        self.agent.stop()

    def _left(self) -> str:
        return self.lab.kubectl("-n", TEAM, "get", "lubanclusters,lubanvms", "-o", "name").strip()


def _namespace() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}}


@contextlib.contextmanager
def registered(scene: LabView, **libvirt: Any) -> Iterator[None]:
    """Both hosts are registered by an administrator with these limits for the block."""
    for name, uri in scene.lab.hosts.uris().items():
        spec = {"libvirt": {"uri": uri, **libvirt}}
        body = {"apiVersion": "luban.cloud/v1alpha1", "kind": "LubanHost", "metadata": {"name": name}, "spec": spec}
        scene.lab.kubectl("apply", "--server-side", "--field-manager=administrator", "-f", "-", stdin=json.dumps(body))
    try:
        yield
    finally:
        for name in scene.lab.hosts.uris():
            patch = json.dumps({"spec": {"libvirt": None}})
            scene.lab.kubectl("patch", "lubanhost", name, "--type=merge", "-p", patch)
