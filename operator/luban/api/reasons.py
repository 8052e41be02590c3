"""Every other reason: of decisions, of VMs, of what is done with them, and of failures. See conditions.py."""

from __future__ import annotations

from collections.abc import Mapping

Reasons = Mapping[str, str]
"""Reason to what it means."""

DECISIONS: Reasons = {
    "AllAboveUpper": "All serving VMs (or scaling.sessions.upperQuorumPercent of them) are at or above upperPercent.",
    "NotAllAboveUpper": "Some are, the one that the message names is not.",
    "EnoughBelowLower": "At least scaling.sessions.lowerQuorum VMs are at or below lowerPercent.",
    "TooFewBelowLower": "Some are, but fewer.",
    "WithinBand": "All are between the thresholds.",
    "AboveMax": "Policy Rules: a metric is above the max of its rule.",
    "BelowMin": "Policy Rules: a metric is below the min of its rule.",
    "ShrinkUnsafe": "Policy Rules: fewer would do for one metric, but another is, or would be, above its max (safeShrink).",
    "AboveTarget": "Policy Target: more VMs are needed to keep the metric at the target.",
    "BelowTarget": "Policy Target: fewer VMs would keep the metric at the target.",
    "OnTarget": "Policy Target: the number is right, or the metric within a tenth of the target.",
    "Scheduled": "A schedule in scaling.schedules has begun, which asks for more VMs.",
    "LoadUnknown": "The load of too many VMs is unknown, or fewer would do and that of any is.",
    "NothingServes": "No VM serves yet.",
    "NothingAnswers": "VMs serve, but none answers: nobody measures the load.",
    "NotAnswering": "A VM fails its health check: nothing is removed meanwhile.",
    "WarmingUp": "Growing waits for VMs that do not serve yet.",
    "MaxVMs": "More are needed, but scaling.maxVMs is reached.",
    "NoHostHasRoom": "More are needed, but no host can take one.",
    "MinVMs": "Fewer would do, but the minimum is reached.",
    "HostMinimum": "Fewer would do, but no host with an idle VM is above its vms.min.",
    "NotSettled": "Fewer would do, but no VM can go before the others answer.",
    "Stabilizing": "The wish waits for its stabilizationWindow.",
    "CoolingDown": "The wish waits for its cooldown.",
    "Paused": "spec.paused is set: the wish is shown alone.",
    "ScaleInPaused": "scaling.pauseScaleIn is set.",
    "Manual": "spec.replicas decides.",
    "Deleting": "The LubanCluster is being deleted.",
}
"""Why the last decision is what it is (status.decision.reason, metric luban_decision)."""

VMS: Reasons = {
    "Placed": "Provisioning: a host was chosen.",
    "DomainRunning": "Booting: its domain runs.",
    "Resumed": "Booting: its domain was paused and goes on; whether it answers is asked anew.",
    "AddressNotAllowed": "Booting or Ready: its address is not in the cidr of its LubanHost, so nobody is sent there.",
    "ProbeAnswered": "Ready or Warm: it answered its readiness probe.",
    "NotDeleted": "Ready: it was on its way out, and nobody asks it to leave.",
    "DomainPaused": "Paused or Failed: its domain is paused; after a minute it is given up.",
    "StartupTimeout": "Failed: it was not ready within template.spec.startupTimeout.",
    "DomainStopped": "Failed, Lost or Warm: its domain stopped by itself.",
    "DomainCrashed": "Lost or Warm: its domain crashed.",
    "Deleted": "Draining: it was asked to leave.",
    "DrainTimeout": "Draining, Stopping or Warm: requests were still in flight after balancer.drain.timeout.",
    "Drained": "Stopping or Warm: nothing was in flight any more.",
    "Recycled": "Draining: it is one too many, and goes to the pool.",
    "Taken": "Resuming: it is taken out of the pool.",
    "ResumeFailed": "Resuming: it did not come out of the pool, and is replaced.",
    "NeverServed": "Stopping: no request can be in flight.",
}
"""Why a LubanVM is in its phase (status.reason, Events of the LubanVM). A failed one may name a failure, below."""

CHANGES: Reasons = {
    "BelowDesired": "A VM is made: fewer live than are wanted.",
    "HostBelowMinimum": "A VM is made: a host has fewer than its vms.min.",
    "Outdated": "A VM is made, or replaced: its template is not the cluster's any more.",
    "HostRemoved": "A VM is replaced: its host left the spec.",
    "HostCordoned": "A VM is replaced: its host is cordoned.",
    "HostNotAllowed": "A VM that was never started, or waits in the pool, leaves: nothing may be started on its host any more (HostsAllowed).",
    "HostFull": "A VM that was never started leaves: other clusters were first to take the room on its host (docs/hosts.md).",
    "HostAboveMaximum": "A VM is replaced: its host has more than its vms.max.",
    "AboveDesired": "A VM leaves: more live than are wanted.",
    "PoolBelowSize": "A VM is made for the pool: it has fewer than spec.pool.size.",
    "AbovePoolSize": "A VM leaves the pool: it has more than spec.pool.size.",
    "PoolOnOneHost": "A VM leaves the pool: all of it is on one host, and another has room.",
    "MakesRoom": "A VM leaves the pool: its room is needed, and it is of no use.",
    "Rests": "A VM of the pool is suspended: it was found ready, and waits until it is needed.",
    "ClusterDeleted": "A VM or a ConfigMap goes: its LubanCluster is deleted.",
    "Orphan": "A VM lives on without us: deletionPolicy is Orphan.",
    "DomainMissing": "A domain is made: there is none yet.",
    "DomainOff": "A domain is started, or removed: it is off.",
    "GracePeriodOver": "A domain is switched off: it did not stop within terminationGracePeriodSeconds.",
    "NoLubanVM": "A domain is removed: no LubanVM stands for it.",
    "HostGone": "A LubanVM is let go: its host left the spec and has been silent for long.",
    "Unreadable": "A LubanVM is let go: it was deleted, and this version cannot read where it runs.",
    "NothingLeft": "A LubanVM is let go: nothing of it is left on its host.",
    "NotPublished": "A ConfigMap is written: there was none.",
    "MembersChanged": "A ConfigMap is written: other members, or other states of theirs.",
    "SettingsChanged": "A ConfigMap is written: other settings.",
    "BalancersMissing": "The balancers' Pods, Services and rights are made: they are not there, or this operator has just started.",
    "BalancersChanged": "They are made anew: spec.balancer or the operator's --balancer-image changed.",
    "BalancersScaled": "The balancers' StatefulSet is changed: another number of them is wanted.",
    "TierShrunk": "A ConfigMap goes: fewer balancers are wanted, and this one has ended.",
}
"""Why something is done (the operator's log, the Event Removing)."""

EVENTS: Reasons = {
    "ScaleUp": "VMs are added; the message has the decision.",
    "ScaleDown": "VMs are removed; the message has the decision.",
    "Removing": "A LubanVM is asked to leave.",
    "<condition>Again": "A condition is good again, for example HostsReachableAgain.",
    "Bond<verdict>": "The bond of a host has another verdict, for example BondDegraded.",
}
"""Events of their own. All others carry the reason of a condition or of a VM."""

PLACEMENTS: Reasons = {
    "FewestVMs": "The host with the fewest VMs.",
    "HostBelowMinimum": "It has fewer than its vms.min.",
    "NoRecentFailure": "A VM failed on the other hosts lately.",
    "OnlyHost": "No other host can take one.",
    "BetterBond": "Without the bonds it would be another host.",
    "NoRoom": "No host can take one.",
}
"""Why the next VM would go there (status.placement.reason)."""

TIER: Reasons = {
    "Minimum": "balancer.replicas.min is enough.",
    "BalancersPerVM": "Each VM has balancer.attachment.p balancers.",
    "AttachmentRoom": "Balancers with balancer.attachment.dMax VMs each have room for all VMs, p balancers each.",
    "BalancerLost": "Others stand in for balancers that have not served for long.",
    "TierAtMaximum": "More are needed, but balancer.replicas.max is reached.",
    "Shrinking": "Fewer would do: one leaves once that has been so for scaling.behavior.scaleDown.stabilizationWindow.",
}
"""Why there are so many balancers (status.tier.reason)."""

FAILURES: Mapping[str, Reasons] = {
    "Hosts": {
        "HostUnreachable": "libvirt on the host does not answer, or not in time. Tried again.",
        "InvalidURI": "The host's URI is one that is not used.",
        "InsecureHost": "The host's URI is one that anybody could answer, and the operator may not use such ones.",
        "UserNetworkRefused": "Network type User is for one machine, and the operator may not use it.",
        "PoolNotFound": "The host has no such storage pool.",
        "ImageNotFound": "The pool has no such volume.",
        "VolumeRefused": "The volume was made for a VM; no other VM is made from it.",
        "StoragePoolFull": "The pool has no room.",
        "NetworkNotFound": "The host has no such bridge or network.",
        "AddressTaken": "The address that was planned for the VM is somebody else's; another one is taken.",
        "ForeignDomain": "A domain with the name that is needed is there and is not ours; it is left alone.",
        "DomainRefused": "libvirt refuses the domain: KVM, CPU model, rights.",
        "DomainMissing": "A VM's domain is to go on or to rest, and is off, or gone.",
        "StartFailed": "The domain did not start. Tried again.",
        "LibvirtTimeout": "libvirt does not do in time what is asked about one domain. Tried again.",
        "LibvirtError": "libvirt failed; the message quotes it. Tried again.",
    },
    "Kubernetes": {
        "APIServerUnreachable": "The API server does not answer. Tried again.",
        "APIServerRefused": "The API server refused a request of a balancer's agent.",
        "BadAnswer": "What answered is no API server.",
        "CertificateRefused": "The API server's certificate is not trusted.",
        "Forbidden": "A right is missing; the message says which, and who grants it.",
        "ForeignObject": "An object with the name that the balancers need is not ours.",
        "ForeignConfigMap": "A ConfigMap with the name that is needed is not ours.",
        "InvalidKubeconfig": "The kubeconfig cannot be used.",
        "NamespaceTerminating": "The namespace is being deleted.",
        "NoCredentials": "There are no credentials, or they cannot be used.",
        "SecretKeyNotFound": "The Secret has no such key.",
        "SecretNotFound": "The Secret is not there.",
        "SecretNotText": "The Secret's value is no text.",
        "Timeout": "A request was not done in time. Tried again.",
        "UnknownResource": "The CRDs are not installed.",
        "VMUnreadable": "A LubanVM does not say where it runs, at least in no words that this version knows.",
        "WatchEnded": "The API server ended a watch. Opened again.",
    },
    "Operator": {
        "InternalError": "A fault of the operator itself; its log has the details. Tried again.",
        "NotLeader": "Another operator may be the one that acts: this one does nothing. Tried again.",
        "HostNotInSpec": "A LubanVM names a host that its LubanCluster does not: nothing is started there.",
        "MemberRefused": "A VM's address or name cannot be a balancer's member; all others are published.",
    },
    "All programs": {
        "PortTaken": "The port of a program's own metrics and probes is in use, or the address is not this machine's.",
    },
    "Balancer agent": {
        "CannotListen": "What httpd is to listen at is in use, needs more rights, or is no address of its machine.",
        "HttpdEnded": "httpd ended; it is started again.",
        "HttpdHangs": "httpd does not answer its own command.",
        "HttpdNotFound": "There is no httpd.",
        "HttpdNotStarted": "The system does not start httpd. Tried again.",
        "HttpdRefused": "httpd refuses the configuration; the message quotes it.",
        "HttpdSilent": "httpd does not answer after its start.",
        "HttpdUnreachable": "httpd does not answer its balancer-manager.",
        "ManagerRefused": "The balancer-manager refused a request.",
        "NothingWanted": "There is no configuration yet.",
        "SlotNamesMissing": "httpd cannot load the resolver of its slots.",
        "SocketsUnknown": "The kernel does not list connections.",
    },
    "Node agent": {
        "NetlinkBusy": "Links change faster than they can be read. Tried again.",
        "NetlinkFailed": "The kernel's list of links cannot be read. Tried again.",
    },
}
"""By who meets them: reasons of failures, in conditions, in failed VMs, in logs, and in the metric luban_tick_errors.

What the API server refuses with a reason of its own (Invalid, AlreadyExists, ...) keeps it.
"""


def in_words(reason: str) -> str:
    """Why a VM is in its phase, or leaves it, as the end of a sentence; without words for it, the reason itself."""
    for reasons in (CHANGES, VMS):
        if reason in reasons:
            return reasons[reason].partition(": ")[2].rstrip(".")
    failed = next((reasons[reason] for reasons in FAILURES.values() if reason in reasons), "")
    first = failed.partition(". ")[0].rstrip(".")
    return f"{first[0].lower()}{first[1:]}" if first else reason
