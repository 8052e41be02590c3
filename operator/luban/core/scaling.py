"""From a policy's recommendation to a wanted number of VMs: windows, cooldowns, pauses, and the decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from luban.api.cluster import LubanClusterSpec
from luban.api.cluster_status import Decision
from luban.core.memory import ClusterMemory, Wish
from luban.core.policies import policy_of
from luban.core.policies.base import PolicyInput, Recommendation, ScalingLimits
from luban.core.policies.readings import read, unknown_in_words
from luban.core.schedules import raises
from luban.core.state import State
from luban.core.times import Now, rfc3339
from luban.core.wishes import below_from, highest, noted

MEASURED_SECONDS = 90.0
"""So long after a VM became ready its figures should be known."""
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
    last, memory = memory.desired, replace(memory, shrinking=frozenset(), taken_over=False)
    if last is not None and last < desired <= spec.scaling.min_vms and raises(spec) and not spec.paused:
        return _close(_scheduled(spec, desired), desired, replace(memory, evaluated=now.monotonic), now)
    if not policy.immediate and not _due(spec, memory, now.monotonic) and memory.decision is not None:
        return ScalingResult(memory.decision, desired, replace(memory, desired=desired))
    wish = policy.recommend(policy_input(spec, state, desired, lambda: room.limits(desired)))
    memory = replace(memory, evaluated=now.monotonic)
    return _settle(spec, state, wish, desired, memory, now=now, room=room)


def policy_input(
    spec: LubanClusterSpec, state: State, desired: int, limits: Callable[[], ScalingLimits]
) -> PolicyInput:
    """What a policy may look at in this tick."""
    return PolicyInput(
        spec=spec,
        desired=desired,
        serving=[vm.name for vm in state.serving],
        sessions=state.observation.sessions,
        not_answering=state.not_answering,
        limits=limits,
        figures=state.observation.figures,
    )


def unmeasured(spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: float) -> str | None:
    """Metrics of the policy that are unknown, and of whom, in words; empty: none; None: it looks at sessions alone.

    VMs that have just become ready are left out: two looks make a figure.
    """
    measures = policy_of(spec.scaling.policy).measures(spec.scaling)
    if not measures:
        return None
    given = policy_input(spec, state, 0, lambda: ScalingLimits(0, 0, 0, 0, has_host=False))
    settled = [name for name in given.serving if now - memory.entered[name].since >= MEASURED_SECONDS]
    return unknown_in_words([read(replace(given, serving=settled), it) for it in measures])


def _scheduled(spec: LubanClusterSpec, desired: int) -> Recommendation:
    """More VMs because of the time of day: nothing is waited for."""
    message = f"schedule {raises(spec)} asks for at least {spec.scaling.min_vms} VMs"
    return Recommendation("ScaleUp", "Scheduled", message, wanted=desired)


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
    memory = replace(memory, wishes=_wishes(spec, wish, desired, memory, now.monotonic))
    if wish.delta == 0:
        return _close(wish, desired, memory, now)
    if (held := _kept_back(spec, wish)) is not None:
        return _close(held, desired, memory, now)
    eligible, waiting = _eligible_at(spec, wish, desired, memory, now.monotonic)
    if waiting and eligible > now.monotonic:
        words = f"waiting until {rfc3339(now.wall_of(eligible))}"
        return _close(_held(wish, waiting, words), desired, memory, now, eligible)
    wanted = _within(spec, max(desired + wish.delta, _least(spec, wish, memory, now.monotonic)))
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
    return replace(held, delta=0, wanted=None)


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


def _wishes(
    spec: LubanClusterSpec, wish: Recommendation, desired: int, memory: ClusterMemory, now: float
) -> tuple[Wish, ...]:
    """What the policy found right lately, if it counts."""
    if not policy_of(spec.scaling.policy).counts:
        return ()
    right = wish.wanted if wish.wanted is not None else desired + wish.delta
    return noted(memory.wishes, right, desired, now)


def _least(spec: LubanClusterSpec, wish: Recommendation, memory: ClusterMemory, now: float) -> int:
    """What shrinking stops at: the highest number that was right within the window."""
    if wish.delta >= 0 or not memory.wishes:
        return 0
    return highest(memory.wishes, spec.scaling.behavior.scale_down.stabilization_window.seconds, now)


def _eligible_at(
    spec: LubanClusterSpec, wish: Recommendation, desired: int, memory: ClusterMemory, now: float
) -> tuple[float, Literal["Stabilizing", "CoolingDown", ""]]:
    """Earliest time for the wish, and what it waits for. An immediate policy waits for nothing."""
    if policy_of(spec.scaling.policy).immediate:
        return now, ""
    growing = wish.delta > 0
    behavior = spec.scaling.behavior.scale_up if growing else spec.scaling.behavior.scale_down
    since = memory.up_since if growing else memory.down_since
    window = behavior.stabilization_window.seconds
    stable = (since if since is not None else now) + window
    if not growing and memory.wishes:
        stable = max(now, below_from(memory.wishes, desired, window))
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
        metrics=wish.metrics,
        eligible_at=rfc3339(now.wall_of(eligible)) if eligible is not None else None,
    )
    return ScalingResult(decision, desired, replace(memory, desired=desired, decision=decision, eligible=eligible))
