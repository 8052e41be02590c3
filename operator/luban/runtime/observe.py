"""Observation: one look at Kubernetes, the hosts, the balancers and the VMs, all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from luban.api.cluster import LubanCluster
from luban.api.names import ordinal_of
from luban.core.model import (
    BalancerReport,
    BondObservation,
    ClusterRef,
    Failure,
    HostObservation,
    Observation,
    Published,
    VMRecord,
)
from luban.core.phases import AWAITED, PROBED, SEEN_ON_HOST
from luban.core.state import State
from luban.core.usable_hosts import Applicant
from luban.ports import HostRef, Ports
from luban.render.httpd import settings_of
from luban.runtime.host_use import HostChooser, applicant_of, complaints_of, hosts_to_ask, with_spec, within_networks
from luban.runtime.publication import published_of, settings_version
from luban.runtime.records import VMReader, belongs_to, cluster_ref, is_adopted, is_orphan, with_timings
from luban.runtime.remains import Gone, Remains, is_left_of
from luban.runtime.tier import balancers_of, look_at_objects, tier_size
from luban.runtime.usage import figures_of, usage_period
from luban.senses import Senses
from luban.senses.asking import Answers, Asker, Question
from luban.senses.balancers import Agent, BalancerSense
from luban.senses.requests import RequestRates

log = structlog.get_logger(__name__)

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
    applicant: Applicant
    """Who wants hosts, as its VMs were then."""
    neighbours: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By host that several clusters share: LubanVM objects of all of them."""
    orphans: tuple[str, ...] = ()
    """Names of LubanVMs that are nobody's, and could be ours."""


@dataclass
class Observer:
    """Looks at one cluster."""

    ports: Ports
    senses: Senses
    """What is known beyond this cluster."""
    wake: Callable[[], None] = lambda: None
    """Called when a VM that boots answers, and when a balancer has news."""
    domain_changed: Callable[[str], None] = lambda _uuid: None
    """Called with the uuid of a domain to which something happened; empty: a host's connection was lost."""
    _left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By VM: what could not be read in the last look."""
    _complaints: frozenset[tuple[str, str, str]] = frozenset()
    """Addresses left out in the last look."""

    def __post_init__(self) -> None:
        self._key = object()
        self.chooser = HostChooser(self.senses.registry, self.senses.hosts.same)
        self._reader = VMReader()
        self._readiness: Asker[bool] = Asker(self.ports.clock.monotonic, self.wake)
        self._gauges: Asker[int | None] = Asker(self.ports.clock.monotonic)
        self._reports = BalancerSense(self.ports.balancers, self.ports.clock.monotonic, self.wake)
        self._requests = RequestRates()

    def close(self) -> None:
        """Ask nobody any more."""
        self._readiness.close()
        self._gauges.close()
        self._reports.close()
        self.senses.hosts.follow(self._key, (), self.domain_changed)

    async def observe(
        self,
        cluster: LubanCluster,
        failures: Mapping[str, Failure],
        troubles: Mapping[str, Failure],
        balancers_written: str = "",
    ) -> Look:
        """Look at everything. Raises LubanError only if the Kubernetes API does not answer.

        `balancers_written`: version of what this process made for the balancers last.
        """
        ref = cluster_ref(cluster)
        # Of a cluster that is gone nobody tells again: what is left of it must not be overlooked.
        listed = await self.ports.cluster.list_vms(ref, live=isinstance(cluster, Gone))
        mine = is_left_of if isinstance(cluster, Gone) else belongs_to
        bodies = [body for body in listed if mine(body, cluster.metadata)]
        read = self._reader.read(bodies)
        self._tell(ref, read.left_out)
        vms = tuple(with_timings(record, cluster.spec.template.spec) for record in read.records)
        adopted = frozenset(str(body["metadata"]["uid"]) for body in bodies if is_adopted(body))
        applicant = applicant_of(cluster, vms)
        choice = self.chooser.choose(cluster.spec, applicant)
        cluster = with_spec(cluster, choice.spec)
        asked = hosts_to_ask(choice.spec, vms, choice.twins)
        looking = asyncio.ensure_future(self._hosts(cluster, vms, adopted, asked))
        try:
            published, reports = await self._balancers(cluster, ref)
            objects = await look_at_objects(self.ports.cluster, cluster, ref, self.ports.agents, balancers_written)
        finally:
            hosts = await looking
        used = self.senses.usage.look(asked, {vm.uid for vm in vms}, usage_period(cluster.spec))
        requests = self._requests.look(reports, self.ports.clock.monotonic())
        observation = Observation(
            vms=vms,
            hosts=hosts,
            balancers=reports,
            figures=figures_of(vms, used, requests),
            bonds=self._bonds(cluster),
            provision_failures={vm.name: failures[vm.name] for vm in vms if vm.name in failures},
            unreadable=read.unreadable,
            action_failures=dict(troubles),
            published=published,
            settings_version=_settings_version(cluster, published),
            balancer_objects=objects,
        )
        observation = within_networks(observation, self.senses.registry.cidr)
        self._tell_of_addresses(ref, observation)
        observation = await self._with_vms_answers(cluster, observation)
        orphans = tuple(body["metadata"]["name"] for body in listed if is_orphan(body, cluster))
        by_name = {body["metadata"]["name"]: body for body in bodies}
        # Last of all: what other clusters were granted since is known besides.
        return Look(observation, by_name, applicant, await self._neighbours(cluster), orphans)

    async def _neighbours(self, cluster: LubanCluster) -> dict[str, list[dict[str, Any]]]:
        shared = (host.name for host in cluster.spec.hosts if self.senses.registry.libvirt(host.name) is not None)
        return {name: await self.ports.cluster.list_vms_on(name) for name in shared}

    def _tell(self, ref: ClusterRef, left_out: Mapping[str, tuple[str, ...]]) -> None:
        """Log once what cannot be read of LubanVMs: a newer operator may have written them."""
        for name in left_out.keys() - {name for name, parts in self._left_out.items() if left_out.get(name) == parts}:
            log.warning("parts of a LubanVM left out", cluster=str(ref), vm=name, parts=left_out[name])
        self._left_out = dict(left_out)

    def _tell_of_addresses(self, ref: ClusterRef, observation: Observation) -> None:
        """Log once which addresses do not count."""
        complaints = frozenset(complaints_of(observation))
        for host, uuid, why in complaints - self._complaints:
            log.warning("address left out", cluster=str(ref), host=host, domain=uuid, why=why)
        self._complaints = complaints

    def _bonds(self, cluster: LubanCluster) -> dict[str, BondObservation]:
        now = self.ports.clock.monotonic()
        looks = {host.name: self.senses.bonds.look(host, now) for host in cluster.spec.hosts}
        return {name: bond for name, bond in looks.items() if bond is not None}

    async def _hosts(
        self, cluster: LubanCluster, vms: tuple[VMRecord, ...], adopted: frozenset[str], asked: Iterable[HostRef]
    ) -> tuple[HostObservation, ...]:
        awaited = {vm.host for vm in vms if vm.phase in SEEN_ON_HOST}
        hosts = {host: host.name in awaited for host in asked}
        self.senses.hosts.follow(self._key, hosts.keys(), self.domain_changed)
        return await self.senses.hosts.look(cluster_ref(cluster), adopted, hosts)

    async def _balancers(
        self, cluster: LubanCluster, ref: ClusterRef
    ) -> tuple[dict[str, Published], tuple[BalancerReport, ...]]:
        if isinstance(cluster, Gone):
            # Its balancers went with it, or are those of another cluster of its name.
            return {}, ()
        names = balancers_of(cluster)
        members = settings_of(cluster.metadata.name, cluster.spec).slots
        # Balancers follow whatever has this name, so it is what they are told, whosever it is; another one cannot be
        # written there (ForeignConfigMap). Once the cluster goes, it is what we have to remove.
        leaving = cluster.metadata.deletion_timestamp is not None
        read, reports = await asyncio.gather(
            asyncio.gather(*(self.ports.cluster.read_config_map(ref, name, ours=leaving) for name in names)),
            self._ask_balancers(ref, names, members),
        )
        found = {name: published_of(data) for name, data in zip(names, read, strict=True)}
        published = {name: it for name, it in found.items() if it is not None}
        # One above the size whose ConfigMap is removed has left.
        size = tier_size(cluster)
        return published, tuple(it for it in reports if it.name in published or ordinal_of(it.name) < size)

    async def _ask_balancers(self, ref: ClusterRef, names: Sequence[str], members: int) -> list[BalancerReport]:
        """What each agent says. One that is slow holds up no other, and the tick once at most."""
        endpoints = await asyncio.gather(*(self.ports.cluster.balancer_endpoint(ref, name) for name in names))
        known = {name: it for name, it in zip(names, endpoints, strict=True) if it is not None}
        told = await self._reports.look(ref, {name: Agent(endpoint, members) for name, endpoint in known.items()})
        return [
            told[name] if name in told else BalancerReport(name, reachable=False, message=self._not_reported(ref, name))
            for name in names
        ]

    def _not_reported(self, ref: ClusterRef, name: str) -> str:
        if self.ports.agents is not None:
            return f"its agent has not reported yet: kubectl -n {ref.namespace} describe pod {name}"
        return (
            "its agent has not reported yet: start the operator with --balancer-image, or run `luban balancer-agent "
            f"--cluster {ref.name} --namespace {ref.namespace} --index {ordinal_of(name)}`"
        )

    async def _with_vms_answers(self, cluster: LubanCluster, observation: Observation) -> Observation:
        state = State(observation)
        sessions, probes = await asyncio.gather(self._sessions(cluster, state), self._probes(state))
        return replace(observation, sessions=dict(sessions), probes=dict(probes.values), counted_probes=probes.repeated)

    async def _probes(self, state: State) -> Answers[bool]:
        """Ask all VMs that could answer, each at the period of its template; one that boots, in every tick."""
        wanted = [
            vm for vm in (*state.live, *state.pool) if vm.phase in PROBED and state.runs(vm) and state.address(vm)
        ]
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
    if isinstance(cluster, Remains) and published:
        return published[min(published, key=ordinal_of)].settings_version
    return settings_version(settings_of(cluster.metadata.name, cluster.spec))
