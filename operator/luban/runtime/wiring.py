"""The ports that one cluster's runtime works through, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from luban.ports import Balancers, Clock, Cluster, Hypervisor, Probes


@dataclass(frozen=True)
class Ports:
    """Everything outside."""

    hypervisor: Hypervisor
    cluster: Cluster
    balancers: Balancers
    probes: Probes
    clock: Clock
