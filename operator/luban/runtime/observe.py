"""Observation: one look at Kubernetes, the hosts, the balancers and the VMs, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
from luban.core.phases import AWAITED, PROBED
from luban.core.state import State
from luban.errors import LubanError
from luban.ports import HostRef, Ports
from luban.render.httpd import settings_of
from luban.runtime.publication import published_of, settings_version
from luban.runtime.records import belongs_to, cluster_ref, is_adopted, is_orphan, read_vms, with_timings
from luban.runtime.remains import Gone, Remains, is_left_of
from luban.senses.asking import Answers, Asker, Question
from luban.senses.host_reports import HostReports
from luban.senses.steady import SteadyWords

log = structlog.get_logger(__name__)

HOST_PATIENCE_SECONDS = 1.0
"""A tick waits so long for a host; a slower one is asked no second time meanwhile."""
HOST_MEMORY_SECONDS = 5.0
"""So long a host that has not answered yet counts as it was seen last: libvirtd holds back its answers for a second or
two while it destroys a domain. After that it is unreachable."""
PROBE_PATIENCE_SECONDS = 0.5
"""A tick waits so long for the VMs' answers; what comes later counts in a later tick."""
SCRAPE_SECONDS = 1.0
"""Between two looks at a VM's own gauge."""
LATE_SECONDS = 10.0
"""An answer may be so much older than it should be: ticks are seconds apart, and some wait for others."""
IMPATIENCE_SECONDS = 0.2
"""A VM that boots is asked again so soon, between the ticks too: users wait for it."""
BOOTING_ANSWER_SECONDS = 1.0
"""What a VM that boots answered says so long that it does not answer yet."""


@dataclass(frozen=True)
class Look:
    """An observation together with the objects that it was read from."""

    observation: Observation
    bodies: Mapping[str, Mapping[str, Any]]
    """LubanVM objects by name."""
    orphans: tuple[str, ...] = ()
    """Names of LubanVMs that are nobody's, and could be ours."""


@dataclass(frozen=True)
class _Asked:
    """A question to a host that is under way. It asks for our domains and those of these adopted VMs, by uid."""

    adopted: frozenset[str]
    task: asyncio.Task[dict[str, DomainRecord]]


@dataclass(frozen=True)
class _Picture:
    """A host's domains, ours and those of these adopted VMs, and when it said so."""

    adopted: frozenset[str]
    at: float
    domains: dict[str, DomainRecord]


@dataclass
class Observer:
    """Looks at one cluster. Keeps calls that a host has not answered yet, so that it is never asked twice at once."""

    ports: Ports
    reports: HostReports = field(default_factory=HostReports)
    """What node agents say about bonds."""
    wake: Callable[[], None] = lambda: None
    """Called when a VM that boots answers."""
    _pending: dict[HostRef, _Asked] = field(default_factory=dict)
    _last: dict[HostRef, _Picture] = field(default_factory=dict)
    """What each host answered last."""
    _left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By VM: what could not be read in the last look."""
    _words: SteadyWords = field(default_factory=SteadyWords)
    """Of hosts and balancers that do not answer."""

    def __post_init__(self) -> None:
        self._readiness: Asker[bool] = Asker(self.ports.clock.monotonic, self.wake)
        self._gauges: Asker[int | None] = Asker(self.ports.clock.monotonic)

    def close(self) -> None:
        """Ask nobody any more."""
        self._readiness.close()
        self._gauges.close()
        for asked in self._pending.values():
            asked.task.cancel()
        self._pending.clear()

    async def observe(
        self, cluster: LubanCluster, failures: Mapping[str, Failure], troubles: Mapping[str, Failure]
    ) -> Look:
        """Look at everything. Raises LubanError only if the Kubernetes API does not answer."""
        ref = cluster_ref(cluster)
        listed = await self.ports.cluster.list_vms(ref)
        mine = is_left_of if isinstance(cluster, Gone) else belongs_to
        bodies = [body for body in listed if mine(body, cluster.metadata)]
        read = read_vms(bodies)
        self._tell(ref, read.left_out)
        vms = tuple(with_timings(record, cluster.spec.template.spec) for record in read.records)
        adopted = frozenset(str(body["metadata"]["uid"]) for body in bodies if is_adopted(body))
        asking = asyncio.ensure_future(self._hosts(ref, _hosts_of(cluster, vms), adopted))
        try:
            published, reports = await self._balancers(cluster, ref)
        finally:
            # Also if the API server fails meanwhile: nobody else would hear what the hosts answer.
            hosts = await asking
        observation = Observation(
            vms=vms,
            hosts=hosts,
            balancers=reports,
            bonds=self._bonds(cluster),
            provision_failures={vm.name: failures[vm.name] for vm in vms if vm.name in failures},
            unreadable=read.unreadable,
            action_failures=dict(troubles),
            published=published,
            settings_version=_settings_version(cluster, published),
        )
        observation = await self._with_vms_answers(cluster, observation)
        orphans = tuple(body["metadata"]["name"] for body in listed if is_orphan(body, cluster))
        return Look(observation, {body["metadata"]["name"]: body for body in bodies}, orphans)

    def _tell(self, ref: ClusterRef, left_out: Mapping[str, tuple[str, ...]]) -> None:
        """Log once what cannot be read of LubanVMs: a newer operator may have written them."""
        for name in left_out.keys() - {name for name, parts in self._left_out.items() if left_out.get(name) == parts}:
            log.warning("parts of a LubanVM left out", cluster=str(ref), vm=name, parts=left_out[name])
        self._left_out = dict(left_out)

    def _bonds(self, cluster: LubanCluster) -> dict[str, BondObservation]:
        now = self.ports.clock.monotonic()
        looks = {host.name: self.reports.look(host, now) for host in cluster.spec.hosts}
        return {name: bond for name, bond in looks.items() if bond is not None}

    async def _hosts(
        self, cluster: ClusterRef, hosts: list[HostRef], adopted: frozenset[str]
    ) -> tuple[HostObservation, ...]:
        return tuple(await asyncio.gather(*(self._host(cluster, host, adopted) for host in hosts)))

    async def _domains(
        self,
        cluster: ClusterRef,
        host: HostRef,
        adopted: frozenset[str],
        before: asyncio.Task[dict[str, DomainRecord]] | None,
    ) -> dict[str, DomainRecord]:
        """Domains that bear our mark, and those of adopted VMs, which bear that of another cluster of our name.

        `before`: ends first, for no host is asked twice at once.
        """
        if before is not None:
            await asyncio.wait({before})
        domains = await self.ports.hypervisor.list_domains(host, cluster)
        if not adopted:
            return domains
        others = await self.ports.hypervisor.list_domains(host, replace(cluster, uid=""))
        return {**{uuid: others[uuid] for uuid in adopted & others.keys()}, **domains}

    async def _host(self, cluster: ClusterRef, host: HostRef, adopted: frozenset[str]) -> HostObservation:
        asked = self._ask(cluster, host, adopted)
        done, _ = await asyncio.wait({asked.task}, timeout=HOST_PATIENCE_SECONDS)
        if not done:
            return self._as_seen_last(host, adopted)
        self._pending.pop(host, None)
        if asked.task.cancelled():
            # Nobody stopped us: the call was given up further down, and says nothing.
            return self._as_seen_last(host, adopted)
        try:
            domains = asked.task.result()
        except LubanError as error:
            self._last.pop(host, None)
            return HostObservation(host.name, False, self._words.choose(host.name, error.message))
        except Exception as error:  # One host must not end the look at all others.
            self._last.pop(host, None)
            log.exception("unexpected error of a host", cluster=str(cluster), host=host.name)
            return HostObservation(host.name, False, self._words.choose(host.name, f"{type(error).__name__}: {error}"))
        self._words.over(host.name)
        self._last[host] = _Picture(asked.adopted, self.ports.clock.monotonic(), domains)
        return HostObservation(host.name, True, domains=domains)

    def _ask(self, cluster: ClusterRef, host: HostRef, adopted: frozenset[str]) -> _Asked:
        """The question that is under way, or another behind it if that one leaves out what was adopted since."""
        before = self._pending.get(host)
        if before is not None and adopted <= before.adopted:
            return before
        asking = self._domains(cluster, host, adopted, before.task if before is not None else None)
        self._pending[host] = _Asked(adopted, asyncio.ensure_future(asking))
        return self._pending[host]

    def _as_seen_last(self, host: HostRef, adopted: frozenset[str]) -> HostObservation:
        """As the host said lately. A picture from before an adoption would show what was adopted as lost."""
        last, now = self._last.get(host), self.ports.clock.monotonic()
        if last is not None and adopted <= last.adopted and now - last.at <= HOST_MEMORY_SECONDS:
            return HostObservation(host.name, True, domains=last.domains)
        words = f"libvirt on {host.name} has not answered yet"
        return HostObservation(host.name, False, self._words.choose(host.name, words))

    async def _balancers(
        self, cluster: LubanCluster, ref: ClusterRef
    ) -> tuple[dict[str, Published], tuple[BalancerReport, ...]]:
        if isinstance(cluster, Gone):
            # Its balancer went with it, or is that of another cluster of its name.
            return {}, ()
        name = balancer_name(cluster.metadata.name, 0)
        members = settings_of(cluster.metadata.name, cluster.spec).slots
        # Balancers follow whatever has this name, so it is what they are told, whosever it is; another one cannot be
        # written there (ForeignConfigMap). Once the cluster goes, it is what we have to remove.
        leaving = cluster.metadata.deletion_timestamp is not None
        data, report = await asyncio.gather(
            self.ports.cluster.read_config_map(ref, name, ours=leaving), self._report(ref, name, members)
        )
        published = published_of(data)
        return ({name: published} if published is not None else {}), (report,)

    async def _report(self, ref: ClusterRef, name: str, members: int) -> BalancerReport:
        endpoint = await self.ports.cluster.balancer_endpoint(ref, name)
        if endpoint is None:
            return BalancerReport(name, reachable=False, message="its agent has not reported yet")
        report = await self.ports.balancers.report(ref, name, endpoint, members=members)
        if report.reachable:
            self._words.over(name)
            return report
        return replace(report, message=self._words.choose(name, report.message))

    async def _with_vms_answers(self, cluster: LubanCluster, observation: Observation) -> Observation:
        state = State(observation)
        sessions, probes = await asyncio.gather(self._sessions(cluster, state), self._probes(state))
        return replace(observation, sessions=dict(sessions), probes=dict(probes.values), counted_probes=probes.repeated)

    async def _probes(self, state: State) -> Answers[bool]:
        """Ask all VMs that could answer, each at the period of its template; one that boots, in every tick."""
        wanted = [vm for vm in state.live if vm.phase in PROBED and state.runs(vm) and state.address(vm)]
        return await self._readiness.ask({vm.name: self._probe(state, vm) for vm in wanted}, PROBE_PATIENCE_SECONDS)

    def _probe(self, state: State, vm: VMRecord) -> Question[bool]:
        probe, address, port = vm.template.readiness_probe, state.address(vm), vm.template.port
        path, timeout, booting = probe.http_get.path, float(probe.timeout_seconds), vm.phase in AWAITED
        return Question(
            # What a VM answered before it was paused says nothing of whether it is ready again.
            about=(address, port, path, booting),
            ask=lambda: self.ports.probes.ready(address, port, path, timeout),
            period=0.0 if booting else float(probe.period_seconds),
            lifetime=BOOTING_ANSWER_SECONDS if booting else 2 * probe.period_seconds + timeout + LATE_SECONDS,
            impatience=IMPATIENCE_SECONDS if booting else None,
        )

    async def _sessions(self, cluster: LubanCluster, state: State) -> Mapping[str, int]:
        if cluster.spec.scaling.sessions.source == "Balancer":
            return balancer_sessions(state)
        questions = {vm.name: self._scrape(cluster, state, vm) for vm in state.serving}
        answers = await self._gauges.ask(questions, PROBE_PATIENCE_SECONDS)
        return {name: count for name, count in answers.values.items() if count is not None}

    def _scrape(self, cluster: LubanCluster, state: State, vm: VMRecord) -> Question[int | None]:
        metric, address, port = cluster.spec.scaling.sessions.metric, state.address(vm), vm.template.port
        timeout = float(vm.template.readiness_probe.timeout_seconds)
        return Question(
            about=(address, port, metric.path, metric.name),
            ask=lambda: self.ports.probes.gauge(address, port, metric.path, metric.name, timeout),
            period=SCRAPE_SECONDS,
            lifetime=timeout + LATE_SECONDS,
        )


def balancer_sessions(state: State) -> dict[str, int]:
    """Sessions of each serving VM, added up over its balancers; unknown while one of them does not answer."""
    totals: dict[str, int] = {}
    for vm in state.serving:
        reports = [it for it in state.observation.balancers if it.name in vm.balancers or it.reachable]
        members = [state.member(it, vm) for it in reports]
        if reports and all(it.reachable for it in reports) and any(members):
            totals[vm.name] = sum(member.sessions for member in members if member is not None)
    return totals


def _settings_version(cluster: LubanCluster, published: Mapping[str, Published]) -> str:
    """Version of the settings that the spec asks for; where it cannot be read, that of the ones in force."""
    name = balancer_name(cluster.metadata.name, 0)
    if isinstance(cluster, Remains) and name in published:
        return published[name].settings_version
    return settings_version(settings_of(cluster.metadata.name, cluster.spec))


def _hosts_of(cluster: LubanCluster, vms: tuple[VMRecord, ...]) -> list[HostRef]:
    """Hosts of the spec, and those of VMs whose host left the spec: they must be cleaned up too."""
    listed = {host.name: HostRef(host.name, host.uri) for host in cluster.spec.hosts}
    others = {vm.host: HostRef(vm.host, vm.host_uri) for vm in vms if vm.host not in listed}
    return [*listed.values(), *others.values()]
