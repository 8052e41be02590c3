"""The outside world as the runtime sees it. One Protocol per real thing; adapters stand behind them, fakes in tests.

Every call raises luban.errors.LubanError subclasses only, and honours its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from luban.api.vm import Role
from luban.core.bonds.model import HostReading
from luban.core.model import BalancerReport, ClusterRef, DomainRecord, Machine
from luban.core.orphans import Census, VMVolume
from luban.render.balancer_objects import AgentProgram


@dataclass(frozen=True)
class HostRef:
    """A KVM host: its name in the spec and its libvirt URI."""

    name: str
    uri: str


@dataclass(frozen=True)
class MarkedDomain:
    """A libvirt domain with our metadata."""

    owner: ClusterRef
    """The LubanCluster that its metadata names."""
    record: DomainRecord
    memory: int = 0
    """Bytes that its guest may grow to."""
    pool: str = ""
    """Storage pool that its metadata names."""
    plane: str = ""
    """Control plane that its metadata names; empty: none, as in those of earlier versions."""


@dataclass(frozen=True)
class Inventory:
    """What there is on a host."""

    domains: Mapping[str, MarkedDomain] = field(default_factory=dict)
    """Domains with our mark, of all clusters, by uuid."""
    memory: int = 0
    """Bytes that the host has; 0: not known."""
    foreign_memory: int = 0
    """Bytes that running domains without our mark may grow to."""


@dataclass(frozen=True)
class GuestMemory:
    """Memory as a guest tells it, in bytes."""

    used: int
    """What it could not give to another program."""
    maximum: int
    """What it may have at most."""
    told: int
    """A number that changes whenever the guest tells it anew: a guest that hangs does not."""


@dataclass(frozen=True)
class Usage:
    """Counters of a running domain at one moment. None: not known."""

    at: float
    """When they were read, in seconds of a clock that nobody sets."""
    run: int
    """Another number after each start: counters begin anew."""
    cpu_seconds: float | None = None
    """Time that its vCPUs, and QEMU for it, have computed."""
    vcpus: int | None = None
    network_bytes: int | None = None
    """Received and sent, over all its interfaces."""
    memory: GuestMemory | None = None


class Hypervisor(Protocol):
    """KVM hosts through libvirt. Each host is independent: a hung one delays only calls to itself."""

    async def inventory(self, host: HostRef) -> Inventory:
        """What there is on the host: one bulk call. Raises HostUnreachable."""

    async def usage(self, host: HostRef) -> Mapping[str, Usage]:
        """What running domains use, by uuid: one bulk call. Raises HostUnreachable.

        Apart from all other calls: a QEMU that hangs may hold it up until its deadline, once, and is left out after.
        """

    async def ensure_running(self, host: HostRef, machine: Machine) -> None:
        """Make overlay, seed and domain as far as they are missing, and start it. Idempotent.

        If it raises, nothing half-made stays behind. PermanentError reasons: ImageNotFound, PoolNotFound,
        StoragePoolFull, VolumeRefused, NetworkNotFound, InvalidURI, InsecureHost, UserNetworkRefused,
        ForeignDomain, DomainRefused, AddressTaken (of network type User: another one may be free).
        """

    async def shutdown(self, host: HostRef, uuid: str) -> bool:
        """Press the ACPI power button of a domain that runs. Returns whether it was pressed.

        False: there is nobody to hear it, as the domain is off, gone, paused, suspended or crashed; what is not off is
        then ended by `destroy` alone.
        """

    async def destroy(self, host: HostRef, uuid: str) -> None:
        """Pull the plug, whatever state the domain is in. No error if it is off or gone."""

    async def remove(self, host: HostRef, uuid: str, pool: str) -> None:
        """Undefine the domain and delete its overlay and seed from `pool`. No error for what is gone.

        A domain that still runs is destroyed first.
        """

    async def spare_volumes(
        self, host: HostRef, pools: Collection[str], known: Collection[str]
    ) -> tuple[VMVolume, ...]:
        """Volumes in these pools that were made for VMs of which the host has no domain, and that are not in `known`.

        Each with who else uses it, as far as any domain (switched off or not, whosever it is) or volume of the host
        names it. A pool that is missing or stopped has none. Raises LubanError if not all can be told.
        """

    async def disk_user(self, host: HostRef, uuid: str) -> str:
        """Who on the host names a VM's volumes beside its own domain, in words; empty: nobody. Raises LubanError if not
        all can be told."""

    async def remove_volume(self, host: HostRef, volume: VMVolume) -> bool:
        """Delete a volume that `spare_volumes` gave, if it is as it was then, and used by nobody. Returns whether it is
        gone."""

    async def suspend(self, host: HostRef, uuid: str) -> None:
        """Stop a domain's processors; its memory stays. No error if it is paused, and by whomever, or stopping.

        Raises PermanentError DomainMissing if there is no such domain, or it is off.
        """

    async def resume(self, host: HostRef, uuid: str) -> None:
        """Let a domain go on that is paused. No error if it runs. Raises PermanentError DomainMissing likewise.

        It waits for no domain that is being made meanwhile.
        """

    async def set_memory(self, host: HostRef, uuid: str, memory: int) -> None:
        """Ask a running domain's guest to give back all but so many bytes, or let it have them, by its balloon.

        It answers in its own time, and a guest without the driver not at all. Raises PermanentError DomainMissing
        likewise.
        """

    async def set_time(self, host: HostRef, uuid: str, now: float) -> bool:
        """Set the guest's clock to `now` (seconds since the epoch) through its agent.

        False: no agent answers, and the guest keeps its own time.
        """

    def watch(self, host: HostRef, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake(uuid)`, in the event loop's thread, on each lifecycle event of the host.

        The loss of the connection wakes too, with an empty uuid. Returns the call that ends it.
        """

    async def close(self) -> None:
        """Close all connections and end all threads."""


class Cluster(Protocol):
    """The Kubernetes API, as one cluster's runtime uses it. Bodies are wire-format dicts."""

    async def begin_anew(self) -> None:
        """Believe nothing of what was known so far, and tell nobody of it any more: another operator may have acted."""

    async def follow_vms(self, told: Callable[[dict[str, Any], bool], None]) -> None:
        """Tell of each LubanVM of all clusters that this operator looks after, as it is, and whether it is gone.

        Of all that there are before this returns, then of every change until `begin_anew` or `close`: also of one that
        was made or went while nobody could hear of it. Bodies are not to be changed.
        """

    async def follow_hosts(self, told: Callable[[dict[str, Any], bool], None]) -> None:
        """The same for LubanHosts."""

    async def plane(self) -> str:
        """What marks this control plane among all: the uid of its namespace kube-system. Empty: it cannot be told now.
        Never raises a LubanError."""

    async def census(self) -> Census:
        """All LubanVMs and LubanClusters in all namespaces, as the API server has them now. Raises LubanError if it
        does not show them all: without the right to, or without the CRDs."""

    async def list_vms(self, cluster: ClusterRef, *, live: bool = False) -> list[dict[str, Any]]:
        """LubanVM objects of the cluster, own writes included. What others wrote may be seen a little later.

        `live`: what others wrote is included too.
        """

    async def list_vms_on(self, host: str) -> list[dict[str, Any]]:
        """LubanVM objects that name the host, of all clusters that this operator looks after; else as list_vms."""

    async def create_vm(self, cluster: ClusterRef, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a LubanVM. Raises Conflict if the name is taken."""

    async def assign_vm(self, cluster: ClusterRef, name: str, role: Role) -> None:
        """Change what a LubanVM is for. No error if it is gone."""

    async def delete_vm(self, cluster: ClusterRef, name: str) -> None:
        """Ask for a LubanVM's deletion. No error if it is gone."""

    async def patch_vm_status(
        self, cluster: ClusterRef, name: str, status: Mapping[str, Any], *, version: str = ""
    ) -> None:
        """Replace a LubanVM's status. No error if it is gone.

        `version`: resourceVersion that it was made from. Raises Conflict if the LubanVM has changed since.
        """

    async def release_vm(self, cluster: ClusterRef, name: str) -> None:
        """Remove our finalizer from a LubanVM. No error if it is gone."""

    async def orphan_vm(self, cluster: ClusterRef, name: str) -> None:
        """Remove our finalizer and the owner reference from a LubanVM, leaving it. No error if it is gone."""

    async def adopt_vm(self, cluster: ClusterRef, name: str) -> None:
        """Give a LubanVM without an owner to the cluster, with our finalizer. Nothing is done to one that has an owner,
        is to be deleted, or is gone."""

    async def apply_config_map(
        self, cluster: ClusterRef, name: str, data: Mapping[str, str], labels: Mapping[str, str]
    ) -> None:
        """Create or replace a ConfigMap, owned by the LubanCluster (server-side apply)."""

    async def read_config_map(self, cluster: ClusterRef, name: str, *, ours: bool = False) -> dict[str, str] | None:
        """Data of a ConfigMap; None: not there.

        `ours`: only one that `delete_config_map` would delete, and that nobody has deleted yet.
        """

    async def disown_config_map(self, cluster: ClusterRef, name: str) -> None:
        """Take a ConfigMap from its LubanCluster, and leave it otherwise as it is. No error if it is gone."""

    async def delete_config_map(self, cluster: ClusterRef, name: str) -> None:
        """Delete a ConfigMap of ours: one that does not carry our label is left alone. No error if it is gone."""

    async def apply_object(self, cluster: ClusterRef, body: Mapping[str, Any]) -> None:
        """Create an object or make it like `body`, owned by the LubanCluster and with its label (server-side apply).

        What others set besides stays. Raises PermanentError ForeignObject if one of this name is not ours.
        """

    async def read_balancer_set(self, cluster: ClusterRef, name: str) -> dict[str, Any] | None:
        """A StatefulSet of ours; None: not there, or not ours. What others changed may be seen a little later."""

    async def disown_object(self, cluster: ClusterRef, kind: str, name: str) -> None:
        """Take an object of a kind that `apply_object` knows from its LubanCluster. No error if it is gone."""

    async def read_cluster(self, cluster: ClusterRef) -> dict[str, Any] | None:
        """The LubanCluster; None: it is gone, or another one has its name."""

    async def patch_cluster_status(self, cluster: ClusterRef, status: Mapping[str, Any], *, version: str = "") -> str:
        """Replace the LubanCluster's status; its resourceVersion then. Empty, and no error, if it is gone.

        `version`: resourceVersion that was read last. Raises Conflict if the LubanCluster has changed since.
        """

    async def read_secret(self, cluster: ClusterRef, name: str, key: str) -> str:
        """Text of a Secret's key. Raises PermanentError SecretNotFound, SecretKeyNotFound."""

    async def balancer_endpoint(self, cluster: ClusterRef, balancer: str) -> str | None:
        """Base URL of a balancer's agent, from the annotation of its Lease; None: none has reported."""

    async def delete_lease(self, cluster: ClusterRef, balancer: str) -> None:
        """Delete a balancer's Lease: one that does not carry our label is left alone. No error if it is gone."""

    async def event(
        self,
        cluster: ClusterRef,
        *,
        kind: str,
        name: str,
        uid: str,
        type_: str,
        reason: str,
        message: str,
        series: str = "",
        times: int = 1,
    ) -> None:
        """Record a Kubernetes Event (`type_` Normal or Warning) about a LubanCluster or LubanVM.

        The same once more adds `times` to the count of the first one. With a `series`, Events that differ in their
        message alone are the same; the latest message stands.
        """

    async def close(self) -> None:
        """Close all connections."""


class Balancers(Protocol):
    """The balancer agents beside httpd."""

    async def report(self, cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        """Ask the agent of the balancer `name` of a cluster; `members`: how many it can have at most.

        An agent that does not answer, or is another balancer's, gives a report with reachable=False, never an error.
        """

    async def follow(
        self,
        cluster: ClusterRef,
        name: str,
        endpoint: str,
        *,
        members: int,
        heard: Callable[[BalancerReport | None], None],
    ) -> BalancerReport | None:
        """Have the agent tell its report now and after each change, for half a minute or so.

        `heard` is told each, and None at least every other second: what was told last still holds. Figures may be told
        two seconds late. Returns None when the time is over; else the report that ended it: one with reachable=False,
        or that of an agent of an earlier version, which answers once.
        """

    async def close(self) -> None:
        """Close all connections."""


class Probes(Protocol):
    """HTTP requests to VMs."""

    async def ready(self, address: str, port: int, path: str, timeout: float) -> bool:
        """GET; True for 200..399 within `timeout` seconds. Never raises."""

    async def gauge(self, address: str, port: int, path: str, metric: str, timeout: float) -> int | None:
        """Sum of a metric's samples in Prometheus text format; None: no answer or no such metric."""

    async def close(self) -> None:
        """Close all connections."""


class Clock(Protocol):
    """Time."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets; its zero has no meaning."""


class BondSource(Protocol):
    """The bonds of the host that the program runs on."""

    async def read(self) -> HostReading:
        """All bonds, now. Raises TemporaryError if nothing can be read, or not in time."""

    def watch(self, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake(reason)`, in the event loop's thread, when something about a bond or a port changes.

        Reason `link`: an event. `overrun`: events were lost. `reopened`: the subscription broke and was made anew. Not
        every change has an event: read regularly as well.
        Returns the call that ends it. Raises TemporaryError if there are no events here.
        """

    async def close(self) -> None:
        """End everything."""


class LubanHosts(Protocol):
    """LubanHost objects, as the agents on the hosts use them. Bodies are wire-format dicts."""

    async def read(self, name: str) -> dict[str, Any] | None:
        """The LubanHost; None: there is none yet."""

    async def write(self, name: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Make this the LubanHost's whole status, and make the object if there is none. Returns it as it is then."""

    async def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True)
class LeaseRecord:
    """What a Lease says about who acts."""

    holder: str
    """Identity of the operator that acts; empty: none."""
    duration: float
    """Seconds without a renewal after which it is free."""
    version: str = ""
    """Of the Lease object: changes with every write."""


class LeaseStore(Protocol):
    """The Lease that decides which operator acts."""

    async def read(self) -> LeaseRecord | None:
        """What it says now; None: it is not there."""

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        """Make it. Raises Conflict if it is there."""

    async def take(self, record: LeaseRecord) -> LeaseRecord:
        """Write it for another holder. Raises Conflict if it is not at the record's version any more."""

    async def renew(self, record: LeaseRecord) -> LeaseRecord:
        """Write it for the same holder, or for none. Raises Conflict if it is not at the record's version any more."""

    async def close(self) -> None:
        """Close all connections."""


class Leadership(Protocol):
    """Whether this operator is the one that acts."""

    def held(self) -> bool:
        """Whether it may act now: asked before each write."""


class Unrivalled:
    """The leadership of an operator that has no rival."""

    def held(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class Ports:
    """Everything outside that one cluster's runtime works through."""

    hypervisor: Hypervisor
    cluster: Cluster
    balancers: Balancers
    probes: Probes
    clock: Clock
    leadership: Leadership = field(default_factory=Unrivalled)
    agents: AgentProgram | None = None
    """What runs in the balancers' Pods; None: the operator does not make them."""
