"""Which VMs a balancer should know, and how it should treat each."""

from __future__ import annotations

from collections.abc import Mapping

from luban.api.cluster import LubanClusterSpec
from luban.core.lifecycle import DRAIN_TIMEOUT
from luban.core.load_factors import adaptive_factors
from luban.core.model import Member, MemberState, VMRecord
from luban.core.state import State


def wanted_members(
    spec: LubanClusterSpec,
    state: State,
    phases: Mapping[str, str],
    leaving: frozenset[str],
    current: Mapping[str, Member],
) -> tuple[Member, ...]:
    """The members of a balancer, by name.

    `phases`: phase of each VM from this plan on. `leaving`: VMs that this plan deletes. `current`: members as
    published. A VM that still boots is listed as Disabled as soon as its address is known, so that letting it in
    later is a single cheap change.
    """
    states = {vm.name: member_state(vm, phases[vm.name], vm.name in leaving) for vm in state.vms}
    factors = _factors(spec, state, states, current)
    return tuple(
        Member(vm.name, address, vm.template.port, member, factors.get(vm.name, 1))
        for vm in sorted(state.vms, key=lambda vm: vm.name)
        if (member := states[vm.name]) is not None and (address := state.address(vm))
    )


def member_state(vm: VMRecord, phase: str, leaving: bool) -> MemberState | None:
    """How balancers treat a VM that enters `phase`; None: not at all."""
    out = leaving or vm.deleting_since is not None
    match phase:
        case "Provisioning" | "Booting":
            return None if out else "Disabled"
        case "Ready":
            return "Draining" if out else "Enabled"
        case "Draining":
            return "Disabled" if vm.reason == DRAIN_TIMEOUT else "Draining"
        case "Stopping":
            return "Disabled" if vm.was_ready else None
        case _:
            return None


def _factors(
    spec: LubanClusterSpec,
    state: State,
    states: Mapping[str, MemberState | None],
    current: Mapping[str, Member],
) -> dict[str, int]:
    if spec.balancer.load_factors == "Static":
        return {}
    enabled = [name for name, member in states.items() if member == "Enabled"]
    sessions = {name: state.observation.sessions.get(name) for name in enabled}
    # A member that was not enabled has no share yet that it could keep.
    known = {name: current[name].load_factor for name in enabled if _takes_requests(current.get(name))}
    return adaptive_factors(sessions, spec.scaling.sessions.max_per_vm, known)


def _takes_requests(member: Member | None) -> bool:
    return member is not None and member.state == "Enabled"
