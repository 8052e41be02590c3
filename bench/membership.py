"""Requests lost while members come and go: the balancer agent against "rewrite the configuration, graceful restart".

Both stand in front of the same web servers and get the same steady load, in turns, with WebSockets and uploads open all
the time; each change is a VM that joins, or one that leaves and is switched off once it serves nothing. Between any two
VMs, ours without a change gives the latency to compare with: what else the machine does then meets both alike.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from statistics import median, quantiles
from typing import Protocol

from bench.result import Result, say, spread
from bench.support.backends import ROOT, Backends
from bench.support.companions import Companions
from bench.support.priority import run_first
from luban.adapters.apache_httpd.process import Httpd, find_httpd
from luban.adapters.balancers_http import HttpBalancers
from luban.core.model import BalancerReport, ClusterRef, Member
from luban.logs import configure_logging
from luban.render.httpd import BalancerSettings, config_map_data, plain_config
from tests.fakes.web import Load, Outcome

ROUNDS = 5
CHANGES = 10
"""Per round; half of them joins."""
RATE = 500.0
"""Requests a second."""
QUIET_SECONDS = 5.0
"""About as long as a VM's joining and leaving."""
PACE_SECONDS = 1.7
"""Between two changes of the baseline: what ours takes for one on average; closer gracefuls crash httpd's children."""
DEADLINE_SECONDS = 30.0
ADDRESS = "127.0.32.210"
LOOPBACK = ip_network("127.0.0.0/8")
CLUSTER = ClusterRef("default", "bench")
MEMBERS = 3


class Subject(Protocol):
    """A way to change the members of an httpd."""

    port: int

    async def join(self, member: Member) -> None:
        """Bring a member in; returns when it is done."""

    async def leave(self, name: str) -> None:
        """Take a member out; returns when it may be switched off."""


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll. Raises TimeoutError after DEADLINE_SECONDS."""
    begin = time.monotonic()
    while not await condition():
        if time.monotonic() > begin + DEADLINE_SECONDS:
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


class Ours:
    """The agent, in a process of its own, told by documents in a folder."""

    def __init__(self, settings: BalancerSettings, folder: Path, members: list[Member]) -> None:
        self.port = settings.listen_port
        self._settings = settings
        self._folder = folder
        self._members = {member.name: member for member in members}
        self._report_port = free_port()
        self._balancers = HttpBalancers(networks=[LOOPBACK])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start, and stop at the end."""
        self._folder.mkdir()
        self._publish()
        words = ["--cluster", "bench", "--state-dir", str(self._folder / "state"), "--config-dir", str(self._folder)]
        words += ["--report-address", ADDRESS, "--report-port", str(self._report_port)]
        words += ["--manager-port", str(free_port()), "--stop-seconds", "1"]
        log = (self._folder / "agent.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "luban.balancer_agent", *words, cwd=ROOT, stdout=log, stderr=log
        )
        log.close()
        try:
            await until(self._ready, "agent ready")
            yield
        finally:
            process.terminate()
            await process.wait()
            await self._balancers.close()

    async def join(self, member: Member) -> None:
        """See Subject."""
        self._members[member.name] = member
        self._publish()
        await until(lambda: self._is(member.name, "Enabled", drained=False), f"{member.name} joined")

    async def leave(self, name: str) -> None:
        """See Subject."""
        self._members[name] = replace(self._members[name], state="Draining")
        self._publish()
        await until(lambda: self._is(name, "Draining", drained=True), f"{name} drained")
        del self._members[name]
        self._publish()

    def _publish(self) -> None:
        fresh = self._folder / "fresh.json"
        fresh.write_text(config_map_data(self._settings, list(self._members.values()))["balancer.json"])
        fresh.replace(self._folder / "balancer.json")

    async def _report(self) -> BalancerReport:
        return await self._balancers.report(
            CLUSTER, "bench-balancer-0", f"http://{ADDRESS}:{self._report_port}", members=100
        )

    async def _ready(self) -> bool:
        return bool((await self._report()).applied)

    async def _is(self, name: str, state: str, *, drained: bool) -> bool:
        return any(
            (one.name, one.state, one.drained) == (name, state, drained) for one in (await self._report()).members
        )


class Rewrite:
    """The usual way: write the members into the configuration, graceful restart."""

    def __init__(self, settings: BalancerSettings, folder: Path, members: list[Member], backends: Backends) -> None:
        self.port = settings.listen_port
        self._settings = settings
        self._members = {member.name: member for member in members}
        self._backends = backends
        self._httpd = Httpd(find_httpd(), folder)
        self._changed = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start, and stop at the end."""
        self._httpd.folder.mkdir()
        self._httpd.folder.chmod(0o711)
        self._httpd.write_hosts({})
        self._write()
        await self._httpd.start()
        try:
            await until(self._listens, "httpd listens")
            yield
        finally:
            await self._httpd.stop(1.0)

    async def join(self, member: Member) -> None:
        """See Subject."""
        self._members[member.name] = member
        await self._reload()

    async def leave(self, name: str) -> None:
        """See Subject. Children of before the restart still send requests to the member for a moment."""
        del self._members[name]
        await self._reload()
        await until(lambda: self._idle(name), f"{name} idle")

    async def _reload(self) -> None:
        await asyncio.sleep(max(0.0, self._changed + PACE_SECONDS - time.monotonic()))
        self._write()
        await self._httpd.graceful()
        self._changed = time.monotonic()

    async def _idle(self, name: str) -> bool:
        return time.monotonic() > self._changed + 1.5 and await self._backends.ask("active", name) == 0

    def _write(self) -> None:
        text = plain_config(self._settings, list(self._members.values()))
        self._httpd.write_config(text.replace("${LUBAN_RUN}", str(self._httpd.folder)))

    async def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((ADDRESS, self.port)) == 0


@dataclass
class Series:
    """One subject's measurements."""

    p99_ms: list[float] = field(default_factory=list)
    """A value per round."""
    seconds: list[float] = field(default_factory=list)
    """Of this round."""
    requests: int = 0
    websockets: int = 0
    uploads: int = 0
    failures: list[str] = field(default_factory=list)
    changes: int = 0

    def add(self, outcome: Outcome, beside: Companions, changes: int = 0) -> None:
        """Take what one load met."""
        self.websockets += beside.done["websocket"]
        self.uploads += beside.done["upload"]
        self.failures += beside.failures
        self.seconds += outcome.seconds
        self.requests += outcome.total
        self.failures += outcome.failures
        self.changes += changes

    def end_round(self) -> None:
        """Condense a round to its p99."""
        self.p99_ms.append(round(1000 * quantiles(self.seconds, n=100)[98], 2))
        self.seconds.clear()

    def detail(self) -> dict[str, object]:
        """For the result."""
        kinds = {kind: self.failures.count(kind) for kind in sorted(set(self.failures))}
        return {
            "requests": self.requests,
            "websockets": self.websockets,
            "uploads": self.uploads,
            "failed": len(self.failures),
            "changes": self.changes,
            "p99_ms": spread(self.p99_ms),
            "failures": dict(sorted(kinds.items(), key=lambda pair: -pair[1])[:5]),
        }


class Bench:
    """The stage: web servers, and both subjects in front of them."""

    def __init__(self, backends: Backends, vm_port: int) -> None:
        self._backends = backends
        self._vm_port = vm_port
        self._made = 0

    async def vm(self) -> Member:
        """A new web server."""
        self._made += 1
        member = Member(f"vm-{self._made}", f"127.0.32.{self._made}", self._vm_port, "Enabled")
        await self._backends.ask("start", member.name, member.address, member.port)
        return member

    async def quiet(self, subject: Subject, series: Series) -> None:
        """Load without changes."""
        async with Companions(ADDRESS, subject.port) as beside, Load(ADDRESS, subject.port, RATE) as load:
            await asyncio.sleep(QUIET_SECONDS)
        series.add(load.outcome, beside)

    async def changing(self, subject: Subject, series: Series) -> None:
        """Load while a VM joins and leaves."""
        async with Companions(ADDRESS, subject.port) as beside, Load(ADDRESS, subject.port, RATE) as load:
            member = await self.vm()
            await subject.join(member)
            await subject.leave(member.name)
            await self._backends.ask("stop", member.name)
        series.add(load.outcome, beside, changes=2)


def settings_for(port: int, vm_port: int) -> BalancerSettings:
    """Settings of a small cluster."""
    return BalancerSettings("bench", "byrequests", ADDRESS, port, "", 30, "/healthz", 2, 2, 16, vm_port)


async def measure(folder: Path) -> tuple[Series, Series, Series]:
    """Ours, baseline, ours without changes."""
    ours, baseline, quiet = Series(), Series(), Series()
    async with AsyncExitStack() as stack:
        backends = await stack.enter_async_context(Backends())
        vm_port = free_port()
        bench = Bench(backends, vm_port)
        members = [await bench.vm() for _ in range(MEMBERS)]
        agent = Ours(settings_for(free_port(), vm_port), folder / "ours", members)
        rewrite = Rewrite(settings_for(free_port(), vm_port), folder / "rewrite", members, backends)
        await stack.enter_async_context(agent.running())
        await stack.enter_async_context(rewrite.running())
        for number in range(ROUNDS):
            for _ in range(CHANGES // 2):
                await bench.quiet(agent, quiet)
                await bench.changing(agent, ours)
                await bench.changing(rewrite, baseline)
            for series in (quiet, ours, baseline):
                series.end_round()
            say(
                f"round {number + 1} of {ROUNDS}: failed {len(ours.failures)} of {ours.requests} (ours), "
                f"{len(baseline.failures)} of {baseline.requests} (rewrite + graceful); "
                f"p99 {quiet.p99_ms[-1]} / {ours.p99_ms[-1]} / {baseline.p99_ms[-1]} ms (quiet, ours, rewrite)"
            )
    return ours, baseline, quiet


def httpd_version() -> str:
    """2.4.71, for example."""
    text = subprocess.run([find_httpd(), "-v"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"Apache/(\S+)", text)
    return match[1] if match else "unknown"


def main() -> None:
    """Measure and print."""
    configure_logging()
    scheduling = run_first()
    with tempfile.TemporaryDirectory(prefix="luban-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        ours, baseline, quiet = asyncio.run(measure(folder))
    Result(
        bench="membership",
        value=len(ours.failures),
        unit=f"failed requests over {ours.changes} member changes",
        baseline="rewrite + graceful, same load",
        baseline_value=len(baseline.failures),
        ratio=round(median(one / other for one, other in zip(ours.p99_ms, quiet.p99_ms, strict=True)), 3),
        detail={
            "rate_per_second": RATE,
            "ours": ours.detail(),
            "baseline": baseline.detail(),
            "ours_without_changes": quiet.detail(),
            "scheduling": scheduling,
            "load_average": os.getloadavg()[0],
            "versions": {"httpd": httpd_version(), "python": platform.python_version(), "kernel": platform.release()},
        },
    ).print()


if __name__ == "__main__":
    main()
