"""From a policy's recommendation to a wanted number of VMs: windows, cooldowns, pauses, and the decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from luban.api.cluster import LubanClusterSpec
from luban.api.cluster_status import Decision
from luban.core.memory import ClusterMemory
from luban.core.policies import policy_of
from luban.core.policies.base import PolicyInput, Recommendation, ScalingLimits
from luban.core.state import State
from luban.core.times import Now, rfc3339

STANDING = frozenset({"Hold", "AtMaximum"})
"""Verdicts that describe a state and so keep the time at which it began."""


@dataclass(frozen=True)
class Room:
    """What the hosts can take and give, asked only when it matters."""

    limits: Callable[[int], ScalingLimits]
    """Limits around a wanted number of VMs."""
    can_shrink_to: Callable[[int], bool]
    """Whether all that is above a lower wanted number could be asked to leave in this very tick."""
    current: Callable[[], int]
    """Live VMs that need not be replaced."""


@dataclass(frozen=True)
class ScalingResult:
    """The decision of this tick, and how many VMs are wanted because of it."""

    decision: Decision
    desired: int
    memory: ClusterMemory


def decide_scaling(spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: Now, room: Room) -> ScalingResult:
    """Ask the policy if its interval has passed; otherwise the last decision stands."""
    policy = policy_of(spec.scaling.policy)
    desired = _previous_desired(spec, state, memory, room)
    memory = replace(memory, shrinking=frozenset(), taken_over=False)
    if not policy.immediate and not _due(spec, memory, now.monotonic) and memory.decision is not None:
        return ScalingResult(memory.decision, desired, replace(memory, desired=desired))
    wish = policy.recommend(
        PolicyInput(
            spec=spec,
            desired=desired,
            serving=[vm.name for vm in state.serving],
            sessions=state.observation.sessions,
            not_answering=state.not_answering,
            limits=lambda: room.limits(desired),
        )
    )
    memory = replace(memory, evaluated=now.monotonic)
    return _settle(spec, state, wish, desired, memory, now=now, room=room)


def next_look(spec: LubanClusterSpec, memory: ClusterMemory, now: float) -> float:
    """Seconds until the policy is asked again."""
    if memory.evaluated is None:
        return 0.0
    due = memory.evaluated + spec.scaling.interval.seconds
    return max(0.0, (due if memory.eligible is None else min(due, memory.eligible)) - now)


def _previous_desired(spec: LubanClusterSpec, state: State, memory: ClusterMemory, room: Room) -> int:
    """The wanted number before this decision: what was settled on, or what lives, within the spec's limits.

    A scale-down that was not carried out is none any more: the load may be another by now, so it is asked again.
    """
    last = memory.desired if memory.desired is not None else len(state.live)
    return _within(spec, last + _beyond(spec, state, memory, last, room))


def _beyond(spec: LubanClusterSpec, state: State, memory: ClusterMemory, last: int, room: Room) -> int:
    """How many VMs there are that a scale-up made which nobody told of, or that the last scale-down meant in vain."""
    if policy_of(spec.scaling.policy).immediate:
        return 0
    if not memory.taken_over:
        return sum(vm.name in memory.shrinking for vm in state.live)
    shrank = memory.decision is not None and memory.decision.verdict == "ScaleDown"
    return max(0, (len(state.ready) if shrank else room.current()) - last)


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
    """Whether the interval has passed, or a wish that waited has become eligible."""
    if memory.evaluated is None or now - memory.evaluated >= spec.scaling.interval.seconds:
        return True
    return memory.eligible is not None and memory.eligible <= now


def _settle(
    spec: LubanClusterSpec,
    state: State,
    wish: Recommendation,
    desired: int,
    memory: ClusterMemory,
    *,
    now: Now,
    room: Room,
) -> ScalingResult:
    """Hold a wish back until its window and cooldown are over; then it becomes the wanted number."""
    wish = _doubted(spec, state, wish) or wish
    memory = _track(wish, memory, now.monotonic)
    if wish.delta == 0:
        return _close(wish, desired, memory, now)
    if (held := _kept_back(spec, wish)) is not None:
        return _close(held, desired, memory, now)
    eligible, waiting = _eligible_at(spec, wish, memory, now.monotonic)
    if waiting and eligible > now.monotonic:
        words = f"waiting until {rfc3339(now.wall_of(eligible))}"
        return _close(_held(wish, waiting, words), desired, memory, now, eligible)
    wanted = _within(spec, desired + wish.delta)
    if wish.delta < 0 and not policy_of(spec.scaling.policy).immediate and not room.can_shrink_to(wanted):
        return _close(_held(wish, "NotSettled", "no VM can go before the others answer"), desired, memory, now)
    return _close(wish, wanted, replace(memory, last_scale=now.monotonic, up_since=None, down_since=None), now)


def _kept_back(spec: LubanClusterSpec, wish: Recommendation) -> Recommendation | None:
    """The wish as the user's own switches hold it; None: they do not."""
    if spec.paused:
        return _held(wish, "Paused", "spec.paused is set")
    if wish.delta < 0 and spec.scaling.pause_scale_in:
        return _held(wish, "ScaleInPaused", "scaling.pauseScaleIn is set")
    return None


def _doubted(spec: LubanClusterSpec, state: State, wish: Recommendation) -> Recommendation | None:
    """Hold instead of a wish to shrink while a VM that serves does not answer our own probe; None: all do.

    It looks idle and may be out of reach. The wish counts as broken off: nobody has seen a low load meanwhile.
    """
    if wish.delta >= 0 or policy_of(spec.scaling.policy).immediate or not state.probe_failing:
        return None
    names = ", ".join(sorted(state.probe_failing))
    held = _held(wish, "NotAnswering", f"but {names} does not answer its readiness probe")
    return replace(held, delta=0)


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
    """Earliest time for the wish, and what it waits for. An immediate policy waits for nothing."""
    if policy_of(spec.scaling.policy).immediate:
        return now, ""
    growing = wish.delta > 0
    behavior = spec.scaling.behavior.scale_up if growing else spec.scaling.behavior.scale_down
    since = memory.up_since if growing else memory.down_since
    stable = (since if since is not None else now) + behavior.stabilization_window.seconds
    cool = memory.last_scale + behavior.cooldown.seconds if memory.last_scale is not None else now
    return (stable, "Stabilizing") if stable >= cool else (cool, "CoolingDown")


def _close(
    wish: Recommendation, desired: int, memory: ClusterMemory, now: Now, eligible: float | None = None
) -> ScalingResult:
    last = memory.decision
    same = last is not None and (last.verdict, last.reason) == (wish.verdict, wish.reason) and wish.verdict in STANDING
    decision = Decision(
        at=last.at if same and last is not None else rfc3339(now.wall),
        verdict=wish.verdict,
        reason=wish.reason,
        message=wish.message,
        inputs=wish.inputs,
        eligible_at=rfc3339(now.wall_of(eligible)) if eligible is not None else None,
    )
    return ScalingResult(decision, desired, replace(memory, desired=desired, decision=decision, eligible=eligible))
