"""Counting sticky sessions: distinct cookies that members answered to within the last minute.

httpd counts sticky sessions nowhere, so it logs each request that came with a cookie of ours (see render.httpd).
A client that throws its cookies away is never counted: it is bound to no member.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable

WINDOW_SECONDS = 60.0
MOST_SESSIONS = 200_000
"""Per member. Cookies come from clients, who can invent any number: beyond this none is added."""


class SessionWindow:
    """Sessions by route. Times are seconds since the epoch, as httpd logs them."""

    def __init__(self) -> None:
        self._seen: dict[str, OrderedDict[bytes, float]] = defaultdict(OrderedDict)

    def add(self, lines: Iterable[str]) -> None:
        """Take lines of the session log: second, member that answered, member that the cookie names, cookie."""
        for line in lines:
            moment, _, rest = line.partition(" ")
            answered, _, rest = rest.partition(" ")
            bound, _, cookie = rest.partition(" ")
            if answered == bound and moment.isdecimal():
                self._add(answered, cookie, float(moment))

    def _add(self, route: str, cookie: str, moment: float) -> None:
        sessions = self._seen[route]
        key = hashlib.blake2b(cookie.encode(), digest_size=8).digest()
        if key in sessions or len(sessions) < MOST_SESSIONS:
            sessions[key] = moment
            sessions.move_to_end(key)

    def counts(self, now: float) -> dict[str, int]:
        """Sessions of the last minute by route."""
        for route, sessions in list(self._seen.items()):
            while sessions and next(iter(sessions.values())) < now - WINDOW_SECONDS:
                sessions.popitem(last=False)
            if not sessions:
                del self._seen[route]
        return {route: len(sessions) for route, sessions in self._seen.items()}
