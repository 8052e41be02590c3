"""Conditions name the thing and the figure; the phase sums them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from luban.api.cluster import BondPolicy
from luban.api.cluster_status import Decision, Placement
from luban.core.conditions import LEAVING, MISSES_TOLERATED, NO_ROOM, Situation, conditions_of, hosts_allowed, phase_of
from luban.core.left_out import Refusal
from luban.core.model import (
    BalancerReport,
    BondObservation,
    ConditionState,
    DomainState,
    Failure,
    HostObservation,
    MemberState,
    Observation,
    VMRecord,
)
from luban.core.state import State
from tests.fakes.simulator import BALANCER, EPOCH, balancer_with, hosts_with, make_vm, published_with

HOLD = Decision(at="", verdict="Hold", reason="WithinBand", message="vm-1 is at 41 %")
FULL = Decision(at="", verdict="AtMaximum", reason="MaxVMs", message="vm-1 is at 80 %, but maxVMs 6 is reached")
ORDER = ["Ready", "HostsReachable", "VMsHealthy", "BalancersReady", "LoadKnown", "BondsHealthy", "AtMaximum"]
HOSTS = ("host-b", "host-c")
VMS = (make_vm("vm-1"), make_vm("vm-2", host="host-c"))


def state_of(
    vms: Iterable[VMRecord] = VMS,
    *,
    silent: Iterable[str] = (),
    balancer: BalancerReport | None = None,
    states: Mapping[str, DomainState | None] | None = None,
    **seen: Any,
) -> State:
    """Two VMs that serve, and whatever is different from that."""
    vms = tuple(vms)
    enabled: dict[str, MemberState] = {vm.name: "Enabled" for vm in vms if vm.phase == "Ready"}
    sessions = dict.fromkeys(enabled, 40)
    observation = Observation(
        vms=vms,
        balancers=(balancer or balancer_with(enabled),),
        **{
            "hosts": hosts_with(vms, states, silent=silent),
            "sessions": sessions,
            "published": published_with(enabled),
            "bonds": dict.fromkeys(HOSTS, BondObservation("Healthy")),
            **seen,
        },
    )
    return State(observation)


def situation(state: State, decision: Decision, desired: int, **more: Any) -> Situation:
    """All is well, but for what is given."""
    usual: dict[str, Any] = {
        "misses": {},
        "policy": "Ignore",
        "hosts": (),
        "missing": 0,
        "outdated": 0,
        "placement": None,
        "strays": (),
        "setbacks": {},
        "paused": False,
        "unmeasured": None,
        "tier": None,
        "pool": None,
    }
    return Situation(state=state, decision=decision, desired=desired, **usual | more)


def found(
    state: State,
    *,
    desired: int = 2,
    decision: Decision = HOLD,
    misses: dict[str, int] | None = None,
    policy: BondPolicy = "Prefer",
) -> dict[str, ConditionState]:
    conditions = conditions_of(situation(state, decision, desired, misses=misses or {}, policy=policy, hosts=HOSTS))
    assert [it.type for it in conditions] == ORDER
    assert all(it.reason for it in conditions)
    return {it.type: it for it in conditions}


def phase(state: State, *, desired: int = 2) -> str:
    return phase_of(state, desired, conditions_of(situation(state, HOLD, desired)))


def test_all_is_well() -> None:
    conditions = found(state_of())
    assert {name: it.status for name, it in conditions.items()} == dict.fromkeys(ORDER, True) | {"AtMaximum": False}
    assert conditions["Ready"].message == "2 of 2 VMs answer"
    assert phase(state_of()) == "Ready"


class TestReady:
    def test_one_is_missing(self) -> None:
        assert found(state_of(), desired=3)["Ready"] == ConditionState("Ready", False, "Starting", "2 of 3 VMs answer")

    def test_more_than_wanted_is_ready(self) -> None:
        assert found(state_of(), desired=1)["Ready"].status is True

    def test_what_is_broken_is_why(self) -> None:
        ready = found(state_of(silent=["host-c"]), desired=3)["Ready"]
        assert (ready.status, ready.reason) == (False, "HostUnreachable")
        assert ready.message == "2 of 3 VMs answer: host-c: no answer"

    def test_an_unknown_load_is_not(self) -> None:
        assert found(state_of(sessions={}), desired=3)["Ready"].reason == "Starting"

    def test_no_room_is_why_where_nothing_is_broken(self) -> None:
        ready = conditions_of(situation(state_of(), HOLD, 4, missing=2))[0]
        assert (ready.reason, ready.message) == ("NoRoom", f"2 of 4 VMs answer: {NO_ROOM.format(2, LEAVING)}")
        assert conditions_of(situation(state_of(silent=["host-c"]), HOLD, 4, missing=2))[0].reason == "HostUnreachable"

    def test_no_room_says_why_host_by_host(self) -> None:
        nowhere = Placement(host="", reason="NoRoom", message="nowhere; not host-b: it is cordoned")
        ready = conditions_of(situation(state_of(), HOLD, 4, missing=2, placement=nowhere))[0]
        assert ready.message == "2 of 4 VMs answer: no room for 2 more; next VM: nowhere; not host-b: it is cordoned"

    def test_paused_is_why_nothing_is_done_about_it(self) -> None:
        ready = conditions_of(situation(state_of(), HOLD, 3, missing=1, paused=True))[0]
        assert (ready.status, ready.reason) == (False, "Paused")
        assert ready.message.startswith("2 of 3 VMs answer; spec.paused is set: nothing is made")
        assert conditions_of(situation(state_of(), HOLD, 2, paused=True))[0].status is True

    def test_no_room_is_no_progress(self) -> None:
        """Unless something is on its way out, which makes room."""
        conditions = conditions_of(situation(state_of(), HOLD, 3, missing=1))
        assert phase_of(state_of(), 3, conditions) == "Degraded"
        leaving = make_vm("vm-9", "Draining", deleting_since=EPOCH)
        assert phase_of(state_of((*VMS, leaving)), 3, conditions) == "Progressing"

    def test_a_cluster_that_is_deleted_is_never_ready(self) -> None:
        decision = Decision(at="", verdict="Hold", reason="Deleting", message="2 VMs left")
        ready = found(state_of(), desired=0, decision=decision)["Ready"]
        assert ready == ConditionState("Ready", False, "Deleting", "2 VMs left")


class TestHosts:
    def test_each_silent_host_is_named(self) -> None:
        condition = found(state_of(silent=["host-b", "host-c"]))["HostsReachable"]
        assert condition == ConditionState(
            "HostsReachable", False, "HostUnreachable", "host-b: no answer; host-c: no answer"
        )

    def test_one_that_may_not_be_used_is_told_of_apart_and_explains_what_is_missing(self) -> None:
        refusal = Refusal("NamespaceNotAllowed", "LubanHost host-b is not for namespace default: take another host")
        unasked = HostObservation("host-b", reachable=False, refusal=refusal)
        state = state_of(hosts=(unasked, *hosts_with([], names=["host-c"])), vms=())
        assert hosts_allowed(state) == ConditionState(
            "HostsAllowed", False, "NamespaceNotAllowed", f"host-b: {refusal.message}"
        )
        conditions = found(state, desired=1)
        assert conditions["HostsReachable"].status is True
        assert conditions["Ready"].reason == "NamespaceNotAllowed"
        silent = replace(unasked, message="no answer")
        assert found(state_of(hosts=(silent,)))["HostsReachable"].message == "host-b: no answer"
        assert hosts_allowed(state_of()).status is True

    def test_one_that_may_not_be_used_makes_the_cluster_degraded(self) -> None:
        refusal = Refusal("PoolNotAllowed", "LubanHost host-c does not offer storage pool default")
        hosts = tuple(replace(it, refusal=refusal) for it in hosts_with(VMS))
        state = state_of(hosts=hosts)
        assert phase_of(state, 2, conditions_of(situation(state, HOLD, 2))) == "Degraded"


class TestVMs:
    FAILED = make_vm("vm-9", "Failed", reason="StartupTimeout", message="no answer within 5m")

    def test_a_failed_one_says_why(self) -> None:
        condition = found(state_of((*VMS, self.FAILED)))["VMsHealthy"]
        assert condition.reason == "StartupTimeout"
        assert condition.message == "vm-9 on host-b: no answer within 5m"

    def test_one_that_left_is_not_held_against_us(self) -> None:
        gone = make_vm("vm-9", "Failed", deleting_since=EPOCH)
        assert found(state_of((*VMS, gone)))["VMsHealthy"].status is True

    def test_one_that_is_tried_again_and_again_says_why(self) -> None:
        trying = make_vm("vm-9", "Provisioning")
        failures = {"vm-9": Failure("StoragePoolFull", "pool default is full", permanent=False)}
        condition = found(state_of((*VMS, trying), provision_failures=failures))["VMsHealthy"]
        assert (condition.reason, condition.message) == ("StoragePoolFull", "vm-9 on host-b: pool default is full")

    def test_a_failure_that_is_over_is_not(self) -> None:
        failures = {"vm-1": Failure("StoragePoolFull", "pool default is full", permanent=False)}
        assert found(state_of(provision_failures=failures))["VMsHealthy"].status is True

    def test_silence_is_tolerated_for_a_while(self) -> None:
        assert found(state_of(), misses={"vm-1": MISSES_TOLERATED - 1})["VMsHealthy"].status is True
        condition = found(state_of(), misses={"vm-1": MISSES_TOLERATED, "vm-2": 1})["VMsHealthy"]
        assert condition.reason == "NotAnswering"
        assert condition.message.startswith("vm-1: no answer")


class TestBalancers:
    def test_one_that_nobody_has_told_anything_is_no_alarm(self) -> None:
        report = balancer_with({}, ready=False, message="ConfigMap luban-balancer-0 is not there")
        condition = found(state_of(balancer=report, published={}))["BalancersReady"]
        assert (condition.status, condition.reason) == (None, "NotPublishedYet")

    def test_one_that_does_not_answer(self) -> None:
        report = BalancerReport(BALANCER, reachable=False, message="connection refused")
        condition = found(state_of(balancer=report))["BalancersReady"]
        assert condition.reason == "BalancerUnreachable"
        assert condition.message == f"{BALANCER}: connection refused"

    def test_one_that_refuses_its_configuration_in_its_own_words(self) -> None:
        report = balancer_with({}, ready=False, message="Syntax error on line 7")
        condition = found(state_of(balancer=report))["BalancersReady"]
        assert condition.reason == "ConfigurationNotInForce"
        assert condition.message == f"{BALANCER}: Syntax error on line 7"

    def test_one_that_gives_no_words(self) -> None:
        assert found(state_of(balancer=balancer_with({}, ready=False)))["BalancersReady"].message.endswith(
            "not ready yet"
        )


class TestLoad:
    def test_unknown_ones_are_named(self) -> None:
        condition = found(state_of(sessions={"vm-1": 5}))["LoadKnown"]
        assert condition == ConditionState("LoadKnown", False, "SessionsUnknown", "sessions of vm-2 are unknown")

    def test_one_that_does_not_serve_needs_no_load(self) -> None:
        assert found(state_of((*VMS, make_vm("vm-9", "Booting"))))["LoadKnown"].status is True


class TestBonds:
    @staticmethod
    def judged(policy: BondPolicy = "Prefer", **bonds: BondObservation) -> ConditionState:
        named = {name.replace("_", "-"): bond for name, bond in bonds.items()}
        return found(state_of(bonds=named), policy=policy)["BondsHealthy"]

    @pytest.mark.parametrize("verdict", ["Healthy", "Recovering", "None"])
    def test_sound_ones(self, verdict: str) -> None:
        good = BondObservation(verdict)
        assert self.judged(host_b=good, host_c=good) == ConditionState("BondsHealthy", True, "AllHealthy")

    def test_where_one_is_required_none_is_not_sound(self) -> None:
        none = BondObservation("None", "node host-c has no bond")
        condition = self.judged("Require", host_b=BondObservation("Healthy"), host_c=none)
        assert (condition.status, condition.reason) == (False, "None")
        assert condition.message == (
            "host-c: node host-c has no bond, and bondPolicy Require places no VM there: "
            "name one in hosts[].bond, or take Prefer"
        )

    def test_an_impaired_one_is_named_with_the_agents_words(self) -> None:
        bad = BondObservation("LACPTimeout", "bond0: eth2 has not heard its partner")
        state = state_of(bonds={"host-b": BondObservation("Unknown", "stale"), "host-c": bad})
        condition = found(state)["BondsHealthy"]
        assert (condition.status, condition.reason) == (False, "LACPTimeout")
        assert condition.message == "host-c: bond0: eth2 has not heard its partner"
        assert phase(state) == "Ready", "an impaired bond is no impaired service"

    def test_a_host_that_nobody_reports_of(self) -> None:
        condition = self.judged(host_b=BondObservation("Healthy"))
        assert (condition.status, condition.reason) == (None, "NoReport")
        assert condition.message == "host-c: no node agent has reported"

    def test_a_stale_report(self) -> None:
        stale = BondObservation("Unknown", "the last report is 200 s old")
        condition = self.judged(host_b=BondObservation("Healthy"), host_c=stale)
        assert (condition.status, condition.message) == (None, "host-c: the last report is 200 s old")

    def test_bonds_that_do_not_count(self) -> None:
        condition = self.judged("Ignore", host_b=BondObservation("Down"))
        assert (condition.status, condition.reason) == (None, "Ignored")


def test_at_maximum_repeats_the_decision() -> None:
    condition = found(state_of(), decision=FULL)["AtMaximum"]
    assert condition == ConditionState("AtMaximum", True, "MaxVMs", FULL.message)


class TestPhase:
    def test_pending_while_nothing_serves(self) -> None:
        assert phase(state_of(())) == "Pending"
        assert phase(state_of((make_vm("vm-1", "Booting"),))) == "Pending"

    @pytest.mark.parametrize("vms", [(*VMS, make_vm("vm-9", "Booting")), (*VMS, make_vm("vm-9", deleting_since=EPOCH))])
    def test_progressing_while_something_comes_or_goes(self, vms: tuple[VMRecord, ...]) -> None:
        assert phase(state_of(vms)) == "Progressing"

    def test_progressing_while_the_number_is_not_reached(self) -> None:
        assert phase(state_of(), desired=3) == "Progressing"
        assert phase(state_of(), desired=1) == "Progressing"

    def test_degraded_while_something_is_broken(self) -> None:
        assert phase(state_of(silent=["host-c"])) == "Degraded"
        assert phase(state_of((*VMS, TestVMs.FAILED))) == "Degraded"
        assert phase(state_of(balancer=BalancerReport(BALANCER, reachable=False))) == "Degraded"

    def test_an_unknown_load_degrades_nothing(self) -> None:
        assert phase(state_of(sessions={})) == "Ready"
