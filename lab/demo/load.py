"""Load: a number of users, each with one request after the other, bounded in number and time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

REQUEST_TIMEOUT = 60.0
PAUSE_AFTER_FAILURE = 0.5
"""A user whose request failed waits so long, as a person would."""


@dataclass(frozen=True)
class Failure:
    """A request that did not end with 200. Times on the monotonic clock, in seconds."""

    sent: float
    ended: float
    what: str


@dataclass
class Outcome:
    """What became of all requests."""

    sent: int = 0
    answered: int = 0
    failures: list[Failure] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    per_vm: Counter[str] = field(default_factory=Counter)
    first_answer: dict[str, float] = field(default_factory=dict)
    """When each VM first answered, on the monotonic clock."""


class Load:
    """Users that come and go. Each holds one request of `hold` seconds open, then sends the next."""

    def __init__(self, url: str, *, hold: float, limit: int) -> None:
        """`limit`: requests after which every user stops, so that the load ends by itself."""
        self.url = f"{url}/work?seconds={hold:g}"
        self.hold = hold
        self.limit = limit
        self.outcome = Outcome()
        self._users: list[asyncio.Task[None]] = []
        self._leaving: set[int] = set()
        self._session: aiohttp.ClientSession | None = None
        self.in_flight = 0
        """Requests that wait for their answer."""

    @property
    def users(self) -> int:
        """Users that have not been asked to leave."""
        return len(self._users) - len(self._leaving)

    @property
    def present(self) -> int:
        """Users who still wait for an answer or will ask again."""
        return sum(not user.done() for user in self._users)

    async def set_users(self, count: int) -> None:
        """Let users come, or leave after the request that they wait for."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        for number in range(len(self._users)):
            if self.users > count and number not in self._leaving:
                self._leaving.add(number)
        while self.users < count:
            number = len(self._users)
            # Users arrive spread over one request's length, not all at the same moment.
            delay = self.hold * (number % max(1, count)) / max(1, count)
            self._users.append(asyncio.ensure_future(self._user(number, delay)))

    async def stop(self) -> Outcome:
        """Let everybody finish, then close."""
        await self.set_users(0)
        await asyncio.gather(*self._users)
        if self._session is not None:
            await self._session.close()
        return self.outcome

    async def _user(self, number: int, delay: float) -> None:
        await asyncio.sleep(delay)
        while number not in self._leaving and self.outcome.sent < self.limit:
            await self._request()

    async def _request(self) -> None:
        if self._session is None:
            return
        outcome, sent = self.outcome, time.monotonic()
        outcome.sent += 1
        self.in_flight += 1
        try:
            async with self._session.get(self.url) as answer:
                await answer.read()
                what = "" if answer.status == 200 else f"status {answer.status}"
                vm = answer.headers.get("X-Luban-VM", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what, vm = repr(error), ""
        finally:
            self.in_flight -= 1
        ended = time.monotonic()
        if what:
            outcome.failures.append(Failure(sent, ended, what))
            await asyncio.sleep(PAUSE_AFTER_FAILURE)
            return
        outcome.answered += 1
        outcome.latencies.append(ended - sent)
        outcome.per_vm[vm] += 1
        outcome.first_answer.setdefault(vm, ended)
