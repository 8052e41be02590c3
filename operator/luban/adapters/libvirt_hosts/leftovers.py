"""Volumes that were made for VMs and that no domain of the host stands for; blocking, jobs of a lane.

A volume has no metadata: its name alone tells of which VM it was. So whatever on the host so much as names it, in its
description, counts as its user: any domain, running or not, its snapshots, and any other volume.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator
from dataclasses import replace

import libvirt
import structlog

from luban.adapters.libvirt_hosts.errors import doing, find, first_supported
from luban.adapters.libvirt_hosts.session import Session
from luban.core.orphans import VMVolume

log = structlog.get_logger(__name__)

_OURS = re.compile(r"luban-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:\.qcow2|-seed\.iso)")
"""Names that we give, and no others that merely begin so."""


def spare_volumes(session: Session, pools: Collection[str], known: Collection[str]) -> tuple[VMVolume, ...]:
    """See Hypervisor. Descriptions are read only if there is anything to find out: they cost a look at each disk."""
    with doing(session.host, "look for spare volumes"):
        there = _uuids(session)
        found = [it for name in sorted(pools) for it in _volumes_of(session, name) if it.uuid not in {*known, *there}]
        if not found:
            return ()
        described = [_described(session, it) for it in found]
        return tuple(_with_users(session, [it for it in described if it is not None]))


def remove_volume(session: Session, volume: VMVolume) -> bool:
    """See Hypervisor. All is looked at once more, in this job: a domain may have come that uses it."""
    with doing(session.host, f"delete volume {volume.name} of storage pool {volume.pool!r}"):
        pool = find(session.connection.storagePoolLookupByName, volume.pool)
        there = find(pool.storageVolLookupByName, volume.name) if pool is not None and pool.isActive() else None
        if there is None:
            return pool is not None and bool(pool.isActive())
        if volume.uuid in _uuids(session) or _with_users(session, [_described(session, volume)]) != [volume]:
            return False
        session.proceed()
        find(there.delete, 0)
    log.info("spare volume deleted", host=session.host.name, pool=volume.pool, volume=volume.name)
    return True


def disk_user(session: Session, uuid: str) -> str:
    """See Hypervisor."""
    with doing(session.host, f"look who uses the disk of domain {uuid}"):
        return _users(session, {uuid})[uuid]


def _uuids(session: Session) -> frozenset[str]:
    return frozenset(domain.UUIDString() for domain in session.connection.listAllDomains(0))


def _volumes_of(session: Session, pool: str) -> Iterator[VMVolume]:
    """Volumes with names of ours, as libvirt lists them."""
    found = find(session.connection.storagePoolLookupByName, pool)
    if found is None or not found.isActive():
        return
    for volume in found.listAllVolumes(0):
        if match := _OURS.fullmatch(volume.name()):
            yield VMVolume(pool, volume.name(), match[1])


def _described(session: Session, volume: VMVolume) -> VMVolume | None:
    """The volume with the time of its last change; None: it is gone."""
    session.proceed()
    pool = find(session.connection.storagePoolLookupByName, volume.pool)
    found = find(pool.storageVolLookupByName, volume.name) if pool is not None else None
    text = find(found.XMLDesc, 0) if found is not None else None
    if text is None:
        return None
    stamp = ET.fromstring(text).findtext("target/timestamps/mtime") or ""  # noqa: S314 - printed by libvirt
    return replace(volume, stamp=stamp, user="")


def _with_users(session: Session, volumes: Collection[VMVolume | None]) -> list[VMVolume]:
    """The volumes, each with the first that names it. What is gone is left out."""
    there = [it for it in volumes if it is not None]
    users = _users(session, {it.uuid for it in there})
    return [replace(it, user=users[it.uuid]) for it in there]


def _users(session: Session, uuids: Collection[str]) -> dict[str, str]:
    """By uuid of a VM: in words, the first that names it and is neither its domain nor a volume of its own."""
    users = dict.fromkeys(uuids, "")
    for who, own, text in (*_domains_of(session), *_volumes_described(session)):
        for uuid in users:
            if not users[uuid] and uuid in text and uuid != own:
                users[uuid] = who
    return users


def _domains_of(session: Session) -> Iterator[tuple[str, str, str]]:
    """Every domain: in words, its uuid, and its descriptions, as it runs, as it would be started, and as it was in
    snapshots."""
    for domain in session.connection.listAllDomains(0):
        session.proceed()
        texts = [find(domain.XMLDesc, flags) for flags in (0, libvirt.VIR_DOMAIN_XML_INACTIVE)]
        texts += [find(snapshot.getXMLDesc, 0) for snapshot in _snapshots(domain)]
        yield f"domain {domain.name()}", domain.UUIDString(), "\n".join(text for text in texts if text)


def _snapshots(domain: libvirt.virDomain) -> list[libvirt.virDomainSnapshot]:
    return first_supported(lambda: find(domain.listAllSnapshots, 0), list) or []


def _volumes_described(session: Session) -> Iterator[tuple[str, str, str]]:
    """Every volume of every pool that runs: in words, the VM that it was made for, if any, and what it is made from. A
    VM's own disk and seed are no users of each other."""
    for pool in session.connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        for volume in pool.listAllVolumes(0):
            session.proceed()
            own = _OURS.fullmatch(volume.name())
            words = f"volume {volume.name()} of pool {pool.name()}"
            yield words, own[1] if own else "", _backing(find(volume.XMLDesc, 0) or "<volume/>")


def _backing(description: str) -> str:
    backing = ET.fromstring(description).find("backingStore")  # noqa: S314 - printed by libvirt
    return ET.tostring(backing, encoding="unicode") if backing is not None else ""
