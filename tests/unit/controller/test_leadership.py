"""Of several operators one acts, and never two: under the event loop's virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from luban.controller.leadership import (
    LEASE_SECONDS,
    LONGEST_LEASE_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    SURE_SECONDS,
    Leader,
)
from luban.ports import LeaseRecord
from tests.fakes.lease import FakeLease, LeaseWay
from tests.fakes.operator_harness import LoopClock

pytestmark = pytest.mark.looptime(end=3600)


class SetClock(LoopClock):
    """A machine whose time of day somebody sets."""

    offset = 0.0

    def now(self) -> float:
        """Wrong by `offset`."""
        return super().monotonic() + self.offset

    def monotonic(self) -> float:
        """Nobody sets it."""
        return super().now() - self.offset


class Operator:
    """An operator as far as the Lease goes: it leads in terms, until it is stopped or killed."""

    def __init__(self, hall: Hall, name: str) -> None:
        self.name, self.clock = name, SetClock()
        self.way: LeaseWay = hall.lease.store()
        self.leader = Leader(self.way, name, self.clock, lambda identity: identity in hall.dead)
        self.stop = asyncio.Event()
        self.ends: list[asyncio.Future[object]] = []
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while await self.leader.acquire(self.stop):
            self.ends = [asyncio.ensure_future(self.leader.keep()), asyncio.ensure_future(self.stop.wait())]
            await asyncio.wait(self.ends, return_when=asyncio.FIRST_COMPLETED)
            for end in self.ends:
                end.cancel()
            await self.leader.release()

    def kill(self) -> None:
        """kill -9: nothing of it runs any more, and nobody is told."""
        for task in (self.task, *self.ends):
            task.cancel()


class Hall:
    """The Lease, and who stands around it."""

    def __init__(self) -> None:
        self.lease = FakeLease()
        self.dead: set[str] = set()
        """Processes that ended on the very machine of those who ask."""
        self.operators: list[Operator] = []
        self.two = 0
        """Looks in which two were sure that they may act."""

    def enter(self, name: str) -> Operator:
        """Another operator is started."""
        self.operators.append(Operator(self, name))
        return self.operators[-1]

    def acting(self) -> list[str]:
        """Who may act now."""
        return [it.name for it in self.operators if it.leader.held() and not it.task.done()]

    async def pass_time(self, seconds: float) -> None:
        """Time goes by, and every 50 ms somebody looks."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            self.two += len(self.acting()) > 1
            await asyncio.sleep(0.05)

    async def seconds_until(self, name: str) -> float:
        """How long it takes until this one acts; 60 s at most."""
        begun = asyncio.get_running_loop().time()
        while self.acting() != [name] and asyncio.get_running_loop().time() - begun < 60:
            await self.pass_time(0.05)
        return asyncio.get_running_loop().time() - begun


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    found = Hall()
    yield found
    for operator in found.operators:
        operator.kill()
    await asyncio.gather(*(it.task for it in found.operators), return_exceptions=True)
    assert found.two == 0, "never two"


async def test_the_first_leads_at_once_and_goes_on_leading(hall: Hall) -> None:
    hall.enter("a")
    assert await hall.seconds_until("a") < 0.2
    hall.enter("b")
    for _ in range(100):
        await hall.pass_time(5)
        assert hall.acting() == ["a"]


async def test_of_two_that_begin_together_one_leads(hall: Hall) -> None:
    first, second = hall.enter("a"), hall.enter("b")
    first.way.slow = second.way.slow = 0.1
    await hall.pass_time(60)
    assert len(hall.acting()) == 1
    assert [kind for kind, _ in hall.lease.writes].count("create") == 1


async def test_a_clean_stop_hands_over_at_once(hall: Hall) -> None:
    first = hall.enter("a")
    await hall.pass_time(30)
    hall.enter("b")
    await hall.pass_time(30)
    first.stop.set()
    assert await hall.seconds_until("b") <= RETRY_SECONDS + 0.2


async def test_a_dead_leader_is_followed_when_its_lease_expires(hall: Hall) -> None:
    first = hall.enter("a")
    hall.enter("b")
    await hall.pass_time(30)
    first.kill()
    assert LEASE_SECONDS - RENEW_SECONDS - 1 <= await hall.seconds_until("b") <= LEASE_SECONDS + RETRY_SECONDS + 0.2


async def test_one_that_died_on_this_machine_is_followed_at_once(hall: Hall) -> None:
    first = hall.enter("a")
    await hall.pass_time(30)
    first.kill()
    hall.dead.add("a")
    hall.enter("b")
    assert await hall.seconds_until("b") < 0.2


async def test_a_leader_that_is_cut_off_ends_before_another_begins(hall: Hall) -> None:
    first = hall.enter("a")
    hall.enter("b")
    await hall.pass_time(30)
    first.way.cut = True
    await hall.pass_time(SURE_SECONDS + 0.2)
    assert "a" not in hall.acting()
    assert await hall.seconds_until("b") < LEASE_SECONDS
    first.way.cut = False
    await hall.pass_time(60)
    assert hall.acting() == ["b"]


async def test_a_moment_without_the_api_server_costs_nothing(hall: Hall) -> None:
    first = hall.enter("a")
    hall.enter("b")
    for _ in range(20):
        await hall.pass_time(20)
        first.way.cut = True
        await hall.pass_time(SURE_SECONDS - RENEW_SECONDS - 1)
        first.way.cut = False
        await hall.pass_time(0.05)
    assert {holder for _, holder in hall.lease.writes} == {"a"}


async def test_an_api_server_that_is_away_is_taken_up_again(hall: Hall) -> None:
    operators = [hall.enter("a"), hall.enter("b")]
    await hall.pass_time(30)
    for operator in operators:
        operator.way.cut = True
    await hall.pass_time(60)
    assert hall.acting() == []
    for operator in operators:
        operator.way.cut = False
    await hall.pass_time(LEASE_SECONDS + 2 * RETRY_SECONDS)
    assert len(hall.acting()) == 1


async def test_one_that_stood_still_does_not_act_when_it_wakes(hall: Hall) -> None:
    """SIGSTOP, a machine without CPU, a loop that is blocked: what it knows is old, and it knows that it is."""
    first = hall.enter("a")
    hall.enter("b")
    await hall.pass_time(30)
    first.way.slow = 1e6
    await hall.pass_time(SURE_SECONDS + RENEW_SECONDS)
    assert not first.leader.held()
    assert await hall.seconds_until("b") < LEASE_SECONDS


async def test_a_time_of_day_that_is_set_changes_nothing(hall: Hall) -> None:
    first, second = hall.enter("a"), hall.enter("b")
    await hall.pass_time(30)
    first.clock.offset, second.clock.offset = -3600.0, 7200.0
    await hall.pass_time(60)
    assert hall.acting() == ["a"]


async def test_a_lease_that_somebody_deletes_is_made_again(hall: Hall) -> None:
    hall.enter("a")
    await hall.pass_time(30)
    hall.lease.record = None
    await hall.pass_time(RENEW_SECONDS + 1)
    assert hall.acting() == ["a"]


async def test_who_is_stopped_while_waiting_ends(hall: Hall) -> None:
    hall.enter("a")
    second = hall.enter("b")
    await hall.pass_time(30)
    second.stop.set()
    await asyncio.wait_for(second.task, 5)
    assert hall.acting() == ["a"]


async def test_a_lease_that_cannot_be_given_back_expires(hall: Hall) -> None:
    first = hall.enter("a")
    await hall.pass_time(30)
    hall.enter("b")
    await hall.pass_time(5)
    first.way.cut = True
    first.stop.set()
    assert await hall.seconds_until("b") <= LEASE_SECONDS + RETRY_SECONDS + 0.2


@pytest.mark.parametrize("duration", [LONGEST_LEASE_SECONDS + 1, 2147483647.0, float("inf")])
async def test_no_lease_holds_up_anybody_for_longer_than_a_minute(hall: Hall, duration: float) -> None:
    hall.lease.record = LeaseRecord("nobody", duration, "7")
    hall.enter("a")
    await hall.pass_time(LONGEST_LEASE_SECONDS - 1)
    assert hall.acting() == []
    assert await hall.seconds_until("a") <= 1 + RETRY_SECONDS + 0.2


@pytest.mark.parametrize("duration", [0.0, -1.0, 0.5])
async def test_no_lease_is_taken_from_a_leader_that_is_sure(hall: Hall, duration: float) -> None:
    """Somebody edits it: its leader does not know yet."""
    hall.enter("a")
    await hall.pass_time(30)
    hall.enter("b")
    for _ in range(10):
        assert hall.lease.record is not None
        version = str(int(hall.lease.record.version) + 1)
        hall.lease.record = replace(hall.lease.record, duration=duration, version=version)
        await hall.pass_time(5)
        assert hall.lease.record.duration == LEASE_SECONDS, "its leader writes its own"
    assert hall.acting() == ["a"]
