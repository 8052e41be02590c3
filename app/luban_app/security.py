"""Who sends a request and whether it may change anything: signed session cookies, CSRF tokens, origins, headers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from itsdangerous import BadSignature, TimestampSigner
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luban_app import logs
from luban_app.frame.middleware import session_of
from luban_app.frame.sessions import COOKIE, SECURE_COOKIE, is_session, new_session
from luban_app.house.records import StoreUnavailableError

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 300
"""Fields of a form: one an indicator, and a few more."""
MAX_FIELD_LENGTH = 8_000
"""Characters of one field, in any form: notes of full length as the browser encodes them are shorter."""
SESSION_SECONDS = 180 * 24 * 3600
"""How long a session lives after its cookie was made: records are out of reach without it."""
TROUBLE_SECONDS = 60.0
"""So long no cookie is made again after the store could not be told of one."""
RENEW_SECONDS = 30 * 24 * 3600
"""A cookie older than this is made again, so that a session ends only for those who stay away."""
AWAY_DAYS = (SESSION_SECONDS - RENEW_SECONDS) // (24 * 3600)
"""Whoever comes back within so many days finds the session as it was."""
CSRF_FIELD = "csrf"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_STATE = "luban_visitor"
_log = logs.get("luban_app.security")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

Secret = Callable[[], Awaitable[bytes]]
"""Gives the key that is the same on every VM. Raises StoreUnavailableError."""
Touch = Callable[[str], Awaitable[None]]
"""Is told of a session whose cookie is made again. Raises StoreUnavailableError."""


@dataclass(frozen=True)
class Visitor:
    """Whoever sends the request: `session` owns records, `csrf` goes into every form (field CSRF_FIELD)."""

    session: str
    csrf: str
    fresh: bool
    """Whether the session begins with this request."""


class _Signer(TimestampSigner):
    """Signs with the second of a clock of ours."""

    def __init__(self, secret: bytes, now: Callable[[], float]) -> None:
        super().__init__(secret, salt="luban.session", digest_method=hashlib.sha256)
        self._now = now

    def get_timestamp(self) -> int:
        """Seconds since 1970."""
        return int(self._now())


@dataclass(frozen=True)
class Known:
    """A session whose cookie is good; `age` is the cookie's, in seconds."""

    session: str
    age: float


class Keys:
    """Signs and checks with the store's secret."""

    def __init__(self, secret: bytes, now: Callable[[], float] = time.time) -> None:
        self._signer = _Signer(secret, now)
        self._csrf_key = hmac.digest(secret, b"luban.csrf", "sha256")

    def cookie(self, session: str) -> str:
        """The cookie's value for a session."""
        return self._signer.sign(session).decode()

    def session(self, cookie: str | None) -> Known | None:
        """The session in a cookie's value, or None if we never signed it, or too long ago."""
        if cookie is None:
            return None
        try:
            value, made = self._signer.unsign(cookie, return_timestamp=True)
            session = value.decode()
        except (BadSignature, UnicodeError):
            return None
        # Not by `max_age`: that refuses what another VM, whose clock is ahead of ours, has just signed.
        age = max(0.0, self._signer.get_timestamp() - made.timestamp())
        return Known(session, age) if is_session(session) and age <= SESSION_SECONDS else None

    def csrf(self, session: str) -> str:
        """The token that a form of this session carries."""
        digest = hmac.digest(self._csrf_key, session.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def csrf_matches(self, session: str, token: str) -> bool:
        """Whether `token` is this session's; takes the same time for every wrong one."""
        return hmac.compare_digest(self.csrf(session).encode(), token.encode("utf-8", "surrogatepass"))


@dataclass
class _Pending:
    """What the guard keeps for one request: the visitor, once somebody asks for them."""

    guard: Guard
    visitor: Visitor | None = None
    cookie: str = ""
    """To be sent; empty: the browser's own is good for a while."""


@dataclass
class Guard:
    """Gives every response its headers, bounds every body, and tells who the visitor is."""

    secret: Secret
    always_secure: bool = False
    """Mark the cookie Secure even if the request seems to have come by plain HTTP."""
    touch: Touch | None = None
    now: Callable[[], float] = time.time
    """Seconds since 1970."""
    _keys: Keys | None = field(default=None, repr=False)
    _touching: asyncio.Task[None] | None = field(default=None, repr=False)
    _touch_after: float = 0.0
    """While the store is in trouble, it is not told of anything before this second."""

    async def keys(self) -> Keys:
        """The keys, made once. Raises StoreUnavailableError."""
        if self._keys is None:
            self._keys = Keys(await self.secret(), self.now)
        return self._keys

    def renews(self, known: Known) -> bool:
        """Whether to make a session's cookie again. The store is told of it meanwhile, of one session at a time.

        Should it not hear of it: what it keeps, it keeps for more than two lives of a cookie.
        """
        if known.age <= RENEW_SECONDS or self.now() < self._touch_after:
            return False
        if self._touching is not None and not self._touching.done():
            return False
        if self.touch is not None:
            self._touching = asyncio.create_task(self._tell(self.touch, known.session))
        return True

    async def _tell(self, touch: Touch, session: str) -> None:
        try:
            await touch(session)
        except StoreUnavailableError as error:
            _log.warning("the store did not hear that a session lives on", error=str(error), reason=error.reason)
            self._touch_after = self.now() + TROUBLE_SECONDS

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The guard as a middleware around `app`."""
        return _Guarded(app, self)

    def cookie_name(self, scope: Scope) -> str:
        """What the session's cookie is called on the way that this request came."""
        return SECURE_COOKIE if self.always_secure or _is_https(scope) else COOKIE

    def set_cookie(self, scope: Scope, cookie: str) -> str:
        """The Set-Cookie header."""
        name = self.cookie_name(scope)
        value = f"{name}={cookie}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Lax"
        return f"{value}; Secure" if name == SECURE_COOKIE else value


@dataclass(frozen=True)
class _Guarded:
    app: ASGIApp
    guard: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        pending = _Pending(self.guard)
        scope.setdefault("state", {})[_STATE] = pending

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(scope=message), scope, pending)
            await send(message)

        await self.app(scope, _bounded(receive), guarded_send)


def _add_headers(headers: MutableHeaders, scope: Scope, pending: _Pending) -> None:
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if pending.visitor is not None:
        headers.setdefault("Cache-Control", "no-store")
        if pending.cookie:
            headers.append("Set-Cookie", pending.guard.set_cookie(scope, pending.cookie))


def _bounded(receive: Receive) -> Receive:
    """A `receive` that stops with 413 where the body gets longer than MAX_BODY_BYTES, whatever its head promised."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
        return message

    return bounded


async def visitor(request: HTTPConnection) -> Visitor:
    """Who sends this request. A new session begins where there is none: the response then carries its cookie, and
    that of an old one which is to live on.

    Raises StoreUnavailableError, because only the database knows the key.
    """
    pending: _Pending = request.scope["state"][_STATE]
    if pending.visitor is None:
        keys = await pending.guard.keys()
        known = keys.session(session_of(request.headers, [pending.guard.cookie_name(request.scope)]))
        session = known.session if known else new_session()
        if known is None or pending.guard.renews(known):
            pending.cookie = keys.cookie(session)
        pending.visitor = Visitor(session, keys.csrf(session), fresh=known is None)
    return pending.visitor


async def form(request: Request) -> dict[str, str]:
    """The fields of a form that may change something: of our own page, with the session's token, and within bounds.

    Raises HTTPException: 403 from elsewhere or without the token, 413 too much, 415 another type, 400 malformed.
    """
    require_same_origin(request)
    fields = await fields_of(request)
    who = await visitor(request)
    keys = await request.scope["state"][_STATE].guard.keys()
    if who.fresh or not keys.csrf_matches(who.session, fields.pop(CSRF_FIELD, "")):
        raise HTTPException(403, "the form has expired: load the page again")
    return fields


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form as it was sent, within bounds but from anybody; of a repeated field, the last counts.

    Raises HTTPException as `form` does.
    """
    if _media_type(request.headers) != "application/x-www-form-urlencoded":
        raise HTTPException(415, "expected application/x-www-form-urlencoded")
    try:
        text = (await body_of(request)).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise HTTPException(400, "the form is malformed or has too many fields") from error
    if any(len(name) > MAX_FIELD_LENGTH or len(value) > MAX_FIELD_LENGTH for name, value in pairs):
        raise HTTPException(413, f"a field is longer than {MAX_FIELD_LENGTH} characters")
    return dict(pairs)


async def body_of(request: Request) -> bytes:
    """The whole body. Raises HTTPException 413, before reading anything if its head already says so."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 9 or int(announced) > MAX_BODY_BYTES):
        raise HTTPException(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return await request.body()


def require_json(request: Request) -> None:
    """Of an unsafe API request with a body: JSON, which no form of another site can send. Raises 415."""
    if _media_type(request.headers) != "application/json":
        raise HTTPException(415, "expected application/json")


def require_same_origin(request: Request) -> None:
    """Refuse an unsafe request that a browser sends for another site's page. Raises HTTPException 403.

    A program sends neither header; a browser always sends one of them, and no page can change it.
    """
    if request.method in _SAFE:
        return
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in {"same-origin", "none"}:
        raise HTTPException(403, "the request comes from another site")
    origin = request.headers.get("origin")
    if origin is not None and _host_of(origin) not in _own_hosts(request.headers):
        raise HTTPException(403, "the request comes from another site")


def _own_hosts(headers: Headers) -> set[str]:
    """Names that the browser knows us by. A page cannot set X-Forwarded-Host on a request to another site."""
    names = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    return {name.strip().lower() for name in names} - {""}


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_https(scope: Scope) -> bool:
    """Whether the visitor came by https, to us or to the balancer. Lying about it harms only the liar's own cookie."""
    return scope.get("scheme") == "https" or Headers(scope=scope).get("x-forwarded-proto", "").lower() == "https"
