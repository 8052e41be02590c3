"""Reads that a watch can answer, answered by it: a steady cluster asks the API server nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from luban.adapters.kubernetes_api.calls import CONFIG_MAPS, LEASES, VMS, Call, Resource
from luban.adapters.kubernetes_api.informer import Body, Informer, Scope
from luban.adapters.kubernetes_api.transport import Transport
from luban.api import names

CLUSTER_FIELD = "spec.clusterName="
"""Field selector of LubanVMs by their cluster."""


def _cluster_of(body: Mapping[str, Any]) -> str:
    return str(body["spec"]["clusterName"])


WATCHED: Mapping[Resource, Scope] = {
    VMS: Scope(VMS, "", group=_cluster_of),
    # Not everybody's: those that bear the label of a cluster.
    CONFIG_MAPS: Scope(CONFIG_MAPS, "", names.LABEL_CLUSTER),
    LEASES: Scope(LEASES, "", names.LABEL_CLUSTER),
}
"""What is followed, in all namespaces."""


class Cache:
    """Sends calls as a Transport does, but answers those that may lag from what it follows.

    `namespaces`: those that the operator looks after; empty: all. A resource is followed from its first such call on.
    """

    def __init__(self, transport: Transport, namespaces: Sequence[str] = ()) -> None:
        self._transport = transport
        self._everywhere = not namespaces
        self._informers: dict[tuple[Resource, str], Informer] = {}

    async def send(self, call: Call) -> dict[str, Any]:
        """See Transport.send. What is answered from here is not to be changed."""
        if call.may_lag and (known := self._known(call)) is not None:
            return known
        answer = await self._transport.send(call)
        if call.writes:
            self._merge(call, answer)
        return answer

    async def close(self) -> None:
        """Follow no more, and close all connections."""
        await asyncio.gather(*(informer.close() for informer in self._informers.values()))
        await self._transport.close()

    def _known(self, call: Call) -> dict[str, Any] | None:
        """The answer, if it is known. That an object is not there is not: it may lack the label."""
        informer = self._informer(call)
        if not informer.current:
            return None
        if call.verb == "get":
            return informer.store.get(call.namespace, call.name)
        cluster = call.query["fieldSelector"].removeprefix(CLUSTER_FIELD)
        return {"items": informer.store.group(call.namespace, cluster)}

    def _informer(self, call: Call) -> Informer:
        where = "" if self._everywhere else call.namespace
        key = (call.resource, where)
        if key not in self._informers:
            scope = WATCHED[call.resource]
            self._informers[key] = Informer(self._transport, Scope(scope.resource, where, scope.selector, scope.group))
        return self._informers[key]

    def _merge(self, call: Call, answer: Body) -> None:
        """Our own write is known before the watch tells of it."""
        resource = Resource(call.resource.group, call.resource.version, call.resource.plural)
        informer = self._informers.get((resource, "" if self._everywhere else call.namespace))
        if informer is None:
            return
        if answer.get("kind") == "Status":
            informer.store.remove(call.namespace, call.name, str((answer.get("details") or {}).get("uid")))
        elif resource == VMS or names.LABEL_CLUSTER in (answer["metadata"].get("labels") or {}):
            informer.store.put(answer)
