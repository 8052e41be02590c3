"""Hundreds of VMs that come or go: all in one plan, and twice as many cost twice as much."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest

from luban.api.cluster import LubanClusterSpec
from luban.core.memory import ClusterMemory
from luban.core.model import CreateVM, DeleteVM, Observation, Plan, VMRecord
from luban.core.plan import plan
from luban.core.times import Now
from tests.fakes.simulator import CLUSTER, EPOCH, balancer_with, hosts_with, make_spec, make_vm

HOSTS = [f"host-{number:02d}" for number in range(16)]


def spec_for(wanted: int, most: int, **scaling: Any) -> LubanClusterSpec:
    hosts = [{"name": name, "vms": {"min": 1, "max": 100}} for name in HOSTS]
    scaling = {"policy": "Manual", "minVMs": 1, "maxVMs": most, **scaling}
    return make_spec(hosts, replicas=wanted, scaling=scaling)


def planned(spec: LubanClusterSpec, vms: list[VMRecord]) -> Plan:
    ready = {vm.name: "Enabled" for vm in vms if vm.phase == "Ready"}
    states = {vm.name: None for vm in vms if vm.phase == "Pending"}
    seen = Observation(
        vms=tuple(vms),
        hosts=hosts_with(vms, states, names=HOSTS),
        balancers=(balancer_with(ready),),
        probes=dict.fromkeys(ready, True),
        sessions={name: number % 50 for number, name in enumerate(ready)},
    )
    return plan(spec, CLUSTER, seen, ClusterMemory(desired=max(1, len(vms))), Now(EPOCH, EPOCH))


def some(count: int, phase: Any = "Ready") -> list[VMRecord]:
    return [make_vm(f"vm-{number:03d}", phase, HOSTS[number % 16]) for number in range(count)]


def arrivals(count: int) -> Plan:
    return planned(spec_for(count, count), [])


def departures(count: int) -> Plan:
    return planned(spec_for(count, 2 * count), some(2 * count))


def lowered(count: int) -> Plan:
    """Half of those that wait for their start must not start any more."""
    return planned(spec_for(count, count), some(2 * count, "Pending"))


def test_all_that_are_missing_come_in_one_plan() -> None:
    created = [it for it in arrivals(320).actions if isinstance(it, CreateVM)]
    assert len({it.name for it in created}) == 320
    assert set(Counter(it.host for it in created).values()) == {20}


@pytest.mark.parametrize("many", [departures, lowered])
def test_all_that_are_too_many_leave_in_one_plan(many: Any) -> None:
    leaving = {it.name for it in many(160).actions if isinstance(it, DeleteVM)}
    assert len(leaving) == 160
    left = Counter(vm.host for vm in some(320) if vm.name not in leaving)
    assert set(left.values()) == {10}


def calls(make: Any, count: int) -> int:
    """How many functions are called, those of the language included."""
    number = 0

    def count_one(_: FrameType, event: str, __: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count_one)
    try:
        make(count)
    finally:
        sys.setprofile(None)
    return number


@pytest.mark.parametrize("many", [arrivals, departures, lowered])
def test_twice_as_many_cost_twice_as_much(many: Any) -> None:
    """What looks at all VMs for each that comes or goes would cost four times as much."""
    assert calls(many, 400) < 2.2 * calls(many, 200)
