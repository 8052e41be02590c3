"""Reading an observation: which VMs serve, start, drain; which balancers send requests to whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from luban.api.names import ordinal_of
from luban.core import phases
from luban.core.left_out import HostRoom
from luban.core.model import (
    BalancerReport,
    DomainRecord,
    HostObservation,
    MemberReport,
    Observation,
    VMRecord,
)

RUNNING_STATES = frozenset({"Running", "Paused", "ShuttingDown"})
SUSPENDED = frozenset({"User", "Unknown", ""})
"""libvirt's reasons for a domain that somebody suspended, or that it forgot: with role Warm it was us."""


@dataclass(frozen=True)
class State:
    """An observation with its derived sets. VMs are ordered by creation, then name."""

    observation: Observation

    @cached_property
    def vms(self) -> tuple[VMRecord, ...]:
        """All VMs, oldest first, but for those that we have let go and somebody else's finalizer keeps."""
        kept = [vm for vm in self.observation.vms if vm.has_finalizer or vm.deleting_since is None]
        return tuple(sorted(kept, key=attrgetter("created", "name")))

    @cached_property
    def live(self) -> tuple[VMRecord, ...]:
        """VMs that count towards the wanted number: not in the pool, not on their way out and not lost."""
        return tuple([vm for vm in self._staying if vm.role == "Serving"])

    @cached_property
    def pool(self) -> tuple[VMRecord, ...]:
        """VMs in the pool and on their way there: not on their way out and not lost."""
        return tuple([vm for vm in self._staying if vm.role == "Warm"])

    @cached_property
    def _staying(self) -> tuple[VMRecord, ...]:
        return tuple([vm for vm in self.vms if vm.deleting_since is None and vm.phase not in phases.HOLDS_NOTHING])

    @cached_property
    def strays(self) -> tuple[tuple[str, DomainRecord], ...]:
        """Domains of this cluster that no LubanVM stands for, each with its host. Silent hosts tell nothing."""
        known = {vm.uid for vm in self.vms} | {vm.uid for vm in self.observation.unreadable}
        hosts = (host for host in self.observation.hosts if host.reachable)
        unknown = ((host, uuid) for host in hosts for uuid in sorted([it for it in host.domains if it not in known]))
        return tuple((host.name, host.domains[uuid]) for host, uuid in unknown)

    @cached_property
    def dead_addresses(self) -> frozenset[str]:
        """Addresses of strays whose domains have ended: nobody is served there any more."""
        return frozenset(domain.address for _, domain in self.strays if domain.state not in RUNNING_STATES) - {""}

    @cached_property
    def domain_addresses(self) -> frozenset[str]:
        """Addresses that the cluster's domains hold, whether a LubanVM stands for them or not."""
        return frozenset(
            domain.address for host in self.observation.hosts for domain in host.domains.values() if domain.address
        )

    @cached_property
    def published_addresses(self) -> frozenset[str]:
        """Addresses that balancers send requests to, also of VMs that a cluster of the same name left behind."""
        published = self.observation.published.values()
        return frozenset(member.address for content in published for member in content.members)

    @cached_property
    def serving(self) -> tuple[VMRecord, ...]:
        """Ready and attached to at least one balancer."""
        return tuple([vm for vm in self.ready if self._attachments[vm.name]])

    @cached_property
    def serving_names(self) -> frozenset[str]:
        """Names of those that serve."""
        return frozenset([vm.name for vm in self.serving])

    @cached_property
    def ready(self) -> tuple[VMRecord, ...]:
        """Live and ready, attached or not."""
        return tuple([vm for vm in self.live if vm.phase == "Ready"])

    @cached_property
    def starting(self) -> tuple[VMRecord, ...]:
        """Live and on their way to serve: not failed, and not paused."""
        serving = self.serving_names
        return tuple([vm for vm in self.live if vm.name not in serving and vm.phase not in phases.NO_USE])

    @cached_property
    def booting(self) -> tuple[VMRecord, ...]:
        """Live, and never ready so far: nobody misses one that goes."""
        return tuple(vm for vm in self.live if vm.phase in phases.STARTING)

    @cached_property
    def draining(self) -> tuple[VMRecord, ...]:
        """On their way out."""
        return tuple(vm for vm in self.vms if vm.deleting_since is not None)

    @cached_property
    def withdrawn(self) -> tuple[VMRecord, ...]:
        """On their way out, or to the pool: balancers send them nothing new."""
        return (*self.draining, *(vm for vm in self.pool if vm.phase == "Draining"))

    @cached_property
    def failed(self) -> tuple[VMRecord, ...]:
        """Failed and kept for inspection."""
        return tuple(vm for vm in self.live if vm.phase == "Failed")

    @cached_property
    def paused(self) -> tuple[VMRecord, ...]:
        """Live, and somebody or something paused their domain."""
        return tuple(vm for vm in self.live if vm.phase == "Paused")

    @cached_property
    def warm(self) -> tuple[VMRecord, ...]:
        """In the pool and at rest: they can be taken at once."""
        return tuple(vm for vm in self.pool if vm.phase == "Warm" and self.is_suspended(vm))

    @cached_property
    def settling(self) -> bool:
        """Whether a VM of the pool is on its way to its rest."""
        asleep = {vm.name for vm in self.warm}
        return any(vm.name not in asleep and vm.phase in phases.TAKEABLE for vm in self.pool)

    def is_suspended(self, vm: VMRecord) -> bool:
        """Whether the VM's domain is known to be paused by a call to libvirt, as we do it."""
        domain = self.domain(vm)
        return domain is not None and domain.state == "Paused" and domain.reason in SUSPENDED

    @cached_property
    def calm(self) -> frozenset[str]:
        """Names of those that are ready, run, and have address and balancers as their status says."""
        domains, addresses, attachments = self._domains, self.addresses, self._attachments
        return frozenset(
            [
                vm.name
                for vm in self.ready
                if (domain := domains.get(vm.name)) is not None
                and domain.state == "Running"
                and addresses.get(vm.name, "") == vm.address
                and attachments[vm.name] == vm.balancers
            ]
        )

    @cached_property
    def _answering_hosts(self) -> dict[str, HostObservation]:
        """By name."""
        return {host.name: host for host in self.observation.hosts if host.reachable}

    @cached_property
    def refused(self) -> frozenset[str]:
        """Names of hosts that may not be used."""
        return frozenset(host.name for host in self.observation.hosts if host.refusal is not None)

    @cached_property
    def rooms(self) -> dict[str, HostRoom]:
        """By host: what all clusters together leave there. A host without a limit is missing."""
        return {host.name: host.room for host in self.observation.hosts if host.room is not None}

    def is_full(self, host: str) -> bool:
        """Whether all clusters together leave nothing on the host."""
        return host in self.rooms and not self.rooms[host].fits_after()

    def came_too_late(self, vm: VMRecord) -> bool:
        """Whether the VM was never started, and its host has no room for it any more."""
        return vm.host in self.rooms and vm.uid in self.rooms[vm.host].late

    def reachable(self, host: str) -> bool:
        """Whether the host was observed and answers."""
        return host in self._answering_hosts

    def domain(self, vm: VMRecord) -> DomainRecord | None:
        """The VM's domain as observed; None: absent, or its host says nothing."""
        return self._domains.get(vm.name)

    @cached_property
    def _domains(self) -> dict[str, DomainRecord]:
        """By VM."""
        hosts = self._answering_hosts
        return {
            vm.name: domain
            for vm in self.observation.vms
            if (host := hosts.get(vm.host)) is not None and (domain := host.domains.get(vm.uid)) is not None
        }

    def runs(self, vm: VMRecord) -> bool:
        """Whether the VM's domain is known to run."""
        domain = self.domain(vm)
        return domain is not None and domain.state in RUNNING_STATES

    def address(self, vm: VMRecord) -> str:
        """Where the VM serves, from the freshest source that knows; empty: nobody knows yet, or it is another VM's."""
        return self.addresses.get(vm.name, "")

    def address_lost(self, vm: VMRecord) -> bool:
        """Whether the VM was ready and has no address any more: it is another VM's now."""
        return vm.was_ready and not self.address(vm)

    @cached_property
    def addresses(self) -> dict[str, str]:
        """By VM. Never one address for two: it is the one's whose domain is seen with it, then the younger one's."""
        domains = self._domains
        seen = {
            vm.name: domain.address
            for vm in self.vms
            if (domain := domains.get(vm.name)) is not None and domain.address
        }
        owners = {vm.address or vm.planned_address: vm.name for vm in self.vms if vm.name not in seen}
        owners |= zip(seen.values(), seen.keys(), strict=True)
        return dict(zip(owners.values(), owners.keys(), strict=True))

    @cached_property
    def balancers_answer(self) -> bool:
        """Whether every balancer says what it does, but for those that are lost: others serve in their place."""
        return all(self.is_heard(balancer) for balancer in self.observation.balancers)

    def is_heard(self, balancer: BalancerReport) -> bool:
        """Whether nobody waits for a balancer's word: it says what it does, or is lost."""
        return balancer.reachable or balancer.name in self.observation.lost_balancers

    def may_have(self, balancer: BalancerReport, vm: VMRecord) -> bool:
        """Whether a balancer was told of the VM, says so, or may have it for all that anybody knows.

        A single one may have any.
        """
        published = self._told.get(balancer.name)
        if (
            not self._is_tier
            or published is None
            or vm.name in published
            or balancer.name in vm.balancers
            or self.address_lost(vm)
        ):
            return True
        return balancer.reachable and vm.name in self._members[balancer.name]

    @cached_property
    def _is_tier(self) -> bool:
        """Whether there are several balancers."""
        return any(ordinal_of(balancer.name) for balancer in self.observation.balancers)

    @cached_property
    def _told(self) -> dict[str, frozenset[str]]:
        """By balancer: VMs that its ConfigMap names."""
        published = self.observation.published
        return {name: frozenset([member.name for member in it.members]) for name, it in published.items()}

    def member(self, balancer: BalancerReport, vm: VMRecord) -> MemberReport | None:
        """A balancer's word on a VM."""
        return self._members[balancer.name].get(vm.name)

    def is_drained_in(self, balancer: BalancerReport, vm: str) -> bool:
        """Whether a balancer says that it sends a VM nothing, and has nothing in flight on it."""
        member = self._members[balancer.name].get(vm)
        return member is None or (member.drained and member.state != "Enabled")

    @cached_property
    def _members(self) -> dict[str, dict[str, MemberReport]]:
        """By balancer, then by VM."""
        return {
            balancer.name: {member.name: member for member in balancer.members}
            for balancer in self.observation.balancers
        }

    @cached_property
    def _published(self) -> dict[str, frozenset[str]]:
        """By balancer: VMs that it was told to send requests to."""
        return {
            name: frozenset(member.name for member in published.members if member.state == "Enabled")
            for name, published in self.observation.published.items()
        }

    def attachments(self, vm: VMRecord) -> tuple[str, ...]:
        """Balancers that send new requests to the VM. One that does not answer keeps its last known word."""
        return self._attachments[vm.name]

    @cached_property
    def _attachments(self) -> dict[str, tuple[str, ...]]:
        """By VM."""
        vms = self.observation.vms
        found: dict[str, tuple[str, ...]] = {vm.name: () for vm in vms}
        for it in self.observation.balancers:
            for name in found.keys() & self.sent_to(it):
                found[name] += (it.name,)
        return found

    def sent_to(self, balancer: BalancerReport) -> frozenset[str]:
        """VMs that a balancer sends new requests to. One that is silent keeps its last known word until it is lost."""
        if balancer.reachable:
            return self._enabled[balancer.name]
        if balancer.name in self.observation.lost_balancers:
            return frozenset()
        return frozenset([vm.name for vm in self.observation.vms if balancer.name in vm.balancers])

    @cached_property
    def _enabled(self) -> dict[str, frozenset[str]]:
        """By balancer: VMs that it sends new requests to."""
        return {
            balancer: frozenset([name for name, member in members.items() if member.state == "Enabled"])
            for balancer, members in self._members.items()
        }

    def attached(self, vm: VMRecord) -> bool:
        """Whether any balancer sends new requests to the VM."""
        return bool(self._attachments[vm.name])

    @cached_property
    def answering(self) -> frozenset[str]:
        """Names of those that serve and, as far as anybody knows, answer. What only is called Ready is not enough.

        The balancers' health checks decide; where no balancer says anything, our own probe does.
        """
        sound, healthy, probes = (
            self.serving_names - self.reported_sick,
            self._found_healthy[True],
            self.observation.probes,
        )
        return (sound & healthy) | {name for name in sound - healthy if probes.get(name, False)}

    @cached_property
    def probe_failing(self) -> frozenset[str]:
        """Names of those that serve and did not answer our own probe, whatever the balancers say."""
        return frozenset(name for name in self.serving_names if not self.observation.probes.get(name, True))

    @cached_property
    def proven(self) -> frozenset[str]:
        """Names of those of whom nobody says that they do not answer: while enough of these are there, one may go."""
        return self.answering - self.probe_failing

    @cached_property
    def not_answering(self) -> frozenset[str]:
        """Names of those that serve, but of whom nobody knows that they answer."""
        return self.serving_names - self.answering

    @cached_property
    def sick(self) -> frozenset[str]:
        """Names of those that serve and are known not to answer: nobody loses anything if they go.

        If no VM seems to answer, the balancers' checks may be what fails: then our own probes must say the same.
        """
        if self.answering:
            return self.reported_sick
        probes = self.observation.probes
        return frozenset(name for name in self.reported_sick if not probes.get(name, True))

    @cached_property
    def reported_sick(self) -> frozenset[str]:
        """Names of those that serve, but no balancer that says anything finds healthy, or whose domain does not run."""
        ill = self._found_healthy[False] - self._found_healthy[True]
        calm = self.calm
        return frozenset(
            [vm.name for vm in self.serving if vm.name in ill or (vm.name not in calm and self._is_down(vm))]
        )

    def _is_down(self, vm: VMRecord) -> bool:
        domain = self._domains.get(vm.name)
        return (domain is None or domain.state != "Running") and self.reachable(vm.host)

    @cached_property
    def _found_healthy(self) -> dict[bool, set[str]]:
        """Whom any balancer that answers, and sends requests to the VM, finds healthy (True), or not (False)."""
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for balancer in self.observation.balancers:
            if balancer.reachable:
                members = self._members[balancer.name]
                for healthy, names in found.items():
                    names.update(
                        [it.name for it in members.values() if it.healthy is healthy and it.state == "Enabled"]
                    )
        return found

    def told_to_enable(self, vm: VMRecord) -> bool:
        """Whether a balancer's ConfigMap tells it to send requests to the VM."""
        return any(vm.name in enabled for enabled in self._published.values())

    def told_to_stop(self, balancer: BalancerReport, vm: VMRecord) -> bool:
        """Whether the balancer carried out a ConfigMap that does not tell it to send requests to the VM."""
        published = self.observation.published.get(balancer.name)
        in_force = published is not None and published.version == balancer.applied
        return in_force and vm.name not in self._published[balancer.name]
