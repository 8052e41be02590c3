"""A LubanCluster that is being deleted: its VMs go, or live on without us."""

from __future__ import annotations

from dataclasses import replace

from luban.api.cluster import LubanClusterSpec
from luban.api.cluster_status import Decision
from luban.core import unreadable
from luban.core.balancers import Tier
from luban.core.conditions import Situation, conditions_of
from luban.core.members import publications
from luban.core.memory import ClusterMemory
from luban.core.model import (
    Action,
    DeleteVM,
    OrphanVM,
    Plan,
    RemoveBalancer,
)
from luban.core.state import State
from luban.core.steps import Steps, steps_of
from luban.core.strays import remove_strays, strays_since
from luban.core.tier import tier_of
from luban.core.times import Now, rfc3339

BUSY_SECONDS = 1.0
"""Time to the next look while something is on its way."""
SELDOM_SECONDS = 5.0
"""Time to the next look while nothing has moved for long: a host may be dead."""
PATIENCE = 40.0
"""Nothing has moved for so many seconds: it is looked at a second later."""


def plan_deletion(spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: Now) -> Plan:
    """Let every VM go (or live on without us), then the balancers' ConfigMaps.

    A balancer that says nothing is not waited for: it may have been deleted before the cluster.
    """
    orphan = spec.deletion_policy == "Orphan"
    if not orphan:
        state = _without_orphans(state)
    steps = steps_of(spec, state, memory, now.monotonic, silence=0.0)
    tier, _ = tier_of(spec, state, memory, len(state.live), now.monotonic)
    actions = (
        _orphan_all(spec, state, steps, tier)
        if orphan
        else _delete_all(spec, state, steps, memory, now.monotonic, tier=tier)
    )
    left = sum(vm.has_finalizer for vm in state.vms) + sum(vm.has_finalizer for vm in state.observation.unreadable)
    decision = Decision(
        at=memory.decision.at if memory.decision and memory.decision.reason == "Deleting" else rfc3339(now.wall),
        verdict="Hold",
        reason="Deleting",
        message=f"the cluster is being deleted, deletionPolicy {spec.deletion_policy}: {left} VMs left",
    )
    situation = Situation(
        state=state,
        decision=decision,
        desired=0,
        misses={},
        policy=spec.bond_policy,
        hosts=tuple(host.name for host in spec.hosts),
        missing=0,
        outdated=0,
        placement=None,
        strays=(),
        setbacks={},
        paused=False,
        unmeasured=None,
        tier=tier,
        pool=None,
    )
    return Plan(
        actions=actions,
        decision=decision,
        conditions=conditions_of(situation),
        placement=None,
        phase="Deleting",
        desired=0,
        memory=replace(memory, decision=decision, desired=0, strays=strays_since(state, memory, now.monotonic)),
        requeue_after=_requeue(memory, now.monotonic),
        tier=tier,
        finished=not actions and not left and (orphan or not state.strays),
    )


def _requeue(memory: ClusterMemory, now: float) -> float:
    """Seconds to the next look: the more seldom, the longer nothing has moved."""
    moved = max((entered.since for entered in memory.entered.values()), default=now)
    return min(SELDOM_SECONDS, max(BUSY_SECONDS, (now - moved) / PATIENCE))


def _orphan_all(spec: LubanClusterSpec, state: State, steps: Steps, tier: Tier | None) -> tuple[Action, ...]:
    """Let VMs live on without us. Those that were asked to leave before leave first: it takes the balancers."""
    leaving = [vm.name for vm in state.draining if vm.has_finalizer]
    if not leaving and not _publishes_unknown(state):
        orphans = tuple(OrphanVM(vm.name, "Orphan") for vm in state.vms if vm.has_finalizer)
        return (*orphans, *unreadable.orphan_all(state.observation))
    chosen = steps.only(state, leaving)
    return (*chosen.actions, *publications(spec, state, chosen, tier=tier))


def _without_orphans(state: State) -> State:
    """Without VMs that an earlier cluster of the same name left running: nobody asked for their end."""
    return State(replace(state.observation, vms=tuple(vm for vm in state.vms if vm.has_finalizer)))


def _publishes_unknown(state: State) -> bool:
    """Whether a balancer that answers is told of a VM that is not there any more."""
    known = {vm.name for vm in state.vms}
    answering = {balancer.name for balancer in state.observation.balancers if balancer.reachable}
    return any(
        member.name not in known
        for name, content in state.observation.published.items()
        if name in answering
        for member in content.members
    )


def _delete_all(
    spec: LubanClusterSpec, state: State, steps: Steps, memory: ClusterMemory, now: float, *, tier: Tier | None
) -> tuple[Action, ...]:
    if not state.vms and not state.strays and not state.observation.unreadable:
        return tuple(RemoveBalancer(name, "ClusterDeleted") for name in sorted(state.observation.published))
    leaving = [DeleteVM(vm.name, "ClusterDeleted") for vm in state.vms if vm.deleting_since is None]
    names = frozenset(it.name for it in leaving)
    staying = steps.without(state, names)
    return (
        *staying.actions,
        *leaving,
        *publications(spec, state, staying, names, tier=tier),
        *remove_strays(spec, state, memory, now),
        *unreadable.delete_all(state.observation),
    )
