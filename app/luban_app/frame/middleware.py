"""What happens around every request, whatever answers it: VM name, metrics, sessions, balancers' probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luban_app import logs
from luban_app.frame.clock import Clock
from luban_app.frame.metrics import OTHER, Metrics
from luban_app.frame.sessions import COOKIE, SECURE_COOKIE, SessionWindow, is_cookie

VM_HEADER = "X-Luban-VM"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
_log = logs.get("luban_app.frame")


def session_of(headers: Mapping[str, str], names: Sequence[str] = (SECURE_COOKIE, COOKIE)) -> str | None:
    """The session cookie in a request's headers, under the first of `names` that has one of the right form."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return None
    found = (cookies[name].value for name in names if name in cookies)
    return next(filter(is_cookie, found), None)


def _patterns(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[tuple[Any, str]]:
    """Pairs of endpoint and path pattern, through mounts."""
    for route in routes:
        if isinstance(route, Route):
            yield route.endpoint, prefix + route.path
        elif isinstance(route, Mount):
            yield from _patterns(route.routes, prefix + route.path)


class Frame:
    """ASGI wrapper around the application: outermost, so that error pages carry the VM's name too."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        *,
        vm: str,
        clock: Clock,
        sessions: SessionWindow,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._vm = vm
        self._clock = clock
        self._sessions = sessions
        self._metrics = metrics
        self._pattern_of = dict(_patterns(routes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (or pass a lifespan message on)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if session := session_of(headers):
            # What stands behind the dot changes when the cookie is made again; the session stays.
            self._sessions.seen(session.partition(".")[0])
        with self._metrics.in_flight.track_inprogress():
            await self._answer(scope, await _grant_continue(scope, headers, receive), send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = self._clock.now()
        status = 500

        async def named_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[VM_HEADER] = self._vm
            await send(message)

        try:
            await _dispatch(self._app, scope, receive, named_send)
        finally:
            seconds = self._clock.now() - started
            route = self._pattern_of.get(scope.get("endpoint"), OTHER)
            self._metrics.observe(scope["method"], route, status, seconds)
            if status >= 500:
                _log.error(
                    "request failed",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    seconds=round(seconds, 4),
                )


async def _dispatch(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """`OPTIONS *` asks about the server as a whole (httpd's health checks do): no route can match it."""
    if scope["method"] == "OPTIONS" and scope["path"] == "*":
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"allow", b"GET, HEAD, OPTIONS"), (b"content-length", b"0")],
            }
        )
        await send({"type": "http.response.body", "body": b""})
        return
    await app(scope, receive, send)


async def _grant_continue(scope: Scope, headers: Headers, receive: Receive) -> Receive:
    """Say "100 Continue" at once to a request that waits for it and has no body.

    With `ping=` set, httpd's proxy sends `Expect: 100-continue` with every request and gives a member up that
    does not answer it in time. uvicorn sends it when the body is first read: never by a GET's handler.
    """
    waits = headers.get("expect", "").lower() == "100-continue"
    if not waits or scope["method"] not in _BODILESS or _has_body(headers):
        return receive
    first: Message | None = await receive()

    async def replay() -> Message:
        nonlocal first
        if first is not None:
            message, first = first, None
            return message
        return await receive()

    return replay


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
