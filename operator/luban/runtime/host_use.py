"""A cluster's hosts between the registry and the decisions: which are asked, and what of the answers counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from luban.api.cluster import LubanCluster, LubanClusterSpec
from luban.core.host_room import Claim
from luban.core.left_out import HostRoom, Refusal
from luban.core.model import (
    Action,
    CreateVM,
    DomainRecord,
    EnsureDomain,
    HostObservation,
    Observation,
    Plan,
    VMRecord,
)
from luban.core.state import State
from luban.core.usable_hosts import Applicant, outside
from luban.ports import HostRef
from luban.runtime.records import cluster_ref
from luban.senses.host_claims import Grant
from luban.senses.host_registry import HostRegistry
from luban.senses.same_daemons import SameDaemons


def applicant_of(cluster: LubanCluster, vms: Iterable[VMRecord]) -> Applicant:
    """Who asks for hosts."""
    in_use: defaultdict[str, set[str]] = defaultdict(set)
    for vm in vms:
        in_use[vm.host].add(vm.host_uri)
    return Applicant(cluster.metadata.namespace, in_use)


@dataclass(frozen=True)
class Choice:
    """A spec's hosts, sorted at one moment."""

    spec: LubanClusterSpec
    """With the URI of each host that may be used, and none for the others."""
    refusals: Mapping[str, Refusal]
    """Why each of the others may not."""
    twins: Mapping[str, str]
    """See UsableHosts."""


class HostChooser:
    """Sorts one cluster's hosts; anew only if anything that decides it has changed, for it is asked in every tick."""

    def __init__(self, registry: HostRegistry, same: SameDaemons) -> None:
        self._registry, self._same = registry, same
        self._asked: tuple[LubanClusterSpec, Applicant, int, int] | None = None
        self._choice: Choice | None = None

    def choose(self, spec: LubanClusterSpec, applicant: Applicant) -> Choice:
        """What may be used now."""
        asked = spec, applicant, self._registry.turn, self._same.turn
        if self._choice is None or self._asked is None or self._asked[0] is not spec or self._asked[1:] != asked[1:]:
            found = self._registry.usable(spec, applicant, self._same.identity)
            self._asked, self._choice = asked, Choice(found.fill(spec), found.refusals, found.twins)
        return self._choice


def with_spec(cluster: LubanCluster, spec: LubanClusterSpec) -> LubanCluster:
    """The cluster with this spec."""
    return cluster if spec is cluster.spec else cluster.model_copy(update={"spec": spec})


def hosts_to_ask(spec: LubanClusterSpec, vms: Iterable[VMRecord], twins: Mapping[str, str]) -> list[HostRef]:
    """Hosts of a filled spec that may be used, and what turned out to be the same as one of them; and those of VMs on
    others, which must be looked after, and cleaned up too."""
    listed = {host.name: HostRef(host.name, host.uri) for host in spec.hosts if host.uri}
    listed |= {name: HostRef(name, uri) for name, uri in twins.items()}
    others = {vm.host: HostRef(vm.host, vm.host_uri) for vm in vms if vm.host not in listed}
    return [*listed.values(), *others.values()]


def with_refusals(observation: Observation, spec: LubanClusterSpec, refusals: Mapping[str, Refusal]) -> Observation:
    """The observation with all hosts of the spec that may not be used, asked or not, each with the reason."""
    if not refusals:
        return observation
    seen = {host.name: host for host in observation.hosts}
    unasked = {name: HostObservation(name, reachable=False) for name in refusals}
    names = dict.fromkeys([*(host.name for host in spec.hosts), *seen])
    found = (seen.get(name) or unasked.get(name) for name in names)
    hosts = tuple(replace(it, refusal=refusals.get(it.name)) for it in found if it is not None)
    return replace(observation, hosts=hosts)


def with_rooms(observation: Observation, room_on: Callable[[str], HostRoom | None]) -> Observation:
    """The observation with what all clusters together leave on each host. `room_on`: that of one; None: no limit."""
    rooms = {it.name: room for it in observation.hosts if it.reachable and (room := room_on(it.name)) is not None}
    if not rooms:
        return observation
    hosts = tuple(replace(it, room=rooms.get(it.name)) for it in observation.hosts)
    return replace(observation, hosts=hosts)


def grants_of(cluster: LubanCluster, plan: Plan, tried: Iterable[Action], observation: Observation) -> Iterator[Grant]:
    """Room that a plan takes with the actions that are tried now; and that of VMs on their way out, as far as others
    are to come in their place: a rollout that finds no room beside them must not lose it to somebody else."""
    ref, memory = cluster_ref(cluster), cluster.spec.template.spec.domain.memory.max.bytes
    made = 0
    for action in tried:
        match action:
            case CreateVM(name, host):
                made += action.role == "Serving"
                yield Grant(host, name, Claim("", ref, memory))
            case EnsureDomain(vm):
                yield Grant(vm.host, vm.name, Claim(vm.uid, ref, vm.template.domain.memory.max.bytes))
    leaving = [vm for vm in observation.vms if vm.deleting_since is not None]
    missing = max(0, plan.desired - len(State(observation).live) - made) if leaving else 0
    for vm in leaving[:missing]:
        yield Grant(vm.host, vm.name, Claim("", ref, memory))


def within_networks(observation: Observation, cidr_of: Callable[[str], str]) -> Observation:
    """The observation without addresses that are not in their host's network, whoever told them.

    `cidr_of`: a host's network; empty: any.
    """
    networks = {name: cidr for name in _hosts_of(observation) if (cidr := cidr_of(name))}
    if not networks:
        return observation
    return replace(
        observation,
        vms=tuple(_vm_within(vm, networks.get(vm.host, "")) for vm in observation.vms),
        hosts=tuple(_host_within(host, networks.get(host.name, "")) for host in observation.hosts),
    )


def _hosts_of(observation: Observation) -> set[str]:
    return {host.name for host in observation.hosts} | {vm.host for vm in observation.vms}


def _vm_within(vm: VMRecord, cidr: str) -> VMRecord:
    """What was written of it counts no longer than what is seen."""
    if not outside(vm.address, cidr) and not outside(vm.planned_address, cidr):
        return vm
    planned = "" if outside(vm.planned_address, cidr) else vm.planned_address
    return replace(vm, address="" if outside(vm.address, cidr) else vm.address, planned_address=planned)


def _host_within(host: HostObservation, cidr: str) -> HostObservation:
    far = {uuid: _left_out(it, host.name, cidr) for uuid, it in host.domains.items() if outside(it.address, cidr)}
    return replace(host, domains={**host.domains, **far}) if far else host


def _left_out(domain: DomainRecord, host: str, cidr: str) -> DomainRecord:
    why = (
        f"its address {domain.address} is not in {cidr}, the cidr of LubanHost {host}, so nobody is sent there: mend "
        "the VM's network, or have an administrator change spec.libvirt.cidr"
    )
    return replace(domain, address="", complaint=why)


def complaints_of(observation: Observation) -> Iterator[tuple[str, str, str]]:
    """Addresses that were left out: host, uuid of the domain, why."""
    return (
        (host.name, uuid, domain.complaint)
        for host in observation.hosts
        for uuid, domain in host.domains.items()
        if domain.complaint
    )
