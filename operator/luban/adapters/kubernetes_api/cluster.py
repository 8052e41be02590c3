"""ports.Cluster on a real API server."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from luban.adapters.kubernetes_api.applying import apply_call, config_map_call, owner_reference
from luban.adapters.kubernetes_api.cache import CLUSTER_FIELD, HOST_FIELD, Cache
from luban.adapters.kubernetes_api.calls import (
    CLUSTERS,
    CONFIG_MAPS,
    EVENTS,
    HOSTS,
    JSON_PATCH,
    LEASES,
    MERGE_PATCH,
    NAMESPACES,
    OBJECTS,
    SECRETS,
    STATEFUL_SETS,
    VMS,
    Call,
    Resource,
)
from luban.adapters.kubernetes_api.informer import Told
from luban.adapters.kubernetes_api.lists import census, selected
from luban.adapters.kubernetes_api.transport import Transport, open_transport
from luban.api import names
from luban.api.vm import Role
from luban.core.model import ClusterRef
from luban.core.orphans import Census
from luban.errors import Conflict, LubanError, NotFound, PermanentError

log = structlog.get_logger(__name__)

REPORTER = "luban.cloud/operator"
"""Events name it as their source."""
SYSTEM_NAMESPACE = "kube-system"
"""Every control plane has one of its own."""
EDIT_ATTEMPTS = 5
MOST_WATCHES = 10_000
"""Connections of watches: four for each namespace, where the operator looks after some alone."""
_NOTE_LIMIT = 1024
"""Characters that an Event's message may have."""

Metadata = dict[str, Any]


async def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    may_write: Callable[[], bool] = lambda: True,
    follow: Sequence[str] | None = None,
) -> KubernetesCluster:
    """Prepare access to the API server; nothing is sent yet. To be closed after use.

    `kubeconfig` is a path. None: $KUBECONFIG, else inside a Pod its ServiceAccount, else ~/.kube/config.
    `may_write` is asked before anything is written. `follow`: the namespaces (empty: all) whose objects are followed
    by watches instead of being read each time; None: none are. Raises PermanentError InvalidKubeconfig.
    """
    transport = await open_transport(kubeconfig, context, may_write=may_write)
    if follow is None:
        return KubernetesCluster(transport)
    watches = await open_transport(kubeconfig, context, connections=MOST_WATCHES)
    return KubernetesCluster(Cache(transport, watches, follow), follow)


class KubernetesCluster:
    """The Kubernetes API; see ports.Cluster for what each call promises."""

    def __init__(self, transport: Transport | Cache, namespaces: Sequence[str] = ()) -> None:
        """`namespaces`: those that the operator looks after; empty: all."""
        self._transport, self._namespaces = transport, tuple(namespaces)
        self._plane = ""
        self._unselectable: set[str] = set()
        """Fields of LubanVMs that the API server cannot select by."""

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def begin_anew(self) -> None:
        """Believe nothing of what was known."""
        if isinstance(self._transport, Cache):
            await self._transport.begin_anew()

    async def follow_vms(self, told: Told) -> None:
        """Tell of each LubanVM that this operator looks after, and of what becomes of it."""
        await self._follow(VMS, told)

    async def follow_hosts(self, told: Told) -> None:
        """Tell of each LubanHost, and of what becomes of it."""
        await self._follow(HOSTS, told)

    async def _follow(self, resource: Resource, told: Told) -> None:
        if not isinstance(self._transport, Cache):
            raise TypeError("connect() was not told what to follow")
        await self._transport.follow(resource, told)

    async def plane(self) -> str:
        """uid of the namespace kube-system, which lasts as long as the control plane's data."""
        if not self._plane:
            try:
                found = await self._read(NAMESPACES, "", SYSTEM_NAMESPACE)
            except LubanError as error:
                log.warning("this control plane cannot be told from others", reason=error.reason, error=error.message)
                return ""
            self._plane = str(found["metadata"]["uid"]) if found is not None else ""
        return self._plane

    async def census(self) -> Census:
        """All LubanVMs and LubanClusters, as the API server has them now."""
        return await census(self._transport)

    async def list_vms(self, cluster: ClusterRef, *, live: bool = False) -> list[dict[str, Any]]:
        """LubanVM objects of the cluster, by the field that cannot change: a label that somebody takes off hides none.

        It shows every write of ours: a LIST without a resourceVersion is consistent, and a watch is merged with them.
        """
        call = Call("list", VMS, cluster.namespace, may_lag=not live)
        return await selected(self._transport, call, CLUSTER_FIELD, cluster.name, self._unselectable)

    async def list_vms_on(self, host: str) -> list[dict[str, Any]]:
        """LubanVM objects that name the host, of all clusters that this operator looks after."""
        calls = (Call("list", VMS, namespace, may_lag=True) for namespace in self._namespaces or ("",))
        return [
            it for call in calls for it in await selected(self._transport, call, HOST_FIELD, host, self._unselectable)
        ]

    async def create_vm(self, cluster: ClusterRef, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a LubanVM."""
        return await self._transport.send(
            Call("create", VMS, cluster.namespace, query={"fieldManager": names.FIELD_MANAGER}, body=dict(body))
        )

    async def assign_vm(self, cluster: ClusterRef, name: str, role: Role) -> None:
        """Change what a LubanVM is for."""
        body = {"spec": {"role": role}}
        with suppress(NotFound):
            await self._transport.send(Call("patch", VMS, cluster.namespace, name, body=body, content_type=MERGE_PATCH))

    async def delete_vm(self, cluster: ClusterRef, name: str) -> None:
        """Ask for a LubanVM's deletion."""
        with suppress(NotFound):
            await self._transport.send(Call("delete", VMS, cluster.namespace, name))

    async def patch_vm_status(
        self, cluster: ClusterRef, name: str, status: Mapping[str, Any], *, version: str = ""
    ) -> None:
        """Replace a LubanVM's status."""
        await self._replace_status(VMS, cluster.namespace, name, status, version)

    async def read_cluster(self, cluster: ClusterRef) -> dict[str, Any] | None:
        """The LubanCluster; None: it is gone, or another one has its name."""
        found = await self._read(CLUSTERS, cluster.namespace, cluster.name)
        return found if found is not None and cluster.uid in ("", found["metadata"]["uid"]) else None

    async def patch_cluster_status(self, cluster: ClusterRef, status: Mapping[str, Any], *, version: str = "") -> str:
        """Replace the LubanCluster's status; its resourceVersion then."""
        return await self._replace_status(CLUSTERS, cluster.namespace, cluster.name, status, version)

    async def release_vm(self, cluster: ClusterRef, name: str) -> None:
        """Remove our finalizer from a LubanVM."""
        await self._edit(VMS, cluster, name, _without_finalizer)

    async def orphan_vm(self, cluster: ClusterRef, name: str) -> None:
        """Remove our finalizer and the owner reference from a LubanVM."""
        await self._edit(VMS, cluster, name, lambda old: _without_finalizer(old) | _without_owner(old))

    async def adopt_vm(self, cluster: ClusterRef, name: str) -> None:
        """Give a LubanVM without an owner to the cluster, with our finalizer."""
        await self._edit(VMS, cluster, name, lambda old: _adopted(old, cluster))

    async def apply_config_map(
        self, cluster: ClusterRef, name: str, data: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """Create or replace a ConfigMap. A ClusterRef without a uid leaves it without an owner.

        Raises PermanentError ForeignConfigMap if there is one that does not carry our label: it is left alone.
        """
        found = await self._read(CONFIG_MAPS, cluster.namespace, name)
        if found is not None and not _is_ours(found, cluster):
            raise PermanentError(
                "ForeignConfigMap",
                f"ConfigMap {cluster.namespace}/{name} is in the way: it does not carry the label "
                f"{names.LABEL_CLUSTER}={cluster.name}, so it is not ours; delete it or give it another name",
            )
        version = found["metadata"]["resourceVersion"] if found is not None else ""
        await self._transport.send(config_map_call(cluster, name, data, labels, version))

    async def read_config_map(self, cluster: ClusterRef, name: str, *, ours: bool = False) -> dict[str, str] | None:
        """Data of a ConfigMap; None: not there. `ours`: one with our label that nobody has deleted yet."""
        found = await self._read(CONFIG_MAPS, cluster.namespace, name, may_lag=True)
        if found is None or (ours and not (_is_ours(found, cluster) and _stays(found))):
            return None
        return dict(found.get("data") or {})

    async def disown_config_map(self, cluster: ClusterRef, name: str) -> None:
        """Remove the owner reference from a ConfigMap, whosever it is by its label: a claim of ours is given up."""
        await self._edit(CONFIG_MAPS, cluster, name, _without_owner)

    async def apply_object(self, cluster: ClusterRef, body: Mapping[str, Any]) -> None:
        """Create an object or make it like `body`. Raises PermanentError ForeignObject if one is not ours."""
        kind, name = str(body["kind"]), str(body["metadata"]["name"])
        found = await self._read(OBJECTS[kind], cluster.namespace, name)
        if found is not None and not _is_ours(found, cluster):
            raise PermanentError(
                "ForeignObject",
                f"{kind} {cluster.namespace}/{name} is in the way: it does not carry the label "
                f"{names.LABEL_CLUSTER}={cluster.name}, so it is not ours; delete it or give it another name",
            )
        version = found["metadata"]["resourceVersion"] if found is not None else ""
        await self._transport.send(apply_call(OBJECTS[kind], cluster, body, version))

    async def read_balancer_set(self, cluster: ClusterRef, name: str) -> dict[str, Any] | None:
        """A StatefulSet of ours."""
        found = await self._read(STATEFUL_SETS, cluster.namespace, name, may_lag=True)
        return found if found is not None and _is_ours(found, cluster) else None

    async def disown_object(self, cluster: ClusterRef, kind: str, name: str) -> None:
        """Remove the owner reference from an object."""
        await self._edit(OBJECTS[kind], cluster, name, _without_owner)

    async def delete_config_map(self, cluster: ClusterRef, name: str) -> None:
        """Delete a ConfigMap of ours; one that does not carry our label is left alone."""
        await self._delete(CONFIG_MAPS, cluster, name)

    async def delete_lease(self, cluster: ClusterRef, balancer: str) -> None:
        """Delete a balancer's Lease; one that does not carry our label is left alone."""
        await self._delete(LEASES, cluster, balancer)

    async def _delete(self, resource: Resource, cluster: ClusterRef, name: str) -> None:
        found = await self._read(resource, cluster.namespace, name)
        if found is None or not _is_ours(found, cluster):
            return
        # Only the one that we looked at: another of that name may be somebody else's.
        options = {"preconditions": {"uid": found["metadata"]["uid"]}}
        with suppress(NotFound):
            await self._transport.send(Call("delete", resource, cluster.namespace, name, body=options))

    async def read_secret(self, cluster: ClusterRef, name: str, key: str) -> str:
        """Text of a Secret's key. Raises PermanentError SecretNotFound, SecretKeyNotFound, SecretNotText."""
        where = f"Secret {cluster.namespace}/{name}"
        found = await self._read(SECRETS, cluster.namespace, name)
        if found is None:
            raise PermanentError("SecretNotFound", f"{where} is not there: create it")
        if key not in (found.get("data") or {}):
            raise PermanentError("SecretKeyNotFound", f"{where} has no key {key}: add it")
        try:
            return base64.b64decode(found["data"][key]).decode()
        except UnicodeDecodeError as error:
            raise PermanentError("SecretNotText", f"{where}, key {key}, is not UTF-8 text: {error}") from error

    async def balancer_endpoint(self, cluster: ClusterRef, balancer: str) -> str | None:
        """Base URL of a balancer's agent; None: none has reported."""
        found = await self._read(LEASES, cluster.namespace, balancer, may_lag=True)
        annotations = (found or {}).get("metadata", {}).get("annotations") or {}
        return annotations.get(names.ANNOTATION_AGENT_ENDPOINT) or None

    async def event(
        self,
        cluster: ClusterRef,
        *,
        kind: str,
        name: str,
        uid: str,
        type_: str,
        reason: str,
        message: str,
        series: str = "",
        times: int = 1,
    ) -> None:
        """Record an Event. The same once more does not add one but counts the first one up."""
        about = {"kind": kind, "namespace": cluster.namespace, "name": name, "uid": uid}
        body = _event(about, type_, reason, message[:_NOTE_LIMIT], series) | {"count": times}
        try:
            await self._transport.send(Call("create", EVENTS, cluster.namespace, body=body))
        except Conflict:
            await self._count_up(cluster.namespace, body)

    async def _count_up(self, namespace: str, body: Mapping[str, Any]) -> None:
        name = body["metadata"]["name"]
        found = await self._read(EVENTS, namespace, name)
        if found is None:
            return
        news = {
            "count": int(found.get("count") or 1) + body["count"],
            "lastTimestamp": body["lastTimestamp"],
            "message": body["message"],
        }
        with suppress(NotFound):
            await self._transport.send(Call("patch", EVENTS, namespace, name, body=news, content_type=MERGE_PATCH))

    async def _read(
        self, resource: Resource, namespace: str, name: str, *, may_lag: bool = False
    ) -> dict[str, Any] | None:
        try:
            return await self._transport.send(Call("get", resource, namespace, name, may_lag=may_lag))
        except NotFound:
            return None

    async def _replace_status(
        self, resource: Resource, namespace: str, name: str, status: Mapping[str, Any], version: str
    ) -> str:
        # `add` replaces the whole status; a merge patch would keep fields that are no longer set.
        patch = [{"op": "add", "path": "/status", "value": dict(status)}]
        if version:
            # One that was paused while another took over must not overwrite what that one wrote.
            patch.append({"op": "add", "path": "/metadata/resourceVersion", "value": version})
        call = Call("patch", resource.status, namespace, name, body=patch, content_type=JSON_PATCH)
        try:
            return str((await self._transport.send(call))["metadata"]["resourceVersion"])
        except NotFound:
            return ""

    async def _edit(
        self, resource: Resource, cluster: ClusterRef, name: str, change: Callable[[Metadata], Metadata]
    ) -> None:
        """Patch metadata with what `change` makes of it, on exactly the version that it saw."""
        for attempt in range(1, EDIT_ATTEMPTS + 1):
            found = await self._read(resource, cluster.namespace, name)
            changed = change(found["metadata"]) if found else {}
            if found is None or not changed:
                return
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            patch = {"metadata": changed | version}
            try:
                await self._transport.send(
                    Call("patch", resource, cluster.namespace, name, body=patch, content_type=MERGE_PATCH)
                )
            except NotFound:
                return
            except Conflict:
                if attempt == EDIT_ATTEMPTS:
                    raise
            else:
                return


def _without_finalizer(old: Metadata) -> Metadata:
    """What to patch so that our finalizer goes and all others stay; empty: nothing."""
    finalizers = old.get("finalizers") or []
    if names.FINALIZER_VM not in finalizers:
        return {}
    return {"finalizers": [item for item in finalizers if item != names.FINALIZER_VM]}


def _without_owner(old: Metadata) -> Metadata:
    """What to patch so that no LubanCluster owns it; empty: nothing."""
    owners = old.get("ownerReferences") or []
    others = [owner for owner in owners if owner["kind"] != "LubanCluster"]
    return {"ownerReferences": others} if len(others) < len(owners) else {}


def _adopted(old: Metadata, cluster: ClusterRef) -> Metadata:
    """What to patch so that the cluster owns it; empty: nothing, as somebody does or it is to be deleted."""
    owners, finalizers = old.get("ownerReferences") or [], old.get("finalizers") or []
    if old.get("deletionTimestamp") or any(owner["kind"] == "LubanCluster" for owner in owners):
        return {}
    return {
        "ownerReferences": [*owners, owner_reference(cluster) | {"blockOwnerDeletion": True}],
        "finalizers": [*(it for it in finalizers if it != names.FINALIZER_VM), names.FINALIZER_VM],
        "annotations": {names.ANNOTATION_ADOPTED: "true"},
    }


def _is_ours(found: Mapping[str, Any], cluster: ClusterRef) -> bool:
    labels = found["metadata"].get("labels") or {}
    return bool(labels.get(names.LABEL_CLUSTER) == cluster.name)


def _stays(found: Mapping[str, Any]) -> bool:
    """Whether nobody has deleted it; somebody's finalizer may keep it even then."""
    return not found["metadata"].get("deletionTimestamp")


def _event(about: Mapping[str, str], type_: str, reason: str, message: str, series: str) -> dict[str, Any]:
    """An Event whose name follows from what it says, or from its series, so that the same event has the same name."""
    said = "\0".join((about["uid"], type_, reason, series or message))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{about['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": about["namespace"],
        },
        "involvedObject": {"apiVersion": names.API_VERSION, **about},
        "type": type_,
        "reason": reason,
        "message": message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "reportingInstance": names.FIELD_MANAGER,
    }
