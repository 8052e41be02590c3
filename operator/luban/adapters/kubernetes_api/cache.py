"""Reads that a watch can answer, answered by it: a steady cluster asks the API server nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from luban.adapters.kubernetes_api.calls import CONFIG_MAPS, HOSTS, LEASES, STATEFUL_SETS, VMS, Call, Resource
from luban.adapters.kubernetes_api.informer import Body, Index, Informer, Scope, Told
from luban.adapters.kubernetes_api.transport import Transport
from luban.api import names
from luban.errors import NotFound

CLUSTER_FIELD, HOST_FIELD = "spec.clusterName", "spec.host"
"""Fields that LubanVMs can be selected by."""
VM_INDEXES = (
    Index(CLUSTER_FIELD, lambda body: str(body["spec"]["clusterName"])),
    Index(HOST_FIELD, lambda body: str(body["spec"]["host"]), across=True),
)
CONFIG_MAP_PAGE = 20
"""ConfigMaps in one answer: each may have a megabyte."""


def _is_balancers(body: Mapping[str, Any]) -> bool:
    labels, name = body["metadata"].get("labels") or {}, body["metadata"]["name"]
    return bool(name == names.balancer_name(labels.get(names.LABEL_CLUSTER, ""), names.ordinal_of(name)))


WATCHED: Mapping[Resource, Scope] = {
    VMS: Scope(VMS, "", indexes=VM_INDEXES, shared=("spec", "template")),
    # Not everybody's: those that bear the label of a cluster, and a name that one of it has.
    CONFIG_MAPS: Scope(CONFIG_MAPS, "", names.LABEL_CLUSTER, keeps=_is_balancers, page=CONFIG_MAP_PAGE),
    LEASES: Scope(LEASES, "", names.LABEL_CLUSTER, keeps=_is_balancers),
    STATEFUL_SETS: Scope(STATEFUL_SETS, "", names.LABEL_CLUSTER),
    HOSTS: Scope(HOSTS, ""),
}
"""What is followed, in all namespaces."""


class Cache:
    """Sends calls as a Transport does, but answers those that may lag from what it follows.

    `namespaces`: those that the operator looks after; empty: all. A resource is followed from its first such call on.
    """

    def __init__(self, transport: Transport, watches: Transport, namespaces: Sequence[str] = ()) -> None:
        """`watches`: a transport of their own, as each holds a connection for as long as it lasts."""
        self._transport, self._watches = transport, watches
        self._namespaces = tuple(namespaces)
        self._informers: dict[tuple[Resource, str], Informer] = {}

    async def send(self, call: Call) -> dict[str, Any]:
        """See Transport.send. What is answered from here is not to be changed."""
        if call.may_lag and (known := self._known(call)) is not None:
            return known
        try:
            answer = await self._transport.send(call)
        except NotFound:
            self._evict(call)
            raise
        if call.writes:
            self._merge(call, answer)
        return answer

    async def follow(self, resource: Resource, told: Told) -> None:
        """Tell of all objects of a resource, before this returns, and of each change until all begins anew."""
        everywhere = not self._namespaces or resource == HOSTS
        for namespace in ("",) if everywhere else self._namespaces:
            await self._informer(resource, namespace).tell(told)

    async def begin_anew(self) -> None:
        """Believe nothing of what was known: a watch may have been dead for a while without anybody's noticing."""
        informers, self._informers = self._informers, {}
        await asyncio.gather(*(informer.close() for informer in informers.values()))

    async def close(self) -> None:
        """Follow no more, and close all connections."""
        await self.begin_anew()
        await self._watches.close()
        await self._transport.close()

    def _known(self, call: Call) -> dict[str, Any] | None:
        """The answer, if it is known. That an object is not there is not: it may lack the label."""
        informer = self._informer(call.resource, call.namespace)
        if not informer.current:
            return None
        if call.verb == "get":
            return informer.store.get(call.namespace, call.name)
        field, _, value = call.query["fieldSelector"].partition("=")
        return {"items": informer.store.select(field, call.namespace, value)}

    def _informer(self, resource: Resource, namespace: str) -> Informer:
        where = namespace if self._namespaces else ""
        key = (resource, where)
        if key not in self._informers:
            scope = WATCHED[resource]
            self._informers[key] = Informer(self._watches, replace(scope, namespace=where))
        return self._informers[key]

    def _merge(self, call: Call, answer: Body) -> None:
        """Our own write is known before the watch tells of it."""
        informer = self._following(call)
        if informer is None:
            return
        if answer.get("kind") == "Status":
            informer.store.remove(call.namespace, call.name, str((answer.get("details") or {}).get("uid")))
        else:
            informer.merge(answer)

    def _evict(self, call: Call) -> None:
        """The API server says that something is not there."""
        informer = self._following(call)
        known = informer.store.get(call.namespace, call.name) if informer is not None else None
        if informer is not None and known is not None:
            informer.store.remove(call.namespace, call.name, known["metadata"]["uid"])

    def _following(self, call: Call) -> Informer | None:
        """Who follows what a call is about; None: nobody."""
        resource = Resource(call.resource.group, call.resource.version, call.resource.plural)
        return self._informers.get((resource, call.namespace if self._namespaces else ""))
