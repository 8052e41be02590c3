"""State and spec together: who is where, what a host can still take, and which VMs may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from luban.api.cluster import Host, LubanClusterSpec
from luban.api.template import rolls_out
from luban.core import phases
from luban.core.drain import heard, may_get_requests, must_drain
from luban.core.ledger import Addresses, Ledger
from luban.core.memory import ClusterMemory
from luban.core.model import VMRecord
from luban.core.placement import Bonds, Candidates, Occupancy, minima, removable, spares
from luban.core.policies.base import ScalingLimits
from luban.core.scaling import maximum, minimum
from luban.core.schedules import raises
from luban.core.state import State
from luban.core.turns import Turns

GIVEN_UP_SECONDS = 60.0
"""A host that has been silent for so long holds up nothing that the user wants off it."""


@dataclass(frozen=True)
class Snapshot:
    """State and spec together: who is where, and what a host can still take."""

    spec: LubanClusterSpec
    state: State
    memory: ClusterMemory
    now: float

    @cached_property
    def occupancy(self) -> dict[str, Occupancy]:
        """Per host of the spec and of a VM."""
        live = Counter([vm.host for vm in self.state.live])
        failed = Counter([vm.host for vm in self.state.failed])
        held = Counter([vm.host for vm in self.holding])
        names = {host.name for host in self.spec.hosts} | held.keys()
        return {name: Occupancy(live[name], held[name], failed[name]) for name in names}

    @cached_property
    def holding(self) -> tuple[VMRecord, ...]:
        """VMs that take room: their domains run or may come to run, those on their way out included."""
        left_alone = {vm.name for vm in self.state.draining if self.given_up(vm)}
        vms = self.state.vms
        return tuple([vm for vm in vms if vm.phase not in phases.HOLDS_NOTHING and vm.name not in left_alone])

    @cached_property
    def total(self) -> int:
        """How many take room that are not in the pool."""
        return sum(vm.role == "Serving" for vm in self.holding)

    def given_up(self, vm: VMRecord) -> bool:
        """Whether the VM is on its way out on a host that has been silent for long: nobody waits for its end."""
        return vm.deleting_since is not None and self.long_silent(vm.host)

    def holds_until_gone(self, vm: VMRecord) -> bool:
        """Whether the VM would still take its room once it is asked to leave."""
        return vm.has_finalizer and not self.long_silent(vm.host)

    def long_silent(self, host: str) -> bool:
        """Whether the host has not answered for so long that nothing waits for it."""
        since = self.memory.silent.get(host)
        return not self.state.reachable(host) and since is not None and self.now - since >= GIVEN_UP_SECONDS

    def abandoned(self, vm: VMRecord) -> bool:
        """Whether the user wants the VM's host empty, the host has been silent for long, and the VM serves nobody: it
        never did, or every balancer says that it does not answer."""
        useless = vm.name in self.state.reported_sick or not must_drain(vm, self.state)
        return useless and self._emptied(vm.host) and self.long_silent(vm.host) and self.state.balancers_answer

    def stranded(self, vm: VMRecord) -> bool:
        """Whether the VM was never started, and its host closed meanwhile: it would wait for ever, and hold up all."""
        return vm.name in self.may_not_start and self._emptied(vm.host) and self.state.reachable(vm.host)

    @cached_property
    def may_not_start(self) -> frozenset[str]:
        """VMs whose domain must not be started: a maximum was lowered, or their host closed, since they were placed."""
        return frozenset(self.turns(self.state.live).barred).union(
            vm.name for vm in self.state.pool if vm.phase in phases.UNSTARTED and self.overfull(vm.host)
        )

    def overfull(self, host: str) -> bool:
        """Whether more VMs take room on the host than may, those of the pool included, or none may."""
        found = self._hosts.get(host)
        return found is None or found.cordoned or self.occupancy[host].held > found.vms.max

    def turns(self, live: Iterable[VMRecord], released: Collection[str] = ()) -> Turns:
        """Who waits for the start of its domain, and who must go on waiting.

        `live`: oldest first. `released`: VMs that hold their room no more.
        """
        waiting = [vm for vm in live if vm.phase in phases.UNSTARTED and not self.state.runs(vm)]
        if not waiting:
            return Turns((), {}, 0)
        names = {vm.name for vm in waiting}.union(released)
        others = [vm for vm in self.holding if vm.name not in names]
        held = Counter(vm.host for vm in others)
        free = {host.name: host.vms.max - held[host.name] for host in self.spec.hosts if not host.cordoned}
        return Turns(waiting, free, self.spec.scaling.max_vms - sum(vm.role == "Serving" for vm in others))

    def ledger(self) -> Ledger:
        """A new account of who takes what, to be kept up while VMs come and go."""
        return Ledger(
            live=len(self.state.live),
            total=self.total,
            occupancy=self.occupancy,
            broken=Counter([vm.host for vm in self.state.vms if vm.phase == "Failed"]),
            addresses=Addresses(self._taken_addresses()) if self.spec.template.spec.network.type == "User" else None,
        )

    def _taken_addresses(self) -> Iterator[str]:
        yield from (vm.planned_address for vm in self.state.vms)
        yield from self.state.domain_addresses
        yield from self.state.published_addresses
        yield from self.memory.taken_addresses

    def candidates(self, ledger: Ledger) -> Candidates:
        """The hosts among which the next VM's place is chosen."""
        return Candidates(
            hosts=self.spec.hosts,
            occupancy=ledger.occupancy,
            reachable=self.state.reachable,
            avoid=self.avoided(ledger),
            bonds=self.bonds,
            has_address=ledger.has_address,
            rooms=self.state.rooms,
            refused={it.name: it.refusal.in_short for it in self.state.observation.hosts if it.refusal is not None},
        )

    def avoided(self, ledger: Ledger) -> frozenset[str]:
        """Hosts where a VM failed lately. Those that still show it are known even after a restart."""
        remembered = {host for host, until in self.memory.avoid.items() if until > self.now}
        return frozenset(remembered | {host for host, count in ledger.broken.items() if count})

    @cached_property
    def has_place(self) -> bool:
        """Whether any host can take one more VM."""
        return self.candidates(self.ledger()).any_fit()

    @cached_property
    def takeable(self) -> tuple[VMRecord, ...]:
        """VMs of the pool that may be let serve: as sound as a new one would be, on a host where that could be made."""
        return tuple(
            vm
            for vm in self.state.pool
            if vm.phase in phases.TAKEABLE
            and self.state.reachable(vm.host)
            and vm.host not in self.state.refused
            and self.bonds.admits(vm.host)
            and not self.why_outdated(vm)
            and not self.overfull(vm.host)
        )

    @cached_property
    def bonds(self) -> Bonds:
        """The hosts' bonds, and how much they count."""
        verdicts = {name: bond.verdict for name, bond in self.state.observation.bonds.items()}
        return Bonds(self.spec.bond_policy, verdicts)

    def limits(self, desired: int) -> ScalingLimits:
        """How far the cluster can grow and shrink from `desired` wanted VMs.

        One that starts on a host which does not answer may never serve: growing does not wait for it. Nor does it wait
        for one above the wanted number, as a rollout's successors are: a long rollout would stop all growing.
        """
        state, behavior = self.state, self.spec.scaling.behavior
        hosts = self._hosts_that_may_give()
        examples = {vm.host: vm for vm in state.serving if vm.host in hosts}
        spare = {host for host, vm in examples.items() if spares(vm, self.minima, self.occupancy)}
        coming = sum(state.reachable(vm.host) for vm in (*state.starting, *state.failed))
        has_host = desired < maximum(self.spec) and (self.has_place or len(state.live) > desired or bool(self.takeable))
        return ScalingLimits(
            total=desired,
            starting=min(coming + max(0, desired - len(state.live)), max(0, desired - len(state.answering))),
            minimum=minimum(self.spec),
            minimum_of_hosts=minimum(self.spec) > self.spec.scaling.min_vms,
            schedule=raises(self.spec),
            maximum=self.spec.scaling.max_vms,
            has_host=has_host,
            up_step=behavior.scale_up.step,
            down_step=behavior.scale_down.step,
            removable=sum(removable(name, self.minima, self.occupancy) for name in hosts),
            movable=frozenset([vm.name for vm in state.serving if vm.host in spare]),
        )

    def _hosts_that_may_give(self) -> set[str]:
        """Hosts of live VMs of which an own decision may stop one."""
        if not self.state.balancers_answer:
            return {vm.host for vm in self.state.live if self.may_stop(vm)}
        return {host for host, found in self.occupancy.items() if found.live and self._may_be_emptied(host)}

    def may_stop(self, vm: VMRecord) -> bool:
        """Whether an own decision may stop the VM.

        Not if nobody knows how it is, unless the user emptied its host; and not while a balancer that may send it
        requests does not say what it does.
        """
        told = heard(vm, self.state) or not may_get_requests(vm, self.state)
        return told and self._may_be_emptied(vm.host)

    def _may_be_emptied(self, host: str) -> bool:
        return self.state.reachable(host) or self._emptied(host)

    def _emptied(self, host: str) -> bool:
        """Whether the user wants nothing on the host: it is cordoned or left the spec."""
        found = self._hosts.get(host)
        return found is None or found.cordoned

    @cached_property
    def _hosts(self) -> dict[str, Host]:
        return {host.name: host for host in self.spec.hosts}

    @cached_property
    def minima(self) -> dict[str, int]:
        """By host: VMs that stay there."""
        return minima(self.spec.hosts)

    def why_replace(self, vm: VMRecord, occupancy: Mapping[str, Occupancy]) -> str:
        """Why the VM must make way for another one elsewhere or of another template; empty: it need not."""
        return self.why_outdated(vm) or ("HostAboveMaximum" if self.crowded(vm.host, occupancy) else "")

    def why_outdated(self, vm: VMRecord) -> str:
        """The same, as far as it is for the VM's own sake, whatever becomes of others."""
        if self._emptied(vm.host):
            return "HostCordoned" if vm.host in self._hosts else "HostRemoved"
        return "Outdated" if id(vm.template) in self._old_templates and self.state.reachable(vm.host) else ""

    def crowded(self, host: str, occupancy: Mapping[str, Occupancy]) -> bool:
        """Whether the host runs more VMs than it may, and answers."""
        found = self._hosts.get(host)
        if found is None or found.cordoned or not self.state.reachable(host):
            return False
        return occupancy[host].live > found.vms.max

    @cached_property
    def _old_templates(self) -> set[int]:
        """Identities of templates that roll out: many VMs share one."""
        templates = {id(vm.template): vm.template for vm in self.state.vms}
        return {key for key, template in templates.items() if rolls_out(template, self.spec.template.spec)}

    @cached_property
    def outdated_live(self) -> tuple[VMRecord, ...]:
        """Live VMs that must be replaced."""
        occupancy, old, reachable = self.occupancy, self._old_templates, self.state.reachable
        overfull = {host for host in occupancy if self._emptied(host) or self.crowded(host, occupancy)}
        return tuple(
            [vm for vm in self.state.live if vm.host in overfull or (id(vm.template) in old and reachable(vm.host))]
        )
