"""Where the balancer agent and its httpd listen: ports that are taken, and changes of address and port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from luban.balancer_agent.agent import run
from luban.errors import PermanentError
from tests.fakes.httpd_harness import HTTPD, HttpdHarness, a_stage, free_port, until
from tests.fakes.web import Client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture
async def stage() -> AsyncIterator[HttpdHarness]:
    """Two members, no agent yet."""
    async with a_stage() as stage:
        yield stage


class TestHttpd:
    """httpd's address and port."""

    async def test_a_port_that_is_taken_is_refused_before_httpd_dies_of_it(
        self, stage: HttpdHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("luban.balancer_agent.loader.FIRST_RETRY_SECONDS", 1.0)
        await stage.start()
        httpd = stage.httpd_pid()
        with socket.socket() as taken:
            taken.bind((HTTPD, 0))
            taken.listen()
            stage.publish(listen_port=taken.getsockname()[1])

            async def refused() -> bool:
                return "Address already in use" in (await stage.report()).message

            await until(refused, "refusal")
            assert (await stage.client().request("GET", "/"))[0] == 200
        await stage.applied(30.0)
        assert (await stage.report()).ready
        assert (await Client(HTTPD, stage.settings.listen_port).request("GET", "/"))[0] == 200
        assert stage.httpd_pid() == httpd

    @pytest.mark.parametrize(
        ("held", "wanted"), [(HTTPD, "127.0.32.201"), (HTTPD, "::1"), ("::1", HTTPD)], ids=["4to4", "4to6", "6to4"]
    )
    async def test_httpd_goes_from_one_address_to_another(self, stage: HttpdHarness, held: str, wanted: str) -> None:
        await listening(stage, held)
        httpd = stage.httpd_pid()
        stage.publish(listen_address=wanted)
        await stage.applied()
        await until(lambda: serves(wanted, stage.port), f"served at {wanted}")
        assert not await serves(held, stage.port)
        assert stage.httpd_pid() == httpd

    @pytest.mark.parametrize("one", [HTTPD, "::1"])
    @pytest.mark.parametrize("to_all", [True, False], ids=["to all", "to one"])
    async def test_between_one_address_and_all_httpd_needs_a_start_or_another_port(
        self, stage: HttpdHarness, one: str, to_all: bool
    ) -> None:
        held, wanted = (one, "") if to_all else ("", one)
        await listening(stage, held)
        httpd, port = stage.httpd_pid(), stage.port

        async def refused() -> bool:
            return "change listen.port too" in (await stage.report()).message

        stage.publish(listen_address=wanted)
        await until(refused, "refusal")
        assert await serves(held or HTTPD, port)
        for other in (free_port(HTTPD), port):
            stage.publish(listen_address=wanted, listen_port=other)
            await stage.applied(20.0)
            await until(lambda other=other: serves(one, other), f"served at {one}")  # type: ignore[misc]
        assert stage.httpd_pid() == httpd
        stage.publish(listen_address=held)
        await until(refused, "refusal")
        os.kill(httpd, signal.SIGKILL)
        await stage.applied()
        assert await serves(held or HTTPD, port)


async def listening(stage: HttpdHarness, address: str) -> None:
    """Start an agent whose httpd listens where the settings say: at an address, or at all."""
    stage.options = replace(stage.options, listen_address="")
    stage.publish(listen_address=address)
    await stage.start()


async def serves(address: str, port: int) -> bool:
    """Whether requests are answered there."""
    with contextlib.suppress(OSError, EOFError):
        return (await Client(address, port).request("GET", "/"))[0] == 200
    return False


class TestReport:
    """The agent's own."""

    async def test_a_report_port_that_is_taken_is_told_with_the_remedy(self, stage: HttpdHarness) -> None:
        with socket.socket() as squatter:
            squatter.bind((stage.options.report_address, stage.options.report_port))
            squatter.listen()
            with pytest.raises(PermanentError, match=f":{stage.options.report_port}: Address .* --report-port"):
                await run(stage.options, asyncio.Event())
        assert not (stage.options.state_dir / "httpd.pid").exists()
