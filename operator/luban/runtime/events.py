"""Kubernetes Events, all of them made here, and only on transitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from luban.api.cluster import LubanCluster
from luban.api.cluster_status import LubanClusterStatus
from luban.api.conditions import CONDITIONS, Status
from luban.api.reasons import in_words
from luban.core.model import Action, DeleteVM, EnsureDomain, Failure, UpdateVM
from luban.core.placement import SOUND
from luban.errors import without_host
from luban.runtime.apply import Outcome
from luban.runtime.carry_out import host_of

WARNING_WHEN: Mapping[str, Status | None] = {name: kind.warning for name, kind in CONDITIONS.items()}
"""Status of each condition that deserves a Warning; None: never, the other conditions say why."""
GOOD = {"False": "True", "True": "False"}
SCALINGS = frozenset({"ScaleUp", "ScaleDown"})
VM_WARNINGS = frozenset({"Failed", "Lost"})


@dataclass(frozen=True)
class Event:
    """An Event about a LubanCluster or a LubanVM."""

    kind: Literal["LubanCluster", "LubanVM"]
    name: str
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    series: str = ""
    """Not empty: the same once more is another count of this one, even in other words."""


def cluster_events(cluster: LubanCluster, before: LubanClusterStatus, after: LubanClusterStatus) -> Iterator[Event]:
    """What changed between two statuses of a cluster."""
    decision = after.decision
    if decision is not None and decision.verdict in SCALINGS and decision != before.decision:
        yield _about_cluster(cluster, "Normal", decision.verdict, f"{decision.reason}: {decision.message}")
    old = {condition.type: condition for condition in before.conditions}
    for condition in after.conditions:
        last = old.get(condition.type)
        bad = WARNING_WHEN.get(condition.type)
        turned = last is None or (last.status, last.reason) != (condition.status, condition.reason)
        if turned and condition.status == bad:
            yield _about_cluster(cluster, "Warning", condition.reason, condition.message)
        elif last is not None and last.status == bad and condition.status == GOOD.get(bad):
            yield _about_cluster(cluster, "Normal", f"{condition.type}Again", condition.message or "as it should be")


def bond_events(cluster: LubanCluster, before: LubanClusterStatus, after: LubanClusterStatus) -> Iterator[Event]:
    """Hosts whose bond has another verdict now; nothing where bonds do not count."""
    if cluster.spec.bond_policy == "Ignore":
        return
    known = {host.name: host.bond for host in before.hosts}
    for host in after.hosts:
        bond, last = host.bond, known.get(host.name)
        if bond is None or (last is not None and last.verdict == bond.verdict):
            continue
        message = f"{host.name}: {bond.message or bond.verdict}"
        if bond.verdict not in SOUND:
            yield _about_cluster(cluster, "Warning", f"Bond{bond.verdict}", message)
        elif last is not None and last.verdict not in SOUND:
            yield _about_cluster(cluster, "Normal", f"Bond{bond.verdict}", message)


def action_events(cluster: LubanCluster, outcomes: Iterable[Outcome]) -> Iterator[Event]:
    """Of what was done: phases that begin, and VMs that are asked to leave. Of what failed: that it did, and why."""
    for outcome in outcomes:
        if outcome.failure is not None:
            if not _becomes_a_phase(outcome.action, outcome.failure):
                yield _failed(cluster, outcome, outcome.failure)
        elif outcome.body is not None:
            yield from _done(outcome.action, outcome.body)


def _becomes_a_phase(action: Action, failure: Failure) -> bool:
    """Whether the VM is in phase Failed next, for this reason and with these words: one Event is enough."""
    return isinstance(action, EnsureDomain) and failure.permanent


def begins_phase(action: Action, body: Mapping[str, Any] | None) -> bool:
    """Whether an action on a LubanVM, as it was before, begins another phase of it."""
    return isinstance(action, UpdateVM) and body is not None and body.get("status", {}).get("phase") != action.phase


def _done(action: Action, body: Mapping[str, Any]) -> Iterator[Event]:
    uid = str(body["metadata"]["uid"])
    if isinstance(action, UpdateVM) and begins_phase(action, body):
        kind: Literal["Normal", "Warning"] = "Warning" if action.phase in VM_WARNINGS else "Normal"
        yield Event("LubanVM", action.name, uid, kind, action.reason or action.phase, _of_phase(action, body["spec"]))
    elif isinstance(action, DeleteVM):
        message = f"asked to leave {body['spec']['host']}: {in_words(action.reason)} ({action.reason})"
        yield Event("LubanVM", action.name, uid, "Normal", "Removing", message)


def _of_phase(action: UpdateVM, spec: Mapping[str, Any]) -> str:
    """What is the case, and where."""
    host = spec["host"]
    if action.message:
        return action.message if host in action.message else f"on {host}: {action.message}"
    if action.reason == "Placed":
        return f"placed on {spec.get('placement') or host}"
    where = f"{host} at {action.address}" if action.address else host
    return f"{action.phase} on {where}: {in_words(action.reason)}"


def _failed(cluster: LubanCluster, outcome: Outcome, failure: Failure) -> Event:
    """About the VM if there is one; counted by what was tried and why it failed, not by the words."""
    tried, host = type(outcome.action).__name__, host_of(outcome.action)
    # What a host says begins with its name, and with what was tried there.
    message = (
        failure.message if without_host(failure.message, host) != failure.message else f"{tried}: {failure.message}"
    )
    event = _about_cluster(cluster, "Warning", failure.reason, message)
    if outcome.body is not None:
        metadata = outcome.body["metadata"]
        event = replace(event, kind="LubanVM", name=str(metadata["name"]), uid=str(metadata["uid"]))
    return replace(event, series=tried)


def _about_cluster(cluster: LubanCluster, type_: Literal["Normal", "Warning"], reason: str, message: str) -> Event:
    return Event("LubanCluster", cluster.metadata.name, cluster.metadata.uid, type_, reason, message)
