"""The cluster's conditions and its state in one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luban.api.cluster import BondPolicy
from luban.api.cluster_status import Decision, Placement
from luban.core.model import BondObservation, ClusterPhase, ConditionState, VMRecord
from luban.core.placement import SOUND, UNKNOWN
from luban.core.state import State

MISSES_TOLERATED = 3
"""Readiness probes that a VM may miss in a row before the cluster says so."""

LONGEST_MESSAGE = 8192
"""Characters of a message that repeats what nodes said; the API takes 32,768."""
STRAY_REMEDY = "is removed within five minutes; to keep it, set spec.paused to true"
NO_ROOM = "no room for {} more; next VM: {}"
LEAVING = "once those that are leaving are gone"


def conditions_of(
    state: State,
    decision: Decision,
    desired: int,
    misses: dict[str, int],
    *,
    policy: BondPolicy = "Ignore",
    hosts: Sequence[str] = (),
    missing: int = 0,
    outdated: int = 0,
    placement: Placement | None = None,
    strays: Sequence[str] = (),
) -> tuple[ConditionState, ...]:
    """All conditions but SpecValid, which the runtime knows, in a stable order.

    `policy`, `hosts`: of the spec. `missing`: how many wanted VMs find no room. `outdated`: live VMs that must make
    way for others. `placement`: where the next would go.
    `strays`: domains that no LubanVM stands for, in words.
    """
    parts = (
        _hosts_reachable(state),
        _vms_healthy(state, misses, strays),
        _balancers_ready(state),
        _load_known(state),
        bonds_healthy(policy, hosts, state.observation.bonds),
    )
    return (
        _ready(state, decision, desired, outdated=outdated, no_room=_no_room(missing, placement), parts=parts),
        *parts,
        _at_maximum(decision),
    )


def phase_of(state: State, desired: int, conditions: tuple[ConditionState, ...]) -> ClusterPhase:
    """The state of a cluster that is neither paused nor being deleted."""
    if not state.serving:
        return "Pending"
    if any(it.status is False and it.type in {"HostsReachable", "VMsHealthy", "BalancersReady"} for it in conditions):
        return "Degraded"
    settled = len(state.serving) == desired and not state.starting and not state.draining
    return "Ready" if settled else "Progressing"


def _ready(
    state: State,
    decision: Decision,
    desired: int,
    *,
    outdated: int,
    no_room: str,
    parts: tuple[ConditionState, ...],
) -> ConditionState:
    if decision.reason == "Deleting":
        return ConditionState("Ready", False, "Deleting", decision.message)
    serving = len(state.serving)
    message = f"{serving} of {desired} VMs serve" + (f", {outdated} to be replaced" if outdated else "")
    if serving >= desired:
        return ConditionState("Ready", True, "AllServing", message)
    broken = next((it for it in parts if it.status is False and it.type not in {"LoadKnown", "BondsHealthy"}), None)
    if broken is not None:
        return ConditionState("Ready", False, broken.reason, f"{message}: {broken.message}")
    if no_room:
        return ConditionState("Ready", False, "NoRoom", f"{message}: {no_room}")
    return ConditionState("Ready", False, "Starting", message)


def _no_room(missing: int, placement: Placement | None) -> str:
    if missing <= 0:
        return ""
    return NO_ROOM.format(missing, placement.message if placement and not placement.host else LEAVING)


def _hosts_reachable(state: State) -> ConditionState:
    silent = [host for host in state.observation.hosts if not host.reachable]
    if not silent:
        return ConditionState("HostsReachable", True, "AllAnswer")
    message = "; ".join(f"{host.name}: {host.message}" for host in silent)
    return ConditionState("HostsReachable", False, "HostUnreachable", message)


def _vms_healthy(state: State, misses: dict[str, int], strays: Sequence[str]) -> ConditionState:
    failed = state.failed
    if failed:
        message = "; ".join(f"{vm.name} on {vm.host}: {vm.message}" for vm in failed)
        return ConditionState("VMsHealthy", False, failed[0].reason or "VMFailed", message)
    trying = [vm for vm in state.starting if vm.name in state.observation.provision_failures]
    if trying:
        return _failing(state, trying)
    if (stuck := _stuck(state, "vm/", "creation", "domain/")) is not None:
        return ConditionState("VMsHealthy", False, *stuck)
    silent = sorted(name for name, count in misses.items() if count >= MISSES_TOLERATED)
    if silent:
        message = f"{', '.join(silent)}: no answer to the readiness probe; httpd sends nothing there meanwhile"
        return ConditionState("VMsHealthy", False, "NotAnswering", message)
    if strays:
        message = f"{', '.join(strays)}: of this cluster, but no LubanVM stands for it, so it {STRAY_REMEDY}"
        return ConditionState("VMsHealthy", False, "StrayDomain", message)
    return ConditionState("VMsHealthy", True, "AllHealthy")


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


def _failing(state: State, vms: list[VMRecord]) -> ConditionState:
    failures = state.observation.provision_failures
    message = "; ".join(f"{vm.name} on {vm.host}: {failures[vm.name].message}" for vm in vms)
    return ConditionState("VMsHealthy", False, failures[vms[0].name].reason, message)


def _balancers_ready(state: State) -> ConditionState:
    if (stuck := _stuck(state, "balancer/")) is not None:
        return ConditionState("BalancersReady", False, *stuck)
    broken = [it for it in state.observation.balancers if not (it.reachable and it.ready)]
    if any(it.reachable and it.name not in state.observation.published for it in broken):
        # The very first tick: nobody has told the balancer anything yet.
        return ConditionState("BalancersReady", None, "NotPublishedYet", "its ConfigMap is being written")
    if not broken:
        return ConditionState("BalancersReady", True, "AllReady")
    message = "; ".join(f"{it.name}: {it.message or 'not ready yet'}" for it in broken)
    reason = "ConfigurationNotInForce" if all(it.reachable for it in broken) else "BalancerUnreachable"
    return ConditionState("BalancersReady", False, reason, message)


def _load_known(state: State) -> ConditionState:
    unknown = [vm.name for vm in state.serving if vm.name not in state.observation.sessions]
    if not unknown:
        return ConditionState("LoadKnown", True, "AllKnown")
    return ConditionState("LoadKnown", False, "SessionsUnknown", f"sessions of {', '.join(unknown)} are unknown")


def bonds_healthy(policy: BondPolicy, hosts: Sequence[str], bonds: Mapping[str, BondObservation]) -> ConditionState:
    """Whether every host's bond is sound; Unknown if nobody knows of one and none is known to be bad."""
    if policy == "Ignore":
        return ConditionState("BondsHealthy", None, "Ignored", "spec.bondPolicy is Ignore")
    known = [(host, bonds[host]) for host in hosts if host in bonds]
    bad = [(host, bond) for host, bond in known if bond.verdict not in SOUND and bond.verdict != UNKNOWN]
    if bad:
        message = "; ".join(f"{host}: {bond.message or bond.verdict}" for host, bond in bad)[:LONGEST_MESSAGE]
        return ConditionState("BondsHealthy", False, bad[0][1].verdict, message)
    silent = [host for host in hosts if host not in bonds]
    unknown = [f"{host}: {bond.message}" for host, bond in known if bond.verdict == UNKNOWN]
    if silent or unknown:
        words = [f"{', '.join(silent)}: no node agent has reported"] if silent else []
        reason = "BondUnknown" if unknown else "NoReport"
        return ConditionState("BondsHealthy", None, reason, "; ".join([*words, *unknown])[:LONGEST_MESSAGE])
    return ConditionState("BondsHealthy", True, "AllHealthy")


def _at_maximum(decision: Decision) -> ConditionState:
    reached = decision.verdict == "AtMaximum"
    return ConditionState(
        "AtMaximum",
        reached,
        decision.reason if reached else "BelowMaximum",
        decision.message if reached else "",
    )
