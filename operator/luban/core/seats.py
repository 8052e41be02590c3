"""How each balancer of several is to treat each VM: those attached to it, those moved elsewhere, those that leave."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from luban.api.cluster import LubanClusterSpec
from luban.core.balancers import Tier
from luban.core.model import BalancerReport, MemberState
from luban.core.state import State
from luban.core.tier import attachments, told_of

States = Mapping[str, MemberState | None]
"""By VM: how it is to be treated; None: not at all."""


def place(
    spec: LubanClusterSpec, state: State, tier: Tier, states: States, leaving: Collection[str]
) -> dict[str, States]:
    """By balancer. `states`: as every balancer of the VM shall treat it. `leaving`: VMs that this plan deletes."""
    out = {vm.name for vm in state.draining}.union(leaving)
    addresses = state.addresses
    vms = {
        vm.name: vm.host
        for vm in state.vms
        if states[vm.name] is not None and vm.name not in out and addresses.get(vm.name)
    }
    attached = attachments(spec, state, tier, vms)
    return {it.name: _of(it, state, states, attached.get(it.name), out) for it in state.observation.balancers}


def _of(
    balancer: BalancerReport, state: State, states: States, attached: frozenset[str] | None, out: Collection[str]
) -> States:
    """`attached`: VMs that it shall have; None: it keeps those that it has."""
    told = told_of(state, balancer)
    return {
        name: wanted if attached is None or name in out or name in attached else _let_go(balancer, state, name, told)
        for name, wanted in states.items()
        if name in told or (attached is not None and name in attached)
    }


def _let_go(balancer: BalancerReport, state: State, vm: str, told: Mapping[str, str]) -> MemberState | None:
    """A VM that other balancers have now: it finishes here what is in flight, however long that takes."""
    if told[vm] == "Disabled":
        return None
    return None if told[vm] == "Draining" and _has_finished(balancer, state, vm) else "Draining"


def _has_finished(balancer: BalancerReport, state: State, vm: str) -> bool:
    """Whether a balancer that was told to drain a VM has nothing in flight on it, as it says itself."""
    published = state.observation.published.get(balancer.name)
    if not balancer.reachable or published is None or published.version != balancer.applied:
        return False
    return state.is_drained_in(balancer, vm)
