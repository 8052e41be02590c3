"""Requests that httpd serves while the file with its slots' names is replaced again and again.

Through our resolver with the file at rest, with the file replaced, and, where Debian's libnss-wrapper is installed,
through libnss_wrapper with the file replaced. In turns, same load, same httpd configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import aiohttp

from bench.membership import ADDRESS, free_port, until
from bench.result import Result, say, spread
from bench.support.backends import Backends
from luban.adapters.apache_httpd.process import Httpd, find_httpd
from luban.render.httpd import (
    ERROR_LOG,
    AgentSettings,
    BalancerSettings,
    SlotLine,
    slot_host,
    slot_name,
    slotted_config,
)

SLOTS = 20
CLIENTS = 100
RUNS = 3
SECONDS = 8.0
REPLACE_SECONDS = 0.3
LISTEN_ADDRESS = "127.0.32.211"
"""Not the slots' address: libnss_wrapper finds an address in its file twice, and httpd would listen twice."""
MANAGER_ADDRESS = "127.0.32.212"


@dataclass(frozen=True)
class Kind:
    """One of the ways that are compared."""

    name: str
    replaced: bool
    wrapper: bool = False


KINDS = (
    Kind("ours", replaced=True),
    Kind("ours, file at rest", replaced=False),
    Kind("libnss_wrapper", replaced=True, wrapper=True),
)


@dataclass
class Seen:
    """What became of the requests of all runs of one kind."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    crashed: int = 0

    @property
    def failed(self) -> int:
        """Requests that were not answered by 200."""
        return self.answers.total() - self.answers["200"]


class Wrapped(Httpd):
    """httpd with libnss_wrapper in place of our library. It reads its file again when its second changed."""

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "LD_PRELOAD": "libnss_wrapper.so", "NSS_WRAPPER_HOSTS": str(self.hosts)}

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """As Httpd's, and never the same second twice."""
        before = self.hosts.stat().st_mtime if self.hosts.exists() else 0.0
        super().write_hosts(addresses)
        moment = max(time.time(), int(before) + 1.0)
        os.utime(self.hosts, (moment, moment))


def has_wrapper() -> bool:
    """Whether libnss-wrapper is installed; it is needed for the comparison alone."""
    with contextlib.suppress(OSError):
        ctypes.CDLL("libnss_wrapper.so")
        return True
    return False


def settings(vm_port: int) -> BalancerSettings:
    """Settings of the httpd."""
    return BalancerSettings(
        cluster="bench",
        method="byrequests",
        listen_address=LISTEN_ADDRESS,
        listen_port=free_port(),
        sticky_cookie="",
        timeout_seconds=30,
        health_path="/healthz",
        health_interval_seconds=5,
        health_timeout_seconds=3,
        slots=SLOTS,
        vm_port=vm_port,
    )


@asynccontextmanager
async def serving(kind: Kind, folder: Path, vm_port: int) -> AsyncIterator[tuple[Httpd, str]]:
    """An httpd with all slots open, and its address."""
    chosen = settings(vm_port)
    runtime = AgentSettings(str(folder), MANAGER_ADDRESS, free_port(), "0" * 32)
    slots = [SlotLine(slot_name(number), vm_port, f"r{number}", "") for number in range(1, SLOTS + 1)]
    httpd = (Wrapped if kind.wrapper else Httpd)(find_httpd(), folder)
    write(httpd)
    httpd.write_config(slotted_config(chosen, slots, runtime))
    await httpd.start()
    url = f"http://{LISTEN_ADDRESS}:{chosen.listen_port}/"
    try:
        async with aiohttp.ClientSession() as session:
            await until(lambda: answers(session, url), "httpd")
        yield httpd, url
    finally:
        await httpd.stop(1.0)


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether httpd serves."""
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def write(httpd: Httpd) -> None:
    """Point every slot at the one backend."""
    httpd.write_hosts({slot_host(slot_name(number)): ADDRESS for number in range(1, SLOTS + 1)})


async def load(url: str, seen: Seen, end: float) -> None:
    """One client: a request after the other until `end`."""
    async with aiohttp.ClientSession() as session:
        while (begun := time.monotonic()) < end:
            try:
                async with session.get(url) as answer:
                    await answer.read()
                    seen.answers[str(answer.status)] += 1
            except aiohttp.ClientError as error:
                seen.answers[type(error).__name__] += 1
            seen.seconds.append(time.monotonic() - begun)


async def run(kind: Kind, seen: Seen, vm_port: int) -> None:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="luban-bench-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # noqa: ASYNC240 - takes no time
        async with serving(kind, folder, vm_port) as (httpd, url):
            end = time.monotonic() + SECONDS
            before = seen.answers.total()
            clients = [asyncio.create_task(load(url, seen, end)) for _ in range(CLIENTS)]
            while kind.replaced and time.monotonic() < end:
                write(httpd)
                await asyncio.sleep(REPLACE_SECONDS)
            await asyncio.gather(*clients)
            seen.rates.append((seen.answers.total() - before) / SECONDS)
        seen.crashed += (folder / ERROR_LOG).read_text().count("exit signal")


def told(seen: Seen) -> dict[str, object]:
    """The figures of one kind."""
    return {
        "answers": dict(seen.answers),
        "crashed_children": seen.crashed,
        "longest_s": round(max(seen.seconds), 3),
        "p99_s": round(quantiles(seen.seconds, n=100)[98], 4),
        "requests_per_s": spread(seen.rates),
    }


async def measure() -> dict[Kind, Seen]:
    """All kinds in turn."""
    kinds = [kind for kind in KINDS if not kind.wrapper or has_wrapper()]
    if len(kinds) < len(KINDS):
        say("libnss-wrapper is not installed (apt install libnss-wrapper): measuring without it")
    found = {kind: Seen() for kind in kinds}
    port = free_port()
    async with Backends() as backends:
        await backends.ask("start", "a", ADDRESS, port)
        for number in range(RUNS):
            for kind in kinds:
                await run(kind, found[kind], port)
                say(f"run {number + 1}/{RUNS}: {kind.name}: {found[kind].failed} failed so far")
    return found


def main() -> None:
    """Measure and print."""
    found = asyncio.run(measure())
    ours, rest = found[KINDS[0]], found[KINDS[1]]
    Result(
        bench="names",
        value=float(ours.failed),
        unit=f"requests that failed while {SLOTS} names were replaced every {REPLACE_SECONDS:g} s",
        baseline="the same with the file at rest",
        baseline_value=float(rest.failed),
        ratio=median(ours.rates) / median(rest.rates),
        detail={"ratio": "of requests per second", **{kind.name: told(seen) for kind, seen in found.items()}},
    ).print()


if __name__ == "__main__":
    main()
