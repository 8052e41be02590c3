"""What the decisions look at (Observation), what they remember (ClusterMemory), what they ask for (Plan, Action).

All times are seconds on a clock that nobody sets, unless they are named otherwise. All types are frozen: a plan is a
value that can be compared and printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from luban.api.cluster_status import Decision, Placement
from luban.api.conditions import ConditionName
from luban.api.host import BondVerdict
from luban.api.template import VMTemplateSpec
from luban.api.vm import Phase, Role
from luban.core.balancers import BalancerObjects, EnsureBalancers, Tier
from luban.core.figures import Figures
from luban.core.left_out import HostRoom, Refusal, UnreadableVM
from luban.core.memory import ClusterMemory

MemberState = Literal["Enabled", "Draining", "Disabled"]
"""Enabled: takes new requests. Draining: none, except those of sticky sessions. Disabled: none at all."""
DomainState = Literal["Running", "Paused", "ShuttingDown", "Off", "Crashed"]


ClusterPhase = Literal["Pending", "Progressing", "Ready", "Degraded", "Paused", "Deleting"]


@dataclass(frozen=True)
class ClusterRef:
    """Which LubanCluster."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def covers(self, other: ClusterRef) -> bool:
        """Whether both are the same; a missing uid on either side matches any."""
        same = (self.namespace, self.name) == (other.namespace, other.name)
        return same and (not self.uid or not other.uid or self.uid == other.uid)


@dataclass(frozen=True)
class Machine:
    """All that a hypervisor needs to make one VM. `uuid` is the LubanVM's metadata.uid."""

    uuid: str
    name: str
    """Name of the LubanVM; the domain is called `<namespace>_<name>`."""
    cluster: ClusterRef
    template: VMTemplateSpec
    forward_address: str = ""
    """Network type User: loopback address that forwards to the service port."""
    user_data: str | None = field(default=None, repr=False)
    """cloud-init user-data; None: no seed disk."""
    plane: str = ""
    """Mark of the control plane that makes it; empty: not known."""

    @property
    def domain_name(self) -> str:
        """Name of the libvirt domain."""
        return f"{self.cluster.namespace}_{self.name}"

    @property
    def overlay_volume(self) -> str:
        """Name of the overlay volume; derived from the uuid so that it can be found again after a crash."""
        return f"luban-{self.uuid}.qcow2"

    @property
    def seed_volume(self) -> str:
        """Name of the cloud-init seed volume."""
        return f"luban-{self.uuid}-seed.iso"


@dataclass(frozen=True)
class VMRecord:
    """A LubanVM: the intent, and what was last written to its status."""

    name: str
    uid: str
    host: str
    host_uri: str
    template: VMTemplateSpec
    created: float
    """Creation time, in seconds since the epoch: for order alone."""
    phase: Phase = "Pending"
    phase_since: float = 0.0
    """Since when this process has seen it in its phase; `plan` fills it in, unless it is Ready and stays."""
    deleting_since: float | None = None
    """Deletion time, in seconds since the epoch; None: nobody asked for it."""
    address: str = ""
    planned_address: str = ""
    balancers: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""
    was_ready: bool = False
    """Whether it was Ready once."""
    has_finalizer: bool = True
    role: Role = "Serving"
    """Serving, or Warm: in the pool, or on its way there."""


@dataclass(frozen=True)
class DomainRecord:
    """A libvirt domain that carries this cluster's metadata."""

    uuid: str
    name: str
    state: DomainState
    address: str = ""
    """Address as libvirt knows it (forward, DHCP lease, guest agent): one that can be a member's, and no other
    domain's on the host. Empty: not known."""
    reason: str = ""
    """Why it is in that state, as libvirt names it in CamelCase. Paused: User, IOError, IOErrorNoSpace (its storage
    pool is full), Watchdog, PMSuspended, Migration, Snapshot, ... Off: ShutdownByGuest, Destroyed, Saved, Failed, ...
    Crashed: Crashed, Panicked. Unknown: nobody knows."""
    complaint: str = ""
    """Why an address that was told does not count; empty: none was left out."""


@dataclass(frozen=True)
class HostObservation:
    """A host as its libvirt daemon describes it. Not reachable: `domains` says nothing."""

    name: str
    reachable: bool
    message: str = ""
    """Why it is not reachable; empty: it was not asked."""
    domains: dict[str, DomainRecord] = field(default_factory=dict)
    """By uuid."""
    refusal: Refusal | None = None
    """Why nothing may be made or started there; None: it may be used."""
    room: HostRoom | None = None
    """What all clusters together leave there; None: no administrator sets a limit."""


@dataclass(frozen=True)
class BondObservation:
    """The bond of a host that matters, as the agent on its node reports it."""

    verdict: BondVerdict
    """Healthy, Recovering, Degraded, ..., Down, Unknown, None."""
    message: str = ""
    name: str = ""
    mode: str = ""
    active: int = 0
    """Ports that carry traffic."""
    total: int = 0
    since: str = ""
    """Since when the verdict holds (RFC 3339); empty: not known."""


@dataclass(frozen=True)
class Member:
    """A VM as a balancer should treat it."""

    name: str
    address: str
    port: int
    state: MemberState
    load_factor: int = 1


@dataclass(frozen=True)
class MemberReport:
    """A VM as a balancer treats it."""

    name: str
    state: MemberState
    address: str = ""
    port: int = 0
    healthy: bool | None = True
    """Whether it passes the balancer's health checks; None: not known yet."""
    in_flight: int = 0
    """Requests that it is serving for this balancer now."""
    sessions: int = 0
    """Active sessions: the requests in flight; with a sticky cookie the sessions of the last minute, if more."""
    drained: bool = False
    """Takes nothing new, and nothing is in flight any more."""
    served: int = 0
    """Requests sent to it since httpd started."""
    answers: int = 0
    """Requests that it answered since the agent started, WebSockets and event streams when they have ended."""
    answer_seconds: float = 0.0
    """Time from each of those requests to the first byte of its answer, all added up."""


@dataclass(frozen=True)
class BalancerReport:
    """A balancer as its agent describes it. Not reachable: the rest says nothing."""

    name: str
    reachable: bool
    ready: bool = False
    applied: str = ""
    """Version of the configuration that is in force."""
    message: str = ""
    members: tuple[MemberReport, ...] = ()
    users: int | None = None
    """Clients of the last minute: sessions where there is a sticky cookie, else addresses; None: not told."""
    node: str = ""
    """Kubernetes node that it runs on; empty: not known."""


@dataclass(frozen=True)
class Observation:
    """All that was seen in one tick."""

    vms: tuple[VMRecord, ...] = ()
    hosts: tuple[HostObservation, ...] = ()
    balancers: tuple[BalancerReport, ...] = ()
    bonds: dict[str, BondObservation] = field(default_factory=dict)
    """By host name. Missing: no agent ever reported."""
    probes: dict[str, bool] = field(default_factory=dict)
    """By VM name: did it answer its readiness probe the last time. Missing: not probed, or too long ago."""
    counted_probes: frozenset[str] = frozenset()
    """VMs whose answer in `probes` was there in an earlier tick already: a probe is missed once, not in each tick."""
    sessions: dict[str, int] = field(default_factory=dict)
    """By VM name: active sessions. Missing: unknown."""
    figures: dict[str, Figures] = field(default_factory=dict)
    """By VM name: what else is measured. Missing: unknown."""
    provision_failures: dict[str, Failure] = field(default_factory=dict)
    """By VM name: why the last attempt to make its domain failed."""
    action_failures: dict[str, Failure] = field(default_factory=dict)
    """By what it was about ("vm/<name>", "balancer/<name>", "creation"): why the last action failed."""
    published: dict[str, Published] = field(default_factory=dict)
    """By balancer name: what its ConfigMap says. Missing: there is no ConfigMap."""
    settings_version: str = ""
    """Version of the balancer settings that the spec asks for."""
    unreadable: tuple[UnreadableVM, ...] = ()
    """LubanVMs that this version cannot read."""
    balancer_objects: BalancerObjects | None = None
    """The balancers' Pods; None: somebody else looks after them."""
    lost_balancers: frozenset[str] = frozenset()
    """Balancers that have said nothing for long while others serve; `plan` fills it in."""


@dataclass(frozen=True)
class Published:
    """What a balancer's ConfigMap says."""

    settings_version: str
    version: str
    """Version of the whole content; a balancer that applied it reports the same."""
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Failure:
    """Why a VM could not be made."""

    reason: str
    message: str
    permanent: bool
    """True: trying again is of no use until the user acts."""


@dataclass(frozen=True)
class CreateVM:
    """Record the intent: one LubanVM. Its domain follows in a later tick."""

    name: str
    host: str
    host_uri: str
    address: str
    reason: str
    placement: str = ""
    """Why on this host, in words."""
    role: Role = "Serving"
    """Warm: for the pool."""


@dataclass(frozen=True)
class AssignVM:
    """Record the intent: the VM is taken out of the pool (Serving), or goes there (Warm) once it is drained."""

    name: str
    role: Role
    reason: str


@dataclass(frozen=True)
class DeleteVM:
    """Mark a LubanVM for deletion: it is drained, stopped and removed."""

    name: str
    reason: str


@dataclass(frozen=True)
class EnsureDomain:
    """Overlay, seed, domain defined and started; nothing is done twice."""

    vm: VMRecord
    reason: str


@dataclass(frozen=True)
class ShutdownDomain:
    """Press the ACPI power button."""

    vm: VMRecord
    reason: str


@dataclass(frozen=True)
class DestroyDomain:
    """Pull the plug."""

    vm: VMRecord
    reason: str


@dataclass(frozen=True)
class BalloonDomain:
    """Ask the guest to give memory back until it has so many bytes, or let it have them."""

    vm: VMRecord
    memory: int
    reason: str


@dataclass(frozen=True)
class SuspendDomain:
    """Stop the domain's processors; its memory stays."""

    vm: VMRecord
    reason: str


@dataclass(frozen=True)
class ResumeDomain:
    """Let the domain go on, with all of its memory and the time of day."""

    vm: VMRecord
    reason: str


@dataclass(frozen=True)
class RemoveDomain:
    """Undefine the domain and delete its volumes; the domain is off already or never was."""

    vm: VMRecord
    reason: str


@dataclass(frozen=True)
class ReleaseVM:
    """Let a LubanVM go (remove the finalizer): nothing of it is left on its host."""

    name: str
    reason: str


@dataclass(frozen=True)
class OrphanVM:
    """Let a LubanVM and its domain live on without us (deletionPolicy Orphan)."""

    name: str
    reason: str


@dataclass(frozen=True)
class RemoveStray:
    """Destroy and remove a domain with this cluster's metadata that no LubanVM stands for."""

    host: str
    host_uri: str
    uuid: str
    reason: str


@dataclass(frozen=True)
class UpdateVM:
    """Write a LubanVM's status: a phase begins, or its address or balancers changed."""

    name: str
    phase: Phase
    reason: str
    message: str = ""
    address: str = ""
    balancers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishBalancer:
    """Write a balancer's ConfigMap."""

    balancer: str
    members: tuple[Member, ...]
    reason: str


@dataclass(frozen=True)
class RemoveBalancer:
    """Delete a balancer's ConfigMap."""

    balancer: str
    reason: str


Action = (
    CreateVM
    | AssignVM
    | DeleteVM
    | EnsureDomain
    | ShutdownDomain
    | DestroyDomain
    | BalloonDomain
    | SuspendDomain
    | ResumeDomain
    | RemoveDomain
    | ReleaseVM
    | OrphanVM
    | RemoveStray
    | UpdateVM
    | PublishBalancer
    | RemoveBalancer
    | EnsureBalancers
)


@dataclass(frozen=True)
class ConditionState:
    """A condition as it should stand; the runtime adds the times."""

    type: ConditionName
    status: bool | None
    """None: Unknown."""
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Plan:
    """What to do, why, and when to look again."""

    actions: tuple[Action, ...]
    decision: Decision
    conditions: tuple[ConditionState, ...]
    placement: Placement | None
    """Where the next VM would go; None: the cluster is being deleted."""
    phase: ClusterPhase
    desired: int
    """How many VMs are wanted."""
    memory: ClusterMemory
    requeue_after: float
    """Seconds until the next tick if nothing wakes the loop earlier."""
    finished: bool = False
    """The cluster is being deleted and nothing of it is left."""
    tier: Tier | None = None
    """The balancers, where there can be several."""
    hosts_back: bool = False
    """A host answers again after a while: what failed may work now."""
