"""The figures at the end of the demo, and whether it kept its promises."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles

from rich.table import Table

from lab.demo.load import Failure, Outcome
from lab.demo.observer import Snapshot
from lab.demo.story import Story

LEAST_REQUESTS = 2000


@dataclass(frozen=True)
class Promise:
    """Something that the demo must show."""

    what: str
    kept: bool
    figure: str


def in_flight_at_kill(failure: Failure, killed_at: float) -> bool:
    """Whether a failed request had been sent before the kill and was still waiting: httpd never retries those."""
    return failure.sent <= killed_at <= failure.ended


def promises(story: Story) -> list[Promise]:
    """What was promised, and what came of it."""
    outcome = story.load.outcome
    lost = [it for it in outcome.failures if in_flight_at_kill(it, story.killed_at)]
    failed = [it for it in outcome.failures if it not in lost]
    lonely = [it for it in story.onlooker.seen if not _excused(it, story) and 0 in it.ready_per_host().values()]
    sizes = [it.serving for it in story.onlooker.seen]
    words = "; ".join(sorted({it.what for it in failed})[:3])
    return [
        Promise(f"at least {LEAST_REQUESTS} requests", outcome.sent >= LEAST_REQUESTS, str(outcome.sent)),
        Promise("no request failed", not failed, f"{len(failed)} {words}".strip()),
        Promise("grew 2 -> 3 and shrank 3 -> 2", _steps(sizes)[:3] == [2, 3, 2], " -> ".join(map(str, _steps(sizes)))),
        Promise("a VM on each host throughout", not lonely, f"{len(lonely)} of {len(sizes)} looks without"),
        Promise("in flight on the killed VM (counted apart)", kept=True, figure=str(len(lost))),
    ]


def _excused(snapshot: Snapshot, story: Story) -> bool:
    """Before the first VMs serve, and between the kill and the replacement."""
    started = next((it.at for it in story.onlooker.seen if it.serving >= 2), float("inf"))
    return snapshot.at < started or story.killed_at - 1 <= snapshot.at <= story.replaced_at + 2


def _steps(sizes: list[int]) -> list[int]:
    """Sizes without repetitions, from the first time that two served."""
    steps: list[int] = []
    for size in sizes:
        if (steps or size == 2) and (not steps or steps[-1] != size):
            steps.append(size)
    return steps


def summary_table(story: Story) -> Table:
    """All figures."""
    table = Table(title="Summary", show_header=False)
    for promise in promises(story):
        table.add_row(promise.what, f"{promise.figure}  {'[green]yes[/]' if promise.kept else '[red]NO[/]'}")
    for what, seconds in story.figures.items():
        table.add_row(what, f"{seconds:.1f} s")
    table.add_row("latency above the chosen time, median / p99", _latencies(story.load.outcome, story.load.hold))
    for vm, count in story.load.outcome.per_vm.most_common():
        table.add_row(f"answered by {vm}", str(count))
    return table


def _latencies(outcome: Outcome, hold: float) -> str:
    if len(outcome.latencies) < 2:
        return "-"
    cuts = quantiles(outcome.latencies, n=100)
    return f"{1000 * (cuts[49] - hold):.0f} / {1000 * (cuts[98] - hold):.0f} ms"
