"""Deadlines, abandoned threads, turns, backoff: a lane over stand-in connections."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from collections.abc import AsyncIterator

import libvirt
import pytest
from structlog.testing import capture_logs

from luban.adapters.libvirt_hosts import knock as knock_module
from luban.adapters.libvirt_hosts import lane as lane_module
from luban.adapters.libvirt_hosts.backoff import MAX_HUNG, MAX_STUCK, Backoff, Pace
from luban.adapters.libvirt_hosts.errors import NotReached, unreachable
from luban.adapters.libvirt_hosts.lane import Lane
from luban.adapters.libvirt_hosts.session import Connector, Keepalive, Session
from luban.adapters.libvirt_hosts.undo import Undo
from luban.adapters.libvirt_hosts.worker import Worker
from luban.errors import HostUnreachable, LubanError, TemporaryError
from tests.fakes.libvirt_daemons import (
    AT_ONCE,
    DEADLINE,
    PATIENCE,
    QUICK,
    SLOW,
    Daemon,
    Daemons,
    Door,
)

# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)


@pytest.fixture
def daemons() -> Daemons:
    return Daemons({SLOW.uri: Daemon(), QUICK.uri: Daemon()})


@pytest.fixture
async def lane(daemons: Daemons) -> AsyncIterator[Lane]:
    it = Lane(Connector(SLOW, daemons.open, Keepalive()), AT_ONCE, width=2)
    yield it
    await it.close()


async def hang(lane: Lane, door: Door, what: str = "shut down domain hung", subject: str = "hung") -> LubanError:
    """Have a job about a domain hang, and be given up."""
    with pytest.raises(TemporaryError) as error:
        await lane.call(door, what, DEADLINE, subject)
    return error.value


# ---- jobs that come back to life -----------------------------------------------------------------------------


async def test_an_abandoned_job_neither_goes_on_nor_takes_back_what_it_made(daemons: Daemons) -> None:
    lane = Lane(Connector(SLOW, daemons.open, Keepalive()), AT_ONCE)
    go_on, ended = threading.Event(), threading.Event()
    done: list[str] = []

    def job(session: Session) -> None:
        try:
            with Undo("host-b") as undo:
                undo.add("overlay", lambda: done.append("undone"))
                go_on.wait(PATIENCE)
                session.proceed()
                done.append("went on")
        finally:
            ended.set()

    with pytest.raises(HostUnreachable):
        await lane.call(job, "make domain", DEADLINE)
    go_on.set()
    assert await asyncio.to_thread(ended.wait, PATIENCE)
    assert done == []
    await lane.close()


def test_a_failed_job_takes_back_the_latest_first_and_goes_on_after_a_failure() -> None:
    done: list[str] = []

    def fail() -> None:
        raise libvirt.libvirtError("cannot")

    undo = Undo("host-b")
    undo.add("overlay", lambda: done.append("overlay"))
    undo.add("seed", fail)
    undo.add("domain", lambda: done.append("domain"))
    with pytest.raises(ValueError, match="boom"), undo:
        raise ValueError("boom")
    assert done == ["domain", "overlay"]


def test_a_job_that_succeeds_keeps_what_it_made() -> None:
    done: list[str] = []
    with Undo("host-b") as undo:
        undo.add("overlay", lambda: done.append("overlay"))
    assert done == []


# ---- one domain that hangs -------------------------------------------------------------------------------------


async def test_a_domain_that_hangs_holds_up_itself_alone_and_in_its_own_words(lane: Lane, daemons: Daemons) -> None:
    door = Door()
    error = await hang(lane, door)
    assert (type(error), error.reason) == (TemporaryError, "LibvirtTimeout")
    assert error.message == "host host-b: shut down domain hung: no answer within 0.05 s"
    for _ in range(3):
        assert await lane.call(lambda _session: "fine", "shut down domain fine", PATIENCE, "fine") == "fine"
    opened = len(daemons[SLOW.uri].connections)
    for _ in range(3 * MAX_STUCK):
        again = await hang(lane, Door())
        assert again.message == error.message
    assert len(daemons[SLOW.uri].connections) == opened, "no further thread waits for it"
    assert await lane.call(lambda _session: "gone", "destroy domain hung", PATIENCE, "hung", rescue=True) == "gone"
    door.open.set()
    assert await asyncio.to_thread(door.left.wait, PATIENCE)
    await until_done(lane, "hung")
    assert await lane.call(lambda _session: "ok", "shut down domain hung", PATIENCE, "hung") == "ok"


async def test_a_domain_that_hangs_costs_two_threads_at_most(lane: Lane, daemons: Daemons) -> None:
    doors = [Door() for _ in range(2)]
    error = await hang(lane, doors[0])
    for what in ("make domain hung", "ask the guest agent of hung", "look at hung"):
        refused = Door()
        assert (await hang(lane, refused, what)).message == error.message
        assert not refused.entered.is_set()
    with pytest.raises(TemporaryError, match="destroy domain hung: no answer"):
        await lane.call(doors[1], "destroy domain hung", DEADLINE, "hung", rescue=True)
    with pytest.raises(TemporaryError, match="destroy domain hung: no answer"):
        await lane.call(Door(), "remove domain hung", DEADLINE, "hung", rescue=True)
    for door in doors:
        assert door.entered.is_set()
        door.open.set()


async def test_it_is_held_up_as_long_as_it_hangs(daemons: Daemons) -> None:
    """However many others have failed since, and however long ago it was."""
    lane = Lane(Connector(SLOW, daemons.open, Keepalive()), Pace(first_retry=0.0, last_retry=0.0, stuck_retry=0.0))
    door, again = Door(), Door()
    await hang(lane, door)
    other = Door()
    await hang(lane, other, "shut down domain other", "other")
    await hang(lane, again)
    assert not again.entered.is_set()
    for it in (door, other):
        it.open.set()
    await lane.close()


async def test_a_few_domains_that_hang_close_no_host(lane: Lane, daemons: Daemons) -> None:
    doors = [Door() for _ in range(MAX_STUCK + 1)]
    for number, door in enumerate(doors):
        await hang(lane, door, f"shut down domain {number}", str(number))
    assert await lane.call(lambda _session: "fine", "shut down domain fine", PATIENCE, "fine") == "fine"
    for connection in daemons[SLOW.uri].connections:
        connection.alive = 0
    daemons[SLOW.uri].refuses = True
    with pytest.raises(HostUnreachable):
        await lane.call(lambda _session: "fine", "shut down domain fine", PATIENCE, "fine")
    daemons[SLOW.uri].refuses = False
    assert await lane.call(lambda _session: "fine", "shut down domain fine", PATIENCE, "fine") == "fine"
    for door in doors:
        door.open.set()


async def until_done(lane: Lane, subject: str) -> None:
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(asyncio.wrap_future(job) for job in lane.late(subject)), return_exceptions=True)


async def test_after_it_hung_a_domain_is_left_alone_for_ever_longer(daemons: Daemons) -> None:
    lane = Lane(Connector(SLOW, daemons.open, Keepalive()), Pace(first_retry=3600.0, last_retry=3600.0))
    door = Door()
    error = await hang(lane, door)
    door.open.set()
    await until_done(lane, "hung")
    later = Door()
    assert (await hang(lane, later)).message == error.message
    assert not later.entered.is_set()
    assert await lane.call(lambda _session: "fine", "shut down domain fine", PATIENCE, "fine") == "fine"
    await lane.close()


async def test_while_one_change_hangs_others_have_room(lane: Lane) -> None:
    door = Door()
    hanging = asyncio.create_task(lane.call(door, "make domain slow", PATIENCE, "slow"))
    assert await asyncio.to_thread(door.entered.wait, PATIENCE)
    assert await lane.call(lambda _session: "fine", "make domain fine", PATIENCE, "fine") == "fine"
    door.open.set()
    await hanging


async def test_jobs_about_one_domain_take_turns(lane: Lane) -> None:
    first, second = Door(), Door()
    second.open.set()
    jobs = [asyncio.create_task(lane.call(door, "a job", PATIENCE, "one")) for door in (first, second)]
    assert await asyncio.to_thread(first.entered.wait, PATIENCE)
    assert await lane.call(lambda _session: "fine", "another job", PATIENCE, "other") == "fine"
    assert not second.entered.is_set()
    first.open.set()
    await asyncio.gather(*jobs)
    assert second.entered.is_set()


async def test_so_many_that_hang_are_said_in_nobodys_words(lane: Lane) -> None:
    doors = [Door() for _ in range(MAX_HUNG)]
    for number, door in enumerate(doors):
        await hang(lane, door, f"shut down domain {number}", str(number))
    with pytest.raises(HostUnreachable) as error:
        await lane.call(lambda _session: None, "shut down domain fine", PATIENCE, "fine")
    assert error.value.message == f"host host-b: {SLOW.uri}: {MAX_HUNG} calls to libvirt hang"
    doors[0].open.set()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                assert await lane.call(lambda _session: "fine", "shut down domain fine", PATIENCE, "fine") == "fine"
            except HostUnreachable:
                await asyncio.sleep(0)
            else:
                break
    for door in doors:
        door.open.set()


async def test_a_lost_connection_is_no_words_for_others_either(lane: Lane, daemons: Daemons) -> None:
    def lose(_session: Session) -> None:
        raise unreachable(SLOW, "shut down domain one: connection closed")

    with pytest.raises(HostUnreachable):
        await lane.call(lose, "shut down domain one", PATIENCE, "one")
    assert await lane.call(lambda _session: "fine", "shut down domain fine", PATIENCE, "fine") == "fine"
    assert len(daemons[SLOW.uri].connections) == 2


async def test_nothing_stays_of_a_call_that_was_given_up_and_has_ended(daemons: Daemons) -> None:
    """Its error holds the session that it had."""
    lane = Lane(Connector(SLOW, daemons.open, Keepalive()), AT_ONCE)
    sessions: list[weakref.ref[Session]] = []
    door = Door()

    def job(session: Session) -> None:
        sessions.append(weakref.ref(session))
        door(session)
        raise ValueError("too late")

    with pytest.raises(HostUnreachable):
        await lane.call(job, "read domains", DEADLINE)
    thread = next(it for it in threading.enumerate() if it.name == f"libvirt-{SLOW.name}")
    door.open.set()
    await asyncio.to_thread(thread.join, PATIENCE)
    gc.collect()
    assert [it() for it in sessions] == [None]
    await lane.close()


async def test_an_error_that_nobody_foresaw_is_the_hosts_and_logged(lane: Lane) -> None:
    def break_(_session: Session) -> None:
        raise ValueError("no such thing")

    with capture_logs() as logs, pytest.raises(HostUnreachable) as of_host:
        await lane.call(break_, "read domains", PATIENCE)
    with pytest.raises(TemporaryError) as of_domain:
        await lane.call(break_, "shut down domain x", PATIENCE, "x")
    assert of_host.value.message.endswith("read domains: ValueError: no such thing")
    assert (type(of_domain.value), of_domain.value.reason) == (TemporaryError, "LibvirtError")
    assert isinstance(logs[0]["exc_info"], ValueError)
    assert logs[0]["host"] == SLOW.name


async def test_a_thread_that_cannot_be_had_is_no_fault_of_the_caller(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_connector: Connector) -> Worker:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(lane_module, "Worker", no_thread)
    with pytest.raises(HostUnreachable, match="can't start new thread"):
        await lane.call(lambda _session: None, "read domains", PATIENCE)


def test_a_name_that_python_cannot_ask_for_is_a_host_that_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnicodeError("label too long")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(NotReached, match="its name cannot be resolved: label too long"):
        knock_module.knock(SLOW)


# ---- backoff ---------------------------------------------------------------------------------------------------

REFUSED = HostUnreachable("HostUnreachable", "refused")


def blocked(backoff: Backoff, now: float, stuck: int = 0) -> bool:
    """Whether no attempt may be made."""
    try:
        backoff.check(now, stuck=stuck)
    except HostUnreachable:
        return True
    return False


def test_backoff_doubles_up_to_its_limit_and_ends_with_success() -> None:
    backoff = Backoff(Pace(first_retry=1.0, last_retry=4.0))
    assert not blocked(backoff, 0.0)
    for pause in (1.0, 2.0, 4.0, 4.0):
        backoff.failed(100.0, REFUSED)
        assert blocked(backoff, 100.0 + pause - 0.01)
        assert not blocked(backoff, 100.0 + pause)
    backoff.succeeded()
    assert not blocked(backoff, 100.0)
    backoff.failed(200.0, REFUSED)
    assert not blocked(backoff, 201.0)


def test_a_host_that_swallows_threads_is_tried_rarely_until_one_comes_back() -> None:
    backoff = Backoff(Pace())
    backoff.failed(0.0, REFUSED, stuck=MAX_STUCK, crowded=True)
    assert blocked(backoff, 599.0, MAX_STUCK)
    assert not blocked(backoff, 600.0, MAX_STUCK)
    backoff.failed(600.0, REFUSED, stuck=MAX_STUCK, crowded=True)
    assert blocked(backoff, 601.0, MAX_STUCK)
    assert not blocked(backoff, 601.0, MAX_STUCK - 1)


def test_a_machine_that_is_not_there_is_looked_for_often() -> None:
    backoff, pace = Backoff(Pace()), Pace()
    for _ in range(10):
        backoff.failed(0.0, REFUSED, longest=pace.last_knock)
    assert not blocked(backoff, pace.last_knock)
    assert pace.last_knock + knock_module.SECONDS <= 5.0, "back within 5 s of answering"
