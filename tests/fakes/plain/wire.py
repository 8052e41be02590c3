"""HTTP/1 messages as bytes: read without judging or tidying, unlike every library."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

LONGEST_HEAD = 1 << 20
"""Limit in bytes of the readers here."""
PIECE = 1 << 16
KEPT = 1 << 16
"""So much of a body is kept as it is; of a longer one, length and hash."""

Headers = tuple[tuple[str, str], ...]
"""Names and values in their order, decoded as Latin-1, which loses nothing."""
Framing = Literal["none", "length", "chunked", "close"]


@dataclass(frozen=True)
class Body:
    """What came after a head."""

    data: bytes = b""
    """The body itself, up to KEPT bytes of it."""
    length: int = 0
    digest: str = ""
    """SHA-256 of a body longer than KEPT."""
    trailers: Headers = ()
    whole: bool = True
    """False: the connection ended before the body did."""


@dataclass
class Collector:
    """Takes a body piece by piece."""

    length: int = 0
    data: bytearray = field(default_factory=bytearray)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self.length += len(piece)
        self._hash.update(piece)
        self.data += piece[: KEPT - len(self.data)]

    def body(self, trailers: Headers = (), *, whole: bool = True) -> Body:
        """All that was taken."""
        digest = self._hash.hexdigest() if self.length > KEPT else ""
        return Body(bytes(self.data), self.length, digest, trailers, whole)


@dataclass(frozen=True)
class Head:
    """A start line with its headers."""

    start: str
    headers: Headers

    def get(self, name: str, default: str = "") -> str:
        """Value of the first header of this name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), default)

    def all(self, name: str) -> list[str]:
        """Values of all headers of this name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def names(self, name: str, word: str) -> bool:
        """Whether a header that is a list holds this word."""
        return word in [item.strip().lower() for value in self.all(name) for item in value.split(",")]


async def connect(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose reader takes long lines."""
    return await asyncio.open_connection(address, port, limit=LONGEST_HEAD)


async def read_head(reader: asyncio.StreamReader) -> Head:
    """The next head. Raises EOFError (IncompleteReadError) if there is none."""
    text = (await reader.readuntil(b"\r\n\r\n")).lstrip(b"\r\n")
    start, *lines = text.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return Head(start, _headers(lines))


async def read_body(reader: asyncio.StreamReader, framing: Framing, length: int = 0) -> Body:
    """A body; one that is cut off says so."""
    taken = Collector()
    try:
        match framing:
            case "length":
                await _take(reader, taken, length)
            case "chunked":
                return taken.body(await _chunks(reader, taken))
            case "close":
                while piece := await reader.read(PIECE):
                    taken.add(piece)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return taken.body(whole=False)
    return taken.body()


def request_framing(head: Head) -> tuple[Framing, int]:
    """How long a request's body is."""
    if head.names("Transfer-Encoding", "chunked"):
        return "chunked", 0
    length = head.get("Content-Length")
    return ("length", int(length)) if length.isdecimal() else ("none", 0)


def response_framing(head: Head, method: str) -> tuple[Framing, int]:
    """How long a response's body is."""
    status = status_of(head)
    if method == "HEAD" or status < 200 or status in (204, 304):
        return "none", 0
    framing, length = request_framing(head)
    return ("close", 0) if framing == "none" else (framing, length)


def status_of(head: Head) -> int:
    """The number in a status line; 0: there is none."""
    words = head.start.split(" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def message(start: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """A message as it is sent."""
    lines = [start, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one ends it, without trailers."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _headers(lines: Iterable[str]) -> Headers:
    pairs = (line.partition(":") for line in lines if line)
    return tuple((name, value.strip(" \t")) for name, _, value in pairs)


async def _take(reader: asyncio.StreamReader, taken: Collector, length: int) -> None:
    while length:
        piece = await reader.read(min(length, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", length)
        taken.add(piece)
        length -= len(piece)


async def _chunks(reader: asyncio.StreamReader, taken: Collector) -> Headers:
    """Take all chunks; the trailers after them."""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        await _take(reader, taken, size)
        await reader.readexactly(2)
    lines = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        lines.append(line.decode("latin-1").removesuffix("\r\n"))
    return _headers(lines)
