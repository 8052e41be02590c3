"""A deletion that takes long, as kopf runs it against a real API server: it ends, and writes nothing of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest

from lab.controlplane import ControlPlane
from luban.adapters.kubernetes_api import connect
from luban.controller.handlers import build_registry
from luban.core.model import ClusterRef
from luban.ports import Cluster
from tests.fakes.operator_harness import cluster_body

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DEADLINE = 60.0


class Slow:
    """Stands for the manager: a deletion that writes five statuses, and ends when it is told to."""

    def __init__(self, api: Cluster) -> None:
        self.api, self.deletions, self.ready = api, 0, asyncio.Event()
        self.cared, self.written = asyncio.Event(), asyncio.Event()

    async def reconcile(self, _body: dict[str, Any], stopped: asyncio.Event) -> bool:
        """See Manager."""
        self.cared.set()
        await stopped.wait()
        return False

    async def delete(self, body: dict[str, Any]) -> bool:
        """See Manager."""
        self.deletions += 1
        ref = ClusterRef(body["metadata"]["namespace"], body["metadata"]["name"], body["metadata"]["uid"])
        for number in range(5):
            await self.api.patch_cluster_status(ref, {"phase": "Deleting", "summary": f"{number}/5"})
        self.written.set()
        await self.ready.wait()
        return True

    def changed(self, _body: dict[str, Any]) -> None:
        """See Manager."""

    def forget(self, _uid: str) -> None:
        """See Manager."""


@asynccontextmanager
async def acting(kubeconfig: Path, namespace: str) -> AsyncIterator[Slow]:
    """kopf with the rights of the operator, in one namespace.

    No fixture: kopf, at its end, cancels all tasks that were begun since.
    """
    foreign, stop = asyncio.all_tasks(), asyncio.Event()
    api = await connect(str(kubeconfig))
    found = Slow(api)
    registry = build_registry(found)  # type: ignore[arg-type]
    tasks = await kopf.spawn_tasks(registry=registry, standalone=True, namespaces=[namespace], stop_flag=stop)
    running = asyncio.ensure_future(kopf.run_tasks(tasks, ignored=foreign))
    try:
        yield found
    finally:
        stop.set()
        await asyncio.wait({running}, timeout=DEADLINE)
        await api.close()


def read(plane: ControlPlane, namespace: str) -> dict[str, Any] | None:
    """The LubanCluster."""
    text = plane.kubectl("get", "lc", "luban", "-n", namespace, "-o", "json", "--ignore-not-found")
    return json.loads(text) if text.strip() else None


# kopf leaves its TLS connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_it_ends_and_leaves_no_word_of_its_own(
    luban_base: ControlPlane, operator_kubeconfig: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(operator_kubeconfig))
    body = cluster_body({})
    body["metadata"] = {"name": "luban", "namespace": namespace}
    async with acting(operator_kubeconfig, namespace) as manager, asyncio.timeout(DEADLINE):
        await asyncio.to_thread(luban_base.kubectl, "apply", "-f", "-", stdin=json.dumps(body))
        await manager.cared.wait()
        await asyncio.to_thread(luban_base.kubectl, "delete", "lc", "luban", "-n", namespace, "--wait=false")
        await manager.written.wait()
        found = await asyncio.to_thread(read, luban_base, namespace)
        assert found is not None
        assert "kopf.luban.cloud/delete" not in found["metadata"].get("annotations", {})
        manager.ready.set()
        wait = ("wait", "--for=delete", "lc/luban", "-n", namespace, f"--timeout={DEADLINE:g}s")
        await asyncio.to_thread(luban_base.kubectl, *wait)
    assert manager.deletions == 1
