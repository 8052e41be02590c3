"""Actions to calls of ports: what each one means out there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from luban.api.cluster import LubanCluster
from luban.api.libvirt_uri import normal_form
from luban.core.balancers import EnsureBalancers
from luban.core.model import (
    Action,
    AssignVM,
    BalloonDomain,
    ClusterRef,
    CreateVM,
    DeleteVM,
    DestroyDomain,
    EnsureDomain,
    Machine,
    Member,
    OrphanVM,
    PublishBalancer,
    ReleaseVM,
    RemoveBalancer,
    RemoveDomain,
    RemoveStray,
    ResumeDomain,
    ShutdownDomain,
    SuspendDomain,
    UpdateVM,
    VMRecord,
)
from luban.errors import NotLeader, PermanentError
from luban.ports import HostRef, Ports
from luban.render.balancer import BalancerSettings, check_member, parse_balancer_json, settings_of
from luban.render.balancer_objects import AgentProgram, objects_name
from luban.runtime.publication import DOCUMENT_KEY, publication, published_of
from luban.runtime.records import cluster_ref, vm_body, vm_status
from luban.runtime.remains import Remains
from luban.runtime.tier import balancers_of, objects_of

log = structlog.get_logger(__name__)

USER_DATA_KEY = "userdata"
DomainAction = (
    EnsureDomain | ShutdownDomain | DestroyDomain | RemoveDomain | BalloonDomain | SuspendDomain | ResumeDomain
)
ObjectAction = CreateVM | AssignVM | DeleteVM | ReleaseVM | UpdateVM | OrphanVM


def subject(action: Action) -> str:
    """What an action is about: actions of one subject run one after the other."""
    if isinstance(action, DomainAction):
        return f"vm/{action.vm.name}"
    if isinstance(action, ObjectAction):
        return f"vm/{action.name}"
    match action:
        case RemoveStray():
            return f"domain/{action.uuid}"
        case PublishBalancer() | RemoveBalancer():
            return f"balancer/{action.balancer}"
        case EnsureBalancers():
            return "balancer/all"


def failure_subject(action: Action) -> str:
    """Under which name a failure is remembered: a VM that could not be created has a new name each time."""
    return "creation" if isinstance(action, CreateVM) else subject(action)


def host_of(action: Action) -> str:
    """The host that an action needs; empty: none."""
    if isinstance(action, DomainAction):
        return action.vm.host
    match action:
        case RemoveStray():
            return action.host
        case _:
            return ""


@dataclass(frozen=True)
class Hands:
    """Carries out the actions of one cluster as it is now.

    `bodies`: LubanVM objects by name, as they were when the plan was made. `touched`: told of each host on which
    something was done, or tried.
    """

    ports: Ports
    cluster: LubanCluster
    bodies: Mapping[str, Mapping[str, Any]]
    touched: Callable[[HostRef], None]
    program: AgentProgram | None = None
    """What runs in the balancers' Pods; None: somebody else makes them."""

    @property
    def ref(self) -> ClusterRef:
        """Which cluster."""
        return cluster_ref(self.cluster)

    async def carry_out(self, action: Action) -> None:
        """Do it. Raises LubanError if it cannot be done, NotLeader if it is another's to do."""
        if not self.ports.leadership.held():
            raise NotLeader("NotLeader", f"{subject(action)}: left to the operator that leads")
        if isinstance(action, DomainAction):
            with self._touching(HostRef(action.vm.host, action.vm.host_uri)) as host:
                await self._domain(action, host)
        elif isinstance(action, ObjectAction):
            await self._object(action)
        else:
            await self._about_others(action)

    async def _about_others(self, action: RemoveStray | PublishBalancer | RemoveBalancer | EnsureBalancers) -> None:
        """What is about no LubanVM."""
        match action:
            case RemoveStray():
                pool = self.cluster.spec.template.spec.image.pool
                with self._touching(HostRef(action.host, action.host_uri)) as host:
                    await self.ports.hypervisor.remove(host, action.uuid, pool)
            case PublishBalancer():
                await self._publish(action)
            case RemoveBalancer():
                await self.ports.cluster.delete_config_map(self.ref, action.balancer)
                await self.ports.cluster.delete_lease(self.ref, action.balancer)
            case EnsureBalancers():
                await self._ensure_balancers(action.replicas)

    @contextmanager
    def _touching(self, host: HostRef) -> Iterator[HostRef]:
        """Whatever becomes of it: what is known of the host is too old then."""
        try:
            yield host
        finally:
            self.touched(host)

    async def _domain(self, action: DomainAction, host: HostRef) -> None:
        vm, hypervisor = action.vm, self.ports.hypervisor
        match action:
            case EnsureDomain():
                self._require_host(vm)
                await hypervisor.ensure_running(host, await self._machine(vm))
            case ShutdownDomain():
                await hypervisor.shutdown(host, vm.uid)
            case DestroyDomain():
                await hypervisor.destroy(host, vm.uid)
            case RemoveDomain():
                await hypervisor.remove(host, vm.uid, vm.template.image.pool)
            case BalloonDomain():
                await hypervisor.set_memory(host, vm.uid, action.memory)
            case SuspendDomain():
                await hypervisor.suspend(host, vm.uid)
            case ResumeDomain():
                await self._resume(host, vm)

    async def _resume(self, host: HostRef, vm: VMRecord) -> None:
        """Its clock stood still meanwhile; a guest that nobody can tell the time serves all the same."""
        hypervisor = self.ports.hypervisor
        await hypervisor.resume(host, vm.uid)
        await hypervisor.set_memory(host, vm.uid, vm.template.domain.memory.max.bytes)
        if not await hypervisor.set_time(host, vm.uid, self.ports.clock.now()):
            log.warning("guest's clock not set: its agent does not answer", cluster=str(self.ref), vm=vm.name)

    def _require_host(self, vm: VMRecord) -> None:
        """A LubanVM may name any URI; only hosts of its LubanCluster's spec that may be used get VMs, and user data."""
        wanted = vm.host, normal_form(vm.host_uri)
        if all((host.name, normal_form(host.uri)) != wanted for host in self.cluster.spec.hosts if host.uri):
            raise PermanentError(
                "HostNotInSpec",
                f"{vm.name} names host {vm.host} at {vm.host_uri}, which is not in spec.hosts of "
                f"{self.ref.name}: nothing is started there",
            )

    async def _machine(self, vm: VMRecord) -> Machine:
        """What the hypervisor needs; the user-data Secret is read here and goes nowhere else."""
        user_data = None
        if vm.template.cloud_init is not None:
            secret = vm.template.cloud_init.user_data_secret_ref.name
            user_data = await self.ports.cluster.read_secret(self.ref, secret, USER_DATA_KEY)
        return Machine(
            uuid=vm.uid,
            name=vm.name,
            cluster=self.ref,
            template=vm.template,
            forward_address=vm.planned_address,
            user_data=user_data,
            plane=await self.ports.cluster.plane(),
        )

    async def _publish(self, action: PublishBalancer) -> None:
        """Write the ConfigMap. One member that cannot be written is left out, and told of: the others must go on."""
        good, refused = _sorted_out(action.members)
        data = publication(await self._settings(action.balancer), good)
        await self.ports.cluster.apply_config_map(self.ref, action.balancer, data, {})
        if refused:
            raise PermanentError("MemberRefused", f"left out, the others are published: {'; '.join(refused)}")

    async def _ensure_balancers(self, replicas: int) -> None:
        """One after the other: the last one says that all are there."""
        if self.program is not None:
            for body in objects_of(self.cluster, replicas, self.program):
                await self.ports.cluster.apply_object(self.ref, body)

    async def _disown_balancers(self) -> None:
        """Garbage collection would take the balancers from VMs that live on. The last one says that it is done."""
        if self.program is None:
            return
        found = await self.ports.cluster.read_balancer_set(self.ref, objects_name(self.ref.name))
        if found is None or not found["metadata"].get("ownerReferences"):
            return
        for body in objects_of(self.cluster, 1, self.program):
            await self.ports.cluster.disown_object(self.ref, body["kind"], body["metadata"]["name"])

    async def _settings(self, balancer: str) -> BalancerSettings:
        """What the spec asks for. Where that cannot be read, what is in force: clients notice nothing of it."""
        if isinstance(self.cluster, Remains):
            data = await self.ports.cluster.read_config_map(self.ref, balancer)
            if data is not None and published_of(data) is not None:
                return parse_balancer_json(data[DOCUMENT_KEY]).settings
        return settings_of(self.cluster.metadata.name, self.cluster.spec)

    async def _object(self, action: ObjectAction) -> None:
        ref, api = self.ref, self.ports.cluster
        match action:
            case CreateVM():
                # A name that is taken is a Conflict: not done, and another name next time.
                await api.create_vm(ref, vm_body(self.cluster, action))
            case AssignVM():
                await api.assign_vm(ref, action.name, action.role)
            case UpdateVM():
                body = self.bodies.get(action.name)
                version = body["metadata"].get("resourceVersion", "") if body is not None else ""
                status = vm_status(body, action, self.ports.clock.now())
                await api.patch_vm_status(ref, action.name, status, version=version)
            case DeleteVM():
                await api.delete_vm(ref, action.name)
            case ReleaseVM():
                await api.release_vm(ref, action.name)
            case OrphanVM():
                # Before the VM: garbage collection would take the ConfigMap from those that live on.
                await self._disown_balancers()
                for balancer in balancers_of(self.cluster):
                    await api.disown_config_map(ref, balancer)
                await api.orphan_vm(ref, action.name)


def _sorted_out(members: Sequence[Member]) -> tuple[list[Member], list[str]]:
    """Members that can be written, and what is wrong with each of the others."""
    good, refused = [], []
    for member in members:
        try:
            check_member(member)
        except ValueError as error:
            refused.append(str(error))
        else:
            good.append(member)
    return good, refused
