"""Every condition with its reasons: what each means, which status is good, and which deserves a Warning.

A condition or a reason that is not written down here is found by a test. docs/reasons.md is made of this and of
reasons.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["True", "False", "Unknown"]
ConditionName = Literal[
    "Ready",
    "SpecValid",
    "HostsAllowed",
    "HostsReachable",
    "VMsHealthy",
    "BalancersReady",
    "LoadKnown",
    "BondsHealthy",
    "AtMaximum",
    "PoolFilled",
    "Reconciled",
]
"""Conditions of a LubanCluster, in the order in which they are written."""


@dataclass(frozen=True)
class ConditionType:
    """A type of condition as people are to understand it."""

    meaning: str
    good: Status
    """The status that nobody needs to look at."""
    warning: Status | None
    """The status that a Warning Event tells of; None: other conditions say why."""
    reasons: Mapping[Status, Mapping[str, str]]
    """By status: reasons and what they mean, and what to do where that is not obvious."""
    further: Mapping[Status, str] = field(default_factory=dict)
    """By status: where its other reasons come from."""


CONDITIONS: Mapping[ConditionName, ConditionType] = {
    "Ready": ConditionType(
        meaning="As many VMs answer as are wanted.",
        good="True",
        warning=None,
        reasons={
            "True": {"AllServing": "All wanted VMs are in the balancers and answer."},
            "False": {
                "Starting": "VMs are on their way.",
                "NoRoom": "No host can take the VMs that are missing; the message says why each one cannot.",
                "Paused": "VMs are missing, and spec.paused is set: nothing is done about it.",
                "Deleting": "The LubanCluster is being deleted.",
            },
            "Unknown": {"NotReconciled": "The operator cannot look: condition Reconciled says why."},
        },
        further={"False": "the first of HostsAllowed, HostsReachable, VMsHealthy and BalancersReady that is False"},
    ),
    "SpecValid": ConditionType(
        meaning="The spec can be read, and all of it has an effect.",
        good="True",
        warning="False",
        reasons={
            "True": {
                "Valid": "It can.",
                "ReplicasIgnored": "spec.replicas is set and has no effect: it counts with scaling.policy Manual alone.",
            },
            "False": {
                "SpecRefused": "This version refuses it, field by field in the message. The last good one stays in force, "
                "unless the operator was started since: then nothing is in force, and Reconciled is False.",
                "ScheduleRefused": "A schedule never begins: its time zone is not known, or its expression names no time. All else of the spec is in force.",
            },
        },
    ),
    "HostsAllowed": ConditionType(
        meaning="The cluster may use every host of its spec (docs/hosts.md). Where it may not, nothing is made or started; "
        "VMs that are there go on.",
        good="True",
        warning="False",
        reasons={
            "True": {"AllAllowed": "It may."},
            "False": {
                "HostNotRegistered": "The host has no uri in the spec, and there is no LubanHost of its name with spec.libvirt.",
                "HostUnreadable": "The LubanHost of its name says something that this version cannot read.",
                "HostURIDiffers": "The uri in the spec is not that of the LubanHost, or VMs are there at another one.",
                "HostListedTwice": "Another entry of the spec is the same libvirt daemon.",
                "InlineURIRefused": "The operator runs with --hosts=Registered, and there is no LubanHost of its name with "
                "spec.libvirt.",
                "NamespaceNotAllowed": "The LubanHost is not for the cluster's namespace.",
                "PoolNotAllowed": "The LubanHost does not offer the template's storage pool.",
                "NetworkNotAllowed": "The LubanHost does not offer the template's network.",
            },
        },
    ),
    "HostsReachable": ConditionType(
        meaning="libvirt answers on every host of the spec that may be used, and on those where VMs are left.",
        good="True",
        warning="False",
        reasons={
            "True": {"AllAnswer": "It does."},
            "False": {"HostUnreachable": "It does not; the VMs there stay as they are. See docs/runbooks."},
        },
    ),
    "VMsHealthy": ConditionType(
        meaning="No VM has failed, is paused, or is silent, and nothing stands in the way of making one.",
        good="True",
        warning="False",
        reasons={
            "True": {"AllHealthy": "So it is."},
            "False": {
                "VMFailed": "A VM has failed, without a reason of its own.",
                "DomainPaused": "The domain of a VM is paused; the message says by whom, and how to resume it.",
                "BackingOff": "VMs fail again and again: they are tried ever more seldom, at once after a change of the spec.",
                "NotAnswering": "A VM does not answer its readiness probe; httpd sends nothing there meanwhile.",
                "StrayDomain": "A domain of this cluster stands there without a LubanVM; it is removed after five minutes.",
                "VMUnreadable": "This version cannot read a LubanVM and leaves it alone. Delete it, or run the newer version.",
            },
        },
        further={"False": "the VM that failed, and the last action that will not succeed by itself"},
    ),
    "BalancersReady": ConditionType(
        meaning="Every balancer answers and serves with the configuration that is wanted.",
        good="True",
        warning="False",
        reasons={
            "True": {"AllReady": "They do."},
            "False": {
                "BalancerUnreachable": "A balancer's agent does not answer, refuses the operator, or has not reported yet.",
                "MemberRefused": "A VM's address or name cannot be a member: it is left out, the others are published.",
                "ConfigurationNotInForce": "httpd does not serve with what the ConfigMap says; the message quotes it.",
            },
            "Unknown": {
                "NotPublishedYet": "The very first ConfigMap is being written.",
                "BalancersStarting": "Others serve; those that the message names were wanted lately, and are not there yet.",
            },
        },
        further={"False": "the last write of a ConfigMap that will not succeed by itself"},
    ),
    "LoadKnown": ConditionType(
        meaning="The load of every serving VM is known: its sessions, or with policies Rules and Target the metrics that they look at. Nothing is removed while it is not.",
        good="True",
        warning="False",
        reasons={
            "True": {"AllKnown": "They are."},
            "False": {
                "SessionsUnknown": "A balancer or a VM's metric does not tell the sessions.",
                "MetricUnknown": "A metric of the policy is not known of a VM that has been ready for a while: its host or a balancer is silent, or libvirt or the guest does not tell it (docs/algorithms.md).",
                "NothingAnswers": "No VM answers, so nobody knows the load.",
            },
        },
    ),
    "BondsHealthy": ConditionType(
        meaning="The bond of every host is sound (docs/bonds.md).",
        good="True",
        warning=None,
        reasons={
            "True": {"AllHealthy": "They are."},
            "Unknown": {
                "Ignored": "spec.bondPolicy is Ignore.",
                "NoReport": "No node agent has reported of a host.",
                "BondUnknown": "The agent of a host is silent, or could read nothing.",
            },
        },
        further={"False": "the first bond that is not sound: its verdict; None: bondPolicy Require finds no bond"},
    ),
    "AtMaximum": ConditionType(
        meaning="The load asks for more VMs than there may be.",
        good="False",
        warning="True",
        reasons={
            "True": {
                "MaxVMs": "scaling.maxVMs is reached.",
                "NoHostHasRoom": "No host can take another VM.",
            },
            "False": {"BelowMaximum": "It does not."},
        },
    ),
    "PoolFilled": ConditionType(
        meaning="The pool has as many warm VMs as spec.pool.size says. Not there without a pool.",
        good="True",
        warning="False",
        reasons={
            "True": {"Filled": "It has."},
            "False": {
                "NoRoom": "No host can take one more; the message says why each one cannot.",
                "BackingOff": "VMs fail again and again: condition VMsHealthy says why.",
            },
            "Unknown": {"Filling": "They are made, or wait until all that are to serve do so."},
        },
    ),
    "Reconciled": ConditionType(
        meaning="The operator looks after the cluster, and what it does is carried out.",
        good="True",
        warning="False",
        reasons={
            "True": {"Reconciled": "It does."},
            "False": {
                "InternalError": "A fault of the operator; its log has the traceback.",
                "SpecRefused": "The spec is refused and no good one is known: VMs and httpd run on, nobody looks after them.",
            },
        },
        further={"False": "the Kubernetes API's own (Forbidden, Timeout, ...)"},
    ),
}
