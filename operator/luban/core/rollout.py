"""Which VMs to create and which to let go, so that the wanted number lives where it should."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from luban.api.cluster import Host
from luban.core import phases
from luban.core.model import CreateVM, DeleteVM, VMRecord
from luban.core.placement import choose_victim
from luban.core.snapshot import Snapshot
from luban.core.state import State

MAX_SURGE = 1
"""VMs above the wanted number while outdated ones are replaced."""
MOST_AT_ONCE = 50
"""VMs that one plan creates or lets go at most: the rest follows in the next, and nobody waits for this one."""
NAME_DIGITS = 5


def vms_to_delete(snapshot: Snapshot, desired: int) -> list[DeleteVM]:
    """VMs to let go: what is above the wanted number, and outdated ones once their successors answer."""
    leaving: list[DeleteVM] = []
    while len(leaving) < MOST_AT_ONCE and (choice := _next_to_delete(snapshot, desired)) is not None:
        victim, reason = choice
        leaving.append(DeleteVM(victim.name, reason))
        snapshot = snapshot.without(victim)
    return leaving


def _next_to_delete(snapshot: Snapshot, desired: int) -> tuple[VMRecord, str] | None:
    for vm in snapshot.outdated_live:
        if snapshot.abandoned(vm) or snapshot.stranded(vm):
            return vm, snapshot.why_replace(vm)
    if len(snapshot.state.live) > desired:
        return _excess(snapshot, desired)
    if snapshot.outdated_live and not _can_surge(snapshot) and _at_rest(snapshot):
        return _make_room(snapshot)
    return None


def _can_surge(snapshot: Snapshot) -> bool:
    """Whether a successor fits before its predecessor goes. Room on a host that is silent now is waited for, and so is
    the room of what is on its way out.

    Room on a host whose bond is not good enough is not: it may be so for ever.
    """
    if len(snapshot.state.live) >= snapshot.spec.scaling.max_vms:
        return False
    return any(
        not host.cordoned
        and snapshot.occupancy[host.name].live < host.vms.max
        and snapshot.bonds.admits(host.name)
        and snapshot.has_address(host)
        for host in snapshot.spec.hosts
    )


def _at_rest(snapshot: Snapshot) -> bool:
    """Whether nothing is on its way out, and all that is up to date answers: a rollout stops at its first failure."""
    state = snapshot.state
    settled = state.proven | {vm.name for vm in snapshot.outdated_live}
    leaving = any(not snapshot.given_up(vm) for vm in state.draining)
    return not leaving and all(vm.name in settled for vm in state.live)


def _make_room(snapshot: Snapshot) -> tuple[VMRecord, str] | None:
    """The limits leave no room above the wanted number: an outdated VM makes room for its successor.

    First one that never served, or is known not to answer; one that answers, only if all others do.
    """
    state = snapshot.state
    # On a host that does not answer nothing can be stopped, so nothing would make room.
    able = [vm for vm in snapshot.outdated_live if state.reachable(vm.host) and snapshot.may_stop(vm)]
    open_hosts = {vm.host: snapshot.after(vm).chosen_host is not None for vm in {vm.host: vm for vm in able}.values()}
    replaceable = [vm for vm in able if open_hosts[vm.host]]
    useless = [vm for vm in replaceable if vm.phase != "Ready" or vm.name in state.sick]
    all_answer = len(state.proven) == len(state.live)
    return _pick(snapshot, useless or (replaceable if all_answer else []), keep_minima=False)


def _excess(snapshot: Snapshot, desired: int) -> tuple[VMRecord, str] | None:
    """Above the wanted number: what never served goes first, then what does not answer; another, only if enough others
    answer. Of these what is outdated first; and a successor that must not start at all holds the others up.

    A VM that a silent balancer does not know may serve all the same: it never counts as one that never served.
    """
    state, outdated = snapshot.state, {vm.name for vm in snapshot.outdated_live}
    able = [vm for vm in state.live if snapshot.may_stop(vm) and _others_answer(state, vm, desired)]
    idle = [vm for vm in able if vm.phase != "Ready"]
    sick = [vm for vm in able if vm.name in state.sick]
    spare = [vm for vm in able if vm.phase == "Ready"]
    stuck = [vm for vm in idle if vm.name in snapshot.may_not_start]
    old_idle, old_sick, old_spare = ([vm for vm in group if vm.name in outdated] for group in (idle, sick, spare))
    if outdated and len(state.live) <= desired + MAX_SURGE:
        idle, sick, spare = [], [], []
    # A host's minimum keeps what is up to date; what must be replaced goes all the same, if nothing else does.
    return (
        _pick(snapshot, [*stuck, *old_idle], keep_minima=False)
        or _pick(snapshot, old_sick)
        or _pick(snapshot, old_sick, keep_minima=False)
        or _pick(snapshot, old_spare)
        or _pick(snapshot, old_spare, keep_minima=False)
        or _pick(snapshot, idle)
        or _pick(snapshot, sick)
        or _pick(snapshot, spare)
    )


def _others_answer(state: State, vm: VMRecord, desired: int) -> bool:
    """Whether enough others answer, or nobody would miss it: it never served, or is known not to answer."""
    if vm.phase in phases.STARTING | phases.NO_USE or vm.name in state.sick:
        return True
    return len(state.proven - {vm.name}) >= desired


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
    while (
        len(created) < _most_to_create(snapshot)
        and (reason := _reason_to_create(snapshot, desired))
        and (host := snapshot.chosen_host) is not None
    ):
        action = _create(snapshot, cluster, host, reason)
        created.append(action)
        snapshot = snapshot.including(_record(snapshot, action))
    return created, snapshot


def _most_to_create(snapshot: Snapshot) -> int:
    """After setbacks one VM alone is tried, and only when its time has come."""
    setbacks = snapshot.memory.setbacks.values()
    if any(snapshot.now < it.retry_at for it in setbacks):
        return 0
    if any(it.count > 1 for it in setbacks):
        return 0 if any(snapshot.state.reachable(vm.host) for vm in snapshot.state.booting) else 1
    return MOST_AT_ONCE


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
    if host is None or host.name in snapshot.avoided:
        return False
    return snapshot.occupancy[host.name].live < host.vms.min


def _create(snapshot: Snapshot, cluster: str, host: Host, reason: str) -> CreateVM:
    return CreateVM(
        _new_name(snapshot, cluster),
        host.name,
        host.uri,
        snapshot.free_address(host),
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
