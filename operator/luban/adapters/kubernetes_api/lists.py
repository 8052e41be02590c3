"""Lists of objects: whole ones, page by page, and selected ones, also where the API server cannot select."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import structlog

from luban.adapters.kubernetes_api.calls import CLUSTERS, VMS, Call, Resource
from luban.core.orphans import Census
from luban.errors import PermanentError

log = structlog.get_logger(__name__)

Body = dict[str, Any]
PAGE = 500
"""Objects in one answer; the rest follows in further ones, as of the same moment."""


class Sends(Protocol):
    """Sends calls, as a Transport does."""

    async def send(self, call: Call) -> dict[str, Any]:
        """See Transport.send."""


async def everything(api: Sends, resource: Resource, namespace: str = "") -> AsyncIterator[Body]:
    """All objects, as the API server has them now. `namespace` empty: in all of them. Raises LubanError."""
    going_on: dict[str, str] = {}
    while True:
        answer = await api.send(Call("list", resource, namespace, query={"limit": str(PAGE), **going_on}))
        for body in answer["items"]:
            yield body
        if not (token := (answer.get("metadata") or {}).get("continue")):
            return
        going_on = {"continue": token}


async def selected(api: Sends, call: Call, field: str, value: str, told: set[str]) -> list[Body]:
    """Objects that a call lists, of which a field under `spec` has a value. Raises LubanError.

    CRDs of an earlier version do not let every field be selected by: then all are listed, and sorted out here. `told`:
    fields of which the log has that already.
    """
    try:
        return list((await api.send(_selecting(call, field, value)))["items"])
    except PermanentError as error:
        if error.reason != "BadRequest":
            raise
        if field not in told:
            told.add(field)
            log.warning("the API server cannot select: apply the CRDs of this version", field=field, why=error.message)
    bodies = everything(api, call.resource, call.namespace)
    return [body async for body in bodies if _value(body, field) == value]


def _selecting(call: Call, field: str, value: str) -> Call:
    query = {**call.query, "fieldSelector": f"{field}={value}"}
    return Call(call.verb, call.resource, call.namespace, query=query, may_lag=call.may_lag)


def _value(body: Mapping[str, Any], field: str) -> object:
    return (body.get("spec") or {}).get(field.removeprefix("spec."))


async def census(api: Sends) -> Census:
    """All LubanVMs and LubanClusters. Raises LubanError."""
    vms = [str(it["metadata"]["uid"]) async for it in everything(api, VMS)]
    clusters = [it["metadata"] async for it in everything(api, CLUSTERS)]
    return Census(frozenset(vms), frozenset((str(it["namespace"]), str(it["name"])) for it in clusters))
