"""The balancers of a cluster: how many there should be, which of them can be counted on, and who gets which VMs.

Balancers come and go at the end of the row, as the Pods of a StatefulSet do. One that leaves keeps its VMs until the
others serve them all and its Pod has ended, so that no client's connection is cut.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from luban.api.cluster import LubanClusterSpec
from luban.api.names import ordinal_of
from luban.core.attach import Attached, AttachmentRule, Front, TierNeed, attach, balancers_needed, violations
from luban.core.balancers import EnsureBalancers, Tier
from luban.core.memory import ClusterMemory, TierMemory
from luban.core.model import BalancerReport, Observation
from luban.core.state import State

LOST_SECONDS = 10.0
"""A balancer that has not served for so long is not counted on: its VMs are attached to others."""


def rule_of(spec: LubanClusterSpec) -> AttachmentRule:
    """How many balancers a VM shall have, and a balancer VMs."""
    attachment = spec.balancer.attachment
    return AttachmentRule(attachment.p if attachment.mode == "Cross" else 1, attachment.d_max)


def note_balancers(
    spec: LubanClusterSpec, memory: TierMemory | None, observation: Observation, now: float
) -> TierMemory | None:
    """Note which balancers serve now. None: there is one, and no other is left of an earlier spec."""
    several = any(ordinal_of(balancer.name) for balancer in observation.balancers)
    if spec.balancer.attachment.mode == "Single" and not several:
        return None
    before = memory or TierMemory()
    known = {balancer.name for balancer in observation.balancers}
    serving = {it.name: now for it in observation.balancers if it.reachable and it.ready}
    return replace(before, seen={name: at for name, at in before.seen.items() if name in known} | serving)


def lost_balancers(memory: TierMemory | None, observation: Observation, now: float) -> frozenset[str]:
    """Balancers that say nothing and have not served for long, if another one serves."""
    if memory is None:
        return frozenset()
    usable = _usable(memory, now)
    silent = {balancer.name for balancer in observation.balancers if not balancer.reachable}
    return frozenset(silent - usable) if usable else frozenset()


def _usable(memory: TierMemory, now: float) -> frozenset[str]:
    return frozenset(name for name, at in memory.seen.items() if now - at < LOST_SECONDS)


def tier_of(
    spec: LubanClusterSpec, state: State, memory: ClusterMemory, vms: int, now: float
) -> tuple[Tier | None, TierMemory | None]:
    """The balancers as they should be, and what is to be remembered. `vms`: how many VMs there are or shall be.

    None where there is one balancer.
    """
    if memory.tier is None:
        return None, None
    usable, names = _usable(memory.tier, now), [balancer.name for balancer in state.observation.balancers]
    need = _need(spec, memory.tier, usable, names, vms)
    remembered = _sized(spec, memory.tier, need, names, now)
    leaving = frozenset(name for name in names if ordinal_of(name) >= remembered.size)
    if need.count < remembered.size:
        need = TierNeed(need.count, "Shrinking", f"{need.message}; so many are left once fewer have done for a while")
    tier = Tier(
        size=remembered.size,
        replicas=remembered.size,
        reason=need.reason,
        message=need.message,
        usable=usable - leaving,
        starting=frozenset(names) - memory.tier.seen.keys() - leaving if usable else frozenset(),
        leaving=leaving,
        gone=frozenset(
            it.name for it in state.observation.balancers if it.name in leaving - usable and not it.reachable
        ),
    )
    tier = replace(tier, violations=_violations(spec, state, tier))
    if leaving and not _handed_over(spec, state, tier):
        tier = replace(tier, replicas=1 + max(map(ordinal_of, leaving)))
    return tier, remembered


def _need(
    spec: LubanClusterSpec, memory: TierMemory, usable: Collection[str], names: Collection[str], vms: int
) -> TierNeed:
    lost = [name for name in names if name in memory.seen and name not in usable and ordinal_of(name) < memory.size]
    replicas = spec.balancer.replicas
    return balancers_needed(vms, len(lost) if usable else 0, rule_of(spec), replicas.min, replicas.max)


def _sized(
    spec: LubanClusterSpec, memory: TierMemory, need: TierNeed, names: Collection[str], now: float
) -> TierMemory:
    """How many there should be: more at once; fewer one by one, each when the last has left, once fewer have done for
    as long as VMs wait before they are removed."""
    size = memory.size or max(need.count, 1 + max(map(ordinal_of, names), default=0))
    if need.count >= size:
        return replace(memory, size=need.count, above_since=None)
    since = memory.above_since if memory.above_since is not None else now
    over = now - since >= spec.scaling.behavior.scale_down.stabilization_window.seconds
    above_maximum = size > spec.balancer.replicas.max
    one_leaves = any(ordinal_of(name) >= size for name in names)
    fewer = (over or above_maximum) and not one_leaves
    return replace(memory, size=size - 1 if fewer else size, above_since=since)


def _violations(spec: LubanClusterSpec, state: State, tier: Tier) -> dict[str, int]:
    """Of the VMs that serve and the balancers that can be counted on."""
    ready = {vm.name for vm in state.ready if vm.name not in state.reported_sick}
    sent = {it.name: state.sent_to(it) for it in state.observation.balancers if it.name in tier.usable}
    vms = {name: frozenset(it for it, found in sent.items() if name in found) for name in ready}
    return violations(vms, {name: len(found & ready) for name, found in sent.items()}, rule_of(spec))


def _handed_over(spec: LubanClusterSpec, state: State, tier: Tier) -> bool:
    """Whether those that stay send requests to every VM that one of those that leave does."""
    wanted = min(rule_of(spec).p, len(tier.usable))
    if not wanted:
        return False
    sent = {it.name: state.sent_to(it) for it in state.observation.balancers}
    others = frozenset().union(*(sent[name] for name in tier.leaving)) & {vm.name for vm in state.ready}
    return all(sum(name in sent[it] for it in tier.usable) >= wanted for name in others)


def ensured(observation: Observation, tier: Tier | None) -> tuple[EnsureBalancers, ...]:
    """What to do so that the balancers' Pods are as they should be."""
    found, replicas = observation.balancer_objects, tier.replicas if tier is not None else 1
    if found is None or (found.wanted, replicas) == (found.version, found.replicas):
        return ()
    reason = "BalancersScaled" if found.wanted == found.version else "BalancersChanged"
    return (EnsureBalancers(replicas, found.wanted, reason if found.version else "BalancersMissing"),)


def attachments(spec: LubanClusterSpec, state: State, tier: Tier, vms: Mapping[str, str]) -> Attached:
    """VMs of each balancer that can be counted on; if none can, of each that stays. `vms`: by name, the host of each.

    Those that are missing here keep what they have.
    """
    rule, staying = rule_of(spec), [it for it in state.observation.balancers if it.name not in tier.leaving]
    fronts = {it.name: _front(spec, state, it, vms.keys()) for it in staying}
    usable = [it for name, it in fronts.items() if name in tier.usable]
    return attach(vms, usable, rule) if usable else _unheard(vms, list(fronts.values()), rule)


def _unheard(vms: Mapping[str, str], fronts: Sequence[Front], rule: AttachmentRule) -> Attached:
    """While no balancer says what it does, any that has VMs may serve them: those stay, and new ones join them."""
    told = [replace(it, sending=it.attached) for it in fronts if it.attached]
    if not told:
        return attach(vms, fronts, rule)
    wanted = attach(vms, told, rule)
    new = vms.keys() - frozenset().union(*(it.attached for it in told))
    return {
        it.name: it.attached.union(sorted(wanted[it.name] & new)[: max(0, rule.d_max - len(it.attached))])
        for it in told
    }


def _front(spec: LubanClusterSpec, state: State, balancer: BalancerReport, vms: Collection[str]) -> Front:
    attached = frozenset(
        [name for name, told in told_of(state, balancer).items() if told != "Draining" and name in vms]
    )
    host = next((it.name for it in spec.hosts if balancer.node and balancer.node == (it.node_name or it.name)), "")
    return Front(balancer.name, host, attached, state.sent_to(balancer) & attached)


def told_of(state: State, balancer: BalancerReport) -> dict[str, str]:
    """By VM that a balancer's ConfigMap names: how it is to be treated. Without a ConfigMap, how the balancer does."""
    published = state.observation.published.get(balancer.name)
    members = published.members if published is not None else balancer.members
    return {member.name: member.state for member in members}
