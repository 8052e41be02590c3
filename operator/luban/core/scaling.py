"""From a policy's wish to a wanted number of VMs: windows, cooldowns, pauses, and the decision with its reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from luban.api.cluster import LubanClusterSpec
from luban.api.cluster_status import Decision
from luban.core.model import ClusterMemory
from luban.core.policies.sessions import Recommendation, ScalingLimits, recommend
from luban.core.state import State
from luban.core.times import rfc3339, seconds_of

STANDING = frozenset({"Hold", "AtMaximum"})
"""Verdicts that describe a state and so keep the time at which it began."""


@dataclass(frozen=True)
class Space:
    """What the hosts can take and give."""

    has_host: bool
    """Whether any host can take another VM."""
    removable: int
    """VMs that can go without leaving a host below its own minimum."""
    movable: frozenset[str]
    """Names of the serving ones among them."""


@dataclass(frozen=True)
class ScalingResult:
    """The decision of this tick, and how many VMs are wanted because of it."""

    decision: Decision
    desired: int
    memory: ClusterMemory


def decide_scaling(
    spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: float, space: Callable[[], Space]
) -> ScalingResult:
    """Ask the policy if its interval has passed; otherwise the last decision stands. `space`: asked only then."""
    desired = _previous_desired(spec, state, memory)
    if not _due(spec, memory, now) and memory.decision is not None and spec.scaling.policy != "Manual":
        return ScalingResult(memory.decision, desired, replace(memory, desired=desired))
    wish = _wish(spec, state, desired, space)
    return _settle(spec, wish, desired, replace(memory, evaluated=now), now)


def next_look(spec: LubanClusterSpec, memory: ClusterMemory, now: float) -> float:
    """Seconds until the policy is asked again."""
    if memory.evaluated is None:
        return 0.0
    due = memory.evaluated + spec.scaling.interval.seconds
    eligible = _eligible(memory)
    return max(0.0, (due if eligible is None else min(due, eligible)) - now)


def _previous_desired(spec: LubanClusterSpec, state: State, memory: ClusterMemory) -> int:
    """The wanted number before this decision: what was settled on, or what lives, within the spec's limits."""
    last = memory.desired if memory.desired is not None else len(state.live)
    return _within(spec, last)


def _within(spec: LubanClusterSpec, wanted: int) -> int:
    return min(max(wanted, minimum(spec)), maximum(spec))


def minimum(spec: LubanClusterSpec) -> int:
    """VMs that must run: minVMs, or what the hosts' own minima add up to, if that is more."""
    of_hosts = sum(host.vms.min for host in spec.hosts if not host.cordoned)
    return min(max(spec.scaling.min_vms, of_hosts), maximum(spec))


def maximum(spec: LubanClusterSpec) -> int:
    """VMs that may run: maxVMs, or what the hosts' own maxima add up to, if that is less."""
    return min(spec.scaling.max_vms, sum(host.vms.max for host in spec.hosts))


def _due(spec: LubanClusterSpec, memory: ClusterMemory, now: float) -> bool:
    """Whether the interval has passed, or a wish that waited has become eligible, or the clock was set back."""
    if memory.evaluated is None or not 0 <= now - memory.evaluated < spec.scaling.interval.seconds:
        return True
    eligible = _eligible(memory)
    return eligible is not None and eligible <= now


def _eligible(memory: ClusterMemory) -> float | None:
    at = memory.decision.eligible_at if memory.decision is not None else None
    return seconds_of(at) if at is not None else None


def _wish(spec: LubanClusterSpec, state: State, desired: int, space: Callable[[], Space]) -> Recommendation:
    if spec.scaling.policy == "Manual":
        return _manual(spec, desired)
    serving, sessions = [vm.name for vm in state.serving], state.observation.sessions
    room = _room(spec, state, desired, space())
    return recommend(serving, sessions, spec.scaling.sessions, room, failing=state.failing)


def _room(spec: LubanClusterSpec, state: State, desired: int, space: Space) -> ScalingLimits:
    """One that starts on a host which does not answer may never serve: growing does not wait for it."""
    coming = sum(state.reachable(vm.host) for vm in (*state.starting, *state.failed))
    missing = max(0, desired - len(state.live))
    return ScalingLimits(
        total=desired,
        starting=coming + missing,
        minimum=minimum(spec),
        maximum=spec.scaling.max_vms,
        has_host=desired < maximum(spec) and (space.has_host or len(state.live) > desired),
        up_step=spec.scaling.behavior.scale_up.step,
        down_step=spec.scaling.behavior.scale_down.step,
        removable=space.removable,
        movable=space.movable,
    )


def _manual(spec: LubanClusterSpec, desired: int) -> Recommendation:
    """spec.replicas decides, within minVMs and maxVMs."""
    if spec.replicas is None:
        return Recommendation("Hold", "Manual", f"spec.replicas is not set, so {desired} VMs stay")
    wanted = _within(spec, spec.replicas)
    message = f"spec.replicas asks for {spec.replicas} VMs"
    if wanted != spec.replicas:
        message += f", kept within {minimum(spec)} and {maximum(spec)}: {wanted}"
    if wanted == desired:
        return Recommendation("Hold", "Manual", message)
    return Recommendation("ScaleUp" if wanted > desired else "ScaleDown", "Manual", message, wanted - desired)


def _settle(
    spec: LubanClusterSpec, wish: Recommendation, desired: int, memory: ClusterMemory, now: float
) -> ScalingResult:
    """Hold a wish back until its window and cooldown are over; then it becomes the wanted number."""
    memory = _track(wish, memory, now)
    if wish.delta == 0:
        return _close(wish, desired, memory, now)
    if spec.paused:
        return _close(_held(wish, "Paused", "spec.paused is set"), desired, memory, now)
    if wish.delta < 0 and spec.scaling.pause_scale_in:
        return _close(_held(wish, "ScaleInPaused", "scaling.pauseScaleIn is set"), desired, memory, now)
    eligible, waiting = _eligible_at(spec, wish, memory, now)
    if waiting and eligible > now:
        return _close(_held(wish, waiting, f"waiting until {rfc3339(eligible)}"), desired, memory, now, eligible)
    scaled = replace(memory, last_scale=now, up_since=None, down_since=None)
    return _close(wish, _within(spec, desired + wish.delta), scaled, now)


def _held(wish: Recommendation, reason: str, why: str) -> Recommendation:
    """The wish as a Hold that says what keeps it back."""
    return replace(wish, verdict="Hold", reason=reason, message=f"{wish.verdict} because {wish.message}; {why}")


def _track(wish: Recommendation, memory: ClusterMemory, now: float) -> ClusterMemory:
    """Remember since when the wish has held without a break."""
    return replace(
        memory,
        up_since=(memory.up_since if memory.up_since is not None else now) if wish.delta > 0 else None,
        down_since=(memory.down_since if memory.down_since is not None else now) if wish.delta < 0 else None,
    )


def _eligible_at(
    spec: LubanClusterSpec, wish: Recommendation, memory: ClusterMemory, now: float
) -> tuple[float, Literal["Stabilizing", "CoolingDown", ""]]:
    """Earliest time for the wish, and what it waits for. Manual wishes wait for nothing."""
    if spec.scaling.policy == "Manual":
        return now, ""
    growing = wish.delta > 0
    behavior = spec.scaling.behavior.scale_up if growing else spec.scaling.behavior.scale_down
    since = memory.up_since if growing else memory.down_since
    stable = (since if since is not None else now) + behavior.stabilization_window.seconds
    cool = memory.last_scale + behavior.cooldown.seconds if memory.last_scale is not None else now
    return (stable, "Stabilizing") if stable >= cool else (cool, "CoolingDown")


def _close(
    wish: Recommendation, desired: int, memory: ClusterMemory, now: float, eligible: float | None = None
) -> ScalingResult:
    last = memory.decision
    same = last is not None and (last.verdict, last.reason) == (wish.verdict, wish.reason) and wish.verdict in STANDING
    decision = Decision(
        at=last.at if same and last is not None else rfc3339(now),
        verdict=wish.verdict,
        reason=wish.reason,
        message=wish.message,
        inputs=wish.inputs,
        eligible_at=rfc3339(eligible) if eligible is not None else None,
    )
    return ScalingResult(decision, desired, replace(memory, desired=desired, decision=decision))
