"""State and spec together: who is where, what a host can still take, and which VMs may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from luban.api.cluster import Host, LubanClusterSpec
from luban.api.template import rolls_out
from luban.core import phases
from luban.core.drain import may_get_requests, must_drain
from luban.core.memory import ClusterMemory
from luban.core.model import VMRecord
from luban.core.placement import Bonds, Candidates, Occupancy, Placing, place, removable, spares
from luban.core.policies.base import ScalingLimits
from luban.core.scaling import maximum, minimum
from luban.core.state import State

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
        live = Counter(vm.host for vm in self.state.live)
        failed = Counter(vm.host for vm in self.state.failed)
        held = Counter(vm.host for vm in self.holding)
        names = {host.name for host in self.spec.hosts} | held.keys()
        return {name: Occupancy(live[name], held[name], failed[name]) for name in names}

    @cached_property
    def holding(self) -> tuple[VMRecord, ...]:
        """VMs that take room: their domains run or may come to run, those on their way out included."""
        return tuple(vm for vm in self.state.vms if vm.phase not in phases.HOLDS_NOTHING and not self.given_up(vm))

    @cached_property
    def total(self) -> int:
        """How many take room."""
        return len(self.holding)

    def given_up(self, vm: VMRecord) -> bool:
        """Whether the VM is on its way out on a host that has been silent for long: nobody waits for its end."""
        return vm.deleting_since is not None and self._long_silent(vm.host)

    def _long_silent(self, host: str) -> bool:
        since = self.memory.silent.get(host)
        return not self.state.reachable(host) and since is not None and self.now - since >= GIVEN_UP_SECONDS

    def abandoned(self, vm: VMRecord) -> bool:
        """Whether the user wants the VM's host empty, the host has been silent for long, and the VM serves nobody: it
        never did, or every balancer says that it does not answer."""
        useless = vm.name in self.state.reported_sick or not must_drain(vm, self.state)
        return useless and self._emptied(vm.host) and self._long_silent(vm.host) and self.state.balancers_answer

    def stranded(self, vm: VMRecord) -> bool:
        """Whether the VM was never started, and its host closed meanwhile: it would wait for ever, and hold up all."""
        return vm.name in self.may_not_start and self._emptied(vm.host) and self.state.reachable(vm.host)

    @cached_property
    def may_not_start(self) -> frozenset[str]:
        """VMs whose domain must not be started: a maximum was lowered, or their host closed, since they were placed."""
        waiting = [vm for vm in self.state.live if vm.phase in phases.UNSTARTED and not self.state.runs(vm)]
        names = {vm.name for vm in waiting}
        held = Counter(vm.host for vm in self.holding if vm.name not in names)
        free = {host.name: host.vms.max - held[host.name] for host in self.spec.hosts if not host.cordoned}
        left = self.spec.scaling.max_vms - sum(vm.name not in names for vm in self.holding)
        barred = set()
        for vm in waiting:
            if left <= 0 or free.get(vm.host, 0) <= 0:
                barred.add(vm.name)
                continue
            free[vm.host] -= 1
            left -= 1
        return frozenset(barred)

    @cached_property
    def chosen_host(self) -> Host | None:
        """Where the next VM goes; None: no host has room."""
        return self._field.best()

    @property
    def placing(self) -> Placing:
        """The same with its reasons."""
        return place(self._field)

    @cached_property
    def bonds(self) -> Bonds:
        """The hosts' bonds, and how much they count."""
        verdicts = {name: bond.verdict for name, bond in self.state.observation.bonds.items()}
        return Bonds(self.spec.bond_policy, verdicts)

    @cached_property
    def _field(self) -> Candidates:
        return Candidates(
            hosts=self.spec.hosts,
            occupancy=self.occupancy,
            reachable=self.state.reachable,
            avoid=frozenset(self.avoided),
            bonds=self.bonds,
            no_address=frozenset(host.name for host in self.spec.hosts if not self.has_address(host)),
        )

    @property
    def avoided(self) -> set[str]:
        """Hosts where a VM failed lately. Those that still show it are known even after a restart."""
        remembered = {host for host, until in self.memory.avoid.items() if until > self.now}
        return remembered | {vm.host for vm in self.state.vms if vm.phase == "Failed"}

    def limits(self, desired: int) -> ScalingLimits:
        """How far the cluster can grow and shrink from `desired` wanted VMs.

        One that starts on a host which does not answer may never serve: growing does not wait for it. Nor does it wait
        for one above the wanted number, as a rollout's successors are: a long rollout would stop all growing.
        """
        state, behavior = self.state, self.spec.scaling.behavior
        hosts = {vm.host for vm in state.live if self.may_stop(vm)}
        movable = (vm for vm in state.serving if vm.host in hosts and spares(vm, self.spec.hosts, self.occupancy))
        coming = sum(state.reachable(vm.host) for vm in (*state.starting, *state.failed))
        has_host = desired < maximum(self.spec) and (self.chosen_host is not None or len(state.live) > desired)
        return ScalingLimits(
            total=desired,
            starting=min(coming + max(0, desired - len(state.live)), max(0, desired - len(state.answering))),
            minimum=minimum(self.spec),
            minimum_of_hosts=minimum(self.spec) > self.spec.scaling.min_vms,
            maximum=self.spec.scaling.max_vms,
            has_host=has_host,
            up_step=behavior.scale_up.step,
            down_step=behavior.scale_down.step,
            removable=sum(removable(name, self.spec.hosts, self.occupancy) for name in hosts),
            movable=frozenset(vm.name for vm in movable),
        )

    def may_stop(self, vm: VMRecord) -> bool:
        """Whether an own decision may stop the VM.

        Not if nobody knows how it is, unless the user emptied its host; and not while a balancer that may send it
        requests does not say what it does.
        """
        return (self.state.reachable(vm.host) or self._emptied(vm.host)) and not self._unheard(vm)

    def _unheard(self, vm: VMRecord) -> bool:
        """Whether a balancer may send the VM requests and cannot be told not to."""
        return may_get_requests(vm, self.state) and not self.state.balancers_answer

    def _emptied(self, host: str) -> bool:
        """Whether the user wants nothing on the host: it is cordoned or left the spec."""
        found = self._hosts.get(host)
        return found is None or found.cordoned

    @cached_property
    def _hosts(self) -> dict[str, Host]:
        return {host.name: host for host in self.spec.hosts}

    def why_replace(self, vm: VMRecord) -> str:
        """Why the VM must make way for another one elsewhere or of another template; empty: it need not."""
        host = self._hosts.get(vm.host)
        if host is None:
            return "HostRemoved"
        if host.cordoned:
            return "HostCordoned"
        if not self.state.reachable(vm.host):
            return ""
        if rolls_out(vm.template, self.spec.template.spec):
            return "Outdated"
        return "HostAboveMaximum" if self.occupancy[vm.host].live > host.vms.max else ""

    @cached_property
    def outdated_live(self) -> tuple[VMRecord, ...]:
        """Live VMs that must be replaced."""
        return tuple(vm for vm in self.state.live if self.why_replace(vm))

    def without(self, vm: VMRecord) -> Snapshot:
        """The same after `vm` was asked to leave."""
        vms = tuple(replace(it, deleting_since=self.now) if it.name == vm.name else it for it in self.state.vms)
        return self._with(vms)

    def without_all(self, names: Iterable[str]) -> Snapshot:
        """The same after these VMs were asked to leave."""
        gone = frozenset(names)
        return self._with(
            tuple(replace(it, deleting_since=self.now) if it.name in gone else it for it in self.state.vms)
        )

    def after(self, vm: VMRecord) -> Snapshot:
        """The same when nothing of `vm` is left."""
        return self._with(tuple(it for it in self.state.vms if it.name != vm.name))

    def including(self, vm: VMRecord) -> Snapshot:
        """The same after `vm` was created."""
        return self._with((*self.state.observation.vms, vm))

    def _with(self, vms: tuple[VMRecord, ...]) -> Snapshot:
        return replace(self, state=State(replace(self.state.observation, vms=vms)))

    def has_address(self, host: Host) -> bool:
        """Whether the host has an address left for one more VM, or needs none."""
        return self.spec.template.spec.network.type != "User" or bool(self.free_address(host))

    def free_address(self, host: Host) -> str:
        """The lowest free address of the host's forward range; empty unless the network type is User."""
        if self.spec.template.spec.network.type != "User":
            return ""
        prefix = host.forward_range.removesuffix("0/24")
        own = {vm.planned_address for vm in self.state.vms}
        taken = own | self.state.domain_addresses | self.state.published_addresses | self.memory.taken_addresses.keys()
        return next((address for last in range(2, 255) if (address := f"{prefix}{last}") not in taken), "")
