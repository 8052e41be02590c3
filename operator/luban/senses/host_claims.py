"""Who takes room on hosts that several clusters share: as API server and libvirt tell it, and as was decided since.

A plan's starts and creations count at once, before anybody could have told of them: two clusters that decide one after
the other never take the same room.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from luban.api import names
from luban.api.template import Memory
from luban.api.units import Quantity
from luban.core.host_room import Claim
from luban.core.model import ClusterRef
from luban.core.phases import HOLDS_NOTHING
from luban.core.state import RUNNING_STATES
from luban.ports import MarkedDomain


@dataclass(frozen=True)
class Grant:
    """Room that a plan took for a VM."""

    host: str
    vm: str
    """Name of its LubanVM."""
    claim: Claim


@dataclass
class HostClaims:
    """Fed by every plan; asked before every one."""

    _granted: dict[ClusterRef, tuple[Grant, ...]] = field(default_factory=dict)
    """By cluster, of its last plan."""

    def grant(self, cluster: ClusterRef, grants: Iterable[Grant], under_way: Collection[str]) -> None:
        """A plan takes room. What an earlier one of the cluster took is given back, but for VMs that are being made."""
        kept = [it for it in self._granted.get(cluster, ()) if it.vm in under_way]
        granted = {it.vm: it for it in (*kept, *grants)}
        if granted:
            self._granted[cluster] = tuple(granted.values())
        else:
            self._granted.pop(cluster, None)

    def drop(self, cluster: ClusterRef) -> None:
        """A cluster is looked after no more."""
        self._granted.pop(cluster, None)

    def on(
        self,
        host: str,
        bodies: Iterable[Mapping[str, Any]],
        domains: Mapping[str, MarkedDomain],
        asking: ClusterRef,
        under_way: Collection[str],
    ) -> list[Claim]:
        """Everything that takes room on a host, each VM once.

        `bodies`: LubanVMs that name it. `domains`: what runs there with our mark, by uuid. `asking`: the cluster that
        plans anew; `under_way`: its VMs that are being made.
        """
        granted = {(it.claim.cluster.namespace, it.vm): it.claim for it in self._still_granted(host, asking, under_way)}
        claims, known = [], set()
        for body in bodies:
            claim = _claim_of(body)
            if not _takes_room(body):
                continue
            known.add(claim.uid)
            grant = granted.pop((claim.cluster.namespace, body["metadata"]["name"]), None)
            domain = domains.get(claim.uid)
            holds = claim.holds or grant is not None or domain is not None
            # One that leaves has room for the one in its place, whichever of them is larger.
            sizes = claim.memory or (domain.memory if domain else 0), grant.memory if grant else 0
            claims.append(replace(claim, holds=holds, memory=max(sizes)))
        return [*claims, *_strays(domains, known), *granted.values()]

    def _still_granted(self, host: str, asking: ClusterRef, under_way: Collection[str]) -> Iterator[Grant]:
        for cluster, grants in self._granted.items():
            for it in grants:
                if it.host == host and (cluster != asking or it.vm in under_way):
                    yield it


def _strays(domains: Mapping[str, MarkedDomain], known: Collection[str]) -> Iterator[Claim]:
    """Domains that run and that no LubanVM stands for."""
    for uuid, it in domains.items():
        if uuid not in known and it.record.state in RUNNING_STATES:
            yield Claim(uuid, ClusterRef(it.owner.namespace, it.owner.name), it.memory)


def _takes_room(body: Mapping[str, Any]) -> bool:
    """Whether the LubanVM's domain runs or may come to run."""
    metadata = body["metadata"]
    let_go = metadata.get("deletionTimestamp") and names.FINALIZER_VM not in (metadata.get("finalizers") or ())
    return not let_go and _phase_of(body) not in HOLDS_NOTHING


def _phase_of(body: Mapping[str, Any]) -> str:
    return str((body.get("status") or {}).get("phase") or "Pending")


def _claim_of(body: Mapping[str, Any]) -> Claim:
    """What a LubanVM takes, whatever else of it can be read."""
    metadata, spec = body["metadata"], body["spec"]
    memory = ((spec["template"].get("domain") or {}).get("memory") or {}).get("max") or Memory().max
    return Claim(
        uid=metadata["uid"],
        cluster=ClusterRef(metadata["namespace"], spec["clusterName"]),
        memory=bytes_of(str(memory)),
        created=metadata.get("creationTimestamp") or "",
        holds=_phase_of(body) != "Pending",
    )


@lru_cache(maxsize=1024)
def bytes_of(amount: str) -> int:
    """Bytes of an amount as it is written; 0 if it cannot be read."""
    try:
        return Quantity.of(amount).bytes
    except ValueError:
        return 0
