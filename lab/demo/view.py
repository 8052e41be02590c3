"""The live view in the terminal; where there is no terminal, a line whenever something changes."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lab.demo.load import Load
from lab.demo.observer import Onlooker, Snapshot

BAR = 30
COLOURS = {
    "Ready": "green",
    "Booting": "yellow",
    "Draining": "magenta",
    "Warm": "cyan",
    "Resuming": "yellow",
    "Stopping": "magenta",
    "Failed": "red",
    "Lost": "red",
}


class View:
    """Draws what the onlooker saw last."""

    def __init__(self, onlooker: Onlooker, load: Load, console: Console, *, upper: int, lower: int, full: int) -> None:
        """`upper`, `lower`: thresholds in percent of `full` sessions."""
        self.onlooker, self.load, self.console = onlooker, load, console
        self.upper, self.lower, self.full = upper, lower, full
        self.begun = time.monotonic()
        self.chapter = ""
        self._printed: tuple[object, ...] = ()

    def __rich__(self) -> RenderableType:
        """The whole picture."""
        if not self.onlooker.seen:
            return Text("looking ...")
        snapshot = self.onlooker.seen[-1]
        return Panel(
            Group(self._vms(snapshot), self._hosts(snapshot), self._traffic(), self._decisions()),
            title=f"Luban Cloud  {time.monotonic() - self.begun:5.0f} s  {self.chapter}",
        )

    def print_legend(self) -> None:
        """Say what the lines of `print_changes` hold."""
        self.console.print("  time    each VM with its phase and its sessions  |  the last decision", soft_wrap=True)

    def print_changes(self) -> None:
        """Print a line if VMs or decision are others than at the last call."""
        if not self.onlooker.seen:
            return
        snapshot = self.onlooker.seen[-1]
        decision = self.onlooker.decisions[-1][1] if self.onlooker.decisions else ""
        now = (tuple(sorted(snapshot.phases().items())), decision.split(":")[0])
        if now == self._printed:
            return
        self._printed = now
        sessions = snapshot.sessions()
        vms = ", ".join(f"{name} {phase} {sessions.get(name, 0)}" for name, phase in snapshot.phases().items())
        self.console.print(f"{time.monotonic() - self.begun:6.1f} s  {vms}  |  {decision}", soft_wrap=True)

    def _vms(self, snapshot: Snapshot) -> Table:
        table = Table("VM", "host", "phase", "sessions", "", box=None, pad_edge=False)
        sessions = snapshot.sessions()
        for vm in snapshot.vms:
            name = vm["metadata"]["name"]
            phase = vm.get("status", {}).get("phase", "Pending")
            count = sessions.get(name, 0)
            table.add_row(name, vm["spec"]["host"], Text(phase, COLOURS.get(phase, "")), str(count), self._bar(count))
        return table

    def _bar(self, count: int) -> Text:
        """Sessions as a bar, with marks at both thresholds."""
        filled = min(BAR, BAR * count // self.full)
        marks = {BAR * self.lower // self.full: "|", BAR * self.upper // self.full: "|"}
        cells = [marks.get(cell, "█" if cell < filled else "·") for cell in range(BAR)]
        percent = 100 * count // self.full
        colour = "red" if percent >= self.upper else "blue" if percent <= self.lower else "green"
        return Text("".join(cells), colour)

    def _hosts(self, snapshot: Snapshot) -> Text:
        hosts: Iterable[dict[str, object]] = snapshot.status.get("hosts", [])
        words = [f"{it['name']}: {it['vms']} VM{'' if it['reachable'] else ' UNREACHABLE'}" for it in hosts]
        return Text("\nhosts      " + "   ".join(words))

    def _traffic(self) -> Text:
        outcome = self.load.outcome
        text = f"{self.load.users} users, {outcome.sent} requests sent, {len(outcome.failures)} failed"
        return Text(f"requests   {text}")

    def _decisions(self) -> Text:
        lines = [f"{at - self.begun:6.1f} s  {words}" for at, words in self.onlooker.decisions[-6:]]
        return Text("decisions\n  " + "\n  ".join(lines))
