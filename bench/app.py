"""How many evaluations the web service keeps in a second: one worker, SQLite, over HTTP on loopback.

An evaluation is a POST of a home with all its answers: read, checked, scored, written to the database, answered with
the record. Ours is the program as a VM runs it. Baseline: a bare Starlette application that inserts the same row with
SQLAlchemy (bench/support/bare_app.py). Both run under uvicorn and are measured in turn by the same client.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp

from bench.result import Result, say, spread
from luban_app.house.samples import SAMPLES

RUNS = 5
REQUESTS = 1500
"""Of one run."""
CLIENTS = 8
PER_SESSION = 100
"""Evaluations of one visitor; then another one comes."""
START_SECONDS = 30.0
TOP = Path(__file__).parents[1]
HOME = {
    "name": "臺北市大安區 garden flat",
    "address": "12 Elm Road",
    "notes": "South side, third floor, quiet street.",
    "answers": dict(SAMPLES[0].answers),
}


@dataclass(frozen=True)
class Server:
    """A process that serves on `port`."""

    process: subprocess.Popen[bytes]
    port: int
    start_seconds: float
    """From the process' start until it is ready."""

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Memory that it holds."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")


@contextmanager
def serving(*command: str) -> Iterator[Server]:
    """Run a server; `PORT` in its command is replaced by a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [str(port) if word == "PORT" else word for word in command]
    environment = {**os.environ, "PYTHONPATH": f"{TOP / 'app'}:{TOP}", "LUBAN_VM": "bench"}
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    try:
        asyncio.run(_ready(port, begun + START_SECONDS))
        yield Server(process, port, time.monotonic() - begun)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


async def _ready(port: int, deadline: float) -> None:
    async with aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError("the server is not ready")
            await asyncio.sleep(0.01)


async def load(port: int) -> float:
    """Evaluations a second with CLIENTS at once. Raises RuntimeError if one is refused."""
    left = REQUESTS

    async def visitor() -> None:
        nonlocal left
        while left > 0:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
                for _ in range(PER_SESSION):
                    if left <= 0:
                        return
                    left -= 1
                    async with client.post(f"http://127.0.0.1:{port}/api/v1/records", json=HOME) as answer:
                        await answer.read()
                        if answer.status != 201:
                            raise RuntimeError(f"HTTP {answer.status}")

    begun = time.perf_counter()
    await asyncio.gather(*(visitor() for _ in range(CLIENTS)))
    return REQUESTS / (time.perf_counter() - begun)


def measure(ours: Server, bare: Server) -> Result:
    """All runs, both servers in turn."""
    fresh = {"ours": ours.resident_mib(), "bare": bare.resident_mib()}
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    costs: dict[str, list[float]] = {"ours": [], "bare": []}
    for server in (ours, bare):
        asyncio.run(load(server.port))
    for run in range(RUNS):
        for name, server in (("bare", bare), ("ours", ours)):
            before = server.cpu_seconds()
            rates[name].append(asyncio.run(load(server.port)))
            costs[name].append(REQUESTS / (server.cpu_seconds() - before))
        say(f"run {run + 1}/{RUNS}: bare {rates['bare'][-1]:.0f}/s, ours {rates['ours'][-1]:.0f}/s")
    return Result(
        bench="app",
        value=median(rates["ours"]),
        unit="evaluations kept per second, one worker, SQLite, over HTTP",
        baseline="bare Starlette and SQLAlchemy inserts of the same row per second",
        baseline_value=median(rates["bare"]),
        ratio=median(rates["ours"]) / median(rates["bare"]),
        detail={
            "aim": 300,
            "requests": REQUESTS,
            "clients": CLIENTS,
            "answers": len(HOME["answers"]),
            "ours_per_s": spread(rates["ours"]),
            "bare_per_s": spread(rates["bare"]),
            "ours_per_cpu_s": spread(costs["ours"]),
            "bare_per_cpu_s": spread(costs["bare"]),
            "ours_rss_mib": {"ready": fresh["ours"], "after": ours.resident_mib()},
            "bare_rss_mib": {"ready": fresh["bare"], "after": bare.resident_mib()},
            "ours_ready_after_s": ours.start_seconds,
            "bare_ready_after_s": bare.start_seconds,
        },
    )


def main() -> None:
    """Start both servers, measure, stop them."""
    with tempfile.TemporaryDirectory(prefix="luban-app-") as folder:
        ours = Path(folder) / "ours"
        bare = Path(folder) / "bare"
        bare.mkdir()
        with (
            serving("-m", "luban_app", "--port", "PORT", "--data-dir", str(ours), "--log-level", "warning") as one,
            serving("-m", "bench.support.bare_app", str(bare), "PORT") as other,
        ):
            result = measure(one, other)
    result.print()


if __name__ == "__main__":
    main()
