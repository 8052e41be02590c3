"""Sessions: the cookie that tells one visitor from another, and how many were here lately."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable

COOKIE = "luban_session"
SECURE_COOKIE = "__Host-luban_session"
"""Its name over https: no other host of the domain, and nobody on a plain connection, can set a cookie called so."""
WINDOW_SECONDS = 60.0
MAX_SESSIONS = 100_000
"""Cookies remembered at most (about 15 MB): a flood of invented cookies must not eat the memory of the VM."""

_TOKEN_BYTES = 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_COOKIE = re.compile(r"[A-Za-z0-9_-]{22}(\.[A-Za-z0-9_-]{1,16}\.[A-Za-z0-9_-]{1,64})?")


def new_session() -> str:
    """A session id nobody can guess: 128 random bits, 22 URL-safe characters."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_session(value: str | None) -> bool:
    """Whether `value` has the form of a session id (it need not be one that we gave out)."""
    return value is not None and _TOKEN.fullmatch(value) is not None


def is_cookie(value: str | None) -> bool:
    """Whether `value` has the form of the cookie: a session id, and its time and signature, if it is signed."""
    return value is not None and _COOKIE.fullmatch(value) is not None


class SessionWindow:
    """Counts the distinct sessions seen in the last `window` seconds."""

    def __init__(self, now: Callable[[], float], window: float = WINDOW_SECONDS, limit: int = MAX_SESSIONS) -> None:
        self._now = now
        self._window = window
        self._limit = limit
        self._last_seen: OrderedDict[str, float] = OrderedDict()

    def seen(self, session: str) -> None:
        """Note that `session` made a request now. Beyond the limit, forget the one unseen for longest."""
        self._last_seen[session] = self._now()
        self._last_seen.move_to_end(session)
        if len(self._last_seen) > self._limit:
            self._last_seen.popitem(last=False)

    def active(self) -> int:
        """Distinct sessions seen less than `window` seconds ago."""
        oldest = self._now() - self._window
        while self._last_seen:
            session, when = next(iter(self._last_seen.items()))
            if when > oldest:
                break
            del self._last_seen[session]
        return len(self._last_seen)
