"""Traffic of every kind while members join and leave: nothing is lost, and what is open is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.fakes.httpd_harness import HTTPD, HttpdHarness, plain_stage, until
from tests.fakes.plain.cases import request
from tests.fakes.plain.client import ask, converse
from tests.fakes.plain.plays import MEGABYTE, downloads, echoes_frames, pattern, pattern_digest
from tests.fakes.plain.service import Exchange, plainly, says
from tests.fakes.plain.websocket import frame, opening, websocket
from tests.fakes.plain.wire import chunk, connect, message, read_head, status_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CHUNKED = ("Transfer-Encoding", "chunked")
PARTS = 8
PAUSE_SECONDS = 0.1
"""Between the parts of what takes its time: together about a second."""
CHANGES = 6


@pytest.fixture
async def stage() -> AsyncIterator[HttpdHarness]:
    """An agent's httpd in front of two plain services."""
    async with plain_stage("a", "b") as stage:
        for name in stage.services:
            knows_all(stage, name)
        await stage.start()
        yield stage


def knows_all(stage: HttpdHarness, name: str) -> None:
    """Teach a service all plays."""
    events = [b"data: %d\n\n" % number for number in range(PARTS)]
    head = message("HTTP/1.1 200 OK", [("Content-Type", "text/event-stream")])
    stage.services[name].plays.update(
        {
            "download": downloads(MEGABYTE, chunked=True),
            "events": says(head, *events, pause=PAUSE_SECONDS, keep=False),
            "poll": polls,
            "ws": echoes_frames,
        }
    )


async def polls(exchange: Exchange) -> bool:
    """Answer late."""
    await asyncio.sleep(PARTS * PAUSE_SECONDS)
    return await plainly(exchange)


async def get(port: int) -> bool:
    """A plain request."""
    answer = await ask(HTTPD, port, request("get"))
    return answer.body.data == b"ok"


async def upload(port: int) -> bool:
    """A body that is sent part by part."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(request("upload", "POST", "/", CHUNKED))
        for piece in itertools.islice(pattern(MEGABYTE), PARTS):
            writer.write(chunk(piece))
            await writer.drain()
            await asyncio.sleep(PAUSE_SECONDS)
        writer.write(chunk(b""))

    return (await converse(HTTPD, port, send, method="POST")).body.data == b"ok"


async def download(port: int) -> bool:
    """A large answer."""
    return (await ask(HTTPD, port, request("download"))).body.digest == pattern_digest(MEGABYTE)


async def events(port: int) -> bool:
    """Server-sent events to their end."""
    answer = await ask(HTTPD, port, request("events"))
    return answer.body.whole and answer.body.data.count(b"data: ") == PARTS


async def poll(port: int) -> bool:
    """A long poll."""
    return (await ask(HTTPD, port, request("poll"))).body.data == b"ok"


async def socket(port: int) -> bool:
    """A WebSocket with a few messages."""
    async with websocket(HTTPD, port, opening("ws")) as opened:
        heard = [await opened.greeted()]
        for number in range(PARTS):
            data = frame(b"%d" % number * 1000)
            heard.append(await opened.echoed(data) == data)
            await asyncio.sleep(PAUSE_SECONDS)
    return all(heard)


KINDS: dict[str, Callable[[int], Awaitable[bool]]] = {
    "get": get,
    "upload": upload,
    "download": download,
    "events": events,
    "poll": poll,
    "socket": socket,
}


class Traffic:
    """Every kind of exchange, again and again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = asyncio.Event()
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []

    async def run(self) -> None:
        """Until `end`."""
        async with asyncio.TaskGroup() as group:
            for name in KINDS:
                for _ in range(2):
                    group.create_task(self._repeat(name))

    def end(self) -> None:
        """Begin nothing new."""
        self._over.set()

    async def _repeat(self, name: str) -> None:
        while not self._over.is_set():
            try:
                good = await KINDS[name](self._port)
            except (OSError, EOFError, TimeoutError) as error:
                self.failed.append(f"{name}: {error!r}")
                continue
            self.done[name] += good
            if not good:
                self.failed.append(f"{name}: not the right answer")


async def test_nothing_is_lost_while_members_join_and_leave(stage: HttpdHarness) -> None:
    traffic = Traffic(stage.port)
    running = asyncio.create_task(traffic.run())
    names = list(stage.services)
    for number in range(CHANGES):
        fresh = f"vm-{number}"
        await stage.plain(fresh)
        knows_all(stage, fresh)
        stage.want(fresh, "Enabled")
        await stage.applied()
        leaving = names.pop(0)
        stage.want(leaving, "Draining")
        await stage.drained(leaving)
        assert stage.services[leaving].active == 0
        await stage.services[leaving].stop()
        stage.want(leaving, None)
        names.append(fresh)
    traffic.end()
    await running
    assert traffic.failed == []
    assert min(traffic.done[name] for name in KINDS) >= CHANGES


async def test_a_refused_connection_costs_no_upload(stage: HttpdHarness) -> None:
    """The body is sent to another member in full; it was not lost on the way to the first."""
    await stage.services["a"].stop()
    assert [await upload(stage.port) for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("case", ["ws", "events"])
async def test_a_member_is_drained_when_what_is_open_has_ended(stage: HttpdHarness, case: str) -> None:
    gate = asyncio.Event()

    async def stays_open(exchange: Exchange) -> bool:
        await exchange.send(message("HTTP/1.1 200 OK", [("Content-Type", "text/event-stream")]))
        await gate.wait()
        return False

    stage.services["a"].plays["events"] = stage.services["b"].plays["events"] = stays_open
    reader, writer = await connect(HTTPD, stage.port)
    writer.write(opening("ws") if case == "ws" else request("events"))
    assert status_of(await read_head(reader)) == (101 if case == "ws" else 200)
    (holder,) = [name for name, service in stage.services.items() if service.active]
    stage.want(holder, "Draining")
    await stage.applied()
    other = "b" if holder == "a" else "a"

    async def looked_at() -> bool:
        report = await stage.member(holder)
        return report is not None and report.state == "Draining" and report.in_flight == 1

    await until(looked_at, "one in flight")
    for _ in range(4):
        assert await socket(stage.port)
        report = await stage.member(holder)
        assert report is not None
        assert (report.in_flight, report.sessions, report.drained) == (1, 1, False)
    assert len(stage.services[other].seen["ws"]) >= 4
    gate.set()
    writer.close()
    await stage.drained(holder)


async def test_a_member_is_not_drained_while_it_sends_to_a_client_that_has_ended_its_own_side() -> None:
    gate, heard = asyncio.Event(), asyncio.Event()

    async def goes_on(exchange: Exchange) -> bool:
        await exchange.send(message("HTTP/1.1 101 Go", [("Upgrade", "websocket"), ("Connection", "Upgrade")]))
        await exchange.reader.read()
        heard.set()
        await gate.wait()
        await exchange.send(b"the rest")
        return False

    async with plain_stage("a") as stage:
        stage.services["a"].plays["ws"] = goes_on
        await stage.start()
        reader, writer = await connect(HTTPD, stage.port)
        writer.write(opening("ws"))
        await read_head(reader)
        writer.write_eof()
        await asyncio.wait_for(heard.wait(), 10.0)
        stage.want("a", "Disabled")
        await stage.applied()
        looks = 0

        async def looked_at_for_long() -> bool:
            nonlocal looks
            report = await stage.member("a")
            assert report is not None
            assert (report.drained, report.in_flight) == (False, 1)
            looks += 1
            return looks == 100

        await until(looked_at_for_long, "a hundred looks")
        gate.set()
        assert await asyncio.wait_for(reader.read(), 10.0) == b"the rest"
        writer.close()
        await stage.drained("a")


async def test_websockets_that_stay_open_leave_room_for_new_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of httpd serves what it began, also when others serve by then; httpd has places for so many children."""
    monkeypatch.setattr("luban.render.httpd.MOST_CHILDREN", 8)
    monkeypatch.setattr("luban.balancer_agent.server.MOST_CHILDREN", 8)
    monkeypatch.setattr("luban.balancer_agent.loader.RELOAD_SECONDS", 1.5)
    async with plain_stage(requests_at_once=128) as stage, contextlib.AsyncExitStack() as stack:
        knows_all(stage, "a")
        await stage.start()
        opened = []
        for number in range(10):
            opened.append(await stack.enter_async_context(websocket(HTTPD, stage.port, opening("ws"))))
            assert await opened[-1].greeted()
            stage.publish(timeout_seconds=100 + number)
            await stage.applied()
            assert await get(stage.port)
        assert [await one.echoed(frame(b"x")) for one in opened[-3:]] == [frame(b"x")] * 3
        assert await opened[0].ended() == b"", "the oldest had to go"
