"""What is known of the world and when it was seen: asked once, at its own pace, for all clusters."""

from __future__ import annotations

from dataclasses import dataclass

from luban.core.usable_hosts import HostPolicy
from luban.ports import Ports
from luban.senses.host_claims import HostClaims
from luban.senses.host_registry import HostRegistry
from luban.senses.host_reports import HostReports
from luban.senses.hosts import HostSenses
from luban.senses.usage import UsageSenses


@dataclass(frozen=True)
class Senses:
    """What all clusters of an operator share."""

    hosts: HostSenses
    """What libvirt says."""
    bonds: HostReports
    """What node agents say about bonds."""
    registry: HostRegistry
    """What administrators say about hosts."""
    claims: HostClaims
    """Who takes room on them."""
    usage: UsageSenses
    """What VMs use, as libvirt counts it."""

    @classmethod
    def of(cls, ports: Ports, policy: HostPolicy = "Any") -> Senses:
        """New ones, which know nothing yet. `policy`: who may say where a host is."""
        return cls(
            HostSenses(ports.hypervisor, ports.clock.monotonic),
            HostReports(),
            HostRegistry(policy),
            HostClaims(),
            UsageSenses(ports.hypervisor, ports.clock.monotonic),
        )
