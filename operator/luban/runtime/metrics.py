"""What Prometheus scrapes. Labels: namespace, cluster; vm, host, balancer where it is about one; never more."""

from __future__ import annotations

from collections import Counter as CountsOf
from collections.abc import Collection, Iterable, Mapping
from typing import get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from luban.api.cluster_status import LubanClusterStatus
from luban.api.common import Condition
from luban.api.conditions import Status
from luban.core.conditions import is_silent
from luban.core.figures import NO_FIGURES
from luban.core.model import ClusterRef, MemberState, Observation, Plan, UpdateVM
from luban.core.state import State
from luban.core.times import seconds_of
from luban.runtime.apply import Outcome
from luban.runtime.events import begins_phase
from luban.runtime.status import users_of

CLUSTER = ("namespace", "cluster")
VM_STATES = ("desired", "serving", "answering", "starting", "draining", "warm", "paused", "failed")
Series = tuple[Gauge, tuple[str, ...]]
"""A gauge, and its labels after those of the cluster."""
Shown = frozenset[Series]
BOOT_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 120, 300)


class Metrics:
    """The operator's metrics, in one registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.leading = Gauge("luban_operator_leading", "1: this operator acts; 0: it stands by", registry=registry)
        self.vms = self._gauge(
            "luban_cluster_vms", "VMs of a cluster by state; serving: in a balancer, answering or not", "state"
        )
        self.sessions = self._gauge("luban_vm_sessions", "Active sessions of a serving VM", "vm", "host")
        self.cpu = self._gauge("luban_vm_cpu_percent", "CPU time of a VM in percent of its vCPUs'", "vm", "host")
        self.memory = self._gauge("luban_vm_memory_percent", "Memory in use in the guest, of its maximum", "vm", "host")
        self.network = self._gauge(
            "luban_vm_network_bytes_per_second", "Bytes that a VM received and sent", "vm", "host"
        )
        self.requests = self._gauge(
            "luban_vm_requests_per_second", "Requests that balancers sent to a VM", "vm", "host"
        )
        self.response = self._gauge(
            "luban_vm_response_seconds", "Mean time from a request to the first byte of its answer", "vm", "host"
        )
        self.load = self._gauge("luban_cluster_sessions", "Active sessions of all serving VMs whose load is known")
        self.users = self._gauge(
            "luban_cluster_users", "Clients of the last minute: sessions where there is a sticky cookie, else addresses"
        )
        self.connections = self._gauge(
            "luban_vm_active_connections", "Connections from all balancers to a VM", "vm", "host"
        )
        self.condition = self._gauge("luban_cluster_condition", "1: the condition has this status", "type", "status")
        self.reachable = self._gauge("luban_host_reachable", "1: libvirt on the host answers", "host")
        self.host_vms = self._gauge("luban_host_vms", "VMs of the cluster on a host", "host")
        self.bonds = self._gauge("luban_host_bond", "1: the verdict of the host's bond that matters", "host", "verdict")
        self.members = self._gauge("luban_balancer_members", "Members by state", "balancer", "state")
        self.attached = self._gauge(
            "luban_balancer_attached_vms", "VMs that a balancer sends new requests to (d_i of ELBaaS)", "balancer"
        )
        self.tier = self._gauge("luban_cluster_balancers", "Balancers of a cluster: desired, ready", "state")
        self.violations = self._gauge(
            "luban_cluster_attachment_violations",
            "How often cross scheduling is not as it should be: TooFewBalancers (VMs), AboveMaximum, Idle (balancers)",
            "invariant",
        )
        self.balancer = self._gauge("luban_balancer_ready", "1: httpd serves the wanted configuration", "balancer")
        self.orphans = Gauge(
            "luban_host_orphans", "Domains and VMs' volumes that nobody stands for", ("host", "kind"), registry=registry
        )
        self.decisions = Counter(
            "luban_decision", "Decisions by verdict", (*CLUSTER, "verdict", "reason"), registry=registry
        )
        self.actions = Counter("luban_actions", "Actions carried out", (*CLUSTER, "action"), registry=registry)
        self.failures = Counter(
            "luban_action_failures", "Actions that failed", (*CLUSTER, "action", "reason"), registry=registry
        )
        self.writes = Counter("luban_status_writes", "Writes to the cluster's status", CLUSTER, registry=registry)
        self.errors = Counter("luban_tick_errors", "Ticks that failed", (*CLUSTER, "reason"), registry=registry)
        self.ticks = Histogram("luban_tick_seconds", "Time of one tick", CLUSTER, registry=registry)
        self.transitions = Histogram(
            "luban_vm_phase_transition_seconds",
            "Seconds from a VM's creation to the start of a phase",
            (*CLUSTER, "phase"),
            buckets=BOOT_BUCKETS,
            registry=registry,
        )

        self._shown: dict[tuple[str, str], Shown] = {}
        """By namespace and cluster: the series of VMs, hosts and balancers."""
        self._told: dict[tuple[str, str], frozenset[str]] = {}
        """By namespace and cluster: its conditions."""

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, (*CLUSTER, *labels), registry=self.registry)

    def record(self, ref: ClusterRef, observation: Observation, plan: Plan) -> None:
        """Publish one tick."""
        labels = (ref.namespace, ref.name)
        state = State(observation)
        self._record_counts(labels, state, plan.desired)
        users = users_of(observation)
        of_cluster: dict[Series, float] = {} if users is None else {(self.users, ()): users}
        self._show(
            labels,
            {
                **of_cluster,
                **self._of_vms(state),
                **self._of_hosts(observation),
                **self._of_balancers(observation),
                **self._of_tier(state, plan),
            },
        )

    def _show(self, labels: tuple[str, str], values: Mapping[Series, float]) -> None:
        """Set these series, and drop those that the cluster had and has no more. No other cluster's are looked at."""
        for gauge, more in self._shown.get(labels, frozenset()) - values.keys():
            gauge.remove(*labels, *more)
        for (gauge, more), value in values.items():
            gauge.labels(*labels, *more).set(value)
        self._shown[labels] = frozenset(values)

    def _record_counts(self, labels: tuple[str, str], state: State, desired: int) -> None:
        sets = (
            state.serving,
            state.answering,
            state.starting,
            state.withdrawn,
            state.warm,
            state.paused,
            state.failed,
        )
        for name, count in zip(VM_STATES, (desired, *map(len, sets)), strict=True):
            self.vms.labels(*labels, name).set(count)
        self.load.labels(*labels).set(sum(state.observation.sessions.values()))

    def _of_vms(self, state: State) -> dict[Series, float]:
        known, figures = state.observation.sessions, state.observation.figures
        connections = _connections(state.observation)
        found: dict[Series, float] = {}
        for vm in state.serving:
            it = figures.get(vm.name, NO_FIGURES)
            values = {
                self.sessions: known.get(vm.name),
                self.connections: connections.get(vm.name),
                self.cpu: it.cpu,
                self.memory: it.memory,
                self.network: it.network,
                self.requests: it.requests,
                self.response: it.response,
            }
            found |= {(gauge, (vm.name, vm.host)): value for gauge, value in values.items() if value is not None}
        return found

    def _of_hosts(self, observation: Observation) -> dict[Series, float]:
        vms = CountsOf(vm.host for vm in observation.vms)
        return {
            **{
                (self.reachable, (host.name,)): host.reachable
                for host in observation.hosts
                if host.reachable or is_silent(host)
            },
            **{(self.host_vms, (host.name,)): vms[host.name] for host in observation.hosts},
            **{(self.bonds, (name, bond.verdict)): 1 for name, bond in observation.bonds.items()},
        }

    def _of_balancers(self, observation: Observation) -> dict[Series, float]:
        found: dict[Series, float] = {}
        for balancer in observation.balancers:
            found[self.balancer, (balancer.name,)] = balancer.reachable and balancer.ready
            states = CountsOf(member.state for member in balancer.members)
            found |= {(self.members, (balancer.name, state)): states[state] for state in get_args(MemberState)}
        return found

    def _of_tier(self, state: State, plan: Plan) -> dict[Series, float]:
        """Where there can be several balancers."""
        if plan.tier is None:
            return {}
        attached = {it.name: len(state.sent_to(it)) for it in state.observation.balancers}
        return {
            (self.tier, ("desired",)): plan.tier.size,
            (self.tier, ("ready",)): sum(it.reachable and it.ready for it in state.observation.balancers),
            **{(self.attached, (name,)): count for name, count in attached.items()},
            **{(self.violations, (name,)): count for name, count in plan.tier.violations.items()},
        }

    def ended(self, ref: ClusterRef, outcomes: Iterable[Outcome], now: float) -> None:
        """Count what was done and what failed. `now`: seconds since the epoch."""
        labels = (ref.namespace, ref.name)
        for outcome in outcomes:
            action = type(outcome.action).__name__
            if outcome.failure is not None:
                self.failures.labels(*labels, action, outcome.failure.reason).inc()
                continue
            self.actions.labels(*labels, action).inc()
            if begins_phase(outcome.action, outcome.body) and isinstance(outcome.action, UpdateVM):
                self.transitions.labels(*labels, outcome.action.phase).observe(max(0.0, now - _created(outcome)))

    def record_conditions(self, ref: ClusterRef, conditions: Collection[Condition]) -> None:
        """Publish what the status says: all its conditions, SpecValid too; and no more of one that it has no more."""
        told = frozenset(it.type for it in conditions)
        for gone in self._told.get((ref.namespace, ref.name), frozenset()) - told:
            labels = dict(zip((*CLUSTER, "type"), (ref.namespace, ref.name, gone), strict=True))
            self.condition.remove_by_labels(labels)
        self._told[ref.namespace, ref.name] = told
        for condition in conditions:
            for status in get_args(Status):
                self.condition.labels(ref.namespace, ref.name, condition.type, status).set(condition.status == status)

    def decided(self, ref: ClusterRef, status: LubanClusterStatus) -> None:
        """Count a decision that differs from the last."""
        if status.decision is not None:
            self.decisions.labels(ref.namespace, ref.name, status.decision.verdict, status.decision.reason).inc()

    def forget(self, ref: ClusterRef) -> None:
        """Drop all series of a cluster that is gone."""
        self._shown.pop((ref.namespace, ref.name), None)
        self._told.pop((ref.namespace, ref.name), None)
        by = dict(zip(CLUSTER, (ref.namespace, ref.name), strict=True))
        for metric in vars(self).values():
            if hasattr(metric, "remove_by_labels") and metric not in (self.leading, self.orphans):
                metric.remove_by_labels(by)


def _connections(observation: Observation) -> CountsOf[str]:
    """By VM: requests in flight, as far as balancers tell."""
    found: CountsOf[str] = CountsOf()
    for balancer in observation.balancers:
        for member in balancer.members:
            found[member.name] += member.in_flight
    return found


def _created(outcome: Outcome) -> float:
    """When the LubanVM was made, in seconds since the epoch."""
    return seconds_of(outcome.body["metadata"]["creationTimestamp"]) if outcome.body is not None else 0.0
