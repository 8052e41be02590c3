"""The HTTP endpoints that every program of ours has: metrics and probes, and documents of its own."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

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
        guard: Guard = answer_anybody,
    ) -> None:
        """`alive` and `ready` decide /healthz and /readyz. `refresh` precedes each answer of /metrics. `documents`:
        what is answered as JSON at further paths, and `guard` says to whom."""
        self._registry = registry
        self._refresh = refresh
        self._app = web.Application()
        self._app.router.add_get("/metrics", self._metrics)
        self._app.router.add_get("/healthz", _probe(alive))
        self._app.router.add_get("/readyz", _probe(ready))
        for path, document in (documents or {}).items():
            self._app.router.add_get(path, _json(document, guard))
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


def _json(document: Callable[[], Any], guard: Guard) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        refusal = await guard(request.headers.get("Authorization", ""), request.remote or "")
        if refusal is not None:
            headers = {"WWW-Authenticate": refusal.challenge}
            return web.Response(text=f"{refusal.message}\n", status=refusal.status, headers=headers)
        return web.json_response(document())

    return handler


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
