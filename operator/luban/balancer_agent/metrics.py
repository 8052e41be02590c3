"""What the agent publishes at /metrics. Members are labels: never more than there are slots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from luban.adapters.apache_httpd.manager import SlotState
from luban.core.model import BalancerReport, MemberReport

STATES = ("Enabled", "Draining", "Disabled")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters that the agent drives, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.changes = Counter(
            "luban_balancer_changes",
            "Changes of a member's state in httpd, confirmed by reading back",
            ["kind"],
            registry=self.registry,
        )
        self.change_seconds = Histogram(
            "luban_balancer_change_seconds",
            "Time from a ConfigMap that asks for a member's state until httpd has it",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.reloads = Counter(
            "luban_balancer_reloads",
            "Graceful restarts of httpd for new settings, by result",
            ["result"],
            registry=self.registry,
        )
        self.starts = Counter("luban_balancer_httpd_starts", "Starts of httpd by this agent", registry=self.registry)
        self.refusals = Counter(
            "luban_balancer_report_refusals",
            "Requests for the report that were refused, by HTTP status",
            ["status"],
            registry=self.registry,
        )
        self.ready = Gauge(
            "luban_balancer_ready", "1 if httpd serves with the wanted configuration", registry=self.registry
        )

    def changed(self, before: SlotState, after: SlotState) -> None:
        """Count a confirmed change of a slot."""
        self.changes.labels(kind_of(before, after)).inc()

    def publish(self, report: Callable[[], BalancerReport], status: Callable[[], Mapping[str, str]]) -> None:
        """Serve the members of `report` and httpd's own figures (lines of server-status) at each scrape."""
        self.registry.register(_Members(report))
        self.registry.register(_Httpd(status))


def kind_of(before: SlotState, after: SlotState) -> str:
    """A change in one word."""
    was, becomes = before.flags, after.flags
    if ("D" in was) != ("D" in becomes):
        return "close" if "D" in becomes else "open"
    if ("N" in was) != ("N" in becomes):
        return "drain" if "N" in becomes else "undrain"
    if ("C" in was) != ("C" in becomes):
        return "failing" if "C" in becomes else "healthy"
    return "adjust"


class _Members(Collector):
    """One sample per member, from the agent's report at the time of the scrape."""

    def __init__(self, report: Callable[[], BalancerReport]) -> None:
        self._report = report

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        report = self._report()
        members = report.members
        yield _counter("requests", "Requests sent to the member since httpd started", members, lambda m: m.served)
        yield _counter(
            "answers", "Requests that the member answered since the agent started", members, lambda m: m.answers
        )
        yield _counter(
            "answer_seconds",
            "Seconds from requests to the first byte of their answers, added up",
            members,
            lambda m: m.answer_seconds,
        )
        yield GaugeMetricFamily(
            "luban_balancer_users",
            "Clients of the last minute: sessions where there is a sticky cookie, else addresses",
            value=report.users or 0,
        )
        yield _gauge("in_flight", "Connections from httpd to the member", members, lambda m: m.in_flight)
        yield _gauge("sessions", "Active sessions of the member", members, lambda m: m.sessions)
        yield _gauge("healthy", "1 if the member passes its health check", members, lambda m: int(bool(m.healthy)))
        yield _gauge("drained", "1 if nothing is in flight and nothing new comes", members, lambda m: int(m.drained))
        state = GaugeMetricFamily(
            "luban_balancer_member_state", "1 for the state that httpd has the member in", labels=["member", "state"]
        )
        for member in members:
            for name in STATES:
                state.add_metric([member.name, name], int(member.state == name))
        yield state


class _Httpd(Collector):
    """httpd's worker threads, from server-status."""

    def __init__(self, status: Callable[[], Mapping[str, str]]) -> None:
        self._status = status

    def collect(self) -> Iterable[GaugeMetricFamily]:
        status = self._status()
        workers = GaugeMetricFamily("luban_balancer_httpd_workers", "Worker threads of httpd", labels=["state"])
        for state, line in (("busy", "BusyWorkers"), ("idle", "IdleWorkers")):
            if line in status:
                workers.add_metric([state], float(status[line]))
        yield workers


def _gauge(
    name: str, text: str, members: Iterable[MemberReport], value: Callable[[MemberReport], int]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"luban_balancer_member_{name}", text, labels=["member"])
    for member in members:
        family.add_metric([member.name], value(member))
    return family


def _counter(
    name: str, text: str, members: Iterable[MemberReport], value: Callable[[MemberReport], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"luban_balancer_member_{name}", text, labels=["member"])
    for member in members:
        family.add_metric([member.name], value(member))
    return family
