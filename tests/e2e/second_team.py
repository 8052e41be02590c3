"""A second team beside the sample: a namespace and a LubanCluster of its own on the same two hosts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import yaml

from lab.datacentre import NAMESPACE, ROOT, await_answer
from luban.api.names import LABEL_CLUSTER
from tests.e2e.lab_view import LabView

TEAM, SHOP = "team-b", "shop"
FIRST_OCTET = 170
"""Of the forward ranges of its VMs, one for each host."""


class SecondTeam:
    """What the second team made."""

    def __init__(self, scene: LabView) -> None:
        self.scene, self.lab = scene, scene.lab
        self.url = ""
        """Of its service, once it is there."""

    def up(self, **scaling: Any) -> None:
        """Make it; returns when its first VM answers through its httpd."""
        self.lab.kubectl("apply", "-f", "-", stdin=json.dumps(_namespace()))
        tenant = ROOT / "manifests" / "tenant"
        # The first namespace is the binding's own; its subject is the operator, where that is.
        bound = (tenant / "operator-rights.yaml").read_text()
        bound = bound.replace(f"namespace: {NAMESPACE}", f"namespace: {TEAM}", 1)
        self.lab.kubectl("apply", "-f", "-", stdin=bound)
        secret = self.scene.get("secret", "luban-userdata")
        secret["metadata"] = {"name": "luban-userdata", "namespace": TEAM}
        self.lab.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        self.lab.kubectl("-n", TEAM, "apply", "-f", "-", stdin=json.dumps(self._cluster(scaling)))
        self.url = f"http://{self.scene.until(self._address, 'the balancer of the second team has a Pod')}:8080"
        await_answer(self.lab.balancers, f"{self.url}/readyz", timeout=180.0)

    def _address(self) -> str:
        """Where its balancer's Pod is; empty: there is none yet."""
        pods = json.loads(self.lab.kubectl("-n", TEAM, "get", "pods", "-o", "json"))["items"]
        return next((pod["status"].get("podIP", "") for pod in pods), "")

    def _cluster(self, scaling: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = yaml.safe_load(self.lab.sample())
        body["metadata"] = {"name": SHOP}
        body["spec"]["hosts"] = [
            {"name": host["name"], "forwardRange": f"127.0.{FIRST_OCTET + place}.0/24", "vms": {"min": 0, "max": 6}}
            for place, host in enumerate(body["spec"]["hosts"])
        ]
        body["spec"]["scaling"] = scaling
        return body

    def status(self) -> dict[str, Any]:
        """Of its LubanCluster."""
        return dict(
            json.loads(self.lab.kubectl("-n", TEAM, "get", "lubancluster", SHOP, "-o", "json")).get("status", {})
        )

    def down(self) -> None:
        """Take all of it away."""
        self.lab.kubectl("-n", TEAM, "delete", "lubancluster", SHOP, "--wait=false", "--ignore-not-found")
        self.scene.until(lambda: not self._left(), "nothing of the second team's cluster is left")

    def _left(self) -> str:
        kinds = "statefulsets,pods,configmaps,services,roles,rolebindings,serviceaccounts,poddisruptionbudgets"
        labelled = self.lab.kubectl("-n", TEAM, "get", kinds, "-l", f"{LABEL_CLUSTER}={SHOP}", "-o", "name")
        return (labelled + self.lab.kubectl("-n", TEAM, "get", "lubanclusters,lubanvms", "-o", "name")).strip()


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
