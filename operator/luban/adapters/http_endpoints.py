"""The HTTP endpoints that every program of ours has: metrics and probes, and documents of its own."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from luban.api.names import FEED_TYPE
from luban.errors import PermanentError

Trouble = Callable[[], str]
"""Says what is wrong; empty: nothing is."""
DEFAULT_REMEDY = "choose another with --listen-address and --listen-port"


@dataclass(frozen=True)
class Refusal:
    """Why a document is not given."""

    status: int
    """HTTP status."""
    message: str
    """One sentence, with the remedy."""
    challenge: str
    """WWW-Authenticate."""


Guard = Callable[[str, str], Awaitable[Refusal | None]]
"""Looks at the Authorization header (empty: there is none) and the address of who asks; None: may be answered."""


def no_trouble() -> str:
    """Nothing is wrong as long as the event loop turns: a program that is stuck does not answer, and is restarted."""
    return ""


async def answer_anybody(_authorization: str, _address: str) -> Refusal | None:
    """Documents that everybody may read."""
    return None


Feed = Callable[[float], AsyncGenerator[Any, None]]
"""A document now and after each change, for so many seconds. None: nothing is new, but all is well."""
LONGEST_FEED = 60.0
"""Seconds: then whoever follows asks anew, and is looked at again."""
MOST_FED = 3 << 20
"""Bytes after which a feed ends early: nobody has to take more in one answer than a large document."""
MOST_FOLLOWERS = 16
"""So many may follow at once; others get the document as it is."""


async def nothing_to_refresh() -> None:
    """Metrics that are collected when they are asked for."""


class HttpEndpoints:
    """A server with /metrics, /healthz and /readyz; `listen` begins, `close` ends it."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        alive: Trouble = no_trouble,
        ready: Trouble = no_trouble,
        refresh: Callable[[], Awaitable[None]] = nothing_to_refresh,
        documents: Mapping[str, Callable[[], Any]] | None = None,
        feeds: Mapping[str, Feed] | None = None,
        guard: Guard = answer_anybody,
    ) -> None:
        """`alive` and `ready` decide /healthz and /readyz. `refresh` precedes each answer of /metrics. `documents`:
        what is answered as JSON at further paths, and `guard` says to whom. `feeds`: at which of these paths
        `?follow=<seconds>` gives it again with each change."""
        self._registry = registry
        self._refresh = refresh
        self._app = web.Application()
        self._app.router.add_get("/metrics", self._metrics)
        self._app.router.add_get("/healthz", _probe(alive))
        self._app.router.add_get("/readyz", _probe(ready))
        self._followers = _Followers()
        self._app.on_shutdown.append(self._followers.end)
        for path, document in (documents or {}).items():
            answers = _Document(document, (feeds or {}).get(path), self._followers, guard)
            self._app.router.add_get(path, answers.answer)
        self._runner: web.AppRunner | None = None

    async def listen(self, address: str, port: int, remedy: str = DEFAULT_REMEDY) -> None:
        """Begin to answer. Raises PermanentError with the remedy if the port is taken, or the address not ours."""
        self._runner = web.AppRunner(self._app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, address, port).start()
        except OSError as error:
            await self.close()
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise PermanentError("PortTaken", f"cannot listen at {_shown(address, port)}: {why}: {remedy}") from error

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [address[:2] for address in self._runner.addresses] if self._runner is not None else []

    async def close(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _: web.Request) -> web.Response:
        await self._refresh()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _probe(trouble: Trouble) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        found = trouble()
        return web.Response(text=f"{found}\n", status=503) if found else web.Response(text="ok\n")

    return handler


@dataclass
class _Followers:
    """Answers without an end, which nobody may wait for when all ends."""

    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def end(self, _: web.Application) -> None:
        """Break them off."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def send(self, request: web.Request, items: AsyncIterator[Any]) -> web.StreamResponse:
        """Answer with one line for each item, as long as anybody listens."""
        answer = web.StreamResponse(headers={"Content-Type": FEED_TYPE})
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(2 * LONGEST_FEED):
                    await _write(answer, request, items)
        finally:
            self.tasks.discard(task)
        return answer


async def _write(answer: web.StreamResponse, request: web.Request, items: AsyncIterator[Any]) -> None:
    await answer.prepare(request)
    left = MOST_FED
    async for item in items:
        line = json.dumps(item).encode() if item is not None else b""
        await answer.write(line + b"\n")
        left -= len(line)
        if left < len(line):
            break
    await answer.write_eof()


@dataclass(frozen=True)
class _Document:
    """What is answered at one path."""

    document: Callable[[], Any]
    feed: Feed | None
    followers: _Followers
    guard: Guard

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The document, or its feed, or why not."""
        refusal = await self.guard(request.headers.get("Authorization", ""), request.remote or "")
        if refusal is not None:
            headers = {"WWW-Authenticate": refusal.challenge}
            return web.Response(text=f"{refusal.message}\n", status=refusal.status, headers=headers)
        seconds = _seconds(request.query.get("follow", ""))
        if self.feed is None or seconds <= 0 or len(self.followers.tasks) >= MOST_FOLLOWERS:
            return web.json_response(self.document())
        async with aclosing(self.feed(seconds)) as items:
            return await self.followers.send(request, items)


def _seconds(text: str) -> float:
    """How long somebody wants to follow; 0: not at all."""
    try:
        asked = float(text)
    except ValueError:
        return 0.0
    return min(asked, LONGEST_FEED) if math.isfinite(asked) else 0.0


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
