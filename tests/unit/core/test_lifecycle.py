"""The life of one VM: a frozen state in, a step out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from luban.api.vm import Phase
from luban.core.drain import CUT_OFF_SECONDS, SILENCE_SECONDS, DrainTimes, must_drain
from luban.core.left_out import Refusal
from luban.core.lifecycle import DRAIN_TIMEOUT, PAUSED_SECONDS, Step, next_step
from luban.core.model import (
    BalancerReport,
    DeleteVM,
    DomainRecord,
    DomainState,
    EnsureDomain,
    Failure,
    HostObservation,
    MemberState,
    Observation,
    RemoveDomain,
    ShutdownDomain,
    UpdateVM,
    VMRecord,
)
from luban.core.phases import UNSTARTED
from luban.core.state import State
from tests.fakes.simulator import (
    BALANCER,
    EPOCH,
    TEMPLATE,
    address_of,
    balancer_with,
    hosts_with,
    make_vm,
    published_with,
)

SEEN: tuple[DomainState | None, ...] = (None, "Running", "Paused", "ShuttingDown", "Off", "Crashed")
MEMBER: dict[Phase, MemberState] = {
    "Provisioning": "Disabled",
    "Booting": "Disabled",
    "Ready": "Enabled",
    "Draining": "Draining",
    "Warm": "Disabled",
    "Resuming": "Disabled",
    "Stopping": "Disabled",
}
"""How the balancer treats a VM of a phase in the tables below."""


def taken(
    vm: VMRecord,
    domain: DomainState | None = "Running",
    *,
    after: float = 5.0,
    silent: bool = False,
    balancer: BalancerReport | None = None,
    published: MemberState | None = None,
    version: str = "v1",
    closed: bool = True,
    refusal: Refusal | None = None,
    **seen: Any,
) -> Step:
    """The step of a VM whose domain is in this state, so many seconds after its phase began.

    `closed`: the balancers confirmed then that they send nothing new.
    """
    state = MEMBER.get(vm.phase)
    report = balancer or balancer_with({vm.name: state} if state else {})
    told = published or state
    observation = Observation(
        vms=(vm,),
        hosts=tuple(
            replace(it, refusal=refusal)
            for it in hosts_with([vm], {vm.name: domain}, silent=[vm.host] if silent else ())
        ),
        balancers=(report,),
        published=published_with({vm.name: told} if told else {}, version=version),
        **seen,
    )
    times = DrainTimes(30.0, SILENCE_SECONDS, vm.phase_since if closed else None)
    return next_step(vm, State(observation), times, vm.phase_since + after)


def told(step: Step) -> str:
    """A step in short: the phase, and what is done."""
    names = [type(it).__name__.removesuffix("Domain").removesuffix("VM") for it in step.actions]
    return " ".join([f"{step.phase}:", *names]).removesuffix(":")


def in_flight(vm: VMRecord, state: MemberState = "Draining") -> BalancerReport:
    """A report with a request in flight on the VM."""
    report = balancer_with({vm.name: state})
    return replace(report, members=tuple(replace(it, drained=False, in_flight=1) for it in report.members))


# Columns: absent, off or crashed · it runs · paused · the host does not answer.
LIVING: dict[Phase, tuple[str, str, str, str]] = {
    "Pending": ("Provisioning: Update Ensure", "Booting: Update", "Booting: Update", "Pending"),
    "Provisioning": ("Provisioning: Ensure", "Booting: Update", "Booting: Update", "Provisioning"),
    "Booting": ("Failed: Update", "Booting", "Paused: Update", "Booting"),
    "Ready": ("Lost: Update Delete", "Ready", "Paused: Update", "Ready"),
    "Paused": ("Lost: Update Delete", "Booting: Update", "Paused", "Paused"),
    "Draining": ("Lost: Update Delete", "Ready: Update", "Paused: Update", "Draining"),
    "Warm": ("Warm: Update Delete", "Resuming: Update Resume", "Resuming: Update Resume", "Warm"),
    "Resuming": ("Resuming: Update Delete", "Resuming", "Resuming: Resume", "Resuming: Update Delete"),
    "Stopping": ("Lost: Update Delete", "Ready: Update", "Paused: Update", "Stopping"),
    "Failed": ("Failed", "Failed", "Failed", "Failed"),
    "Lost": ("Lost: Delete", "Lost: Delete", "Lost: Delete", "Lost"),
}
STOPS = "Stopping: Update Shutdown"
LEAVING: dict[Phase, tuple[str, str, str, str]] = {
    "Pending": ("Pending: Remove Release", STOPS, "Stopping: Update", "Pending"),
    "Provisioning": ("Provisioning: Remove Release", STOPS, "Stopping: Update", "Provisioning"),
    "Booting": ("Booting: Remove Release", STOPS, "Stopping: Update", "Booting"),
    "Ready": ("Ready: Remove Release", "Draining: Update", "Draining: Update", "Draining: Update"),
    "Paused": ("Paused: Remove Release", STOPS, "Stopping: Update", "Draining: Update"),
    "Draining": ("Draining: Remove Release", "Draining", "Draining", "Draining"),
    "Warm": ("Warm: Remove Release", STOPS, "Stopping: Update", "Warm"),
    "Resuming": ("Resuming: Remove Release", STOPS, "Stopping: Update", "Resuming"),
    "Stopping": ("Stopping: Remove Release", "Stopping", "Stopping: Destroy", "Stopping"),
    "Failed": ("Failed: Remove Release", STOPS, "Stopping: Update", "Failed"),
    "Lost": ("Lost: Remove Release", STOPS, "Stopping: Update", "Lost"),
}


def column(row: tuple[str, str, str, str], domain: DomainState | None) -> str:
    """What a table says of a domain in this state, on a host that answers."""
    return row[2] if domain == "Paused" else row[1] if domain in ("Running", "ShuttingDown") else row[0]


NOT_OURS = Refusal("NamespaceNotAllowed", "LubanHost host-b is not for namespace default")


class TestRefusedHost:
    """Nothing is started there; all else is as on any host."""

    @pytest.mark.parametrize("silent", [False, True])
    @pytest.mark.parametrize("phase", get_args(Phase))
    @pytest.mark.parametrize("domain", SEEN)
    def test_every_state(self, phase: Phase, domain: DomainState | None, silent: bool) -> None:
        vm = make_vm(phase=phase)
        step = taken(vm, domain, silent=silent, refusal=NOT_OURS)
        if phase in UNSTARTED and not silent and column(("off", "runs", "runs", ""), domain) == "off":
            assert step == Step(phase, (DeleteVM(vm.name, "HostNotAllowed"),))
        else:
            assert step == taken(vm, domain, silent=silent)


class TestEveryState:
    """Phase by domain state by what the host says: nothing is left to chance."""

    @pytest.mark.parametrize("phase", get_args(Phase))
    @pytest.mark.parametrize("domain", SEEN)
    def test_one_that_lives(self, phase: Phase, domain: DomainState | None) -> None:
        assert told(taken(make_vm(phase=phase), domain)) == column(LIVING[phase], domain)

    @pytest.mark.parametrize("phase", get_args(Phase))
    @pytest.mark.parametrize("domain", SEEN)
    def test_one_that_leaves(self, phase: Phase, domain: DomainState | None) -> None:
        vm = make_vm(phase=phase, deleting_since=EPOCH)
        step = taken(vm, domain, balancer=in_flight(vm) if phase == "Draining" else None)
        expected = column(LEAVING[phase], domain)
        # A guest that shuts down has heard the button.
        assert told(step) == (expected.removesuffix(" Shutdown") if domain == "ShuttingDown" else expected)

    @pytest.mark.parametrize("phase", LIVING)
    @pytest.mark.parametrize("leaves", [False, True])
    def test_silence(self, phase: Phase, leaves: bool) -> None:
        """What the host would say does not matter when it says nothing; only draining needs no host."""
        vm = make_vm(phase=phase, deleting_since=EPOCH if leaves else None)
        expected = (LEAVING if leaves else LIVING)[phase][3]
        assert {told(taken(vm, domain, silent=True, after=10_000.0)) for domain in SEEN} == {expected}

    @pytest.mark.parametrize("phase", LEAVING)
    @pytest.mark.parametrize("domain", SEEN)
    def test_without_our_finalizer_it_is_the_api_servers(self, phase: Phase, domain: DomainState | None) -> None:
        assert told(taken(make_vm(phase=phase, deleting_since=EPOCH, has_finalizer=False), domain)) == phase


class TestProvisioning:
    """From the intent to a domain that runs."""

    NO_IMAGE = Failure("ImageNotFound", "volume luban-web.qcow2 is not in pool default on host-b", permanent=True)
    NO_LUCK = Failure("HostBusy", "cannot fork", permanent=False)

    def test_the_phase_is_written_before_anything_is_made(self) -> None:
        step = taken(make_vm(phase="Pending"), None)
        update, ensure = step.actions
        assert isinstance(update, UpdateVM)
        assert isinstance(ensure, EnsureDomain)
        assert (update.phase, update.reason, ensure.reason) == ("Provisioning", "Placed", "DomainMissing")

    def test_an_operator_killed_in_between_finds_the_domain(self) -> None:
        """Defined and running, but the status was not written any more."""
        assert told(taken(make_vm(phase="Pending"))) == "Booting: Update"

    def test_a_domain_that_is_defined_is_started(self) -> None:
        ensure = taken(make_vm(phase="Provisioning"), "Off").actions[0]
        assert ensure.reason == "DomainOff"

    def test_a_permanent_failure_is_one_at_once(self) -> None:
        step = taken(make_vm(phase="Provisioning"), None, provision_failures={"vm-1": self.NO_IMAGE})
        assert step.actions == (UpdateVM("vm-1", "Failed", "ImageNotFound", self.NO_IMAGE.message),)

    def test_a_temporary_one_is_tried_again_until_the_startup_timeout(self) -> None:
        vm = make_vm(phase="Provisioning")
        assert told(taken(vm, None, after=300.0, provision_failures={"vm-1": self.NO_LUCK})) == "Provisioning: Ensure"
        step = taken(vm, None, after=301.0, provision_failures={"vm-1": self.NO_LUCK})
        assert step.actions == (UpdateVM("vm-1", "Failed", "HostBusy", "not started on host-b within 5m: cannot fork"),)

    @pytest.mark.parametrize(
        ("domain", "reason", "words"),
        [("Off", "DomainStopped", "see its console"), (None, "StartupTimeout", "never seen")],
    )
    def test_a_start_that_leads_nowhere_ends_too(self, domain: DomainState | None, reason: str, words: str) -> None:
        """No call failed, but the domain never runs: not for ever in Provisioning."""
        step = taken(make_vm(phase="Provisioning"), domain, after=301.0)
        (update,) = step.actions
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Failed", reason)
        assert words in update.message

    def test_a_vm_of_a_host_that_was_silent_for_long_is_tried_first(self) -> None:
        assert told(taken(make_vm(phase="Pending"), None, after=10_000.0)) == "Provisioning: Update Ensure"


class TestBooting:
    """From a domain that runs to one that serves."""

    VM = make_vm(phase="Booting")

    def test_an_answer_makes_it_ready(self) -> None:
        step = taken(self.VM, probes={"vm-1": True})
        assert step.actions == (UpdateVM("vm-1", "Ready", "ProbeAnswered", "", address_of("vm-1")),)

    def test_no_answer_and_no_probe_are_the_same(self) -> None:
        assert told(taken(self.VM, probes={"vm-1": False})) == "Booting"
        assert told(taken(self.VM, probes={})) == "Booting"

    def test_its_address_is_written_when_it_is_known(self) -> None:
        step = taken(replace(self.VM, address=""))
        assert step.actions == (UpdateVM("vm-1", "Booting", "", "", address_of("vm-1")),)

    def test_an_answer_in_the_last_moment_counts(self) -> None:
        assert told(taken(self.VM, after=301.0, probes={"vm-1": True})) == "Ready: Update"

    def test_the_startup_timeout(self) -> None:
        missed = {"vm-1": False}
        assert told(taken(self.VM, after=300.0, probes=missed)) == "Booting"
        assert told(taken(self.VM, after=300.5)) == "Booting", "its probe is still under way"
        (update,) = taken(self.VM, after=300.5, probes=missed).actions
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Failed", "StartupTimeout")
        assert update.message == f"no answer to its readiness probe on {address_of('vm-1')} within 5m"

    def test_a_domain_that_stops_names_its_host(self) -> None:
        (update,) = taken(self.VM, "Crashed").actions
        assert isinstance(update, UpdateVM)
        assert update.message == "the domain crashed on host-b before it was ready: see its console"


class TestReady:
    """One that serves."""

    VM = make_vm()

    def test_nothing_is_written_while_nothing_changes(self) -> None:
        assert taken(self.VM) == Step("Ready")

    def test_balancers_and_address_are_written_when_they_change(self) -> None:
        step = taken(replace(self.VM, balancers=(), address="10.9.9.9", reason="ProbeAnswered"))
        assert step.actions == (UpdateVM("vm-1", "Ready", "ProbeAnswered", "", address_of("vm-1"), (BALANCER,)),)

    def test_a_silent_balancer_changes_nothing(self) -> None:
        assert taken(self.VM, balancer=BalancerReport(BALANCER, reachable=False)) == Step("Ready")

    def test_probes_do_not_end_it(self) -> None:
        """That is for httpd's own checks; the condition VMsHealthy says so."""
        assert taken(self.VM, probes={"vm-1": False}, after=10_000.0) == Step("Ready")

    @pytest.mark.parametrize(
        ("domain", "reason", "word"),
        [
            ("Off", "DomainStopped", "stopped by itself"),
            ("Crashed", "DomainCrashed", "crashed"),
            (None, "DomainStopped", "is gone"),
        ],
    )
    def test_one_that_stopped_is_lost(self, domain: DomainState | None, reason: str, word: str) -> None:
        update, delete = taken(self.VM, domain).actions
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Lost", reason)
        assert f"the domain {word}" in update.message
        assert delete.reason == reason

    def test_a_phase_that_someone_else_wrote_is_put_right(self) -> None:
        step = taken(make_vm(phase="Stopping"))
        assert step.actions == (UpdateVM("vm-1", "Ready", "NotDeleted", "", address_of("vm-1")),)


class TestPaused:
    """Paused by QEMU (pool full, I/O error), by somebody, by anything: it does not serve, and says so."""

    VM = make_vm(phase="Paused")

    def test_why(self) -> None:
        state = State(Observation(vms=(make_vm(),), hosts=(paused_host(make_vm(), "IOError"),)))
        (update,) = next_step(make_vm(), state, DrainTimes(30.0, SILENCE_SECONDS, None), EPOCH).actions
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Paused", "DomainPaused")
        assert "reading or writing its disk failed" in update.message
        assert "virsh -c qemu+tls://host-b/system resume uid-vm-1" in update.message

    def test_it_may_be_resumed_for_a_while(self) -> None:
        assert told(taken(self.VM, "Paused", after=PAUSED_SECONDS)) == "Paused"
        (update,) = taken(self.VM, "Paused", after=PAUSED_SECONDS + 1).actions
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Failed", "DomainPaused")

    def test_then_it_must_answer_again(self) -> None:
        assert told(taken(self.VM, "Running", probes={"vm-1": True})) == "Booting: Update"


def paused_host(vm: VMRecord, reason: str) -> HostObservation:
    """A host on which the VM's domain is paused."""
    return HostObservation(vm.host, True, domains={vm.uid: DomainRecord(vm.uid, vm.name, "Paused", reason=reason)})


class TestFailedAndLost:
    """What is kept, and for how long."""

    def test_a_failed_one_is_kept_for_a_while(self) -> None:
        vm = make_vm(phase="Failed", reason="ImageNotFound")
        assert taken(vm, None, after=59.9) == Step("Failed")
        (delete,) = taken(vm, None, after=60.0).actions
        assert delete.reason == "ImageNotFound"

    def test_the_template_says_for_how_long(self) -> None:
        patient = TEMPLATE.model_copy(update={"failed_retention": type(TEMPLATE.failed_retention)("1h")})
        assert taken(make_vm(phase="Failed", template=patient), None, after=3599.0) == Step("Failed")

    def test_a_lost_one_whose_deletion_was_cut_short(self) -> None:
        (delete,) = taken(make_vm(phase="Lost", reason="DomainStopped"), "Off").actions
        assert delete.reason == "DomainStopped"


class TestDraining:
    """Nothing is stopped while requests may be in flight on it."""

    LEAVES = make_vm(deleting_since=EPOCH)
    DRAINS = make_vm(phase="Draining", deleting_since=EPOCH)

    def test_first_the_phase(self) -> None:
        (update,) = taken(self.LEAVES).actions
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Draining", "Deleted")

    def test_then_it_waits_for_what_is_in_flight(self) -> None:
        assert taken(self.DRAINS, after=29.0, balancer=in_flight(self.DRAINS)) == Step("Draining")

    def test_then_the_button(self) -> None:
        update, button = taken(self.DRAINS).actions
        assert button == ShutdownDomain(self.DRAINS, "Drained")
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Stopping", "Drained")

    def test_after_the_timeout_it_is_cut_off_first(self) -> None:
        """A session that sticks to it would otherwise meet a VM that is gone."""
        busy = in_flight(self.DRAINS)
        assert taken(self.DRAINS, after=30.0, balancer=busy) == Step("Draining")
        (update,) = taken(self.DRAINS, after=30.5, balancer=busy).actions
        assert isinstance(update, UpdateVM)
        assert (update.phase, update.reason) == ("Draining", DRAIN_TIMEOUT)

    def test_then_stopped_as_soon_as_nothing_is_in_flight(self) -> None:
        vm = replace(self.DRAINS, reason=DRAIN_TIMEOUT)
        assert taken(vm, after=31.0, balancer=in_flight(vm, "Disabled"), published="Disabled") == Step("Draining")
        closed = balancer_with({"vm-1": "Disabled"})
        assert taken(vm, after=32.0, balancer=closed, published="Disabled").actions[0].reason == "Drained"

    def test_or_a_little_later_all_the_same(self) -> None:
        vm, late = replace(self.DRAINS, reason=DRAIN_TIMEOUT), 30.0 + CUT_OFF_SECONDS
        assert taken(vm, after=late, balancer=in_flight(vm)) == Step("Draining")
        assert taken(vm, after=late + 0.5, balancer=in_flight(vm)).actions[0].reason == DRAIN_TIMEOUT

    def test_a_silent_balancer_is_waited_for_until_then(self) -> None:
        silent = BalancerReport(BALANCER, reachable=False)
        vm = replace(self.DRAINS, balancers=(BALANCER,), reason=DRAIN_TIMEOUT)
        unsure = {"balancer": silent, "closed": False}
        assert taken(vm, after=39.0 + SILENCE_SECONDS, **unsure) == Step("Draining")
        assert told(taken(vm, after=41.0 + SILENCE_SECONDS, **unsure)) == STOPS

    def test_the_clock_starts_with_the_draining_not_with_the_deletion(self) -> None:
        """Deleted while no operator was there: it still gets its time."""
        vm = replace(self.LEAVES, deleting_since=EPOCH - 3600)
        assert told(taken(vm)) == "Draining: Update"

    def test_a_balancer_that_has_not_carried_out_the_last_word_is_not_believed(self) -> None:
        """Disabled was the word of before; Enabled is on its way and will be seen a moment later."""
        stale = balancer_with({"vm-1": "Disabled"}, version="v1")
        assert told(taken(self.LEAVES, balancer=stale, published="Enabled", version="v2")) == "Draining: Update"
        vm = replace(self.DRAINS, phase_since=EPOCH)
        assert told(taken(vm, balancer=stale, published="Draining", version="v3")) == "Draining"
        unknown = balancer_with({}, version="v1")
        assert told(taken(vm, balancer=unknown, published="Draining", version="v3")) == "Draining"

    def test_one_that_has_is_believed(self) -> None:
        nobody: dict[str, MemberState] = {}
        closed: dict[str, MemberState] = {"vm-1": "Disabled"}
        for members in (nobody, closed):
            report = balancer_with(members, version="v3")
            step = taken(self.DRAINS, balancer=report, published="Draining", version="v3")
            assert told(step) == STOPS

    def test_what_a_silent_balancer_said_last_is_not_believed(self) -> None:
        stale = replace(balancer_with({"vm-1": "Draining"}), reachable=False)
        assert told(taken(self.DRAINS, balancer=stale)) == "Draining"

    def test_an_httpd_that_was_just_started_is_not_believed(self) -> None:
        blind = BalancerReport(BALANCER, reachable=True, ready=False)
        assert told(taken(self.DRAINS, balancer=blind)) == "Draining"

    def test_without_a_balancer_nothing_is_in_flight(self) -> None:
        observation = Observation(vms=(self.LEAVES,), hosts=hosts_with([self.LEAVES]))
        step = next_step(self.LEAVES, State(observation), DrainTimes(30.0, SILENCE_SECONDS, None), EPOCH)
        assert told(step) == STOPS

    def test_a_vm_that_is_enabled_already_is_drained_whatever_its_status_says(self) -> None:
        """Killed between the balancer's ConfigMap and the status: Booting, and yet it serves."""
        vm = make_vm(phase="Booting", deleting_since=EPOCH)
        assert told(taken(vm, published="Enabled")) == "Draining: Update"
        assert told(taken(vm, balancer=balancer_with({"vm-1": "Enabled"}))) == "Draining: Update"
        assert told(taken(vm)) == STOPS

    @pytest.mark.parametrize("phase", ["Pending", "Provisioning", "Booting", "Failed"])
    def test_those_that_never_served_need_not_drain(self, phase: Phase) -> None:
        vm = make_vm(phase=phase, deleting_since=EPOCH)
        assert not must_drain(vm, State(Observation(vms=(vm,), hosts=hosts_with([vm]))))
        assert taken(vm).actions[0].reason == "NeverServed"


class TestStopping:
    """From the button to nothing."""

    VM = make_vm(phase="Stopping", deleting_since=EPOCH)

    def test_the_guest_gets_its_grace(self) -> None:
        assert taken(self.VM, "ShuttingDown", after=29.0) == Step("Stopping")

    def test_then_the_plug_is_pulled(self) -> None:
        step = taken(self.VM, "ShuttingDown", after=30.0)
        assert told(step) == "Stopping: Destroy"
        assert step.actions[0].reason == "GracePeriodOver"

    def test_a_paused_one_cannot_hear_the_button(self) -> None:
        assert told(taken(self.VM, "Paused", after=30.0)) == "Stopping: Destroy"

    def test_off_is_removed_then_let_go(self) -> None:
        remove, release = taken(self.VM, "Off").actions
        assert remove == RemoveDomain(self.VM, "DomainOff")
        assert release.reason == "NothingLeft"

    def test_a_silent_host_does_not_turn_it_back(self) -> None:
        assert taken(self.VM, silent=True, after=10_000.0) == Step("Stopping")


def test_every_action_has_a_reason() -> None:
    """Over all states of the tables above."""
    for phase in LIVING:
        for domain in SEEN:
            for since in (None, EPOCH):
                step = taken(make_vm(phase=phase, deleting_since=since), domain)
                assert all(action.reason for action in step.actions)
