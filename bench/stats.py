"""How fast the operator reads 1,000 domains of one host: one bulk call against one call for each domain.

Both go through the same real libvirtd (its test driver holds the domains) over the same kind of connection. Ours is
the adapter's whole inventory: thread hand-over, metadata and records included; the baseline is bare calls.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import libvirt

from bench.result import Result, say, spread
from bench.support.simulated_hosts import SimulatedHost
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterRef, Machine
from luban.ports import HostRef
from luban.render.domain_xml import HostFacts, domain_xml

DOMAINS = 1000
RUNS = 15
READ_SECONDS = 30.0
CLUSTER = ClusterRef("bench", "luban", str(uuid.uuid4()))


@contextmanager
def daemon() -> Iterator[str]:
    """The URI of a simulated host."""
    with tempfile.TemporaryDirectory(prefix="luban-stats-") as folder:
        Path(folder).chmod(0o755)
        host = SimulatedHost("libvirtd", Path(folder) / "host")
        try:
            host.begin()
            host.answer()
            yield host.uri
        finally:
            host.end()


def fill(connection: libvirt.virConnect) -> None:
    """Define and start the domains as the adapter would."""
    template = VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}})
    facts = HostFacts(kvm=False, emulation="test", overlay_path="/none")
    for number in range(DOMAINS):
        vm = f"vm-{number}"
        spec = Machine(str(uuid.uuid4()), vm, CLUSTER, template)
        connection.defineXML(domain_xml(spec, facts)).create()


def one_by_one(connection: libvirt.virConnect) -> float:
    """Milliseconds to read the state of each domain by a call of its own."""
    begun = time.perf_counter()
    states = [domain.state() for domain in connection.listAllDomains()]
    if len(states) < DOMAINS:
        raise RuntimeError(f"{len(states)} domains instead of {DOMAINS}")
    return (time.perf_counter() - begun) * 1000


async def in_bulk(hypervisor: LibvirtHypervisor, host: HostRef) -> float:
    """Milliseconds to read them as the operator does."""
    begun = time.perf_counter()
    found = await hypervisor.inventory(host)
    if len(found.domains) != DOMAINS:
        raise RuntimeError(f"{len(found.domains)} domains instead of {DOMAINS}")
    return (time.perf_counter() - begun) * 1000


async def measure(uri: str) -> Result:
    """All runs, both ways in turn."""
    # The adapter takes no URI of the test driver from a spec: it is given one that it takes, and our connection.
    connection, host = libvirt.open(uri), HostRef("bench", "qemu:///session")
    say(f"defining and starting {DOMAINS} domains")
    fill(connection)
    hypervisor = LibvirtHypervisor(HypervisorSettings(read=READ_SECONDS), opener=lambda _uri: libvirt.open(uri))
    first = await in_bulk(hypervisor, host)
    bulk, single = [], []
    for run in range(RUNS):
        single.append(await asyncio.to_thread(one_by_one, connection))
        bulk.append(await in_bulk(hypervisor, host))
        say(f"run {run + 1}/{RUNS}: one call for each {single[-1]:.1f} ms, in bulk {bulk[-1]:.1f} ms")
    await hypervisor.close()
    connection.close()
    return Result(
        bench="stats",
        value=median(bulk),
        unit=f"ms to read {DOMAINS} domains with LibvirtHypervisor.inventory",
        baseline="ms for one state call for each domain",
        baseline_value=median(single),
        ratio=median(single) / median(bulk),
        detail={
            "daemon": "libvirtd over its Unix socket, test driver",
            "libvirt": libvirt.getVersion(),
            "domains": DOMAINS,
            "bulk_ms": spread(bulk),
            "one_by_one_ms": spread(single),
            "first_read_ms": first,
            "first_read": "reads the metadata and the lease of every domain as well, once",
        },
    )


def main() -> None:
    """Start a libvirtd, measure, stop it."""
    with daemon() as uri:
        result = asyncio.run(measure(uri))
    result.print()


if __name__ == "__main__":
    main()
