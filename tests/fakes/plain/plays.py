"""Plays of services whose exchanges take their time: streams, WebSockets, early answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterator

from tests.fakes.plain.service import Exchange, Play
from tests.fakes.plain.wire import PIECE, chunk, message

MEGABYTE = 1 << 20
PATTERN = bytes(range(256)) * (PIECE // 256)
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""


def pattern(size: int) -> Iterator[bytes]:
    """So many bytes, in pieces."""
    while size > 0:
        yield PATTERN[:size]
        size -= PIECE


def pattern_digest(size: int) -> str:
    """SHA-256 of so many bytes."""
    whole = hashlib.sha256()
    for piece in pattern(size):
        whole.update(piece)
    return whole.hexdigest()


def downloads(size: int, *, chunked: bool = False) -> Play:
    """Send so many bytes."""

    async def play(exchange: Exchange) -> bool:
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))
        await exchange.send(message("HTTP/1.1 200 OK", [framing]))
        for piece in pattern(size):
            await exchange.send(chunk(piece) if chunked else piece)
        if chunked:
            await exchange.send(chunk(b""))
        return True

    return play


def refuses_early(*, then: str) -> Play:
    """Answer 413 without a look at the body; then "close" the connection, or "read" the body all the same."""

    async def play(exchange: Exchange) -> bool:
        close = [("Connection", "close")] if then == "close" else []
        await exchange.send(message("HTTP/1.1 413 Too Large", [("Content-Length", "3"), *close], b"big"))
        if then == "read":
            await exchange.take()
        return then == "read"

    return play


def events(gate: asyncio.Event) -> Play:
    """Server-sent events: one at once, one when the gate opens."""

    async def play(exchange: Exchange) -> bool:
        head = message("HTTP/1.1 200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])
        await exchange.send(head + b"data: first\n\n")
        await gate.wait()
        await exchange.send(b"data: second\n\n")
        return False

    return play


async def echoes_frames(exchange: Exchange) -> bool:
    """A WebSocket that sends back what it gets, until the other side ends. What it says first is a greeting."""
    key = exchange.head.get("Sec-WebSocket-Key") + _GUID
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    await exchange.send(message("HTTP/1.1 101 Switching Protocols", headers) + b"\x81\x02hi")
    while data := await exchange.reader.read(PIECE):
        await exchange.send(data)
    return False
