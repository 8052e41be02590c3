"""One tick's decision: from what is wanted and what is seen to what is done, and why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from luban.api.cluster import LubanClusterSpec
from luban.api.cluster_status import Decision, Placement
from luban.core.conditions import conditions_of, phase_of
from luban.core.lifecycle import Step, next_step
from luban.core.members import wanted_members
from luban.core.model import (
    Action,
    ClusterMemory,
    DeleteVM,
    Observation,
    OrphanVM,
    Plan,
    PublishBalancer,
    RemoveBalancer,
    RemoveStray,
    UpdateVM,
    VMRecord,
)
from luban.core.rollout import Snapshot, vms_to_create, vms_to_delete
from luban.core.scaling import decide_scaling, next_look
from luban.core.state import State
from luban.core.times import rfc3339

BUSY_SECONDS = 1.0
"""Time to the next look while something is on its way."""
CALM_SECONDS = 5.0
"""Time to the next look at VMs' readiness in a calm cluster."""
STRAY_SECONDS = 300.0
"""So long a domain that no LubanVM stands for lives on, out of the balancers: time to see what went wrong."""
STRAY_NOTICE_SECONDS = 15.0
"""So long nothing is said of it: a host's picture may be some seconds old."""
AVOID_SECONDS = 300.0
"""So long a host where a VM failed is the last choice for the next one."""


def plan(
    spec: LubanClusterSpec,
    cluster: str,
    observation: Observation,
    memory: ClusterMemory,
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
        return _plan_deletion(spec, state, memory, now)
    steps = _steps(spec, state, now)
    after = _after(state, steps, now)
    memory = _remember(state, steps, memory, now)
    snapshot = Snapshot(spec, after, memory, now)
    verdict = decide_scaling(spec, after, memory, now, snapshot.space)
    leaving = vms_to_delete(snapshot, verdict.desired)
    steps = _without_steps_of(state, steps, leaving)
    arriving, later = vms_to_create(_without(snapshot, leaving), cluster, verdict.desired)
    placement = _placement(later)
    wanted = (
        *_flatten(steps),
        *leaving,
        *arriving,
        *_publish(spec, after, steps, frozenset(it.name for it in leaving)),
        *_remove_strays(spec, state, memory, now - STRAY_SECONDS),
    )
    actions = () if spec.paused else wanted
    missing = verdict.desired - (len(after.live) - len(leaving) + len(arriving))
    conditions = conditions_of(
        after,
        verdict.decision,
        verdict.desired,
        verdict.memory.misses,
        policy=spec.bond_policy,
        hosts=[host.name for host in spec.hosts],
        missing=missing,
        outdated=len(later.outdated_live),
        placement=placement,
        strays=[
            f"domain {domain.name} on {host}"
            for host, domain in state.strays
            if memory.strays.get(domain.uuid, now) <= now - STRAY_NOTICE_SECONDS
        ],
    )
    return Plan(
        actions=actions,
        decision=verdict.decision,
        conditions=conditions,
        placement=placement,
        phase="Paused" if spec.paused else phase_of(after, verdict.desired, conditions),
        desired=verdict.desired,
        memory=replace(verdict.memory, strays=_strays_since(state, memory, now)),
        requeue_after=_requeue(spec, after, actions, verdict.memory, now),
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
    if update is None and (step.phase, leaving) == (vm.phase, vm.deleting_since):
        return vm
    if update is None:
        return replace(vm, phase=step.phase, deleting_since=leaving)
    return replace(vm, phase=step.phase, deleting_since=leaving, reason=update.reason, message=update.message)


def _placement(snapshot: Snapshot) -> Placement:
    """Where the next VM would go once this plan is carried out."""
    found = snapshot.placing
    reason: Literal["NoRoom", "BetterBond", "FewestVMs"] = "FewestVMs"
    if found.host is None:
        reason = "NoRoom"
    elif found.by_bond:
        reason = "BetterBond"
    return Placement(host=found.host.name if found.host else "", reason=reason, message=found.message)


def _deletes(step: Step) -> bool:
    return any(isinstance(action, DeleteVM) for action in step.actions)


def _without_steps_of(state: State, steps: dict[str, Step], leaving: list[DeleteVM]) -> dict[str, Step]:
    """The steps without those of VMs that this plan asks to leave: nothing is started to be stopped at once."""
    phases = {vm.name: vm.phase for vm in state.vms}
    return steps | {it.name: Step(phases[it.name]) for it in leaving}


def _remember(state: State, steps: dict[str, Step], memory: ClusterMemory, now: float) -> ClusterMemory:
    """Update what is counted: hosts to avoid, probes missed. A VM that was not probed keeps its count."""
    failing = {vm.host: now + AVOID_SECONDS for vm in state.vms if _fails_now(vm.phase, steps[vm.name])}
    avoid = {host: until for host, until in memory.avoid.items() if until > now} | failing
    probes = state.observation.probes
    misses = {
        vm.name: count for vm in state.ready if (count := _count(memory.misses.get(vm.name, 0), probes.get(vm.name)))
    }
    return replace(memory, avoid=avoid, misses=misses)


def _count(misses: int, answer: bool | None) -> int:
    if answer is None:
        return misses
    return 0 if answer else misses + 1


def _fails_now(phase: str, step: Step) -> bool:
    return phase != "Failed" and step.phase == "Failed"


def _without(snapshot: Snapshot, leaving: list[DeleteVM]) -> Snapshot:
    by_name = {vm.name: vm for vm in snapshot.state.vms}
    for action in leaving:
        snapshot = snapshot.without(by_name[action.name])
    return snapshot


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


def _strays_since(state: State, memory: ClusterMemory, now: float) -> dict[str, float]:
    return {domain.uuid: memory.strays.get(domain.uuid, now) for _, domain in state.strays}


def _remove_strays(spec: LubanClusterSpec, state: State, memory: ClusterMemory, until: float) -> tuple[Action, ...]:
    """Remove domains that stood without a LubanVM from `until` or before, and in every tick since.

    Never at the first sighting, which could be a call that came late. `until` is minutes ago, unless the cluster goes.
    """
    uris = {host.name: host.uri for host in spec.hosts}
    return tuple(
        RemoveStray(host, uris[host], domain.uuid, "NoLubanVM")
        for host, domain in state.strays
        if host in uris and memory.strays.get(domain.uuid, math.inf) <= until
    )


def _requeue(
    spec: LubanClusterSpec, state: State, actions: tuple[Action, ...], memory: ClusterMemory, now: float
) -> float:
    """Seconds to the next look, if nothing wakes the loop earlier."""
    if not spec.paused and (actions or state.starting or state.draining):
        return BUSY_SECONDS
    return min(CALM_SECONDS, max(BUSY_SECONDS, next_look(spec, memory, now)))


def _plan_deletion(spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: float) -> Plan:
    """The cluster is being deleted: let every VM go (or live on without us), then the balancers' ConfigMaps."""
    actions = (
        _orphan_all(spec, state, now) if spec.deletion_policy == "Orphan" else _delete_all(spec, state, memory, now)
    )
    left = sum(vm.has_finalizer for vm in state.vms)
    message = f"the cluster is being deleted, deletionPolicy {spec.deletion_policy}: {left} VMs left"
    decision = Decision(
        at=memory.decision.at if memory.decision and memory.decision.reason == "Deleting" else rfc3339(now),
        verdict="Hold",
        reason="Deleting",
        message=message,
    )
    return Plan(
        actions=actions,
        decision=decision,
        conditions=conditions_of(
            state, decision, 0, {}, policy=spec.bond_policy, hosts=[host.name for host in spec.hosts]
        ),
        placement=None,
        phase="Deleting",
        desired=0,
        memory=replace(memory, decision=decision, desired=0, strays=_strays_since(state, memory, now)),
        requeue_after=BUSY_SECONDS,
        finished=not actions and not left and (spec.deletion_policy == "Orphan" or not state.strays),
    )


def _orphan_all(spec: LubanClusterSpec, state: State, now: float) -> tuple[Action, ...]:
    """Let VMs live on without us. Those that were asked to leave before leave first: it takes the balancers."""
    steps = _steps(spec, state, now)
    leaving = {vm.name: steps[vm.name] for vm in state.draining if vm.has_finalizer}
    if not leaving and not _publishes_unknown(state):
        return tuple(OrphanVM(vm.name, "Orphan") for vm in state.vms if vm.has_finalizer)
    standing = {vm.name: Step(vm.phase) for vm in state.vms} | leaving
    return (*_flatten(leaving), *_publish(spec, state, standing, frozenset()))


def _publishes_unknown(state: State) -> bool:
    """Whether a balancer is told of a VM that is not there any more."""
    known = {vm.name for vm in state.vms}
    published = state.observation.published.values()
    return any(member.name not in known for content in published for member in content.members)


def _delete_all(spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: float) -> tuple[Action, ...]:
    if not state.vms and not state.strays:
        return tuple(RemoveBalancer(name, "ClusterDeleted") for name in sorted(state.observation.published))
    leaving = [DeleteVM(vm.name, "ClusterDeleted") for vm in state.vms if vm.deleting_since is None]
    steps = _without_steps_of(state, _steps(spec, state, now), leaving)
    publications = _publish(spec, state, steps, frozenset(it.name for it in leaving))
    return (*_flatten(steps), *leaving, *publications, *_remove_strays(spec, state, memory, now))
