"""The life of one VM: what its intent and what is observed of it ask for next.

    Pending -> Provisioning -> Booting -> Ready -> Draining -> Stopping -> gone
                          \\-> Failed         \\-> Lost

A VM leaves by deletion of its LubanVM; the finalizer keeps the object until the domain and its volumes are gone, so
every step below can be taken again by an operator that was killed in the middle of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from luban.api.vm import Phase
from luban.core.model import (
    Action,
    DeleteVM,
    DestroyDomain,
    EnsureDomain,
    ReleaseVM,
    RemoveDomain,
    ShutdownDomain,
    UpdateVM,
    VMRecord,
)
from luban.core.state import State

OFF_STATES = frozenset({"Off", "Crashed"})
DRAIN_TIMEOUT = "DrainTimeout"
CUT_OFF_SECONDS = 10.0
"""After balancer.drain.timeout the balancers have so long to disable the VM for its sticky sessions too."""
NEVER_SERVED = frozenset({"Pending", "Provisioning", "Booting", "Failed"})
PAST_DRAINING = frozenset({"Stopping", "Lost"})


@dataclass(frozen=True)
class Step:
    """What one VM needs now: its phase from here on, and the actions to take in this order."""

    phase: Phase
    actions: tuple[Action, ...] = ()


def next_step(vm: VMRecord, state: State, *, now: float, drain_timeout: float) -> Step:
    """The next step of one VM.

    `drain_timeout` in seconds. A VM whose host does not answer stays as it is: missing data never removes anything.
    """
    if vm.deleting_since is not None:
        return _leave(vm, state, now=now, drain_timeout=drain_timeout)
    if not state.reachable(vm.host):
        return Step(vm.phase)
    match vm.phase:
        case "Pending" | "Provisioning":
            return _provision(vm, state, now)
        case "Booting":
            return _boot(vm, state, now)
        case "Failed" | "Lost":
            return _retire(vm, now)
        case "Ready" | "Draining" | "Stopping":
            return _serve(vm, state)


def _enter(vm: VMRecord, state: State, phase: Phase, reason: str, message: str = "") -> UpdateVM:
    """The status write with which a phase begins."""
    return UpdateVM(vm.name, phase, reason, message, state.address(vm), state.attachments(vm))


def _provision(vm: VMRecord, state: State, now: float) -> Step:
    if state.runs(vm):
        return Step("Booting", (_enter(vm, state, "Booting", "DomainRunning", _awaited(vm)),))
    ensure = EnsureDomain(vm, "DomainMissing" if state.domain(vm) is None else "DomainOff")
    if vm.phase == "Pending":
        return Step("Provisioning", (_enter(vm, state, "Provisioning", "Placed"), ensure))
    failure = state.observation.provision_failures.get(vm.name)
    if failure is not None and failure.permanent:
        return _fail(vm, state, failure.reason, failure.message)
    if now - vm.phase_since > vm.template.startup_timeout.seconds:
        reason, message = _why_not_started(vm, state)
        return _fail(vm, state, reason, f"not started on {vm.host} within {vm.template.startup_timeout}: {message}")
    return Step("Provisioning", (ensure,))


def _awaited(vm: VMRecord) -> str:
    """What a VM that boots must do, and where to look if it does not."""
    probe, template = vm.template.readiness_probe.http_get, vm.template
    return (
        f"waiting for an answer to GET {probe.path} on port {template.port}, for {template.startup_timeout} at most; "
        f"its console: virsh -c {vm.host_uri} console {vm.uid}"
    )


def _why_not_started(vm: VMRecord, state: State) -> tuple[str, str]:
    failure = state.observation.provision_failures.get(vm.name)
    if failure is not None:
        return failure.reason, failure.message
    if state.domain(vm) is not None:
        return "DomainStopped", "the domain stops as soon as it is started; see its console"
    return "StartupTimeout", "its domain was never seen"


def _boot(vm: VMRecord, state: State, now: float) -> Step:
    if not state.runs(vm):
        return _fail(
            vm,
            state,
            "DomainStopped",
            f"the domain stopped on {vm.host} before it was ready: see its console",
        )
    if state.observation.probes.get(vm.name):
        return Step("Ready", (_enter(vm, state, "Ready", "ProbeAnswered"),))
    if now - vm.phase_since > vm.template.startup_timeout.seconds:
        where = state.address(vm) or "an address that is not known"
        message = f"no answer to its readiness probe on {where} within {vm.template.startup_timeout}"
        return _fail(vm, state, "StartupTimeout", message)
    return Step("Booting", _refresh(vm, state))


def _serve(vm: VMRecord, state: State) -> Step:
    if not state.runs(vm):
        domain = state.domain(vm)
        what = "crashed" if domain is not None and domain.state == "Crashed" else "stopped by itself"
        message = f"the domain {what} on {vm.host}; a new VM takes its place"
        return Step("Lost", (_enter(vm, state, "Lost", "DomainStopped", message), DeleteVM(vm.name, "DomainStopped")))
    if vm.phase != "Ready":
        # Nobody asks it to leave: someone else wrote this phase.
        return Step("Ready", (_enter(vm, state, "Ready", "NotDeleted"),))
    return Step("Ready", _refresh(vm, state))


def _refresh(vm: VMRecord, state: State) -> tuple[Action, ...]:
    """A status write if the address or the balancers changed within a phase."""
    if (state.address(vm), state.attachments(vm)) == (vm.address, vm.balancers):
        return ()
    return (_enter(vm, state, vm.phase, vm.reason, vm.message),)


def _fail(vm: VMRecord, state: State, reason: str, message: str) -> Step:
    return Step("Failed", (_enter(vm, state, "Failed", reason, message),))


def _retire(vm: VMRecord, now: float) -> Step:
    """A failed VM is kept for a while, so that someone can find out why; a lost one shows nothing any more."""
    if vm.phase == "Failed" and now - vm.phase_since < vm.template.failed_retention.seconds:
        return Step("Failed")
    return Step(vm.phase, (DeleteVM(vm.name, vm.reason or vm.phase),))


def _leave(vm: VMRecord, state: State, *, now: float, drain_timeout: float) -> Step:
    """Drain, stop, remove, let go: one step nearer each time."""
    if not vm.has_finalizer:
        return Step(vm.phase)
    drains = vm.phase not in PAST_DRAINING and must_drain(vm, state)
    if not state.reachable(vm.host):
        return Step("Draining", _begin_drain(vm, state)) if drains else Step(vm.phase)
    domain = state.domain(vm)
    if domain is None or domain.state in OFF_STATES:
        return Step(vm.phase, _remove(vm))
    if vm.phase == "Stopping":
        return _force_off(vm, now)
    if drains and not state.drained(vm) and not _waited(vm, now, drain_timeout + CUT_OFF_SECONDS):
        late = _waited(vm, now, drain_timeout)
        return Step("Draining", _cut_off(vm, state) if late else _begin_drain(vm, state))
    why = _why_stopped(vm, state, drains)
    return Step("Stopping", (ShutdownDomain(vm, why), _enter(vm, state, "Stopping", why)))


def must_drain(vm: VMRecord, state: State) -> bool:
    """Whether requests may be in flight on it. A balancer may know it even before its status says Ready."""
    return vm.phase not in NEVER_SERVED or state.may_get_requests(vm)


def _waited(vm: VMRecord, now: float, timeout: float) -> bool:
    """Whether it has been draining for too long. The clock starts with the phase, not with the deletion: nobody may
    have been there to drain it."""
    return vm.phase == "Draining" and now - vm.phase_since > timeout


def _why_stopped(vm: VMRecord, state: State, drains: bool) -> str:
    if not drains:
        return "NeverServed"
    return "Drained" if state.drained(vm) else DRAIN_TIMEOUT


def _begin_drain(vm: VMRecord, state: State) -> tuple[Action, ...]:
    if vm.phase == "Draining":
        return _refresh(vm, state)
    return (_enter(vm, state, "Draining", "Deleted"),)


def _cut_off(vm: VMRecord, state: State) -> tuple[Action, ...]:
    """The drain took too long: no balancer sends it anything any more, and only then is it stopped."""
    if vm.reason == DRAIN_TIMEOUT:
        return _refresh(vm, state)
    return (_enter(vm, state, "Draining", DRAIN_TIMEOUT, "not drained in balancer.drain.timeout: cut off"),)


def _force_off(vm: VMRecord, now: float) -> Step:
    if now - vm.phase_since < vm.template.termination_grace_period_seconds:
        return Step("Stopping")
    return Step("Stopping", (DestroyDomain(vm, "GracePeriodOver"),))


def _remove(vm: VMRecord) -> tuple[Action, ...]:
    return (RemoveDomain(vm, "DomainOff"), ReleaseVM(vm.name, "NothingLeft"))
