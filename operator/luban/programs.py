"""What our programs have in common: options with their environment variables, and how they run until they are told to
end."""

from __future__ import annotations

import asyncio
import ctypes
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import click

from luban.errors import LubanError

M_ARENA_MAX, ARENAS = -8, 2
"""A parameter of glibc's mallopt(3), and the value that it gets."""
RETURN_SECONDS = 60.0
Program = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set."""
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def option(program: str, name: str, help_: str, **more: Any) -> Callable[[_Decorated], _Decorated]:
    """An option with its environment variable: of node-agent, --proc-root is also LUBAN_NODE_AGENT_PROC_ROOT."""
    variable = f"luban_{program}_{name.removeprefix('--')}".upper().replace("-", "_")
    more.setdefault("envvar", variable)
    return click.option(name, show_envvar=True, show_default=True, help=help_, **more)


def run_program(program: Program) -> None:
    """Run until SIGTERM or SIGINT. Raises click.ClickException with the words of an error that is for people."""
    try:
        asyncio.run(_until_signalled(program))
    except (LubanError, OSError) as error:
        raise click.ClickException(str(error)) from error


def share_arenas() -> None:
    """Have glibc allocate for all threads from a few arenas, where it is glibc; to be called before there are any.

    By itself it makes one for nearly each of the threads that wait for hosts, and each keeps what it once needed: a
    tenth of all memory with 20 hosts.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


async def return_memory() -> None:
    """Give back to the system, again and again, what is free: where it is glibc, which keeps most of what a start or a
    large change needed for a moment."""
    while True:
        await asyncio.sleep(RETURN_SECONDS)
        with suppress(AttributeError, OSError):
            await asyncio.to_thread(ctypes.CDLL(None).malloc_trim, 0)


def set_on_signals(stop: asyncio.Event) -> None:
    """Set the event on SIGTERM and SIGINT, instead of ending at once. Needs the running event loop."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _until_signalled(program: Program) -> None:
    stop = asyncio.Event()
    set_on_signals(stop)
    await program(stop)
