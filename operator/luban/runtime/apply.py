"""Applying a plan: each VM's actions in their order, VMs beside each other, bounded per host, never twice at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from luban.api.cluster import LubanCluster
from luban.api.names import balancer_name
from luban.core.model import (
    Action,
    ClusterRef,
    CreateVM,
    DeleteVM,
    DestroyDomain,
    EnsureDomain,
    Failure,
    Machine,
    OrphanVM,
    Plan,
    PublishBalancer,
    ReleaseVM,
    RemoveBalancer,
    RemoveDomain,
    RemoveStray,
    ShutdownDomain,
    UpdateVM,
)
from luban.errors import Conflict, LubanError, PermanentError
from luban.ports import HostRef, Ports
from luban.render.httpd import settings_of
from luban.runtime.publication import publication
from luban.runtime.records import cluster_ref, vm_body, vm_status
from luban.runtime.retries import Retries

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 2.0
"""A tick waits so long for its actions; slower ones go on in the background and are not started again."""
PER_HOST = 4
"""Actions at the same time on one host."""
USER_DATA_KEY = "userdata"


def subject(action: Action) -> str:
    """What an action is about: actions of one subject run one after the other."""
    match action:
        case EnsureDomain() | ShutdownDomain() | DestroyDomain() | RemoveDomain():
            return f"vm/{action.vm.name}"
        case CreateVM() | DeleteVM() | ReleaseVM() | UpdateVM() | OrphanVM():
            return f"vm/{action.name}"
        case RemoveStray():
            return f"domain/{action.uuid}"
        case PublishBalancer() | RemoveBalancer():
            return f"balancer/{action.balancer}"


def failure_subject(action: Action) -> str:
    """Under which name a failure is remembered: a VM that could not be created has a new name each time."""
    return "creation" if isinstance(action, CreateVM) else subject(action)


@dataclass
class Applier:
    """Carries out plans of one cluster. `on_done` is called when a background action ended, to look again."""

    ports: Ports
    on_done: Callable[[], None] = lambda: None
    provision_failures: dict[str, Failure] = field(default_factory=dict)
    """By VM: why the last attempt to make its domain failed."""
    action_failures: dict[str, Failure] = field(default_factory=dict)
    """By subject: why the last of its actions failed, whatever it was."""
    retries: Retries = field(default_factory=Retries)
    """What fails again and again is tried ever more rarely."""
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _host_slots: dict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(PER_HOST))
    )

    async def apply(self, cluster: LubanCluster, plan: Plan, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        """Start what the plan asks for and is not under way, and wait a little for it."""
        chains: dict[str, list[Action]] = defaultdict(list)
        for action in plan.actions:
            chains[subject(action)].append(action)
        started = [self._start(cluster, name, chain, bodies) for name, chain in chains.items()]
        waiting = {task for task in started if task is not None}
        if not waiting:
            return
        _, slow = await asyncio.wait(waiting, timeout=PATIENCE_SECONDS)
        for task in slow:
            task.add_done_callback(lambda _: self.on_done())

    async def close(self) -> None:
        """End what still runs; whatever was half done is taken up from observation."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(
        self, cluster: LubanCluster, name: str, chain: list[Action], bodies: Mapping[str, Mapping[str, Any]]
    ) -> asyncio.Task[None] | None:
        if name in self._running:
            return None
        task = asyncio.ensure_future(self._chain(cluster, chain, bodies))
        self._running[name] = task
        task.add_done_callback(lambda _: self._running.pop(name, None))
        return task

    async def _chain(self, cluster: LubanCluster, chain: list[Action], bodies: Mapping[str, Mapping[str, Any]]) -> None:
        """One subject's actions in order; the first that fails ends it, the next tick plans anew."""
        for action in chain:
            kind, about = type(action).__name__, failure_subject(action)
            if not self.retries.may_try(about, action, self.ports.clock.monotonic()):
                return
            try:
                await self._one(cluster, action, bodies)
            except LubanError as error:
                log.warning(
                    "action failed",
                    cluster=str(cluster_ref(cluster)),
                    action=kind,
                    subject=about,
                    reason=error.reason,
                    error=error.message,
                )
                self._note_failure(action, error)
                return
            self.action_failures.pop(about, None)
            self.retries.succeeded(about, action)
            log.info("action done", cluster=str(cluster_ref(cluster)), action=kind, subject=about, why=action.reason)
            if isinstance(action, EnsureDomain):
                self.provision_failures.pop(action.vm.name, None)

    def _note_failure(self, action: Action, error: LubanError) -> None:
        failure = Failure(error.reason, error.message, isinstance(error, PermanentError))
        self.action_failures[failure_subject(action)] = failure
        self.retries.failed(failure_subject(action), action, failure, self.ports.clock.monotonic())
        if isinstance(action, EnsureDomain):
            self.provision_failures[action.vm.name] = failure

    def forget_others(self, names: Iterable[str]) -> None:
        """Drop what is remembered of VMs that are gone."""
        known = set(names)
        self.provision_failures = {name: failure for name, failure in self.provision_failures.items() if name in known}
        gone = [
            about
            for about in self.action_failures
            if about.startswith("vm/") and about.removeprefix("vm/") not in known
        ]
        for about in gone:
            del self.action_failures[about]

    async def _one(self, cluster: LubanCluster, action: Action, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        match action:
            case EnsureDomain() | ShutdownDomain() | DestroyDomain() | RemoveDomain():
                async with self._host_slots[action.vm.host]:
                    await self._domain(cluster, action)
            case RemoveStray():
                async with self._host_slots[action.host]:
                    await self._remove_stray(cluster, action)
            case PublishBalancer() | RemoveBalancer():
                await self._balancer(cluster, action)
            case CreateVM() | DeleteVM() | ReleaseVM() | UpdateVM() | OrphanVM():
                await self._object(cluster, action, bodies)

    async def _domain(
        self, cluster: LubanCluster, action: EnsureDomain | ShutdownDomain | DestroyDomain | RemoveDomain
    ) -> None:
        vm, hypervisor = action.vm, self.ports.hypervisor
        host = HostRef(vm.host, vm.host_uri)
        match action:
            case EnsureDomain():
                await hypervisor.ensure_running(host, await self._machine(cluster, action))
            case ShutdownDomain():
                await hypervisor.shutdown(host, vm.uid)
            case DestroyDomain():
                await hypervisor.destroy(host, vm.uid)
            case RemoveDomain():
                await hypervisor.remove(host, vm.uid, vm.template.image.pool)

    async def _machine(self, cluster: LubanCluster, action: EnsureDomain) -> Machine:
        """What the hypervisor needs; the user-data Secret is read here and goes nowhere else."""
        vm, user_data = action.vm, None
        if vm.template.cloud_init is not None:
            secret = vm.template.cloud_init.user_data_secret_ref.name
            user_data = await self.ports.cluster.read_secret(cluster_ref(cluster), secret, USER_DATA_KEY)
        return Machine(
            uuid=vm.uid,
            name=vm.name,
            cluster=cluster_ref(cluster),
            template=vm.template,
            forward_address=vm.planned_address,
            user_data=user_data,
        )

    async def _remove_stray(self, cluster: LubanCluster, action: RemoveStray) -> None:
        pool = cluster.spec.template.spec.image.pool
        await self.ports.hypervisor.remove(HostRef(action.host, action.host_uri), action.uuid, pool)

    async def _balancer(self, cluster: LubanCluster, action: PublishBalancer | RemoveBalancer) -> None:
        ref, api = cluster_ref(cluster), self.ports.cluster
        if isinstance(action, RemoveBalancer):
            await api.delete_config_map(ref, action.balancer)
            return
        data = publication(settings_of(cluster.metadata.name, cluster.spec), action.members)
        await api.apply_config_map(ref, action.balancer, data, {})

    async def _object(
        self,
        cluster: LubanCluster,
        action: CreateVM | DeleteVM | ReleaseVM | UpdateVM | OrphanVM,
        bodies: Mapping[str, Mapping[str, Any]],
    ) -> None:
        ref, api = cluster_ref(cluster), self.ports.cluster
        match action:
            case CreateVM():
                await self._create(cluster, action)
            case UpdateVM():
                status = vm_status(bodies.get(action.name), action, self.ports.clock.now())
                await api.patch_vm_status(ref, action.name, status)
            case DeleteVM():
                await api.delete_vm(ref, action.name)
            case ReleaseVM():
                await api.release_vm(ref, action.name)
            case OrphanVM():
                await self._disown_balancer(ref)
                await api.orphan_vm(ref, action.name)

    async def _disown_balancer(self, ref: ClusterRef) -> None:
        """Write the ConfigMap without an owner: garbage collection would take it from the VMs that live on."""
        name = balancer_name(ref.name, 0)
        data = await self.ports.cluster.read_config_map(ref, name)
        if data is not None:
            await self.ports.cluster.apply_config_map(ClusterRef(ref.namespace, ref.name), name, data, {})

    async def _create(self, cluster: LubanCluster, action: CreateVM) -> None:
        try:
            await self.ports.cluster.create_vm(cluster_ref(cluster), vm_body(cluster, action))
        except Conflict:
            log.info("name taken, another one next time", cluster=str(cluster_ref(cluster)), vm=action.name)
