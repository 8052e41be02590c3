"""The plain client: sends bytes, and notes all that comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.fakes.plain.wire import Body, Head, connect, read_body, read_head, response_framing, status_of

PATIENCE_SECONDS = 30.0
"""An exchange that takes longer has failed."""


@dataclass(frozen=True)
class Answer:
    """A final response with the interim ones before it. Without a head: the connection was closed instead."""

    interim: tuple[Head, ...]
    head: Head | None
    body: Body


Sender = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def ask(address: str, port: int, request: bytes, *, method: str = "GET") -> Answer:
    """Send a request on a connection of its own, and take the answer."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(request)
        await writer.drain()

    return await converse(address, port, send, method=method)


async def converse(address: str, port: int, send: Sender, *, method: str = "GET") -> Answer:
    """Like `ask` with a sender that takes its time: what comes meanwhile is read meanwhile."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await connect(address, port)
        sending = asyncio.ensure_future(send(writer))
        try:
            return await read_answer(reader, method)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader, method: str = "GET") -> Answer:
    """The next answer on a connection."""
    interim: list[Head] = []
    while True:
        try:
            head = await read_head(reader)
        except (EOFError, ConnectionError):
            return Answer(tuple(interim), None, Body(whole=False))
        if 100 <= status_of(head) < 200 and status_of(head) != 101:
            interim.append(head)
            continue
        return Answer(tuple(interim), head, await read_body(reader, *response_framing(head, method)))
