"""`make demo`: bring the lab up, tell the story of Fig. 15, print the summary, clean up."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from lab.__main__ import INTERRUPTED, make_lab, print_addresses
from lab.datacentre import DataCentre
from lab.demo.load import Load
from lab.demo.observer import Onlooker
from lab.demo.plot import plot_sessions
from lab.demo.story import Story
from lab.demo.summary import promises, summary_table
from lab.demo.view import View
from lab.paths import LAST_BASE
from lab.process import LabError

FULL, UPPER, LOWER = 100, 60, 10
HOLD_SECONDS = 3.0
REQUEST_LIMIT = 30_000
OPENING = (
    "A service on real parts, all on this machine: load rises and a third VM comes, calm returns and it goes, a VM "
    "dies and is replaced; no request is lost. 2.5 to 4 minutes once everything is built."
)
REMOVED = "Ctrl-C is safe at any time: all is stopped and removed."
KEPT = "Ctrl-C is safe at any time: what is up then stays, and `make clean` removes it."
console = Console(highlight=False)


@click.command()
@click.option("--base", type=click.IntRange(1, LAST_BASE), help="Third octet of the lab's addresses. Default: 16.")
@click.option("--keep", is_flag=True, help="Leave the lab up, and say where everything is.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
def main(base: int | None, keep: bool, output: Path) -> None:
    """Show the main job on real parts: grow, shrink, replace, without losing a request."""
    try:
        lab = make_lab(base)
    except LabError as error:
        console.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    console.print(OPENING, KEPT if keep else REMOVED, soft_wrap=True)
    status = INTERRUPTED
    try:
        with contextlib.suppress(KeyboardInterrupt):
            status = show(lab, output)
    finally:
        leave(lab, keep=keep)
    if status == INTERRUPTED:
        console.print(f"interrupted: {'what was up stays up' if keep else 'everything is stopped and removed'}")
    sys.exit(status)


def show(lab: DataCentre, output: Path) -> int:
    """Bring the lab up and tell the story; returns the exit status."""
    try:
        lab.destroy()
        lab.up()
        return 0 if asyncio.run(tell(lab, output)) else 1
    except LabError as error:
        console.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True)
        return 1


def leave(lab: DataCentre, *, keep: bool) -> None:
    """Clean up, or say where everything is."""
    if not keep:
        try:
            lab.destroy()
        except KeyboardInterrupt:
            console.print("interrupted while cleaning up: `make clean` removes the rest")
            sys.exit(INTERRUPTED)
    elif lab.layout.admin_kubeconfig.exists():
        print_addresses(lab)


async def tell(lab: DataCentre, output: Path) -> bool:
    """Tell the story and write plot and summary; returns whether every promise was kept."""
    load = Load(lab.addresses.service, hold=HOLD_SECONDS, limit=REQUEST_LIMIT)
    onlooker = Onlooker(lab)
    view = View(onlooker, load, console, upper=UPPER, lower=LOWER, full=FULL)
    story = Story(lab, onlooker, load, view)
    async with shown(view), watched(onlooker):
        try:
            await story.tell()
        finally:
            await load.stop()
    picture = output / "fig15.png"
    plot_sessions(onlooker.seen, story.marks, picture, upper=UPPER, lower=LOWER)
    console.print(summary_table(story))
    console.print(f"plot: {picture}")
    return all(promise.kept for promise in promises(story))


@contextlib.asynccontextmanager
async def watched(onlooker: Onlooker) -> AsyncIterator[None]:
    """Look on in the background."""
    task = asyncio.ensure_future(onlooker.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def shown(view: View) -> AsyncIterator[None]:
    """Draw live on a terminal; elsewhere print what changes."""
    if console.is_terminal:
        with Live(view, console=console, refresh_per_second=2):
            yield
        return
    task = asyncio.ensure_future(_print_changes(view))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _print_changes(view: View) -> None:
    view.begun = time.monotonic()
    view.print_legend()
    while True:
        view.print_changes()
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    main()
