"""Exchanges that take their time, straight and through httpd: uploads, downloads, WebSockets, events, slow clients.

Each test of a class that takes `way` is the same for both ways. What differs through httpd stands in
TestWhatHttpdCannot, and in docs/http.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio

from tests.fakes.httpd_harness import HTTPD, HttpdHarness, plain_stage, until
from tests.fakes.plain.cases import request
from tests.fakes.plain.client import PATIENCE_SECONDS, Answer, ask, converse, read_answer
from tests.fakes.plain.plays import (
    MEGABYTE,
    downloads,
    echoes_frames,
    events,
    pattern,
    pattern_digest,
    refuses_early,
)
from tests.fakes.plain.service import Exchange, PlainService, Play, continuing, plainly, says
from tests.fakes.plain.websocket import ACCEPT, CLOSE_FRAME, frame, opening, websocket
from tests.fakes.plain.wire import chunk, connect, message, read_head, status_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

LARGE = 100 * MEGABYTE
TIMEOUT_SECONDS = 2
"""balancer.timeout in these tests."""
CHUNKED = ("Transfer-Encoding", "chunked")
EXPECT = ("Expect", "100-continue")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[HttpdHarness]:
    """An agent's httpd in front of one plain service."""
    async with plain_stage(timeout_seconds=TIMEOUT_SECONDS) as stage:
        await stage.start()
        yield stage


@dataclass(frozen=True)
class Way:
    """Where to send a request, and the service that gets it."""

    service: PlainService
    address: str
    port: int

    def case(self, name: str, play: Play) -> None:
        """Set the play of a case."""
        self.service.plays[name] = play
        self.service.seen.pop(name, None)

    def seen(self, name: str) -> Exchange:
        """What the service got."""
        (one,) = self.service.seen[name]
        return one


@pytest.fixture(params=["straight", "through"])
def way(request: pytest.FixtureRequest, stage: HttpdHarness) -> Way:
    """Both ways."""
    service = stage.services["a"]
    return Way(service, service.address, service.port) if request.param == "straight" else through(stage)


def through(stage: HttpdHarness) -> Way:
    """The way through httpd."""
    return Way(stage.services["a"], HTTPD, stage.port)


async def sends(writer: asyncio.StreamWriter, *pieces: bytes, pause: float = 0.0) -> None:
    """Send pieces with a pause after each."""
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)


def status(answer: Answer) -> int:
    """Status of an answer; 0: there was none."""
    return status_of(answer.head) if answer.head else 0


class TestLarge:
    """100 MB up and down."""

    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
    async def test_up(self, way: Way, chunked: bool) -> None:
        way.case("up", plainly)
        framing = CHUNKED if chunked else ("Content-Length", str(LARGE))

        async def send(writer: asyncio.StreamWriter) -> None:
            await sends(writer, request("up", "PUT", "/", framing))
            for piece in pattern(LARGE):
                await sends(writer, chunk(piece) if chunked else piece)
            await sends(writer, chunk(b"") if chunked else b"")

        answer = await converse(way.address, way.port, send, method="PUT")
        body = way.seen("up").body
        assert status(answer) == 200
        assert body
        assert (body.length, body.digest) == (LARGE, pattern_digest(LARGE))

    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
    async def test_down(self, way: Way, chunked: bool) -> None:
        way.case("down", downloads(LARGE, chunked=chunked))
        answer = await ask(way.address, way.port, request("down"))
        assert status(answer) == 200
        assert (answer.body.length, answer.body.digest) == (LARGE, pattern_digest(LARGE))
        assert answer.body.whole


class TestConnections:
    """Connections that are kept."""

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    async def test_they_serve_one_request_after_another(self, way: Way, version: str) -> None:
        way.case("kept", plainly)
        keep = ("Connection", "keep-alive")
        reader, writer = await connect(way.address, way.port)
        for method, body in (("GET", None), ("POST", b"x" * 50_000), ("HEAD", None), ("DELETE", None), ("PUT", b"")):
            await sends(writer, request("kept", method, "/", keep, body=body, version=version))
            assert status(await read_answer(reader, method)) == 200
        writer.close()
        assert len(way.service.seen["kept"]) == 5

    async def test_requests_sent_together_are_answered_in_their_order(self, way: Way) -> None:
        keep = ("Connection", "keep-alive")
        names = [f"pipelined {number}" for number in range(8)]
        for name in names:
            way.case(name, says(message("HTTP/1.1 200 OK", [("Content-Length", str(len(name)))], name.encode())))
        reader, writer = await connect(way.address, way.port)
        await sends(writer, b"".join(request(name, "POST", "/", keep, body=b"body") for name in names))
        assert [(await read_answer(reader, "POST")).body.data.decode() for _ in names] == names
        writer.close()


class TestExpectations:
    """Clients that wait for 100 Continue before they send a body, for as long as they like."""

    @pytest.mark.parametrize("size", [3, 1_000_000])
    async def test_a_service_that_continues(self, way: Way, size: int) -> None:
        way.case("waits", continuing)
        assert await self.waits(way, size) == 200

    @pytest.mark.parametrize("size", [3, 1_000_000])
    async def test_a_service_that_does_not(self, way: Way, size: int) -> None:
        way.case("waits", plainly)
        assert await self.waits(way, size, patience=0.5) == 200

    async def waits(self, way: Way, size: int, patience: float = PATIENCE_SECONDS) -> int:
        """Send a head, and the body when it is asked for or patience ends, as curl does; the final status."""
        reader, writer = await connect(way.address, way.port)
        await sends(writer, request("waits", "POST", "/", EXPECT, ("Content-Length", str(size))))
        with contextlib.suppress(TimeoutError):
            interim = await asyncio.wait_for(read_head(reader), patience)
            assert status_of(interim) == 100
        await sends(writer, *pattern(size))
        answer = await read_answer(reader, "POST")
        writer.close()
        body = way.seen("waits").body
        assert body
        assert body.length == size
        return status(answer)


class TestEarlyAnswers:
    """Services that answer before they have the body."""

    @pytest.mark.parametrize("size", [1000, 5 * MEGABYTE])
    async def test_one_that_reads_on(self, way: Way, size: int) -> None:
        way.case("early", refuses_early(then="read"))
        sent = request("early", "POST", "/", ("Content-Length", str(size)))
        answer = await converse(way.address, way.port, partial(sends_all, sent, size), method="POST")
        assert (status(answer), answer.body.data) == (413, b"big")

    async def test_one_that_closes_on_a_small_body(self, way: Way) -> None:
        way.case("early", refuses_early(then="close"))
        answer = await ask(way.address, way.port, request("early", "POST", body=b"x" * 1000), method="POST")
        assert (status(answer), answer.body.data) == (413, b"big")

    async def test_the_head_arrives_while_the_body_is_on_its_way(self, way: Way) -> None:
        way.case("open", plainly)
        reader, writer = await connect(way.address, way.port)
        await sends(writer, request("open", "POST", "/", ("Content-Length", "6")), b"one")

        async def arrived() -> bool:
            return len(way.service.seen["open"]) == 1

        await until(arrived, "the head at the service")
        await sends(writer, b"two")
        assert status(await read_answer(reader, "POST")) == 200
        writer.close()


async def sends_all(head: bytes, size: int, writer: asyncio.StreamWriter) -> None:
    """Send a head and a body."""
    await sends(writer, head, *pattern(size))


class TestWebSockets:
    """Upgrades to WebSocket, and what goes over them."""

    @pytest.mark.parametrize(
        ("connection", "protocol"),
        [("Upgrade", "websocket"), ("keep-alive, Upgrade", "websocket"), ("upgrade", "WebSocket")],
    )
    async def test_both_heads_are_as_they_were_sent(self, way: Way, connection: str, protocol: str) -> None:
        way.case("ws", echoes_frames)
        async with websocket(way.address, way.port, opening("ws", connection, protocol)) as socket:
            assert socket.head.start == "HTTP/1.1 101 Switching Protocols"
            assert socket.head.get("Sec-WebSocket-Accept") == ACCEPT
            assert socket.head.get("Upgrade").lower() == "websocket"
            assert socket.head.names("Connection", "upgrade")
        head = way.seen("ws").head
        assert head.start == "GET /ws HTTP/1.1"
        assert head.get("Upgrade").lower() == "websocket"
        assert head.names("Connection", "upgrade")

    async def test_frames_go_both_ways(self, way: Way) -> None:
        way.case("ws", echoes_frames)
        async with websocket(way.address, way.port, opening("ws")) as socket:
            assert await socket.greeted()
            for size in (1, 1000, MEGABYTE):
                data = frame(b"".join(pattern(size)))
                assert await socket.echoed(data) == data

    async def test_silence_does_not_end_it(self, way: Way) -> None:
        """balancer.timeout is for answers to requests."""
        way.case("ws", echoes_frames)
        async with websocket(way.address, way.port, opening("ws")) as socket:
            assert await socket.greeted()
            data = frame(b"a")
            assert await socket.echoed(data) == data
            await asyncio.sleep(TIMEOUT_SECONDS + 1.0)
            assert await socket.echoed(data) == data

    async def test_each_side_hears_of_the_others_end(self, way: Way) -> None:
        way.case("ws", echoes_frames)
        async with websocket(way.address, way.port, opening("ws")) as socket:
            assert await socket.greeted()
            assert await socket.echoed(CLOSE_FRAME) == CLOSE_FRAME
        await ended(way)

        async def closes(exchange: Exchange) -> bool:
            await exchange.send(message("HTTP/1.1 101 Go", [("Upgrade", "websocket"), ("Connection", "Upgrade")]))
            await exchange.send(CLOSE_FRAME)
            return False

        way.case("ws", closes)
        async with websocket(way.address, way.port, opening("ws")) as socket:
            assert await socket.ended() == CLOSE_FRAME

    @pytest.mark.parametrize("answer", ["400 Bad Request", "200 OK", "401 Who", "426 Upgrade Required"])
    async def test_a_service_may_refuse(self, way: Way, answer: str) -> None:
        way.case("ws", says(message(f"HTTP/1.1 {answer}", [("Content-Length", "2")], b"no")))
        got = await ask(way.address, way.port, opening("ws"))
        assert got.head
        assert (got.head.start, got.body.data) == (f"HTTP/1.1 {answer}", b"no")


async def ended(way: Way) -> None:
    """Wait until the service serves nothing."""

    async def nothing() -> bool:
        return way.service.active == 0

    await until(nothing, "the service serves nothing")


class TestWaiting:
    """Answers that come late or bit by bit, and clients that are slow."""

    async def test_an_event_arrives_when_it_is_sent(self, way: Way) -> None:
        gate = asyncio.Event()
        way.case("events", events(gate))
        reader, writer = await connect(way.address, way.port)
        await sends(writer, request("events"))
        await read_head(reader)
        assert b"data: first" in await reader.readuntil(b"\n\n")
        gate.set()
        assert b"data: second" in await reader.readuntil(b"\n\n")
        writer.close()

    async def test_a_long_poll_is_answered(self, way: Way) -> None:
        async def late(exchange: Exchange) -> bool:
            await asyncio.sleep(TIMEOUT_SECONDS / 2)
            return await plainly(exchange)

        way.case("poll", late)
        assert status(await ask(way.address, way.port, request("poll"))) == 200

    async def test_an_answer_may_take_long_as_a_whole(self, way: Way) -> None:
        parts = [chunk(b"part") for _ in range(2 * TIMEOUT_SECONDS)]
        head = message("HTTP/1.1 200 OK", [CHUNKED])
        way.case("parts", says(head, *parts, chunk(b""), pause=TIMEOUT_SECONDS / 3))
        answer = await ask(way.address, way.port, request("parts"))
        assert answer.body.whole
        assert answer.body.data == b"part" * len(parts)

    @pytest.mark.parametrize("framing", [CHUNKED, ("Content-Length", "40")], ids=["chunks", "length"])
    async def test_a_client_may_send_slowly(self, way: Way, framing: tuple[str, str]) -> None:
        """One pause is longer than balancer.timeout."""
        way.case("slow", plainly)
        pieces = [b"0123456789"] * 4
        if framing == CHUNKED:
            pieces = [*map(chunk, pieces), chunk(b"")]

        async def send(writer: asyncio.StreamWriter) -> None:
            await sends(writer, request("slow", "POST", "/", framing), *pieces[:2], pause=0.2)
            await asyncio.sleep(TIMEOUT_SECONDS + 1.0)
            await sends(writer, *pieces[2:], pause=0.2)

        answer = await converse(way.address, way.port, send, method="POST")
        body = way.seen("slow").body
        assert status(answer) == 200
        assert body
        assert body.data == b"0123456789" * 4

    async def test_a_client_may_send_its_head_slowly(self, way: Way) -> None:
        way.case("slow", plainly)
        pieces = [bytes([byte]) for byte in request("slow")]
        answer = await converse(way.address, way.port, lambda writer: sends(writer, *pieces, pause=0.005))
        assert status(answer) == 200

    async def test_a_client_may_read_slowly(self, way: Way) -> None:
        """One pause is longer than balancer.timeout."""
        way.case("large", downloads(20 * MEGABYTE))
        reader, writer = await connect(way.address, way.port)
        await sends(writer, request("large"))
        await asyncio.sleep(TIMEOUT_SECONDS + 1.0)
        answer = await read_answer(reader)
        writer.close()
        assert answer.body.whole
        assert answer.body.digest == pattern_digest(20 * MEGABYTE)

    async def test_a_service_hears_that_a_client_left_when_it_sends(self, way: Way) -> None:
        async def endless(exchange: Exchange) -> bool:
            await exchange.send(message("HTTP/1.1 200 OK", [("Content-Type", "text/event-stream")]))
            while True:
                await exchange.send(b"data: again\n\n")
                await asyncio.sleep(0.05)

        way.case("endless", endless)
        reader, writer = await connect(way.address, way.port)
        await sends(writer, request("endless"))
        await read_head(reader)
        writer.close()
        await ended(way)


class TestWhatHttpdCannot:
    """Differences, each asserted to be exactly this one. docs/http.md gives the reasons."""

    async def test_a_service_that_closes_on_a_large_body_is_a_bad_gateway(self, stage: HttpdHarness) -> None:
        to = through(stage)
        to.case("early", refuses_early(then="close"))
        size = 50 * MEGABYTE
        sent = request("early", "POST", "/", ("Content-Length", str(size)))
        assert status(await converse(to.address, to.port, partial(sends_all, sent, size), method="POST")) == 502

    async def test_no_answer_begins_before_the_body_has_ended(self, stage: HttpdHarness) -> None:
        async def answers_while_it_reads(exchange: Exchange) -> bool:
            await exchange.send(message("HTTP/1.1 200 OK", [CHUNKED]) + chunk(b"early"))
            await exchange.take()
            await exchange.send(chunk(b""))
            return False

        to = through(stage)
        to.case("duplex", answers_while_it_reads)
        reader, writer = await connect(to.address, to.port)
        await sends(writer, request("duplex", "POST", "/", ("Content-Length", "4")), b"bo")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readuntil(b"\r\n"), 1.0)
        await sends(writer, b"dy")
        assert (await read_answer(reader, "POST")).body.data == b"early"
        writer.close()

    async def test_an_answer_that_is_too_late_is_a_bad_gateway(self, stage: HttpdHarness) -> None:
        async def never(exchange: Exchange) -> bool:
            await exchange.reader.read()
            return False

        to = through(stage)
        to.case("never", never)
        assert status(await ask(to.address, to.port, request("never"))) == 502

    async def test_an_answer_that_stops_is_cut(self, stage: HttpdHarness) -> None:
        to = through(stage)
        to.case("stops", events(asyncio.Event()))
        answer = await ask(to.address, to.port, request("stops"))
        assert (status(answer), answer.body.data, answer.body.whole) == (200, b"data: first\n\n", False)

    async def test_only_websockets_are_upgraded(self, stage: HttpdHarness) -> None:
        to = through(stage)
        to.case("h2c", plainly)
        answer = await ask(to.address, to.port, opening("h2c", "Upgrade, HTTP2-Settings", "h2c"))
        assert status(answer) == 200
        assert to.seen("h2c").head.get("Upgrade") == ""
