"""Requests per second of each VM, out of what a balancer says that it has sent to them since httpd started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from luban.core.model import BalancerReport

SPAN_SECONDS = 5.0
"""Counters are compared over so long at least: over less, a rate is chance."""
LONGEST_SECONDS = 60.0
"""What was said so long ago says nothing any more; calm clusters ask every five seconds."""


@dataclass(frozen=True)
class Rate:
    """Requests per second, since a moment on the clock that nobody sets."""

    requests: float
    since: float


@dataclass
class _Balancer:
    served: Mapping[str, int]
    at: float
    rates: dict[str, Rate] = field(default_factory=dict)


class RequestRates:
    """The balancers of one cluster."""

    def __init__(self) -> None:
        self._known: dict[str, _Balancer] = {}
        self._last: dict[str, BalancerReport] = {}

    def look(self, reports: Iterable[BalancerReport], now: float) -> Mapping[str, Rate]:
        """By VM: added up over the balancers that send it requests. Missing: one of these does not tell."""
        reports = tuple(reports)
        for report in reports:
            self._note(report, now)
        if not all(it.reachable for it in reports):
            return {}
        enabled = [(it.name, member.name) for it in reports for member in it.members if member.state == "Enabled"]
        found: dict[str, list[Rate | None]] = {}
        for balancer, vm in enabled:
            found.setdefault(vm, []).append(self._rate(balancer, vm, now))
        return {vm: total for vm, rates in found.items() if (total := _sum(rates)) is not None}

    def _rate(self, balancer: str, vm: str, now: float) -> Rate | None:
        known = self._known.get(balancer)
        return known.rates.get(vm) if known is not None and now - known.at <= LONGEST_SECONDS else None

    def _note(self, report: BalancerReport, now: float) -> None:
        """A report that was there before says nothing new; one that is none ends what was known."""
        if not report.reachable:
            self._known.pop(report.name, None)
        if not report.reachable or self._last.get(report.name) is report:
            return
        self._last[report.name] = report
        served = {member.name: member.served for member in report.members}
        before = self._known.get(report.name)
        if before is None or now - before.at > LONGEST_SECONDS:
            self._known[report.name] = _Balancer(served, now)
        elif now - before.at >= SPAN_SECONDS:
            self._known[report.name] = _Balancer(served, now, _rates(before, served, now))


def _rates(before: _Balancer, served: Mapping[str, int], now: float) -> dict[str, Rate]:
    """Of those whose counter was there before and did not go back, as it does when httpd starts."""
    span = now - before.at
    return {
        vm: Rate((count - before.served[vm]) / span, before.at)
        for vm, count in served.items()
        if vm in before.served and count >= before.served[vm]
    }


def _sum(rates: Sequence[Rate | None]) -> Rate | None:
    known = [it for it in rates if it is not None]
    if not known or len(known) < len(rates):
        return None
    return Rate(sum(it.requests for it in known), min(it.since for it in known))
