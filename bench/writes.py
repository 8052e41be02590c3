"""How often the operator writes a status: for each phase that a VM goes through, and in a minute without any.

The set-up is that of the benchmark `rest`, smaller: a real API server, real libvirt daemons with simulated domains
(bench.support.fleet). Guests that boot would add nothing, as a status is written for what the operator sees of them:
here they answer as soon as their domain runs. Every cluster's VMs are made, one of each loses its power and is
replaced, SHRINK of them are let go, and as many made again.

Both sides come from the API server: status writes (LubanVMs' and LubanClusters', all that were accepted) from its audit
log, by user; phases from a watch, which shows every change that was written. A transition is a change of a LubanVM's
phase: that one appears, or goes, is none.

LUBAN_BENCH_CLUSTERS (10) makes it smaller for a trial.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.result import Result, say
from bench.support.api_witness import Request, by_kind
from bench.support.fleet import LONG_QUIET_SECONDS, QUIET_SECONDS, Fleet, chosen_layout
from bench.support.fleet_objects import Size
from bench.support.operators import Process
from bench.support.orderly import in_thread, run_orderly
from lab.datacentre import ROOT, operator_arguments
from lab.paths import Layout
from lab.process import LabError

BASE = 136
VMS, HOSTS, SHARE = 10, 4, 2
SHRINK = 3
PATIENCE = 180.0
STEADY_SECONDS = 60.0


@dataclass
class Phases:
    """How many times LubanVMs changed from one phase to another."""

    transitions: Counter[str] = field(default_factory=Counter)
    _last: dict[str, str] = field(default_factory=dict)

    async def take(self, event: str, vm: dict[str, Any]) -> None:
        """One event of a watch."""
        uid, phase = vm["metadata"]["uid"], vm.get("status", {}).get("phase", "Pending")
        last = self._last.setdefault(uid, phase)
        if event != "DELETED" and phase != last:
            self.transitions[f"{last} to {phase}"] += 1
            self._last[uid] = phase


@dataclass(frozen=True)
class Counts:
    """What happened in one part."""

    transitions: int
    requests: list[Request]

    @property
    def status_writes(self) -> int:
        """Those that were accepted."""
        return sum(request.is_status_write and request.code < 300 for request in self.requests)

    def detail(self) -> dict[str, Any]:
        """As the benchmark's line has it."""
        writes = by_kind([request for request in self.requests if request.is_write])
        each = round(self.status_writes / self.transitions, 2) if self.transitions else None
        return {"transitions": self.transitions, "status_writes_per_transition": each, "writes": dict(writes)}


class Story:
    """The parts, one after another."""

    def __init__(self, fleet: Fleet, operator: Process, phases: Phases) -> None:
        self.fleet = fleet
        self.operator = operator
        self.phases = phases
        self.parts: dict[str, Counts] = {}

    @asynccontextmanager
    async def part(self, name: str, *, vms: int = VMS, quiet: float = QUIET_SECONDS) -> AsyncIterator[None]:
        """What is done in the block, until all is settled with so many VMs in each cluster."""
        say(name)
        position, before = self.fleet.api.position(), self.phases.transitions.total()
        yield
        await self.fleet.settle(self.operator, PATIENCE, vms=vms, quiet=quiet)
        self.parts[name] = Counts(self.phases.transitions.total() - before, self.fleet.api.since(position))

    async def tell(self) -> None:
        """All of them."""
        async with self.part("made"):
            await self.fleet.create(self.operator, PATIENCE)
        async with self.part("lost and replaced"):
            for vm in _one_of_each(self.fleet.view.look().vms):
                await self.fleet.cut_power(vm)
            await self.until_replaced()
        async with self.part("fewer", vms=VMS - SHRINK):
            await self.fleet.resize(VMS - SHRINK)
        async with self.part("more again", quiet=LONG_QUIET_SECONDS):
            await self.fleet.resize(VMS)

    async def until_replaced(self) -> None:
        """Return when the operator has seen all the losses: before, everything still looks settled."""
        end = time.monotonic() + PATIENCE
        while (
            sum(n for name, n in self.phases.transitions.items() if name.endswith("to Lost")) < self.fleet.size.clusters
        ):
            if time.monotonic() > end:
                raise LabError(f"not all losses seen; see {self.operator.daemon.log}")
            await asyncio.sleep(0.1)

    async def rest(self) -> list[Request]:
        """Requests in a time in which nothing happens."""
        say(f"nothing, for {STEADY_SECONDS:g} s")
        position = self.fleet.api.position()
        await asyncio.sleep(STEADY_SECONDS)
        return self.fleet.api.since(position)


def _one_of_each(vms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({vm["spec"]["clusterName"]: vm for vm in vms}.values())


async def measure(layout: Layout, size: Size) -> Result:
    """The story, and a steady minute."""
    phases = Phases()
    async with Fleet(layout, size, phases.take) as fleet:
        await in_thread(fleet.apply_base, ROOT)
        operator = await in_thread(fleet.operator, "operator", ROOT, operator_arguments(layout))
        await in_thread(operator.start)
        story = Story(fleet, operator, phases)
        await story.tell()
        rest = await story.rest()
    return result(size, story, rest)


def result(size: Size, story: Story, rest: list[Request]) -> Result:
    """The benchmark's line."""
    whole = Counts(
        sum(part.transitions for part in story.parts.values()),
        [request for part in story.parts.values() for request in part.requests],
    )
    at_rest = [request for request in rest if request.is_write]
    status_writes = sum(request.is_status_write for request in at_rest)
    return Result(
        bench="writes",
        value=round(whole.status_writes / whole.transitions, 3),
        unit="status writes (LubanVMs' and LubanClusters') for each change of a VM's phase",
        baseline="none",
        baseline_value=None,
        ratio=None,
        detail={
            "rest_writes_per_minute": round(status_writes * 60 / STEADY_SECONDS, 2),
            "rest_writes": dict(by_kind(at_rest)),
            "clusters": size.clusters,
            "vms": size.all_vms,
            "transitions": dict(story.phases.transitions.most_common()),
            "parts": {name: part.detail() for name, part in story.parts.items()},
        },
    )


def main() -> None:
    """Bring everything up, measure, take it down."""
    clusters = int(os.environ.get("LUBAN_BENCH_CLUSTERS", "10"))
    run_orderly(measure(chosen_layout(BASE), Size(clusters, VMS, HOSTS, SHARE)))


if __name__ == "__main__":
    main()
