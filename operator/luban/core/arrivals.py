"""Which VMs to create, where, and under which names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from luban.api.cluster import Host
from luban.core.departures import MAX_SURGE
from luban.core.ledger import Ledger
from luban.core.model import CreateVM, DeleteVM
from luban.core.placement import Places, Placing
from luban.core.snapshot import Snapshot

NAME_DIGITS = 5


@dataclass(frozen=True)
class Arrivals:
    """What comes, and how it will be then."""

    created: tuple[CreateVM, ...]
    placing: Placing
    """Where one more VM would go."""
    live: int
    """How many live, those that come included."""
    outdated: int
    """How many of them must make way for others."""


def vms_to_create(snapshot: Snapshot, leaving: Sequence[DeleteVM], cluster: str, desired: int) -> Arrivals:
    """VMs to create: what is missing, one successor for outdated ones, and one for a host below its minimum.

    `leaving`: VMs that are asked to leave before.
    """
    coming = _Coming(snapshot, leaving, cluster, desired)
    created = tuple(islice(coming, 1 if coming.tried_by_one else None)) if coming.may_come else ()
    return Arrivals(created, coming.places.placing(), coming.ledger.live, coming.outdated)


class _Coming:
    """One arrival after the other, each placed as if those before it had been carried out."""

    def __init__(self, snapshot: Snapshot, leaving: Sequence[DeleteVM], cluster: str, desired: int) -> None:
        self._snapshot, self._cluster, self._desired = snapshot, cluster, desired
        self._leaving = {it.name for it in leaving}
        self.ledger = _ledger_without(snapshot, self._leaving)
        self.outdated = self._count_outdated()
        self.places = Places(snapshot.candidates(self.ledger))
        self._avoided = snapshot.avoided(self.ledger)

    def _count_outdated(self) -> int:
        """How many must be replaced when the others have left. None that comes is, nor makes a host too full."""
        if not self._leaving:
            return len(self._snapshot.outdated_live)
        occupancy = self.ledger.occupancy
        staying = (vm for vm in self._snapshot.state.live if vm.name not in self._leaving)
        return sum(bool(self._snapshot.why_replace(vm, occupancy)) for vm in staying)

    @property
    def may_come(self) -> bool:
        """After setbacks one VM alone is tried, and only when its time has come."""
        state, setbacks = self._snapshot.state, self._snapshot.memory.setbacks.values()
        if any(self._snapshot.now < it.retry_at for it in setbacks):
            return False
        booting = (vm for vm in state.booting if vm.name not in self._leaving)
        return not (self.tried_by_one and any(state.reachable(vm.host) for vm in booting))

    @property
    def tried_by_one(self) -> bool:
        """Whether VMs failed again and again."""
        return any(it.count > 1 for it in self._snapshot.memory.setbacks.values())

    def __iter__(self) -> Iterator[CreateVM]:
        while (reason := self._reason()) and (host := self.places.best()) is not None:
            words, address, name = self.places.in_words(), self.ledger.free_address(host), self._new_name()
            self._names.add(name)
            self.ledger.arrive(host.name, address)
            self.places.fill()
            yield CreateVM(name, host.name, host.uri, address, reason, words)

    def _reason(self) -> str:
        """Why one more VM is needed; empty: it is not."""
        live = self.ledger.live
        if self.ledger.total >= self._snapshot.spec.scaling.max_vms:
            return ""
        if live < self._desired:
            return "BelowDesired"
        if self.outdated and live < self._desired + MAX_SURGE:
            return "Outdated"
        if live == self._desired and self._host_below_minimum(self.places.best()):
            return "HostBelowMinimum"
        return ""

    def _host_below_minimum(self, best: Host | None) -> bool:
        """Whether the best host is below its minimum: those come first, unless one failed there lately."""
        if best is None or best.name in self._avoided:
            return False
        return self.ledger.occupancy[best.name].live < best.vms.min

    @cached_property
    def _names(self) -> set[str]:
        """Names that are taken."""
        return {vm.name for vm in self._snapshot.state.vms} - self.ledger.gone

    def _new_name(self) -> str:
        """A name that no VM of the cluster has; made of the time and the number of names, so that a plan stays pure."""
        attempt = 0
        while True:
            seed = f"{self._cluster}/{self._snapshot.now!r}/{len(self._names)}/{attempt}".encode()
            name = f"{self._cluster}-{hashlib.blake2b(seed, digest_size=8).hexdigest()[:NAME_DIGITS]}"
            if name not in self._names:
                return name
            attempt += 1


def _ledger_without(snapshot: Snapshot, leaving: set[str]) -> Ledger:
    """The account once these were asked to leave."""
    ledger = snapshot.ledger()
    for vm in snapshot.state.live if leaving else ():
        if vm.name in leaving:
            ledger.leave(vm, holds=snapshot.holds_until_gone(vm))
    return ledger
