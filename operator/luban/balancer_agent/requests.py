"""httpd's request log: whom members answered, and how soon. Two of the four quantities of Luban cloud [L] 3.1 are in it
alone, the number of concurrent users and the mean response time; httpd counts neither.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
"""Whoever asked so long ago is there still."""
MOST_USERS = 200_000
"""Beyond this none is added: clients of IPv6 can have any number of addresses."""
_FIELDS = 6
_SECOND = re.compile(r"[0-9]{1,15}")
_MICROSECONDS = re.compile(r"[0-9]{1,15}")
_NETWORK_BITS = 64
"""An IPv6 client has a network of this prefix to itself."""
_NONE = "-"


@dataclass(frozen=True, slots=True)
class Request:
    """One request that a member answered."""

    moment: float
    """When it ended, in seconds of a monotonic clock, that of the agent."""
    answered: str
    """Route of the member that answered."""
    asked: str
    """Route of the member that its cookie names; empty: there is no cookie of ours."""
    session: str
    """Session of the cookie that we signed; empty: none."""
    origin: str
    """Address of the client, or its IPv6 network."""
    seconds: float | None
    """From its first byte to the first one of the answer; None: there was no answer."""


class RequestLog:
    """Takes the lines that httpd wrote, and says when the requests were.

    httpd logs the time of day, which can be set: it only tells how much older than the last line of a batch the others
    are, and they cannot be older than the batch before.
    """

    def __init__(self) -> None:
        self._read_at = -math.inf

    def take(self, lines: Sequence[str], now: float) -> list[Request]:
        """The requests of all lines that the log got since the last call, oldest first. Moments never go back."""
        found = [fields for line in lines if (fields := _fields(line))]
        moment, requests = self._read_at, []
        for fields in found:
            age = max(0.0, float(found[-1][0]) - float(fields[0]))
            moment = max(moment, now - age)
            requests.append(_request(moment, fields))
        self._read_at = now
        return requests


def _fields(line: str) -> list[str]:
    """The fields of a line; none: it is not one of ours, was cut short, or no member answered."""
    fields = line.split(" ")
    return fields if len(fields) == _FIELDS and _SECOND.fullmatch(fields[0]) and fields[1] != _NONE else []


def _request(moment: float, fields: Sequence[str]) -> Request:
    _, answered, asked, session, address, first_byte = fields
    return Request(
        moment,
        answered,
        "" if asked == _NONE else asked,
        "" if session == _NONE else session,
        _origin(address),
        int(first_byte) / 1e6 if _MICROSECONDS.fullmatch(first_byte) else None,
    )


def _origin(address: str) -> str:
    """Whom an address belongs to. A line that a full disk cut short may hold anything."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], _NETWORK_BITS), strict=False))
    except ValueError:
        return address


@dataclass(frozen=True)
class Answers:
    """How many requests a member answered since the agent started, and how soon."""

    count: int = 0
    seconds: float = 0.0
    """From each request to the first byte of its answer, all added up."""


class Traffic:
    """Who used the balancer lately, and how soon members answered."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, float] = OrderedDict()
        self._answers: defaultdict[str, Answers] = defaultdict(Answers)

    def add(self, requests: Iterable[Request]) -> None:
        """Take requests, oldest first."""
        for it in requests:
            self._add_user(it.session or it.origin, it.moment)
            if it.seconds is not None:
                known = self._answers[it.answered]
                self._answers[it.answered] = Answers(known.count + 1, known.seconds + it.seconds)

    def _add_user(self, user: str, moment: float) -> None:
        if user in self._users or len(self._users) < MOST_USERS:
            self._users[user] = moment
            self._users.move_to_end(user)

    def users(self, now: float) -> int:
        """Distinct users of the last minute: sessions where there are cookies of ours, else addresses."""
        while self._users and next(iter(self._users.values())) < now - WINDOW_SECONDS:
            self._users.popitem(last=False)
        return len(self._users)

    def answers(self) -> Mapping[str, Answers]:
        """By route of the member."""
        return dict(self._answers)

    def keep(self, routes: Iterable[str]) -> None:
        """Forget all members but these."""
        for gone in self._answers.keys() - set(routes):
            del self._answers[gone]
