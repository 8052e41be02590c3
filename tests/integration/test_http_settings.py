"""What a balancer's settings change in what httpd passes on: sizes of heads, expectations, sticky sessions."""

from __future__ import annotations

import contextlib

import pytest

from tests.fakes.httpd_harness import HTTPD, HttpdHarness, plain_stage, until
from tests.fakes.plain.cases import reply, request
from tests.fakes.plain.client import Answer, ask, read_answer
from tests.fakes.plain.plays import MEGABYTE, echoes_frames, pattern, refuses_early
from tests.fakes.plain.service import Play, continuing, plainly, says
from tests.fakes.plain.websocket import opening, websocket
from tests.fakes.plain.wire import connect, read_body, read_head, response_framing, status_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

EXPECT = ("Expect", "100-continue")


async def status(stage: HttpdHarness, sent: bytes, play: Play = plainly) -> int:
    """Status with which a request is answered through httpd."""
    stage.services["a"].plays["sized"] = play
    answer = await ask(HTTPD, stage.port, sent)
    return status_of(answer.head) if answer.head else 0


def with_line(length: int) -> bytes:
    """A request with a request line of so many bytes."""
    return request("sized", "GET", "/" + "p" * (length - len("GET / HTTP/1.1")))


def with_field(length: int) -> bytes:
    """A request with a header field of so many bytes."""
    return request("sized", "GET", "/", ("X-Long", "v" * (length - len("X-Long: "))))


def with_fields(number: int) -> bytes:
    """A request with so many header fields; Host, X-Case and Connection are three."""
    return request("sized", "GET", "/", *((f"X-{count}", "v") for count in range(number - 3)))


def answers_with_field(length: int) -> Play:
    """An answer with a header field of so many bytes."""
    return says(reply("200 OK", ("X-Long", "v" * (length - len("X-Long: "))), body=b"ok"))


class TestLimits:
    """Sizes of heads."""

    @pytest.mark.parametrize(
        ("line", "field", "fields"), [(16_384, 16_384, 100), (65_536, 65_536, 1000), (1024, 1024, 20)]
    )
    async def test_what_fits_is_passed_on_and_what_does_not_is_refused(
        self, line: int, field: int, fields: int
    ) -> None:
        sizes = {"request_line_bytes": line, "header_field_bytes": field, "header_fields": fields}
        async with plain_stage(**sizes) as stage:
            await stage.start()
            assert await status(stage, with_line(line)) == 200
            assert await status(stage, with_line(line + 10)) == 414
            assert await status(stage, with_field(field)) == 200
            assert await status(stage, with_field(field + 10)) == 400
            assert await status(stage, with_fields(fields)) == 200
            assert await status(stage, with_fields(fields + 1)) == 400
            most = max(field, 8192)
            assert await status(stage, request("sized"), answers_with_field(most - 2)) == 200
            assert await status(stage, request("sized"), answers_with_field(most + 10)) == 502

    async def test_they_can_be_changed_while_httpd_serves(self) -> None:
        async with plain_stage(header_field_bytes=2000) as stage:
            await stage.start()
            assert await status(stage, with_field(3000)) == 400
            stage.publish(header_field_bytes=4000)
            await stage.applied()
            assert await status(stage, with_field(3000)) == 200

    async def test_a_body_has_no_limit(self) -> None:
        """httpd's own is 1 GiB, and is looked at before the first byte of the body."""
        async with plain_stage() as stage:
            await stage.start()
            _, writer = await connect(HTTPD, stage.port)
            writer.write(request("huge", "POST", "/", ("Content-Length", str(1 << 42))) + b"x" * 1000)

            async def arrived() -> bool:
                return len(stage.services["a"].seen["huge"]) == 1

            await until(arrived, "the head at the service")
            writer.close()


class TestRequestsAtOnce:
    """balancer.limits.requestsAtOnce."""

    async def test_so_many_websockets_can_be_open(self) -> None:
        async with plain_stage(requests_at_once=130) as stage:
            await stage.start()
            stage.services["a"].plays["ws"] = echoes_frames
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(200):
                    opened = websocket(HTTPD, stage.port, opening("ws"))
                    assert await (await stack.enter_async_context(opened)).greeted()
                assert await status(stage, request("sized")) == 200
                stage.publish(requests_at_once=600)
                await stage.applied()
                for _ in range(300):
                    opened = websocket(HTTPD, stage.port, opening("ws"))
                    assert await (await stack.enter_async_context(opened)).greeted()
                assert await status(stage, request("sized")) == 200


class TestForwardedExpectations:
    """balancer.expectContinue: Forward."""

    async def test_a_service_refuses_a_body_before_it_is_sent(self) -> None:
        async with plain_stage(expect_continue="Forward") as stage:
            await stage.start()
            stage.services["a"].plays["large"] = refuses_early(then="close")
            answer = await self.asks_first(stage, 50 * MEGABYTE)
            assert answer.head
            assert (status_of(answer.head), answer.body.data) == (413, b"big")

    async def test_a_service_takes_it(self) -> None:
        async with plain_stage(expect_continue="Forward") as stage:
            await stage.start()
            stage.services["a"].plays["large"] = continuing
            answer = await self.asks_first(stage, MEGABYTE)
            assert answer.head
            assert status_of(answer.head) == 200
            (seen,) = stage.services["a"].seen["large"]
            assert seen.head.get("Expect").lower() == "100-continue"
            assert seen.body
            assert seen.body.length == MEGABYTE

    async def asks_first(self, stage: HttpdHarness, size: int) -> Answer:
        """Send a head, and the body only if it is asked for."""
        reader, writer = await connect(HTTPD, stage.port)
        writer.write(request("large", "POST", "/", EXPECT, ("Content-Length", str(size))))
        first = await read_head(reader)
        try:
            if status_of(first) != 100:
                return Answer((), first, await read_body(reader, *response_framing(first, "POST")))
            for piece in pattern(size):
                writer.write(piece)
                await writer.drain()
            return await read_answer(reader, "POST")
        finally:
            writer.close()


class TestStickySessions:
    """balancer.stickyCookie."""

    async def cookie_of(self, stage: HttpdHarness, cookie: str = "", target: str = "/") -> tuple[str, str]:
        """Member that answers, and the cookie that it comes with; empty: none is set."""
        headers = [("Cookie", cookie)] if cookie else []
        for name, service in stage.services.items():
            service.plays["sticky"] = says(reply("200 OK", body=name.encode()))
        answer = await ask(HTTPD, stage.port, request("sticky", "GET", target, *headers))
        assert answer.head
        return answer.body.data.decode(), answer.head.get("Set-Cookie").partition(";")[0]

    async def test_a_parameter_of_a_url_with_the_cookies_name_changes_nothing(self) -> None:
        async with plain_stage("a", "b", sticky_cookie="id") as stage:
            await stage.start()
            member, cookie = await self.cookie_of(stage)
            other = "b" if member == "a" else "a"
            targets = (f"/?id=x.{other}", f"/;id=x.{other}", "/?userid=7", f"/?a=b&id=1.{other}", "/id=") * 2
            assert {await self.cookie_of(stage, cookie, target) for target in targets} == {(member, "")}

    async def test_the_longest_name_of_a_cookie_binds(self) -> None:
        async with plain_stage("a", "b", sticky_cookie="c" * 63) as stage:
            await stage.start()
            member, cookie = await self.cookie_of(stage)
            assert {await self.cookie_of(stage, cookie) for _ in range(4)} == {(member, "")}

    async def test_a_cookie_that_httpd_did_not_set_is_replaced(self) -> None:
        async with plain_stage("a", sticky_cookie="id") as stage:
            await stage.start()
            _, cookie = await self.cookie_of(stage)
            session, _, rest = cookie.partition("~")
            for forged in ("id=x.a", f"{session}.a", f"{session}x~{rest}", f"{session}~{'0' * 40}.a", f"my{cookie}"):
                _, fresh = await self.cookie_of(stage, forged)
                assert fresh.startswith("id=")
                assert fresh not in (forged, cookie)
            assert await self.cookie_of(stage, f"x=1; {cookie}; y=2") == ("a", "")

    async def test_only_sessions_that_httpd_began_are_counted(self) -> None:
        async with plain_stage("a", sticky_cookie="id", sessions_per_address=3) as stage:
            await stage.start()
            cookies = [(await self.cookie_of(stage))[1] for _ in range(5)]
            for number in range(20):
                await self.cookie_of(stage, f"id=invented{number}.a; {cookies[0]}")
                await self.cookie_of(stage, f"id=invented{number}.a")

            async def counted(sessions: int) -> bool:
                (report,) = (await stage.report()).members
                return report.sessions == sessions

            await until(lambda: counted(1), "one session")
            for cookie in cookies:
                await self.cookie_of(stage, cookie)
            await until(lambda: counted(3), "as many as one address may have")

    async def test_answers_of_httpd_itself_set_no_cookie(self) -> None:
        async with plain_stage("a", sticky_cookie="id", metrics_path="/metrics") as stage:
            await stage.start()
            for sent in (request("own", "OPTIONS", "*"), request("own", "GET", "/metrics")):
                answer = await ask(HTTPD, stage.port, sent)
                assert answer.head
                assert answer.head.all("Set-Cookie") == []
