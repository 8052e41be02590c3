"""What the operator does at rest, while nobody changes anything: API requests, host calls, CPU and memory.

100 LubanClusters with 1,000 VMs on 20 hosts, everything Ready. The API server is real, and so are the libvirt daemons
(their test driver holds the domains); see bench.support.fleet. Both are witnessed from their side: requests by the API
server's audit log, by user, without watches and without the operator's own Lease; calls by a proxy in front of each
daemon that reads the headers of libvirt's messages. Ideal is one call to a host in the time for which an answer is
believed, however many clusters use it. The VMs' readiness is real to the operator: something answers its probes.

Baseline: the operator of BEFORE, the last commit before all clusters shared what is known. It makes the VMs; then each
operator is started anew on the same VMs, settles, and is watched. Afterwards one VM is cut off, to see that
an operator that asks for little does not sleep.

LUBAN_BENCH_CLUSTERS (100), LUBAN_BENCH_HOSTS (20) and LUBAN_BENCH_SECONDS (60) make it smaller for a trial.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.result import Result, say
from bench.support.api_witness import by_kind
from bench.support.fleet import LONG_QUIET_SECONDS, Fleet, UnsettledError, chosen_layout
from bench.support.fleet_objects import Size
from bench.support.operators import Process, unpack
from bench.support.orderly import in_thread, run_orderly
from lab.datacentre import ROOT, operator_arguments
from lab.paths import Layout
from lab.process import Daemon
from luban.runtime.usage import SELDOM_SECONDS
from luban.senses.hosts import FRESH_SECONDS

BASE = 132
BEFORE = "c8f8b2df508533c1b4ce694edf6fc2f8bb8fd48e"
"""Each cluster's tick goes out and asks the API server and the hosts by itself."""
VMS = 10
"""Of each cluster."""
SHARE = 4
"""Hosts of each cluster."""
MAKE_SECONDS = 300.0
"""For all VMs together."""
SETTLE_SECONDS = 120.0
"""After its start an operator connects, lists and asks everybody once: that is not rest."""
BARE_SECONDS = 15.0
"""In which kopf alone has seen all objects."""
NOTICE_SECONDS = 60.0


@dataclass(frozen=True)
class Reading:
    """What the witnesses have counted so far."""

    at: float
    """Seconds of a monotonic clock."""
    position: int
    """In the audit log."""
    calls: Counter[str]
    probes: int
    reports: int
    cpu: float
    """Seconds."""
    lag: float
    """Seconds by which the witnesses and guests themselves were late at most, since the reading before."""

    @classmethod
    def take(cls, fleet: Fleet, operator: Process) -> Reading:
        """Read them all."""
        guests, lag, fleet.worst_lag = fleet.guests, fleet.worst_lag, 0.0
        return cls(
            at=time.monotonic(),
            position=fleet.api.position(),
            calls=fleet.host_calls(),
            probes=guests.probes,
            reports=guests.asked,
            cpu=operator.cpu_seconds(),
            lag=lag,
        )


@dataclass(frozen=True)
class Usage:
    """What one operator took between two readings."""

    begin: Reading
    end: Reading
    requests: Counter[str]
    rss: float
    """MiB."""
    noticed: float
    """Seconds from the loss of a VM to a new one in its place."""
    settled: bool
    """Whether everything was ready, and nothing was written, before it was watched."""

    @property
    def seconds(self) -> float:
        """How long it was watched."""
        return self.end.at - self.begin.at

    def a_minute(self, count: float) -> float:
        """A count of the whole time for one minute."""
        return round(count * 60 / self.seconds, 2)

    def detail(self, hosts: int) -> dict[str, Any]:
        """As the benchmark's line has it."""
        begin, end = self.begin, self.end
        each = end.calls - begin.calls
        calls = each.total()
        return {
            "api_requests_per_minute": self._each(self.requests),
            "host_calls_per_minute": self.a_minute(calls),
            "host_calls": self._each(each),
            "seconds_between_calls_to_a_host": round(self.seconds * hosts / calls, 3) if calls else None,
            "probes_per_minute": self.a_minute(end.probes - begin.probes),
            "reports_per_minute": self.a_minute(end.reports - begin.reports),
            "cpu_s_per_minute": self.a_minute(end.cpu - begin.cpu),
            "rss_mib": round(self.rss, 1),
            "seconds": round(self.seconds, 1),
            "settled": self.settled,
            "witnesses_late_by_s": round(end.lag, 3),
            "lost_vm_replaced_after_s": round(self.noticed, 1),
        }

    def _each(self, counts: Counter[str]) -> dict[str, float]:
        return {name: self.a_minute(count) for name, count in counts.most_common()}


async def watch(fleet: Fleet, operator: Process, seconds: float) -> Usage:
    """Start an operator on a fleet that is ready, let it settle, and watch it."""
    say(f"{operator.daemon.name}: starting and settling")
    await in_thread(operator.start)
    settled = await settles(fleet, operator)
    say(f"{operator.daemon.name}: watching for {seconds:g} s")
    begin = Reading.take(fleet, operator)
    await asyncio.sleep(seconds)
    end, rss = Reading.take(fleet, operator), operator.rss_mib()
    requests = by_kind(fleet.api.between(begin.position, end.position))
    noticed = await lose_one(fleet, operator)
    await in_thread(operator.daemon.stop)
    return Usage(begin, end, requests, rss, noticed, settled)


async def settles(fleet: Fleet, operator: Process) -> bool:
    """Wait until it is at rest. Returns whether it is: one that never comes to rest is watched all the same."""
    try:
        await fleet.settle(operator, SETTLE_SECONDS, quiet=LONG_QUIET_SECONDS)
    except UnsettledError as error:
        say(f"{operator.daemon.name}: {error}")
        return False
    return True


async def lose_one(fleet: Fleet, operator: Process) -> float:
    """Cut the power of a VM. Seconds until another one serves in its place. Raises UnsettledError if none ever does."""
    lost = fleet.view.look().vms[0]
    begun = time.monotonic()
    await fleet.cut_power(lost)
    await fleet.serve(operator, NOTICE_SECONDS, without=lost["metadata"]["uid"])
    return time.monotonic() - begun


async def bare(fleet: Fleet) -> float:
    """MiB of a kopf operator that watches the same objects, and does nothing."""
    say("kopf alone, on the same objects")
    address = f"{fleet.layout.operator}:8082"
    command = ["bench.support.bare_operator", address]
    daemon = Daemon("kopf-alone", fleet.layout.state)
    process = Process(daemon, ROOT, command, fleet.layout.admin_kubeconfig, f"http://{address}/healthz")
    await in_thread(process.start)
    await asyncio.sleep(BARE_SECONDS)
    rss = process.rss_mib()
    await in_thread(daemon.stop)
    return rss


async def make_vms(fleet: Fleet, operator: Process) -> None:
    """Have an operator make all VMs, and stop it."""
    say(f"{operator.daemon.name}: making {fleet.size.all_vms} VMs")
    begun = time.monotonic()
    await in_thread(operator.start)
    await fleet.create(operator, MAKE_SECONDS)
    await fleet.serve(operator, MAKE_SECONDS)
    await in_thread(operator.daemon.stop)
    say(f"made after {time.monotonic() - begun:.0f} s")


def earlier_arguments(layout: Layout) -> list[str]:
    """Those that BEFORE knows, whatever has come to the lab's since."""
    listen = ["--listen-address", layout.operator, "--listen-port", "8081"]
    return ["controller", *listen, "--user-networking", "--agent-network", "127.0.0.0/8"]


async def measure(layout: Layout, size: Size, seconds: float, folder: Path) -> Result:
    """The earlier operator, then that of the working tree."""
    earlier = await in_thread(unpack, BEFORE, folder)
    async with Fleet(layout, size) as fleet:
        await in_thread(fleet.apply_base, earlier)
        arguments = earlier_arguments(layout)
        await make_vms(fleet, await in_thread(fleet.operator, "operator-making", earlier, arguments))
        operator = await in_thread(fleet.operator, "operator-before", earlier, arguments)
        before = await watch(fleet, operator, seconds)
        await in_thread(fleet.apply_base, ROOT)
        operator = await in_thread(fleet.operator, "operator-after", ROOT, operator_arguments(layout))
        after = await watch(fleet, operator, seconds)
        return compare(size, before, after, await bare(fleet))


def compare(size: Size, before: Usage, after: Usage, bare_rss: float) -> Result:
    """The result. Where nothing at all was requested, the ratio is that of one request in the whole time."""
    old, new = before.requests.total(), after.requests.total()
    return Result(
        bench="rest",
        value=after.a_minute(new),
        unit="API requests a minute at rest, besides watches and the operator's own Lease",
        baseline=f"the same of commit {BEFORE[:7]} on the same VMs",
        baseline_value=before.a_minute(old),
        ratio=round((old / before.seconds) / (max(new, 1) / after.seconds), 1),
        detail={
            "clusters": size.clusters,
            "vms": size.all_vms,
            "hosts": size.hosts,
            "hosts_of_a_cluster": size.share,
            "host_calls_ideal_per_minute": size.hosts * (60 / FRESH_SECONDS + 60 / SELDOM_SECONDS),
            "before": before.detail(size.hosts),
            "after": after.detail(size.hosts),
            "kopf_alone_rss_mib": round(bare_rss, 1),
            "rss_ratio": round(after.rss / bare_rss, 2),
            "api_witness": "audit log of kube-apiserver, by user",
            "host_witness": "proxy in front of each libvirtd",
        },
    )


def main() -> None:
    """Bring everything up, measure, take it down."""
    hosts = int(os.environ.get("LUBAN_BENCH_HOSTS", "20"))
    size = Size(int(os.environ.get("LUBAN_BENCH_CLUSTERS", "100")), VMS, hosts, min(SHARE, hosts))
    with tempfile.TemporaryDirectory(prefix="luban-rest-") as folder:
        seconds = float(os.environ.get("LUBAN_BENCH_SECONDS", "60"))
        run_orderly(measure(chosen_layout(BASE), size, seconds, Path(folder)))


if __name__ == "__main__":
    main()
