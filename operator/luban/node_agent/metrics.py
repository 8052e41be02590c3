"""What the agent publishes at /metrics. Bonds and ports are labels: never more than the status tells about.

Names of node_exporter's bonding collector are kept beside ours, so that dashboards made for it work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from luban.api.host import BondVerdict
from luban.core.bonds.host import HostJudgement
from luban.core.bonds.model import Judgement, PortReading
from luban.node_agent.limits import shown_bonds, shown_ports

LACP_BITS = (
    "active",
    "short_timeout",
    "aggregating",
    "sync",
    "collecting",
    "distributing",
    "defaulted",
    "expired",
)
"""Bits of an LACP port state, the lowest first (IEEE 802.1AX)."""

Family = GaugeMetricFamily | CounterMetricFamily


class Writes(Protocol):
    """What is told about reports."""

    writes: int
    failures: int
    last_report: float | None


class Metrics:
    """Counters that the agent drives, in a registry of their own, and the last judgement."""

    def __init__(self, writes: Writes) -> None:
        self.registry = CollectorRegistry()
        self.judgement: HostJudgement | None = None
        self.events = Counter(
            "luban_bond_events",
            "Wake-ups by the kernel: link, overrun if some were lost, reopened if the subscription broke",
            ["reason"],
            registry=self.registry,
        )
        self.reads = Counter(
            "luban_bond_reads", "Readings of all bonds, by result (good, failed)", ["result"], registry=self.registry
        )
        self.last_read = Gauge(
            "luban_bond_last_read_timestamp_seconds", "When bonds were last read", registry=self.registry
        )
        self.registry.register(_Bonds(self))
        self.registry.register(_Reports(writes))

    def bonds(self) -> tuple[Judgement, ...]:
        """The bonds to tell about."""
        return shown_bonds(self.judgement) if self.judgement is not None else ()


class _Reports(Collector):
    """Writes of the LubanHost."""

    def __init__(self, writes: Writes) -> None:
        self._writes = writes

    def collect(self) -> Iterable[Family]:
        count = CounterMetricFamily("luban_bond_report_writes", "Writes of the LubanHost", labels=["result"])
        count.add_metric(["good"], self._writes.writes)
        count.add_metric(["failed"], self._writes.failures)
        yield count
        if self._writes.last_report is not None:
            name, text = "luban_bond_last_report_timestamp_seconds", "When the LubanHost was last written"
            yield GaugeMetricFamily(name, text, value=self._writes.last_report)


class _Bonds(Collector):
    """Samples from the judgement at the time of the scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Family]:
        bonds = self._metrics.bonds()
        yield from _of_bonds(bonds)
        yield from _of_ports(bonds)
        yield from _of_node_exporter(bonds)
        if (judgement := self._metrics.judgement) is not None:
            family = _gauge("luban_bond_host_verdict", "1 for the verdict of the bond that counts", "verdict")
            for verdict in get_args(BondVerdict):
                family.add_metric([verdict], verdict == judgement.verdict)
            yield family


def _of_bonds(bonds: Iterable[Judgement]) -> Iterator[Family]:
    verdicts = _gauge("luban_bond_verdict", "1 for the bond's verdict", "bond", "verdict")
    active = _gauge("luban_bond_ports_active", "Ports that are usable", "bond")
    total = _gauge("luban_bond_ports", "Ports that there should be", "bond")
    since = _gauge("luban_bond_verdict_since_timestamp_seconds", "When the verdict last changed", "bond")
    for bond in bonds:
        name = bond.reading.name
        for verdict in get_args(BondVerdict):
            verdicts.add_metric([name, verdict], verdict == bond.verdict)
        active.add_metric([name], bond.active)
        total.add_metric([name], bond.total)
        since.add_metric([name], bond.since)
    yield from (verdicts, active, total, since)


def _of_ports(bonds: Iterable[Judgement]) -> Iterator[Family]:
    labels = ("bond", "port")
    usable = _gauge("luban_bond_port_usable", "1 if the port can carry traffic; absent: not known", *labels)
    speed = _gauge("luban_bond_port_speed_mbps", "Speed of the port in Mb/s", *labels)
    state = _gauge("luban_bond_port_lacp_state", "Bits of the LACP port state", *labels, "side", "bit")
    failures = CounterMetricFamily(
        "luban_bond_port_link_failures", "Link failures that the bond's monitoring saw", labels=labels
    )
    downs = CounterMetricFamily("luban_bond_port_carrier_downs", "Times that the carrier went", labels=labels)
    for bond in bonds:
        for port, judged in shown_ports(bond):
            key = [bond.reading.name, port.name]
            _add(usable, key, judged.usable)
            _add(speed, key, port.speed_mbps)
            _add(failures, key, port.link_failures)
            _add(downs, key, port.carrier_downs)
            _add_bits(state, key, port)
    yield from (usable, speed, state, failures, downs)


def _of_node_exporter(bonds: Iterable[Judgement]) -> Iterator[Family]:
    slaves = _gauge("node_bonding_slaves", "Number of configured slaves per bonding interface.", "master")
    active = _gauge("node_bonding_active", "Number of active slaves per bonding interface.", "master")
    for bond in bonds:
        if bond.reading.exists and bond.reading.ports_known:
            ports = [port for port in bond.reading.ports if port.gone_since is None]
            slaves.add_metric([bond.reading.name], len(ports))
            # node_exporter counts what the bond's monitoring calls up, which is less than our "usable".
            active.add_metric([bond.reading.name], sum(port.mii == "up" for port in ports))
    yield from (slaves, active)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _add(family: Family, key: list[str], value: float | None) -> None:
    """A sample, or none where there is no data."""
    if value is not None:
        family.add_metric(key, value)


def _add_bits(family: GaugeMetricFamily, key: list[str], port: PortReading) -> None:
    for side, bits in (("actor", port.actor_state), ("partner", port.partner_state)):
        if bits is not None:
            for number, name in enumerate(LACP_BITS):
                family.add_metric([*key, side, name], bits >> number & 1)
