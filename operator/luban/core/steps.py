"""The next steps of all VMs of a cluster, in one value."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from operator import is_

from luban.api.cluster import LubanClusterSpec
from luban.api.vm import Phase
from luban.core.drain import SILENCE_SECONDS, DrainTimes, progress
from luban.core.lifecycle import STAYS_READY, Step, next_step
from luban.core.memory import ClusterMemory
from luban.core.model import Action, DeleteVM, UpdateVM, VMRecord
from luban.core.pooled import Rest, pooled_step
from luban.core.state import State

GONE_SECONDS = 600.0
"""So long a host that left the spec may be silent until nobody waits for what is left on it."""


@dataclass(frozen=True)
class Steps:
    """What each VM needs now."""

    of: Mapping[str, Step]
    """By VM."""
    cut_off: frozenset[str] = frozenset()
    """VMs whose drain takes too long: no balancer shall send them anything any more."""
    calm: frozenset[str] = frozenset()
    """VMs that serve and need nothing."""

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """All actions, each VM's in their order."""
        return tuple(action for step in self.of.values() for action in step.actions)

    @cached_property
    def phases(self) -> dict[str, Phase]:
        """Phase of each VM from here on."""
        return {name: step.phase for name, step in self.of.items()}

    def moving(self, state: State) -> list[tuple[VMRecord, Step]]:
        """VMs that come to another phase, each with its step."""
        return [(vm, step) for vm in state.vms if (step := self.of[vm.name]).phase != vm.phase]

    def without(self, state: State, names: Collection[str]) -> Steps:
        """The same without those of VMs that are asked to leave: nothing is started to be stopped at once."""
        if not names:
            return self
        phases = {vm.name: vm.phase for vm in state.vms}
        return replace(self, of={**self.of, **{name: Step(phases[name]) for name in names}})

    def only(self, state: State, names: Iterable[str]) -> Steps:
        """The steps of these VMs alone; the others stay as they are."""
        chosen = {name: self.of[name] for name in names}
        return replace(self, of={**{vm.name: Step(vm.phase) for vm in state.vms}, **chosen})


def steps_of(
    spec: LubanClusterSpec,
    state: State,
    memory: ClusterMemory,
    now: float,
    *,
    may_not_start: frozenset[str] = frozenset(),
    silence: float = SILENCE_SECONDS,
) -> Steps:
    """The next step of each VM. `silence`: seconds that a drain waits longer for a balancer that says nothing."""
    timeout = spec.balancer.drain.timeout.seconds
    gone = _hosts_gone(spec, state, memory, now)
    calm = state.calm
    rest = _rest_of(spec)

    def times(vm: VMRecord) -> DrainTimes:
        return DrainTimes(timeout, silence, memory.closed.get(vm.name))

    def step(vm: VMRecord) -> Step:
        may_start, host_gone = vm.name not in may_not_start, vm.host in gone
        unheard = memory.unheard.get(vm.name)
        found = next_step(vm, state, times(vm), now, may_start=may_start, host_gone=host_gone, unheard=unheard)
        if vm.role == "Serving" or vm.deleting_since is not None:
            return found
        drain = progress(vm, state, times(vm), now)
        return pooled_step(vm, state, now, alone=found, drain=drain, rest=rest)

    return Steps(
        {vm.name: STAYS_READY if vm.name in calm else step(vm) for vm in state.vms},
        frozenset(vm.name for vm in state.withdrawn if progress(vm, state, times(vm), now).cut_off),
        calm,
    )


def _rest_of(spec: LubanClusterSpec) -> Rest:
    """How the pool's VMs rest."""
    least = spec.pool.balloon.min
    return Rest(min(least.bytes, spec.template.spec.domain.memory.max.bytes) if least is not None else None)


def _hosts_gone(spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: float) -> frozenset[str]:
    """Hosts that the user took out of the spec, and that have been silent for GONE_SECONDS."""
    known = {host.name for host in spec.hosts}
    return frozenset(
        name
        for name, since in memory.silent.items()
        if name not in known and now - since >= GONE_SECONDS and not state.reachable(name)
    )


def state_after(state: State, steps: Steps, now: float) -> State:
    """The state as it will be when the VMs' own steps are taken."""
    vms = tuple([_advance(vm, steps.of[vm.name], now) for vm in state.vms])
    # Mostly nothing changes; then all that was derived from the state holds on.
    return state if all(map(is_, vms, state.vms)) else State(replace(state.observation, vms=vms))


def _advance(vm: VMRecord, step: Step, now: float) -> VMRecord:
    """The VM as its step leaves it."""
    if step is STAYS_READY:
        return vm
    deleted = any(isinstance(action, DeleteVM) for action in step.actions)
    leaving = now if vm.deleting_since is None and deleted else vm.deleting_since
    update = next((action for action in step.actions if isinstance(action, UpdateVM)), None)
    if update is None and (step.phase, leaving) == (vm.phase, vm.deleting_since):
        return vm
    if update is None:
        return replace(vm, phase=step.phase, deleting_since=leaving)
    return replace(vm, phase=step.phase, deleting_since=leaving, reason=update.reason, message=update.message)
