"""Reading an observation: which VMs serve, start, drain; which balancers send requests to whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from luban.core.model import (
    BalancerReport,
    DomainRecord,
    HostObservation,
    MemberReport,
    Observation,
    VMRecord,
)

STARTING_PHASES = frozenset({"Pending", "Provisioning", "Booting"})
RUNNING_STATES = frozenset({"Running", "Paused", "ShuttingDown"})


@dataclass(frozen=True)
class State:
    """An observation with its derived sets. VMs are ordered by creation, then name."""

    observation: Observation

    @cached_property
    def vms(self) -> tuple[VMRecord, ...]:
        """All VMs, oldest first."""
        return tuple(sorted(self.observation.vms, key=lambda vm: (vm.created, vm.name)))

    @cached_property
    def live(self) -> tuple[VMRecord, ...]:
        """VMs that count towards the wanted number: not on their way out and not lost."""
        return tuple(vm for vm in self.vms if vm.deleting_since is None and vm.phase != "Lost")

    @cached_property
    def serving(self) -> tuple[VMRecord, ...]:
        """Ready and attached to at least one balancer."""
        return tuple(vm for vm in self.live if vm.phase == "Ready" and self.attached(vm))

    @cached_property
    def starting(self) -> tuple[VMRecord, ...]:
        """Live, not serving yet, and not failed."""
        serving = {vm.name for vm in self.serving}
        return tuple(vm for vm in self.live if vm.name not in serving and vm.phase != "Failed")

    @cached_property
    def draining(self) -> tuple[VMRecord, ...]:
        """On their way out."""
        return tuple(vm for vm in self.vms if vm.deleting_since is not None)

    @cached_property
    def failed(self) -> tuple[VMRecord, ...]:
        """Failed and kept for inspection."""
        return tuple(vm for vm in self.live if vm.phase == "Failed")

    @cached_property
    def hosts(self) -> dict[str, HostObservation]:
        """Hosts by name."""
        return {host.name: host for host in self.observation.hosts}

    @cached_property
    def live_per_host(self) -> Counter[str]:
        """Live VMs by host."""
        return Counter(vm.host for vm in self.live)

    @cached_property
    def all_per_host(self) -> Counter[str]:
        """All VMs by host, those on their way out included: they still hold memory."""
        return Counter(vm.host for vm in self.vms)

    def reachable(self, host: str) -> bool:
        """Whether the host was observed and answers."""
        seen = self.hosts.get(host)
        return seen is not None and seen.reachable

    def domain(self, vm: VMRecord) -> DomainRecord | None:
        """The VM's domain as observed; None: absent, or its host says nothing."""
        seen = self.hosts.get(vm.host)
        return seen.domains.get(vm.uid) if seen is not None and seen.reachable else None

    def runs(self, vm: VMRecord) -> bool:
        """Whether the VM's domain is known to run."""
        domain = self.domain(vm)
        return domain is not None and domain.state in RUNNING_STATES

    def address(self, vm: VMRecord) -> str:
        """Where the VM serves, from the freshest source that knows; empty: nobody knows yet."""
        domain = self.domain(vm)
        return (domain.address if domain else "") or vm.address or vm.planned_address

    def member(self, balancer: BalancerReport, vm: VMRecord) -> MemberReport | None:
        """A balancer's word on a VM."""
        return next((member for member in balancer.members if member.name == vm.name), None)

    def attachments(self, vm: VMRecord) -> tuple[str, ...]:
        """Balancers that send new requests to the VM. One that does not answer keeps its last known word."""
        return tuple(
            balancer.name for balancer in self.observation.balancers if self._attached_to(balancer, vm)
        )

    def _attached_to(self, balancer: BalancerReport, vm: VMRecord) -> bool:
        if not balancer.reachable:
            return balancer.name in vm.balancers
        member = self.member(balancer, vm)
        return member is not None and member.state == "Enabled"

    def attached(self, vm: VMRecord) -> bool:
        """Whether any balancer sends new requests to the VM."""
        return bool(self.attachments(vm))

    def drained(self, vm: VMRecord) -> bool:
        """Whether every balancer is known to have nothing in flight on the VM and to send nothing new."""
        return all(self._drained_from(balancer, vm) for balancer in self.observation.balancers)

    def _drained_from(self, balancer: BalancerReport, vm: VMRecord) -> bool:
        if not balancer.reachable:
            return False
        member = self.member(balancer, vm)
        return member is None or (member.state != "Enabled" and member.drained)
