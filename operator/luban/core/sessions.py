"""The Sessions policy: Luban cloud [L], Fig. 3, lines 1-17, in the reading of docs/algorithms.md section 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luban.api.cluster import DecisionInput, Sessions

Verdict = Literal["ScaleUp", "ScaleDown", "Hold", "AtMaximum"]


@dataclass(frozen=True)
class Wish:
    """What a policy would do now, before windows and cooldowns. `delta` VMs are to be added (negative: removed)."""

    verdict: Verdict
    reason: str
    message: str
    delta: int = 0
    inputs: tuple[DecisionInput, ...] = ()


@dataclass(frozen=True)
class Room:
    """What else the policy needs to know about the cluster."""

    total: int
    """N: serving and starting VMs."""
    starting: int
    minimum: int
    maximum: int
    has_host: bool
    """Whether any host can take another VM."""
    up_step: int = 1
    down_step: int = 1
    removable: int = 0
    """VMs on hosts above their own minimum."""


def percent(sessions: int, maximum: int) -> int:
    """p_i = 100 A_i / S_max, rounded down: 60 % is reached only when it is."""
    return 100 * sessions // maximum


def load_inputs(
    serving: Sequence[str], sessions: Mapping[str, int], limits: Sessions
) -> tuple[DecisionInput, ...]:
    """One input per serving VM; unknown loads stay unset."""
    return tuple(
        DecisionInput(vm=name)
        if (count := sessions.get(name)) is None
        else DecisionInput(vm=name, sessions=count, percent=percent(count, limits.max_per_vm))
        for name in serving
    )


def decide(serving: Sequence[str], sessions: Mapping[str, int], limits: Sessions, room: Room) -> Wish:
    """Compare every serving VM with both thresholds and say what to do.

    Line 4 of the figure prints `>=` for the lower threshold; prose and experiment say at or below, which holds here.
    Unknown loads are in neither set: they can delay a scale-up, and they forbid a scale-down.
    """
    inputs = load_inputs(serving, sessions, limits)
    if not inputs:
        return Wish("Hold", "NothingServes", "no VM serves yet, so there is no load to judge", inputs=inputs)
    unknown = [item for item in inputs if item.percent is None]
    if 2 * len(unknown) > len(inputs):
        return Wish("Hold", "LoadUnknown", f"sessions of {_names(unknown)} are unknown", inputs=inputs)
    exceed = [item for item in inputs if item.percent is not None and item.percent >= limits.upper_percent]
    if 100 * len(exceed) >= limits.upper_quorum_percent * len(inputs):
        return _grow(exceed, inputs, limits, room)
    below = [item for item in inputs if item.percent is not None and item.percent <= limits.lower_percent]
    if len(below) >= limits.lower_quorum:
        return _shrink(below, unknown, inputs, limits, room)
    return Wish("Hold", *_why_hold(inputs, limits), inputs=inputs)


def _grow(
    exceed: Sequence[DecisionInput], inputs: tuple[DecisionInput, ...], limits: Sessions, room: Room
) -> Wish:
    """Lines 7-12: all exceed."""
    loads = f"{_figures(exceed)}, all at or above {limits.upper_percent} %"
    if room.total >= room.maximum:
        return Wish("AtMaximum", "MaxVMs", f"{loads}, but maxVMs {room.maximum} is reached", inputs=inputs)
    if not room.has_host:
        return Wish("AtMaximum", "NoHostHasRoom", f"{loads}, but no host can take another VM", inputs=inputs)
    if room.starting:
        return Wish("Hold", "WarmingUp", f"{loads}; {room.starting} VM not serving yet", inputs=inputs)
    delta = min(room.up_step, room.maximum - room.total)
    return Wish("ScaleUp", "AllAboveUpper", loads, delta, inputs)


def _shrink(
    below: Sequence[DecisionInput],
    unknown: Sequence[DecisionInput],
    inputs: tuple[DecisionInput, ...],
    limits: Sessions,
    room: Room,
) -> Wish:
    """Lines 13-17: enough VMs are idle."""
    loads = f"{_figures(below)}, at or below {limits.lower_percent} %"
    if room.total <= room.minimum:
        return Wish("Hold", "MinVMs", f"{loads}, but minVMs {room.minimum} is reached", inputs=inputs)
    if unknown:
        return Wish(
            "Hold", "LoadUnknown", f"{loads}, but sessions of {_names(unknown)} are unknown", inputs=inputs
        )
    if room.starting:
        return Wish("Hold", "WarmingUp", f"{loads}, but {room.starting} VM does not serve yet", inputs=inputs)
    delta = min(room.down_step, room.total - room.minimum, room.removable)
    if delta < 1:
        return Wish("Hold", "HostMinimum", f"{loads}, but every host is at its vms.min", inputs=inputs)
    return Wish("ScaleDown", "EnoughBelowLower", loads, -delta, inputs)


def _why_hold(inputs: Sequence[DecisionInput], limits: Sessions) -> tuple[str, str]:
    """Reason and message that name the VM that keeps the verdict from turning, and its figure."""
    lightest = min(inputs, key=lambda item: (item.percent is not None, item.percent or 0))
    if lightest.percent is None:
        return "LoadUnknown", f"sessions of {lightest.vm} are unknown"
    figure = f"{lightest.vm} is at {lightest.percent} %"
    if any(item.percent is not None and item.percent >= limits.upper_percent for item in inputs):
        return "NotAllAboveUpper", f"{figure}, all must be at or above {limits.upper_percent} %"
    if lightest.percent <= limits.lower_percent:
        return (
            "TooFewBelowLower",
            f"{figure}, {limits.lower_quorum} must be at or below {limits.lower_percent} %",
        )
    return "WithinBand", f"{figure}, between {limits.lower_percent} % and {limits.upper_percent} %"


def _figures(items: Sequence[DecisionInput]) -> str:
    return ", ".join(f"{item.vm} {item.percent} %" for item in items)


def _names(items: Sequence[DecisionInput]) -> str:
    return ", ".join(item.vm for item in items)
