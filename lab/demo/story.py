"""The chapters of the demo, and what must be true at the end of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.datacentre import DataCentre
from lab.demo.load import Load
from lab.demo.observer import Onlooker, Snapshot
from lab.demo.view import View
from lab.process import LabError

BOOT_DEADLINE = 180.0
PEAK_REQUESTS = 2200
"""The peak lasts at least until so many requests were sent."""
SETTLE_SECONDS = 15.0
"""How long the even load is shown."""


@dataclass
class Story:
    """Fig. 15, then the death of one VM."""

    lab: DataCentre
    onlooker: Onlooker
    load: Load
    view: View
    marks: list[tuple[float, str]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    killed_at: float = float("inf")
    replaced_at: float = float("inf")

    async def tell(self) -> None:
        """All chapters in order. Raises LabError naming what did not happen."""
        await self.chapter("two VMs boot, one on each host", self._start)
        await self.chapter("load below the threshold", self._quiet)
        await self.chapter("peak: both above 60 %, a third VM comes", self._peak)
        await self.chapter("the load evens out", self._even)
        await self.chapter("calm: the third VM drains and goes", self._calm)
        await self.chapter("one VM is killed and replaced", self._kill)

    async def chapter(self, title: str, tell: Callable[[], object]) -> None:
        """One chapter, with its title in the view."""
        self.view.chapter = title
        self.view.console.print(f"[bold]{title}[/]") if not self.view.console.is_terminal else None
        await tell()  # type: ignore[misc]

    def mark(self, word: str) -> float:
        """Note a moment for the plot."""
        now = time.monotonic()
        self.marks.append((now, word))
        return now

    async def until(
        self, condition: Callable[[Snapshot], bool], what: str, deadline: float = BOOT_DEADLINE
    ) -> Snapshot:
        """Wait until a snapshot satisfies `condition`. Raises LabError naming `what`."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if self.onlooker.seen and condition(self.onlooker.seen[-1]):
                return self.onlooker.seen[-1]
            await asyncio.sleep(0.1)
        raise LabError(f"{what}: not within {deadline:g} s; see the operator's log {self.lab.operator.log}")

    async def _start(self) -> None:
        begun = time.monotonic()
        self.lab.apply_sample()
        await self.until(lambda it: it.serving == 2 and it.status.get("phase") == "Ready", "two VMs serve")
        self.figures["apply -> two VMs serve"] = time.monotonic() - begun

    async def _quiet(self) -> None:
        await self.load.set_users(60)
        await self.until(lambda it: sum(it.sessions().values()) >= 50, "60 users are seen by the balancer")
        await asyncio.sleep(SETTLE_SECONDS)

    async def _peak(self) -> None:
        peak = self.mark("peak")
        await self.load.set_users(140)
        await self.until(lambda _: self._decided("ScaleUp"), "decision to scale up")
        decided = self.mark("ScaleUp")
        self.figures["peak -> decision to grow"] = decided - peak
        known = set(self.load.outcome.first_answer)
        await self.until(lambda it: it.serving == 3, "a third VM serves")
        grown = self.mark("VM3 serves")
        self.figures["decision -> three VMs serve"] = grown - decided
        await self.until(lambda _: bool(set(self.load.outcome.first_answer) - known), "the third VM answers a user")
        newest = max(self.load.outcome.first_answer.values())
        self.figures["decision -> first answer of the new VM"] = newest - decided

    async def _even(self) -> None:
        begun = next(at for at, word in self.marks if word == "VM3 serves")
        await self.until(_even, "sessions of the three VMs within 15 of each other")
        self.figures["three VMs serve -> load even"] = time.monotonic() - begun
        await asyncio.sleep(SETTLE_SECONDS)
        await self.until(lambda _: self.load.outcome.sent >= PEAK_REQUESTS, f"{PEAK_REQUESTS} requests")

    async def _calm(self) -> None:
        calm = self.mark("calm")
        await self.load.set_users(9)
        await self.until(lambda _: self._decided("ScaleDown"), "decision to scale down")
        decided = self.mark("ScaleDown")
        self.figures["calm -> decision to shrink (10 s window)"] = decided - calm
        await self.until(lambda it: len(it.vms) == 2 and it.serving == 2, "two VMs are left")
        self.figures["decision -> drained, stopped and gone"] = self.mark("VM gone") - decided

    async def _kill(self) -> None:
        await self.load.set_users(20)
        await self.until(lambda it: sum(it.sessions().values()) >= 15, "20 users are seen by the balancer")
        victim = self.onlooker.seen[-1].vms[0]
        name, host, uid = victim["metadata"]["name"], victim["spec"]["host"], victim["metadata"]["uid"]
        self.killed_at = self.mark(f"{name} killed")
        self.view.console.print(f"killing {name} on {host}")
        await asyncio.to_thread(self.lab.pull_the_plug, host, uid)
        await self.until(lambda it: name not in _enabled(it), "the balancer lets go of the dead VM")
        self.figures["kill -> out of the balancer"] = time.monotonic() - self.killed_at
        await self.until(lambda it: name not in it.phases() and _all_ready(it, 2), "a new VM takes its place")
        self.replaced_at = self.mark("replaced")
        self.figures["kill -> replacement serves"] = self.replaced_at - self.killed_at
        await asyncio.sleep(SETTLE_SECONDS)

    def _decided(self, verdict: str) -> bool:
        begun = self.marks[-1][0]
        return any(at >= begun and words.startswith(verdict) for at, words in self.onlooker.decisions)


def _enabled(snapshot: Snapshot) -> set[str]:
    return {it["name"] for it in snapshot.report.get("members", []) if it["state"] == "Enabled"}


def _all_ready(snapshot: Snapshot, count: int) -> bool:
    phases = list(snapshot.phases().values())
    return phases == ["Ready"] * count and snapshot.serving == count


def _even(snapshot: Snapshot) -> bool:
    counts = [count for name, count in snapshot.sessions().items() if name in _enabled(snapshot)]
    return len(counts) == 3 and max(counts) - min(counts) <= 15
