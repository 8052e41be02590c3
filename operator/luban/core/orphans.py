"""What nobody stands for on a host any more: domains of LubanClusters that are no more, and volumes of VMs that are.

Hosts may be shared with others, and with other Kubernetes clusters that run Luban too: what is not certainly ours, or
was not seen to be nobody's for an hour, is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from luban.core.model import ClusterRef

ORPHAN_SECONDS = 3600.0
"""So long it must have been nobody's, in every look since: time to restore a backup, or to see what went wrong."""
TOLD_SECONDS = 30.0
"""So long nothing is told of it: what is known of a host and of the API server is not of the same moment."""

OrphanKind = Literal["Domain", "Volume"]


@dataclass(frozen=True)
class Census:
    """All objects of ours that the API server has at one moment, in all namespaces."""

    vms: frozenset[str]
    """UIDs of LubanVMs, and so of their domains."""
    clusters: frozenset[tuple[str, str]]
    """Namespace and name of LubanClusters."""


@dataclass(frozen=True)
class DomainOwner:
    """What a domain's mark says of whose it is."""

    cluster: ClusterRef
    plane: str
    """Mark of the control plane that made it; empty: not known."""


@dataclass(frozen=True)
class VMVolume:
    """A storage volume that was made for a VM."""

    pool: str
    name: str
    uuid: str
    """Of the VM that it was made for."""
    stamp: str = ""
    """When it was last written, as libvirt tells it; empty: not told."""
    user: str = ""
    """Who else names it or is made from it, in words; empty: nobody."""


@dataclass(frozen=True)
class Orphan:
    """Something that nobody stands for."""

    kind: OrphanKind
    uuid: str
    name: str
    """Of the domain, or of the volume in its pool."""
    pool: str
    stamp: str = ""
    """Differs if it was written meanwhile."""
    cluster: tuple[str, str] = "", ""
    """Namespace and name of the LubanCluster that a domain names."""

    @property
    def key(self) -> tuple[str, ...]:
        """Tells it from all others of its host."""
        return self.kind, self.uuid, self.pool, self.name


@dataclass(frozen=True)
class Sighting:
    """An orphan, and since when it was seen as it is."""

    orphan: Orphan
    since: float
    """Seconds of a clock that nobody sets."""


Sightings = Mapping[tuple[str, ...], Sighting]
"""By key."""


def is_nobodys(uuid: str, owner: DomainOwner, census: Census, plane: str) -> bool:
    """Whether this control plane made a domain, and has neither its LubanVM nor a LubanCluster of its name.

    While there is such a LubanCluster, its ticks see to it. `plane`: our mark; empty: not known, so nothing is ours.
    """
    cluster = owner.cluster.namespace, owner.cluster.name
    return bool(plane) and owner.plane == plane and uuid not in census.vms and cluster not in census.clusters


def idle_volumes(volumes: Iterable[VMVolume], census: Census, domains: Collection[str]) -> list[VMVolume]:
    """Volumes of VMs that are no more, which nobody uses. `domains`: uuids of all domains that are known, on any host:
    several may have one storage."""
    return [it for it in volumes if not it.user and it.uuid not in census.vms and it.uuid not in domains]


def is_still_nobodys(orphan: Orphan, census: Census) -> bool:
    """Whether a later census says so too."""
    return orphan.uuid not in census.vms and orphan.cluster not in census.clusters


def sighted(before: Sightings, found: Iterable[Orphan], now: float) -> dict[tuple[str, ...], Sighting]:
    """What was found, and since when it is so. What was written meanwhile, or was not seen, begins anew."""
    seen: dict[tuple[str, ...], Sighting] = {}
    for orphan in found:
        known = before.get(orphan.key)
        seen[orphan.key] = known if known is not None and known.orphan == orphan else Sighting(orphan, now)
    return seen


def told(sightings: Sightings, now: float) -> list[Orphan]:
    """Those that were there in an earlier look too."""
    return [it.orphan for it in sightings.values() if now - it.since >= TOLD_SECONDS]


def ripe(sightings: Sightings, now: float) -> list[Orphan]:
    """Those that may be removed, the oldest first."""
    old = [it for it in sightings.values() if now - it.since >= ORPHAN_SECONDS]
    return [it.orphan for it in sorted(old, key=lambda it: (it.since, it.orphan.key))]
