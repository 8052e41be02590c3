"""How large a fleet is, and the objects that ask for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.support.guests import Endpoint
from bench.support.simulated_hosts import POOL
from lab.paths import Layout
from luban.api import names

IMAGE = "web.qcow2"
FIRST_AGENT_PORT = 20_000
AGENTS = 20
"""Last octet of the agents' address."""
SPARE = 2
"""A host takes so many VMs more of a cluster than its share: a lost one finds a place at once."""
RANGES_IN_A_BLOCK = 256


@dataclass(frozen=True)
class Size:
    """How many of everything."""

    clusters: int
    vms: int
    """Of each cluster."""
    hosts: int
    share: int
    """Hosts that each cluster uses; every host is used by as many clusters as any other."""

    def __post_init__(self) -> None:
        if min(self.clusters, self.vms, self.hosts) < 1 or not 1 <= self.share <= self.hosts:
            raise ValueError(f"{self}: at least one of everything, and no cluster on more hosts than there are")

    @property
    def all_vms(self) -> int:
        """VMs of all clusters."""
        return self.clusters * self.vms

    def hosts_of(self, cluster: int) -> list[int]:
        """Hosts of a cluster."""
        step = max(1, self.hosts // self.share)
        return [(cluster + number * step) % self.hosts for number in range(self.share)]


def cluster_name(number: int) -> str:
    """Name of a LubanCluster."""
    return f"team-{number:03}"


def host_name(number: int) -> str:
    """Name of a host."""
    return f"host-{number:02}"


def agent_of(layout: Layout, number: int) -> Endpoint:
    """Where the agent of a cluster's balancer answers."""
    return layout.address(AGENTS), FIRST_AGENT_PORT + number


def cluster_body(layout: Layout, size: Size, number: int, uris: Sequence[str]) -> dict[str, Any]:
    """A LubanCluster with the API's defaults, but for what the test driver's small hosts ask for."""
    hosts = [
        {
            "name": host_name(host),
            "uri": uris[host],
            "vms": {"min": 0, "max": math.ceil(size.vms / size.share) + SPARE},
            "forwardRange": _forward_range(layout, number * size.share + place),
        }
        for place, host in enumerate(size.hosts_of(number))
    ]
    machine = {
        "domain": {"memory": {"max": "16Mi"}},
        "image": {"pool": POOL, "volume": IMAGE, "size": "16Mi"},
        "network": {"type": "User"},
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": "LubanCluster",
        "metadata": {"name": cluster_name(number)},
        "spec": {
            "hosts": hosts,
            "template": {"spec": machine},
            "scaling": {"minVMs": size.vms, "maxVMs": size.vms},
        },
    }


def _forward_range(layout: Layout, number: int) -> str:
    """One /24 for each host of each cluster, in blocks (/16) that no lab of another base uses."""
    block, third = divmod(number, RANGES_IN_A_BLOCK)
    return f"127.{layout.base + block}.{third}.0/24"
