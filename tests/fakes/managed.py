"""A LubanCluster under a manager, under the event loop's own virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from luban.api import names
from luban.controller.manager import Manager
from luban.runtime.metrics import Metrics
from tests.fakes.operator_harness import NAMESPACE, LoopClock, OperatorHarness

BAD: dict[str, dict[str, Any]] = {
    "refused by the operator alone": {"balancer": {"listen": {"address": "300.1.1.1"}}},
    "a duration beyond its bounds": {"balancer": {"timeout": "48000h"}},
    "no hosts": {"hosts": []},
    "hosts that are none": {"hosts": [{"name": "x", "uri": "nonsense"}]},
    "no template": {"template": {}},
    "another type": {"scaling": "many"},
    "a newer word": {"bondPolicy": "Perhaps"},
}
"""Specs that cannot be read."""


class World:
    """An API server with one LubanCluster, hosts and VMs, and a manager that looks after it."""

    def __init__(self, spec: dict[str, Any] | None = None) -> None:
        self.harness = OperatorHarness(spec, clock=LoopClock())
        self.api = self.harness.api
        self.manager = self.restart()

    def restart(self) -> Manager:
        """A manager that knows nothing yet."""
        self.registry = CollectorRegistry()
        self.manager = Manager(self.harness.ports(), Metrics(self.registry))
        return self.manager

    def body(self) -> dict[str, Any]:
        """The LubanCluster."""
        return self.harness.body()

    def edit(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Change the LubanCluster as a user would who is not held back by today's schema."""
        self.api.change("LubanCluster", NAMESPACE, "luban", edit)

    def spoil(self, **spec: Any) -> None:
        """Give the cluster a spec that cannot be read."""
        self.edit(lambda body: body["spec"].update(spec))

    def delete(self) -> None:
        """What kubectl delete does."""
        self.api.remove("LubanCluster", NAMESPACE, "luban")

    async def run(self, seconds: float) -> bool:
        """The cluster's loop for so long; whether the cluster is gone."""
        stopped = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stopped.set)
        return await self.manager.reconcile(self.body(), stopped)

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition of the cluster."""
        found: dict[str, Any] = {it["type"]: it for it in self.body()["status"]["conditions"]}[kind]
        return found

    def settings(self) -> dict[str, Any] | None:
        """The balancer's settings, as published."""
        found = self.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
        return None if found is None else json.loads(found["data"]["balancer.json"])["settings"]
