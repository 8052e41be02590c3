"""The client's side of a WebSocket, as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.fakes.plain.cases import HOST
from tests.fakes.plain.service import CASE
from tests.fakes.plain.wire import Head, connect, message, read_head

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What belongs to KEY: RFC 6455, 1.3."""
GREETING = b"\x81\x02hi"
CLOSE_FRAME = b"\x88\x82\x01\x02\x03\x04\x02\xea"


def opening(case: str, connection: str = "Upgrade", protocol: str = "websocket") -> bytes:
    """The request that opens a WebSocket."""
    headers = [("Host", HOST), (CASE, case), ("Connection", connection), ("Upgrade", protocol)]
    return message("GET /ws HTTP/1.1", [*headers, ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)])


def frame(payload: bytes) -> bytes:
    """A binary frame from a client, with a mask of zeros."""
    return b"\x82" + bytes([0x80 | 127]) + len(payload).to_bytes(8, "big") + bytes(4) + payload


class WebSocket:
    """An open one."""

    def __init__(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self._reader = reader
        self._writer = writer

    async def echoed(self, data: bytes) -> bytes:
        """Send bytes, and read as many."""
        sending = asyncio.ensure_future(self._send(data))
        got = await self._reader.readexactly(len(data))
        await sending
        return got

    async def greeted(self) -> bool:
        """Whether the service's greeting comes."""
        return await self._reader.readexactly(len(GREETING)) == GREETING

    async def ended(self) -> bytes:
        """What comes until the other side ends."""
        return await self._reader.read()

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


@asynccontextmanager
async def websocket(address: str, port: int, request: bytes) -> AsyncIterator[WebSocket]:
    """A WebSocket, from the answer to `request` until the end of the block."""
    reader, writer = await connect(address, port)
    try:
        writer.write(request)
        yield WebSocket(await read_head(reader), reader, writer)
    finally:
        writer.close()
