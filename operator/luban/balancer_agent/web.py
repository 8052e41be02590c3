"""The agent's own HTTP endpoints: report, metrics, probes."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from luban.adapters.balancers_http import REPORT_PATH, report_json
from luban.core.model import BalancerReport, ClusterRef
from luban.errors import PermanentError


class AgentState(Protocol):
    """What the endpoints tell about."""

    def report(self) -> BalancerReport:
        """What the balancer does now."""

    def alive(self) -> bool:
        """Whether the agent still looks at httpd regularly."""

    def serving(self) -> bool:
        """Whether httpd answers, with the wanted settings or the last good ones."""


class Web:
    """A listening server; `close` ends it."""

    def __init__(
        self,
        speaker: AgentState,
        cluster: ClusterRef,
        registry: CollectorRegistry,
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._speaker = speaker
        self._cluster = cluster
        self._registry = registry
        self._refresh = refresh
        self._runner: web.AppRunner | None = None

    async def listen(self, address: str, port: int) -> None:
        """Begin to answer. Raises PermanentError if the port is taken, or the address not ours."""
        app = web.Application()
        app.router.add_get(REPORT_PATH, self._report)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, address, port).start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            remedy = "choose another with --report-address and --report-port"
            raise PermanentError("ReportPortTaken", f"report at {address}:{port}: {why}: {remedy}") from error

    async def close(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _report(self, _: web.Request) -> web.Response:
        return web.json_response(report_json(self._speaker.report(), self._cluster))

    async def _metrics(self, _: web.Request) -> web.Response:
        await self._refresh()
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _health(self, _: web.Request) -> web.Response:
        return _answer(self._speaker.alive(), {"alive": "the agent does not look at httpd any more"})

    async def _readiness(self, _: web.Request) -> web.Response:
        return _answer(self._speaker.serving(), {"serving": "httpd does not serve"})


def _answer(good: bool, trouble: Mapping[str, str]) -> web.Response:
    return web.Response(text="ok\n") if good else web.json_response(dict(trouble), status=503)
