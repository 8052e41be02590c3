"""KVM hosts through libvirt, behind ports.Hypervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import libvirt
import structlog

from luban.adapters.libvirt_hosts import domains, leftovers, provision, waking
from luban.adapters.libvirt_hosts.backoff import Pace
from luban.adapters.libvirt_hosts.capabilities import read_abilities
from luban.adapters.libvirt_hosts.directory import Directory, Question
from luban.adapters.libvirt_hosts.errors import user_network_refused
from luban.adapters.libvirt_hosts.events import EVENT_LOOP, Watchers
from luban.adapters.libvirt_hosts.knock import knock as tcp_knock
from luban.adapters.libvirt_hosts.lane import Lane
from luban.adapters.libvirt_hosts.session import Connector, Keepalive, Knock, Opener, Session, no_knock
from luban.adapters.libvirt_hosts.storage import MissingPools
from luban.adapters.libvirt_hosts.uri import is_local
from luban.adapters.libvirt_hosts.usage import read_usage
from luban.core.model import Machine
from luban.core.orphans import VMVolume
from luban.errors import HostUnreachable, LubanError, TemporaryError
from luban.ports import HostRef, Inventory, Usage

T = TypeVar("T")
log = structlog.get_logger(__name__)
CHANGES = 3
"""Changes at a time on one host: one that hangs must not keep all others waiting."""
STORAGE = "storage"
"""Subject of looks at all volumes: that one hangs says nothing of domains."""
POOL_REFRESH = 60.0
"""Seconds for which a pool's figures are believed: overlays grow without libvirt's noticing."""


@dataclass(frozen=True)
class HypervisorSettings:
    """Deadlines in seconds, what a pool must have free, and what whoever runs the operator allows."""

    call: float = 10.0
    """For each change: making, starting, stopping, removing one VM."""
    read: float = 3.0
    """For the bulk read: known to hang while a domain shuts down or migrates."""
    abilities: float = 30.0
    """For the question what a host can do, once for each connection: a fresh daemon tries out every QEMU it has
    before it answers."""
    storage: float = 30.0
    """For a look at who uses which volume: behind each there may be a slow disk."""
    agent: float = 3.0
    """For a question to a guest agent, which libvirt itself ends after 1 s, or about a domain's disks."""
    usage: float = 15.0
    """For what running domains use: each QEMU is asked for it, and nobody waits."""
    clock: float = 1.0
    """For the word to a guest agent what time it is: a VM that was just taken out of the pool waits for it."""
    idle: float = 300.0
    """A host that nobody watches is let go when nothing was asked of it for so long."""
    min_free_bytes: int = 512 * 1024**2
    """Free space of a pool below which no VM is made there."""
    allow_insecure: bool = False
    """Take URIs with which anybody could be at the other end: tcp, no_verify=1."""
    user_networking: bool = False
    """Make VMs with network type User, on this machine alone."""
    pace: Pace = field(default_factory=Pace)
    keepalive: Keepalive = field(default_factory=Keepalive)


class _Host:
    """One host: lanes, so that a slow start does not look like a dead host, nor a silent guest agent or QEMU, and so
    that what was ready once need not wait for what is being made.

    Each has connections and threads of its own. The reads alone say whether the host answers.
    """

    def __init__(self, connector: Connector, settings: HypervisorSettings) -> None:
        self.watchers = Watchers()
        self.directory = Directory(connector.host.name)
        self.reads = Lane(replace(connector, watchers=self.watchers), settings.pace)
        self.changes = Lane(connector, settings.pace, CHANGES)
        self.agents = Lane(connector, settings.pace)
        self.figures = Lane(connector, settings.pace)
        self.wakes = Lane(connector, settings.pace, CHANGES)
        self.missing_pools = MissingPools(self.directory.clock)
        self._refreshed: dict[str, float] = {}
        self.asking_agents = False
        self.used = self.directory.clock()
        """When something was asked of it last."""

    def idle_seconds(self) -> float:
        """Time since something was asked of it; 0 while somebody watches it."""
        return 0.0 if self.watchers else self.directory.clock() - self.used

    def refresh_due(self, pool: str) -> bool:
        """Whether a pool's figures are too old; if so, they count as fresh from now on."""
        now = self.directory.clock()
        if now - self._refreshed.get(pool, float("-inf")) < POOL_REFRESH:
            return False
        self._refreshed[pool] = now
        return True

    async def close(self) -> None:
        """Close all connections."""
        lanes = self.reads, self.changes, self.agents, self.figures, self.wakes
        await asyncio.gather(*(lane.close() for lane in lanes))


class LibvirtHypervisor:
    """Implements ports.Hypervisor. To be made and used on one asyncio loop."""

    def __init__(
        self,
        settings: HypervisorSettings | None = None,
        opener: Opener = libvirt.open,
        knock: Knock | None = None,
    ) -> None:
        """`opener` opens a connection to a URI; tests give another one.

        `knock`: a quick look before it is called. None: a TCP connection for libvirt's own opener, nothing for another
        one, which may reach hosts in its own way.
        """
        self._settings = settings or HypervisorSettings()
        self._opener = opener
        self._knock = knock or (tcp_knock if opener is libvirt.open else no_knock)
        self._hosts: dict[HostRef, _Host] = {}
        self._listening = False
        self._background: set[asyncio.Task[None]] = set()
        self._removals: dict[tuple[HostRef, str], asyncio.Task[None]] = {}
        """By host and uuid: removals that wait for a job about the same domain to end."""

    async def inventory(self, host: HostRef) -> Inventory:
        """See Hypervisor. Guest agents are asked behind its back: their answers are in a later result."""
        known = self._host(host)
        found = await known.reads.call(known.directory.read, "read domains", self._settings.read)
        self._ask_agents(known)
        return found

    async def usage(self, host: HostRef) -> Mapping[str, Usage]:
        """See Hypervisor."""
        known = self._host(host)
        job = partial(read_usage, clock=known.directory.clock)
        return await known.figures.call(job, "read what domains use", self._settings.usage)

    async def ensure_running(self, host: HostRef, machine: Machine) -> None:
        """See Hypervisor."""
        if machine.template.network.type == "User":
            self._require_user_networking(host)
        self._remove_no_more(host, machine.uuid)
        known = self._host(host)
        abilities = await known.changes.call(
            lambda session: session.once(read_abilities), "read capabilities", self._settings.abilities
        )
        precaution = provision.Precaution(
            min_free_bytes=self._settings.min_free_bytes,
            refresh_pool=known.refresh_due(machine.template.image.pool),
        )
        job = partial(provision.ensure_running, machine=machine, abilities=abilities, precaution=precaution)
        await self._change(host, machine.uuid, job, f"make domain {machine.domain_name!r}")
        known.missing_pools.is_back(machine.template.image.pool)

    async def shutdown(self, host: HostRef, uuid: str) -> bool:
        """See Hypervisor."""
        job = partial(domains.shutdown, uuid=uuid)
        return await self._change(host, uuid, job, f"shut down domain {uuid}")

    async def destroy(self, host: HostRef, uuid: str) -> None:
        """See Hypervisor."""
        job = partial(domains.destroy, uuid=uuid)
        await self._change(host, uuid, job, f"destroy domain {uuid}", rescue=True)

    async def remove(self, host: HostRef, uuid: str, pool: str) -> None:
        """See Hypervisor."""
        known = self._host(host)
        job = partial(provision.remove, uuid=uuid, pool=pool, missing=known.missing_pools)
        await self._change(host, uuid, job, f"remove domain {uuid}", rescue=True)
        if late := known.changes.late(uuid):
            self._remove_no_more(host, uuid)
            self._removals[host, uuid] = self._spawn(self._remove_after(late, host, uuid, job))

    async def spare_volumes(
        self, host: HostRef, pools: Collection[str], known: Collection[str]
    ) -> tuple[VMVolume, ...]:
        """See Hypervisor. Like the questions to guest agents it holds up nothing that a tick waits for."""
        job = partial(leftovers.spare_volumes, pools=pools, known=known)
        return await self._host(host).agents.call(job, "look for spare volumes", self._settings.storage, STORAGE)

    async def disk_user(self, host: HostRef, uuid: str) -> str:
        """See Hypervisor."""
        job, what = partial(leftovers.disk_user, uuid=uuid), f"look who uses the disk of domain {uuid}"
        return await self._host(host).agents.call(job, what, self._settings.storage, STORAGE)

    async def remove_volume(self, host: HostRef, volume: VMVolume) -> bool:
        """See Hypervisor."""
        job = partial(leftovers.remove_volume, volume=volume)
        what = f"delete volume {volume.name} of storage pool {volume.pool!r}"
        return await self._host(host).agents.call(job, what, self._settings.storage, STORAGE)

    async def suspend(self, host: HostRef, uuid: str) -> None:
        """See Hypervisor."""
        job = partial(waking.suspend, uuid=uuid)
        await self._host(host).wakes.call(job, f"suspend domain {uuid}", self._settings.call, uuid)

    async def resume(self, host: HostRef, uuid: str) -> None:
        """See Hypervisor."""
        job = partial(waking.resume, uuid=uuid)
        await self._host(host).wakes.call(job, f"resume domain {uuid}", self._settings.call, uuid)

    async def set_memory(self, host: HostRef, uuid: str, memory: int) -> None:
        """See Hypervisor."""
        job = partial(waking.set_memory, uuid=uuid, memory=memory)
        await self._host(host).wakes.call(job, f"set the memory of domain {uuid}", self._settings.call, uuid)

    async def set_time(self, host: HostRef, uuid: str, now: float) -> bool:
        """See Hypervisor. An agent that does not answer in time is none."""
        job = partial(waking.set_time, uuid=uuid, now=now)
        try:
            return await self._host(host).wakes.call(job, f"set the clock of {uuid}", self._settings.clock, uuid)
        except HostUnreachable:
            raise
        except TemporaryError as error:
            log.warning("guest's clock not set", host=host.name, domain=uuid, error=error.message)
            return False

    def watch(self, host: HostRef, wake: Callable[[str], None]) -> Callable[[], None]:
        """See Hypervisor. Opens the connection in the background; after a loss the next inventory reopens it."""
        known = self._host(host)
        remove = known.watchers.add(wake)
        self._spawn(known.reads.call(lambda _session: None, "listen for events", self._settings.read))

        def leave() -> None:
            remove()
            self._let_go_when_idle(host)

        return leave

    async def close(self) -> None:
        """See Hypervisor. A thread that hangs in libvirt is left to the end of the process."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        hosts, self._hosts = self._hosts, {}
        await asyncio.gather(*(host.close() for host in hosts.values()))
        if self._listening:
            self._listening = False
            await asyncio.to_thread(EVENT_LOOP.release)

    def _require_user_networking(self, host: HostRef) -> None:
        if not self._settings.user_networking:
            raise user_network_refused(host, "the operator does not allow it")
        if not is_local(host):
            raise user_network_refused(host, "its forward is reached from that machine alone, which is not this one")

    async def _change(
        self, host: HostRef, uuid: str, job: Callable[[Session], T], what: str, *, rescue: bool = False
    ) -> T:
        return await self._host(host).changes.call(job, what, self._settings.call, uuid, rescue=rescue)

    async def _remove_after(
        self, late: list[Future[Any]], host: HostRef, uuid: str, job: Callable[[Session], None]
    ) -> None:
        """Remove a domain once more when jobs about it have ended that were given up: what they were making when it was
        removed appears only then, and nobody else knows of it. Until it is done, or the host is used no more."""
        await asyncio.gather(*(asyncio.wrap_future(future) for future in late), return_exceptions=True)
        told, what = "", f"remove domain {uuid} again"
        # Not by _change: these attempts themselves are no use of the host.
        while (known := self._hosts.get(host)) is not None and known.idle_seconds() <= self._settings.idle:
            try:
                await known.changes.call(job, what, self._settings.call, uuid, rescue=True)
            except LubanError as error:
                if error.message != told:
                    log.warning("not removed again yet", host=host.name, domain=uuid, error=error.message)
                told = error.message
                await asyncio.sleep(self._settings.pace.last_retry)
            else:
                log.info("removed again what a late job may have made", host=host.name, domain=uuid)
                return
        log.warning("not removed again, the host is not used any more", host=host.name, domain=uuid)

    def _remove_no_more(self, host: HostRef, uuid: str) -> None:
        self._removals = {key: task for key, task in self._removals.items() if not task.done()}
        removal = self._removals.pop((host, uuid), None)
        if removal is not None:
            removal.cancel()

    def _host(self, host: HostRef) -> _Host:
        if not self._listening:
            self._listening = True
            EVENT_LOOP.acquire()
        if host not in self._hosts:
            connector = Connector(
                host,
                self._opener,
                self._settings.keepalive,
                allow_insecure=self._settings.allow_insecure,
                knock=self._knock,
            )
            self._hosts[host] = _Host(connector, self._settings)
        known = self._hosts[host]
        known.used = known.directory.clock()
        return known

    def _let_go_when_idle(self, host: HostRef) -> None:
        """Close the connections of a host that left every spec, once its last VM is gone and nobody asks any more."""
        known = self._hosts.get(host)
        if known is None or known.watchers:
            return
        left = self._settings.idle - known.idle_seconds()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._let_go_when_idle, host)
            return
        del self._hosts[host]
        self._spawn(known.close())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _ask_agents(self, host: _Host) -> None:
        if not host.asking_agents and (due := host.directory.questions()):
            host.asking_agents = True
            self._spawn(self._ask_each(host, due))

    async def _ask_each(self, host: _Host, questions: list[Question]) -> None:
        try:
            for question in questions:
                await _quietly(host.agents.call(question.job, question.what, self._settings.agent, question.uuid))
        finally:
            host.asking_agents = False


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    """Background work: that a host is unreachable shows in the next call that somebody waits for."""
    with suppress(LubanError):
        await work
