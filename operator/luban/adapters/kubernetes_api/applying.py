"""Server-side apply: the calls with which the operator makes objects, each owned by its LubanCluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luban.adapters.kubernetes_api.calls import APPLY_PATCH, CONFIG_MAPS, Call, Resource
from luban.api import names
from luban.core.model import ClusterRef

Metadata = dict[str, Any]


def owner_reference(cluster: ClusterRef) -> Metadata:
    """What makes an object part of the LubanCluster."""
    owner = {"apiVersion": names.API_VERSION, "kind": "LubanCluster", "name": cluster.name}
    return {**owner, "uid": cluster.uid, "controller": True}


def config_map_call(
    cluster: ClusterRef, name: str, data: Mapping[str, str], labels: Mapping[str, str], version: str
) -> Call:
    """A ConfigMap."""
    metadata = {"name": name, "labels": dict(labels)}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
    return apply_call(CONFIG_MAPS, cluster, body, version)


def apply_call(resource: Resource, cluster: ClusterRef, body: Mapping[str, Any], version: str) -> Call:
    """Server-side apply: what we applied before and leave out now is removed.

    `version`: resourceVersion of the one that was looked at; empty: there was none.
    """
    given = body["metadata"]
    labels = {**(given.get("labels") or {}), names.LABEL_CLUSTER: cluster.name}
    metadata: Metadata = {**given, "namespace": cluster.namespace, "labels": labels}
    if version:
        metadata["resourceVersion"] = version
    if cluster.uid:
        metadata["ownerReferences"] = [owner_reference(cluster)]
    return Call(
        "patch",
        resource,
        cluster.namespace,
        given["name"],
        query={"fieldManager": names.FIELD_MANAGER, "force": "true"},
        body={**body, "metadata": metadata},
        content_type=APPLY_PATCH,
    )
