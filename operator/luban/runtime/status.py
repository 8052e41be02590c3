"""The LubanCluster's status: made from a plan, written only when it says something new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from luban.api import names
from luban.api.cluster import LubanCluster
from luban.api.cluster_status import BalancerStatus, HostBond, HostStatus, LubanClusterStatus, TierStatus, VMCounts
from luban.api.common import Condition
from luban.api.reading import faults
from luban.core.memory import ClusterMemory, TierMemory
from luban.core.model import BondObservation, ConditionState, Observation, Plan
from luban.core.placement import SOUND
from luban.core.state import State
from luban.core.times import Now, rfc3339, seconds_of

_MOVING = frozenset({"sessions", "users"})
"""Figures that move all the time."""
VOLATILE_SECONDS = 30.0
"""They are refreshed in the status at most so often; they live in the metrics."""
SAME_SCALING_SECONDS = 1.5
"""Times that are closer than this are of one scaling: whole seconds are written, and no two clocks are read at once."""


def build_status(
    cluster: LubanCluster, observation: Observation, plan: Plan, extra: Sequence[ConditionState], now: Now
) -> LubanClusterStatus:
    """The status that belongs to a plan. `extra`: conditions that only the runtime knows (SpecValid)."""
    state = State(observation)
    before = cluster.status
    answering, balancers = len(state.answering), _balancers(observation)
    return LubanClusterStatus(
        observed_generation=cluster.metadata.generation,
        phase=plan.phase,
        replicas=answering,
        selector=f"{names.LABEL_CLUSTER}={cluster.metadata.name}",
        vms=_counts(state, plan.desired),
        summary=f"{answering}/{plan.desired}",
        hosts=_hosts(observation),
        bond_summary=_bond_summary(cluster, observation),
        balancers=balancers,
        balancer_summary=f"{sum(it.ready for it in balancers)}/{len(balancers)}",
        tier=before.tier if plan.phase == "Paused" else _tier(plan),
        sessions=_sessions(state),
        users=users_of(observation),
        decision=plan.decision,
        placement=plan.placement,
        last_scale_time=_scale_time(before.last_scale_time, plan.memory.last_scale, now),
        conditions=_conditions(before.conditions, (*plan.conditions, *extra), cluster.metadata.generation, now.wall),
    )


def _scale_time(written: str | None, last_scale: float | None, now: Now) -> str | None:
    """When the number was changed last: as it is written, as long as that is the same change."""
    if last_scale is None:
        return None
    at = now.wall_of(last_scale)
    if written is not None and abs(seconds_of(written) - at) < SAME_SCALING_SECONDS:
        return written
    return rfc3339(at)


def _counts(state: State, desired: int) -> VMCounts:
    return VMCounts(
        desired=desired,
        serving=len(state.answering),
        starting=len(state.starting),
        draining=len(state.withdrawn),
        warm=len(state.warm),
        paused=len(state.paused),
        failed=len(state.failed),
    )


def _hosts(observation: Observation) -> tuple[HostStatus, ...]:
    return tuple(
        HostStatus(
            name=host.name,
            reachable=host.reachable,
            vms=sum(vm.host == host.name for vm in observation.vms),
            reason=host.refusal.reason if host.refusal is not None else "",
            message=host.refusal.message if host.refusal is not None else host.message,
            bond=_bond(observation.bonds.get(host.name)),
        )
        for host in observation.hosts
    )


def _bond(bond: BondObservation | None) -> HostBond | None:
    if bond is None:
        return None
    return HostBond(
        name=bond.name,
        verdict=bond.verdict,
        mode=bond.mode,
        active=bond.active,
        total=bond.total,
        since=bond.since or None,
        message=bond.message,
    )


def _bond_summary(cluster: LubanCluster, observation: Observation) -> str:
    hosts = cluster.spec.hosts
    if cluster.spec.bond_policy == "Ignore" or not observation.bonds:
        return ""
    sound = sum(observation.bonds[it.name].verdict in SOUND for it in hosts if it.name in observation.bonds)
    return f"{sound}/{len(hosts)}"


def _balancers(observation: Observation) -> tuple[BalancerStatus, ...]:
    return tuple(
        BalancerStatus(
            name=it.name,
            ready=it.reachable and it.ready,
            members=sum(member.state == "Enabled" for member in it.members),
            applied=it.applied,
            message=it.message,
        )
        for it in observation.balancers
    )


def _tier(plan: Plan) -> TierStatus | None:
    if plan.tier is None:
        return None
    return TierStatus(desired=plan.tier.size, reason=plan.tier.reason, message=plan.tier.message)


def _sessions(state: State) -> int | None:
    known = state.observation.sessions
    if not state.serving or any(vm.name not in known for vm in state.serving):
        return None
    return sum(known[vm.name] for vm in state.serving)


def users_of(observation: Observation) -> int | None:
    """Clients of the last minute, by all balancers; None: not all of them tell."""
    told = [it.users if it.reachable else None for it in observation.balancers]
    known = [it for it in told if it is not None]
    return sum(known) if known and len(known) == len(told) else None


def _conditions(
    before: tuple[Condition, ...], wanted: Sequence[ConditionState], generation: int, now: float
) -> tuple[Condition, ...]:
    """Wanted conditions with their times: a time moves only when the status does."""
    old = {condition.type: condition for condition in before}
    return tuple(_condition(old.get(state.type), state, generation, now) for state in wanted)


def _condition(old: Condition | None, state: ConditionState, generation: int, now: float) -> Condition:
    status = "Unknown" if state.status is None else str(state.status)
    kept = old.last_transition_time if old is not None and old.status == status else rfc3339(now)
    return Condition.model_validate(
        {
            "type": state.type,
            "status": status,
            "reason": state.reason,
            "message": state.message,
            "lastTransitionTime": kept,
            "observedGeneration": generation,
        }
    )


def with_conditions(
    status: LubanClusterStatus, news: Sequence[ConditionState], generation: int, now: float
) -> LubanClusterStatus:
    """The status with some conditions as they stand now, and all others as they were. `now`: since the epoch."""
    fresh = {it.type: it for it in _conditions(status.conditions, news, generation, now)}
    kept = tuple(fresh.pop(it.type, it) for it in status.conditions)
    return status.model_copy(update={"conditions": (*kept, *fresh.values())})


def spec_refused(error: ValueError) -> ConditionState:
    """The condition that says what is wrong with a spec, field by field where that is known."""
    if not isinstance(error, ValidationError):
        return ConditionState("SpecValid", False, "SpecRefused", str(error))
    return ConditionState("SpecValid", False, "SpecRefused", "; ".join(faults(LubanCluster, error)))


def schedules_refused(cluster: LubanCluster) -> str:
    """Schedules that never begin, and what must be changed; empty: there are none. All else of the spec holds."""
    schedules = cluster.spec.scaling.schedules
    return "; ".join(f"scaling.schedules[{it.name}].{it.fault}" for it in schedules if it.fault)


def remembered(status: LubanClusterStatus, now: Now) -> ClusterMemory:
    """What survives a restart of the operator: the wanted number, the last scaling, the last decision."""
    return ClusterMemory(
        decision=status.decision,
        last_scale=now.monotonic_of(seconds_of(status.last_scale_time)) if status.last_scale_time else None,
        desired=status.vms.desired or None,
        taken_over=status.decision is not None,
        tier=_remembered_tier(status, now),
    )


def _remembered_tier(status: LubanClusterStatus, now: Now) -> TierMemory | None:
    """Balancers that served when the status was written are counted on for a while: nobody has asked them yet."""
    if status.tier is None:
        return None
    return TierMemory(status.tier.desired, seen={it.name: now.monotonic for it in status.balancers if it.ready})


@dataclass
class StatusWriter:
    """Decides whether a status is worth a write. `monotonic`: seconds of a clock that nobody sets."""

    monotonic: Callable[[], float]
    last: dict[str, Any] | None = None
    written_at: float = float("-inf")

    def due(self, status: dict[str, Any]) -> bool:
        """Whether `status` says something new: at once for facts, once in a while for figures that always move."""
        if self.last is None:
            return True
        if _settled(status) != _settled(self.last):
            return True
        return status != self.last and self.monotonic() - self.written_at >= VOLATILE_SECONDS

    def wrote(self, status: dict[str, Any]) -> None:
        """Remember what the API server has."""
        self.last, self.written_at = status, self.monotonic()


def _without_words(part: Mapping[str, Any]) -> dict[str, Any]:
    """A host or a balancer by its facts: one that hangs is described in several ways in turn."""
    bond = {"bond": {**part["bond"], "message": ""}} if part.get("bond") else {}
    return {**part, "message": "", **bond}


def _settled(status: dict[str, Any]) -> dict[str, Any]:
    """The status without the figures that always move."""
    rest = {key: value for key, value in status.items() if key not in _MOVING}
    decision = status.get("decision") or {}
    # Words change with every counter; what they are about does not.
    for parts in ("hosts", "balancers"):
        rest[parts] = [_without_words(part) for part in status.get(parts, [])]
    rest["tier"] = {**(status.get("tier") or {}), "message": ""}
    rest["placement"] = {**(status.get("placement") or {}), "message": ""}
    rest["decision"] = {key: decision.get(key) for key in ("verdict", "reason")}
    rest["conditions"] = [{**it, "message": "", "observedGeneration": 0} for it in status.get("conditions", [])]
    return rest
