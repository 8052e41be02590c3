"""From a pulled cable to the LubanHost in the API server, on a real kernel: with the kernel's events, and polling.

Two agents run in one QEMU guest (emulated, Debian's kernel, 802.3ad, miimon 100) and report as two nodes to a real API
server: one as it is, one with `--no-events --resync 1s`. Every pull is seen by both, at a random phase of the polling.
"""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from bench.result import Result, say, spread
from lab.binaries import ensure_binaries
from lab.bonds.guest import CABLES, BondGuest, Fault
from lab.bonds.image import ensure_bond_guest
from lab.bonds.reporting import SINGLE, GuestAgent, ReportWatch, api_relay
from lab.bonds.settings import BondSettings, Mode
from lab.controlplane import ControlPlane
from lab.image.progress import Progress
from lab.nodes import NodeAgent
from lab.paths import Layout

ROOT = Path(__file__).resolve().parent.parent
BASE = 120
PULLS = 30
POLLING_SECONDS = 1.0
IDLE_SECONDS = 60.0
SETTLED_SECONDS = 60.0
EVENTS, POLLING = "host-b", "host-c"
"""Nodes of the two agents."""
OPTIONS = {
    EVENTS: ("--listen-port", "9182"),
    POLLING: ("--listen-port", "9183", "--no-events", "--resync", f"{POLLING_SECONDS:g}s"),
}


@dataclass(frozen=True)
class Usage:
    """What a process has used so far."""

    cpu: float
    """seconds"""
    rss: float
    """MiB"""


def usage(stat: str, status: str, ticks: int) -> Usage:
    """From the texts of /proc/PID/stat and /proc/PID/status."""
    fields = stat.rpartition(")")[2].split()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    return Usage((int(fields[11]) + int(fields[12])) / ticks, int(resident[1]) / 1024 if resident else 0.0)


def guest_usage(guest: BondGuest, agent: GuestAgent) -> Usage:
    """Of an agent in the guest. Emulation makes its processor time several times what a real one takes."""
    folder = f"/proc/{agent.process.pid}"
    ticks = int(guest.run("getconf", "CLK_TCK").stdout)
    stat, status = (guest.run("cat", f"{folder}/{name}").stdout for name in ("stat", "status"))
    return usage(stat, status, ticks)


def machine_usage(pid: int) -> Usage:
    """Of a process on this machine."""
    folder = Path(f"/proc/{pid}")
    ticks = int(subprocess.run(["getconf", "CLK_TCK"], capture_output=True, text=True, check=True).stdout)
    return usage((folder / "stat").read_text(), (folder / "status").read_text(), ticks)


def pull(guest: BondGuest, watch: ReportWatch, cable: int) -> dict[str, float]:
    """Seconds until each node's LubanHost says so; afterwards everything is whole and both say that too."""
    time.sleep(random.uniform(0, POLLING_SECONDS))  # noqa: S311 - a phase, no secret
    pulled, _ = guest.break_cable(cable, Fault.PULLED)
    found = {
        node: watch.until(
            node, lambda one: one.verdict != "Healthy", "the pull", since=pulled, timeout=SETTLED_SECONDS
        ).at
        - pulled
        for node in OPTIONS
    }
    _, whole = guest.restore_cable(cable)
    for node in OPTIONS:
        watch.until(node, lambda one: one.verdict == "Healthy", "healthy", since=whole, timeout=SETTLED_SECONDS)
    return found


def percentile(values: list[float], number: int) -> float:
    """Of a sample, interpolated."""
    return quantiles(values, n=100, method="inclusive")[number - 1]


def idle_on_this_machine(plane: ControlPlane) -> tuple[Usage, float]:
    """An agent on this machine that nothing happens to: what it holds, and its CPU seconds in an hour."""
    agent = NodeAgent(plane.layout, EVENTS)
    agent.start(plane, ROOT)
    try:
        pid = agent.daemon.pid()
        if pid is None:
            raise RuntimeError(f"the agent ended; its log {agent.daemon.log} says:\n{agent.daemon.tail()}")
        time.sleep(10)  # its start is over
        before = machine_usage(pid)
        time.sleep(IDLE_SECONDS)
        after = machine_usage(pid)
    finally:
        agent.daemon.stop()
    return after, (after.cpu - before.cpu) * 3600 / IDLE_SECONDS


def measure(plane: ControlPlane, stack: ExitStack) -> Result:
    """All pulls, then what the agents use while nothing happens."""
    guest = stack.enter_context(BondGuest(ensure_bond_guest(Progress())))
    watch = stack.enter_context(ReportWatch(plane))
    guest.configure(BondSettings(Mode.LACP))
    relay = api_relay(guest, plane)
    agents = {
        node: GuestAgent.start(guest, plane, NodeAgent(plane.layout, node), relay, *options)
        for node, options in OPTIONS.items()
    }
    for node in OPTIONS:
        watch.until(node, lambda one: one.verdict == "Healthy", "a healthy bond", timeout=SETTLED_SECONDS)
        plane.kubectl("patch", "lubanhost", node, "--type=merge", "-p", SINGLE)
    times: dict[str, list[float]] = {node: [] for node in OPTIONS}
    for number in range(PULLS):
        for node, seconds in pull(guest, watch, CABLES[number % 2]).items():
            times[node].append(seconds)
        say(f"pull {number + 1}/{PULLS}: events {times[EVENTS][-1]:.3f} s, polling {times[POLLING][-1]:.3f} s")
    say(f"idle for {IDLE_SECONDS:g} s, in the guest and on this machine")
    before = {node: guest_usage(guest, agent) for node, agent in agents.items()}
    time.sleep(IDLE_SECONDS)
    after = {node: guest_usage(guest, agent) for node, agent in agents.items()}
    own, hourly = idle_on_this_machine(plane)
    p99 = {node: percentile(values, 99) for node, values in times.items()}
    return Result(
        bench="bond",
        value=p99[EVENTS],
        unit="s p99 from cable pull to LubanHost status in the API server",
        baseline="the same agent without events, polling each second",
        baseline_value=p99[POLLING],
        ratio=p99[POLLING] / p99[EVENTS],
        detail={
            "pulls": PULLS,
            "events": {"p50": median(times[EVENTS]), "p99": p99[EVENTS], **spread(times[EVENTS])},
            "polling": {"p50": median(times[POLLING]), "p99": p99[POLLING], **spread(times[POLLING])},
            "idle_cpu_s_per_hour": {
                "this machine, no bond": round(hourly, 1),
                **{
                    f"emulated guest, {name}": round((after[node].cpu - before[node].cpu) * 3600 / IDLE_SECONDS, 1)
                    for name, node in (("events", EVENTS), ("polling", POLLING))
                },
            },
            "rss_mib": {"this machine": round(own.rss, 1), "emulated guest": round(after[EVENTS].rss, 1)},
        },
    )


def main() -> None:
    """Bring a control plane and the guest up, measure, take them down."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="luban-bench-")))
        plane = ControlPlane(Layout(BASE, state), ensure_binaries(say))
        stack.callback(plane.destroy)
        plane.up()
        plane.kubectl("apply", "-k", str(ROOT / "manifests" / "base"))
        measure(plane, stack).print()


if __name__ == "__main__":
    main()
