"""What a balancer agent does with a real API server: follow its ConfigMap, announce itself on its Lease.

It works as the ServiceAccount of manifests/base, so that these tests also show that its rights are enough.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient

from lab.controlplane import ControlPlane
from luban.adapters.kubernetes_api.watch import ConfigMapSource, EndpointLease, open_api
from luban.api import names
from luban.errors import PermanentError

# The first test may have to build kube-apiserver: minutes on two cores, once for each machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

NAMESPACE = "luban-system"
CLUSTER = "luban"
"""The cluster whose balancer the Role of manifests/base is for."""
NAME = names.balancer_name(CLUSTER, 0)
SECONDS = 20.0


@pytest.fixture
async def api(luban_base: ControlPlane) -> AsyncIterator[ApiClient]:
    """A client with the agent's rights."""
    path = luban_base.layout.state / "balancer.kubeconfig"
    await asyncio.to_thread(luban_base.service_account_kubeconfig, NAMESPACE, "luban-balancer", path)
    client = await open_api(str(path))
    yield client
    await client.close()  # type: ignore[no-untyped-call]
    for kind in ("configmap", "lease"):
        luban_base.kubectl("delete", kind, NAME, "--namespace", NAMESPACE, "--ignore-not-found")


def apply(plane: ControlPlane, data: Mapping[str, str] | None) -> None:
    """Make the ConfigMap hold this; None: delete it."""
    if data is None:
        plane.kubectl("delete", "configmap", NAME, "--namespace", NAMESPACE, "--ignore-not-found")
        return
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": dict(data),
    }
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(body))


class Follower:
    """Follows the ConfigMap and remembers what came last."""

    def __init__(self, source: ConfigMapSource) -> None:
        self.count = 0
        self._last: Mapping[str, str] | None = None
        self._came = asyncio.Condition()
        self._task = asyncio.create_task(self._follow(source))

    async def _follow(self, source: ConfigMapSource) -> None:
        async for data in source.changes():
            async with self._came:
                self._last = data
                self.count += 1
                self._came.notify_all()

    async def sees(self, data: Mapping[str, str] | None) -> None:
        """Wait until this is what came last."""
        async with asyncio.timeout(SECONDS), self._came:
            await self._came.wait_for(lambda: self.count > 0 and self._last == data)

    async def more(self, than: int) -> None:
        """Wait until more came."""
        async with asyncio.timeout(SECONDS), self._came:
            await self._came.wait_for(lambda: self.count > than)

    async def close(self) -> None:
        """Stop following."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_every_change_comes_at_once(luban_base: ControlPlane, api: ApiClient) -> None:
    apply(luban_base, None)
    follower = Follower(ConfigMapSource(api, NAMESPACE, NAME))
    try:
        await follower.sees(None)
        for data in ({"balancer.json": "one"}, {"balancer.json": "two"}, {"balancer.json": "x" * 700_000}):
            await asyncio.to_thread(apply, luban_base, data)
            await follower.sees(data)
        await asyncio.to_thread(apply, luban_base, None)
        await follower.sees(None)
    finally:
        await follower.close()


async def test_a_restarted_api_server_is_found_again(luban_base: ControlPlane, api: ApiClient) -> None:
    apply(luban_base, {"balancer.json": "before"})
    follower = Follower(ConfigMapSource(api, NAMESPACE, NAME))
    try:
        await follower.sees({"balancer.json": "before"})
        await asyncio.to_thread(luban_base.restart_api_server)
        await asyncio.to_thread(apply, luban_base, {"balancer.json": "after"})
        await follower.sees({"balancer.json": "after"})
    finally:
        await follower.close()


async def test_a_watch_ends_and_begins_anew(luban_base: ControlPlane, api: ApiClient) -> None:
    apply(luban_base, {"balancer.json": "same"})
    follower = Follower(ConfigMapSource(api, NAMESPACE, NAME, watch_seconds=1))
    try:
        await follower.more(than=2)
        await follower.sees({"balancer.json": "same"})
    finally:
        await follower.close()


async def test_without_rights_nothing_comes_and_nothing_breaks(luban_base: ControlPlane, api: ApiClient) -> None:
    follower = Follower(ConfigMapSource(api, NAMESPACE, "other-balancer-0"))
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await follower.more(than=0)
    finally:
        await follower.close()


def lease(plane: ControlPlane) -> dict[str, object]:
    """Metadata of the Lease that tests may rely on."""
    metadata = json.loads(plane.kubectl("get", "lease", NAME, "--namespace", NAMESPACE, "-o", "json"))["metadata"]
    return {key: metadata.get(key) for key in ("labels", "annotations", "resourceVersion")}


async def test_the_endpoint_is_written_once_and_again_only_if_it_is_gone(
    luban_base: ControlPlane, api: ApiClient
) -> None:
    announcer = EndpointLease(api, NAMESPACE, CLUSTER, 0)
    assert await announcer.announce("http://10.0.0.7:9180")
    first = lease(luban_base)
    assert first["labels"] == {names.LABEL_CLUSTER: CLUSTER}
    assert first["annotations"] == {names.ANNOTATION_AGENT_ENDPOINT: "http://10.0.0.7:9180"}
    assert await announcer.announce("http://10.0.0.7:9180")
    assert lease(luban_base) == first, "nothing was written"
    luban_base.kubectl(
        "annotate", "lease", NAME, "--namespace", NAMESPACE, "--overwrite", "other=kept", "luban.cloud/agent-endpoint-"
    )
    assert await announcer.announce("http://10.0.0.8:9180")
    assert lease(luban_base)["annotations"] == {
        names.ANNOTATION_AGENT_ENDPOINT: "http://10.0.0.8:9180",
        "other": "kept",
    }
    luban_base.kubectl("delete", "lease", NAME, "--namespace", NAMESPACE)
    assert await announcer.announce("http://10.0.0.8:9180")
    assert lease(luban_base)["annotations"] == {names.ANNOTATION_AGENT_ENDPOINT: "http://10.0.0.8:9180"}


async def test_a_lease_that_cannot_be_written_is_tried_later(api: ApiClient) -> None:
    assert not await EndpointLease(api, "kube-system", CLUSTER, 0).announce("http://10.0.0.7:9180")


@pytest.mark.parametrize("text", ["", "[]", "{}", "clusters: 5", ":\n:"])
async def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(PermanentError) as refused:
        await open_api(str(path))
    assert refused.value.reason == "InvalidKubeconfig"
