"""`python -m lab.beside`: the tests, in groups that run beside each other and tell of themselves line by line.

What waits for virtual machines leaves the processors to what computes: on two of them the whole takes two thirds of
the time. Each group is a pytest process; all have addresses of their own. Arguments go to each.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

SLOW = ("tests/integration/test_failover.py", "tests/e2e")
"""They wait more than they compute."""
GROUPS: Mapping[str, Sequence[Sequence[str]]] = {
    "parts": [["tests", "--ignore=tests/browser", *(f"--ignore={path}" for path in SLOW)]],
    # Browser tests in a process of their own: a browser that is driven synchronously keeps an event loop running.
    "whole": [[*SLOW], ["tests/browser"]],
}
"""By name: the runs of pytest of a group, one after another."""
NICENESS = 5
"""Of the group that computes: deadlines are in the other one."""

console = Console(highlight=False)


@dataclass(frozen=True)
class Ended:
    """One run that is over."""

    group: str
    status: int
    seconds: float


async def _run(group: str, command: Sequence[str]) -> Ended:
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=2**22
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            console.print(
                Text(f"{group:<6}", "dim"), Text.from_ansi(line.decode(errors="replace").rstrip()), soft_wrap=True
            )
        status = await process.wait()
    except asyncio.CancelledError:
        # Its fixtures stop what they started.
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        # Whom nobody reads any more cannot say why, and never ends.
        await process.stdout.read()
        await process.wait()
        raise
    return Ended(group, status, time.monotonic() - begun)


async def _run_group(group: str, runs: Sequence[Sequence[str]], more: Sequence[str]) -> list[Ended]:
    """One failure hides no other: each run of the group takes place."""
    nice = ["nice", "-n", str(NICENESS)] if group == "parts" else []
    return [await _run(group, [*nice, sys.executable, "-m", "pytest", *run, *more]) for run in runs]


async def run_beside(groups: Mapping[str, Sequence[Sequence[str]]], more: Sequence[str]) -> int:
    """Run all groups; the exit status for all."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    ended = [
        it
        for group in await asyncio.gather(*(_run_group(name, runs, more) for name, runs in groups.items()))
        for it in group
    ]
    for it in ended:
        verdict = Text("passed", "green") if it.status == 0 else Text(f"FAILED (pytest ended with {it.status})", "red")
        console.print(Text(f"{it.group:<6}"), verdict, f"in {it.seconds / 60:.1f} minutes", soft_wrap=True)
    return max(min(it.status, 1) if it.status >= 0 else 1 for it in ended)


def main() -> None:
    """Run the tests."""
    try:
        status = asyncio.run(run_beside(GROUPS, sys.argv[1:]))
    except asyncio.CancelledError:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
