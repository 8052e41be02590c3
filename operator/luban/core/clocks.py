"""Since when things are as they are, on the clock that nobody sets: since this process first saw them so.

Whatever waits (a drain, a grace period, a boot, a host that is silent) is counted from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from luban.api.cluster import LubanClusterSpec
from luban.api.vm import Phase
from luban.core.drain import closed
from luban.core.figures import Figures, since_ready
from luban.core.memory import ClusterMemory, Entered
from luban.core.model import BalancerReport, Observation, VMRecord
from luban.core.state import State
from luban.core.tier import lost_balancers, note_balancers

SETTLED_SECONDS = 10.0
"""So long after a balancer was away its good words on members are not believed."""
AWAY_SECONDS = 60.0
"""A host that was silent for so long and answers again may have been mended."""
NOTICED_SECONDS = 10.0
"""So long after a power button was pressed in vain it is noticed, however short the grace period is."""


def on_our_clock(
    spec: LubanClusterSpec, memory: ClusterMemory, observation: Observation, now: float
) -> tuple[ClusterMemory, State]:
    """Note what begins now, and give VMs with which something waits the time since which they are in their phase."""
    entered = entered_since(memory.entered, {vm.name: vm.phase for vm in observation.vms}, now)
    mute = {it.name: now for it in observation.balancers if not (it.reachable and it.ready)}
    mute = {name: at for name, at in memory.mute.items() if now - at < SETTLED_SECONDS} | mute
    tier = note_balancers(spec, memory.tier, observation, now)
    state = State(
        replace(
            observation,
            vms=tuple([vm if _is_settled(vm) else dated(vm, entered) for vm in observation.vms]),
            balancers=tuple(_doubted(it) if it.name in mute else it for it in observation.balancers),
            figures=_figures(observation, entered),
            lost_balancers=lost_balancers(tier, observation, now),
        )
    )
    noted = replace(
        memory,
        entered=entered,
        mute=mute,
        tier=tier,
        closed={
            vm.name: memory.closed.get(vm.name, now)
            for vm in state.withdrawn
            if vm.phase == "Draining" and closed(vm, state)
        },
        unheard={vm.name: at for vm in state.draining if (at := _unheard(vm, state, memory, now)) is not None},
        silent={host.name: memory.silent.get(host.name, now) for host in observation.hosts if not host.reachable},
    )
    return noted, state


def _figures(observation: Observation, entered: Mapping[str, Entered]) -> dict[str, Figures]:
    if not observation.figures:
        return {}
    ready = {vm.name: entered[vm.name].since for vm in observation.vms if vm.phase == "Ready"}
    return since_ready(observation.figures, ready)


def _is_settled(vm: VMRecord) -> bool:
    """Whether nothing waits for a time to pass with the VM."""
    return vm.phase == "Ready" and vm.deleting_since is None


def dated(vm: VMRecord, entered: Mapping[str, Entered]) -> VMRecord:
    """The VM with the time since which it is in its phase."""
    return replace(vm, phase_since=entered[vm.name].since)


def _doubted(balancer: BalancerReport) -> BalancerReport:
    """A balancer that was away has not checked all its members yet: what it calls healthy may be dead."""
    members = tuple(replace(it, healthy=None) if it.healthy else it for it in balancer.members)
    return replace(balancer, members=members)


def hosts_back(spec: LubanClusterSpec, memory: ClusterMemory, observation: Observation, now: float) -> bool:
    """Whether a host of the spec answers again that was away for so long that what failed meanwhile may work now.

    One that comes and goes remedies nothing.
    """
    answering = {host.name for host in observation.hosts if host.reachable} & {host.name for host in spec.hosts}
    return any(name in answering and now - since >= AWAY_SECONDS for name, since in memory.silent.items())


def entered_since(before: Mapping[str, Entered], vms: Mapping[str, Phase], now: float) -> dict[str, Entered]:
    """Since when each VM is in its phase. `vms`: by name, their phases."""
    return {
        name: known if (known := before.get(name)) is not None and known.phase == phase else Entered(phase, now)
        for name, phase in vms.items()
    }


def _unheard(vm: VMRecord, state: State, memory: ClusterMemory, now: float) -> float | None:
    """When the power button of a VM that stops was last known to have been pressed in vain; None: never.

    What fails once the grace period is over is something else.
    """
    if vm.phase != "Stopping":
        return None
    last = memory.unheard.get(vm.name)
    waited = now - (last if last is not None else vm.phase_since)
    failing = f"vm/{vm.name}" in state.observation.action_failures
    return now if failing and waited < max(NOTICED_SECONDS, vm.template.termination_grace_period_seconds) else last
