"""The endpoints that all programs share, over a loopback socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from luban.adapters.http_endpoints import HttpEndpoints, Refusal
from luban.errors import PermanentError


class Program:
    """What the endpoints tell about."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gauge = Gauge("luban_bond_test", "A test", registry=self.registry)
        self.stall = self.outage = ""

    async def refresh(self) -> None:
        """Bring the metrics up to date."""
        self.gauge.inc()


@pytest.fixture
def program() -> Program:
    """All is well."""
    return Program()


@pytest.fixture
async def base(program: Program) -> AsyncIterator[str]:
    """URL of its endpoints."""
    endpoints = HttpEndpoints(
        program.registry,
        alive=lambda: program.stall,
        ready=lambda: program.outage,
        refresh=program.refresh,
        documents={"/report": lambda: {"stall": program.stall}},
    )
    await endpoints.listen("127.0.0.1", 0)
    ((address, port),) = endpoints.addresses
    yield f"http://{address}:{port}"
    await endpoints.close()


async def get(url: str) -> tuple[int, str]:
    """Status and body."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def test_metrics_are_refreshed_for_each_answer(base: str) -> None:
    assert "luban_bond_test 1.0" in (await get(f"{base}/metrics"))[1]
    assert "luban_bond_test 2.0" in (await get(f"{base}/metrics"))[1]


async def test_probes_say_what_is_wrong(base: str, program: Program) -> None:
    assert await get(f"{base}/healthz") == await get(f"{base}/readyz") == (200, "ok\n")
    program.outage = "httpd does not serve"
    assert await get(f"{base}/healthz") == (200, "ok\n")
    assert await get(f"{base}/readyz") == (503, "httpd does not serve\n")
    program.stall = "nothing is read"
    assert await get(f"{base}/healthz") == (503, "nothing is read\n")


async def test_documents_are_json(base: str, program: Program) -> None:
    program.stall = "x"
    assert await get(f"{base}/report") == (200, '{"stall": "x"}')


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
async def test_a_port_that_is_taken_is_told_with_the_remedy(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as taken:
        try:
            taken.bind((address, 0))
        except OSError:
            pytest.skip(f"no {address} here")
        taken.listen()
        port = taken.getsockname()[1]
        endpoints = HttpEndpoints(CollectorRegistry())
        with pytest.raises(PermanentError) as caught:
            await endpoints.listen(address, port)
    shown = f"[{address}]" if ":" in address else address
    assert caught.value.reason == "PortTaken"
    assert caught.value.message == (
        f"cannot listen at {shown}:{port}: Address already in use: "
        "choose another with --listen-address and --listen-port"
    )
    assert endpoints.addresses == [], "nothing is left open"


async def test_an_address_of_another_machine() -> None:
    with pytest.raises(PermanentError, match=r"198\.51\.100\.7:9: .*choose --report-port"):
        await HttpEndpoints(CollectorRegistry()).listen("198.51.100.7", 9, "choose --report-port")


async def test_closing_what_never_listened() -> None:
    endpoints = HttpEndpoints(CollectorRegistry())
    await endpoints.close()
    assert endpoints.addresses == []


async def test_a_guard_stands_before_documents_alone(program: Program) -> None:
    asked: list[tuple[str, str]] = []

    async def guard(authorization: str, address: str) -> Refusal | None:
        asked.append((authorization, address))
        return None if authorization == "Bearer good" else Refusal(403, "not for you", 'Bearer realm="test"')

    endpoints = HttpEndpoints(program.registry, documents={"/report": dict}, guard=guard)
    await endpoints.listen("127.0.0.1", 0)
    ((address, port),) = endpoints.addresses
    try:
        async with aiohttp.ClientSession(f"http://{address}:{port}") as session:
            for path in ("/metrics", "/healthz", "/readyz"):
                async with session.get(path) as answer:
                    assert answer.status == 200
            assert asked == []
            async with session.get("/report") as answer:
                assert (answer.status, await answer.text()) == (403, "not for you\n")
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="test"'
            async with session.get("/report", headers={"Authorization": "Bearer good"}) as answer:
                assert (answer.status, await answer.json()) == (200, {})
    finally:
        await endpoints.close()
    assert asked == [("", "127.0.0.1"), ("Bearer good", "127.0.0.1")]
