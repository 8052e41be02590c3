"""What is open beside a load of short requests: WebSockets and uploads, each for some seconds, one after another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.fakes.plain.cases import request
from tests.fakes.plain.client import converse
from tests.fakes.plain.websocket import frame, opening, websocket

WEBSOCKETS = 20
"""Open at a time."""
UPLOADS = 10
"""Under way at a time."""
PARTS = 10
PAUSE_SECONDS = 0.25
"""Between two messages of a WebSocket, or two parts of an upload: both take some seconds."""
PART_BYTES = 20_000


class Companions:
    """Open exchanges while the context lasts; then each is ended as it would have been, and none begun."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self._port = port
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []

    async def __aenter__(self) -> Companions:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(WEBSOCKETS):
                group.create_task(self._repeat("websocket", self._socket, number / WEBSOCKETS))
            for number in range(UPLOADS):
                group.create_task(self._repeat("upload", self._upload, number / UPLOADS))

    async def _repeat(self, name: str, exchange: Callable[[], Awaitable[bool]], share: float) -> None:
        """One after another; not all begin at the same moment."""
        await asyncio.sleep(share * PARTS * PAUSE_SECONDS)
        while not self._over.is_set():
            try:
                good = await exchange()
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.failures.append(f"{name}: {error!r}")
                continue
            self.done[name] += good
            if not good:
                self.failures.append(f"{name}: not the right answer")

    async def _socket(self) -> bool:
        async with websocket(self._address, self._port, opening("")) as opened:
            good = await opened.greeted()
            for number in range(PARTS):
                data = frame(b"%d" % number)
                good = good and await opened.echoed(data) == data
                await asyncio.sleep(PAUSE_SECONDS)
        return good

    async def _upload(self) -> bool:
        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(request("", "POST", "/", ("Content-Length", str(PARTS * PART_BYTES))))
            for _ in range(PARTS):
                writer.write(b"x" * PART_BYTES)
                await writer.drain()
                await asyncio.sleep(PAUSE_SECONDS)

        answer = await converse(self._address, self._port, send, method="POST")
        return answer.head is not None and answer.head.start.startswith("HTTP/1.1 200")
