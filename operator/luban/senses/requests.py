"""Requests per second of each VM and the time to answer one, out of what balancers count since they started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from luban.core.model import BalancerReport, MemberReport

SPAN_SECONDS = 5.0
"""Counters are compared over so long at least: over less, a rate is chance."""
LONGEST_SECONDS = 60.0
"""What was said so long ago says nothing any more; calm clusters ask every five seconds."""


@dataclass(frozen=True)
class Rate:
    """What happened per second, since a moment on the clock that nobody sets."""

    requests: float
    since: float
    answers: float = 0.0
    """Requests that were answered."""
    waited: float = 0.0
    """Seconds from these requests to the first byte of their answers, added up."""

    @property
    def response(self) -> float | None:
        """Mean seconds from a request to the first byte of its answer; None: nothing was answered."""
        return self.waited / self.answers if self.answers else None


@dataclass
class _Balancer:
    members: Mapping[str, MemberReport]
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
        members = {member.name: member for member in report.members}
        before = self._known.get(report.name)
        if before is None or now - before.at > LONGEST_SECONDS:
            self._known[report.name] = _Balancer(members, now)
        elif now - before.at >= SPAN_SECONDS:
            self._known[report.name] = _Balancer(members, now, _rates(before, members, now))


def _rates(before: _Balancer, members: Mapping[str, MemberReport], now: float) -> dict[str, Rate]:
    """Of those whose counter was there before and did not go back, as it does when httpd starts."""
    pairs = ((name, before.members[name], it) for name, it in members.items() if name in before.members)
    return {name: _rate(old, new, before.at, now) for name, old, new in pairs if new.served >= old.served}


def _rate(old: MemberReport, new: MemberReport, since: float, now: float) -> Rate:
    """When the agent alone was started anew, its own counters begin anew: of answers nothing is known then."""
    span, answers = now - since, new.answers - old.answers
    waited = new.answer_seconds - old.answer_seconds
    if answers < 0 or waited < 0:
        answers, waited = 0, 0.0
    return Rate((new.served - old.served) / span, since, answers / span, waited / span)


def _sum(rates: Sequence[Rate | None]) -> Rate | None:
    known = [it for it in rates if it is not None]
    if not known or len(known) < len(rates):
        return None
    return Rate(
        requests=sum(it.requests for it in known),
        since=min(it.since for it in known),
        answers=sum(it.answers for it in known),
        waited=sum(it.waited for it in known),
    )
