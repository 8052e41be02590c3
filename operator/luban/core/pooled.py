"""The life of a VM of the pool: it boots like any other, or is drained; then it rests, suspended, until it is taken."""

from __future__ import annotations

from dataclasses import dataclass

from luban.core.drain import DrainProgress
from luban.core.lifecycle import DRAIN_TIMEOUT, Step, end_in_pool, enter, refresh
from luban.core.model import Action, BalloonDomain, DeleteVM, SuspendDomain, VMRecord
from luban.core.state import State

RECYCLED = "Recycled"
RESTS = "Rests"
BALLOON_SECONDS = 5.0
"""A guest has so long to give memory back before it is suspended."""


@dataclass(frozen=True)
class Rest:
    """How a VM of the pool rests."""

    memory: int | None = None
    """Bytes that it keeps; None: all."""


def pooled_step(vm: VMRecord, state: State, now: float, *, alone: Step, drain: DrainProgress, rest: Rest) -> Step:
    """The next step of a VM of the pool that nobody asks to leave.

    `alone`: what it would be if the VM were not of the pool: how it is made, boots, fails and is lost is the same.
    """
    match vm.phase:
        case "Warm" | "Resuming":
            return _rest(vm, state, rest, now)
        case "Draining":
            return _drain(vm, state, drain, rest) if alone.phase == "Ready" else alone
        case "Ready" if alone.phase == "Ready":
            return Step("Draining", (enter(vm, state, "Draining", RECYCLED),))
        case _:
            return _to_rest(vm, state, rest, "ProbeAnswered") if alone.phase == "Ready" else alone


def _drain(vm: VMRecord, state: State, drain: DrainProgress, rest: Rest) -> Step:
    if drain.over:
        return _to_rest(vm, state, rest, "Drained" if drain.drained else DRAIN_TIMEOUT)
    if drain.cut_off and vm.reason != DRAIN_TIMEOUT:
        message = "not drained in balancer.drain.timeout: cut off"
        return Step("Draining", (enter(vm, state, "Draining", DRAIN_TIMEOUT, message),))
    return Step("Draining", refresh(vm, state))


def _to_rest(vm: VMRecord, state: State, rest: Rest, reason: str) -> Step:
    return Step("Warm", (enter(vm, state, "Warm", reason), *_lie_down(vm, rest, waited=0.0)))


def _lie_down(vm: VMRecord, rest: Rest, waited: float) -> tuple[Action, ...]:
    """A guest that is suspended gives nothing back: it is asked before, and has its time."""
    if rest.memory is None or waited >= BALLOON_SECONDS:
        return (SuspendDomain(vm, RESTS),)
    return (BalloonDomain(vm, rest.memory, RESTS),) if waited <= 0 else ()


def _rest(vm: VMRecord, state: State, rest: Rest, now: float) -> Step:
    """It lies down again whoever woke it, unless its domain ended or something else than we paused it."""
    if not state.reachable(vm.host):
        return Step(vm.phase)
    if not state.runs(vm):
        return end_in_pool(vm, state)
    if state.is_suspended(vm) and vm.phase == "Warm":
        return Step("Warm", refresh(vm, state))
    domain = state.domain(vm)
    if domain is not None and domain.state == "Paused" and not state.is_suspended(vm):
        return Step(vm.phase, (DeleteVM(vm.name, "DomainPaused"),))
    if vm.phase != "Warm":
        return _to_rest(vm, state, rest, RESTS)
    return Step("Warm", _lie_down(vm, rest, now - vm.phase_since))
