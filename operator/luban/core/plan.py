"""One tick's decision: from what is wanted and what is seen to what is done, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from luban.api.cluster import LubanClusterSpec
from luban.api.cluster_status import Placement
from luban.core.arrivals import Arrivals, vms_to_create
from luban.core.balancers import Tier
from luban.core.clocks import dated, entered_since, hosts_back, on_our_clock
from luban.core.conditions import Situation, conditions_of, phase_of
from luban.core.deletion import BUSY_SECONDS, plan_deletion
from luban.core.departures import vms_to_delete
from luban.core.lifecycle import Step
from luban.core.members import publications
from luban.core.memory import ClusterMemory
from luban.core.model import Action, AssignVM, CreateVM, DeleteVM, Observation, Plan
from luban.core.placement import Placing
from luban.core.pool import recycled, situation_of
from luban.core.scaling import Room, ScalingResult, decide_scaling, next_look, unmeasured
from luban.core.schedules import in_force
from luban.core.setbacks import setbacks_after
from luban.core.snapshot import Snapshot
from luban.core.state import State
from luban.core.steps import Steps, state_after, steps_of
from luban.core.strays import remove_idle_strays, strays_in_words, strays_since
from luban.core.tier import ensured, tier_of
from luban.core.times import Now
from luban.core.unreadable import release_deleted

AT_ONCE_SECONDS = 0.2
"""Time to the next look after a step of our own."""
CALM_SECONDS = 5.0
"""Time to the next look at VMs' readiness in a calm cluster."""
PATIENCE = 40.0
"""Nothing has moved for so many seconds: it is looked at a second later."""
ADDRESS_TAKEN = "AddressTaken"
"""Reason of the failure that another program or VM holds a VM's planned address."""
TAKEN_SECONDS = 3600.0
"""So long an address that was taken is not tried again."""
AVOID_SECONDS = 300.0
"""So long a host where a VM failed is the last choice for the next one."""


def plan(
    spec: LubanClusterSpec,
    cluster: str,
    observation: Observation,
    memory: ClusterMemory,
    now: Now,
    *,
    deleting: bool = False,
) -> Plan:
    """Decide one tick of one cluster.

    `cluster`: its name. `deleting`: the LubanCluster has a deletion timestamp. Whatever waits is counted on the clock
    that nobody sets, from the moment at which this process saw it begin.
    Applying the plan and observing again gives a plan without actions, unless something else changed.
    """
    spec = in_force(spec, now.wall)
    back = hosts_back(spec, memory, observation, now.monotonic)
    if back:
        memory = replace(memory, setbacks={})
    memory, state = on_our_clock(spec, memory, observation, now.monotonic)
    made = plan_deletion(spec, state, memory, now) if deleting else _plan_life(spec, cluster, state, memory, now)
    return replace(made, hosts_back=back)


def _plan_life(spec: LubanClusterSpec, cluster: str, state: State, memory: ClusterMemory, now: Now) -> Plan:
    steps = _own_steps(spec, state, memory, now.monotonic)
    # While the cluster is paused no step is taken: the same one is due in the next tick, and is no second failure.
    taken = steps.only(state, ()) if spec.paused else steps
    memory = _remember(state, taken, memory, now.monotonic)
    snapshot = Snapshot(spec, state_after(state, steps, now.monotonic), memory, now.monotonic)
    # The same number is asked about twice when the cluster shrinks.
    departures = cache(partial(vms_to_delete, snapshot))
    result = decide_scaling(spec, snapshot.state, memory, now, _room(snapshot, departures))
    leaving = departures(result.desired)
    kept = recycled(snapshot, leaving) if spec.pool.size else {}
    arrivals = vms_to_create(snapshot, leaving, cluster, result.desired, kept)
    most = max(result.desired, len(snapshot.state.live))
    tier, of_tier = tier_of(spec, snapshot.state, memory, most, now.monotonic)
    wanted = _actions(snapshot, state, steps, _Changes(result.desired, leaving, kept, arrivals, tier))
    memory = _close_memory(result, leaving, taken, state, now.monotonic)
    memory = memory if spec.paused else replace(memory, tier=of_tier)
    strays = strays_in_words(state, memory, now.monotonic)
    return _conclude(snapshot, arrivals, replace(result, memory=memory), wanted, strays, tier=tier)


def _own_steps(spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: float) -> Steps:
    barred = Snapshot(spec, state, memory, now).may_not_start
    return steps_of(spec, state, memory, now, may_not_start=barred)


@dataclass(frozen=True)
class _Changes:
    """What is wanted, and what therefore comes and goes."""

    desired: int
    leaving: Sequence[DeleteVM]
    recycled: Mapping[str, AssignVM]
    """Those that go to the pool instead, by name."""
    arrivals: Arrivals
    tier: Tier | None


def _actions(snapshot: Snapshot, state: State, steps: Steps, changes: _Changes) -> tuple[Action, ...]:
    arrivals = changes.arrivals
    names = frozenset(it.name for it in (*changes.leaving, *arrivals.dismissed))
    staying = steps.without(state, names.union(it.vm.name for it in arrivals.taken))
    return (
        *staying.actions,
        *(changes.recycled.get(it.name, it) for it in changes.leaving),
        *(action for it in arrivals.taken for action in it.actions(state)),
        *arrivals.created,
        *arrivals.dismissed,
        *arrivals.pooled,
        *ensured(state.observation, changes.tier),
        *publications(snapshot.spec, snapshot.state, staying, names, desired=changes.desired, tier=changes.tier),
        *remove_idle_strays(snapshot.spec, state, snapshot.memory, snapshot.now),
        *release_deleted(state.observation),
    )


def _conclude(
    snapshot: Snapshot,
    arrivals: Arrivals,
    result: ScalingResult,
    wanted: tuple[Action, ...],
    strays: tuple[str, ...],
    *,
    tier: Tier | None,
) -> Plan:
    """The plan with what is told of it."""
    spec, after, memory = snapshot.spec, snapshot.state, result.memory
    actions = () if spec.paused else wanted
    placement = _placement(arrivals.placing)
    conditions = conditions_of(
        Situation(
            state=after,
            decision=result.decision,
            desired=result.desired,
            misses=memory.misses,
            policy=spec.bond_policy,
            hosts=tuple(host.name for host in spec.hosts),
            missing=result.desired - arrivals.live,
            outdated=arrivals.outdated,
            placement=placement,
            strays=strays,
            setbacks=memory.setbacks,
            paused=spec.paused,
            unmeasured=unmeasured(spec, after, memory, snapshot.now),
            tier=tier,
            pool=situation_of(snapshot, arrivals.no_room_for_pool),
        )
    )
    return Plan(
        actions=actions,
        decision=result.decision,
        conditions=conditions,
        placement=placement,
        phase="Paused" if spec.paused else phase_of(after, result.desired, conditions),
        desired=result.desired,
        memory=memory,
        requeue_after=_requeue(spec, after, actions, memory, snapshot.now),
        tier=tier,
    )


def _room(snapshot: Snapshot, departures: Callable[[int], tuple[DeleteVM, ...]]) -> Room:
    def can_shrink_to(desired: int) -> bool:
        live = len(snapshot.state.live)
        if live <= desired:
            # Nothing needs to go, for one is missing: if it can be made it is wanted still, and it is asked again then.
            return not snapshot.has_place
        return live - len(departures(desired)) <= desired

    return Room(snapshot.limits, can_shrink_to, lambda: len(snapshot.state.live) - len(snapshot.outdated_live))


def _close_memory(
    result: ScalingResult, leaving: Sequence[DeleteVM], steps: Steps, state: State, now: float
) -> ClusterMemory:
    """What the next tick shall know of this one."""
    shrinks = result.decision.verdict == "ScaleDown" and result.memory.evaluated == now
    entered = entered_since(result.memory.entered, steps.phases, now)
    return replace(
        result.memory,
        shrinking=frozenset(it.name for it in leaving) if shrinks else frozenset(),
        strays=strays_since(state, result.memory, now),
        entered=entered,
    )


def _placement(found: Placing) -> Placement:
    """Where the next VM would go once this plan is carried out, for the status."""
    return Placement(host=found.host.name if found.host else "", reason=found.reason, message=found.message)


def _remember(state: State, steps: Steps, memory: ClusterMemory, now: float) -> ClusterMemory:
    """Update what is counted: hosts to avoid, probes missed. A VM that was not probed keeps its count."""
    moving = [(dated(vm, memory.entered), step) for vm, step in steps.moving(state)]
    failing = {vm.host: now + AVOID_SECONDS for vm, step in moving if _fails_now(vm.phase, step)}
    avoid = {host: until for host, until in memory.avoid.items() if until > now} | failing
    seen = state.observation
    fresh = {name: answer for name, answer in seen.probes.items() if name not in seen.counted_probes}
    missed = memory.misses.keys() | {name for name, answer in fresh.items() if not answer}
    ready = (vm.name for vm in state.ready if vm.name in missed)
    misses = {name: count for name in ready if (count := _count(memory.misses.get(name, 0), fresh.get(name)))}
    return replace(
        memory,
        avoid=avoid,
        misses=misses,
        setbacks=setbacks_after(memory.setbacks, moving, now),
        taken_addresses=_taken_addresses(state, memory, now),
    )


def _taken_addresses(state: State, memory: ClusterMemory, now: float) -> dict[str, float]:
    """Planned addresses that turned out to be somebody else's, and until when they are left alone."""
    failures = state.observation.provision_failures
    failed = (vm for vm in state.vms if vm.name in failures and failures[vm.name].reason == ADDRESS_TAKEN)
    kept = {address: until for address, until in memory.taken_addresses.items() if until > now}
    return kept | {vm.planned_address: now + TAKEN_SECONDS for vm in failed}


def _count(misses: int, answer: bool | None) -> int:
    if answer is None:
        return misses
    return 0 if answer else misses + 1


def _fails_now(phase: str, step: Step) -> bool:
    return phase != "Failed" and step.phase == "Failed"


def _requeue(
    spec: LubanClusterSpec, state: State, actions: Sequence[Action], memory: ClusterMemory, now: float
) -> float:
    """Seconds to the next look, if nothing wakes the loop earlier.

    At once after a change of our own, for the next step follows from it; else the more seldom, the longer nothing
    moved.
    """
    if spec.paused or not (actions or state.starting or state.draining or state.settling):
        return min(CALM_SECONDS, max(BUSY_SECONDS, next_look(spec, memory, now)))
    moved = max((entered.since for entered in memory.entered.values()), default=-math.inf)
    if moved == now or (
        any(isinstance(action, CreateVM | AssignVM) for action in actions) and not state.observation.action_failures
    ):
        return AT_ONCE_SECONDS
    return min(CALM_SECONDS, max(BUSY_SECONDS, (now - moved) / PATIENCE))
