"""Who is answered at /v1/report: the operator that the agent was told of, whose token the API server vouches for.

Anybody may ask, so what a question costs is bounded: verdicts are remembered, the good ones and the bad ones, by a hash
of the token; and new questions to the API server have a budget, for each address and for all together.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from luban.adapters.http_endpoints import Refusal
from luban.api.names import AGENT_REALM, OPERATOR_USER
from luban.errors import LubanError

log = structlog.get_logger(__name__)

DEFAULT_OPERATOR = OPERATOR_USER
GOOD_SECONDS, BAD_SECONDS = 300.0, 10.0
"""For so long a verdict holds."""
AGAIN_SECONDS = 10.0
"""Until the API server is asked again about a token that was good, when it did not answer."""
MOST_VERDICTS, MOST_ADDRESSES = 256, 256
BURST, PER_SECOND = 10.0, 0.5
"""Questions to the API server that one address may cause: at once, and from then on."""
TOTAL_BURST, TOTAL_PER_SECOND = 50.0, 10.0
"""And all addresses together."""

_BEARER = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/-]+=*) *")
_REMEDY = "or start the agent with --open-reports to answer anybody"


def _refuse(status: int, message: str) -> Refusal:
    return Refusal(status, message, AGENT_REALM)


def no_token(audience: str) -> Refusal:
    """There is none."""
    return _refuse(401, f"reports are for the operator alone: show its token for {audience}, {_REMEDY}")


def bad_token(audience: str) -> Refusal:
    """The API server does not know it, or it is for another audience."""
    why = f"this is no good token for {audience}: get a new one by a TokenRequest to the API server that the agent"
    return _refuse(401, f"{why} works with, {_REMEDY}")


UNCHECKED = _refuse(
    503, "the API server does not say whether this token is good: try again, and see the agent's log if it stays so"
)

Review = Callable[[str], Awaitable[str]]
"""Whose token it is; empty: no good one. Raises LubanError if that cannot be told now."""
Clock = Callable[[], float]
Key = TypeVar("Key")
Value = TypeVar("Value")


class Budget:
    """So many at once, and so many per second from then on."""

    def __init__(self, clock: Clock, burst: float, per_second: float) -> None:
        self._clock = clock
        self._burst, self._per_second = burst, per_second
        self._left, self._at = burst, clock()

    def take(self) -> bool:
        """Use up one, if there is one."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(frozen=True)
class Verdict:
    """What the API server said of a token."""

    user: str
    """Whose it is; empty: no good one."""
    fresh_until: float
    """By our clock: the API server is not asked again before."""
    end: float
    """By our clock: when the token ends by itself."""


class Gate:
    """Lets the operator through.

    `audience`: that of its tokens. `clock`: seconds, of any beginning. `wall`: seconds since 1970, for the end that a
    token names.
    """

    def __init__(self, review: Review, audience: str, operator: str, clock: Clock, wall: Clock) -> None:
        self._review = review
        self._audience, self._operator = audience, operator
        self._clock, self._wall = clock, wall
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        """By the token's hash; the one used last comes last."""
        self._budgets: OrderedDict[str, Budget] = OrderedDict()
        self._total = Budget(clock, TOTAL_BURST, TOTAL_PER_SECOND)
        self._logged = ""

    async def refusal(self, authorization: str, address: str) -> Refusal | None:
        """Why a request with this Authorization header is not answered; None: it is the operator's."""
        match = _BEARER.fullmatch(authorization)
        if match is None:
            return no_token(self._audience)
        verdict = await self._verdict(match[1], address)
        if verdict is None:
            return UNCHECKED
        if not verdict.user:
            return bad_token(self._audience)
        return None if verdict.user == self._operator else self._somebody_else(verdict.user)

    def _somebody_else(self, user: str) -> Refusal:
        words = f"this is the token of {user}, and the agent answers {self._operator} alone"
        return _refuse(403, f"{words}: if that is not the operator, start the agent with --operator {user}")

    async def _verdict(self, token: str, address: str) -> Verdict | None:
        """What is known of a token, or what the API server says; None: nothing."""
        key = hashlib.sha256(token.encode()).digest()
        known = self._verdicts.get(key)
        if known is None or self._clock() >= known.fresh_until:
            known = await self._asked(token, address) or self._prolonged(known)
        if known is not None:
            _keep(self._verdicts, key, known, MOST_VERDICTS)
        return known

    def _prolonged(self, known: Verdict | None) -> Verdict | None:
        """A good verdict holds while the API server is away, as long as the token."""
        now = self._clock()
        if known is None or not known.user or now >= known.end:
            return None
        return replace(known, fresh_until=min(now + AGAIN_SECONDS, known.end))

    async def _asked(self, token: str, address: str) -> Verdict | None:
        """What the API server says; None: nothing."""
        if not self._may_ask(address):
            return None
        try:
            user = await self._review(token)
        except LubanError as error:
            self._tell(error.message)
            return None
        self._logged = ""
        now = self._clock()
        if not user:
            return Verdict("", now + BAD_SECONDS, now + BAD_SECONDS)
        end = now + _left(token, self._wall(), GOOD_SECONDS)
        return Verdict(user, min(now + GOOD_SECONDS, end), end)

    def _may_ask(self, address: str) -> bool:
        own = self._budgets.get(address) or Budget(self._clock, BURST, PER_SECOND)
        _keep(self._budgets, address, own, MOST_ADDRESSES)
        return own.take() and self._total.take()

    def _tell(self, why: str) -> None:
        """Say why tokens cannot be checked, once as long as it is the same."""
        if why != self._logged:
            self._logged = why
            log.warning("tokens cannot be checked: new ones are refused", error=why)


def _keep(table: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Note an entry as the one used last; the oldest gives way."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)


def _left(token: str, now: float, default: float) -> float:
    """Seconds until the end that a token names (RFC 7519: `exp`); `default` if it names none.

    Nothing is checked here: the API server has.
    """
    try:
        payload = token.split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        return float(end) - now
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return default
