"""Who leaves when a Rules policy shrinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from luban.core.figures import Figures
from luban.core.memory import ClusterMemory, Entered
from luban.core.model import DeleteVM, Observation
from luban.core.plan import plan
from luban.core.times import Now
from tests.fakes.simulator import CLUSTER, EPOCH, balancer_with, hosts_with, make_spec, make_vm, published_with

HOSTS = [{"name": "host-b", "vms": {"min": 0}}, {"name": "host-c", "vms": {"min": 0}}]
RULES = [{"metric": "CPU", "max": 90, "min": 50}]
LOADS = {"vm-1": 10.0, "vm-2": 20.0, "vm-3": 15.0, "vm-4": 40.0}
VMS = (*(make_vm(name) for name in ("vm-1", "vm-2", "vm-3")), make_vm("vm-4", host="host-c"))


def leaving(
    loads: Mapping[str, float] = LOADS,
    *,
    hosts: Sequence[dict[str, Any]] = HOSTS,
    ready_since: Mapping[str, float] | None = None,
    **scaling: Any,
) -> list[str]:
    """Who is asked to leave, if the window has no length and all have been ready for long."""
    vms, ready = VMS, {vm.name: EPOCH - 100 for vm in VMS} | dict(ready_since or {})
    members = {vm.name: "Enabled" for vm in vms}
    observation = Observation(
        vms=vms,
        hosts=hosts_with(vms),
        balancers=(balancer_with(members),),  # type: ignore[arg-type]
        published=published_with(members),  # type: ignore[arg-type]
        probes={vm.name: True for vm in vms},
        sessions={vm.name: 10 for vm in vms} | {"vm-3": 1},
        figures={name: Figures(cpu=load, since=EPOCH) for name, load in loads.items()},
    )
    usual = {
        "policy": "Rules",
        "rules": RULES,
        "minVMs": 1,
        "behavior": {"scaleDown": {"stabilizationWindow": "0s"}},
    }
    spec = make_spec(hosts, scaling={**usual, **scaling})
    memory = ClusterMemory(desired=len(vms), entered={name: Entered("Ready", since) for name, since in ready.items()})
    made = plan(spec, CLUSTER, observation, memory, Now(EPOCH, EPOCH))
    return [it.name for it in made.actions if isinstance(it, DeleteVM)]


def test_the_most_loaded_of_all_hosts() -> None:
    assert leaving() == ["vm-4"]


def test_not_from_a_host_at_its_minimum() -> None:
    assert leaving(hosts=[HOSTS[0], {"name": "host-c", "vms": {"min": 1}}]) == ["vm-2"]


def test_least_sessions_on_the_fullest_host_if_the_user_says_so() -> None:
    assert leaving(victim="LeastSessions") == ["vm-3"]


def test_with_other_policies_sessions_say_it() -> None:
    target = {"policy": "Target", "target": {"percent": 29}}
    assert leaving(**target) == ["vm-3"]


def test_figures_from_before_a_vm_was_ready_do_not_count() -> None:
    """What it used to boot is no load: it is unknown, and so nobody leaves."""
    assert leaving(ready_since={"vm-4": EPOCH + 1}) == []


@pytest.mark.parametrize("missing", sorted(LOADS))
def test_nobody_while_a_load_is_unknown(missing: str) -> None:
    assert leaving(loads={name: load for name, load in LOADS.items() if name != missing}) == []
