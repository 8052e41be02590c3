"""Looks on registered hosts for what nobody stands for any more, and tells of it or, where an administrator
says so, removes it.

Apart from all ticks, one host independent of the others, and seldom: there is no hurry. What is removed was seen to be
nobody's in every look of an hour, and is so by the API server's word of this moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import structlog

from luban.api.cluster import LubanCluster
from luban.api.libvirt_host import LibvirtHost
from luban.core.orphans import (
    Census,
    DomainOwner,
    Orphan,
    OrphanKind,
    Sightings,
    VMVolume,
    idle_volumes,
    is_nobodys,
    is_still_nobodys,
    ripe,
    sighted,
    told,
)
from luban.errors import LubanError
from luban.ports import HostRef, MarkedDomain, Ports
from luban.runtime.metrics import Metrics
from luban.senses import Senses

log = structlog.get_logger(__name__)

LOOK_SECONDS = 600.0
"""Between two looks at a host."""
HASTY_SECONDS = 60.0
"""The same while something was just found there, or is being removed, and before the first."""
ROUND_SECONDS = 10.0
"""Between two times of seeing which hosts are due."""
MOST_REMOVALS = 4
"""In one look at a host."""


@dataclass
class HostRecord:
    """What is known of the orphans of one host."""

    due: float
    """When it is looked at next, in seconds of a clock that nobody sets."""
    uri: str = ""
    """Where it was looked at."""
    looking: asyncio.Task[None] | None = None
    sightings: Sightings = field(default_factory=dict)
    told: frozenset[tuple[str, ...]] = frozenset()
    """What the log has."""
    pressed: set[str] = field(default_factory=set)
    """uuids of domains whose power button was pressed."""
    in_motion: bool = False
    """Whether something was just found, or is being removed."""
    trouble: str = ""
    """Why the last look failed."""


@dataclass
class Sweeper:
    """All registered hosts of an operator.

    `clusters`: LubanClusters as they are now: they name pools.
    """

    ports: Ports
    senses: Senses
    metrics: Metrics
    clusters: Callable[[], Iterable[LubanCluster]]
    _vms: set[str] = field(default_factory=set)
    """UIDs of LubanVMs that were told of: with these the API server need not be asked whether they are there."""
    _hosts: dict[str, HostRecord] = field(default_factory=dict)

    def vm_told(self, body: Mapping[str, Any], *, gone: bool) -> None:
        """A LubanVM is there, or is gone."""
        (self._vms.discard if gone else self._vms.add)(body["metadata"]["uid"])

    async def run(self) -> None:
        """Look again and again, until it is cancelled. To be begun once all LubanVMs and LubanHosts were told of."""
        try:
            while True:
                self._begin_looks()
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            looks = [it.looking for it in self._hosts.values() if it.looking is not None]
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)
            self.metrics.orphans.clear()

    def _begin_looks(self) -> None:
        now, hosts = self.ports.clock.monotonic(), self.senses.registry.registered()
        for gone in self._hosts.keys() - hosts.keys():
            self._forget(gone)
        for name in hosts:
            record = self._hosts.setdefault(name, HostRecord(now + HASTY_SECONDS))
            if record.due <= now and (record.looking is None or record.looking.done()):
                record.looking = asyncio.ensure_future(self._look_safely(name, record))

    def _forget(self, name: str) -> None:
        record = self._hosts.pop(name)
        if record.looking is not None:
            record.looking.cancel()
        for kind in get_args(OrphanKind):
            self.metrics.orphans.remove_by_labels({"host": name, "kind": kind})

    async def _look_safely(self, name: str, record: HostRecord) -> None:
        record.in_motion, trouble = False, ""
        try:
            await self._look(name, record)
        except LubanError as error:
            trouble = error.message
            if trouble != record.trouble:
                log.info("orphans not looked for", host=name, reason=error.reason, why=trouble)
        except Exception:
            log.exception("orphans not looked for by a fault of the operator", host=name)
        record.trouble = trouble
        record.due = self.ports.clock.monotonic() + (HASTY_SECONDS if record.in_motion else LOOK_SECONDS)

    async def _look(self, name: str, record: HostRecord) -> None:
        """One look. Raises LubanError if not all can be known: then nothing is removed, and what was seen stands."""
        said = self.senses.registry.libvirt(name)
        if said is None:
            return
        host = HostRef(name, said.uri)
        if record.uri != said.uri:
            record.uri, record.sightings = said.uri, {}
        # So that a host that nobody else uses is let go again.
        leave = self.ports.hypervisor.watch(host, lambda _uuid: None)
        try:
            await self._sweep(host, record, said)
        finally:
            leave()

    async def _sweep(self, host: HostRef, record: HostRecord, said: LibvirtHost) -> None:
        name = host.name
        found = await self._found(host, self._pools(name, said))
        now = self.ports.clock.monotonic()
        record.sightings = sighted(record.sightings, found, now)
        self._tell(name, record, said, now)
        removable = ripe(record.sightings, now) if said.orphans == "Remove" else []
        record.in_motion = bool(removable) or len(record.told) < len(record.sightings)
        for orphan in removable[:MOST_REMOVALS]:
            await self._remove_safely(host, record, orphan)

    def _pools(self, name: str, said: LibvirtHost) -> frozenset[str]:
        """Pools of the host that anybody names: others are none of our business, whatever is in them."""
        used = (it.spec for it in self.clusters() if any(host.name == name for host in it.spec.hosts))
        named = {spec.template.spec.image.pool for spec in used}
        return frozenset(said.pools) if said.pools else frozenset(named)

    async def _found(self, host: HostRef, pools: Collection[str]) -> list[Orphan]:
        """What nobody stands for. The API server is asked only where what was told of does not explain all."""
        domains = (await self.ports.hypervisor.inventory(host)).domains
        plane = await self.ports.cluster.plane()
        strangers = {uuid: it for uuid, it in domains.items() if plane and it.plane == plane and uuid not in self._vms}
        known = {*self._vms, *self.senses.hosts.domains(), *domains}
        volumes = await self.ports.hypervisor.spare_volumes(host, pools, known) if pools else ()
        if not strangers and not volumes:
            return []
        census = await self.ports.cluster.census()
        return [*_domains(strangers, census, plane), *_volumes(volumes, census, known)]

    def _tell(self, name: str, record: HostRecord, said: LibvirtHost, now: float) -> None:
        """Publish how many there are, and log each once."""
        there = {it.key: it for it in told(record.sightings, now)}
        for kind in get_args(OrphanKind):
            self.metrics.orphans.labels(name, kind).set(sum(it.kind == kind for it in there.values()))
        if new := [there[key].name for key in sorted(there.keys() - record.told)]:
            what = "nobody stands for what is on a host"
            log.warning(what, host=name, orphans=said.orphans, names=new[:20], number=len(there))
        record.told = frozenset(there)
        record.pressed &= {it.uuid for it in there.values()}

    async def _remove_safely(self, host: HostRef, record: HostRecord, orphan: Orphan) -> None:
        """Remove one if it is nobody's even now. What cannot be removed waits another hour: others come first."""
        words = {"host": host.name, "kind": orphan.kind, "name": orphan.name}
        try:
            if not is_still_nobodys(orphan, await self.ports.cluster.census()) or not self.ports.leadership.held():
                return
            done = await (
                self._remove_volume(host, orphan) if orphan.kind == "Volume" else self._end(host, record, orphan)
            )
            log.warning("ended or removed what nobody stands for" if done else "left: somebody uses it", **words)
        except LubanError as error:
            done = False
            log.warning("not removed", reason=error.reason, error=error.message, **words)
        if not done:
            record.sightings = {key: it for key, it in record.sightings.items() if key != orphan.key}

    async def _remove_volume(self, host: HostRef, orphan: Orphan) -> bool:
        volume = VMVolume(orphan.pool, orphan.name, orphan.uuid, orphan.stamp)
        return await self.ports.hypervisor.remove_volume(host, volume)

    async def _end(self, host: HostRef, record: HostRecord, orphan: Orphan) -> bool:
        """Press a domain's power button, and remove it, with its disk, in the next look. At once if it is off."""
        if await self.ports.hypervisor.disk_user(host, orphan.uuid):
            return False
        try:
            if orphan.uuid in record.pressed or not await self.ports.hypervisor.shutdown(host, orphan.uuid):
                await self.ports.hypervisor.remove(host, orphan.uuid, orphan.pool)
            record.pressed.add(orphan.uuid)
        finally:
            self.senses.hosts.touch(host)
        return True


def _domains(strangers: Mapping[str, MarkedDomain], census: Census, plane: str) -> list[Orphan]:
    return [
        Orphan("Domain", uuid, it.record.name, it.pool, cluster=(it.owner.namespace, it.owner.name))
        for uuid, it in strangers.items()
        if is_nobodys(uuid, DomainOwner(it.owner, it.plane), census, plane)
    ]


def _volumes(volumes: Iterable[VMVolume], census: Census, domains: Collection[str]) -> list[Orphan]:
    return [Orphan("Volume", it.uuid, it.name, it.pool, it.stamp) for it in idle_volumes(volumes, census, domains)]
