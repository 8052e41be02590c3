"""A host whose packets get lost for a while: `unshare --net python -m tests.fakes.vanished_host`. Prints JSON.

Runs in a network namespace of its own. 192.0.2.10 is at first at the other end of a cable where nobody is, then here.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
from functools import partial

import libvirt

from luban.adapters.libvirt_hosts.backoff import Pace
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.adapters.libvirt_hosts.knock import knock
from luban.core.model import ClusterRef
from luban.errors import HostUnreachable
from luban.ports import HostRef

ADDRESS = "192.0.2.10"
HOST = HostRef("host-b", f"qemu+tls://{ADDRESS}/system")
CLUSTER = ClusterRef("shop", "luban")
FAILURES = 6
PATIENCE = 30.0
KNOCK_SECONDS = 0.2
CABLE = (
    "link set lo up",
    "link add near type veth peer name far",
    "link set near up",
    "link set far up",
    "address add 192.0.2.1/24 dev near",
    f"neighbour add {ADDRESS} lladdr 02:00:00:00:00:01 dev near nud permanent",
)


def ip(command: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *command.split()], check=True, timeout=10)


def open_connection(opened: list[str], uri: str) -> libvirt.virConnect:
    """What libvirt.open would be, if it were let at the host."""
    opened.append(uri)
    return libvirt.open("test:///default")


async def answers(hypervisor: LibvirtHypervisor) -> bool:
    """Whether the host answers now."""
    try:
        await hypervisor.inventory(HOST)
    except HostUnreachable:
        return False
    return True


async def watch() -> dict[str, int]:
    """Ask while nobody is there, then until somebody answers."""
    opened: list[str] = []
    hypervisor = LibvirtHypervisor(
        HypervisorSettings(pace=Pace(first_retry=0.0, last_retry=0.0)),
        partial(open_connection, opened),
        partial(knock, seconds=KNOCK_SECONDS),
    )
    before = threading.active_count()
    for _ in range(FAILURES):
        assert not await answers(hypervisor)
    result = {"opened_while_away": len(opened), "threads": threading.active_count() - before}
    ip(f"address add {ADDRESS}/32 dev lo")
    async with asyncio.timeout(PATIENCE):
        while not await answers(hypervisor):
            pass
    await hypervisor.close()
    return {**result, "opened": len(opened)}


def main() -> None:
    """Print what happened."""
    for command in CABLE:
        ip(command)
    with socket.create_server(("0.0.0.0", 16514)):
        print(json.dumps(asyncio.run(watch())))


if __name__ == "__main__":
    main()
