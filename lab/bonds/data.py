"""What the failover experiment records, and what can be counted in it. Nothing here touches the guest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lab.bonds.guest import Fault
from lab.bonds.settings import NEAR_PORTS, Mode

PROBE_SECONDS = 0.01
"""How far apart the probes of a flow are."""

HEALTHY = "Healthy"


@dataclass(frozen=True)
class Sample:
    """The counters at one moment, all since their beginning."""

    at: float
    """our monotonic clock (s)"""
    sent: tuple[int, ...]
    """probes of each flow"""
    back: tuple[int, ...]
    """answers to them"""
    acked: tuple[int, ...]
    """bytes of each stream that the far side confirmed"""
    received: dict[str, int]
    """bytes by interface"""
    transmitted: dict[str, int]
    """bytes by interface"""

    def carried(self, interface: str) -> int:
        """Bytes in both directions."""
        return self.received[interface] + self.transmitted[interface]


@dataclass(frozen=True)
class Loss:
    """A probe that no answer came to."""

    at: float
    """when it was sent, on our monotonic clock (s)"""
    flow: int


@dataclass(frozen=True)
class Report:
    """What an observer said about bond0 at one moment."""

    at: float
    """our monotonic clock (s)"""
    verdict: str
    usable: frozenset[str] = frozenset(NEAR_PORTS)
    """ports that it holds for usable"""
    notes: frozenset[str] = frozenset()
    """what it says that changes no verdict"""


@dataclass(frozen=True)
class Outcome:
    """One fault: what it cost and what was said of it."""

    mode: Mode
    cable: int
    fault: Fault
    broken_at: float
    """our monotonic clock (s), as are the next two"""
    restored_at: float
    ended_at: float
    detected_ms: float | None
    """from the monitor's command to the first verdict other than Healthy; None: nobody noticed"""
    recovered_s: float | None
    """from putting it back to the verdict Healthy; None: not within the time, or it had never changed"""
    lost: int
    """probes lost of those sent while it was broken"""
    lost_at_return: int
    """probes lost of those sent afterwards"""
    sent: int
    """probes sent while it was broken"""
    outage_ms: float
    """the longest time that one flow was without an answer, from the fault to the end"""
    throughput: float
    """streams' rate while it was broken, as a part of the rate before"""
    before: str
    during: tuple[str, ...]
    after: str


@dataclass
class ModeRun:
    """All that was recorded in one mode."""

    mode: Mode
    samples: list[Sample] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass
class Experiment:
    """All modes."""

    observer: str
    boot_s: float
    runs: list[ModeRun] = field(default_factory=list)

    def outcomes(self) -> list[Outcome]:
        """Every fault of every mode."""
        return [outcome for run in self.runs for outcome in run.outcomes]


def lost_between(losses: Iterable[Loss], since: float, until: float) -> int:
    """Probes lost of those sent in [since, until)."""
    return sum(since <= loss.at < until for loss in losses)


def longest_outage(losses: Iterable[Loss], since: float, until: float) -> float:
    """The longest run of lost probes of one flow sent in [since, until), in seconds.

    Two losses belong together if at most one probe could have been sent between them.
    """
    longest = 0.0
    by_flow: dict[int, list[float]] = {}
    for loss in losses:
        if since <= loss.at < until:
            by_flow.setdefault(loss.flow, []).append(loss.at)
    for times in by_flow.values():
        start = previous = None
        for at in sorted(times):
            if start is None or previous is None or at - previous > 2.5 * PROBE_SECONDS:
                start = at
            previous = at
            longest = max(longest, at - start + PROBE_SECONDS)
    return longest


def sample_at(samples: Sequence[Sample], at: float) -> Sample:
    """The last sample not after `at`, or the first. Raises ValueError if there is none."""
    if not samples:
        raise ValueError("no samples")
    earlier = [sample for sample in samples if sample.at <= at]
    return earlier[-1] if earlier else samples[0]


def sent_between(samples: Sequence[Sample], since: float, until: float) -> int:
    """Probes sent in that time, to the nearest sample."""
    return sum(sample_at(samples, until).sent) - sum(sample_at(samples, since).sent)


def rate_between(samples: Sequence[Sample], since: float, until: float) -> float:
    """Bytes a second of all streams together that the far side confirmed; 0 if the time is too short to tell."""
    first, last = sample_at(samples, since), sample_at(samples, until)
    return (sum(last.acked) - sum(first.acked)) / (last.at - first.at) if last.at > first.at else 0.0


def detection(reports: Iterable[Report], broken_at: float, restored_at: float) -> float | None:
    """Seconds from the fault to the first verdict other than Healthy; None if there was none before the return."""
    times = [report.at for report in reports if broken_at <= report.at < restored_at and report.verdict != HEALTHY]
    return min(times) - broken_at if times else None


def recovery(reports: Sequence[Report], restored_at: float, ended_at: float) -> float | None:
    """Seconds from putting it back to the verdict Healthy that stayed.

    None if the last verdict is another, or if the verdict was Healthy all along.
    """
    if verdict_at(reports, ended_at) != HEALTHY:
        return None
    at = None
    healthy = verdict_at(reports, restored_at) == HEALTHY
    for report in reports:
        if restored_at < report.at <= ended_at:
            if report.verdict == HEALTHY and not healthy:
                at = report.at
            healthy = report.verdict == HEALTHY
    return None if at is None else at - restored_at


def verdict_at(reports: Iterable[Report], at: float) -> str:
    """The verdict that held at a moment; "" before the first."""
    verdict = ""
    for report in reports:
        if report.at <= at:
            verdict = report.verdict
    return verdict


def verdicts_between(reports: Iterable[Report], since: float, until: float) -> tuple[str, ...]:
    """The verdicts that came up in that time, each once, in their order."""
    return tuple(dict.fromkeys(report.verdict for report in reports if since <= report.at < until))
