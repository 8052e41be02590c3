"""The real httpd: what the renderer writes, and what the adapters do with it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from luban.adapters.apache_httpd.connections import open_connections
from luban.adapters.apache_httpd.process import Httpd, LogTail, Outliving, find_httpd
from luban.balancer_agent.slots import SETTLE_SECONDS
from luban.errors import ConfigurationRefused, PermanentError, TemporaryError
from luban.render.httpd import AgentSettings, SlotLine, plain_config, slot_host, slotted_config
from tests.fakes.httpd_harness import HTTPD, ROOT, HttpdHarness, a_stage, background, free_port, httpd_folder, until
from tests.fakes.web import Backend

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


GOLDEN = ROOT / "tests" / "fixtures" / "httpd"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for httpd."""
    with httpd_folder() as path:
        yield path


@pytest.fixture
async def stage() -> AsyncIterator[HttpdHarness]:
    """Two members, no agent yet."""
    async with a_stage() as stage:
        yield stage


class TestConfiguration:
    """What the renderer writes, judged by httpd."""

    @pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.conf")), ids=lambda path: path.stem)
    def test_httpd_takes_every_golden_file(self, path: Path, folder: Path) -> None:
        config = folder / "httpd.conf"
        config.write_text(path.read_text().replace("/run/luban", str(folder)))
        done = subprocess.run(
            [find_httpd(), "-t", "-C", f"Define LUBAN_RUN {folder}", "-f", str(config)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr.strip()) == (0, "Syntax OK")

    async def test_the_plain_form_serves_by_itself(self, stage: HttpdHarness) -> None:
        async with plain_httpd(stage):
            client = stage.client()
            texts = {(await client.request("GET", "/"))[2] for _ in range(4)}
            assert texts == {"a", "b"}
            await stage.backends["a"].stop()

            async def health_checks_noticed() -> bool:
                return stage.backends["b"].served["/healthz"] >= 2

            await until(health_checks_noticed, "mod_proxy_hcheck")
            assert {(await client.request("GET", "/"))[2] for _ in range(4)} == {"b"}


@contextlib.asynccontextmanager
async def plain_httpd(stage: HttpdHarness) -> AsyncIterator[None]:
    """An httpd that serves from the plain form by itself."""
    config = stage.folder / "plain.conf"
    settings = replace(stage.settings, listen_address=HTTPD)
    config.write_text(plain_config(settings, list(stage.members.values())))
    command = [find_httpd(), "-C", f"Define LUBAN_RUN {stage.folder}", "-f", str(config), "-DFOREGROUND"]
    process = background(stage.folder / "plain.log", command)

    async def answers() -> bool:
        with contextlib.suppress(OSError, EOFError):
            return (await stage.client().request("GET", "/"))[0] == 200
        return False

    try:
        await until(answers, "plain httpd")
        yield
    finally:
        process.terminate()
        process.wait()


def test_a_program_that_outlives_us_is_let_go_of_in_silence() -> None:
    """Warnings are errors, and one of the garbage collector would be raised in whichever test runs then."""
    process = Outliving(["sleep", "60"])
    pid = process.pid
    del process
    gc.collect()
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[0] == pid


@contextlib.contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with these words for its name and arguments; the program is always `tail`."""
    process = subprocess.Popen(words, executable=shutil.which("tail"), stdout=subprocess.DEVNULL)
    try:
        # In the moment of its start it has no arguments.
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.wait()


METRICS = (
    "/metrics",
    "/metrics?x",
    "/metrics/",
    "/metrics//",
    "/metrics/.",
    "//metrics",
    "/./metrics",
    "/a/../metrics",
    "/%2e/metrics",
    "/a/%2e%2E/metrics",
    "/%6detrics",
    "/%6Detric%73",
    "/metrics;x",
    "/metrics;x/",
    "/metrics/;x",
    "/;x/metrics",
    "/;x/;y/metrics;z/;v/",
    "/metrics%0a",
    "/metrics/%0A",
    "/metrics%20",
    "/metrics%2f",
    "/%2fmetrics",
    "/metrics%00",
    "http://shop.test/metrics",
    "http://shop.test//metrics?x",
    "HTTP://shop.test/%6detrics",
    "/Metrics",
    "/METRICS",
    "/%4Detrics",
    "/%2Fmetrics",
    "/%2F%2f/metrics",
    "/metrics%2F",
    "/metrics%2F.",
    "/.%2fmetrics",
    "/%2e%2fmetrics",
    "/./;x/metrics",
    "/.;x/metrics",
    "/\\metrics",
    "/%5cmetrics",
    "/metrics\\",
    "/metrics%5C.%5c",
    "/metrics%09%0d",
    "/metrics%7f",
    "/metrics%20;x",
    "/metrics;x%20",
    "/metrics%00.html",
    "/metrics;x%00/y",
    "/metrics/%00/x",
    "/metrics%3bx",
    "/metrics;%2fx",
    "/metrics;x\\y",
    "/metrics;%5cx;",
    "/;%2f/metrics",
    "/x%2F..%2Fmetrics",
    "/x%2f%2e%2E/metrics",
    "/x/..%2fmetrics",
    "/x/..;/metrics",
    "/x/..;y=z/metrics;v",
    "/..;/metrics",
    "/x\\..\\metrics",
    "/x%5c..%5c%6detrics",
    "/metrics%2fx/..",
    "/metrics/x%2f..",
    "/metrics/x/..;",
    "/x/y%2f../../metrics%00",
    "/metrics/%00x/../y",
    "/x%2f..%2f%4D%65trics?y",
    "http://shop.test/x%2f..%2fmetrics",
)
NOT_METRICS = (
    "/metricsx",
    "/metrics/x",
    "/metrics;x/y",
    "/metric",
    "/xmetrics",
    "/x/metrics",
    "/metrics.txt",
    "/%256detrics",
    "/?/metrics",
    "/metrics%2fx",
    "/x%2fmetrics",
    "/x%5cmetrics",
    "/.metrics",
    "/..metrics",
    "/...;/metrics",
    "/;metrics",
    "/x;/metrics",
    "/%20/metrics",
    "/x/../y?/metrics",
    "/x/../y;/metricsx",
    "/?x=/../metrics",
)
CLAIMS = """\
Forwarded: for=forged;host=forged;proto=https
X-Forwarded-For: forged
x-forwarded-host: forged
X-FORWARDED-HOST: forged.again
X-Forwarded-Port: 443443
X-Forwarded-Prefix: /forged
X-Forwarded-Scheme: forged
X-Forwarded-Ssl: forged
X-Forwarded-User: forged
X_Forwarded_User: forged
X_Forwarded_Proto: forged
X-Real-IP: forged
X-Real_IP: forged
X-Forwarded-Proto: forged-https
X-Forwarded-Server: forged
Proxy: forged
Connection: X-Forwarded-For, X-Forwarded-Host
"""


@pytest.fixture(params=["plain", "slotted"])
async def front(request: pytest.FixtureRequest, stage: HttpdHarness) -> AsyncIterator[HttpdHarness]:
    """httpd before two members, from either form."""
    stage.publish(metrics_path="/metrics")
    if request.param == "plain":
        async with plain_httpd(stage):
            yield stage
    else:
        await stage.start()
        yield stage


class TestFront:
    """What clients get, and what the service hears of them."""

    async def test_no_client_gets_the_metrics_page_however_it_is_spelt(self, front: HttpdHarness) -> None:
        client = front.client()
        for backend in front.backends.values():
            backend.served.clear()
        for method in ("GET", "POST"):
            got = {path: (await client.request(method, path))[0] for path in METRICS}
            assert got == dict.fromkeys(METRICS, 404), method
        assert [path for backend in front.backends.values() for path in backend.served if path != "/healthz"] == []

    async def test_what_only_resembles_it_is_passed_on(self, front: HttpdHarness) -> None:
        client = front.client()
        assert {path: (await client.request("GET", path))[0] for path in NOT_METRICS} == dict.fromkeys(NOT_METRICS, 200)

    async def test_the_service_hears_nothing_that_a_client_claims_of_itself(self, front: HttpdHarness) -> None:
        _, _, head = await front.client().request("GET", "/echo", more=CLAIMS)
        assert "forged" not in head.lower()
        assert "443443" not in head
        heard = [line for line in head.lower().splitlines() if re.match(r"(x-)?forwarded|proxy:", line)]
        # What httpd itself adds, and nothing else.
        assert sorted(heard) == [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: shop.test",
            "x-forwarded-server: balancer.invalid",
        ]


class TestHttpd:
    """The adapter on its own."""

    async def test_a_refusal_has_the_words_of_httpd(self, folder: Path) -> None:
        httpd = Httpd(find_httpd(), folder)
        httpd.write_hosts({})
        good = (GOLDEN / "slotted.conf").read_text().replace("/run/luban", str(folder))
        await httpd.check(good)
        with pytest.raises(ConfigurationRefused, match=r"(?s)line \d+ of httpd\.conf.*Invalid command 'Bogus'"):
            await httpd.check(good + "Bogus on\n")

    def test_an_httpd_that_is_not_there(self) -> None:
        with pytest.raises(PermanentError, match="install apache2-bin"):
            find_httpd("/nowhere/httpd")

    async def test_children_follow_the_hosts_file_twice_within_a_second(
        self, stage: HttpdHarness, folder: Path
    ) -> None:
        manager = free_port(HTTPD)
        runtime = AgentSettings(str(folder), HTTPD, manager, "ab" * 16, HTTPD)
        httpd = Httpd(find_httpd(), folder)
        first, second = (stage.backends[name] for name in "ab")
        httpd.write_hosts({slot_host("s001"): first.address})
        httpd.write_config(slotted_config(stage.settings, [SlotLine("s001", stage.vm_port, "a", "")], runtime))
        await httpd.start()
        try:
            client = stage.client()

            async def answers_with(name: str) -> bool:
                with contextlib.suppress(OSError, EOFError):
                    # Many at a time: each child of httpd has looked the name up for itself.
                    done = await asyncio.gather(*(client.request("GET", "/") for _ in range(32)))
                    return {text for _, _, text in done} == {name}
                return False

            await until(lambda: answers_with("a"), "first backend")
            for backend in (second, first, second):
                httpd.write_hosts({slot_host("s001"): backend.address})
                await answers_with("a")
            took = await until(lambda: answers_with("b"), "second backend")
            assert took < SETTLE_SECONDS
        finally:
            await httpd.stop(0.1)

    def test_a_log_is_read_once_and_kept_small(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("luban.adapters.apache_httpd.process.LOG_BYTES", 20)
        path = folder / "log"
        tail = LogTail(path)
        assert tail.lines() == []
        with path.open("a") as log:
            for text, lines in (
                ("one\ntw", ["one"]),
                ("o\n", ["two"]),
                ("a line of some length\n", ["a line of some length"]),
            ):
                log.write(text)
                log.flush()
                assert tail.lines() == lines
            assert path.stat().st_size == 0
            log.write("next\n")
            log.flush()
            assert tail.lines() == ["next"]

    async def test_a_program_that_looks_at_the_configuration_is_no_httpd(self, folder: Path) -> None:
        httpd = Httpd(find_httpd(), folder)
        httpd.write_config("")
        with running("tail", "-f", str(httpd.config)) as looking:
            (folder / "httpd.pid").write_text(f"{looking.pid}\n")
            assert not httpd.adopt()
            await httpd.stop(0.1)
            assert looking.poll() is None

    async def test_an_httpd_that_cannot_be_ended_is_told(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("luban.adapters.apache_httpd.process.TERMINATE_SECONDS", 0.1)
        monkeypatch.setattr("luban.adapters.apache_httpd.process._signal", lambda *_: None)
        httpd = Httpd(find_httpd(), folder)
        httpd.write_config("")
        with running("apache2", "-f", str(httpd.config)) as stuck:
            with pytest.raises(TemporaryError, match=f"process {stuck.pid}, does not end"):
                await httpd.stop(0.1)
            monkeypatch.undo()
            await httpd.stop(0.1)
            assert stuck.poll() is not None

    def test_of_a_log_that_nobody_read_for_long_the_end_is_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("luban.adapters.apache_httpd.process.READ_BYTES", 30)
        path = folder / "log"
        path.write_text("".join(f"line {number}\n" for number in range(100)) + "li")
        tail = LogTail(path, from_start=True)
        assert tail.lines() == ["line 97", "line 98", "line 99"]
        with path.open("a") as log:
            log.write("ne 100\n")
        assert tail.lines() == ["line 100"]
        path.write_text("anew\n")
        assert tail.lines() == ["anew"], "somebody emptied it"

    async def test_connections_are_counted_by_address_and_port(self) -> None:
        port = free_port("127.0.32.1")
        servers = [await Backend(str(last), f"127.0.32.{last}", port).start() for last in (1, 2)]
        clients = [await asyncio.open_connection("127.0.32.1", port) for _ in range(3)]
        counts = open_connections([("127.0.32.1", port), ("127.0.32.2", port), ("::1", port)])
        assert dict(counts) == {("127.0.32.1", port): 3}
        for _, writer in clients:
            writer.close()
            await writer.wait_closed()
        for server in servers:
            await server.stop()

    def test_a_connection_counts_until_both_sides_or_its_program_have_ended(self) -> None:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.create_server(("127.0.32.1", 0)))
            address: tuple[str, int] = server.getsockname()
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(4)]
            there = [stack.enter_context(server.accept()[0]) for _ in clients]
            _, half, finished, closed = clients
            half.shutdown(socket.SHUT_WR)
            finished.shutdown(socket.SHUT_WR)
            there[clients.index(finished)].close()
            closed.close()
            assert open_connections([address])[address] == 2, "the open one and the half-closed one"
            half.close()
            assert open_connections([address])[address] == 1
