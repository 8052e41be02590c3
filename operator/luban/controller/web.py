"""/metrics, /healthz and /readyz of the operator."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


async def serve(registry: CollectorRegistry, address: str, port: int) -> web.AppRunner:
    """Start the server; the caller cleans it up. Raises OSError if the address is taken."""
    app = web.Application()
    app.router.add_get("/metrics", _metrics(registry))
    app.router.add_get("/healthz", _fine)
    app.router.add_get("/readyz", _fine)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner


def _metrics(registry: CollectorRegistry) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return handler


async def _fine(_request: web.Request) -> web.Response:
    """Answers as long as the event loop turns: a stuck operator does not answer and is restarted."""
    return web.Response(text="ok\n")
