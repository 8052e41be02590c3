"""Agents that are followed and send what they like; programs whose documents are followed."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from luban.adapters import balancers_http, http_endpoints
from luban.adapters.balancers_http import SHORTEST_LIMIT, HttpBalancers, report_json
from luban.adapters.http_endpoints import LONGEST_FEED, MOST_FOLLOWERS, HttpEndpoints, Refusal
from luban.api.names import FEED_TYPE
from luban.core.model import BalancerReport, ClusterRef, MemberReport

CLUSTER = ClusterRef("default", "shop")
NAME = "shop-balancer-0"
MEMBER = MemberReport("shop-a", "Enabled", "192.0.2.11", 8080, True, 3, 40, False, 1234)
REPORT = BalancerReport(NAME, True, True, "v1", "", (MEMBER,))
LINE = json.dumps(report_json(REPORT, CLUSTER)).encode() + b"\n"
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: {FEED_TYPE}\r\n\r\n".encode()


class RawAgent:
    """Sends these pieces, one after the other, then waits or ends."""

    def __init__(self, *pieces: bytes, ends: bool = False) -> None:
        self.pieces, self.ends = pieces, ends
        self.heard: list[BalancerReport | None] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.request = await reader.readuntil(b"\r\n\r\n")
            for piece in (HEAD, *self.pieces):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            if not self.ends:
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def follow(self, deadline: float = 2.0) -> BalancerReport | None:
        """Follow it; what ended that."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        balancers = HttpBalancers(deadline, networks=[ipaddress.ip_network("127.0.0.0/8")])
        try:
            return await balancers.follow(CLUSTER, NAME, f"http://{host}:{port}", members=16, heard=self.heard.append)
        finally:
            await balancers.close()
            server.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancers_http, "SILENCE_SECONDS", 0.3)


async def test_lines_are_reports_and_empty_ones_signs_of_life() -> None:
    agent = RawAgent(LINE, b"\n\n\n", LINE[:20], LINE[20:], ends=True)
    assert await agent.follow() is None
    assert [it for it in agent.heard if it is not None] == [REPORT, REPORT]
    assert b"GET /v1/report?follow=30 " in agent.request


async def test_a_sign_of_life_is_told() -> None:
    agent = RawAgent(b"\n", ends=True)
    assert await agent.follow() is None
    assert agent.heard == [None]


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([LINE], "no answer within"),
        ([LINE, b"\n", b"{"], "no answer within"),
        ([b"x" * (SHORTEST_LIMIT + 16 * 512 + 1)], "longer than"),
        ([b"nonsense\n"], "Expecting value"),
        ([LINE.replace(b"default", b"team-b")], "it is the agent of team-b"),
        ([LINE, LINE.replace(b"Enabled", b"Dreaming")], "unknown state"),
    ],
    ids=["silent", "in the middle of a line", "too long", "nonsense", "another's", "later nonsense"],
)
async def test_what_is_no_report_ends_it(pieces: list[bytes], why: str) -> None:
    agent = RawAgent(*pieces)
    with capture_logs() as logs:
        ended = await agent.follow()
    assert ended is not None
    assert (ended.name, ended.reachable) == (NAME, False)
    assert why in logs[0]["error"]


async def test_one_that_ends_in_the_middle_of_a_line_has_ended_badly() -> None:
    ended = await RawAgent(LINE, LINE[:9], ends=True).follow()
    assert ended is not None
    assert not ended.reachable


async def test_a_line_that_comes_in_drops_is_none() -> None:
    agent = RawAgent(*(LINE[at : at + 1] for at in range(200)))
    ended = await agent.follow(deadline=0.1)
    assert ended is not None
    assert not ended.reachable
    assert agent.heard == []


class Program:
    """A program with a document that is followed."""

    def __init__(self) -> None:
        self.followers = 0
        self.refusing = False
        self.endpoints = HttpEndpoints(
            CollectorRegistry(),
            documents={"/report": lambda: {"n": 1}},
            feeds={"/report": self._follow},
            guard=self._guard,
        )

    async def _follow(self, seconds: float) -> AsyncGenerator[Any, None]:
        self.seconds = seconds
        self.followers += 1
        try:
            yield {"n": 1}
            yield None
            while True:
                await asyncio.sleep(0.05)
                yield None
        finally:
            self.followers -= 1

    async def _guard(self, _authorization: str, _address: str) -> Refusal | None:
        return Refusal(403, "not for you", 'Bearer realm="test"') if self.refusing else None


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    made = Program()
    await made.endpoints.listen("127.0.0.1", 0)
    yield made
    await made.endpoints.close()


@pytest.fixture
async def session(program: Program) -> AsyncIterator[aiohttp.ClientSession]:
    ((address, port),) = program.endpoints.addresses
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://{address}:{port}", connector=connector) as made:
        yield made


async def until(program: Program, followers: int) -> None:
    """Wait for so many."""
    async with asyncio.timeout(10):
        while program.followers != followers:  # noqa: ASYNC110 (it ends by a connection's end)
            await asyncio.sleep(0.01)


async def test_a_document_can_be_followed(program: Program, session: aiohttp.ClientSession) -> None:
    async with session.get("/report?follow=5") as answer:
        assert answer.content_type == FEED_TYPE
        assert await answer.content.readexactly(10) == b'{"n": 1}\n\n'
        assert program.seconds == 5
    await until(program, 0)


@pytest.mark.parametrize(
    "query", ["", "?follow=", "?follow=x", "?follow=0", "?follow=-1", "?follow=nan", "?follow=inf"]
)
async def test_else_it_is_given_once(session: aiohttp.ClientSession, query: str) -> None:
    async with session.get(f"/report{query}") as answer:
        assert await answer.json() == {"n": 1}


async def test_nobody_follows_for_ever(program: Program, session: aiohttp.ClientSession) -> None:
    async with session.get("/report?follow=1e9") as answer:
        await answer.content.readexactly(10)
        assert program.seconds == LONGEST_FEED


async def test_a_guard_stands_before_it(program: Program, session: aiohttp.ClientSession) -> None:
    program.refusing = True
    async with session.get("/report?follow=5") as answer:
        assert answer.status == 403
    assert program.followers == 0


async def test_few_may_follow_at_once(program: Program, session: aiohttp.ClientSession) -> None:
    answers = [await session.get("/report?follow=5") for _ in range(MOST_FOLLOWERS)]
    async with session.get("/report?follow=5") as answer:
        assert await answer.json() == {"n": 1}
    for answer in answers:
        answer.close()
    await until(program, 0)
    async with session.get("/report?follow=5") as answer:
        assert answer.content_type == FEED_TYPE


async def test_a_feed_ends_before_it_is_too_much_for_one_answer(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_endpoints, "MOST_FED", 12)
    async with session.get("/report?follow=5") as answer:
        assert await answer.read() == b'{"n": 1}\n'


async def test_who_ends_waits_for_no_follower(program: Program, session: aiohttp.ClientSession) -> None:
    answer = await session.get("/report?follow=60")
    await answer.content.readexactly(10)
    async with asyncio.timeout(5):
        await program.endpoints.close()
    with pytest.raises(aiohttp.ClientError):
        await answer.read()
    assert program.followers == 0
