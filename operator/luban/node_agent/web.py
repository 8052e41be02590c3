"""The agent's own HTTP endpoints: metrics and liveness."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class Web:
    """A listening server; `close` ends it."""

    def __init__(self, alive: Callable[[], bool], registry: CollectorRegistry) -> None:
        self._alive = alive
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def listen(self, address: str, port: int) -> None:
        """Begin to answer. Raises OSError if the port is taken."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port).start()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [address[:2] for address in self._runner.addresses] if self._runner is not None else []

    async def close(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _health(self, _: web.Request) -> web.Response:
        if self._alive():
            return web.Response(text="ok\n")
        return web.Response(text="bonds are not read any more\n", status=503)
