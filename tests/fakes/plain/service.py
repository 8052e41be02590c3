"""The plain service: notes each request as it arrives, and answers as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.fakes.plain.wire import LONGEST_HEAD, Body, Head, message, read_body, read_head, request_framing

CASE = "X-Case"
"""Header of a request that names its case."""
OK = message("HTTP/1.1 200 OK", [("Content-Length", "2"), ("Content-Type", "text/plain")], b"ok")


@dataclass
class Exchange:
    """One request and the connection that it came on."""

    head: Head
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: Body | None = None
    """None: nobody read it."""

    async def take(self) -> Body:
        """Read the body."""
        self.body = await read_body(self.reader, *request_framing(self.head))
        return self.body

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()


Play = Callable[[Exchange], Awaitable[bool]]
"""Serves one request. True: another one may follow on the connection."""


def says(*pieces: bytes, pause: float = 0.0, keep: bool = True) -> Play:
    """Read the body, then send these bytes, each piece in a packet of its own."""

    async def play(exchange: Exchange) -> bool:
        await exchange.take()
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(pause)
        return keep

    return play


async def plainly(exchange: Exchange) -> bool:
    """Read the body at once, whatever the request expects, and say ok."""
    await exchange.take()
    await exchange.send(OK)
    return True


async def continuing(exchange: Exchange) -> bool:
    """Ask for the body if the client waits for that, and say ok."""
    if exchange.head.names("Expect", "100-continue"):
        await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    return await plainly(exchange)


@dataclass
class PlainService:
    """A service at an address. /healthz and what names no case are answered by `plainly`."""

    name: str
    address: str
    port: int
    plays: dict[str, Play] = field(default_factory=dict)
    """By case."""
    seen: dict[str, list[Exchange]] = field(default_factory=lambda: defaultdict(list))
    """By case, in the order of their arrival."""
    active: int = 0
    """Requests being served."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> PlainService:
        """Begin to listen."""
        self._server = await asyncio.start_server(
            self._serve, self.address, self.port, backlog=1024, limit=LONGEST_HEAD
        )
        return self

    async def stop(self) -> None:
        """End at once: open connections are reset."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(EOFError, ConnectionError):
                while await self._exchange(Exchange(await read_head(reader), reader, writer)):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, exchange: Exchange) -> bool:
        case = exchange.head.get(CASE)
        if case:
            self.seen[case].append(exchange)
        self.active += 1
        try:
            more = await self.plays.get(case, plainly)(exchange)
        finally:
            self.active -= 1
        old = exchange.head.start.endswith("HTTP/1.0")
        return (
            more
            and not exchange.head.names("Connection", "close")
            and not (old and not exchange.head.names("Connection", "keep-alive"))
        )
