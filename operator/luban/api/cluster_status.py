"""What the operator answers in a LubanCluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luban.api.common import Condition, StatusModel, Time, map_list
from luban.api.host import BondVerdict


class VMCounts(StatusModel):
    """VMs by what they are doing."""

    desired: int = 0
    """VMs that should serve."""
    serving: int = 0
    """Answering: ready, in a balancer, and known to answer."""
    starting: int = 0
    """Created, not in a balancer yet."""
    draining: int = 0
    """On their way out, or to the pool."""
    warm: int = 0
    """In the pool and at rest: they can be let serve at once."""
    paused: int = 0
    """Their domains are paused: they answer nobody."""
    failed: int = 0
    """Did not start, or lost."""


class HostBond(StatusModel):
    """The bond of a host that matters, as its node agent reports it."""

    name: str = ""
    """Name of the interface."""
    verdict: BondVerdict
    """Healthy, Recovering, Degraded, ..., Down; Unknown: no fresh report; None: the host has no bond."""
    mode: str = ""
    """Bonding mode, for example 802.3ad."""
    active: int = 0
    """Ports that carry traffic."""
    total: int = 0
    """Ports that should."""
    since: str | None = None
    """Since when the verdict holds (RFC 3339)."""
    message: str = ""
    """Why, port by port."""


class HostStatus(StatusModel):
    """One host as observed."""

    name: str
    """Name of the host entry."""
    reachable: bool
    """Whether its libvirt daemon answers. One that may not be used is asked only while VMs of this cluster are there."""
    vms: int = 0
    """VMs of this cluster placed there."""
    reason: str = ""
    """CamelCase reason why nothing may be made or started there, as in condition HostsAllowed; empty: it may."""
    message: str = ""
    """Why it may not be used, or is not reachable."""
    bond: HostBond | None = None
    """Health of its bonded network interfaces; unset: no node agent has reported."""


class BalancerStatus(StatusModel):
    """One balancer as it reports itself."""

    name: str
    """Name of the balancer."""
    ready: bool
    """Whether httpd serves with the wanted configuration."""
    members: int = 0
    """Members that take new requests."""
    applied: str = ""
    """Version of its ConfigMap that is in force."""
    message: str = ""
    """Why it is not ready, in httpd's words where it gave any."""


class TierStatus(StatusModel):
    """How many balancers there should be."""

    desired: int = 0
    """Balancers that should serve."""
    reason: str = ""
    """CamelCase reason: Minimum, BalancersPerVM, AttachmentRoom, BalancerLost, TierAtMaximum, Shrinking."""
    message: str = ""
    """The reason in words, with the figures."""


class DecisionInput(StatusModel):
    """One VM's load as the decision saw it."""

    vm: str
    """Name of the VM."""
    sessions: int | None = None
    """Active sessions; unset: unknown."""
    percent: int | None = None
    """Sessions in percent of maxPerVM; unset: unknown."""


class MetricInput(StatusModel):
    """One metric of the cluster as the decision saw it."""

    name: str
    """The metric, as scaling.rules or scaling.target name it."""
    value: float | None = None
    """Percent: the mean over the VMs that carry the load and are known; unset: unknown."""
    unknown: int = 0
    """VMs of which it is not known."""


class Decision(StatusModel):
    """The last decision with its reasons."""

    at: str
    """When it was first taken (RFC 3339)."""
    verdict: Literal["ScaleUp", "ScaleDown", "Hold", "AtMaximum"]
    """What is done."""
    reason: str
    """CamelCase reason."""
    message: str
    """The reason in words, with the figures."""
    inputs: tuple[DecisionInput, ...] = ()
    """Loads that it used."""
    metrics: tuple[MetricInput, ...] = ()
    """Metrics that it used: policies Rules and Target."""
    eligible_at: Time | None = None
    """Earliest time at which the wish can be carried out; unset: not waiting for a time."""


PlacementReason = Literal["FewestVMs", "HostBelowMinimum", "NoRecentFailure", "BetterBond", "OnlyHost", "NoRoom"]


class Placement(StatusModel):
    """Where the next VM would go."""

    host: str = ""
    """Name of the host entry; empty: no host can take a VM."""
    reason: PlacementReason
    """What decided. FewestVMs: the rule of Luban cloud, Fig. 5. HostBelowMinimum: it has fewer than its vms.min.
    NoRecentFailure: a VM failed on the others lately. BetterBond: without the bonds it would be another host. OnlyHost: no
    other can take one. NoRoom: nowhere."""
    message: str
    """Why there, and why not on each other host."""


class LubanClusterStatus(StatusModel):
    """What the operator answers."""

    observed_generation: int = 0
    """metadata.generation that this status belongs to."""
    phase: Literal["Pending", "Progressing", "Ready", "Degraded", "Paused", "Deleting"] = "Pending"
    """The state in one word."""
    replicas: int = 0
    """Answering VMs, for /scale: those in a balancer that are known to answer."""
    selector: str = ""
    """Label selector of the cluster's LubanVMs, for /scale."""
    vms: VMCounts = VMCounts()
    """VMs by what they are doing."""
    summary: str = ""
    """answering/desired, for `kubectl get`."""
    hosts: tuple[HostStatus, ...] = ()
    """Hosts as observed."""
    bond_summary: str = ""
    """Hosts with a sound bond/hosts, for `kubectl get`; empty: no agent reports, or bondPolicy is Ignore."""
    balancers: tuple[BalancerStatus, ...] = ()
    """Balancers as they report."""
    balancer_summary: str = ""
    """ready/all balancers, for `kubectl get`."""
    tier: TierStatus | None = None
    """How many balancers there should be; unset with attachment.mode Single."""
    sessions: int | None = None
    """Active sessions of all serving VMs when the status was last written; unset: unknown."""
    users: int | None = None
    """Clients of the last minute when the status was last written: sessions where there is a sticky cookie, else addresses.
    Unset: unknown. Who came through several balancers counts once in each."""
    decision: Decision | None = None
    """The last decision."""
    placement: Placement | None = None
    """Where the next VM would go."""
    last_scale_time: Time | None = None
    """When VMs were last added or removed because of the load (RFC 3339)."""
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=map_list("type"))
    """Ready, SpecValid, HostsAllowed, HostsReachable, VMsHealthy, BalancersReady, LoadKnown, BondsHealthy, AtMaximum, PoolFilled, Reconciled."""
