"""Web servers that stand for VMs, and a steady load of requests: for tests and benchmarks with a real httpd."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.fakes.plain.plays import echoes_frames
from tests.fakes.plain.service import Exchange
from tests.fakes.plain.wire import Head

REQUEST_SECONDS = 20.0
"""A request that takes longer has failed."""
SLOW_SECONDS = 0.5


class Backend:
    """One VM's web service. Answers with its name; `/slow?s=2` takes two seconds; /healthz is its readiness probe.

    /echo answers with the head of the request as it arrived. A WebSocket is echoed.
    """

    def __init__(self, name: str, address: str, port: int) -> None:
        self.name = name
        self.address = address
        self.port = port
        self.active = 0
        """Requests being served, probes not counted."""
        self.served: Counter[str] = Counter()
        """By path."""
        self.ready = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def start(self) -> Backend:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, self.address, self.port, backlog=1024)
        return self

    async def stop(self) -> None:
        """End at once, as a VM does that is switched off: open connections are reset."""
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def freeze(self) -> None:
        """Accept connections, and answer nothing any more."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Answer again, what is waiting included."""
        self._thawed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request. False: it was the last of its connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        target = urlsplit(head.split(" ", 2)[1])
        headers = _headers(head)
        probe = target.path == "/healthz"
        self.active += not probe
        try:
            await self._thawed.wait()
            if headers.get("upgrade", "").lower() == "websocket":
                return await echoes_frames(Exchange(Head("", tuple(headers.items())), reader, writer))
            if headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await reader.readexactly(int(headers.get("content-length", "0")))
            await asyncio.sleep(float(parse_qs(target.query).get("s", ["0"])[0]))
            self.served[target.path] += 1
            status = "200 OK" if self.ready or not probe else "503 Service Unavailable"
            body = (head if target.path == "/echo" else self.name).encode("latin-1")
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        finally:
            self.active -= not probe
        return headers.get("connection", "").lower() != "close"


def _headers(head: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in head.split("\r\n")[1:] if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


@dataclass
class Outcome:
    """What became of a load's requests."""

    seconds: list[float] = field(default_factory=list)
    """Time of each request that was answered 200."""
    answered: Counter[str] = field(default_factory=Counter)
    """Answers by backend."""
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Requests made."""
        return len(self.seconds) + len(self.failures)


class Client:
    """HTTP/1.1 to one server without any second try, so that each loss is seen. Keeps connections if asked to."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(
        self, method: str, path: str, *, body: bytes = b"", keep: bool = False, cookie: str = "", more: str = ""
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of the answer; `more`: further header lines, as they are sent.

        Raises OSError, EOFError, ValueError, TimeoutError.
        """
        async with asyncio.timeout(REQUEST_SECONDS):
            reader, writer = (self._reusable() if keep else None) or await asyncio.open_connection(
                self._address, self._port
            )
            try:
                lines = [f"{method} {path} HTTP/1.1", "Host: shop.test", f"Content-Length: {len(body)}"]
                lines += [] if keep else ["Connection: close"]
                lines += [f"Cookie: {cookie}"] if cookie else []
                lines += more.splitlines()
                writer.write("\r\n".join((*lines, "", "")).encode() + body)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(_headers(head))
                text = (await reader.readexactly(int(headers["content-length"]))).decode("latin-1")
            except BaseException:
                writer.close()
                raise
        if keep and headers.get("connection", "").lower() != "close":
            self._idle.append((reader, writer))
        else:
            writer.close()
        return int(head.split(" ", 2)[1]), headers, text

    def close(self) -> None:
        """Close idle connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    def _reusable(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """An idle connection that the server has not closed as far as we know."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None


class Load:
    """Requests at a steady rate, each at its own time whether or not earlier ones are answered.

    Every other one on a connection of its own, the rest on kept connections; every fifth is a POST with a body, every
    20th takes SLOW_SECONDS.
    """

    def __init__(self, address: str, port: int, rate: float) -> None:
        self.outcome = Outcome()
        self._client = Client(address, port)
        self._rate = rate
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                group.create_task(self._request(number))
                await self._sleep_until(begin + (number + 1) / self._rate)
                if self._stop.is_set():
                    break
        self._client.close()

    async def _sleep_until(self, moment: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), max(0.0, moment - time.perf_counter()))

    async def _request(self, number: int) -> None:
        method, body = ("POST", b"x" * 2000) if number % 5 == 0 else ("GET", b"")
        slow = number % 20 == 0
        path = f"/slow?s={SLOW_SECONDS}" if slow else "/"
        begin = time.perf_counter()
        try:
            status, _, text = await self._client.request(method, path, body=body, keep=number % 2 == 1)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
            self.outcome.failures.append(f"{method} {path}: {error!r}")
            return
        if status != 200:
            self.outcome.failures.append(f"{method} {path}: status {status}")
            return
        self.outcome.seconds.append(time.perf_counter() - begin - (SLOW_SECONDS if slow else 0.0))
        self.outcome.answered[text] += 1
