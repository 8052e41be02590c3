"""The warm pool [E]: which of its VMs are let serve, which that are let go are kept for it, who is dismissed from it.

A VM of the pool was ready once and waits, suspended, on a host where the next VM would go. It counts against the host's
maximum, not against scaling.maxVMs. Filling it delays nothing else: see `Refill`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from luban.core import phases
from luban.core.conditions import PoolSituation
from luban.core.ledger import Ledger
from luban.core.lifecycle import taking
from luban.core.model import Action, AssignVM, DeleteVM, VMRecord
from luban.core.pooled import RECYCLED
from luban.core.snapshot import Snapshot
from luban.core.state import State

SPREAD = 2
"""A pool of so many VMs is never all on one host, if another can take one."""


@dataclass(frozen=True)
class Taken:
    """A VM that comes out of the pool."""

    vm: VMRecord
    reason: str

    def actions(self, state: State) -> tuple[Action, ...]:
        """The intent before the domain goes on; a VM that runs needs no more."""
        intent = AssignVM(self.vm.name, "Serving", self.reason)
        if self.vm.phase != "Warm":
            return (intent,)
        update, resume = taking(self.vm, state)
        return update, intent, resume


def situation_of(snapshot: Snapshot, no_room: str) -> PoolSituation | None:
    """How full the pool is; None: there is none."""
    size = snapshot.spec.pool.size
    if not size and not snapshot.state.pool:
        return None
    return PoolSituation(size, len(snapshot.state.warm), no_room)


class Tap:
    """VMs of the pool that come out of it one after the other, each as if those before it served already."""

    def __init__(self, snapshot: Snapshot, ledger: Ledger) -> None:
        self._snapshot, self._ledger = snapshot, ledger
        self._left = list(snapshot.takeable)
        self._minima = snapshot.minima

    def below_minimum(self) -> bool:
        """Whether any stands on a host that has fewer VMs than stay there."""
        return any(self._is_below(vm.host) for vm in self._left)

    def take(self, reason: str, *, below_minimum: bool = False) -> Taken | None:
        """The best one; None: there is none. `below_minimum`: only on hosts that have too few."""
        able = [vm for vm in self._left if self._is_below(vm.host) or not below_minimum]
        if not able:
            return None
        vm = min(able, key=self._worth)
        self._left.remove(vm)
        self._ledger.take(vm)
        return Taken(vm, reason)

    def _is_below(self, host: str) -> bool:
        return self._ledger.occupancy[host].live < self._minima.get(host, 0)

    def _worth(self, vm: VMRecord) -> tuple[object, ...]:
        """What still runs comes back soonest, then what is warm; of these the best placed (Luban cloud [L], Fig. 5)."""
        position = next((at for at, host in enumerate(self._snapshot.spec.hosts) if host.name == vm.host), 0)
        live, grade = self._ledger.occupancy[vm.host].live, self._snapshot.bonds.grade(vm.host)
        return _rank(vm), not self._is_below(vm.host), grade, live, position, vm.created, vm.name


def _rank(vm: VMRecord) -> int:
    """How soon it could serve: the lower, the sooner."""
    if vm.phase in phases.UNSTARTED:
        return 4
    if vm.phase == "Booting":
        return 3
    return {"Ready": 0, "Draining": 0, "Warm": 1}.get(vm.phase, 2)


def recycled(snapshot: Snapshot, leaving: Sequence[DeleteVM]) -> dict[str, AssignVM]:
    """Of VMs that are one too many: those that go to the pool instead, by name."""
    spec, state = snapshot.spec, snapshot.state
    vms = {vm.name: vm for vm in state.live}
    found: dict[str, AssignVM] = {}
    hosts = Counter(vm.host for vm in _counted(snapshot))
    for it in leaving:
        vm = vms[it.name]
        if hosts.total() >= spec.pool.size:
            break
        if it.reason == "AboveDesired" and _is_sound(vm, snapshot) and _spreads(snapshot, hosts, vm.host):
            found[vm.name] = AssignVM(vm.name, "Warm", RECYCLED)
            hosts[vm.host] += 1
    return found


def _is_sound(vm: VMRecord, snapshot: Snapshot) -> bool:
    """Whether a VM is as good as a new one."""
    state = snapshot.state
    domain = state.domain(vm)
    runs = vm.phase == "Ready" and domain is not None and domain.state == "Running"
    return runs and vm.name in state.proven and not snapshot.why_outdated(vm) and not snapshot.overfull(vm.host)


def _spreads(snapshot: Snapshot, hosts: Counter[str], host: str) -> bool:
    """Whether one more VM of the pool on this host leaves it spread, or nothing else can be done."""
    if snapshot.spec.pool.size < SPREAD or not hosts.total() or set(hosts) - {host}:
        return True
    return not _others_fit(snapshot, host)


def _others_fit(snapshot: Snapshot, host: str) -> bool:
    candidates = snapshot.candidates(snapshot.ledger())
    return any(it.name != host and not candidates.why_unfit(it) for it in candidates.hosts)


def _counted(snapshot: Snapshot) -> list[VMRecord]:
    """VMs that fill the pool: not those that must go, nor those on a host that has been silent for long."""
    return [vm for vm in snapshot.state.pool if not snapshot.long_silent(vm.host) and not why_dismissed(snapshot, vm)]


def why_dismissed(snapshot: Snapshot, vm: VMRecord) -> str:
    """Why a VM must not stay in the pool; empty: it may."""
    if why := snapshot.why_outdated(vm):
        return why
    if vm.host in snapshot.state.refused:
        return "HostNotAllowed"
    crowded = snapshot.state.reachable(vm.host) and snapshot.overfull(vm.host)
    return "HostAboveMaximum" if crowded else ""


def dismissed(snapshot: Snapshot, taken: Collection[str], *, at_rest: bool, short: bool) -> tuple[DeleteVM, ...]:
    """VMs of the pool that are let go.

    `taken`: those that come out of it in this plan. `at_rest`: nothing else of the cluster is under way. `short`: VMs
    are missing that no host can take. What must go goes one by one, at once if its room is needed.
    """
    pool = [vm for vm in snapshot.state.pool if vm.name not in taken]
    must_go = [DeleteVM(vm.name, why) for vm in pool if (why := why_dismissed(snapshot, vm))]
    if short:
        useless = [DeleteVM(vm.name, "MakesRoom") for vm in pool if vm.phase not in phases.TAKEABLE]
        return tuple({it.name: it for it in (*useless, *must_go)}.values())
    leaving = any(vm.role == "Warm" and not snapshot.given_up(vm) for vm in snapshot.state.draining)
    staying = [vm for vm in _counted(snapshot) if vm.name not in taken]
    return (*([] if leaving else must_go[:1]), *_surplus(snapshot, staying, at_rest=at_rest and not must_go))


def _surplus(snapshot: Snapshot, staying: list[VMRecord], *, at_rest: bool) -> Iterator[DeleteVM]:
    """What is above the pool's size: what could serve last goes first; and one of a full pool that is all on one host,
    if another can take it."""
    size = snapshot.spec.pool.size
    by_worth = sorted(staying, key=lambda vm: (_rank(vm), vm.created, vm.name))
    for vm in by_worth[size:]:
        yield DeleteVM(vm.name, "AbovePoolSize")
    hosts = {vm.host for vm in staying}
    if (
        at_rest
        and size >= SPREAD
        and len(staying) == size
        and len(hosts) == 1
        and all(vm.phase == "Warm" for vm in staying)
        and _others_fit(snapshot, hosts.pop())
    ):
        yield DeleteVM(by_worth[-1].name, "PoolOnOneHost")


def missing(snapshot: Snapshot, recycled_now: Collection[str]) -> int:
    """How many VMs the pool lacks."""
    return snapshot.spec.pool.size - len(_counted(snapshot)) - len(recycled_now)


def hosts_of_pool(snapshot: Snapshot) -> Counter[str]:
    """How many VMs of the pool each host has."""
    return Counter(vm.host for vm in _counted(snapshot))
