"""The application: its routes and what they need."""

from __future__ import annotations

import html
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ExceptionHandler, Lifespan

from luban_app.frame.clock import Clock, SystemClock
from luban_app.frame.metrics import CONTENT_TYPE, Metrics
from luban_app.frame.middleware import Frame, session_of
from luban_app.frame.sessions import COOKIE, SessionWindow, new_session

Check = Callable[[], Awaitable[None]]
"""A readiness check: raises, with a message for people, if what it looks at is not usable."""

MAX_WORK_SECONDS = 60.0
MAX_CPU_SECONDS = 5.0

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Luban</title></head>
<body><h1>Luban</h1><p>Served by <strong id="vm">{vm}</strong>.</p></body>
</html>
"""


class BadParameterError(ValueError):
    """A query parameter is not usable; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def bounded(query: Mapping[str, str], name: str, default: float, most: float) -> float:
    """The number `name` of a query, 0..`most`, or `default` if absent. Raises BadParameterError otherwise."""
    text = query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise BadParameterError(name, f"{name}: must be a number of seconds from 0 to {most:g}")
    return value


@dataclass(frozen=True)
class Endpoints:
    """The handlers of the frame's own routes, with what they need."""

    vm: str
    clock: Clock
    metrics: Metrics
    checks: Mapping[str, Check]
    experiments: bool = False
    """Offer `work`. Never where strangers come: a few requests keep a processor busy."""

    async def healthz(self, request: Request) -> Response:
        """Live: the process answers. Looks at nothing else: a lost database must not replace the VMs."""
        if request.method == "OPTIONS":
            return Response(headers={"Allow": "GET, HEAD, OPTIONS"})
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """Ready: all checks pass. 503 otherwise, with what each of them says."""
        if request.method == "OPTIONS":
            return Response(headers={"Allow": "GET, HEAD, OPTIONS"})
        failed: dict[str, str] = {}
        for name, check in self.checks.items():
            try:
                await check()
            except Exception as error:  # noqa: BLE001 - a check may fail in any way; all of them mean "not ready"
                failed[name] = str(error)
        if failed:
            return JSONResponse({"ready": False, "failed": failed}, status_code=503)
        return JSONResponse({"ready": True})

    async def expose(self, _request: Request) -> Response:
        """Prometheus' view."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def page(self, request: Request) -> Response:
        """A page that names the VM and starts a session."""
        response = HTMLResponse(_PAGE.format(vm=html.escape(self.vm)))
        if session_of(request.headers) is None:
            response.set_cookie(COOKIE, new_session(), httponly=True, samesite="lax")
        return response

    async def work(self, request: Request) -> Response:
        """Take `seconds` (0..60), `cpu` (0..5) of them of processor time: a known load for experiments."""
        try:
            seconds = bounded(request.query_params, "seconds", 0.5, MAX_WORK_SECONDS)
            cpu = bounded(request.query_params, "cpu", 0.0, MAX_CPU_SECONDS)
        except BadParameterError as error:
            return JSONResponse({"field": error.field, "error": str(error)}, status_code=400)
        started = self.clock.now()
        await self.clock.burn(cpu)
        await self.clock.sleep(max(0.0, seconds - (self.clock.now() - started)))
        return JSONResponse({"vm": self.vm, "seconds": seconds, "cpu": cpu})

    def routes(self) -> list[BaseRoute]:
        """The frame's routes."""
        probe = ["GET", "HEAD", "OPTIONS"]
        experiments = [Route("/work", self.work)] if self.experiments else []
        return [
            Route("/healthz", self.healthz, methods=probe),
            Route("/readyz", self.readyz, methods=probe),
            Route("/metrics", self.expose),
            *experiments,
            Route("/", self.page),
        ]


@dataclass(frozen=True)
class Extension:
    """What the service proper adds to the frame. Its routes come first: it may replace the frame's page."""

    routes: Sequence[BaseRoute] = ()
    checks: Mapping[str, Check] = field(default_factory=dict)
    lifespan: Lifespan[Starlette] | None = None
    middleware: Sequence[Middleware] = ()
    """Around all routes, the frame's own too."""
    exception_handlers: Mapping[Any, ExceptionHandler] = field(default_factory=dict)
    """By status or class of the exception."""


def create_app(
    vm: str, *, clock: Clock | None = None, extension: Extension | None = None, experiments: bool = False
) -> Frame:
    """The ASGI application of the VM called `vm`; only with `experiments` it does work on demand."""
    clock = clock or SystemClock()
    extension = extension or Extension()
    sessions = SessionWindow(clock.now)
    metrics = Metrics(sessions)
    endpoints = Endpoints(vm=vm, clock=clock, metrics=metrics, checks=extension.checks, experiments=experiments)
    routes = [*extension.routes, *endpoints.routes()]
    app = Starlette(
        routes=routes,
        lifespan=extension.lifespan,
        middleware=extension.middleware,
        exception_handlers=extension.exception_handlers,
    )
    return Frame(app, routes, vm=vm, clock=clock, sessions=sessions, metrics=metrics)
