"""Ending in order: whatever a benchmark has started is stopped, also when it is told to end before its time."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import ParamSpec, TypeVar

from bench.result import Result
from lab.process import LabError

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do something that blocks. If cancelled, this waits all the same: what it started can then be stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def run_orderly(work: Coroutine[None, None, Result]) -> None:
    """Run a benchmark and print its line. SIGTERM ends it as Ctrl-C does; a LabError is a message, not a traceback."""
    try:
        asyncio.run(_until_signalled(work)).print()
    except LabError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("ended before its time")


async def _until_signalled(work: Coroutine[None, None, Result]) -> Result:
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
