"""Counting sticky sessions: distinct cookies that members answered to within the last minute.

httpd counts sticky sessions nowhere, so it logs each request that came with a cookie of ours: one that it has signed
(see render.httpd_front). A client that throws its cookies away is never counted: it is bound to no member.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

WINDOW_SECONDS = 60.0
MOST_SESSIONS = 200_000
"""Per member; beyond this none is added. Who asks without a cookie gets one, so clients can have any number."""
_FIELDS = 5
_SECOND = re.compile(r"[0-9]{1,15}")
_NETWORK_BITS = 64
"""An IPv6 client has a network of this prefix to itself."""


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
    """Sessions by route. Times are seconds of a monotonic clock, that of the agent.

    httpd logs the time of day, which can be set: it only tells how much older than the last line of a batch the others
    are, and they cannot be older than the batch before.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = defaultdict(_Seen)
        self._read_at = -math.inf

    def add(self, lines: Sequence[str], now: float, bound: int = 0) -> None:
        """Take all lines that the session log got since the last call, oldest first.

        A line: second of the request's end, member that answered, member of the cookie, session, client's address.
        `bound`: most sessions that one origin counts for, per member; 0: any number.
        """
        requests = [fields for line in lines if (fields := _request(line))]
        moment = self._read_at
        for second, answered, member, session, address in requests:
            age = max(0.0, float(requests[-1][0]) - float(second))
            # Never back: the sessions are in the order in which they were last seen.
            moment = max(moment, now - age)
            if answered == member:
                self._seen[answered].add(session, moment, _origin(address), bound)
        self._read_at = now

    def counts(self, now: float) -> dict[str, int]:
        """Sessions of the last minute by route."""
        for route, seen in list(self._seen.items()):
            seen.forget(now - WINDOW_SECONDS)
            if not seen.sessions:
                del self._seen[route]
        return {route: len(seen.sessions) for route, seen in self._seen.items()}


def _request(line: str) -> list[str]:
    """The fields of a line; none: it is not one of ours, or was cut short."""
    fields = line.split(" ")
    return fields if len(fields) == _FIELDS and _SECOND.fullmatch(fields[0]) else []


def _origin(address: str) -> str:
    """Whom an address belongs to. A line that a full disk cut short may hold anything."""
    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], _NETWORK_BITS), strict=False))
    except ValueError:
        return address
