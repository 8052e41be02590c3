"""A balancer agent with a real httpd in front of small web servers: the stage of several integration tests."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp

from luban.adapters.balancers_http import HttpBalancers
from luban.balancer_agent.agent import AgentOptions, run
from luban.core.model import BalancerReport, ClusterRef, Member, MemberReport, MemberState
from luban.render.httpd import BalancerSettings, config_map_data
from tests.fakes.plain.service import PlainService
from tests.fakes.web import Backend, Client, Load

ROOT = Path(__file__).resolve().parent.parent.parent
CLUSTER = ClusterRef("default", "shop")
NAME = "shop-balancer-0"
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
HTTPD = "127.0.32.200"
RATE = 60.0
"""Requests a second of the steady loads."""


LOOK_SECONDS = 1.0


def free_port(address: str) -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 15.0) -> float:
    """Poll until the condition holds; how long it took in seconds. Fails after `seconds`.

    A machine that stands still stops us and the others alike: a look counts for LOOK_SECONDS at most.
    """
    begin = last = time.monotonic()
    spent = 0.0
    while not await condition():
        now = time.monotonic()
        spent += min(now - last, LOOK_SECONDS)
        last = now
        assert spent < seconds, f"{what}: not within {seconds} s ({now - begin:.1f} s on the clock)"
        await asyncio.sleep(0.02)
    return time.monotonic() - begin


def background(log: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a program of ours; its output goes to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "operator")}, stdout=file, stderr=file
        )


@contextlib.contextmanager
def httpd_folder() -> Iterator[Path]:
    """A folder that httpd's children (nobody) can get through, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="luban-httpd-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


class HttpdHarness:
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
        self.services: dict[str, PlainService] = {}
        self.members: dict[str, Member] = {}
        self.version = ""
        self._numbers = itertools.count(1)
        self._balancers = HttpBalancers(networks=[LOOPBACK])
        self._stop = asyncio.Event()
        self._agent: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def vm(self, name: str) -> Backend:
        """A new VM that answers."""
        address = f"127.0.32.{next(self._numbers)}"
        self.backends[name] = await Backend(name, address, self.vm_port).start()
        return self.backends[name]

    async def plain(self, name: str) -> PlainService:
        """A new VM with a plain service."""
        address = f"127.0.32.{next(self._numbers)}"
        self.services[name] = await PlainService(name, address, self.vm_port).start()
        return self.services[name]

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
            server = self.backends.get(name) or self.services[name]
            self.members[name] = Member(name, server.address, self.vm_port, state)
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

        try:
            return await until(condition, f"{self.version} applied", seconds)
        except AssertionError as error:
            log = self.folder / "agent.log"
            raise AssertionError(f"{error}\n{log.read_text() if log.exists() else ''}") from error

    async def report(self) -> BalancerReport:
        """What the agent says."""
        return await self._balancers.report(CLUSTER, NAME, f"http://{HTTPD}:{self.options.report_port}", members=100)

    async def follow(self, heard: Callable[[BalancerReport | None], None]) -> BalancerReport | None:
        """What the agent tells by itself."""
        endpoint = f"http://{HTTPD}:{self.options.report_port}"
        return await self._balancers.follow(CLUSTER, NAME, endpoint, members=100, heard=heard)

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
        for service in self.services.values():
            await service.stop()


@contextlib.asynccontextmanager
async def a_stage() -> AsyncIterator[HttpdHarness]:
    """A stage with two members, a and b, published and enabled; no agent yet."""
    with httpd_folder() as folder:
        stage = HttpdHarness(folder)
        try:
            for name in ("a", "b"):
                await stage.vm(name)
                stage.want(name, "Enabled")
            yield stage
        finally:
            await stage.close()


@contextlib.asynccontextmanager
async def plain_stage(*names: str, **settings: object) -> AsyncIterator[HttpdHarness]:
    """A stage whose members have plain services, one called `a` if no others are named; no agent yet."""
    with httpd_folder() as folder:
        stage = HttpdHarness(folder)
        try:
            for name in names or ("a",):
                await stage.plain(name)
                stage.want(name, "Enabled")
            stage.publish(**settings)
            yield stage
        finally:
            await stage.close()
