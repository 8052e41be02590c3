"""Which VMs to let go: what is above the wanted number, and outdated ones once their successors answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

from luban.core.model import DeleteVM, VMRecord
from luban.core.placement import LeavingOrder, leaving_order
from luban.core.policies import policy_of
from luban.core.scaling import policy_input
from luban.core.snapshot import Snapshot
from luban.core.staying import Staying
from luban.core.victims import Victims

MAX_SURGE = 1
"""VMs above the wanted number while outdated ones are replaced."""


def vms_to_delete(snapshot: Snapshot, desired: int) -> tuple[DeleteVM, ...]:
    """VMs to let go, each with the reason."""
    if len(snapshot.state.live) <= desired and not snapshot.outdated_live:
        return ()
    return tuple(_Departures(snapshot, desired))


class _Departures:
    """One departure after the other, each chosen as if those before it had been carried out.

    Whatever makes a VM a better choice than another of its host stays as it is meanwhile; and one that may not go any
    more, because too few others would answer or be left on its host, never may again.
    """

    def __init__(self, snapshot: Snapshot, desired: int) -> None:
        self._snapshot, self._desired = snapshot, desired
        self._staying = Staying(snapshot)
        self._ledger = self._staying.ledger
        self._useless = iter([vm for vm in snapshot.outdated_live if snapshot.abandoned(vm) or snapshot.stranded(vm)])

    def __iter__(self) -> Iterator[DeleteVM]:
        while (vm := self._next()) is not None:
            reason = self._snapshot.why_replace(vm, self._ledger.occupancy) or "AboveDesired"
            self._staying.let_go(vm)
            yield DeleteVM(vm.name, reason)

    def _next(self) -> VMRecord | None:
        if (vm := next(self._useless, None)) is not None:
            return vm
        if self._ledger.live > self._desired:
            return self._excess()
        if self._staying.any_outdated() and not self._can_surge() and self._at_rest():
            return self._make_room()
        return None

    # Above the wanted number.

    def _excess(self) -> VMRecord | None:
        """What never served goes first, then what does not answer; another, only if enough others answer. Of these what
        is outdated first; and a successor that must not start at all holds the others up.

        A VM that a silent balancer does not know may serve all the same: it never counts as one that never served.
        """
        self._stuck.add(self._in_order(self._staying.newly_barred()))
        last = self._ledger.live <= self._desired + MAX_SURGE and self._staying.any_outdated()
        kinds = self._outdated_kinds if last else (*self._outdated_kinds, *self._other_kinds)
        return next((vm for kind in kinds if (vm := kind.first()) is not None), None)

    @cached_property
    def _outdated_kinds(self) -> tuple[Victims, ...]:
        """A host's minimum keeps what is up to date; what must be replaced goes all the same, if nothing else does."""
        old = self._staying.is_outdated
        return (
            self._stuck,
            self._kind(lambda vm: self._is_sick(vm) and old(vm), keep_minima=True),
            self._kind(lambda vm: self._is_sick(vm) and old(vm)),
            self._kind(lambda vm: vm.phase == "Ready" and old(vm), keep_minima=True),
            self._kind(lambda vm: vm.phase == "Ready" and old(vm)),
        )

    @cached_property
    def _other_kinds(self) -> tuple[Victims, ...]:
        return (
            self._kind(lambda vm: vm.phase != "Ready", keep_minima=True),
            self._kind(self._is_sick, keep_minima=True),
            self._kind(lambda vm: vm.phase == "Ready", keep_minima=True),
        )

    @cached_property
    def _stuck(self) -> Victims:
        staying = self._staying
        return self._kind(lambda vm: vm.phase != "Ready" and (staying.is_barred(vm) or staying.is_outdated(vm)))

    def _is_sick(self, vm: VMRecord) -> bool:
        return vm.name in self._snapshot.state.sick

    def _kind(self, belongs: Callable[[VMRecord], bool], *, keep_minima: bool = False) -> Victims:
        """Those that belong to a kind and may be stopped."""
        staying, desired = self._staying, self._desired

        def may_go(vm: VMRecord) -> bool:
            return (
                vm.name in staying.vms
                and belongs(vm)
                and staying.may_stop(vm)
                and staying.others_answer(vm, desired)
                and not (keep_minima and not staying.spares(vm))
            )

        return self._victims(staying.vms.values(), may_go)

    def _victims(self, vms: Iterable[VMRecord], may_go: Callable[[VMRecord], bool]) -> Victims:
        found = Victims(self._ledger.occupancy, may_go, fullest_host=self._burdens is None)
        found.add(self._in_order(vm for vm in vms if may_go(vm)))
        return found

    def _in_order(self, vms: Iterable[VMRecord]) -> Iterator[tuple[LeavingOrder, VMRecord]]:
        bonds = self._snapshot.bonds
        if self._burdens is not None:
            return ((leaving_order(vm, self._burdens, bonds), vm) for vm in vms)
        sessions = self._snapshot.state.observation.sessions
        return ((leaving_order(vm, sessions, bonds), vm) for vm in vms)

    @cached_property
    def _burdens(self) -> Mapping[str, float] | None:
        """By VM: the more loaded, the lower; None: the sessions say who leaves."""
        snapshot = self._snapshot
        given = policy_input(snapshot.spec, snapshot.state, self._desired, lambda: snapshot.limits(self._desired))
        loads = policy_of(snapshot.spec.scaling.policy).burdens(given)
        return None if loads is None else {name: -load for name, load in loads.items()}

    # At the wanted number, with outdated ones among them.

    def _can_surge(self) -> bool:
        """Whether a successor fits before its predecessor goes. Room on a host that is silent now is waited for, and so
        is the room of what is on its way out.

        Room on a host whose bond is not good enough, that may not be used, or that other clusters fill, is not: it
        may be so for ever.
        """
        spec, bonds, ledger = self._snapshot.spec, self._snapshot.bonds, self._ledger
        if ledger.live >= spec.scaling.max_vms:
            return False
        return any(
            not host.cordoned
            and ledger.occupancy[host.name].live < host.vms.max
            and bonds.admits(host.name)
            and host.name not in self._snapshot.state.refused
            and not self._snapshot.state.is_full(host.name)
            and ledger.has_address(host)
            for host in spec.hosts
        )

    def _at_rest(self) -> bool:
        """Whether nothing is on its way out, and all up-to-date ones answer: a rollout stops at its first failure."""
        staying = self._staying
        return not staying.awaited and all(
            name in staying.proven or staying.is_outdated(vm) for name, vm in staying.vms.items()
        )

    def _make_room(self) -> VMRecord | None:
        """The limits leave no room above the wanted number: an outdated VM makes room for its successor.

        First one that never served, or is known not to answer; one that answers, only if all others do.
        """
        staying = self._staying
        replaceable = self._replaceable()
        useless = [vm for vm in replaceable if vm.phase != "Ready" or self._is_sick(vm)]
        all_answer = len(staying.proven) == len(staying.vms)
        return self._victims(useless or (replaceable if all_answer else []), lambda _: True).first()

    def _replaceable(self) -> list[VMRecord]:
        """Outdated VMs that can be stopped, and whose room or another's a successor could have then."""
        staying, state = self._staying, self._snapshot.state
        # On a host that does not answer nothing can be stopped, so nothing would make room.
        able = [
            vm
            for vm in staying.vms.values()
            if staying.is_outdated(vm) and state.reachable(vm.host) and staying.may_stop(vm)
        ]
        makes_room = {host: self._makes_room(vm) for host, vm in {vm.host: vm for vm in able}.items()}
        return [vm for vm in able if makes_room[vm.host]]

    def _makes_room(self, vm: VMRecord) -> bool:
        """Whether any host could take a VM if nothing were left of this one, or the pool could give one."""
        if self._snapshot.takeable:
            return True
        with self._ledger.without(vm):
            return self._snapshot.candidates(self._ledger).any_fit()
