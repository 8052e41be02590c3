"""`kubectl luban explain`: why the operator does what it does, from what it wrote down itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from luban.api.cluster import LubanCluster
from luban.api.cluster_status import HostStatus
from luban.api.conditions import CONDITIONS
from luban.api.template import rolls_out
from luban.api.vm import LubanVM
from luban.errors import UnreadableObject

WIDTH = 12
"""Characters before the text: the headings' column."""
GOOD: Mapping[str, str] = {name: kind.good for name, kind in CONDITIONS.items()}


def explain_objects(cluster: Mapping[str, Any], vms: Iterable[Mapping[str, Any]]) -> str:
    """The same from objects of the API server. A spec that cannot be read leaves what the status says of it."""
    try:
        text = explain(LubanCluster.parse(cluster), _readable(vms))
    except ValueError as error:
        conditions = cluster.get("status", {}).get("conditions", ())
        said = [
            f"{it.get('type')} is {it.get('status')} ({it.get('reason')}): {it.get('message')}" for it in conditions
        ]
        heading = f"LubanCluster {cluster['metadata']['name']} cannot be read by this version: {error}"
        text = "\n".join([heading, *_section("Conditions", said)])
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _readable(vms: Iterable[Mapping[str, Any]]) -> Iterator[LubanVM]:
    """LubanVMs that this version can read; of the others the condition VMsHealthy tells."""
    for vm in vms:
        with suppress(UnreadableObject):
            yield LubanVM.parse(vm)


def explain(cluster: LubanCluster, vms: Iterable[LubanVM]) -> str:
    """The last decision, where the next VM would go, why each VM is where it is, and what is not as it should be."""
    return "\n".join(_lines(cluster, list(vms)))


def _lines(cluster: LubanCluster, vms: list[LubanVM]) -> Iterator[str]:
    status = cluster.status
    yield f"LubanCluster {cluster.metadata.namespace}/{cluster.metadata.name}: {status.phase}, {_counts(cluster)}"
    if status.observed_generation < cluster.metadata.generation:
        yield from _section("Outdated", ["the operator has not looked at the latest spec yet: is it running?"])
    yield from _section("Decision", _decision(cluster))
    yield from _section("Changes", _changes(cluster, vms))
    yield from _section("Next VM", _next(cluster))
    yield from _section("Bonds", (_bond(host) for host in status.hosts if host.bond is not None))
    yield from _section("Balancers", _balancers(cluster))
    yield from _section("VMs", (_vm(vm) for vm in sorted(vms, key=lambda vm: vm.metadata.name)))
    yield from _section("Amiss", _amiss(cluster))


def _counts(cluster: LubanCluster) -> str:
    vms = cluster.status.vms
    others = f"{vms.starting} starting, {vms.draining} leaving, {vms.paused} paused, {vms.failed} failed"
    pool = f", {vms.warm} of {cluster.spec.pool.size} warm" if cluster.spec.pool.size or vms.warm else ""
    return f"{vms.serving} of {vms.desired} VMs answering, {others}{pool}"


def _section(heading: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{heading if number == 0 else '':{WIDTH}}{line}"


def _decision(cluster: LubanCluster) -> Iterator[str]:
    decision = cluster.status.decision
    if decision is None:
        yield "none yet"
        return
    judged = decision.inputs or decision.metrics
    looked = f" (the load is looked at every {cluster.spec.scaling.interval})" if judged else ""
    yield f"{decision.verdict} ({decision.reason}) since {decision.at}: {decision.message}{looked}"
    for load in decision.inputs:
        known = f"{load.sessions} sessions, {load.percent} %" if load.sessions is not None else "sessions unknown"
        yield f"  {load.vm}: {known}"
    for metric in decision.metrics:
        known = "unknown" if metric.value is None else f"{metric.value} %"
        yield f"  {metric.name}: {known}" + f", not known of {metric.unknown}" * (metric.unknown > 0)
    if decision.eligible_at is not None:
        yield f"  to be carried out at {decision.eligible_at} at the earliest"


def _changes(cluster: LubanCluster, vms: Iterable[LubanVM]) -> Iterator[str]:
    """VMs that are on their way out, or are to be replaced, and why."""
    halted = "; spec.paused is set, so it stays until that is taken back" if cluster.spec.paused else ""
    for vm in sorted(vms, key=lambda vm: vm.metadata.name):
        if vm.metadata.deletion_timestamp is not None:
            yield f"{vm.metadata.name} was asked to leave{halted}"
        elif why := _why_replaced(cluster, vm):
            yield f"{vm.metadata.name} is to be replaced: {why}{halted}"


def _why_replaced(cluster: LubanCluster, vm: LubanVM) -> str:
    host = next((host for host in cluster.spec.hosts if host.name == vm.spec.host), None)
    if host is None:
        return f"{vm.spec.host} left spec.hosts"
    if host.cordoned:
        return f"{host.name} is cordoned"
    return "spec.template is another" if rolls_out(vm.spec.template, cluster.spec.template.spec) else ""


REASONS = {
    "FewestVMs": "the fewest VMs decide",
    "HostBelowMinimum": "its vms.min decides",
    "NoRecentFailure": "VMs failed on the others lately",
    "OnlyHost": "no other host can take one",
    "BetterBond": "the bond decides",
    "NoRoom": "no host can take one",
}


def _next(cluster: LubanCluster) -> Iterator[str]:
    placement = cluster.status.placement
    if placement is not None:
        yield f"{REASONS[placement.reason]} (bondPolicy {cluster.spec.bond_policy}): {placement.message}"


def _bond(host: HostStatus) -> str:
    bond = host.bond
    if bond is None:
        return f"{host.name}: no report"
    what = f" {bond.name} {bond.mode}, {bond.active} of {bond.total} ports carry traffic" if bond.name else ""
    since = f", since {bond.since}" if bond.since else ""
    return f"{host.name}: {bond.verdict}{since}{':' if what else ''}{what}{f'; {bond.message}' if bond.message else ''}"


def _balancers(cluster: LubanCluster) -> Iterator[str]:
    """How many there should be and why, where there can be several, and how many VMs each has."""
    tier = cluster.status.tier
    if tier is None:
        return
    yield f"{tier.desired} wanted ({tier.reason}): {tier.message}"
    for it in cluster.status.balancers:
        yield f"  {it.name}: {'ready' if it.ready else 'not ready'}, {it.members} VMs"


def _vm(vm: LubanVM) -> str:
    why = f"; placed: {vm.spec.placement}" if vm.spec.placement else ""
    reason = f" ({vm.status.reason})" if vm.status.reason else ""
    leaving = ", asked to leave" if vm.metadata.deletion_timestamp is not None else ""
    pool = ", in the pool" if vm.spec.role == "Warm" else ""
    return f"{vm.metadata.name} on {vm.spec.host}: {vm.status.phase}{reason}{leaving}{pool}{why}"


def _amiss(cluster: LubanCluster) -> Iterator[str]:
    for condition in cluster.status.conditions:
        good = GOOD.get(condition.type, "True")
        without_effect = condition.reason == "ReplicasIgnored"
        if without_effect or (condition.status != good and condition.reason != "Ignored"):
            yield f"{condition.type} is {condition.status} ({condition.reason}): {condition.message}"
