"""Which VMs to create and which to let go, so that the wanted number lives where it should."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from luban.api.cluster import Host, LubanClusterSpec
from luban.core.model import CreateVM, DeleteVM, Memory, VMRecord
from luban.core.placement import Occupancy, choose_host, choose_victim
from luban.core.state import State

MAX_SURGE = 1
"""VMs above the wanted number while outdated ones are replaced."""
NAME_DIGITS = 5


@dataclass(frozen=True)
class Census:
    """State and spec together: who is where, and what a host can still take."""

    spec: LubanClusterSpec
    state: State
    memory: Memory
    now: float

    def occupancy(self) -> dict[str, Occupancy]:
        """Per host of the spec. Lost VMs hold nothing: their domains are off."""
        held = [vm for vm in self.state.vms if vm.phase != "Lost"]
        return {
            host.name: Occupancy(
                self.state.live_per_host[host.name], sum(vm.host == host.name for vm in held)
            )
            for host in self.spec.hosts
        }

    @property
    def total(self) -> int:
        """VMs whose domain may run, those on their way out included."""
        return sum(vm.phase != "Lost" for vm in self.state.vms)

    @property
    def has_room(self) -> bool:
        """Whether a host can take another VM."""
        return self.choose_host() is not None

    def choose_host(self) -> Host | None:
        """Where the next VM goes."""
        avoid = [host for host, until in self.memory.avoid.items() if until > self.now]
        return choose_host(self.spec.hosts, self.occupancy(), reachable=self.state.reachable, avoid=avoid)

    @property
    def removable(self) -> int:
        """VMs that live on hosts above their minimum."""
        live = self.state.live_per_host
        return sum(max(0, live[host.name] - host.vms.min) for host in self.spec.hosts)

    def outdated(self, vm: VMRecord) -> bool:
        """Whether the VM must be replaced: another template, a cordoned host, a host that left the spec."""
        hosts = {host.name: host for host in self.spec.hosts}
        host = hosts.get(vm.host)
        return host is None or host.cordoned or vm.template != self.spec.template.spec

    @property
    def outdated_live(self) -> tuple[VMRecord, ...]:
        """Live VMs that must be replaced."""
        return tuple(vm for vm in self.state.live if self.outdated(vm))

    def without(self, vm: VMRecord) -> Census:
        """The same after `vm` was asked to leave."""
        vms = tuple(
            replace(it, deleting_since=self.now) if it.name == vm.name else it for it in self.state.vms
        )
        return replace(self, state=State(replace(self.state.observation, vms=vms)))

    def including(self, vm: VMRecord) -> Census:
        """The same after `vm` was created."""
        vms = (*self.state.observation.vms, vm)
        return replace(self, state=State(replace(self.state.observation, vms=vms)))


def departures(census: Census, desired: int) -> list[DeleteVM]:
    """VMs to let go: what is above the wanted number, and outdated ones once their successors serve."""
    leaving: list[DeleteVM] = []
    while (choice := _next_departure(census, desired)) is not None:
        victim, reason = choice
        leaving.append(DeleteVM(victim.name, reason))
        census = census.without(victim)
    return leaving


def _next_departure(census: Census, desired: int) -> tuple[VMRecord, str] | None:
    live, outdated = census.state.live, census.outdated_live
    if len(live) > desired:
        return _excess(census, desired, outdated)
    if outdated and census.total >= census.spec.scaling.max_vms and _all_serve(census, desired):
        # No room for a surge below maxVMs: the first outdated VM makes room for its successor.
        return _pick(census, outdated, "Outdated")
    return None


def _all_serve(census: Census, desired: int) -> bool:
    return len(census.state.serving) >= desired and not census.state.draining


def _excess(census: Census, desired: int, outdated: Sequence[VMRecord]) -> tuple[VMRecord, str] | None:
    """Above the wanted number: what serves nobody goes first; what serves only if enough others do."""
    state = census.state
    successors = tuple(vm for vm in state.starting if not census.outdated(vm))
    waiting = () if outdated and len(state.live) <= desired + MAX_SURGE else successors
    idle = (*state.failed, *(vm for vm in state.starting if census.outdated(vm)), *waiting)
    if idle and (choice := _pick(census, idle, "AboveDesired")):
        return choice
    if len(state.serving) - 1 < desired:
        return None
    old = tuple(vm for vm in state.serving if census.outdated(vm))
    return _pick(census, old, "Outdated") or _pick(census, state.serving, "AboveDesired")


def _pick(census: Census, candidates: Sequence[VMRecord], reason: str) -> tuple[VMRecord, str] | None:
    victim = choose_victim(
        candidates, census.spec.hosts, census.state.live_per_host, census.state.observation.sessions
    )
    return (victim, reason) if victim is not None else None


def arrivals(census: Census, cluster: str, desired: int) -> list[CreateVM]:
    """VMs to create: what is missing, one successor for outdated ones, and one for a host below its minimum."""
    created: list[CreateVM] = []
    while (reason := _reason_to_create(census, desired)) and (host := census.choose_host()) is not None:
        if reason == "HostBelowMinimum" and census.state.live_per_host[host.name] >= host.vms.min:
            break
        action = _create(census, cluster, host, reason)
        created.append(action)
        census = census.including(_record(census, action))
    return created


def _reason_to_create(census: Census, desired: int) -> str:
    """Why one more VM is needed; empty: it is not."""
    live = len(census.state.live)
    if census.total >= census.spec.scaling.max_vms:
        return ""
    if live < desired:
        return "BelowDesired"
    if census.outdated_live and live < desired + MAX_SURGE:
        return "Outdated"
    if live == desired and _host_below_minimum(census):
        return "HostBelowMinimum"
    return ""


def _host_below_minimum(census: Census) -> bool:
    live = census.state.live_per_host
    return any(
        live[host.name] < host.vms.min
        for host in census.spec.hosts
        if not host.cordoned and census.state.reachable(host.name)
    )


def _create(census: Census, cluster: str, host: Host, reason: str) -> CreateVM:
    return CreateVM(_new_name(census, cluster), host.name, host.uri, _free_address(census, host), reason)


def _new_name(census: Census, cluster: str) -> str:
    """A name that no VM of the cluster has; a function of the time and the names taken, so that a plan stays pure."""
    taken = {vm.name for vm in census.state.vms}
    attempt = 0
    while True:
        seed = f"{cluster}/{census.now!r}/{len(taken)}/{attempt}".encode()
        name = f"{cluster}-{hashlib.blake2b(seed, digest_size=8).hexdigest()[:NAME_DIGITS]}"
        if name not in taken:
            return name
        attempt += 1


def _free_address(census: Census, host: Host) -> str:
    """The lowest free address of the host's forward range; empty unless the network type is User."""
    if census.spec.template.spec.network.type != "User":
        return ""
    prefix = host.forward_range.removesuffix("0/24")
    taken = {vm.planned_address for vm in census.state.vms}
    return next((address for last in range(2, 255) if (address := f"{prefix}{last}") not in taken), "")


def _record(census: Census, action: CreateVM) -> VMRecord:
    """The VM that `action` will make, for the rest of this plan."""
    return VMRecord(
        name=action.name,
        uid="",
        host=action.host,
        host_uri=action.host_uri,
        template=census.spec.template.spec,
        created=census.now,
        planned_address=action.address,
    )
