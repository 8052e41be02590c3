"""ports.LubanHosts on a real API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luban.adapters.kubernetes_api.calls import APPLY_PATCH, HOSTS, Call, Resource
from luban.adapters.kubernetes_api.transport import Transport, open_transport
from luban.api import names
from luban.errors import NotFound


async def connect_hosts(kubeconfig: str | None = None, context: str | None = None) -> KubernetesHosts:
    """Prepare access to the API server; nothing is sent yet. To be closed after use.

    `kubeconfig` is a path. None: $KUBECONFIG, else inside a Pod its ServiceAccount, else ~/.kube/config.
    Raises PermanentError InvalidKubeconfig.
    """
    return KubernetesHosts(await open_transport(kubeconfig, context))


class KubernetesHosts:
    """LubanHosts; see ports.LubanHosts for what each call promises."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def read(self, name: str) -> dict[str, Any] | None:
        """The LubanHost; None: there is none yet."""
        try:
            return await self._transport.send(Call("get", HOSTS, "", name))
        except NotFound:
            return None

    async def write(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Make this the LubanHost's whole status (server-side apply: what is left out is removed)."""
        try:
            return await self._transport.send(_apply(HOSTS.status, name, {"status": dict(status)}))
        except NotFound:
            # Without a spec: that is an administrator's, and no field of it becomes ours.
            await self._transport.send(_apply(HOSTS, name, {}))
            return await self._transport.send(_apply(HOSTS.status, name, {"status": dict(status)}))


def _apply(resource: Resource, name: str, part: Mapping[str, Any]) -> Call:
    return Call(
        "patch",
        resource,
        "",
        name,
        query={"fieldManager": names.NODE_AGENT_FIELD_MANAGER, "force": "true"},
        body={"apiVersion": names.API_VERSION, "kind": "LubanHost", "metadata": {"name": name}, **part},
        content_type=APPLY_PATCH,
    )
