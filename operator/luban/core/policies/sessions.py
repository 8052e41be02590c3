"""The Sessions policy: Luban cloud [L], Fig. 3, lines 1-17, in the reading of docs/algorithms.md section 1."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from luban.api.cluster import Sessions
from luban.api.cluster_status import DecisionInput
from luban.core.policies.base import Policy, PolicyInput, Recommendation, ScalingLimits
from luban.core.policies.moves import grow, shrink

_INPUTS = TypeAdapter(tuple[DecisionInput, ...])


def percent(sessions: int, maximum: int) -> int:
    """p_i = 100 A_i / S_max, rounded down: 60 % is reached only when it is."""
    return 100 * sessions // maximum


def exceeds(sessions: int | None, limits: Sessions) -> bool:
    """Line 2: p_i >= U, of the exact share."""
    return sessions is not None and 100 * sessions >= limits.upper_percent * limits.max_per_vm


def falls_below(sessions: int | None, limits: Sessions) -> bool:
    """Line 4: p_i <= L, of the exact share."""
    return sessions is not None and 100 * sessions <= limits.lower_percent * limits.max_per_vm


def load_inputs(serving: Sequence[str], sessions: Mapping[str, int], limits: Sessions) -> tuple[DecisionInput, ...]:
    """One input per serving VM; unknown loads stay unset. All are made in one call: there may be thousands."""
    return _INPUTS.validate_python(
        [
            {"vm": name}
            if (count := sessions.get(name)) is None
            else {"vm": name, "sessions": count, "percent": percent(count, limits.max_per_vm)}
            for name in serving
        ]
    )


def judge_load(
    serving: Sequence[str],
    sessions: Mapping[str, int],
    limits: Sessions,
    room: ScalingLimits,
    *,
    failing: Collection[str] = (),
) -> Recommendation:
    """Compare every serving VM with both thresholds and say what to do.

    Line 4 of the figure prints `>=` for the lower threshold; prose and experiment say at or below, which holds here.
    Unknown loads are in neither set: they can delay a scale-up, and they forbid a scale-down. `failing`: serving VMs
    that the balancers pass over because they fail their health checks. The others carry the load, so growing does not
    ask for theirs; while there is one, nothing is scaled down. If all fail, nobody measures the load.
    """
    inputs = load_inputs(serving, sessions, limits)
    return replace(_judge([item for item in inputs if item.vm not in failing], failing, limits, room), inputs=inputs)


def _judge(
    inputs: Sequence[DecisionInput], failing: Collection[str], limits: Sessions, room: ScalingLimits
) -> Recommendation:
    if not inputs and failing:
        message = f"{', '.join(sorted(failing))}: no VM answers, so nobody knows the load"
        return Recommendation("Hold", "NothingAnswers", message)
    if not inputs:
        return Recommendation("Hold", "NothingServes", "no VM serves yet, so there is no load to judge")
    unknown = [item for item in inputs if item.sessions is None]
    if 2 * len(unknown) > len(inputs):
        return Recommendation("Hold", "LoadUnknown", f"sessions of {_names(unknown)} are unknown")
    exceed = [item for item in inputs if exceeds(item.sessions, limits)]
    if 100 * len(exceed) >= limits.upper_quorum_percent * len(inputs):
        return _grow(exceed, limits, room)
    below = [item for item in inputs if falls_below(item.sessions, limits)]
    if len(below) >= limits.lower_quorum:
        return _if_all_is_known(_shrink(below, limits, room), unknown, failing)
    return Recommendation("Hold", *_why_hold(inputs, limits))


def _grow(exceed: Sequence[DecisionInput], limits: Sessions, room: ScalingLimits) -> Recommendation:
    """Lines 7-12: all exceed, or the share that the quorum asks for."""
    loads = f"{_figures(exceed, limits)}: {_all_or_share(limits)} at or above {limits.upper_percent} %"
    return grow(loads, "AllAboveUpper", room)


def _shrink(below: Sequence[DecisionInput], limits: Sessions, room: ScalingLimits) -> Recommendation:
    """Lines 13-17: enough VMs are idle."""
    loads = f"{_figures(below, limits)}: at or below {limits.lower_percent} %"
    may_go = room.total <= room.minimum or _may_go(below, limits, room)
    return shrink(loads, "EnoughBelowLower", room, by=room.down_step if may_go else 0)


def _if_all_is_known(
    wish: Recommendation, unknown: Sequence[DecisionInput], failing: Collection[str]
) -> Recommendation:
    """The wish to shrink, or why not: VMs whose load nobody knows may be the busy ones."""
    if wish.delta == 0:
        return wish
    if unknown:
        return Recommendation("Hold", "LoadUnknown", f"{wish.message}, but sessions of {_names(unknown)} are unknown")
    if failing:
        return Recommendation(
            "Hold", "NotAnswering", f"{wish.message}, but {', '.join(sorted(failing))} fails its health check"
        )
    return wish


def _may_go(below: Sequence[DecisionInput], limits: Sessions, room: ScalingLimits) -> bool:
    """The prose of lines 13-17, which is the reading of `lowerQuorum` 1: the idle VM's own host must run another."""
    if limits.lower_quorum > 1 or room.movable is None:
        return True
    return any(item.vm in room.movable for item in below)


def _why_hold(inputs: Sequence[DecisionInput], limits: Sessions) -> tuple[str, str]:
    """Reason and message that name the VM that keeps the verdict from turning, and its figure."""
    unknown = [item for item in inputs if item.sessions is None]
    if unknown:
        return "LoadUnknown", f"sessions of {_names(unknown)} are unknown"
    ordered = sorted(inputs, key=lambda item: item.sessions or 0)
    if exceeds(ordered[-1].sessions, limits):
        blocker = [item for item in ordered if not exceeds(item.sessions, limits)][_spared(inputs, limits)]
        rule = f"{_all_or_share(limits)} must be at or above {limits.upper_percent} %"
        return "NotAllAboveUpper", f"{_figure(blocker, limits)}, {rule}"
    if falls_below(ordered[0].sessions, limits):
        # One that is idle already, if fewer VMs serve than must be idle.
        blocker = ordered[min(limits.lower_quorum, len(ordered)) - 1]
        rule = f"{limits.lower_quorum} VMs must be at or below {limits.lower_percent} %"
        return "TooFewBelowLower", f"{_figure(blocker, limits)}, {rule}"
    band = f"between {limits.lower_percent} % and {limits.upper_percent} %"
    return "WithinBand", f"{_figure(ordered[0], limits)}, {band}"


def _spared(inputs: Sequence[DecisionInput], limits: Sessions) -> int:
    """How many VMs need not exceed for the quorum to be reached."""
    return len(inputs) * (100 - limits.upper_quorum_percent) // 100


def _all_or_share(limits: Sessions) -> str:
    share = limits.upper_quorum_percent
    return "all" if share == 100 else f"{share} % of the VMs"


def _figures(items: Sequence[DecisionInput], limits: Sessions) -> str:
    return ", ".join(_figure(item, limits) for item in items)


def _figure(item: DecisionInput, limits: Sessions) -> str:
    """The VM and its load, with a tenth of a percent where there is one."""
    share = 100 * (item.sessions or 0) / limits.max_per_vm
    return f"{item.vm} is at {share:.1f} %".replace(".0 %", " %")


def _names(items: Sequence[DecisionInput]) -> str:
    return ", ".join(item.vm for item in items)


def recommend(given: PolicyInput) -> Recommendation:
    """The policy behind scaling.policy Sessions."""
    return judge_load(
        given.serving, given.sessions, given.spec.scaling.sessions, given.limits(), failing=given.not_answering
    )


SESSIONS = Policy(recommend)
