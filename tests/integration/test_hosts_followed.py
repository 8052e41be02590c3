"""A LubanHost from kubectl to a LubanVM: watches, manager and Kubernetes adapter on a real API server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest
from prometheus_client import CollectorRegistry

from lab.controlplane import ControlPlane
from luban.adapters.clock import SystemClock
from luban.adapters.kubernetes_api import connect
from luban.adapters.probes_http import HttpProbes
from luban.api import names
from luban.controller.handlers import build_registry
from luban.controller.manager import Manager
from luban.core.model import BalancerReport, ClusterRef
from luban.core.usable_hosts import HostPolicy
from luban.ports import Ports
from luban.runtime.metrics import Metrics
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.operator_harness import cluster_body

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DEADLINE = 60.0
URI = "qemu+tls://host-b.example/system"


class NoBalancers:
    """Nobody answers."""

    async def report(self, cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        """See Balancers."""
        return BalancerReport(name, reachable=False, message="silent")

    async def close(self) -> None:
        """See Balancers."""


@asynccontextmanager
async def acting(kubeconfig: Path, namespace: str, policy: HostPolicy) -> AsyncIterator[FakeHypervisor]:
    """An operator with the rights of the real one, in one namespace, on hosts of our own."""
    foreign, stop, hypervisor = asyncio.all_tasks(), asyncio.Event(), FakeHypervisor(time.monotonic, boot_seconds=0.0)
    api = await connect(str(kubeconfig), follow=[namespace])
    ports = Ports(hypervisor, api, NoBalancers(), HttpProbes(), SystemClock())
    manager = Manager(ports, Metrics(CollectorRegistry()), policy)
    await manager.begin()
    tasks = await kopf.spawn_tasks(
        registry=build_registry(manager), standalone=True, namespaces=[namespace], stop_flag=stop
    )
    running = asyncio.ensure_future(kopf.run_tasks(tasks, ignored=foreign))
    try:
        yield hypervisor
    finally:
        await manager.stop()
        stop.set()
        await asyncio.wait({running}, timeout=DEADLINE)
        await ports.probes.close()
        await api.close()


async def until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is the wanted one; whoever calls has a deadline."""
    async for _ in polls():
        if await ask() == wanted:
            return


async def polls() -> AsyncIterator[None]:
    """Now, and again each tenth of a second."""
    while True:
        yield
        await asyncio.sleep(0.1)


class Admin:
    """kubectl with all rights, in one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane, self._namespace = plane, namespace

    async def run(self, *arguments: str, stdin: str | None = None) -> str:
        """One command."""
        return await asyncio.to_thread(self._plane.kubectl, *arguments, "-n", self._namespace, stdin=stdin)

    async def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Write an object."""
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self.run("apply", "-f", "-", stdin=json.dumps(body))

    async def items(self, plural: str) -> list[dict[str, Any]]:
        """All objects of a kind."""
        found: list[dict[str, Any]] = json.loads(await self.run("get", plural, "-o", "json"))["items"]
        return found

    async def condition(self) -> tuple[str, str]:
        """Status and reason of HostsAllowed."""
        (cluster,) = await self.items("lubanclusters")
        found = {it["type"]: it for it in cluster.get("status", {}).get("conditions", ())}.get("HostsAllowed", {})
        return found.get("status", ""), found.get("reason", "")

    async def until(self, condition: tuple[str, str]) -> None:
        """Wait for HostsAllowed to say so."""
        await until(self.condition, condition)


# kopf leaves its TLS connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_from_lubanhost_to_lubanvm(
    luban_base: ControlPlane, operator_kubeconfig: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(operator_kubeconfig))
    admin, spec = Admin(luban_base, namespace), cluster_body({})["spec"]
    libvirt = {"uri": URI, "namespaces": [namespace]}
    hosts = [{"name": "host-b", "forwardRange": "127.0.201.0/24", "vms": {"min": 1, "max": 3}}]
    async with acting(operator_kubeconfig, namespace, "Registered") as hypervisor, asyncio.timeout(DEADLINE):
        await admin.apply("LubanCluster", "luban", spec | {"hosts": hosts})
        await admin.until(("False", "HostNotRegistered"))
        assert await admin.items("lubanvms") == []
        await admin.apply("LubanHost", "host-b", {"libvirt": libvirt})
        await admin.until(("True", "AllAllowed"))
        async for _ in polls():
            if hypervisor.host("host-b").domains:
                break
        assert {vm["spec"]["hostURI"] for vm in await admin.items("lubanvms")} == {URI}
        await admin.apply("LubanHost", "host-b", {"libvirt": libvirt | {"namespaces": ["team-b"]}})
        await admin.until(("False", "NamespaceNotAllowed"))
        await admin.run("delete", "lubanhost", "host-b")
        await admin.until(("False", "HostNotRegistered"))
        assert hypervisor.host("host-b").domains, "they run on"
        await admin.run("delete", "lubancluster", "luban")
        assert await admin.items("lubanvms") == []
        assert not hypervisor.host("host-b").domains
