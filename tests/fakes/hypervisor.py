"""KVM hosts in memory, behind ports.Hypervisor.

Everything happens synchronously inside the calls. Time is a function given from outside: a domain boots, and a booted
one obeys the power button, after so many of its seconds, or when the test says so. Hosts come into being when they are
first named, with the storage and networks of `FakeHost`'s defaults.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from luban.api.names import VM_VOLUME
from luban.core.model import ClusterRef, DomainRecord, DomainState, Machine
from luban.core.orphans import VMVolume
from luban.errors import ForeignDomain, HostUnreachable, LubanError, PermanentError
from luban.ports import HostRef, Inventory, MarkedDomain, Usage

RUNNING: frozenset[DomainState] = frozenset({"Running", "Paused", "ShuttingDown"})
NEVER = float("inf")
VOLUME = re.compile("luban-([0-9a-f-]{36})(?:[.]qcow2|-seed[.]iso)")


@dataclass
class FakeDomain:
    """A domain. `cluster` None: not ours."""

    uuid: str
    name: str
    cluster: ClusterRef | None
    pool: str = ""
    memory: int = 0
    """Bytes that its guest may grow to."""
    plane: str = ""
    """Mark of the control plane that made it."""
    planned_address: str = ""
    observed_address: str = ""
    """What a lease or the guest agent would tell once it has booted."""
    state: DomainState = "Running"
    reason: str = "Booted"
    starts: int = 0
    vcpus: int = 1
    usage: dict[str, Any] = field(default_factory=dict)
    """Fields of its Usage, as tests set them."""
    booted_at: float = NEVER
    off_at: float = NEVER
    balloon: int = 0
    """Bytes that its guest was last told to have; 0: nobody told it."""
    has_agent: bool = False
    """Whether an agent in the guest answers."""
    clock: float | None = None
    """What the agent was last told the time is."""


@dataclass
class FakeHost:
    """A host, to be arranged and looked at by tests."""

    domains: dict[str, FakeDomain] = field(default_factory=dict)
    """By uuid."""
    pools: dict[str, set[str]] = field(default_factory=lambda: {"default": {"luban-web.qcow2"}})
    """Volumes by pool."""
    networks: set[str] = field(default_factory=lambda: {"default"})
    users: dict[str, str] = field(default_factory=dict)
    """By volume: who else uses it."""
    stamps: dict[str, str] = field(default_factory=dict)
    """By volume: when it was last written."""
    free_bytes: int = 2**40
    """Free space of every pool."""
    memory: int = 64 * 2**30
    """Bytes that the host has; 0: it does not say."""
    reachable: bool = True
    failures: deque[LubanError] = field(default_factory=deque)
    """Each is raised, in turn, by the next ensure_running that has something to do; nothing is left behind."""
    watchers: list[Callable[[str], None]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Every call so far: its name, and the uuid or the cluster."""


class FakeHypervisor:
    """Implements ports.Hypervisor.

    `boot_seconds`: a started domain has booted so much later; None: only when `boot` is called.
    `shutdown_seconds`: a booted domain is off so long after the power button; None: only by `destroy` or `power_off`.
    """

    def __init__(
        self,
        now: Callable[[], float] = lambda: 0.0,
        *,
        boot_seconds: float | None = None,
        shutdown_seconds: float | None = 0.0,
        min_free_bytes: int = 1,
    ) -> None:
        self.now = now
        self.boot_seconds = boot_seconds
        self.shutdown_seconds = shutdown_seconds
        self.min_free_bytes = min_free_bytes
        self.hosts: dict[str, FakeHost] = {}
        self.closed = False

    # ---- for tests -------------------------------------------------------------------------------------------

    def host(self, name: str) -> FakeHost:
        """The host of that name."""
        return self.hosts.setdefault(name, FakeHost())

    def domain(self, uuid: str) -> FakeDomain | None:
        """A domain, on whichever host, as it is now."""
        for host in self.hosts.values():
            if uuid in host.domains:
                self._settle(host, host.domains[uuid])
                return host.domains[uuid]
        return None

    def booted(self, uuid: str) -> bool:
        """Whether a domain runs and has booted: then its service answers."""
        domain = self.domain(uuid)
        return domain is not None and domain.state == "Running" and domain.booted_at <= self.now()

    def boot(self, uuid: str, address: str = "") -> None:
        """A domain's guest has come up; `address` is what is observed of it."""
        domain = self._existing(uuid)
        domain.booted_at, domain.observed_address = self.now(), address

    def power_off(self, uuid: str, state: DomainState = "Off") -> None:
        """A domain goes off by itself (`Crashed`: not of its own will)."""
        host, domain = self._host_of(uuid), self._existing(uuid)
        self._turn_off(host, domain, state, "Crashed" if state == "Crashed" else "ShutdownByGuest")

    def pause(self, uuid: str, reason: str = "User") -> None:
        """A running domain is paused: by somebody, or by QEMU (`IOError`, `IOErrorNoSpace`)."""
        domain = self._existing(uuid)
        domain.state, domain.reason = "Paused", reason
        self._tell(self._host_of(uuid), uuid)

    def go_on(self, uuid: str) -> None:
        """A paused domain goes on."""
        domain = self._existing(uuid)
        domain.state, domain.reason = "Running", "Unpaused"
        self._tell(self._host_of(uuid), uuid)

    def disconnect(self, name: str) -> None:
        """A host's libvirt daemon stops answering; its domains go on."""
        self.host(name).reachable = False
        self._tell(self.host(name), "")

    def add_foreign(self, name: str, domain_name: str, uuid: str, memory: int = 0) -> None:
        """Somebody else's domain."""
        self.host(name).domains[uuid] = FakeDomain(uuid, domain_name, None, memory=memory, starts=1)

    # ---- ports.Hypervisor ------------------------------------------------------------------------------------

    async def inventory(self, host: HostRef) -> Inventory:
        """See Hypervisor."""
        known = self._called(host, "inventory", "")
        for domain in known.domains.values():
            self._settle(known, domain)
        ours = {
            it.uuid: MarkedDomain(it.cluster, self._record(it), it.memory, it.pool, it.plane)
            for it in known.domains.values()
            if it.cluster is not None
        }
        foreign = (it.memory for it in known.domains.values() if it.cluster is None and it.state in RUNNING)
        return Inventory(ours, known.memory, sum(foreign))

    def _record(self, domain: FakeDomain) -> DomainRecord:
        return DomainRecord(domain.uuid, domain.name, domain.state, self._address(domain), domain.reason)

    async def usage(self, host: HostRef) -> dict[str, Usage]:
        """See Hypervisor."""
        known = self._called(host, "usage", "")
        for domain in known.domains.values():
            self._settle(known, domain)
        running = (it for it in known.domains.values() if it.state in RUNNING)
        counted = {"cpu_seconds": 0.0}
        return {
            it.uuid: Usage(at=self.now(), run=it.starts, **(counted | {"vcpus": it.vcpus} | it.usage)) for it in running
        }

    async def ensure_running(self, host: HostRef, machine: Machine) -> None:
        """See Hypervisor."""
        known = self._called(host, "ensure_running", machine.uuid)
        domain = known.domains.get(machine.uuid)
        if domain is not None:
            _require_ours(domain)
            self._settle(known, domain)
            if domain.state in RUNNING:
                return
        self._check(host, known, machine)
        if known.failures:
            raise known.failures.popleft()
        self._start(known, machine, domain)

    async def shutdown(self, host: HostRef, uuid: str) -> bool:
        """See Hypervisor."""
        known = self._called(host, "shutdown", uuid)
        domain = known.domains.get(uuid)
        if domain is None:
            return False
        _require_ours(domain)
        self._settle(known, domain)
        if domain.state != "Running":
            return False
        if self.booted(uuid) and self.shutdown_seconds is not None:
            domain.off_at = min(domain.off_at, self.now() + self.shutdown_seconds)
            self._settle(known, domain)
        return True

    async def destroy(self, host: HostRef, uuid: str) -> None:
        """See Hypervisor."""
        known = self._called(host, "destroy", uuid)
        domain = known.domains.get(uuid)
        if domain is not None:
            _require_ours(domain)
            self._turn_off(known, domain, "Off", "Destroyed")

    async def remove(self, host: HostRef, uuid: str, pool: str) -> None:
        """See Hypervisor."""
        known = self._called(host, "remove", uuid)
        domain = known.domains.get(uuid)
        pools = {pool}
        if domain is not None:
            _require_ours(domain)
            self._turn_off(known, domain, "Off", "Destroyed")
            pools.add(domain.pool)
            del known.domains[uuid]
            self._tell(known, uuid)
        for name in pools & known.pools.keys():
            known.pools[name] -= {f"luban-{uuid}.qcow2", f"luban-{uuid}-seed.iso"}

    async def spare_volumes(
        self, host: HostRef, pools: Collection[str], known: Collection[str]
    ) -> tuple[VMVolume, ...]:
        """See Hypervisor."""
        there = self._called(host, "spare_volumes", "")
        return tuple(self._spare(there, {*known, *there.domains}, pools))

    def _spare(self, there: FakeHost, known: Collection[str], pools: Collection[str]) -> Iterator[VMVolume]:
        for pool in sorted(pools):
            for name in sorted(there.pools.get(pool, ())):
                if (match := VOLUME.fullmatch(name)) and match[1] not in known:
                    yield VMVolume(pool, name, match[1], there.stamps.get(name, ""), there.users.get(name, ""))

    async def disk_user(self, host: HostRef, uuid: str) -> str:
        """See Hypervisor."""
        there = self._called(host, "disk_user", uuid)
        return next((user for name, user in there.users.items() if uuid in name), "")

    async def remove_volume(self, host: HostRef, volume: VMVolume) -> bool:
        """See Hypervisor."""
        there = self._called(host, "remove_volume", volume.uuid)
        if volume.name in there.pools.get(volume.pool, ()):
            if volume.user or volume not in self._spare(there, there.domains, [volume.pool]):
                return False
            there.pools[volume.pool].remove(volume.name)
        return True

    async def suspend(self, host: HostRef, uuid: str) -> None:
        """See Hypervisor."""
        domain = self._active(self._called(host, "suspend", uuid), uuid)
        if domain.state == "Running":
            self.pause(uuid)

    async def resume(self, host: HostRef, uuid: str) -> None:
        """See Hypervisor."""
        known = self._called(host, "resume", uuid)
        if known.failures:
            raise known.failures.popleft()
        domain = self._active(known, uuid)
        if domain.state == "Paused":
            self.go_on(uuid)

    async def set_memory(self, host: HostRef, uuid: str, memory: int) -> None:
        """See Hypervisor. The guest obeys at once."""
        self._active(self._called(host, "set_memory", uuid), uuid).balloon = memory

    async def set_time(self, host: HostRef, uuid: str, now: float) -> bool:
        """See Hypervisor."""
        domain = self._active(self._called(host, "set_time", uuid), uuid)
        if domain.has_agent:
            domain.clock = now
        return domain.has_agent

    def watch(self, host: HostRef, wake: Callable[[str], None]) -> Callable[[], None]:
        """See Hypervisor."""
        watchers = self.host(host.name).watchers
        watchers.append(wake)
        return lambda: watchers.remove(wake) if wake in watchers else None

    async def close(self) -> None:
        """See Hypervisor."""
        self.closed = True

    # ---- inner workings --------------------------------------------------------------------------------------

    def _called(self, host: HostRef, call: str, subject: str) -> FakeHost:
        known = self.host(host.name)
        known.calls.append((call, subject))
        if host.uri.partition(":")[0].partition("+")[0] not in {"qemu", "test"}:
            raise PermanentError("InvalidURI", f"host {host.name}: {host.uri!r} is not a libvirt URI")
        if not known.reachable:
            raise HostUnreachable("HostUnreachable", f"host {host.name}: {host.uri}: does not answer")
        return known

    def _check(self, host: HostRef, known: FakeHost, machine: Machine) -> None:
        where, image, network = f"host {host.name}: ", machine.template.image, machine.template.network
        for other in known.domains.values():
            if other.name == machine.domain_name and other.uuid != machine.uuid:
                raise ForeignDomain("ForeignDomain", f"{where}domain {other.name!r} exists and is not ours")
        if network.type == "Network" and network.source not in known.networks:
            raise PermanentError("NetworkNotFound", f"{where}libvirt network {network.source!r} does not exist")
        if image.pool not in known.pools:
            raise PermanentError("PoolNotFound", f"{where}storage pool {image.pool!r} does not exist")
        for volume in _base_volumes(machine):
            if re.match(VM_VOLUME, volume):
                raise PermanentError("VolumeRefused", f"{where}volume {volume!r} is a VM's")
            if volume not in known.pools[image.pool]:
                raise PermanentError("ImageNotFound", f"{where}pool {image.pool!r} has no volume {volume!r}")
        if self._is_taken(machine):
            raise PermanentError("AddressTaken", f"{where}{machine.forward_address} is taken")
        if known.free_bytes < self.min_free_bytes:
            raise PermanentError("StoragePoolFull", f"{where}pool {image.pool!r} has {known.free_bytes} bytes free")

    def _is_taken(self, machine: Machine) -> bool:
        """Loopback addresses are those of one machine, whatever hosts it plays."""
        domains = [domain for host in self.hosts.values() for domain in host.domains.values()]
        wanted = machine.forward_address if machine.template.network.type == "User" else ""
        return bool(wanted) and any(
            domain.planned_address == wanted and domain.state in RUNNING and domain.uuid != machine.uuid
            for domain in domains
        )

    def _start(self, known: FakeHost, machine: Machine, domain: FakeDomain | None) -> None:
        pool = machine.template.image.pool
        known.pools[pool].add(machine.overlay_volume)
        if machine.user_data is not None:
            known.pools[pool].add(machine.seed_volume)
        if domain is None:
            domain = FakeDomain(machine.uuid, machine.domain_name, machine.cluster, pool)
            domain.memory, domain.plane = machine.template.domain.memory.max.bytes, machine.plane
            domain.vcpus = machine.template.domain.cpu.cores
            known.domains[machine.uuid] = domain
        domain.planned_address = machine.forward_address if machine.template.network.type == "User" else ""
        domain.state, domain.reason = "Running", "Booted"
        domain.starts, domain.off_at = domain.starts + 1, NEVER
        domain.booted_at = NEVER if self.boot_seconds is None else self.now() + self.boot_seconds
        self._tell(known, machine.uuid)

    def _settle(self, host: FakeHost, domain: FakeDomain) -> None:
        """Let what was due by now have happened."""
        if domain.off_at <= self.now():
            self._turn_off(host, domain, "Off", "ShutdownByGuest")

    def _active(self, known: FakeHost, uuid: str) -> FakeDomain:
        domain = known.domains.get(uuid)
        if domain is not None:
            _require_ours(domain)
            self._settle(known, domain)
        if domain is None or domain.state not in RUNNING:
            raise PermanentError("DomainMissing", f"domain {uuid} is off, or gone")
        return domain

    def _turn_off(self, host: FakeHost, domain: FakeDomain, state: DomainState, reason: str) -> None:
        if domain.state in RUNNING:
            domain.state, domain.reason, domain.booted_at, domain.off_at = state, reason, NEVER, NEVER
            self._tell(host, domain.uuid)

    def _address(self, domain: FakeDomain) -> str:
        seen = domain.state in {"Running", "Paused"} and domain.booted_at <= self.now()
        return domain.planned_address or (domain.observed_address if seen else "")

    def _tell(self, host: FakeHost, uuid: str) -> None:
        if host.reachable or not uuid:
            for wake in list(host.watchers):
                wake(uuid)

    def _host_of(self, uuid: str) -> FakeHost:
        return next(host for host in self.hosts.values() if uuid in host.domains)

    def _existing(self, uuid: str) -> FakeDomain:
        return self._host_of(uuid).domains[uuid]


def _base_volumes(machine: Machine) -> list[str]:
    boot = machine.template.domain.kernel_boot
    kernel = [boot.kernel_volume, boot.initrd_volume] if boot else []
    return [volume for volume in [machine.template.image.volume, *kernel] if volume]


def _require_ours(domain: FakeDomain) -> None:
    if domain.cluster is None:
        raise ForeignDomain("ForeignDomain", f"domain {domain.name!r} is not ours")
