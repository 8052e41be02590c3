"""Probes and scrapes of servers that answer as they like: a guest costs little and misleads nobody."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from luban.adapters.probes_http import (
    CONNECTIONS_PER_VM,
    LONGEST_LINE,
    MAX_METRICS_BYTES,
    MOST_SAMPLES,
    HttpProbes,
    MetricReader,
)

ADDRESS = "127.0.0.1"
METRIC = "luban_app_active_sessions"


def read(page: str, chunk: int = 65536) -> int | None:
    """What a page says of the metric x, given in parts."""
    reader, data = MetricReader("x"), page.encode()
    for begin in range(0, len(data), chunk):
        reader.feed(data[begin : begin + chunk])
    return reader.total()


@pytest.mark.parametrize("chunk", [1, 3, 65536])
@pytest.mark.parametrize(
    ("page", "total"),
    [
        ("x 3\n", 3),
        ("x 3", 3),
        (" \tx\t3\r\n", 3),
        ("# HELP x 9\n# TYPE x gauge\nx 3\n", 3),
        ('x{path="a"} 1.2\nx{path="b"} 1\n', 3),
        ('x{path="}\\"{",} 3 1700000000000\n', 3),
        ("x 0\n", 0),
        ("x 3e0\ny NaN\n", 3),
        ("xy 9\nyx 9\nx_bucket 9\nx 3\n", 3),
        ("this is no page of metrics {{{\nx 3\n", 3),
        ("y{" + "a" * 3 * LONGEST_LINE + "\nx 3\n", 3),
        ("", None),
        ("y 3\n", None),
        ("\n\n x\n", None),
    ],
)
def test_the_samples_of_one_metric_are_added_up(page: str, total: int | None, chunk: int) -> None:
    assert read(page, chunk) == total


@pytest.mark.parametrize("chunk", [1, 65536])
@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "nan",
        "+Inf",
        "-Inf",
        "inf",
        "infinity",
        "-1",
        "1e300",
        "1e400",
        "2147483648",
        "1_0",
        "0x10",
        "ten",
        "1 2 3",
    ],
)
def test_a_value_that_none_can_be_makes_the_sum_unknown(value: str, chunk: int) -> None:
    with pytest.raises(ValueError, match="not a number of sessions"):
        read(f'x{{a="b"}} 1\nx {value}\n', chunk)


@pytest.mark.parametrize(
    "page",
    [
        "x 1\n" * (MOST_SAMPLES + 1),
        "x 2000000000\n" * 2,
        'x{a="' + '\\"' * LONGEST_LINE + '"} 1\n',
        "x" + " " * LONGEST_LINE + "1\n",
        "x{" + "a" * LONGEST_LINE,
        "y 1\n" * (MAX_METRICS_BYTES // 4 + 1),
        'x{a="b" 1\n',
        'x{a="b} 1\n',
    ],
    ids=range(8),
)
def test_a_page_that_goes_too_far_is_not_believed(page: str) -> None:
    with pytest.raises(ValueError, match=r"long|more|not a number|add up"):
        read(page)


@pytest.mark.parametrize("unit", ["\n", "x\n", "\n x", " ", "ax\n", 'y{a="\\"\\"', "{", "\\", "x{", "x,"])
def test_a_page_of_one_thing_a_million_times_is_read_in_one_go(unit: str) -> None:
    """Nothing is looked at twice: with anything else than linear time this test would not end."""
    try:
        read(unit * (MAX_METRICS_BYTES // len(unit)))
    except ValueError:
        return


def test_no_more_than_a_line_is_held() -> None:
    reader = MetricReader("x")
    for _ in range(MAX_METRICS_BYTES // 1000):
        reader.feed(b"y" * 1000)
        assert len(reader._line) <= LONGEST_LINE


PIECES = ("x", "{", "}", '"', "=", ",", " ", "\\", "\n", "#", "1", ".", "e", "NaN", "+Inf", "\t", "\0", "é", "x 1\n")


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.integers(1, 9))
def test_whatever_the_page_it_is_a_number_unknown_or_refused(pieces: list[str], chunk: int) -> None:
    page = "".join(pieces)
    results: list[int | None] = []
    for size in (chunk, 65536):
        try:
            results.append(read(page, size))
        except ValueError:
            results.append(-1)
    assert results[0] == results[1], "the same however it arrives"
    assert results[0] is None or results[0] >= -1


class Guest:
    """A VM's service that answers as it is told."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {"text": f"{METRIC} 3\n"}
        self.asked: list[str] = []
        self.cookies: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def handle(self, request: web.Request) -> web.Response:
        """Any request."""
        self.asked.append(request.path)
        self.cookies.extend(request.cookies)
        await self.gate.wait()
        return web.Response(**self.answer)


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
async def port(guest: Guest) -> AsyncIterator[int]:
    """Port of the guest."""
    app = web.Application()
    app.router.add_get("/{path:.*}", guest.handle)
    async with TestServer(app, host=ADDRESS) as server:
        assert server.port is not None
        yield server.port
        guest.gate.set()


@pytest.fixture
async def probes() -> AsyncIterator[HttpProbes]:
    found = HttpProbes()
    yield found
    await found.close()


async def gauge(probes: HttpProbes, port: int) -> int | None:
    return await probes.gauge(ADDRESS, port, "/metrics", METRIC, 5.0)


async def test_a_gauge_is_read(probes: HttpProbes, port: int) -> None:
    assert await gauge(probes, port) == 3


@pytest.mark.parametrize(
    "answer",
    [
        {"text": f"{METRIC} 1e300\n"},
        {"text": f"{METRIC} NaN\n"},
        {"text": f"{METRIC} -1\n"},
        {"text": f"{METRIC} 3\n", "status": 503},
        {"text": "y 1\n" * MAX_METRICS_BYTES},
        {"body": gzip.compress(f"{METRIC} 3\n".encode()), "headers": {"Content-Encoding": "gzip"}},
    ],
    ids=["huge", "nan", "negative", "status", "long", "packed"],
)
async def test_anything_else_is_unknown(probes: HttpProbes, port: int, guest: Guest, answer: dict[str, Any]) -> None:
    guest.answer = answer
    assert await gauge(probes, port) is None


async def test_no_redirect_is_followed(probes: HttpProbes, port: int, guest: Guest) -> None:
    guest.answer = {"status": 302, "headers": {"Location": f"http://{ADDRESS}:{port}/admin"}}
    assert await gauge(probes, port) is None
    assert await probes.ready(ADDRESS, port, "/healthz", 5.0)
    assert guest.asked == ["/metrics", "/healthz"]


async def test_nobodys_cookies_are_kept(probes: HttpProbes, port: int, guest: Guest) -> None:
    guest.answer["headers"] = {"Set-Cookie": f"a=b; Domain={ADDRESS}"}
    await gauge(probes, port)
    await gauge(probes, port)
    assert guest.cookies == []


@pytest.mark.parametrize("address", ["localhost", "", "127.0.0.1@127.0.0.2", "127.0.0.1:80/x?", "[::1]"])
async def test_only_an_address_is_asked(probes: HttpProbes, port: int, guest: Guest, address: str) -> None:
    assert not await probes.ready(address, port, "/healthz", 5.0)
    assert await probes.gauge(address, port, "/metrics", METRIC, 5.0) is None
    assert guest.asked == []


async def test_one_slow_vm_takes_few_connections(probes: HttpProbes, port: int, guest: Guest) -> None:
    guest.gate.clear()
    slow = [asyncio.ensure_future(probes.ready(ADDRESS, port, "/healthz", 30.0)) for _ in range(50)]
    app = web.Application()
    app.router.add_get("/healthz", Guest().handle)
    async with TestServer(app, host="127.0.0.2") as other:
        assert other.port is not None
        assert await probes.ready("127.0.0.2", other.port, "/healthz", 30.0)
    assert len(guest.asked) <= CONNECTIONS_PER_VM
    guest.gate.set()
    assert all(await asyncio.gather(*slow))
