"""What is left on a host for one cluster, by the limits that an administrator sets over all clusters together.

First come, first served: what was started keeps its room, and of those that wait the LubanVM made first has it; one
that is too large for what is left keeps no smaller one waiting. So two clusters that grow in the same second get no
more than there is, and a restarted operator decides as the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from luban.api.libvirt_host import LibvirtHost
from luban.core.left_out import HostRoom, Left
from luban.core.model import ClusterRef

NAMED = 5
"""Clusters that a message names."""
UNBOUNDED = 2**62
"""More than any host has."""
GIBI, MEBI = 2**30, 2**20


@dataclass(frozen=True)
class Claim:
    """A VM that takes room on a host, whichever cluster's it is."""

    uid: str
    """Of the LubanVM, and so of its domain; empty: it is about to be made."""
    cluster: ClusterRef
    memory: int
    """Bytes that it may grow to."""
    created: str = ""
    """When its LubanVM was made (RFC 3339, UTC); empty: nobody knows, or not yet."""
    holds: bool = True
    """It was started, or is about to be: nobody takes its room any more."""


@dataclass(frozen=True)
class Limit:
    """How much VMs may take together. None: any number."""

    vms: int | None = None
    memory: int | None = None
    """Bytes."""
    namespace: str = ""
    """Whose VMs count; empty: all."""
    elsewhere: int = 0
    """Bytes of `memory` that VMs have which are not ours."""

    def counts(self, namespace: str) -> bool:
        """Whether VMs of a namespace count."""
        return self.namespace in ("", namespace)


def limits_of(host: LibvirtHost, memory: int, foreign: int) -> tuple[Limit, ...]:
    """A registered host's limits. `memory`: bytes that it has, 0 if that is not known; `foreign`: bytes of its running
    domains that are not ours."""
    if host.memory.max is not None:
        whole = Limit(host.vms.max, host.memory.max.bytes)
    elif memory:
        whole = Limit(host.vms.max, memory - host.memory.reserve.bytes, elsewhere=foreign)
    else:
        # A limit that is not known must not become none at all.
        whole = Limit(host.vms.max, 0)
    quotas = (
        Limit(it.vms.max, it.memory.max.bytes if it.memory.max is not None else None, it.namespace)
        for it in host.quotas
    )
    return whole, *quotas


def room_of(cluster: ClusterRef, claims: Iterable[Claim], limits: Sequence[Limit], need: int) -> HostRoom:
    """What is left for a cluster whose next VM may grow to `need` bytes."""
    uses = [_Use(limit) for limit in limits]
    late = []
    # What is about to be made comes last: it was found to fit beside all that there was, and makes nobody late.
    for claim in sorted(claims, key=lambda it: (not it.uid, not it.holds, it.created, it.uid)):
        concerned = [use for use in uses if use.limit.counts(claim.cluster.namespace)]
        if claim.holds or all(use.fits(claim.memory) for use in concerned):
            for use in concerned:
                use.take(claim)
        else:
            late.append(claim.uid)
    # The first limit is the whole host's, and counts for all.
    own = [use for use in uses if use.limit.counts(cluster.namespace)]
    tightest = min(own, key=lambda use: use.free(need))
    return HostRoom(tuple(use.left for use in own), need, frozenset(late), tightest.in_words(need))


class _Use:
    """How much of one limit is taken."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._holders: Counter[str] = Counter()
        self._memory = limit.elsewhere

    def take(self, claim: Claim) -> None:
        self._holders[str(claim.cluster)] += 1
        self._memory += claim.memory

    def fits(self, memory: int) -> bool:
        return self.free(memory) > 0

    def free(self, need: int) -> int:
        """How many VMs of so many bytes fit; a number that is no bound if there is none."""
        return max(0, min(self.left.places, self.left.memory // max(1, need)))

    @property
    def left(self) -> Left:
        """What nobody has."""
        places = UNBOUNDED if self.limit.vms is None else self.limit.vms - self._holders.total()
        return Left(places, UNBOUNDED if self.limit.memory is None else self.limit.memory - self._memory)

    def in_words(self, need: int) -> str:
        """Why it takes no more, and who has it."""
        whose = (
            f"namespace {self.limit.namespace} has its quota there" if self.limit.namespace else "all clusters fill it"
        )
        if self.left.places <= 0:
            how = f"{self._holders.total()} of {self.limit.vms} VMs"
        elif self.limit.memory == 0:
            return "libvirt does not say how much memory it has, and its LubanHost has no memory.max"
        else:
            memory = f"{_amount(self._memory)} of {_amount(self.limit.memory or 0)} memory"
            how = f"{memory}, {_amount(need)} for one more"
        others = f"others {_amount(self.limit.elsewhere)}" if self.limit.elsewhere else ""
        return f"{whose} ({how}: {_listed(self._holders, others)})"


def _amount(count: int) -> str:
    """Bytes as people write them."""
    return f"{count / GIBI:.1f} GiB" if count >= GIBI else f"{count // MEBI} MiB"


def _listed(holders: Counter[str], others: str) -> str:
    found = [f"{name} {count}" for name, count in holders.most_common(NAMED)]
    more = len(holders) - len(found)
    return (
        ", ".join([*found, *([f"{more} more clusters"] if more else []), *([others] if others else [])]) or "nobody yet"
    )
