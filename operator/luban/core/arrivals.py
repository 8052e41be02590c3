"""Which VMs to create, where, and under which names."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from luban.api.cluster import Host
from luban.core.departures import MAX_SURGE
from luban.core.ledger import Ledger
from luban.core.model import CreateVM, DeleteVM
from luban.core.phases import FIT, STARTING
from luban.core.placement import Places, Placing
from luban.core.pool import SPREAD, Taken, Tap, dismissed, hosts_of_pool, missing
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
    taken: tuple[Taken, ...] = ()
    """Those that come out of the pool."""
    dismissed: tuple[DeleteVM, ...] = ()
    """Those that leave the pool for good."""
    pooled: tuple[CreateVM, ...] = ()
    """Those that are made for the pool."""
    no_room_for_pool: str = ""
    """Why no host can take one that the pool lacks; empty: one can, or it is not time for it."""


def vms_to_create(
    snapshot: Snapshot, leaving: Sequence[DeleteVM], cluster: str, desired: int, recycled: Collection[str] = ()
) -> Arrivals:
    """VMs that come: what is missing, one successor for outdated ones, and one for a host below its minimum. Out of the
    pool, if it has one; then those that the pool lacks.

    `leaving`: VMs that are asked to leave before. `recycled`: those of them that go to the pool.
    """
    coming = _Coming(snapshot, leaving, cluster, desired)
    created = tuple(islice(coming, 1 if coming.tried_by_one else None)) if coming.may_come else ()
    made = Arrivals(created, coming.places.placing(), coming.ledger.live, coming.outdated, coming.taken)
    return _with_pool(coming, made, recycled) if snapshot.state.pool or snapshot.spec.pool.size else made


def _with_pool(coming: _Coming, made: Arrivals, recycled: Collection[str]) -> Arrivals:
    """The same with what becomes of the pool: filling it waits for all else."""
    at_rest = coming.at_rest and not made.created and not made.taken
    short = made.live < coming.desired and made.placing.host is None
    taken = {it.vm.name for it in made.taken}
    gone = dismissed(coming.snapshot, taken, at_rest=at_rest, short=short)
    if not at_rest or gone or not coming.may_come or recycled:
        return replace(made, dismissed=gone)
    pooled, no_room = coming.for_the_pool()
    return replace(made, pooled=pooled, no_room_for_pool=no_room)


class _Coming:
    """One arrival after the other, each placed as if those before it had been carried out."""

    def __init__(self, snapshot: Snapshot, leaving: Sequence[DeleteVM], cluster: str, desired: int) -> None:
        self.snapshot, self._cluster, self.desired = snapshot, cluster, desired
        self._leaving = {it.name for it in leaving}
        self.ledger = _ledger_without(snapshot, self._leaving)
        self.outdated = self._count_outdated()
        self.taken = tuple(self._from_pool()) if snapshot.takeable else ()
        self.places = Places(snapshot.candidates(self.ledger))
        self._avoided = snapshot.avoided(self.ledger)

    def _from_pool(self) -> Iterator[Taken]:
        """VMs of the pool instead of new ones."""
        tap = Tap(self.snapshot, self.ledger)
        while self.ledger.total < self.snapshot.spec.scaling.max_vms:
            reason = self._wanting() or ("HostBelowMinimum" if self._at_wanted and tap.below_minimum() else "")
            taken = tap.take(reason, below_minimum=reason == "HostBelowMinimum") if reason else None
            if taken is None:
                return
            yield taken

    def _count_outdated(self) -> int:
        """How many must be replaced when the others have left. None that comes is, nor makes a host too full."""
        if not self._leaving:
            return len(self.snapshot.outdated_live)
        occupancy = self.ledger.occupancy
        staying = (vm for vm in self.snapshot.state.live if vm.name not in self._leaving)
        return sum(bool(self.snapshot.why_replace(vm, occupancy)) for vm in staying)

    @property
    def may_come(self) -> bool:
        """After setbacks one VM alone is tried, and only when its time has come."""
        state, setbacks = self.snapshot.state, self.snapshot.memory.setbacks.values()
        if any(self.snapshot.now < it.retry_at for it in setbacks):
            return False
        booting = (vm for vm in state.booting if vm.name not in self._leaving)
        return not (self.tried_by_one and any(state.reachable(vm.host) for vm in booting))

    @property
    def tried_by_one(self) -> bool:
        """Whether VMs failed again and again."""
        return any(it.count > 1 for it in self.snapshot.memory.setbacks.values())

    def __iter__(self) -> Iterator[CreateVM]:
        while (reason := self._reason()) and (host := self.places.best()) is not None:
            made = self._new(host, self.places, reason)
            self.places.fill()
            yield made

    def _new(self, host: Host, places: Places, reason: str) -> CreateVM:
        words, address, name = places.in_words(), self.ledger.free_address(host), self._new_name()
        self._names.add(name)
        self.ledger.arrive(host.name, address)
        return CreateVM(name, host.name, host.uri, address, reason, words)

    def _reason(self) -> str:
        """Why one more VM is needed; empty: it is not."""
        if self.ledger.total >= self.snapshot.spec.scaling.max_vms:
            return ""
        if reason := self._wanting():
            return reason
        if self._at_wanted and self._host_below_minimum(self.places.best()):
            return "HostBelowMinimum"
        return ""

    def _wanting(self) -> str:
        """The same, as far as the number is wanting."""
        if self.ledger.live < self.desired:
            return "BelowDesired"
        return "Outdated" if self.outdated and self.ledger.live < self.desired + MAX_SURGE else ""

    @property
    def _at_wanted(self) -> bool:
        return self.ledger.live == self.desired

    # The pool.

    @property
    def at_rest(self) -> bool:
        """Whether nothing is missing, outdated or on its way: what the pool lacks may come."""
        state = self.snapshot.state
        settled = all(vm.name in state.serving_names or not state.reachable(vm.host) for vm in state.live)
        return settled and not self.outdated and not self._leaving and self.ledger.live >= self.desired

    def for_the_pool(self) -> tuple[tuple[CreateVM, ...], str]:
        """VMs that the pool lacks, each where the next VM of the cluster would go; and why no host can take more."""
        wanting = missing(self.snapshot, ())
        booting = any(vm.phase in STARTING - FIT for vm in self.snapshot.state.pool)
        if self.tried_by_one:
            wanting = 0 if booting else min(wanting, 1)
        pooled: list[CreateVM] = []
        hosts = hosts_of_pool(self.snapshot)
        for name, count in hosts.items():
            if name in self.ledger.occupancy:
                self.ledger.occupancy[name].live += count
        while len(pooled) < wanting:
            places = self._places_for_pool(hosts)
            host = places.best()
            if host is None:
                return tuple(pooled), places.in_words()
            hosts[host.name] += 1
            pooled.append(replace(self._new(host, places, "PoolBelowSize"), role="Warm"))
        return tuple(pooled), ""

    def _places_for_pool(self, hosts: Collection[str]) -> Places:
        """Never all on one host, if another can take one."""
        among = self.snapshot.candidates(self.ledger)
        if len(hosts) == 1 and self.snapshot.spec.pool.size >= SPREAD:
            elsewhere = replace(among, hosts=[it for it in among.hosts if it.name not in hosts])
            if elsewhere.any_fit():
                return Places(elsewhere)
        return Places(among)

    def _host_below_minimum(self, best: Host | None) -> bool:
        """Whether the best host is below its minimum: those come first, unless one failed there lately."""
        if best is None or best.name in self._avoided:
            return False
        return self.ledger.occupancy[best.name].live < best.vms.min

    @cached_property
    def _names(self) -> set[str]:
        """Names that are taken."""
        return {vm.name for vm in self.snapshot.state.vms} - self.ledger.gone

    def _new_name(self) -> str:
        """A name that no VM of the cluster has; made of the time and the number of names, so that a plan stays pure."""
        attempt = 0
        while True:
            seed = f"{self._cluster}/{self.snapshot.now!r}/{len(self._names)}/{attempt}".encode()
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
