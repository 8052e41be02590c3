"""Which VMs a balancer should know, and how it should treat each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter

from luban.api.cluster import LubanClusterSpec
from luban.api.vm import Phase
from luban.core.balancers import Tier
from luban.core.load_factors import adaptive_factors
from luban.core.model import (
    Action,
    BalancerReport,
    Member,
    MemberState,
    PublishBalancer,
    RemoveBalancer,
    VMRecord,
)
from luban.core.seats import place
from luban.core.state import State
from luban.core.steps import Steps


def wanted_members(
    spec: LubanClusterSpec,
    state: State,
    steps: Steps,
    leaving: frozenset[str],
    current: Mapping[str, Member],
) -> tuple[Member, ...]:
    """The members of a balancer that has all VMs, by name.

    `steps`: what each VM does in this plan. `leaving`: VMs that this plan takes out of service. `current`: members as
    published. A VM that still boots, or is in the pool, is listed as Disabled as soon as its address is known, so that
    letting it in later is a single cheap change.
    """
    return _members(spec, state, _states(state, steps, leaving), current)


def _states(state: State, steps: Steps, leaving: frozenset[str]) -> dict[str, MemberState | None]:
    """How balancers treat each VM, those that it is attached to."""
    return {
        vm.name: "Enabled" if vm.name in steps.calm and vm.name not in leaving else _state(vm, steps, leaving)
        for vm in state.vms
    }


def _members(
    spec: LubanClusterSpec, state: State, states: Mapping[str, MemberState | None], current: Mapping[str, Member]
) -> tuple[Member, ...]:
    factors, addresses = _factors(spec, state, states, current), state.addresses
    return tuple(
        [
            _member(current.get(vm.name), vm, address, member, factors.get(vm.name, 1))
            for vm in sorted(state.vms, key=attrgetter("name"))
            if (member := states.get(vm.name)) is not None and (address := addresses.get(vm.name))
        ]
    )


def _member(current: Member | None, vm: VMRecord, address: str, state: MemberState, factor: int) -> Member:
    """The member as published, if it is the same: most are, and are made and compared for nothing."""
    port = vm.template.port
    if (
        current is not None
        and current.address == address
        and current.port == port
        and current.state == state
        and current.load_factor == factor
    ):
        return current
    return Member(vm.name, address, port, state, factor)


def _state(vm: VMRecord, steps: Steps, leaving: frozenset[str]) -> MemberState | None:
    phase = steps.of[vm.name].phase
    return member_state(vm, phase, leaving=vm.name in leaving, cut_off=vm.name in steps.cut_off)


def member_state(vm: VMRecord, phase: Phase, *, leaving: bool, cut_off: bool) -> MemberState | None:
    """How balancers treat a VM that enters `phase`; None: not at all."""
    out = leaving or vm.deleting_since is not None
    match phase:
        case "Provisioning" | "Booting" | "Paused" | "Warm" | "Resuming":
            return None if out else "Disabled"
        case "Ready":
            return "Draining" if out or vm.role == "Warm" else "Enabled"
        case "Draining":
            return "Disabled" if cut_off else "Draining"
        case "Stopping":
            return "Disabled" if vm.was_ready else None
        case "Pending" | "Failed" | "Lost":
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


def publications(
    spec: LubanClusterSpec,
    state: State,
    steps: Steps,
    leaving: frozenset[str] = frozenset(),
    *,
    desired: int = 0,
    tier: Tier | None = None,
) -> tuple[Action, ...]:
    """A write for every balancer whose ConfigMap says something else. `leaving`: VMs that this plan deletes.

    `desired`: until so many of our own answer, members stay that we do not know: VMs that a cluster of the same name
    left behind serve meanwhile. `tier`: the balancers, where there can be several.
    """
    states = _states(state, steps, leaving)
    placed = place(spec, state, tier, states, leaving) if tier is not None else {}
    return tuple(
        action
        for balancer in state.observation.balancers
        if (
            action := _publication(spec, state, balancer, placed.get(balancer.name, states), desired=desired, tier=tier)
        )
        is not None
    )


def _publication(
    spec: LubanClusterSpec,
    state: State,
    balancer: BalancerReport,
    states: Mapping[str, MemberState | None],
    *,
    desired: int,
    tier: Tier | None,
) -> Action | None:
    """What to write for one balancer; None: nothing. `states`: how it is to treat each VM."""
    published = state.observation.published.get(balancer.name)
    if tier is not None and balancer.name in tier.gone:
        return RemoveBalancer(balancer.name, "TierShrunk") if published is not None else None
    current = {member.name: member for member in published.members} if published else {}
    own = _members(spec, state, states, current)
    members = _with_strangers(own, current, balancer, state, len(state.answering) < desired)
    if published is None:
        return PublishBalancer(balancer.name, members, "NotPublished")
    if published.members != members:
        return PublishBalancer(balancer.name, members, "MembersChanged")
    if published.settings_version != state.observation.settings_version:
        return PublishBalancer(balancer.name, members, "SettingsChanged")
    return None


def _with_strangers(
    own: tuple[Member, ...], current: Mapping[str, Member], balancer: BalancerReport, state: State, needed: bool
) -> tuple[Member, ...]:
    """Our members and those of the ConfigMap that no LubanVM of ours stands for, by name.

    They are drained, not dropped, once nobody needs them; one whose domain has ended serves nobody and goes at once.
    """
    unknown = [current[name] for name in current.keys() - {vm.name for vm in state.vms}]
    strangers = [it for it in unknown if it.state != "Disabled" and it.address not in state.dead_addresses]
    busy = {it.name for it in balancer.members if not it.drained} if balancer.reachable else set(current)
    kept = [it for it in strangers if it.state == "Enabled" or it.name in busy]
    if not needed:
        kept = [replace(it, state="Draining") for it in kept]
    return tuple(sorted((*own, *kept), key=attrgetter("name"))) if kept else own
