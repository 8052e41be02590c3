"""The balancer agent with a real httpd in front of small web servers: nothing is lost, whatever changes or dies.

No API server is needed here: documents come from a folder. tests/integration/test_balancer_watch.py has the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from luban.adapters.balancers_http import HttpBalancers
from luban.adapters.httpd import Httpd, LogTail, find_httpd
from luban.adapters.httpd_connections import open_connections
from luban.balancer_agent import loader
from luban.balancer_agent.agent import AgentOptions, run
from luban.core.model import BalancerReport, Member, MemberReport, MemberState
from luban.errors import ConfigurationRefused, PermanentError
from luban.render.httpd import BalancerSettings, config_map_data, plain_config
from tests.fakes.web import Backend, Client, Load, Outcome

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "fixtures" / "httpd"
NAME = "shop-balancer-0"
HTTPD = "127.0.32.200"
RATE = 60.0
"""Requests a second of the steady loads."""


def free_port(address: str) -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 15.0) -> float:
    """Poll until the condition holds; how long it took in seconds. Fails after `seconds`."""
    begin = time.monotonic()
    while not await condition():
        assert time.monotonic() < begin + seconds, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


def background(log: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a program of ours; its output goes to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "operator")}, stdout=file, stderr=file
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that httpd's children (nobody) can get through, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="luban-httpd-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


class Stage:
    """A balancer with its backends, and what a test does to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "config").mkdir()
        self.vm_port = free_port("127.0.32.1")
        self.port = free_port(HTTPD)
        self.settings = BalancerSettings(
            cluster="shop",
            method="byrequests",
            listen_address="",
            listen_port=self.port,
            sticky_cookie="",
            timeout_seconds=30,
            health_path="/healthz",
            health_interval_seconds=1,
            health_timeout_seconds=1,
            slots=16,
            vm_port=self.vm_port,
        )
        self.options = AgentOptions(
            cluster="shop",
            state_dir=folder / "state",
            listen_address=HTTPD,
            report_address=HTTPD,
            report_port=free_port(HTTPD),
            manager_port=free_port(HTTPD),
            config_dir=folder / "config",
            stop_seconds=2,
        )
        self.backends: dict[str, Backend] = {}
        self.members: dict[str, Member] = {}
        self.version = ""
        self._numbers = itertools.count(1)
        self._balancers = HttpBalancers()
        self._stop = asyncio.Event()
        self._agent: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def vm(self, name: str) -> Backend:
        """A new VM that answers."""
        address = f"127.0.32.{next(self._numbers)}"
        self.backends[name] = await Backend(name, address, self.vm_port).start()
        return self.backends[name]

    def publish(self, **settings: object) -> None:
        """Write the ConfigMap."""
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]
        text = config_map_data(self.settings, list(self.members.values()))["balancer.json"]
        fresh = self.folder / "config" / "new"
        fresh.write_text(text)
        fresh.replace(self.folder / "config" / "balancer.json")
        self.version = text.partition('"version": "')[2][:16]

    def want(self, name: str, state: MemberState | None) -> None:
        """Publish another state for one member; None: not a member any more."""
        if state is None:
            del self.members[name]
        else:
            self.members[name] = Member(name, self.backends[name].address, self.vm_port, state)
        self.publish()

    async def start(self) -> None:
        """An agent in this process."""
        self._stop = asyncio.Event()
        self._agent = asyncio.create_task(run(self.options, self._stop))
        await self.applied()

    async def spawn(self) -> None:
        """An agent in a process of its own."""
        options = {
            "cluster": "shop",
            "state-dir": self.options.state_dir,
            "listen-address": HTTPD,
            "report-address": HTTPD,
            "report-port": self.options.report_port,
            "manager-port": self.options.manager_port,
            "config-dir": self.options.config_dir,
            "stop-seconds": 2,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = background(self.folder / "agent.log", [sys.executable, "-m", "luban.balancer_agent", *words])
        await self.applied()

    def kill_agent(self) -> None:
        """SIGKILL to the agent's process."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def applied(self, seconds: float = 15.0) -> float:
        """Wait until the agent has carried out what was published last."""

        async def condition() -> bool:
            if self._agent is not None and self._agent.done():
                self._agent.result()
            return (await self.report()).applied == self.version

        return await until(condition, f"{self.version} applied", seconds)

    async def report(self) -> BalancerReport:
        """What the agent says."""
        return await self._balancers.report(NAME, f"http://{HTTPD}:{self.options.report_port}")

    async def member(self, name: str) -> MemberReport | None:
        """What the agent says of one member."""
        return next((one for one in (await self.report()).members if one.name == name), None)

    async def drained(self, name: str, seconds: float = 15.0) -> float:
        """Wait until a member counts as drained."""

        async def condition() -> bool:
            report = await self.member(name)
            return report is not None and report.drained

        return await until(condition, f"{name} drained", seconds)

    def load(self) -> Load:
        """A steady load."""
        return Load(HTTPD, self.port, RATE)

    def client(self) -> Client:
        """A client."""
        return Client(HTTPD, self.port)

    def httpd_pid(self) -> int:
        """Of httpd's parent process."""
        return int((self.options.state_dir / "httpd.pid").read_text())

    async def metrics(self) -> str:
        """The page of metrics."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{HTTPD}:{self.options.report_port}/metrics") as answer,
        ):
            return await answer.text()

    async def close(self) -> None:
        """End all that was started."""
        self._stop.set()
        if self._agent is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._agent
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait)
        await self._balancers.close()
        for backend in self.backends.values():
            await backend.stop()


@pytest.fixture
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """With two members, a and b, published and enabled; no agent yet."""
    stage = Stage(folder)
    for name in ("a", "b"):
        await stage.vm(name)
        stage.want(name, "Enabled")
    try:
        yield stage
    finally:
        await stage.close()


def assert_nothing_lost(outcome: Outcome, least: int) -> None:
    """Every request of a load was answered, and there were some."""
    assert outcome.failures == []
    assert outcome.total >= least


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

    async def test_the_plain_form_serves_by_itself(self, stage: Stage) -> None:
        config = stage.folder / "plain.conf"
        settings = replace(stage.settings, listen_address=HTTPD)
        config.write_text(plain_config(settings, list(stage.members.values())))
        command = [find_httpd(), "-C", f"Define LUBAN_RUN {stage.folder}", "-f", str(config), "-DFOREGROUND"]
        process = background(stage.folder / "plain.log", command)
        try:
            client = stage.client()

            async def answers() -> bool:
                with contextlib.suppress(OSError, EOFError):
                    return (await client.request("GET", "/"))[0] == 200
                return False

            await until(answers, "plain httpd")
            texts = {(await client.request("GET", "/"))[2] for _ in range(4)}
            assert texts == {"a", "b"}
            await stage.backends["a"].stop()

            async def health_checks_noticed() -> bool:
                return stage.backends["b"].served["/healthz"] >= 2

            await until(health_checks_noticed, "mod_proxy_hcheck")
            assert {(await client.request("GET", "/"))[2] for _ in range(4)} == {"b"}
        finally:
            process.terminate()
            process.wait()


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

    def test_hosts_never_have_the_same_second_twice(self, folder: Path) -> None:
        httpd = Httpd("httpd", folder)
        moments = []
        for number in range(5):
            httpd.write_hosts({"s001.slot.invalid": f"127.0.32.{number}"})
            moments.append(int(httpd.hosts.stat().st_mtime))
        assert len(set(moments)) == 5

    def test_a_log_is_read_once_and_kept_small(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("luban.adapters.httpd.LOG_BYTES", 20)
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


class TestMembership:
    """Joining and leaving."""

    async def test_twenty_joins_and_leaves_lose_nothing(self, stage: Stage) -> None:
        await stage.start()
        async with stage.load() as load:
            names = ["a", "b"]
            for number in range(10):
                fresh = [f"vm-{number}-{letter}" for letter in "xy"]
                await asyncio.gather(*(join(stage, name) for name in fresh))
                await asyncio.gather(*(leave(stage, name) for name in names))
                names = fresh
        assert_nothing_lost(load.outcome, least=500)
        assert len(load.outcome.answered) == 22
        assert 'luban_balancer_reloads_total{result="loaded"}' not in await stage.metrics()

    async def test_drain_waits_for_a_slow_request(self, stage: Stage) -> None:
        await stage.start()
        client = stage.client()
        slow = [asyncio.create_task(client.request("GET", "/slow?s=2")) for _ in range(4)]

        async def in_flight() -> bool:
            report = await stage.member("a")
            return report is not None and report.in_flight == 2 and stage.backends["a"].active == 2

        await until(in_flight, "two requests in flight on each")
        begin = time.monotonic()
        stage.want("a", "Draining")
        await stage.applied()
        report = await stage.member("a")
        assert report is not None
        assert (report.state, report.drained, report.in_flight) == ("Draining", False, 2)
        assert {(await client.request("GET", "/"))[2] for _ in range(4)} == {"b"}
        await stage.drained("a")
        assert 1.5 < time.monotonic() - begin < 6.0
        assert stage.backends["a"].active == 0
        await stage.backends["a"].stop()
        assert [(await one)[0] for one in slow] == [200] * 4

    async def test_a_dead_member_is_out_within_two_seconds(self, stage: Stage) -> None:
        await stage.start()
        await stage.backends["a"].stop()

        async def out() -> bool:
            report = await stage.member("a")
            return report is not None and not report.healthy

        assert await until(out, "a out") < 3.0
        async with stage.load() as load:
            await asyncio.sleep(1.0)
        assert_nothing_lost(load.outcome, least=50)
        await stage.backends["a"].start()

        async def back() -> bool:
            return (await stage.client().request("GET", "/"))[2] == "a"

        await until(back, "a back")

    async def test_a_hung_member_is_out_although_it_accepts(self, stage: Stage) -> None:
        await stage.start()
        stage.backends["a"].freeze()

        async def out() -> bool:
            report = await stage.member("a")
            return report is not None and not report.healthy

        assert await until(out, "a out") < 5.0
        async with stage.load() as load:
            await asyncio.sleep(1.0)
        assert_nothing_lost(load.outcome, least=50)
        stage.backends["a"].thaw()

    async def test_members_that_all_fail_their_check_still_get_requests(self, stage: Stage) -> None:
        await stage.start()
        for backend in stage.backends.values():
            backend.ready = False

        async def failing() -> bool:
            return not any(one.healthy for one in (await stage.report()).members)

        await until(failing, "both failing")
        assert {(await stage.client().request("GET", "/"))[0] for _ in range(4)} == {200}


async def join(stage: Stage, name: str) -> None:
    """Bring a new VM in."""
    await stage.vm(name)
    stage.want(name, "Enabled")
    await until(lambda: enabled(stage, name), f"{name} enabled")


async def leave(stage: Stage, name: str) -> None:
    """Take a VM out as the operator does: drain, stop, forget."""
    stage.want(name, "Draining")
    await stage.drained(name)
    assert stage.backends[name].active == 0
    await stage.backends[name].stop()
    stage.want(name, None)


class TestSettings:
    """What needs a reload."""

    async def test_a_sticky_cookie_binds_counts_and_holds(self, stage: Stage) -> None:
        stage.publish(sticky_cookie="LUBANID")
        await stage.start()
        client = stage.client()
        cookies = {}
        while len(cookies) < 2:
            _, headers, text = await client.request("GET", "/")
            cookies[text] = headers["set-cookie"].partition(";")[0]
        for _ in range(6):
            _, headers, text = await client.request("GET", "/", cookie=cookies["a"])
            assert (text, headers.get("set-cookie")) == ("a", None)

        async def counted() -> bool:
            return [one.sessions for one in (await stage.report()).members] == [1, 0]

        await until(counted, "one session on a")
        stage.want("a", "Draining")
        await stage.applied()
        assert {(await client.request("GET", "/"))[2] for _ in range(4)} == {"b"}, "no new session"
        assert (await client.request("GET", "/", cookie=cookies["a"]))[2] == "a", "the old one stays"
        report = await stage.member("a")
        assert report is not None
        assert not report.drained
        stage.want("a", "Disabled")
        await stage.drained("a")
        _, headers, text = await client.request("GET", "/", cookie=cookies["a"])
        assert text == "b", "moved, and bound anew"
        assert headers["set-cookie"].partition(";")[0].endswith(".b")

    async def test_new_settings_are_loaded(self, stage: Stage) -> None:
        await stage.start()
        for method in ("bytraffic", "bybusyness"):
            stage.publish(method=method, slots=32)
        await stage.applied()
        assert 'luban_balancer_reloads_total{result="loaded"} 1.0' in await stage.metrics()
        config = (stage.options.state_dir / "httpd.conf").read_text()
        assert "lbmethod=bybusyness" in config
        assert "s032" in config
        assert {(await stage.client().request("GET", "/"))[0] for _ in range(4)} == {200}

    async def test_refused_settings_change_nothing_but_the_report(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await stage.start()
        good = loader.slotted_config

        def bad(settings: BalancerSettings, *rest: object) -> str:
            return good(settings, *rest) + ("Bogus on\n" if settings.method == "bytraffic" else "")  # type: ignore[arg-type]

        monkeypatch.setattr(loader, "slotted_config", bad)
        stage.publish(method="bytraffic")
        await stage.vm("c")
        stage.want("c", "Enabled")

        async def refused() -> bool:
            return "Invalid command 'Bogus'" in (await stage.report()).message

        await until(refused, "httpd's words")
        report = await stage.report()
        assert (report.ready, report.applied == stage.version) == (False, False)
        client = stage.client()

        async def joined() -> bool:
            return (await client.request("GET", "/"))[2] == "c"

        await until(joined, "membership goes on")
        stage.publish(method="byrequests")
        await stage.applied()
        assert (await stage.report()).ready

    async def test_a_port_that_is_taken_is_refused_before_httpd_dies_of_it(self, stage: Stage) -> None:
        await stage.start()
        with socket.socket() as taken:
            taken.bind((HTTPD, 0))
            taken.listen()
            stage.publish(listen_port=taken.getsockname()[1])

            async def refused() -> bool:
                return "Address already in use" in (await stage.report()).message

            await until(refused, "refusal")
            assert (await stage.client().request("GET", "/"))[0] == 200

    async def test_what_cannot_be_read_is_reported(self, stage: Stage) -> None:
        await stage.start()
        (stage.folder / "config" / "balancer.json").write_text("{}")

        async def reported() -> bool:
            report = await stage.report()
            return not report.ready and "balancer.json" in report.message

        await until(reported, "message")
        assert (await stage.client().request("GET", "/"))[0] == 200


class TestDeaths:
    """Agent and httpd killed."""

    async def test_an_agent_that_is_killed_and_restarted_loses_nothing(self, stage: Stage) -> None:
        await stage.spawn()
        httpd = stage.httpd_pid()
        async with stage.load() as load:
            for number in range(3):
                name = f"vm-{number}"
                await stage.vm(name)
                stage.want(name, "Enabled")
                # In the midst of a join: pointed, not open yet.
                await until(lambda name=name: known(stage, name), f"{name} known")  # type: ignore[misc]
                stage.kill_agent()
                await stage.spawn()
            stage.want("vm-0", "Draining")
            await until(lambda: closed(stage, "vm-0"), "vm-0 closed")
            stage.kill_agent()
            await stage.spawn()
            await stage.drained("vm-0")
            await stage.backends["vm-0"].stop()
        assert_nothing_lost(load.outcome, least=300)
        assert stage.httpd_pid() == httpd

    async def test_an_httpd_that_is_killed_comes_back_with_the_right_members(self, stage: Stage) -> None:
        await stage.start()
        stage.want("b", "Draining")
        await stage.applied()
        for _ in range(2):
            before = stage.httpd_pid()
            os.kill(before, signal.SIGKILL)

            async def back(before: int = before) -> bool:
                report = await stage.report()
                return report.ready and stage.httpd_pid() != before

            await until(back, "httpd again")
            assert {(await stage.client().request("GET", "/"))[2] for _ in range(6)} == {"a"}

    async def test_the_end_lets_requests_finish(self, stage: Stage) -> None:
        await stage.spawn()
        slow = asyncio.create_task(stage.client().request("GET", "/slow?s=1"))

        async def in_flight() -> bool:
            return any(backend.active for backend in stage.backends.values())

        await until(in_flight, "request")
        pid = stage.httpd_pid()
        await stage.close()
        assert (await slow)[0] == 200
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def enabled(stage: Stage, name: str) -> bool:
    """Whether a member takes requests."""
    report = await stage.member(name)
    return report is not None and report.state == "Enabled"


async def known(stage: Stage, name: str) -> bool:
    """Whether the agent has taken a member on."""
    return await stage.member(name) is not None


async def closed(stage: Stage, name: str) -> bool:
    """Whether a member takes nothing new."""
    report = await stage.member(name)
    return report is not None and report.state != "Enabled"
