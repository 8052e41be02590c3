"""ports.Cluster in memory: what the API server does with our objects, without one.

It keeps to the contract in tests/contract/test_cluster_contract.py: resource versions, defaults and validation by
the models, finalizers, the status apart from the spec. Like the lab's control plane it collects no garbage:
dependents of a deleted owner stay.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from luban.api import names
from luban.api.cluster import LubanCluster
from luban.api.cluster_status import LubanClusterStatus
from luban.api.common import Model
from luban.api.vm import LubanVM, LubanVMStatus, Role
from luban.core.model import ClusterRef
from luban.core.orphans import Census
from luban.errors import Conflict, LubanError, PermanentError
from luban.ports import Cluster

Body = dict[str, Any]
Told = Callable[[Body, bool], None]
T = TypeVar("T")

_MODELS: Mapping[str, type[LubanCluster | LubanVM]] = {"LubanCluster": LubanCluster, "LubanVM": LubanVM}
_STATUS: Mapping[str, type[Model]] = {"LubanCluster": LubanClusterStatus, "LubanVM": LubanVMStatus}


@dataclass(frozen=True)
class RecordedEvent:
    """An Event as it was asked for."""

    namespace: str
    kind: str
    name: str
    uid: str
    type: str
    reason: str
    message: str
    series: str = ""
    times: int = 1


@dataclass
class _Failure:
    method: str
    error: LubanError
    times: int
    after: bool


@dataclass
class FakeCluster:
    """The Kubernetes API in memory. Everything happens at once; nothing waits."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch, for creation and deletion timestamps."""
    objects: dict[tuple[str, str, str], Body] = field(default_factory=dict)
    """By kind, namespace and name. Look, don't touch: use `create`, `find`, `remove`."""
    event_log: list[RecordedEvent] = field(default_factory=list)
    """Every Event that was asked for, repeated ones too."""
    calls: Counter[str] = field(default_factory=Counter)
    """How often each of the port's methods was called."""
    closed: bool = False
    mark: str = "5f0c4c9e-0000-4000-8000-000000000001"
    """What tells this control plane from others."""
    _told: list[tuple[str, Told]] = field(default_factory=list)
    _failures: list[_Failure] = field(default_factory=list)
    _last_uid: int = 0
    _last_version: int = 0

    # What tests do from outside, as kubectl would.

    def create(self, body: Mapping[str, Any]) -> Body:
        """Create any object. Raises Conflict if it exists, PermanentError Invalid if its model refuses it."""
        made = copy.deepcopy(dict(body))
        kind, metadata = made["kind"], made.setdefault("metadata", {})
        key = (kind, metadata.setdefault("namespace", "default"), metadata["name"])
        if key in self.objects:
            raise Conflict("AlreadyExists", f"{kind} {key[1]}/{key[2]} already exists")
        if kind in _MODELS:
            made.pop("status", None)
            made["spec"] = _checked(_MODELS[kind], made).spec.wire()
        self._last_uid += 1
        metadata["uid"] = f"00000000-0000-4000-8000-{self._last_uid:012x}"
        metadata["creationTimestamp"] = _timestamp(self.now())
        metadata["generation"] = 1
        self._store(key, made)
        return copy.deepcopy(made)

    def find(self, kind: str, namespace: str, name: str) -> Body | None:
        """A copy of an object; None: not there."""
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; with finalizers it stays, marked, until the last of them is gone."""
        key = (kind, namespace, name)
        found = self.objects.get(key)
        if found is None:
            return
        if not found["metadata"].get("finalizers"):
            self._erase(key)
        elif "deletionTimestamp" not in found["metadata"]:
            found["metadata"]["deletionTimestamp"] = _timestamp(self.now())
            self._store(key, found)

    def change(self, kind: str, namespace: str, name: str, edit: Callable[[Body], None]) -> None:
        """Let `edit` change an object in place. Nothing happens if it is gone or nothing changed."""
        key = (kind, namespace, name)
        found = self.find(*key)
        if found is None:
            return
        edit(found)
        if found == self.objects[key]:
            return
        if found.get("spec") != self.objects[key].get("spec"):
            found["metadata"]["generation"] += 1
        self._store(key, found)
        if "deletionTimestamp" in found["metadata"] and not found["metadata"].get("finalizers"):
            self._erase(key)

    def events(self, namespace: str) -> list[RecordedEvent]:
        """Events as `kubectl get events` has them: each once, with its count and its latest message."""
        found: dict[tuple[str, ...], RecordedEvent] = {}
        for event in self.event_log:
            key = (event.uid, event.type, event.reason, event.series or event.message)
            before = found[key].times if key in found else 0
            found[key] = replace(event, times=before + event.times)
        return [event for event in found.values() if event.namespace == namespace]

    def fail_next(self, method: str, error: LubanError, *, times: int = 1, after: bool = False) -> None:
        """Have the next `times` calls of a port's method raise `error` ("*": of any method).

        after=True: the call is carried out first, as when the answer is lost or the caller dies.
        """
        self._failures.append(_Failure(method, error, times, after))

    # The port.

    async def begin_anew(self) -> None:
        """See ports.Cluster."""
        self._told.clear()

    async def follow_vms(self, told: Told) -> None:
        """See ports.Cluster."""
        self._do("follow_vms", lambda: self._follow("LubanVM", told))

    async def follow_hosts(self, told: Told) -> None:
        """See ports.Cluster."""
        self._do("follow_hosts", lambda: self._follow("LubanHost", told))

    def _follow(self, kind: str, told: Told) -> None:
        self._told.append((kind, told))
        for (of, _, _), body in sorted(self.objects.items()):
            if of == kind:
                told(copy.deepcopy(body), False)

    def _tell(self, body: Body, *, gone: bool) -> None:
        for kind, told in self._told:
            if kind == body["kind"]:
                told(copy.deepcopy(body), gone)

    async def plane(self) -> str:
        """See ports.Cluster."""
        return self.mark

    async def census(self) -> Census:
        """See ports.Cluster."""
        return self._do("census", self._census)

    def _census(self) -> Census:
        clusters = {(namespace, name) for kind, namespace, name in self.objects if kind == "LubanCluster"}
        return Census(frozenset(it["metadata"]["uid"] for it in self._all_vms()), frozenset(clusters))

    async def list_vms(self, cluster: ClusterRef, *, live: bool = False) -> list[Body]:
        """See ports.Cluster."""
        return self._do("list_vms", lambda: self._vms(cluster))

    async def list_vms_on(self, host: str) -> list[Body]:
        """See ports.Cluster."""
        return self._do("list_vms_on", lambda: [it for it in self._all_vms() if it["spec"]["host"] == host])

    async def create_vm(self, cluster: ClusterRef, body: Mapping[str, Any]) -> Body:
        """See ports.Cluster."""
        metadata = {**body["metadata"], "namespace": cluster.namespace}
        return self._do("create_vm", lambda: self.create({**body, "metadata": metadata}))

    async def assign_vm(self, cluster: ClusterRef, name: str, role: Role) -> None:
        """See ports.Cluster."""

        def assign(body: Body) -> None:
            body["spec"]["role"] = role

        self._do("assign_vm", lambda: self.change("LubanVM", cluster.namespace, name, assign))

    async def delete_vm(self, cluster: ClusterRef, name: str) -> None:
        """See ports.Cluster."""
        self._do("delete_vm", lambda: self.remove("LubanVM", cluster.namespace, name))

    async def patch_vm_status(
        self, cluster: ClusterRef, name: str, status: Mapping[str, Any], *, version: str = ""
    ) -> None:
        """See ports.Cluster."""
        self._do("patch_vm_status", lambda: self._set_status("LubanVM", cluster.namespace, name, status, version))

    async def read_cluster(self, cluster: ClusterRef) -> Body | None:
        """See ports.Cluster."""
        found = self._do("read_cluster", lambda: self.find("LubanCluster", cluster.namespace, cluster.name))
        return found if found is not None and cluster.uid in ("", found["metadata"]["uid"]) else None

    async def release_vm(self, cluster: ClusterRef, name: str) -> None:
        """See ports.Cluster."""
        self._do("release_vm", lambda: self.change("LubanVM", cluster.namespace, name, _release))

    async def orphan_vm(self, cluster: ClusterRef, name: str) -> None:
        """See ports.Cluster."""
        self._do("orphan_vm", lambda: self.change("LubanVM", cluster.namespace, name, _orphan))

    async def adopt_vm(self, cluster: ClusterRef, name: str) -> None:
        """See ports.Cluster."""
        self._do(
            "adopt_vm", lambda: self.change("LubanVM", cluster.namespace, name, lambda body: _adopt(body, cluster))
        )

    async def apply_config_map(
        self, cluster: ClusterRef, name: str, data: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """See ports.Cluster."""
        self._do("apply_config_map", lambda: self._apply_config_map(cluster, name, data, labels))

    async def read_config_map(self, cluster: ClusterRef, name: str, *, ours: bool = False) -> dict[str, str] | None:
        """See ports.Cluster."""
        found = self._do("read_config_map", lambda: self.find("ConfigMap", cluster.namespace, name))
        if found is None or (ours and ("deletionTimestamp" in found["metadata"] or not _carries_label(found, cluster))):
            return None
        return dict(found.get("data") or {})

    async def disown_config_map(self, cluster: ClusterRef, name: str) -> None:
        """See ports.Cluster."""
        self._do("disown_config_map", lambda: self.change("ConfigMap", cluster.namespace, name, _disown))

    async def delete_config_map(self, cluster: ClusterRef, name: str) -> None:
        """See ports.Cluster."""
        self._do("delete_config_map", lambda: self._delete("ConfigMap", cluster, name))

    async def delete_lease(self, cluster: ClusterRef, balancer: str) -> None:
        """See ports.Cluster."""
        self._do("delete_lease", lambda: self._delete("Lease", cluster, balancer))

    async def apply_object(self, cluster: ClusterRef, body: Mapping[str, Any]) -> None:
        """See ports.Cluster."""
        self._do("apply_object", lambda: self._apply_object(cluster, body))

    async def read_balancer_set(self, cluster: ClusterRef, name: str) -> Body | None:
        """See ports.Cluster."""
        found = self._do("read_balancer_set", lambda: self.find("StatefulSet", cluster.namespace, name))
        return found if found is not None and _carries_label(found, cluster) else None

    async def disown_object(self, cluster: ClusterRef, kind: str, name: str) -> None:
        """See ports.Cluster."""
        self._do("disown_object", lambda: self.change(kind, cluster.namespace, name, _disown))

    async def patch_cluster_status(self, cluster: ClusterRef, status: Mapping[str, Any], *, version: str = "") -> str:
        """See ports.Cluster."""
        return self._do(
            "patch_cluster_status",
            lambda: self._set_status("LubanCluster", cluster.namespace, cluster.name, status, version),
        )

    async def read_secret(self, cluster: ClusterRef, name: str, key: str) -> str:
        """See ports.Cluster. Secrets of the fake are created with stringData, as text."""
        return self._do("read_secret", lambda: self._secret(cluster, name, key))

    async def balancer_endpoint(self, cluster: ClusterRef, balancer: str) -> str | None:
        """See ports.Cluster."""
        found = self._do("balancer_endpoint", lambda: self.find("Lease", cluster.namespace, balancer))
        annotations = (found or {}).get("metadata", {}).get("annotations") or {}
        return annotations.get(names.ANNOTATION_AGENT_ENDPOINT)

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
        """See ports.Cluster."""
        event = RecordedEvent(cluster.namespace, kind, name, uid, type_, reason, message[:1024], series, times)
        self._do("event", lambda: self.event_log.append(event))

    async def close(self) -> None:
        """See ports.Cluster."""
        self.closed = True

    def _do(self, method: str, action: Callable[[], T]) -> T:
        self.calls[method] += 1
        failure = next((it for it in self._failures if it.method in (method, "*")), None)
        if failure is None:
            return action()
        failure.times -= 1
        if failure.times == 0:
            self._failures.remove(failure)
        if failure.after:
            action()
        raise failure.error

    def _store(self, key: tuple[str, str, str], body: Body) -> None:
        self._last_version += 1
        body["metadata"]["resourceVersion"] = str(self._last_version)
        self.objects[key] = body
        self._tell(body, gone=False)

    def _erase(self, key: tuple[str, str, str]) -> None:
        self._tell(self.objects.pop(key), gone=True)

    def _all_vms(self) -> list[Body]:
        found = sorted(self.objects.items(), key=lambda item: item[0])
        return [copy.deepcopy(body) for (kind, _, _), body in found if kind == "LubanVM"]

    def _vms(self, cluster: ClusterRef) -> list[Body]:
        where = (cluster.namespace, cluster.name)
        return [it for it in self._all_vms() if (it["metadata"]["namespace"], it["spec"]["clusterName"]) == where]

    def _set_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], version: str) -> str:
        wanted = copy.deepcopy(dict(status))
        _checked(_STATUS[kind], wanted)
        found = self.objects.get((kind, namespace, name))
        if found is None:
            return ""
        if version not in ("", found["metadata"]["resourceVersion"]):
            raise Conflict("Conflict", f"{kind} {namespace}/{name} has been modified")
        self.change(kind, namespace, name, lambda body: body.update(status=wanted))
        return str(self.objects[kind, namespace, name]["metadata"]["resourceVersion"])

    def _apply_config_map(
        self, cluster: ClusterRef, name: str, data: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        found = self.find("ConfigMap", cluster.namespace, name)
        if found is None:
            metadata = {
                "name": name,
                "namespace": cluster.namespace,
                "labels": {names.LABEL_CLUSTER: cluster.name},
            }
            self.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        elif not _carries_label(found, cluster):
            raise PermanentError("ForeignConfigMap", f"ConfigMap {cluster.namespace}/{name} is not ours")

        def write(body: Body) -> None:
            body["data"] = dict(data)
            body["metadata"]["labels"] = {**labels, names.LABEL_CLUSTER: cluster.name}
            body["metadata"]["ownerReferences"] = [_owner(cluster)] if cluster.uid else []

        self.change("ConfigMap", cluster.namespace, name, write)

    def _apply_object(self, cluster: ClusterRef, body: Mapping[str, Any]) -> None:
        """All that we apply replaces what we applied before; an unchanged object keeps its version."""
        kind, name = body["kind"], body["metadata"]["name"]
        found = self.find(kind, cluster.namespace, name)
        if found is None:
            self.create({**body, "metadata": {**body["metadata"], "namespace": cluster.namespace}})
        elif not _carries_label(found, cluster):
            raise PermanentError("ForeignObject", f"{kind} {cluster.namespace}/{name} is not ours")
        wanted = copy.deepcopy(dict(body))
        labels = {**wanted["metadata"].get("labels", {}), names.LABEL_CLUSTER: cluster.name}
        wanted["metadata"] |= {"labels": labels, "ownerReferences": [_owner(cluster)] if cluster.uid else []}

        def write(old: Body) -> None:
            old.update({**wanted, "metadata": {**old["metadata"], **wanted["metadata"]}})

        self.change(kind, cluster.namespace, name, write)

    def _delete(self, kind: str, cluster: ClusterRef, name: str) -> None:
        found = self.find(kind, cluster.namespace, name)
        if found is not None and _carries_label(found, cluster):
            self.remove(kind, cluster.namespace, name)

    def _secret(self, cluster: ClusterRef, name: str, key: str) -> str:
        where = f"Secret {cluster.namespace}/{name}"
        found = self.find("Secret", cluster.namespace, name)
        if found is None:
            raise PermanentError("SecretNotFound", f"{where} is not there")
        if key not in (found.get("stringData") or {}):
            raise PermanentError("SecretKeyNotFound", f"{where} has no key {key}")
        return str(found["stringData"][key])


_: type[Cluster] = FakeCluster


def _timestamp(seconds: float) -> str:
    """As the API server writes it: whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


M = TypeVar("M", bound=Model)


def _checked(model: type[M], body: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise PermanentError("Invalid", str(error)) from error


def _carries_label(body: Body, cluster: ClusterRef) -> bool:
    labels = body["metadata"].get("labels") or {}
    return bool(labels.get(names.LABEL_CLUSTER) == cluster.name)


def _owner(cluster: ClusterRef) -> Body:
    reference = {"apiVersion": names.API_VERSION, "kind": "LubanCluster", "name": cluster.name}
    return {**reference, "uid": cluster.uid, "controller": True}


def _release(body: Body) -> None:
    finalizers = body["metadata"].get("finalizers") or []
    body["metadata"]["finalizers"] = [item for item in finalizers if item != names.FINALIZER_VM]


def _adopt(body: Body, cluster: ClusterRef) -> None:
    metadata = body["metadata"]
    owners = metadata.get("ownerReferences") or []
    if "deletionTimestamp" in metadata or any(owner["kind"] == "LubanCluster" for owner in owners):
        return
    metadata["ownerReferences"] = [*owners, _owner(cluster) | {"blockOwnerDeletion": True}]
    metadata["finalizers"] = [*(metadata.get("finalizers") or []), names.FINALIZER_VM]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), names.ANNOTATION_ADOPTED: "true"}


def _orphan(body: Body) -> None:
    _release(body)
    _disown(body)


def _disown(body: Body) -> None:
    owners = body["metadata"].get("ownerReferences") or []
    body["metadata"]["ownerReferences"] = [owner for owner in owners if owner["kind"] != "LubanCluster"]
