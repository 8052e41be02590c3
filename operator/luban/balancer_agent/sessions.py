"""Counting sticky sessions: distinct cookies that members answered to within the last minute.

httpd counts sticky sessions nowhere, so its request log has the session of each request that came with a cookie of
ours: one that it has signed (see render.httpd_front). A client that throws its cookies away is never counted: it is
bound to no member.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from luban.balancer_agent.requests import WINDOW_SECONDS, Request

MOST_SESSIONS = 200_000
"""Per member; beyond this none is added. Who asks without a cookie gets one, so clients can have any number."""


@dataclass
class _Seen:
    """Sessions of one member: when each was last seen, and from where it was counted."""

    sessions: OrderedDict[str, tuple[float, str]] = field(default_factory=OrderedDict)
    origins: Counter[str] = field(default_factory=Counter)

    def add(self, session: str, moment: float, origin: str, bound: int) -> None:
        """Take a request. A session stays with the origin that it was first counted for."""
        if session in self.sessions:
            origin = self.sessions[session][1]
        elif len(self.sessions) >= MOST_SESSIONS or (bound and self.origins[origin] >= bound):
            return
        else:
            self.origins[origin] += 1
        self.sessions[session] = moment, origin
        self.sessions.move_to_end(session)

    def forget(self, before: float) -> None:
        """Leave out what was last seen before a moment."""
        while self.sessions and next(iter(self.sessions.values()))[0] < before:
            _, (_, origin) = self.sessions.popitem(last=False)
            self.origins[origin] -= 1
            if not self.origins[origin]:
                del self.origins[origin]


class SessionWindow:
    """Sessions by route. Times are seconds of a monotonic clock, that of the agent."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = defaultdict(_Seen)

    def add(self, requests: Iterable[Request], bound: int = 0) -> None:
        """Take requests, oldest first. `bound`: most sessions that one origin counts for, per member; 0: any number."""
        for it in requests:
            if it.session and it.answered == it.asked:
                self._seen[it.answered].add(it.session, it.moment, it.origin, bound)

    def counts(self, now: float) -> dict[str, int]:
        """Sessions of the last minute by route."""
        for route, seen in list(self._seen.items()):
            seen.forget(now - WINDOW_SECONDS)
            if not seen.sessions:
                del self._seen[route]
        return {route: len(seen.sessions) for route, seen in self._seen.items()}
