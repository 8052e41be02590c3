"""The cluster's conditions and its state in one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from luban.api.cluster import BondPolicy
from luban.api.cluster_status import Decision, Placement
from luban.api.conditions import ConditionName
from luban.api.host import BondVerdict
from luban.core.balancers import Tier
from luban.core.memory import Setback
from luban.core.model import (
    BondObservation,
    ClusterPhase,
    ConditionState,
    HostObservation,
    VMRecord,
)
from luban.core.placement import SOUND, UNKNOWN
from luban.core.state import State

MISSES_TOLERATED = 3
"""Readiness probes that a VM may miss in a row before the cluster says so."""

NO_BOND: BondVerdict = "None"

LONGEST_MESSAGE = 8192
"""Characters of a message that repeats what nodes said; the API takes 32,768."""
STRAY_REMEDY = (
    "is removed after five minutes, and once no balancer sends it requests; to keep it, set spec.paused to true"
)
EXPLAIN_READY: frozenset[ConditionName] = frozenset({"HostsAllowed", "HostsReachable", "VMsHealthy", "BalancersReady"})
"""The first of these that is False is why VMs are missing; each makes the cluster Degraded."""
NO_ROOM = "no room for {} more; next VM: {}"
LEAVING = "once those that are leaving are gone"


@dataclass(frozen=True)
class PoolSituation:
    """How full the pool is."""

    size: int
    """spec.pool.size."""
    warm: int
    """VMs that can be taken at once."""
    no_room: str
    """Why no host can take a VM that is missing; empty: one can, or it is not time yet."""


@dataclass(frozen=True)
class Situation:
    """What the conditions are about. Nothing has a default: what is not filled in would read as all good."""

    state: State
    decision: Decision
    desired: int
    misses: Mapping[str, int]
    """By VM: readiness probes missed in a row."""
    policy: BondPolicy
    hosts: tuple[str, ...]
    """Of the spec."""
    missing: int
    """How many wanted VMs are not being made."""
    outdated: int
    """Live VMs that must make way for others."""
    placement: Placement | None
    """Where the next VM would go."""
    strays: tuple[str, ...]
    """Domains that no LubanVM stands for, in words."""
    setbacks: Mapping[str, Setback]
    """By cause: what fails again and again."""
    pool: PoolSituation | None
    """How full the pool is; None: there is none."""
    paused: bool
    """Whether the user wants nothing to be done (spec.paused)."""
    unmeasured: str | None
    """Metrics of the policy that are unknown, and of whom, in words; empty: none; None: it looks at sessions alone."""
    tier: Tier | None
    """The balancers, where there can be several."""


def conditions_of(it: Situation) -> tuple[ConditionState, ...]:
    """All conditions but those that the runtime adds (SpecValid, HostsAllowed, Reconciled), in a stable order."""
    parts = (
        _hosts_reachable(it.state),
        _vms_healthy(it),
        _balancers_ready(it.state, it.tier),
        _load_known(it.state, it.unmeasured),
        bonds_healthy(it.policy, it.hosts, it.state.observation.bonds),
    )
    pool = () if it.pool is None else (_pool_filled(it.pool, it.setbacks),)
    return (_ready(it, parts), *parts, _at_maximum(it.decision, it.placement), *pool)


def _pool_filled(it: PoolSituation, setbacks: Mapping[str, Setback]) -> ConditionState:
    message = f"{it.warm} of {it.size} VMs are warm"
    if it.warm >= it.size:
        return ConditionState("PoolFilled", True, "Filled", message)
    if it.no_room:
        return ConditionState("PoolFilled", False, "NoRoom", f"{message}: {it.no_room}"[:LONGEST_MESSAGE])
    if any(setback.count > 1 for setback in setbacks.values()):
        return ConditionState("PoolFilled", False, "BackingOff", f"{message}{_patience(setbacks)}")
    return ConditionState("PoolFilled", None, "Filling", f"{message}; it is filled once all others serve")


def phase_of(state: State, desired: int, conditions: tuple[ConditionState, ...]) -> ClusterPhase:
    """The state of a cluster that is neither paused nor being deleted."""
    if not state.serving:
        return "Pending"
    if any(it.status is False and it.type in EXPLAIN_READY for it in (hosts_allowed(state), *conditions)):
        return "Degraded"
    if not state.draining and any((it.type, it.reason) == ("Ready", "NoRoom") for it in conditions):
        # Nothing is on its way that would change it.
        return "Degraded"
    settled = len(state.answering) == desired and not state.starting and not state.draining
    return "Ready" if settled else "Progressing"


def _ready(it: Situation, parts: tuple[ConditionState, ...]) -> ConditionState:
    """Who answers counts, not who is called Ready."""
    if it.decision.reason == "Deleting":
        return ConditionState("Ready", False, "Deleting", it.decision.message)
    answering = len(it.state.answering)
    message = f"{answering} of {it.desired} VMs answer" + (f", {it.outdated} to be replaced" if it.outdated else "")
    if answering >= it.desired:
        return ConditionState("Ready", True, "AllServing", message)
    if it.paused:
        why = "spec.paused is set: nothing is made, let go or replaced, nor is what somebody asked to leave"
        return ConditionState("Ready", False, "Paused", f"{message}; {why}")
    explaining = (hosts_allowed(it.state), *parts)
    broken = next((one for one in explaining if one.status is False and one.type in EXPLAIN_READY), None)
    if broken is not None:
        return ConditionState("Ready", False, broken.reason, f"{message}: {broken.message}")
    if it.missing > 0 and not it.setbacks:
        return ConditionState("Ready", False, "NoRoom", f"{message}: {_no_room(it.missing, it.placement)}")
    return ConditionState("Ready", False, "Starting", message)


def _no_room(missing: int, placement: Placement | None) -> str:
    return NO_ROOM.format(missing, placement.message if placement and not placement.host else LEAVING)


def hosts_allowed(state: State) -> ConditionState:
    """Whether the cluster may use all of its hosts; the reason is that of the first one that it may not."""
    refused = [(host.name, host.refusal) for host in state.observation.hosts if host.refusal is not None]
    if not refused:
        return ConditionState("HostsAllowed", True, "AllAllowed")
    message = "; ".join(f"{name}: {refusal.message}" for name, refusal in refused)[:LONGEST_MESSAGE]
    return ConditionState("HostsAllowed", False, refused[0][1].reason, message)


def is_silent(host: HostObservation) -> bool:
    """Whether a host was asked and does not answer. One that may not be used and has no VM is not asked."""
    return not host.reachable and (host.refusal is None or bool(host.message))


def _hosts_reachable(state: State) -> ConditionState:
    silent = [host for host in state.observation.hosts if is_silent(host)]
    if not silent:
        return ConditionState("HostsReachable", True, "AllAnswer")
    message = "; ".join(f"{host.name}: {host.message}" for host in silent)
    return ConditionState("HostsReachable", False, "HostUnreachable", message)


def _vms_healthy(it: Situation) -> ConditionState:
    """The first that is wrong, most telling first."""
    state = it.state
    if state.failed:
        message = "; ".join(f"{vm.name} on {vm.host}: {vm.message}" for vm in state.failed)
        return _unhealthy(state.failed[0].reason or "VMFailed", f"{message}{_patience(it.setbacks)}")
    if state.paused:
        message = "; ".join(f"{vm.name}: {vm.message}" for vm in state.paused)
        return _unhealthy("DomainPaused", message)
    trying = [vm for vm in state.starting if vm.name in state.observation.provision_failures]
    if trying:
        return _failing(state, trying)
    if (stuck := _stuck(state, "vm/", "creation", "domain/") or _unreadable(state)) is not None:
        return _unhealthy(*stuck)
    again = [cause for cause, setback in sorted(it.setbacks.items()) if setback.count > 1]
    if again:
        return _unhealthy("BackingOff", f"VMs fail again and again: {', '.join(again)}{_patience(it.setbacks)}")
    return _answers(it)


def _answers(it: Situation) -> ConditionState:
    silent = sorted({name for name, count in it.misses.items() if count >= MISSES_TOLERATED} | it.state.not_answering)
    if silent:
        message = f"{', '.join(silent)}: no answer to the readiness probe; httpd sends nothing there meanwhile"
        return _unhealthy("NotAnswering", message)
    if it.strays:
        message = f"{', '.join(it.strays)}: of this cluster, but no LubanVM stands for it, so it {STRAY_REMEDY}"
        return _unhealthy("StrayDomain", message)
    return ConditionState("VMsHealthy", True, "AllHealthy")


def _unhealthy(reason: str, message: str) -> ConditionState:
    return ConditionState("VMsHealthy", False, reason, message)


def _patience(setbacks: Mapping[str, Setback]) -> str:
    """How often it was tried in vain, in words that change as rarely as that."""
    count = max((it.count for it in setbacks.values()), default=0)
    return f"; failed {count} times in a row, so the next try waits; a change of the spec tries at once" * (count > 1)


def _stuck(state: State, *kinds: str) -> tuple[str, str] | None:
    """Reason and message of actions that will not succeed until the user does something; None: there are none."""
    found = {
        about: trouble
        for about, trouble in sorted(state.observation.action_failures.items())
        if trouble.permanent and about.startswith(kinds)
    }
    if not found:
        return None
    message = "; ".join(f"{about}: {trouble.message}" for about, trouble in found.items())
    return next(iter(found.values())).reason, message


def _unreadable(state: State) -> tuple[str, str] | None:
    """Reason and message of LubanVMs that cannot be read; None: there are none."""
    found = state.observation.unreadable
    return ("VMUnreadable", "; ".join(vm.message for vm in found)) if found else None


def _failing(state: State, vms: list[VMRecord]) -> ConditionState:
    failures = state.observation.provision_failures
    message = "; ".join(f"{vm.name} on {vm.host}: {failures[vm.name].message}" for vm in vms)
    return ConditionState("VMsHealthy", False, failures[vms[0].name].reason, message)


def _balancers_ready(state: State, tier: Tier | None) -> ConditionState:
    if (stuck := _stuck(state, "balancer/")) is not None:
        return ConditionState("BalancersReady", False, *stuck)
    leaving, starting = (tier.leaving, tier.starting) if tier is not None else (frozenset(), frozenset())
    broken = [it for it in state.observation.balancers if not (it.reachable and it.ready) and it.name not in leaving]
    if broken and all(it.name in starting for it in broken):
        names = ", ".join(it.name for it in broken)
        return ConditionState("BalancersReady", None, "BalancersStarting", f"{names}: not there yet; others serve")
    if any(it.reachable and it.name not in state.observation.published for it in broken):
        # The very first tick: nobody has told the balancer anything yet.
        return ConditionState("BalancersReady", None, "NotPublishedYet", "its ConfigMap is being written")
    if not broken:
        return ConditionState("BalancersReady", True, "AllReady")
    message = "; ".join(f"{it.name}: {it.message or 'not ready yet'}" for it in broken)
    reason = "ConfigurationNotInForce" if all(it.reachable for it in broken) else "BalancerUnreachable"
    return ConditionState("BalancersReady", False, reason, message)


def _load_known(state: State, unmeasured: str | None) -> ConditionState:
    unknown = [vm.name for vm in state.serving if vm.name not in state.observation.sessions]
    if state.serving and not state.answering:
        return ConditionState("LoadKnown", False, "NothingAnswers", "no VM answers, so nobody knows the load")
    if unmeasured:
        return ConditionState("LoadKnown", False, "MetricUnknown", unmeasured[:LONGEST_MESSAGE])
    if not unknown or unmeasured is not None:
        return ConditionState("LoadKnown", True, "AllKnown")
    return ConditionState("LoadKnown", False, "SessionsUnknown", f"sessions of {', '.join(unknown)} are unknown")


def bonds_healthy(policy: BondPolicy, hosts: Sequence[str], bonds: Mapping[str, BondObservation]) -> ConditionState:
    """Whether every host's bond is sound; Unknown if nobody knows of one and none is known to be bad."""
    if policy == "Ignore":
        return ConditionState("BondsHealthy", None, "Ignored", "spec.bondPolicy is Ignore")
    known = [(host, bonds[host]) for host in hosts if host in bonds]
    bad = [(host, bond) for host, bond in known if bond.verdict not in SOUND and bond.verdict != UNKNOWN]
    if policy == "Require":
        bad += [(host, bond) for host, bond in known if bond.verdict == NO_BOND]
    if bad:
        message = "; ".join(f"{host}: {_of_bond(bond, policy)}" for host, bond in bad)[:LONGEST_MESSAGE]
        return ConditionState("BondsHealthy", False, bad[0][1].verdict, message)
    silent = [host for host in hosts if host not in bonds]
    unknown = [f"{host}: {bond.message}" for host, bond in known if bond.verdict == UNKNOWN]
    if silent or unknown:
        words = [f"{', '.join(silent)}: no node agent has reported"] if silent else []
        reason = "BondUnknown" if unknown else "NoReport"
        return ConditionState("BondsHealthy", None, reason, "; ".join([*words, *unknown])[:LONGEST_MESSAGE])
    return ConditionState("BondsHealthy", True, "AllHealthy")


def _of_bond(bond: BondObservation, policy: BondPolicy) -> str:
    words = bond.message or bond.verdict
    if policy == "Require" and bond.verdict == NO_BOND:
        return f"{words}, and bondPolicy Require places no VM there: name one in hosts[].bond, or take Prefer"
    return words


def _at_maximum(decision: Decision, placement: Placement | None) -> ConditionState:
    if decision.verdict != "AtMaximum":
        return ConditionState("AtMaximum", False, "BelowMaximum")
    nowhere = decision.reason == "NoHostHasRoom" and placement is not None and not placement.host
    why = f": {placement.message}" if nowhere and placement is not None else ""
    return ConditionState("AtMaximum", True, decision.reason, f"{decision.message}{why}")
