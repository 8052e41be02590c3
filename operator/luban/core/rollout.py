"""Which VMs to create and which to let go, so that the wanted number lives where it should."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from luban.api.cluster import Host, LubanClusterSpec
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterMemory, CreateVM, DeleteVM, VMRecord
from luban.core.placement import Bonds, Candidates, Occupancy, Placing, choose_victim, place, removable, spares
from luban.core.scaling import Space
from luban.core.state import State

MAX_SURGE = 1
"""VMs above the wanted number while outdated ones are replaced."""
NAME_DIGITS = 5


def _machine_of(template: VMTemplateSpec) -> tuple[object, ...]:
    """What makes two VMs different machines. Probes and timeouts are not part of it: they are taken from the spec."""
    return (template.domain, template.image, template.network, template.cloud_init, template.port)


@dataclass(frozen=True)
class Snapshot:
    """State and spec together: who is where, and what a host can still take."""

    spec: LubanClusterSpec
    state: State
    memory: ClusterMemory
    now: float

    @cached_property
    def occupancy(self) -> dict[str, Occupancy]:
        """Per host of the spec and of a VM. Lost VMs hold nothing: their domains are off."""
        live = Counter(vm.host for vm in self.state.live)
        failed = Counter(vm.host for vm in self.state.failed)
        held = Counter(vm.host for vm in self.state.vms if vm.phase != "Lost")
        names = {host.name for host in self.spec.hosts} | held.keys()
        return {name: Occupancy(live[name], held[name], failed[name]) for name in names}

    @cached_property
    def total(self) -> int:
        """VMs whose domain may run, those on their way out included."""
        return sum(vm.phase != "Lost" for vm in self.state.vms)

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
            avoid=frozenset(self._avoided),
            bonds=self.bonds,
            no_address=frozenset(host.name for host in self.spec.hosts if not _has_address(self, host)),
        )

    @property
    def _avoided(self) -> set[str]:
        """Hosts where a VM failed lately. Those that still show it are known even after a restart."""
        remembered = {host for host, until in self.memory.avoid.items() if until > self.now}
        return remembered | {vm.host for vm in self.state.vms if vm.phase == "Failed"}

    def space(self) -> Space:
        """What the hosts can take and give."""
        names = {vm.host for vm in self.state.live if self.may_stop(vm)}
        movable = (vm for vm in self.state.serving if vm.host in names)
        return Space(
            has_host=self.chosen_host is not None,
            removable=sum(removable(name, self.spec.hosts, self.occupancy) for name in names),
            movable=frozenset(vm.name for vm in movable if spares(vm, self.spec.hosts, self.occupancy)),
        )

    def may_stop(self, vm: VMRecord) -> bool:
        """Whether an own decision may stop the VM: not if nobody knows how it is, unless the user emptied its host."""
        return self.state.reachable(vm.host) or self._emptied(vm.host)

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
        if _machine_of(vm.template) != _machine_of(self.spec.template.spec):
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

    def after(self, vm: VMRecord) -> Snapshot:
        """The same when nothing of `vm` is left."""
        return self._with(tuple(it for it in self.state.vms if it.name != vm.name))

    def including(self, vm: VMRecord) -> Snapshot:
        """The same after `vm` was created."""
        return self._with((*self.state.observation.vms, vm))

    def _with(self, vms: tuple[VMRecord, ...]) -> Snapshot:
        return replace(self, state=State(replace(self.state.observation, vms=vms)))


def vms_to_delete(snapshot: Snapshot, desired: int) -> list[DeleteVM]:
    """VMs to let go: what is above the wanted number, and outdated ones once their successors serve."""
    leaving: list[DeleteVM] = []
    while (choice := _next_departure(snapshot, desired)) is not None:
        victim, reason = choice
        leaving.append(DeleteVM(victim.name, reason))
        snapshot = snapshot.without(victim)
    return leaving


def _next_departure(snapshot: Snapshot, desired: int) -> tuple[VMRecord, str] | None:
    if len(snapshot.state.live) > desired:
        return _excess(snapshot, desired)
    if snapshot.outdated_live and not _can_surge(snapshot) and _at_rest(snapshot):
        return _make_room(snapshot)
    return None


def _can_surge(snapshot: Snapshot) -> bool:
    """Whether a successor fits before its predecessor goes. Room on a host that is silent now is waited for.

    Room on a host whose bond is not good enough is not: it may be so for ever.
    """
    if snapshot.total >= snapshot.spec.scaling.max_vms:
        return False
    return any(
        not host.cordoned
        and snapshot.occupancy[host.name].held < host.vms.max
        and snapshot.bonds.admits(host.name)
        and _has_address(snapshot, host)
        for host in snapshot.spec.hosts
    )


def _at_rest(snapshot: Snapshot) -> bool:
    """Whether nothing is on its way out, and all that is up to date serves: a rollout stops at its first failure."""
    state = snapshot.state
    settled = state.serving_names | {vm.name for vm in snapshot.outdated_live}
    leaving = any(state.reachable(vm.host) for vm in state.draining)
    return not leaving and all(vm.name in settled for vm in state.live)


def _make_room(snapshot: Snapshot) -> tuple[VMRecord, str] | None:
    """No VM above the wanted number fits: an outdated one makes room for its successor, one that never served first."""
    state = snapshot.state
    # On a host that does not answer nothing can be stopped, so nothing would make room.
    one_per_host = {vm.host: vm for vm in snapshot.outdated_live if state.reachable(vm.host)}
    able = {host for host, vm in one_per_host.items() if snapshot.after(vm).chosen_host is not None}
    replaceable = [vm for vm in snapshot.outdated_live if vm.host in able]
    idle = [vm for vm in replaceable if vm.phase != "Ready"]
    all_serve = len(state.serving) == len(state.live)
    return _pick(snapshot, idle or (replaceable if all_serve else []), keep_minima=False)


def _excess(snapshot: Snapshot, desired: int) -> tuple[VMRecord, str] | None:
    """Above the wanted number: what never served goes first; another, only if enough others serve.

    A VM that a silent balancer does not know may serve all the same: it never counts as one that never served.
    """
    state, outdated = snapshot.state, {vm.name for vm in snapshot.outdated_live}
    idle = [vm for vm in (*state.failed, *state.booting) if snapshot.may_stop(vm)]
    spare = [vm for vm in state.ready if snapshot.may_stop(vm) and _others_serve(state, vm, desired)]
    old_idle = [vm for vm in idle if vm.name in outdated]
    old_spare = [vm for vm in spare if vm.name in outdated]
    if outdated and len(state.live) <= desired + MAX_SURGE:
        idle, spare = [], []
    return (
        _pick(snapshot, old_idle, keep_minima=False)
        or _pick(snapshot, old_spare)
        or _pick(snapshot, old_spare, keep_minima=False)
        or _pick(snapshot, idle)
        or _pick(snapshot, spare)
    )


def _others_serve(state: State, vm: VMRecord, desired: int) -> bool:
    return len(state.serving) - (vm.name in state.serving_names) >= desired


def _pick(
    snapshot: Snapshot, candidates: Sequence[VMRecord], *, keep_minima: bool = True
) -> tuple[VMRecord, str] | None:
    victim = choose_victim(
        candidates,
        snapshot.spec.hosts,
        snapshot.occupancy,
        snapshot.state.observation.sessions,
        keep_minima=keep_minima,
        bonds=snapshot.bonds,
    )
    return (victim, snapshot.why_replace(victim) or "AboveDesired") if victim is not None else None


def vms_to_create(snapshot: Snapshot, cluster: str, desired: int) -> tuple[list[CreateVM], Snapshot]:
    """VMs to create: what is missing, one successor for outdated ones, and one for a host below its minimum.

    Returns the snapshot with them too.
    """
    created: list[CreateVM] = []
    while (reason := _reason_to_create(snapshot, desired)) and (host := snapshot.chosen_host) is not None:
        action = _create(snapshot, cluster, host, reason)
        created.append(action)
        snapshot = snapshot.including(_record(snapshot, action))
    return created, snapshot


def _reason_to_create(snapshot: Snapshot, desired: int) -> str:
    """Why one more VM is needed; empty: it is not."""
    live = len(snapshot.state.live)
    if snapshot.total >= snapshot.spec.scaling.max_vms:
        return ""
    if live < desired:
        return "BelowDesired"
    if snapshot.outdated_live and live < desired + MAX_SURGE:
        return "Outdated"
    if live == desired and _host_below_minimum(snapshot):
        return "HostBelowMinimum"
    return ""


def _host_below_minimum(snapshot: Snapshot) -> bool:
    """Whether the next VM would go to a host below its minimum: those come first, unless one failed there lately."""
    host = snapshot.chosen_host
    return host is not None and snapshot.occupancy[host.name].live < host.vms.min


def _create(snapshot: Snapshot, cluster: str, host: Host, reason: str) -> CreateVM:
    return CreateVM(
        _new_name(snapshot, cluster),
        host.name,
        host.uri,
        _free_address(snapshot, host),
        reason,
        snapshot.placing.message,
    )


def _new_name(snapshot: Snapshot, cluster: str) -> str:
    """A name that no VM of the cluster has; a function of the time and the names taken, so that a plan stays pure."""
    taken = {vm.name for vm in snapshot.state.vms}
    attempt = 0
    while True:
        seed = f"{cluster}/{snapshot.now!r}/{len(taken)}/{attempt}".encode()
        name = f"{cluster}-{hashlib.blake2b(seed, digest_size=8).hexdigest()[:NAME_DIGITS]}"
        if name not in taken:
            return name
        attempt += 1


def _has_address(snapshot: Snapshot, host: Host) -> bool:
    """Whether the host has an address left for one more VM, or needs none."""
    return snapshot.spec.template.spec.network.type != "User" or bool(_free_address(snapshot, host))


def _free_address(snapshot: Snapshot, host: Host) -> str:
    """The lowest free address of the host's forward range; empty unless the network type is User."""
    if snapshot.spec.template.spec.network.type != "User":
        return ""
    prefix = host.forward_range.removesuffix("0/24")
    taken = {vm.planned_address for vm in snapshot.state.vms} | snapshot.state.domain_addresses
    return next((address for last in range(2, 255) if (address := f"{prefix}{last}") not in taken), "")


def _record(snapshot: Snapshot, action: CreateVM) -> VMRecord:
    """The VM that `action` will make, for the rest of this plan."""
    return VMRecord(
        name=action.name,
        uid="",
        host=action.host,
        host_uri=action.host_uri,
        template=snapshot.spec.template.spec,
        created=snapshot.now,
        planned_address=action.address,
    )
