"""The life of one VM: what its intent and what is observed of it ask for next. Its phases stand in phases.py.

A VM leaves by deletion of its LubanVM; the finalizer keeps the object until the domain and its volumes are gone, so
every step below can be taken again by an operator that was killed in the middle of it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from luban.api.vm import Phase
from luban.core import phases
from luban.core.drain import DrainProgress, DrainTimes, closed, progress
from luban.core.model import (
    Action,
    DeleteVM,
    DestroyDomain,
    DomainRecord,
    EnsureDomain,
    ReleaseVM,
    RemoveDomain,
    ResumeDomain,
    ShutdownDomain,
    UpdateVM,
    VMRecord,
)
from luban.core.state import State

OFF_STATES = frozenset({"Off", "Crashed"})
RESUME_SECONDS = 15.0
"""A VM of the pool that has not answered so long after it was taken is thrown away: a new one is surer."""
TAKEN = "Taken"
RESUME_FAILED = "ResumeFailed"
PAUSED_SECONDS = 60.0
"""So long a paused VM may stay so; then it has failed."""
UNHEARD_SECONDS = 120.0
"""So much longer than its grace period a guest is left alone whose power button cannot be pressed."""
DRAIN_TIMEOUT = "DrainTimeout"
ADDRESS_NOT_ALLOWED = "AddressNotAllowed"
PAUSE_REASONS = {
    "IOError": "by QEMU: reading or writing its disk failed",
    "IOErrorNoSpace": "by QEMU: its storage pool is full",
    "User": "by somebody on the host (virsh suspend)",
    "PMSuspended": "by the guest itself (it went to sleep)",
    "Watchdog": "by its watchdog",
    "Crashed": "because the guest panicked",
    "Migration": "for a migration",
    "PostCopy": "for a migration",
    "PostCopyFailed": "by a migration that failed",
    "Save": "to save its memory",
    "Dump": "for a core dump",
    "Snapshot": "for a snapshot",
    "StartingUp": "while it starts",
}
"""libvirt's reasons for a pause, in words."""


@dataclass(frozen=True)
class Step:
    """What one VM needs now: its phase from here on, and the actions to take in this order."""

    phase: Phase
    actions: tuple[Action, ...] = ()


STAYS_READY = Step("Ready")
"""Of a VM that serves and needs nothing."""


@dataclass(frozen=True)
class _Stop:
    """How far the stop of a VM has come, in seconds."""

    waited: float
    """Since this process first saw it stop."""
    unheard: float | None
    """Since its power button was last known to have been pressed in vain; None: never."""

    @property
    def press(self) -> bool:
        """Whether the button is to be pressed: whoever wrote the phase may have died before, or it was in vain."""
        return self.waited <= 0 or self.unheard == 0

    def over(self, grace: float) -> bool:
        """Whether the guest had its grace period (seconds)."""
        heard = self.waited if self.unheard is None else self.unheard
        return heard >= grace or self.waited >= grace + UNHEARD_SECONDS


def next_step(
    vm: VMRecord,
    state: State,
    times: DrainTimes,
    now: float,
    *,
    may_start: bool = True,
    host_gone: bool = False,
    unheard: float | None = None,
) -> Step:
    """The next step of one VM. `vm.phase_since` and `now`: seconds on the clock that nobody sets.

    `may_start`: False while its host has no room for one more domain. `host_gone`: the user took its host out of the
    spec, and it has been silent for so long that it may never answer again. `unheard`: when its power button was last
    known to have been pressed in vain. A VM whose host does not answer stays as it
    is: missing data never removes anything.
    """
    if vm.deleting_since is not None:
        drain = progress(vm, state, times, now)
        stop = _Stop(now - vm.phase_since, now - unheard if unheard is not None else None)
        return _let_go(vm, state, drain) if host_gone else _leave(vm, state, drain, stop)
    if vm.phase in phases.UNSTARTED and _is_barred(vm, state):
        return Step(vm.phase, (DeleteVM(vm.name, "HostNotAllowed"),) if state.reachable(vm.host) else ())
    if vm.phase in phases.UNSTARTED and state.came_too_late(vm) and not state.runs(vm):
        return Step(vm.phase, (DeleteVM(vm.name, "HostFull"),))
    if vm.phase == "Resuming" and (why := _why_not_resumed(vm, state, now)):
        return _throw_away(vm, state, RESUME_FAILED, f"could not be taken out of the pool, and is replaced: {why}")
    if not state.reachable(vm.host) or (vm.phase in phases.UNSTARTED and not may_start and not state.runs(vm)):
        return Step(vm.phase)
    return _live_on(vm, state, now)


def _is_barred(vm: VMRecord, state: State) -> bool:
    """Whether the VM may not be started: its host may not be used any more. Another one is made elsewhere."""
    return vm.host in state.refused and not state.runs(vm)


def _live_on(vm: VMRecord, state: State, now: float) -> Step:
    """The next step of a VM that nobody asks to leave."""
    match vm.phase:
        case "Pending" | "Provisioning":
            return _provision(vm, state, now)
        case "Booting":
            return _boot(vm, state, now)
        case "Warm" | "Resuming":
            return _come_out(vm, state)
        case "Ready" | "Draining" | "Stopping":
            return _serve(vm, state)
        case "Paused":
            return _paused(vm, state, now)
        case "Failed" | "Lost":
            return _retire(vm, now)


def taking(vm: VMRecord, state: State) -> tuple[Action, ...]:
    """With what a VM begins to come out of the pool."""
    message = f"taken out of the pool: {_awaited(vm)}"
    return (enter(vm, state, "Resuming", TAKEN, message), ResumeDomain(vm, TAKEN))


def _come_out(vm: VMRecord, state: State) -> Step:
    """The next step of a VM that is taken out of the pool."""
    if vm.phase == "Warm":
        return Step("Resuming", taking(vm, state)) if state.runs(vm) else end_in_pool(vm, state)
    if is_paused(vm, state):
        return Step("Resuming", (ResumeDomain(vm, TAKEN),))
    if state.observation.probes.get(vm.name):
        return Step("Ready", (enter(vm, state, "Ready", "ProbeAnswered"),))
    return Step("Resuming", refresh(vm, state))


def _why_not_resumed(vm: VMRecord, state: State, now: float) -> str:
    """Why a VM does not come out of the pool; empty: it does, or may yet."""
    failure = state.observation.action_failures.get(f"vm/{vm.name}")
    if failure is not None:
        return failure.message
    if state.reachable(vm.host) and not state.runs(vm):
        return f"the domain {_ended(state.domain(vm))} on {vm.host}"
    if now - vm.phase_since > RESUME_SECONDS:
        where = "" if state.reachable(vm.host) else f": libvirt on {vm.host} does not answer"
        return f"not ready within {RESUME_SECONDS:.0f} s{where}"
    return ""


def end_in_pool(vm: VMRecord, state: State) -> Step:
    """The domain of a VM of the pool ended by itself."""
    domain = state.domain(vm)
    reason = "DomainCrashed" if domain is not None and domain.state == "Crashed" else "DomainStopped"
    return _throw_away(vm, state, reason, f"the domain {_ended(domain)} on {vm.host} while it was in the pool")


def _throw_away(vm: VMRecord, state: State, reason: str, message: str) -> Step:
    """A VM of the pool is of no use. It served nobody, so nothing is lost but the time."""
    return Step(vm.phase, (enter(vm, state, vm.phase, reason, message), DeleteVM(vm.name, reason)))


def enter(vm: VMRecord, state: State, phase: Phase, reason: str, message: str = "") -> UpdateVM:
    """The status write with which a phase begins."""
    return UpdateVM(vm.name, phase, reason, message, state.address(vm), state.attachments(vm))


def _provision(vm: VMRecord, state: State, now: float) -> Step:
    if state.runs(vm):
        return Step("Booting", (enter(vm, state, "Booting", "DomainRunning", _awaited(vm)),))
    ensure = EnsureDomain(vm, "DomainMissing" if state.domain(vm) is None else "DomainOff")
    if vm.phase == "Pending":
        return Step("Provisioning", (enter(vm, state, "Provisioning", "Placed"), ensure))
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
        f"its console: virsh -c {shlex.quote(vm.host_uri)} console {vm.uid}"
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
        message = f"the domain {_ended(state.domain(vm))} on {vm.host} before it was ready: see its console"
        return _fail(vm, state, "DomainStopped", message)
    if is_paused(vm, state):
        return _pause(vm, state)
    if state.observation.probes.get(vm.name):
        return Step("Ready", (enter(vm, state, "Ready", "ProbeAnswered"),))
    if now - vm.phase_since > vm.template.startup_timeout.seconds and not _awaits_probe(vm, state):
        where, why = state.address(vm) or "an address that is not known", _complaint(vm, state)
        message = f"no answer to its readiness probe on {where} within {vm.template.startup_timeout}"
        message += f": {why}" if why else ""
        return _fail(vm, state, "StartupTimeout", message)
    return Step("Booting", _refresh_address(vm, state, "DomainRunning", _awaited(vm)))


def _complaint(vm: VMRecord, state: State) -> str:
    """Why the VM's address does not count; empty: it does, or there is none."""
    domain = state.domain(vm)
    return domain.complaint if domain is not None else ""


def _refresh_address(vm: VMRecord, state: State, reason: str, message: str) -> tuple[Action, ...]:
    """As refresh, and a status write if its address ceases to count, or counts again: then for `reason`."""
    complaint = _complaint(vm, state)
    if complaint and (vm.reason, vm.message) != (ADDRESS_NOT_ALLOWED, complaint):
        return (enter(vm, state, vm.phase, ADDRESS_NOT_ALLOWED, complaint),)
    if not complaint and vm.reason == ADDRESS_NOT_ALLOWED:
        return (enter(vm, state, vm.phase, reason, message),)
    return refresh(vm, state)


def _awaits_probe(vm: VMRecord, state: State) -> bool:
    """Whether a probe of our own is still under way: only one that was answered or timed out says anything."""
    return bool(state.address(vm)) and vm.name not in state.observation.probes


def is_paused(vm: VMRecord, state: State) -> bool:
    domain = state.domain(vm)
    return domain is not None and domain.state == "Paused"


def _pause(vm: VMRecord, state: State) -> Step:
    """It does not serve while it is paused, whoever did it."""
    return Step("Paused", (enter(vm, state, "Paused", "DomainPaused", _why_paused(vm, state)),))


def _why_paused(vm: VMRecord, state: State) -> str:
    domain = state.domain(vm)
    reason = domain.reason if domain is not None else ""
    words = PAUSE_REASONS.get(reason, f"libvirt's reason: {reason or 'none'}")
    command = f"virsh -c {shlex.quote(vm.host_uri)} resume {vm.uid}"
    return f"the domain is paused on {vm.host}, {words}; to go on: {command}"


def _paused(vm: VMRecord, state: State, now: float) -> Step:
    if not state.runs(vm):
        return _lose(vm, state)
    if not is_paused(vm, state):
        # Whether it answers again is asked as of one that boots.
        return Step("Booting", (enter(vm, state, "Booting", "Resumed", _awaited(vm)),))
    if now - vm.phase_since > PAUSED_SECONDS:
        return _fail(vm, state, "DomainPaused", f"{_why_paused(vm, state)} (paused for over {PAUSED_SECONDS:.0f} s)")
    return Step("Paused", refresh(vm, state))


def _serve(vm: VMRecord, state: State) -> Step:
    if not state.runs(vm):
        return _lose(vm, state)
    if is_paused(vm, state):
        return _pause(vm, state)
    if vm.phase != "Ready":
        # Nobody asks it to leave: someone else wrote this phase.
        return Step("Ready", (enter(vm, state, "Ready", "NotDeleted"),))
    return Step("Ready", _refresh_address(vm, state, "ProbeAnswered", ""))


def _lose(vm: VMRecord, state: State) -> Step:
    """Its domain ended by itself: another VM takes its place."""
    domain = state.domain(vm)
    reason = "DomainCrashed" if domain is not None and domain.state == "Crashed" else "DomainStopped"
    message = f"the domain {_ended(domain)} on {vm.host}; a new VM takes its place"
    return Step("Lost", (enter(vm, state, "Lost", reason, message), DeleteVM(vm.name, reason)))


def _ended(domain: DomainRecord | None) -> str:
    if domain is None:
        return "is gone"
    return "crashed" if domain.state == "Crashed" else "stopped by itself"


def refresh(vm: VMRecord, state: State) -> tuple[Action, ...]:
    """A status write if the address or the balancers changed within a phase."""
    if (state.address(vm), state.attachments(vm)) == (vm.address, vm.balancers):
        return ()
    return (enter(vm, state, vm.phase, vm.reason, vm.message),)


def _fail(vm: VMRecord, state: State, reason: str, message: str) -> Step:
    return Step("Failed", (enter(vm, state, "Failed", reason, message),))


def _retire(vm: VMRecord, now: float) -> Step:
    """A failed VM is kept for a while, so that someone can find out why; a lost one shows nothing any more."""
    if vm.phase == "Failed" and now - vm.phase_since < vm.template.failed_retention.seconds:
        return Step("Failed")
    return Step(vm.phase, (DeleteVM(vm.name, vm.reason or vm.phase),))


def _leave(vm: VMRecord, state: State, drain: DrainProgress, stop: _Stop) -> Step:
    """Drain, stop, remove, let go: one step nearer each time."""
    if not vm.has_finalizer:
        return Step(vm.phase)
    if not state.reachable(vm.host):
        return Step("Draining", _begin_drain(vm, state)) if drain.needed else Step(vm.phase)
    domain = state.domain(vm)
    if domain is None or domain.state in OFF_STATES:
        return Step(vm.phase, _remove(vm))
    if vm.phase == "Stopping":
        return _stop(vm, domain, stop)
    if not drain.over:
        return Step("Draining", _cut_off(vm, state) if drain.cut_off else _begin_drain(vm, state))
    why = _why_stopped(drain)
    return Step("Stopping", (enter(vm, state, "Stopping", why), *_power_button(vm, domain, why)))


def _let_go(vm: VMRecord, state: State, drain: DrainProgress) -> Step:
    """What runs on a host that is gone cannot be removed. Once nobody sends it requests, nobody waits for it any more;
    it carries our mark, so it is found as a stray if the host ever comes back into the spec."""
    if not vm.has_finalizer:
        return Step(vm.phase)
    if drain.over or drain.cut_off or closed(vm, state):
        return Step(vm.phase, (ReleaseVM(vm.name, "HostGone"),))
    return Step("Draining", _begin_drain(vm, state))


def _why_stopped(drain: DrainProgress) -> str:
    if not drain.needed:
        return "NeverServed"
    return "Drained" if drain.drained else DRAIN_TIMEOUT


def _begin_drain(vm: VMRecord, state: State) -> tuple[Action, ...]:
    if vm.phase == "Draining":
        return refresh(vm, state)
    return (enter(vm, state, "Draining", "Deleted"),)


def _cut_off(vm: VMRecord, state: State) -> tuple[Action, ...]:
    """The drain took too long: no balancer sends it anything any more, and only then is it stopped."""
    if vm.reason == DRAIN_TIMEOUT:
        return refresh(vm, state)
    return (enter(vm, state, "Draining", DRAIN_TIMEOUT, "not drained in balancer.drain.timeout: cut off"),)


def _power_button(vm: VMRecord, domain: DomainRecord, why: str) -> tuple[Action, ...]:
    """A guest that does not run cannot hear the ACPI power button."""
    return (ShutdownDomain(vm, why),) if domain.state == "Running" else ()


def _stop(vm: VMRecord, domain: DomainRecord, stop: _Stop) -> Step:
    """The grace period begins anew with a power button that was pressed in vain, but not for ever. What is paused has
    its plug pulled at once."""
    if stop.over(vm.template.termination_grace_period_seconds) or domain.state == "Paused":
        why = "DomainPaused" if domain.state == "Paused" else "GracePeriodOver"
        return Step("Stopping", (DestroyDomain(vm, why),))
    return Step("Stopping", _power_button(vm, domain, vm.reason or "Stopping") if stop.press else ())


def _remove(vm: VMRecord) -> tuple[Action, ...]:
    return (RemoveDomain(vm, "DomainOff"), ReleaseVM(vm.name, "NothingLeft"))
