"""What is known of the world and when it was seen: asked once, at its own pace, for all clusters."""

from __future__ import annotations

from dataclasses import dataclass

from luban.ports import Ports
from luban.senses.host_reports import HostReports
from luban.senses.hosts import HostSenses


@dataclass(frozen=True)
class Senses:
    """What all clusters of an operator share."""

    hosts: HostSenses
    """What libvirt says."""
    bonds: HostReports
    """What node agents say about bonds."""

    @classmethod
    def of(cls, ports: Ports) -> Senses:
        """New ones, which know nothing yet."""
        return cls(HostSenses(ports.hypervisor, ports.clock.monotonic), HostReports())
