"""`python -m bench.support.plans CASE RUNS`: processor seconds of plans, one number a run, as a line of JSON.

Runs in a process of its own, under whichever `luban` stands first in PYTHONPATH, so that two versions of the
decisions are measured alike. It uses only what both have.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from luban.api.cluster import LubanClusterSpec
from luban.core.memory import ClusterMemory
from luban.core.model import (
    BalancerReport,
    CreateVM,
    DeleteVM,
    DomainRecord,
    HostObservation,
    Member,
    MemberReport,
    Observation,
    Plan,
    Published,
    VMRecord,
)
from luban.core.plan import plan
from luban.core.times import Now

HOSTS = 64
CLUSTER, BALANCER = "bench", "bench-balancer-0"
START = 1000.0
LOOKS = 15
"""Plans at rest, a second apart: one of them asks the policy."""


def spec_for(least: int, most: int, *, policy: str) -> LubanClusterSpec:
    """64 hosts with room for all. Numbers above what the API takes are put in afterwards."""
    spec = LubanClusterSpec.model_validate(
        {
            "hosts": [
                {"name": f"h{number}", "uri": f"qemu+tls://h{number}/system", "vms": {"min": 0, "max": 1000}}
                for number in range(HOSTS)
            ],
            "template": {"spec": {"image": {"volume": "web.qcow2"}}},
            "scaling": {"policy": policy},
        }
    )
    scaling = spec.scaling.model_copy(update={"min_vms": least, "max_vms": most})
    return spec.model_copy(update={"scaling": scaling, "replicas": least})


def ready_vms(spec: LubanClusterSpec, count: int) -> tuple[VMRecord, ...]:
    """VMs that serve, spread over the hosts, of the spec's own template."""
    return tuple(
        VMRecord(
            name=f"vm-{number:05d}",
            uid=f"uid-{number}",
            host=f"h{number % HOSTS}",
            host_uri=f"qemu+tls://h{number % HOSTS}/system",
            template=spec.template.spec,
            created=float(number),
            phase="Ready",
            address=f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}",
            balancers=(BALANCER,),
            was_ready=True,
        )
        for number in range(count)
    )


def seen(vms: tuple[VMRecord, ...]) -> Observation:
    """What is observed of them: those that are ready run, serve and are half idle."""
    ready = [vm for vm in vms if vm.phase == "Ready"]
    domains: dict[str, dict[str, DomainRecord]] = {f"h{number}": {} for number in range(HOSTS)}
    for vm in ready:
        domains[vm.host][vm.uid] = DomainRecord(vm.uid, vm.name, "Running", vm.address)
    reports = tuple(MemberReport(vm.name, "Enabled", vm.address, 8080) for vm in ready)
    members = tuple(Member(vm.name, vm.address, 8080, "Enabled") for vm in ready)
    return Observation(
        vms=vms,
        hosts=tuple(HostObservation(name, True, "", found) for name, found in domains.items()),
        balancers=(BalancerReport(BALANCER, True, True, "v1", "", reports),),
        probes={vm.name: True for vm in ready},
        sessions={vm.name: 30 for vm in ready},
        published={BALANCER: Published("", "v1", members)},
    )


def timed(spec: LubanClusterSpec, observation: Observation, memory: ClusterMemory, now: float) -> tuple[float, Plan]:
    """A plan, and the processor seconds that it took."""
    start = time.process_time()
    made = plan(spec, CLUSTER, observation, memory, Now(now, now))
    return time.process_time() - start, made


def at_rest(count: int) -> float:
    """One plan of a cluster in which nothing happens: the mean of plans a second apart."""
    spec = spec_for(count, count, policy="Sessions")
    observation, memory, spent = seen(ready_vms(spec, count)), ClusterMemory(desired=count), 0.0
    memory = plan(spec, CLUSTER, observation, memory, Now(START, START)).memory
    for look in range(1, LOOKS + 1):
        seconds, made = timed(spec, observation, memory, START + look)
        if made.actions:
            raise SystemExit(f"not at rest: {made.actions[0]}")
        spent, memory = spent + seconds, made.memory
    return spent / LOOKS


def arrivals(count: int) -> float:
    """From nothing to so many VMs: as many plans as it takes, each told what those before it created."""
    spec, vms = spec_for(count, count, policy="Manual"), dict[str, VMRecord]()
    memory, spent, now = ClusterMemory(), 0.0, START
    while len(vms) < count:
        seconds, made = timed(spec, seen(tuple(vms.values())), memory, now)
        created = [it for it in made.actions if isinstance(it, CreateVM)]
        vms |= {it.name: _record(spec, it, now) for it in created}
        spent, memory, now = spent + seconds, made.memory, now + 1.0
    return spent


def _record(spec: LubanClusterSpec, it: CreateVM, now: float) -> VMRecord:
    return VMRecord(it.name, f"uid-{it.name}", it.host, it.host_uri, spec.template.spec, now)


def departures(count: int) -> float:
    """Half of so many VMs leave: as many plans as it takes, each told whom those before it asked to leave."""
    spec, left = spec_for(count // 2, count, policy="Manual"), count // 2
    vms = {vm.name: vm for vm in ready_vms(spec, count)}
    memory, spent, now = ClusterMemory(desired=count), 0.0, START
    while left > 0:
        seconds, made = timed(spec, seen(tuple(vms.values())), memory, now)
        leaving = [it.name for it in made.actions if isinstance(it, DeleteVM)]
        vms |= {name: replace(vms[name], deleting_since=now) for name in leaving}
        spent, memory, now, left = spent + seconds, made.memory, now + 1.0, left - len(leaving)
    return spent


CASES: dict[str, Callable[[int], float]] = {"rest": at_rest, "arrivals": arrivals, "departures": departures}


def main(case: str, count: str, runs: str) -> None:
    """Measure and write the line."""
    seconds = [CASES[case](int(count)) for _ in range(int(runs))]
    sys.stdout.write(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
