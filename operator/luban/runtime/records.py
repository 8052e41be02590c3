"""LubanVM objects to what the decisions look at, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from luban.api import names
from luban.api.cluster import LubanCluster
from luban.api.common import ObjectMeta
from luban.api.libvirt_uri import normal_form
from luban.api.template import VMTemplateSpec, in_place, rolls_out
from luban.api.vm import LubanVM, LubanVMSpec, LubanVMStatus, PhaseTransition
from luban.core.left_out import UnreadableVM
from luban.core.model import ClusterRef, CreateVM, UpdateVM, VMRecord
from luban.core.times import rfc3339, seconds_of
from luban.errors import UnreadableObject


@dataclass(frozen=True)
class VMsRead:
    """LubanVM objects, each read apart from the others."""

    records: tuple[VMRecord, ...]
    unreadable: tuple[UnreadableVM, ...]
    left_out: dict[str, tuple[str, ...]]
    """By name: parts that this version cannot read."""


@dataclass
class VMReader:
    """Reads LubanVM objects, each version of one only once: to take one apart costs more than all else of a tick."""

    _known: dict[tuple[str, str], _Read] = field(default_factory=dict)
    """By uid and resourceVersion."""

    def read(self, bodies: Iterable[Mapping[str, Any]]) -> VMsRead:
        """What the objects say. One that cannot be read keeps no other from being read."""
        known: dict[tuple[str, str], _Read] = {}
        for body in bodies:
            known[_version(body)] = self._known.get(_version(body)) or _with_shared_template(
                _read(body), known.values()
            )
        self._known, reads = known, known.values()
        return VMsRead(
            tuple(it.record for it in reads if it.record is not None),
            tuple(it.unreadable for it in reads if it.unreadable is not None),
            {it.record.name: it.left_out for it in reads if it.record is not None and it.left_out},
        )


@dataclass(frozen=True)
class _Read:
    """What one object says."""

    record: VMRecord | None = None
    unreadable: UnreadableVM | None = None
    left_out: tuple[str, ...] = ()


def _with_shared_template(read: _Read, others: Iterable[_Read]) -> _Read:
    """The same with the template that one of the others has, if it says the same: it is most of what a VM takes."""
    if read.record is None:
        return read
    template = read.record.template
    templates = {id(it.record.template): it.record.template for it in others if it.record is not None}
    shared = next((it for it in templates.values() if it == template), template)
    return read if shared is template else replace(read, record=replace(read.record, template=shared))


def _version(body: Mapping[str, Any]) -> tuple[str, str]:
    return body["metadata"]["uid"], body["metadata"]["resourceVersion"]


def _read(body: Mapping[str, Any]) -> _Read:
    try:
        vm = LubanVM.parse(body)
    except UnreadableObject as error:
        return _Read(unreadable=_unreadable(ObjectMeta.model_validate(body["metadata"]), error.message))
    return _Read(_record_of(vm), left_out=vm.left_out)


def _unreadable(metadata: ObjectMeta, message: str) -> UnreadableVM:
    return UnreadableVM(
        name=metadata.name,
        uid=metadata.uid,
        deleted=metadata.deletion_timestamp is not None,
        has_finalizer=names.FINALIZER_VM in metadata.finalizers,
        message=message,
    )


def _record_of(vm: LubanVM) -> VMRecord:
    """A LubanVM as the decisions see it."""
    created = seconds_of(vm.metadata.creation_timestamp or rfc3339(0))
    transitions = vm.status.transitions
    return VMRecord(
        name=vm.metadata.name,
        uid=vm.metadata.uid,
        host=vm.spec.host,
        host_uri=vm.spec.host_uri,
        template=vm.spec.template,
        created=created,
        phase=vm.status.phase,
        deleting_since=seconds_of(vm.metadata.deletion_timestamp) if vm.metadata.deletion_timestamp else None,
        address=vm.status.address,
        planned_address=vm.spec.address,
        balancers=vm.status.balancers,
        reason=vm.status.reason,
        message=vm.status.message,
        was_ready=any(it.phase == "Ready" for it in transitions),
        has_finalizer=names.FINALIZER_VM in vm.metadata.finalizers,
        role=vm.spec.role,
    )


def with_timings(record: VMRecord, template: VMTemplateSpec) -> VMRecord:
    """The record with the probe and the timeouts that the cluster's spec asks for now."""
    return replace(record, template=in_place(record.template, template))


def owner_of(body: Mapping[str, Any]) -> str:
    """uid of the LubanCluster that a LubanVM belongs to; empty: none."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((str(owner.get("uid") or "") for owner in owners if owner.get("kind") == "LubanCluster"), "")


def belongs_to(body: Mapping[str, Any], cluster: ObjectMeta) -> bool:
    """Whether a LubanVM is this very cluster's, not one that a deleted cluster of the same name left running.

    A cluster that is being deleted still sees the VMs that it set free: they stay in its balancers.
    """
    owner = owner_of(body)
    return owner == cluster.uid if owner else cluster.deletion_timestamp is not None


def is_adopted(body: Mapping[str, Any]) -> bool:
    """Whether a LubanVM's domain bears the mark of another LubanCluster of the same name, which left it running."""
    return bool((body["metadata"].get("annotations") or {}).get(names.ANNOTATION_ADOPTED))


def is_orphan(body: Mapping[str, Any], cluster: LubanCluster) -> bool:
    """Whether a LubanVM that an earlier cluster of this name left running is one that this cluster would make now.

    Others are left alone: they stay in the balancers until enough of our own answer, and run on.
    """
    metadata, spec = body["metadata"], cluster.spec
    if owner_of(body) or metadata.get("deletionTimestamp") or cluster.metadata.deletion_timestamp or spec.paused:
        return False
    try:
        vm = LubanVM.parse(body)
    except UnreadableObject:
        return False
    hosts = {(host.name, normal_form(host.uri)) for host in spec.hosts if host.uri}
    return (vm.spec.host, normal_form(vm.spec.host_uri)) in hosts and not rolls_out(
        vm.spec.template, spec.template.spec
    )


def awaits_us(body: Mapping[str, Any]) -> bool:
    """Whether a LubanVM is to be deleted and waits for us to remove its domain."""
    metadata = body["metadata"]
    return bool(metadata.get("deletionTimestamp")) and names.FINALIZER_VM in (metadata.get("finalizers") or ())


def vm_body(cluster: LubanCluster, action: CreateVM) -> dict[str, Any]:
    """The LubanVM object that `action` asks for."""
    metadata = cluster.metadata
    spec = LubanVMSpec(
        cluster_name=metadata.name,
        host=action.host,
        host_uri=action.host_uri,
        address=action.address,
        placement=action.placement[:4096],
        template=cluster.spec.template.spec,
        role=action.role,
    )
    return {
        "apiVersion": names.API_VERSION,
        "kind": "LubanVM",
        "metadata": {
            "name": action.name,
            "namespace": metadata.namespace,
            "labels": {
                **cluster.spec.template.metadata.labels,
                names.LABEL_CLUSTER: metadata.name,
                names.LABEL_HOST: action.host,
            },
            "finalizers": [names.FINALIZER_VM],
            "ownerReferences": [owner_reference(metadata.name, metadata.uid)],
        },
        "spec": spec.wire(),
    }


def owner_reference(cluster: str, uid: str) -> dict[str, Any]:
    """The reference that makes an object part of its LubanCluster."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "LubanCluster",
        "name": cluster,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def vm_status(body: Mapping[str, Any] | None, action: UpdateVM, now: float) -> dict[str, Any]:
    """The status that `action` asks for; a transition is added when the phase is a new one."""
    before = LubanVM.parse(body).status if body is not None else LubanVMStatus()
    transitions = before.transitions
    if not transitions or transitions[-1].phase != action.phase:
        transitions = (*transitions, PhaseTransition(phase=action.phase, at=rfc3339(now)))
    after = LubanVMStatus(
        phase=action.phase,
        reason=action.reason,
        message=action.message,
        address=action.address,
        balancers=action.balancers,
        balancer_summary=", ".join(action.balancers),
        transitions=transitions,
    )
    return after.wire()


def cluster_ref(cluster: LubanCluster) -> ClusterRef:
    """Which cluster."""
    return ClusterRef(cluster.metadata.namespace, cluster.metadata.name, cluster.metadata.uid)
