"""Servers whose answer never ends, in every way that HTTP has for it: each is cut off long before the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from luban.adapters.bounded_http import OVERHEAD_BYTES, BoundedConnector
from luban.adapters.probes_http import HttpProbes

OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 103 E\r\n\r\n" * 100),
    "chunks of a byte": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n\n\r\n" * 100),
    "a chunk's extension": (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 4096),
    "a body": (OK + b"\r\n", b"\n" * 4096),
}
DEADLINE = 600.0
"""Of the question: far behind the test's own."""


class Endless:
    """A server that says one thing, then another without end."""

    def __init__(self, first: bytes, then: bytes) -> None:
        self.first, self.then = first, then
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.first)
            while True:
                writer.write(self.then)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()


@pytest.fixture(params=ENDLESS)
async def endless(request: pytest.FixtureRequest) -> AsyncIterator[Endless]:
    said = Endless(*ENDLESS[request.param])
    server = await asyncio.start_server(said.serve, "127.0.0.1", 0)
    said.port = server.sockets[0].getsockname()[1]
    yield said
    server.close()


async def test_it_is_cut_off(endless: Endless) -> None:
    probes = HttpProbes()
    async with asyncio.timeout(60):
        assert await probes.gauge("127.0.0.1", endless.port, "/metrics", "x", DEADLINE) is None
    await probes.close()


async def test_an_answer_within_bounds_is_whole_also_the_second_on_one_connection() -> None:
    body = b"x" * 100_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await reader.readuntil(b"\r\n\r\n")
            interim = b"HTTP/1.1 103 E\r\n\r\n" * 3
            writer.write(interim + OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with aiohttp.ClientSession(connector=BoundedConnector(len(body), limit=1, limit_per_host=1)) as session:
        for _ in range(3):
            async with session.get(url) as answer:
                assert await answer.read() == body
    server.close()
    assert len(body) > OVERHEAD_BYTES
