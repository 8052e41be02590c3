"""One tick's decision: from what is wanted and what is seen to what is done, and why."""

from __future__ import annotations

from dataclasses import replace

from luban.api.cluster import Decision, LubanClusterSpec
from luban.core.changes import Census, arrivals, departures
from luban.core.conditions import conditions_of, phase_of
from luban.core.lifecycle import Step, next_step
from luban.core.members import wanted_members
from luban.core.model import (
    Action,
    DeleteVM,
    Memory,
    Observation,
    OrphanVM,
    Plan,
    PublishBalancer,
    RemoveBalancer,
    RemoveOrphan,
    UpdateVM,
    VMRecord,
)
from luban.core.scaling import judge
from luban.core.state import State
from luban.core.times import rfc3339, seconds_of

BUSY_SECONDS = 1.0
"""Time to the next look while something is on its way."""
CALM_SECONDS = 5.0
"""Time to the next look at VMs' readiness in a calm cluster."""
AVOID_SECONDS = 300.0
"""So long a host where a VM failed is the last choice for the next one."""


def plan(
    spec: LubanClusterSpec,
    cluster: str,
    observation: Observation,
    memory: Memory,
    now: float,
    *,
    deleting: bool = False,
) -> Plan:
    """Decide one tick of one cluster.

    `cluster`: its name. `now`: seconds since the epoch. `deleting`: the LubanCluster has a deletion timestamp.
    Applying the plan and observing again gives a plan without actions, unless something else changed.
    """
    state = State(observation)
    if deleting:
        return _farewell(spec, state, memory, now)
    steps = _steps(spec, state, now)
    after = _after(state, steps, now)
    memory = _remember(spec, state, steps, memory, now)
    census = Census(spec, after, memory, now)
    verdict = judge(spec, after, memory, now, has_host=census.has_room, removable=census.removable)
    leaving = departures(census, verdict.desired)
    arriving = arrivals(_without(census, leaving), cluster, verdict.desired)
    actions = (
        *_flatten(steps),
        *leaving,
        *arriving,
        *_publish(spec, after, steps, frozenset(it.name for it in leaving)),
        *_orphans(spec, state, memory),
    )
    conditions = conditions_of(after, verdict.decision, verdict.desired, verdict.memory.misses)
    return Plan(
        actions=() if spec.paused else actions,
        decision=verdict.decision,
        conditions=conditions,
        phase="Paused" if spec.paused else phase_of(after, verdict.desired, conditions),
        desired=verdict.desired,
        memory=replace(verdict.memory, orphans=_orphan_uuids(state)),
        requeue_after=_requeue(spec, after, actions, verdict.decision, now),
    )


def _steps(spec: LubanClusterSpec, state: State, now: float) -> dict[str, Step]:
    timeout = spec.balancer.drain.timeout.seconds
    return {vm.name: next_step(vm, state, now=now, drain_timeout=timeout) for vm in state.vms}


def _after(state: State, steps: dict[str, Step], now: float) -> State:
    """The state as it will be when the VMs' own steps are taken."""
    return State(replace(state.observation, vms=tuple(_advance(vm, steps[vm.name], now) for vm in state.vms)))


def _advance(vm: VMRecord, step: Step, now: float) -> VMRecord:
    """The VM as its step leaves it."""
    leaving = now if vm.deleting_since is None and _deletes(step) else vm.deleting_since
    update = next((action for action in step.actions if isinstance(action, UpdateVM)), None)
    if update is None:
        return replace(vm, phase=step.phase, deleting_since=leaving)
    return replace(vm, phase=step.phase, deleting_since=leaving, reason=update.reason, message=update.message)


def _deletes(step: Step) -> bool:
    return any(isinstance(action, DeleteVM) for action in step.actions)


def _remember(
    spec: LubanClusterSpec, state: State, steps: dict[str, Step], memory: Memory, now: float
) -> Memory:
    """Update what is counted: hosts to avoid, probes missed."""
    failing = {vm.host: now + AVOID_SECONDS for vm in state.vms if _fails_now(vm.phase, steps[vm.name])}
    avoid = {host: until for host, until in memory.avoid.items() if until > now} | failing
    probed = {vm.name for vm in state.vms if vm.phase == "Ready" and vm.name in state.observation.probes}
    misses = {
        name: 0 if state.observation.probes[name] else memory.misses.get(name, 0) + 1
        for name in sorted(probed)
    }
    return replace(memory, avoid=avoid, misses=misses)


def _fails_now(phase: str, step: Step) -> bool:
    return phase != "Failed" and step.phase == "Failed"


def _without(census: Census, leaving: list[DeleteVM]) -> Census:
    by_name = {vm.name: vm for vm in census.state.vms}
    for action in leaving:
        census = census.without(by_name[action.name])
    return census


def _flatten(steps: dict[str, Step]) -> tuple[Action, ...]:
    return tuple(action for step in steps.values() for action in step.actions)


def _publish(
    spec: LubanClusterSpec, state: State, steps: dict[str, Step], leaving: frozenset[str]
) -> tuple[Action, ...]:
    """A write for every balancer whose ConfigMap says something else."""
    observation = state.observation
    phases = {name: step.phase for name, step in steps.items()}
    actions: list[Action] = []
    for balancer in observation.balancers:
        published = observation.published.get(balancer.name)
        current = {member.name: member for member in published.members} if published else {}
        members = wanted_members(spec, state, phases, leaving, current)
        if published is None:
            actions.append(PublishBalancer(balancer.name, members, "NotPublished"))
        elif published.members != members:
            actions.append(PublishBalancer(balancer.name, members, "MembersChanged"))
        elif published.settings_version != observation.settings_version:
            actions.append(PublishBalancer(balancer.name, members, "SettingsChanged"))
    return tuple(actions)


def _orphan_uuids(state: State) -> frozenset[str]:
    known = {vm.uid for vm in state.vms}
    return frozenset(
        uuid
        for host in state.observation.hosts
        if host.reachable
        for uuid in host.domains
        if uuid not in known
    )


def _orphans(spec: LubanClusterSpec, state: State, memory: Memory) -> tuple[Action, ...]:
    """Remove domains that stood without a LubanVM in the last tick too: once could be a call that came late."""
    uris = {host.name: host.uri for host in spec.hosts}
    known = {vm.uid for vm in state.vms}
    return tuple(
        RemoveOrphan(host.name, uris[host.name], uuid, "NoLubanVM")
        for host in state.observation.hosts
        if host.reachable and host.name in uris
        for uuid in sorted(host.domains)
        if uuid not in known and uuid in memory.orphans
    )


def _requeue(
    spec: LubanClusterSpec, state: State, actions: tuple[Action, ...], decision: Decision, now: float
) -> float:
    """Seconds to the next look, if nothing wakes the loop earlier."""
    if actions or state.starting or state.draining:
        return BUSY_SECONDS
    waits = [spec.scaling.interval.seconds, CALM_SECONDS]
    if decision.eligible_at is not None:
        waits.append(max(BUSY_SECONDS, seconds_of(decision.eligible_at) - now))
    return min(waits)


def _farewell(spec: LubanClusterSpec, state: State, memory: Memory, now: float) -> Plan:
    """The cluster is being deleted: let every VM go (or live on without us), then the balancers' ConfigMaps."""
    orphan = spec.deletion_policy == "Orphan"
    actions = _set_free(state) if orphan else _dissolve(spec, state, memory, now)
    decision = Decision(
        at=memory.decision.at if memory.decision and memory.decision.reason == "Deleting" else rfc3339(now),
        verdict="Hold",
        reason="Deleting",
        message=f"the cluster is being deleted, deletionPolicy {spec.deletion_policy}: {len(state.vms)} VMs left",
    )
    left = any(vm.has_finalizer for vm in state.vms)
    return Plan(
        actions=actions,
        decision=decision,
        conditions=conditions_of(state, decision, 0, {}),
        phase="Deleting",
        desired=0,
        memory=replace(memory, decision=decision, desired=0, orphans=_orphan_uuids(state)),
        requeue_after=BUSY_SECONDS,
        finished=not actions and not left and (orphan or not _orphan_uuids(state)),
    )


def _set_free(state: State) -> tuple[Action, ...]:
    return tuple(
        OrphanVM(vm.name, "Orphan") for vm in state.vms if vm.has_finalizer and vm.deleting_since is None
    )


def _dissolve(spec: LubanClusterSpec, state: State, memory: Memory, now: float) -> tuple[Action, ...]:
    steps = _steps(spec, state, now)
    leaving = tuple(
        DeleteVM(vm.name, "ClusterDeleted")
        for vm in state.vms
        if vm.deleting_since is None and not _deletes(steps[vm.name])
    )
    kept = {name: step for name, step in steps.items() if name not in {it.name for it in leaving}}
    orphans = _orphans(spec, state, memory)
    if state.vms or _orphan_uuids(state):
        names = frozenset(it.name for it in leaving)
        return (*_flatten(kept), *leaving, *_publish(spec, _after(state, steps, now), steps, names), *orphans)
    return tuple(RemoveBalancer(name, "ClusterDeleted") for name in sorted(state.observation.published))
