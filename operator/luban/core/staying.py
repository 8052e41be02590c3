"""Who stays while a plan asks one VM after the other to leave, and what depends on it."""

from __future__ import annotations

from functools import cached_property

from luban.core import phases
from luban.core.model import VMRecord
from luban.core.placement import spares
from luban.core.snapshot import Snapshot
from luban.core.turns import Turns


class Staying:
    """The live VMs but for those that were asked to leave. It changes: see Ledger."""

    def __init__(self, snapshot: Snapshot) -> None:
        state = snapshot.state
        self._snapshot, self._state = snapshot, state
        self.vms = {vm.name: vm for vm in state.live}
        """By name, oldest first."""
        self.ledger = snapshot.ledger()
        self.proven = set(state.proven)
        self.awaited = any(not snapshot.given_up(vm) for vm in state.draining)
        """Whether the end of anything is waited for."""
        self._outdated = {vm.name for vm in state.live if snapshot.why_outdated(vm)}
        self._released: set[str] = set()
        """VMs that took none any more as soon as they were asked to leave."""
        self._turns: Turns | None = None

    def let_go(self, vm: VMRecord) -> None:
        """Ask a VM to leave."""
        holds = self._snapshot.holds_until_gone(vm)
        self.ledger.leave(vm, holds=holds)
        self.awaited |= holds
        del self.vms[vm.name]
        self._outdated.discard(vm.name)
        self.proven.discard(vm.name)
        if self._turns is not None and holds:
            self._turns.leave(vm.name)
        elif not holds:
            self._released.add(vm.name)
            self._turns = None

    def is_outdated(self, vm: VMRecord) -> bool:
        """Whether it must make way for another."""
        return vm.name in self._outdated or self._snapshot.crowded(vm.host, self.ledger.occupancy)

    def any_outdated(self) -> bool:
        """Whether any of them must."""
        occupancy = self.ledger.occupancy
        return bool(self._outdated) or any(self._snapshot.crowded(host, occupancy) for host in occupancy)

    def may_stop(self, vm: VMRecord) -> bool:
        """See Snapshot."""
        return vm.name in self._stoppable

    @cached_property
    def _stoppable(self) -> frozenset[str]:
        return frozenset(vm.name for vm in self._state.live if self._snapshot.may_stop(vm))

    def spares(self, vm: VMRecord) -> bool:
        """Whether the VM's host stays at its minimum without it."""
        return spares(vm, self._snapshot.minima, self.ledger.occupancy)

    def others_answer(self, vm: VMRecord, desired: int) -> bool:
        """Whether enough others answer, or nobody would miss it: it never served, or is known not to answer."""
        if vm.phase in phases.STARTING or vm.phase in phases.NO_USE or vm.name in self._state.sick:
            return True
        return len(self.proven) - (vm.name in self.proven) >= desired

    def is_barred(self, vm: VMRecord) -> bool:
        """Whether its domain must not be started."""
        return vm.name in self._who_starts().barred

    def newly_barred(self) -> list[VMRecord]:
        """Those that became so since this was asked last."""
        return [self.vms[name] for name in self._who_starts().newly_barred() if name in self.vms]

    def _who_starts(self) -> Turns:
        if self._turns is None:
            self._turns = self._snapshot.turns(self.vms.values(), self._released)
        return self._turns
