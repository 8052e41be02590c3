"""The implementations of ports.Cluster under test, each with what a person could do beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from lab.controlplane import ControlPlane
from luban.ports import Cluster
from tests.fakes.cluster import FakeCluster

Body = dict[str, Any]


class Implementation(Protocol):
    """One implementation, and what a person could do beside it."""

    cluster: Cluster
    namespace: str

    def create(self, body: Mapping[str, Any]) -> Body:
        """Create an object as an administrator."""

    def find(self, kind: str, name: str) -> Body | None:
        """Read an object as an administrator."""

    def secret(self, name: str, key: str, value: str) -> None:
        """Create a Secret."""

    def events(self) -> list[tuple[str, str, str, str, str, int]]:
        """Events as kind, name, type, reason, message, count."""


class FakeImplementation:
    """The fake."""

    def __init__(self) -> None:
        self.fake = FakeCluster()
        self.cluster: Cluster = self.fake
        self.namespace = "default"

    def create(self, body: Mapping[str, Any]) -> Body:
        """See Implementation."""
        return self.fake.create(body)

    def find(self, kind: str, name: str) -> Body | None:
        """See Implementation."""
        return self.fake.find(kind, self.namespace, name)

    def secret(self, name: str, key: str, value: str) -> None:
        """See Implementation."""
        metadata = {"name": name, "namespace": self.namespace}
        self.fake.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {key: value}})

    def events(self) -> list[tuple[str, str, str, str, str, int]]:
        """See Implementation."""
        return [(it.kind, it.name, it.type, it.reason, it.message, it.times) for it in self.fake.events(self.namespace)]


class RealImplementation:
    """The adapter, as the operator; the rest by kubectl, as administrator."""

    def __init__(self, cluster: Cluster, plane: ControlPlane, namespace: str) -> None:
        self.cluster = cluster
        self.plane = plane
        self.namespace = namespace

    def create(self, body: Mapping[str, Any]) -> Body:
        """See Implementation."""
        created: Body = json.loads(self.plane.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(body)))
        return created

    def find(self, kind: str, name: str) -> Body | None:
        """See Implementation."""
        text = self._get(kind, name, "--ignore-not-found")
        return json.loads(text) if text else None

    def secret(self, name: str, key: str, value: str) -> None:
        """See Implementation."""
        self.plane.kubectl("create", "secret", "generic", name, "-n", self.namespace, f"--from-literal={key}={value}")

    def events(self) -> list[tuple[str, str, str, str, str, int]]:
        """See Implementation."""
        items = json.loads(self._get("events"))["items"]
        about = [(it["involvedObject"]["kind"], it["involvedObject"]["name"]) for it in items]
        said = [(it["type"], it["reason"], it["message"], it["count"]) for it in items]
        return [(*who, *what) for who, what in zip(about, said, strict=True)]

    def _get(self, *arguments: str) -> str:
        return self.plane.kubectl("get", *arguments, "-n", self.namespace, "-o", "json")
