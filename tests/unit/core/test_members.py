"""What the balancers are told about each VM."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from luban.api.cluster import LubanClusterSpec
from luban.api.vm import Phase
from luban.core.lifecycle import Step
from luban.core.members import member_state, publications, wanted_members
from luban.core.model import (
    DomainRecord,
    HostObservation,
    Member,
    MemberState,
    Observation,
    PublishBalancer,
    Published,
    VMRecord,
)
from luban.core.state import State
from luban.core.steps import Steps
from tests.fakes.simulator import BALANCER, EPOCH, address_of, balancer_with, hosts_with, make_spec, make_vm

STAYS = {
    "Provisioning": "Disabled",
    "Booting": "Disabled",
    "Paused": "Disabled",
    "Ready": "Enabled",
    "Draining": "Draining",
    "Warm": "Disabled",
    "Resuming": "Disabled",
}
LEAVES = {"Ready": "Draining", "Draining": "Draining", "Stopping": "Disabled"}


def members(
    *vms: VMRecord,
    spec: LubanClusterSpec | None = None,
    phases: dict[str, Phase] | None = None,
    leaving: tuple[str, ...] = (),
    current: tuple[Member, ...] = (),
    sessions: dict[str, int] | None = None,
) -> dict[str, Member]:
    """The members of a balancer that was told `current` before, by name."""
    report = balancer_with({vm.name: "Enabled" for vm in vms if vm.phase == "Ready"})
    observation = Observation(vms=vms, hosts=hosts_with(vms), balancers=(report,), sessions=sessions or {})
    found = wanted_members(
        spec or make_spec(),
        State(observation),
        steps({vm.name: vm.phase for vm in vms} | (phases or {})),
        frozenset(leaving),
        {member.name: member for member in current},
    )
    assert [it.name for it in found] == sorted(it.name for it in found)
    return {it.name: it for it in found}


def steps(phases: dict[str, Phase]) -> Steps:
    """Steps that lead to these phases."""
    return Steps({name: Step(phase) for name, phase in phases.items()})


def enabled(name: str, factor: int) -> Member:
    return Member(name, address_of(name), 8080, "Enabled", factor)


class TestStates:
    """By phase, and by whether it leaves."""

    @pytest.mark.parametrize("phase", get_args(Phase))
    def test_one_that_stays(self, phase: Phase) -> None:
        stays = STAYS | {"Stopping": "Disabled"}
        assert member_state(make_vm(phase=phase), phase, leaving=False, cut_off=False) == stays.get(phase)

    @pytest.mark.parametrize("phase", get_args(Phase))
    def test_one_that_leaves(self, phase: Phase) -> None:
        vm = make_vm(phase=phase, deleting_since=EPOCH)
        assert member_state(vm, phase, leaving=False, cut_off=False) == LEAVES.get(phase)

    @pytest.mark.parametrize("phase", get_args(Phase))
    def test_one_that_is_asked_to_leave_now(self, phase: Phase) -> None:
        """At once, in the same plan: not a request more than needed."""
        assert member_state(make_vm(phase=phase), phase, leaving=True, cut_off=False) == LEAVES.get(phase)

    def test_one_that_drained_for_too_long_gets_nothing_at_all(self) -> None:
        vm = make_vm(phase="Draining", deleting_since=EPOCH)
        assert member_state(vm, "Draining", leaving=False, cut_off=True) == "Disabled"

    def test_one_that_was_never_ready_does_not_come_back_to_be_stopped(self) -> None:
        vm = make_vm(phase="Stopping", deleting_since=EPOCH, was_ready=False)
        assert member_state(vm, "Stopping", leaving=False, cut_off=False) is None


class TestMembers:
    """Name, address, port."""

    def test_the_phase_of_this_plan_counts(self) -> None:
        vm = make_vm(phase="Booting")
        assert members(vm)["vm-1"].state == "Disabled"
        assert members(vm, phases={"vm-1": "Ready"})["vm-1"].state == "Enabled"

    def test_nobody_without_an_address(self) -> None:
        vm = make_vm(phase="Booting", address="")
        observation = Observation(vms=(vm,), hosts=hosts_with([vm], {"vm-1": None}))
        assert wanted_members(make_spec(), State(observation), steps({"vm-1": "Booting"}), frozenset(), {}) == ()

    def test_a_planned_address_is_listed_before_there_is_a_domain(self) -> None:
        vm = make_vm(phase="Provisioning", planned_address="127.0.17.2")
        observation = Observation(vms=(vm,), hosts=hosts_with([vm], {"vm-1": None}))
        (member,) = wanted_members(make_spec(), State(observation), steps({"vm-1": "Provisioning"}), frozenset(), {})
        assert (member.address, member.state) == ("127.0.17.2", "Disabled")

    def test_a_vm_on_a_silent_host_stays_a_member(self) -> None:
        vm = make_vm()
        observation = Observation(vms=(vm,), hosts=hosts_with([vm], silent=["host-b"]))
        (member,) = wanted_members(make_spec(), State(observation), steps({"vm-1": "Ready"}), frozenset(), {})
        assert (member.address, member.state) == (address_of("vm-1"), "Enabled")

    def test_the_port_is_the_vms_own_not_the_specs(self) -> None:
        """While a template with another port is rolled out, the old VMs still serve on the old one."""
        assert members(make_vm(), spec=make_spec(template={"port": 9000}))["vm-1"].port == 8080


class TestLoadFactors:
    """Static and adaptive shares."""

    ADAPTIVE = make_spec(balancer={"loadFactors": "Adaptive"})
    TWO = (make_vm("vm-1"), make_vm("vm-2"))

    def test_static_is_one_for_all(self) -> None:
        found = members(*self.TWO, sessions={"vm-1": 90, "vm-2": 0})
        assert {it.load_factor for it in found.values()} == {1}

    def test_adaptive_follows_the_sessions(self) -> None:
        found = members(*self.TWO, spec=self.ADAPTIVE, sessions={"vm-1": 75, "vm-2": 50})
        assert {name: it.load_factor for name, it in found.items()} == {"vm-1": 50, "vm-2": 100}

    def test_the_smallest_change_is_not_published(self) -> None:
        current = (enabled("vm-1", 55), enabled("vm-2", 100))
        found = members(*self.TWO, spec=self.ADAPTIVE, current=current, sessions={"vm-1": 75, "vm-2": 50})
        assert tuple(found.values()) == current

    def test_one_that_comes_in_gets_a_full_share_before_its_sessions_are_known(self) -> None:
        """It was published as Disabled with factor 1; that was no share to keep."""
        current = (enabled("vm-1", 100), Member("vm-2", address_of("vm-2"), 8080, "Disabled", 1))
        found = members(*self.TWO, spec=self.ADAPTIVE, current=current, sessions={"vm-1": 40})
        assert {name: it.load_factor for name, it in found.items()} == {"vm-1": 100, "vm-2": 100}

    def test_those_that_take_no_requests_have_none(self) -> None:
        vms = (make_vm("vm-1"), make_vm("vm-2", "Booting"), make_vm("vm-3", "Draining", deleting_since=EPOCH))
        found = members(*vms, spec=self.ADAPTIVE, sessions={"vm-1": 40, "vm-3": 40})
        assert {name: it.load_factor for name, it in found.items()} == {"vm-1": 100, "vm-2": 1, "vm-3": 1}


class TestAddresses:
    """Never one address for two VMs: a probe of the one would be answered by the other."""

    def two(self, **seen: str) -> dict[str, Member]:
        vms = [replace(make_vm(f"vm-{index}"), address="10.9.9.9", created=EPOCH + index) for index in (1, 2)]
        domains = {vm.uid: DomainRecord(vm.uid, vm.name, "Running", seen.get(vm.name[-1:], "")) for vm in vms}
        hosts = (HostObservation("host-b", True, domains=domains),)
        found = wanted_members(
            make_spec(),
            State(Observation(tuple(vms), hosts)),
            steps({"vm-1": "Ready", "vm-2": "Ready"}),
            frozenset(),
            {},
        )
        return {it.name: it for it in found}

    def test_the_one_that_is_seen_with_it_has_it(self) -> None:
        assert set(self.two(**{"1": "10.9.9.9"})) == {"vm-1"}
        assert set(self.two(**{"2": "10.9.9.9"})) == {"vm-2"}

    def test_else_the_younger_one(self) -> None:
        assert set(self.two()) == {"vm-2"}
        assert set(self.two(**{"1": "10.9.9.9", "2": "10.9.9.9"})) == {"vm-2"}

    def test_one_that_was_seen_elsewhere_gives_it_back(self) -> None:
        assert {name: it.address for name, it in self.two(**{"1": "10.9.9.8"}).items()} == {
            "vm-1": "10.9.9.8",
            "vm-2": "10.9.9.9",
        }


class TestStrangers:
    """Members that no LubanVM stands for, while VMs are missing."""

    @pytest.mark.parametrize(
        ("state", "in_flight", "stays"), [("Enabled", 0, True), ("Draining", 1, True), ("Draining", 0, False)]
    )
    def test_one_stays_for_as_long_as_it_serves_somebody(self, state: MemberState, in_flight: int, stays: bool) -> None:
        stranger = Member("stranger", address_of("stranger"), 8080, state)
        report = balancer_with({"stranger": state})
        members = tuple(
            replace(it, in_flight=in_flight, drained=state != "Enabled" and not in_flight) for it in report.members
        )
        published = {BALANCER: Published("", "v1", (stranger,))}
        observation = Observation(balancers=(replace(report, members=members),), published=published)
        written = publications(make_spec(), State(observation), Steps({}), desired=1)
        told = written[0].members if written and isinstance(written[0], PublishBalancer) else (stranger,)
        assert (stranger in told) == stays
