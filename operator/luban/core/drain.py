"""Taking a VM out of service before it is stopped: the one home of what "drained" means ([E], drain before stop).

No new requests at once, in every balancer; then wait until nothing is in flight in any of them, or for
balancer.drain.timeout; then cut off what is left, and only then may the VM be stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

from luban.core import phases
from luban.core.model import BalancerReport, VMRecord
from luban.core.state import State

CUT_OFF_SECONDS = 10.0
"""After balancer.drain.timeout the balancers have so long to disable the VM for its sticky sessions too."""
SILENCE_SECONDS = 60.0
"""So much longer is waited for a balancer that does not say what it does: its httpd may still send requests."""


@dataclass(frozen=True)
class DrainProgress:
    """How far the drain of one VM has come."""

    needed: bool
    """Whether requests may be in flight on it at all."""
    drained: bool = False
    """Every balancer is known to have nothing in flight on it and to send nothing new."""
    cut_off: bool = False
    """The wait was too long: no balancer shall send it anything any more, sticky sessions included."""
    over: bool = False
    """It may be stopped."""


@dataclass(frozen=True)
class DrainTimes:
    """Seconds on the clock that nobody sets."""

    timeout: float
    """balancer.drain.timeout."""
    silence: float
    """How much longer a balancer that says nothing is waited for."""
    closed_since: float | None
    """Since when every balancer is known to send nothing new; None: not yet."""


def must_drain(vm: VMRecord, state: State) -> bool:
    """Whether requests may be in flight on it. A balancer may know it even before its status says Ready."""
    return vm.phase not in phases.NEVER_SERVED or may_get_requests(vm, state)


def heard(vm: VMRecord, state: State) -> bool:
    """Whether every balancer that may have the VM says what it does, or is lost."""
    return state.balancers_answer or all(state.is_heard(it) for it in _balancers_of(vm, state))


def may_get_requests(vm: VMRecord, state: State) -> bool:
    """Whether a balancer was told to send requests to the VM, or is seen to do so."""
    return state.attached(vm) or state.told_to_enable(vm)


def closed(vm: VMRecord, state: State) -> bool:
    """Whether every balancer that may have the VM confirms that it sends nothing new, except of sticky sessions."""
    return all(_closed_in(balancer, vm, state) for balancer in _balancers_of(vm, state))


def _balancers_of(vm: VMRecord, state: State) -> list[BalancerReport]:
    """Those that may send it requests: no other one is waited for."""
    return [balancer for balancer in state.observation.balancers if state.may_have(balancer, vm)]


def _closed_in(balancer: BalancerReport, vm: VMRecord, state: State) -> bool:
    if not balancer.reachable:
        return False
    member = state.member(balancer, vm)
    return (member is None or member.state != "Enabled") and not _only_enabled_so_far(balancer, vm, state)


def _only_enabled_so_far(balancer: BalancerReport, vm: VMRecord, state: State) -> bool:
    """Whether the balancer may be about to carry out an older word that enables the VM."""
    published = state.observation.published.get(balancer.name)
    return published is not None and published.version != balancer.applied and state.told_to_enable(vm)


def drained(vm: VMRecord, state: State) -> bool:
    """Whether every balancer that may have the VM has nothing in flight on it, as is known, and sends nothing new."""
    return all(_drained_from(balancer, vm, state) for balancer in _balancers_of(vm, state))


def _drained_from(balancer: BalancerReport, vm: VMRecord, state: State) -> bool:
    """Draining is final. Disabled or unknown may be the word of a balancer that was told to enable the VM since, so it
    counts only from one that carried out what it was told last."""
    if not balancer.reachable:
        return False
    member = state.member(balancer, vm)
    if member is not None and (member.state == "Enabled" or not member.drained):
        return False
    if member is None and state.address_lost(vm):
        # It was left out for its address' sake: what is in flight there is anybody's, and has to be waited for.
        return False
    return (member is not None and member.state == "Draining") or state.told_to_stop(balancer, vm)


def progress(vm: VMRecord, state: State, times: DrainTimes, now: float) -> DrainProgress:
    """How far the drain of a VM that was asked to leave has come.

    The clock starts when the balancers confirm, not with the deletion: nobody may have been there to tell them. One
    that says nothing is waited for longer, but not for ever.
    """
    if vm.phase in phases.PAST_DRAINING or not must_drain(vm, state):
        return DrainProgress(needed=False, over=True)
    if drained(vm, state):
        return DrainProgress(needed=True, drained=True, over=True)
    if vm.phase != "Draining":
        return DrainProgress(needed=True)
    waited = now - times.closed_since if times.closed_since is not None else now - vm.phase_since - times.silence
    return DrainProgress(
        needed=True,
        cut_off=waited > times.timeout,
        over=waited > times.timeout + CUT_OFF_SECONDS,
    )
