"""Observation: one look at Kubernetes, the hosts, the balancers and the VMs, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from luban.api.cluster import LubanCluster
from luban.api.names import balancer_name
from luban.core.model import (
    BalancerReport,
    BondObservation,
    ClusterRef,
    DomainRecord,
    Failure,
    HostObservation,
    Observation,
    Published,
    VMRecord,
)
from luban.core.phases import PROBED
from luban.core.state import State
from luban.errors import LubanError
from luban.ports import HostRef, Ports
from luban.render.httpd import settings_of
from luban.runtime.host_reports import HostReports
from luban.runtime.publication import published_of, settings_version
from luban.runtime.records import belongs_to, cluster_ref, read_vms, with_timings

log = structlog.get_logger(__name__)

HOST_PATIENCE_SECONDS = 1.0
"""A tick waits so long for a host; a slower one is asked no second time meanwhile."""
HOST_MEMORY_SECONDS = 5.0
"""So long a host that has not answered yet counts as it was seen last: libvirtd holds back its answers for a second or
two while it destroys a domain. After that it is unreachable."""
PROBE_PATIENCE_SECONDS = 0.5
"""A tick waits so long for the VMs' answers; what comes later counts in a later tick."""


@dataclass(frozen=True)
class Look:
    """An observation together with the objects that it was read from."""

    observation: Observation
    bodies: Mapping[str, Mapping[str, Any]]
    """LubanVM objects by name."""


@dataclass
class Observer:
    """Looks at one cluster. Keeps calls that a host has not answered yet, so that it is never asked twice at once."""

    ports: Ports
    reports: HostReports = field(default_factory=HostReports)
    """What node agents say about bonds."""
    _pending: dict[HostRef, asyncio.Task[dict[str, DomainRecord]]] = field(default_factory=dict)
    _last: dict[HostRef, tuple[float, dict[str, DomainRecord]]] = field(default_factory=dict)
    """When each host answered last, and what."""
    _asked: dict[str, asyncio.Task[bool]] = field(default_factory=dict)
    """Probes under way, by VM."""
    _left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By VM: what could not be read in the last look."""

    async def observe(
        self, cluster: LubanCluster, failures: Mapping[str, Failure], troubles: Mapping[str, Failure]
    ) -> Look:
        """Look at everything. Raises LubanError only if the Kubernetes API does not answer."""
        ref = cluster_ref(cluster)
        listed = await self.ports.cluster.list_vms(ref)
        bodies = [body for body in listed if belongs_to(body, cluster.metadata)]
        read = read_vms(bodies)
        self._tell(ref, read.left_out)
        vms = tuple(with_timings(record, cluster.spec.template.spec) for record in read.records)
        hosts, (published, reports) = await asyncio.gather(
            self._hosts(ref, _hosts_of(cluster, vms)), self._balancers(cluster, ref)
        )
        observation = Observation(
            vms=vms,
            hosts=hosts,
            balancers=reports,
            bonds=self._bonds(cluster),
            provision_failures={vm.name: failures[vm.name] for vm in vms if vm.name in failures},
            unreadable=frozenset(read.unreadable),
            action_failures={**troubles, **{f"vm/{uid}": why for uid, why in read.unreadable.items()}},
            published=published,
            settings_version=settings_version(settings_of(cluster.metadata.name, cluster.spec)),
        )
        observation = await self._with_vms_answers(cluster, observation)
        return Look(observation, {body["metadata"]["name"]: body for body in bodies})

    def _tell(self, ref: ClusterRef, left_out: Mapping[str, tuple[str, ...]]) -> None:
        """Log once what cannot be read of LubanVMs: a newer operator may have written them."""
        for name in left_out.keys() - {name for name, parts in self._left_out.items() if left_out.get(name) == parts}:
            log.warning("parts of a LubanVM left out", cluster=str(ref), vm=name, parts=left_out[name])
        self._left_out = dict(left_out)

    def _bonds(self, cluster: LubanCluster) -> dict[str, BondObservation]:
        now = self.ports.clock.monotonic()
        looks = {host.name: self.reports.look(host, now) for host in cluster.spec.hosts}
        return {name: bond for name, bond in looks.items() if bond is not None}

    async def _hosts(self, cluster: ClusterRef, hosts: list[HostRef]) -> tuple[HostObservation, ...]:
        return tuple(await asyncio.gather(*(self._host(cluster, host) for host in hosts)))

    async def _host(self, cluster: ClusterRef, host: HostRef) -> HostObservation:
        task = self._pending.get(host)
        if task is None:
            task = self._pending[host] = asyncio.ensure_future(self.ports.hypervisor.list_domains(host, cluster))
        done, _ = await asyncio.wait({task}, timeout=HOST_PATIENCE_SECONDS)
        if not done:
            return self._as_seen_last(host)
        del self._pending[host]
        try:
            domains = task.result()
        except LubanError as error:
            self._last.pop(host, None)
            return HostObservation(host.name, False, error.message)
        self._last[host] = self.ports.clock.monotonic(), domains
        return HostObservation(host.name, True, domains=domains)

    def _as_seen_last(self, host: HostRef) -> HostObservation:
        at, domains = self._last.get(host, (float("-inf"), {}))
        if self.ports.clock.monotonic() - at <= HOST_MEMORY_SECONDS:
            return HostObservation(host.name, True, domains=domains)
        return HostObservation(host.name, False, f"libvirt on {host.name} has not answered yet")

    async def _balancers(
        self, cluster: LubanCluster, ref: ClusterRef
    ) -> tuple[dict[str, Published], tuple[BalancerReport, ...]]:
        name = balancer_name(cluster.metadata.name, 0)
        members = settings_of(cluster.metadata.name, cluster.spec).slots
        data, report = await asyncio.gather(
            self.ports.cluster.read_config_map(ref, name), self._report(ref, name, members)
        )
        published = published_of(data)
        return ({name: published} if published is not None else {}), (report,)

    async def _report(self, ref: ClusterRef, name: str, members: int) -> BalancerReport:
        endpoint = await self.ports.cluster.balancer_endpoint(ref, name)
        if endpoint is None:
            return BalancerReport(name, reachable=False, message="its agent has not reported yet")
        return await self.ports.balancers.report(ref, name, endpoint, members=members)

    async def _with_vms_answers(self, cluster: LubanCluster, observation: Observation) -> Observation:
        state = State(observation)
        sessions, probes = await asyncio.gather(self._sessions(cluster, state), self._probes(state))
        return Observation(**{**vars(observation), "probes": probes, "sessions": sessions})

    async def _probes(self, state: State) -> dict[str, bool]:
        """Ask all VMs that could answer, at the same time; whoever has not answered yet is missing."""
        wanted = [vm for vm in state.live if vm.phase in PROBED and state.runs(vm) and state.address(vm)]
        tasks = {vm.name: self._asked.get(vm.name) or asyncio.ensure_future(self._probe(state, vm)) for vm in wanted}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=PROBE_PATIENCE_SECONDS)
        # A VM that takes its time keeps its probe, and nobody waits for it.
        self._asked = {name: task for name, task in tasks.items() if not task.done()}
        return {name: task.result() for name, task in tasks.items() if task.done()}

    async def _probe(self, state: State, vm: VMRecord) -> bool:
        probe = vm.template.readiness_probe
        return await self.ports.probes.ready(
            state.address(vm), vm.template.port, probe.http_get.path, float(probe.timeout_seconds)
        )

    async def _sessions(self, cluster: LubanCluster, state: State) -> dict[str, int]:
        limits = cluster.spec.scaling.sessions
        if limits.source == "Balancer":
            return balancer_sessions(state)
        asked = state.serving
        counts = await asyncio.gather(
            *(
                self.ports.probes.gauge(
                    state.address(vm),
                    vm.template.port,
                    limits.metric.path,
                    limits.metric.name,
                    float(vm.template.readiness_probe.timeout_seconds),
                )
                for vm in asked
            )
        )
        return {vm.name: count for vm, count in zip(asked, counts, strict=True) if count is not None}


def balancer_sessions(state: State) -> dict[str, int]:
    """Sessions of each serving VM, added up over its balancers; unknown while one of them does not answer."""
    totals: dict[str, int] = {}
    for vm in state.serving:
        reports = [it for it in state.observation.balancers if it.name in vm.balancers or it.reachable]
        members = [state.member(it, vm) for it in reports]
        if reports and all(it.reachable for it in reports) and any(members):
            totals[vm.name] = sum(member.sessions for member in members if member is not None)
    return totals


def _hosts_of(cluster: LubanCluster, vms: tuple[VMRecord, ...]) -> list[HostRef]:
    """Hosts of the spec, and those of VMs whose host left the spec: they must be cleaned up too."""
    listed = {host.name: HostRef(host.name, host.uri) for host in cluster.spec.hosts}
    others = {vm.host: HostRef(vm.host, vm.host_uri) for vm in vms if vm.host not in listed}
    return [*listed.values(), *others.values()]
