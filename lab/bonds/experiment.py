"""The paper's test of network fault tolerance (section 4.3), in every mode, with what it could not do by hand.

A long transfer and a ping cross the bond while each cable in turn is pulled and put back. The paper did it twice by
hand with 802.3ad and saw no failure (its Fig. 13 and 14); its authors leave other modes to future work. Here each fault
is a command to the machine's monitor, so that every millisecond and every packet can be counted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from lab.bonds import data
from lab.bonds.data import HEALTHY, Experiment, Loss, ModeRun, Outcome, Sample
from lab.bonds.guest import CABLES, BondGuest, Fault, wait_for_traffic
from lab.bonds.observers import NetlinkObserver, Observer
from lab.bonds.rpc import GuestProcess
from lab.bonds.settings import FAR_ADDRESS, FAR_NETNS, NEAR_ADDRESS, BondSettings, Mode
from lab.image.progress import Progress
from lab.process import LabError, wait_until

STREAM_RATE = 400_000
"""Bytes a second of each of the two streams: little enough that the emulated processor stays half idle."""

SETTLE_SECONDS = 30.0
CALM_SECONDS = 2.0
"""Undisturbed traffic before the first fault."""

NOTICE_SECONDS = 5.0
"""How long a fault may stay unnoticed; an LACP partner that falls silent is noticed after 3 s."""

HOLD_SECONDS = 1.5
"""How long a fault stays once it was noticed."""

RETURN_SECONDS = 40.0
"""How long the bond may need to be healthy again. LACP with a partner of which it had given up hope takes 29 s."""

AFTER_SECONDS = 2.5
"""Traffic after the return: longer than a probe waits for its answer."""


@dataclass
class Traffic:
    """The two programs in the guest that make traffic, and what they tell."""

    guest: BondGuest
    peer: GuestProcess
    sender: GuestProcess

    @classmethod
    def start(cls, guest: BondGuest, rate: int = STREAM_RATE) -> Traffic:
        """Start both; returns when the first sample is there. Raises LabError."""
        peer = guest.spawn_program("peer", FAR_ADDRESS, netns=FAR_NETNS)
        wait_until(lambda: "ready" in peer.lines or peer.ended.is_set(), what="the far side", timeout=20)
        sender = guest.spawn_program("traffic", NEAR_ADDRESS, FAR_ADDRESS, str(rate))
        traffic = cls(guest, peer, sender)
        wait_until(lambda: bool(sender.json_lines()), what="traffic", timeout=20)
        return traffic

    def stop(self) -> None:
        """End both."""
        self.sender.stop()
        self.peer.stop()

    def samples(self) -> list[Sample]:
        """All samples so far, on our clock."""
        return [self._sample(line) for line in self.sender.json_lines()]

    def losses(self) -> list[Loss]:
        """All lost probes so far, by the time when they were sent."""
        to_host = self.guest.clock.to_host
        lost = [one for line in self.sender.json_lines() for one in line["lost"]]
        return sorted((Loss(to_host(at / 1e9), flow) for flow, at in lost), key=lambda loss: loss.at)

    def _sample(self, line: dict[str, object]) -> Sample:
        counters = line["bytes"]
        assert isinstance(counters, dict)
        return Sample(
            at=self.guest.clock.to_host(_number(line["at"]) / 1e9),
            sent=_numbers(line["sent"]),
            back=_numbers(line["back"]),
            acked=_numbers(line["acked"]),
            received={name: pair[0] for name, pair in counters.items()},
            transmitted={name: pair[1] for name, pair in counters.items()},
        )


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _numbers(value: object) -> tuple[int, ...]:
    assert isinstance(value, list)
    return tuple(map(_number, value))


def run_experiment(
    guest: BondGuest,
    modes: Sequence[Mode] = tuple(Mode),
    faults: Sequence[Fault] = (Fault.PULLED,),
    *,
    observer: Observer | None = None,
    progress: Progress | None = None,
) -> Experiment:
    """Break each cable in each way in each mode. Takes 6-12 s a fault. Raises LabError if a bond never gets ready."""
    watcher, shown = observer or NetlinkObserver(), progress or Progress()
    experiment = Experiment(observer=watcher.name, boot_s=guest.boot_seconds)
    for mode in modes:
        experiment.runs.append(run_mode(guest, mode, faults, watcher, shown))
    return experiment


def run_mode(guest: BondGuest, mode: Mode, faults: Iterable[Fault], observer: Observer, progress: Progress) -> ModeRun:
    """All faults of one mode, on bonds made for it."""
    with ExitStack() as stack:
        guest.configure(BondSettings(mode))
        guest.clock.look()
        observer.start(guest)
        stack.callback(observer.stop)
        stack.callback(guest.restore_all)
        with progress.step(f"{mode}: bonds get ready"):
            wait_for_traffic(guest)
            wait_until(lambda: _verdict(observer) == HEALTHY, what=f"{mode}: a healthy bond", timeout=SETTLE_SECONDS)
        run = ModeRun(mode)
        traffic = Traffic.start(guest)
        stack.callback(traffic.stop)
        _pause(CALM_SECONDS)
        stories = []
        for fault in faults:
            for cable in CABLES:
                with progress.step(f"{mode}: cable {cable} {fault}"):
                    stories.append((cable, fault, _break_and_mend(guest, cable, fault, observer)))
        guest.clock.look()
        run.samples, run.losses, run.reports = traffic.samples(), traffic.losses(), observer.reports()
        run.outcomes = [_outcome(run, *story) for story in stories]
        return run


def _break_and_mend(
    guest: BondGuest, cable: int, fault: Fault, observer: Observer
) -> tuple[float, float, float, float]:
    """Our clock: calm since, broken, mended, end. Waits until the observer has seen it, and then seen it end."""
    calm = time.monotonic()
    guest.clock.look()
    _pause(CALM_SECONDS)
    broken, _ = guest.break_cable(cable, fault)
    _wait(lambda: _verdict(observer) != HEALTHY, NOTICE_SECONDS)
    _pause(HOLD_SECONDS)
    mended, _ = guest.restore_cable(cable)
    guest.clock.look()
    _wait(lambda: _verdict(observer) == HEALTHY, RETURN_SECONDS)
    _pause(AFTER_SECONDS)
    return calm, broken, mended, time.monotonic()


def _outcome(run: ModeRun, cable: int, fault: Fault, times: tuple[float, float, float, float]) -> Outcome:
    calm, broken, mended, ended = times
    detected = data.detection(run.reports, broken, mended)
    usual = data.rate_between(run.samples, calm, broken)
    return Outcome(
        mode=run.mode,
        cable=cable,
        fault=fault,
        broken_at=broken,
        restored_at=mended,
        ended_at=ended,
        detected_ms=None if detected is None else detected * 1000,
        recovered_s=data.recovery(run.reports, mended, ended),
        lost=data.lost_between(run.losses, broken, mended),
        lost_at_return=data.lost_between(run.losses, mended, ended),
        sent=data.sent_between(run.samples, broken, mended),
        outage_ms=1000 * data.longest_outage(run.losses, broken, ended),
        throughput=data.rate_between(run.samples, broken, mended) / usual if usual else 0.0,
        before=data.verdict_at(run.reports, broken),
        during=data.verdicts_between(run.reports, broken, mended),
        after=data.verdict_at(run.reports, ended),
    )


def _verdict(observer: Observer) -> str:
    reports = observer.reports()
    return reports[-1].verdict if reports else ""


def _wait(condition: Callable[[], bool], timeout: float) -> None:
    """Wait for something that may well not happen."""
    try:
        wait_until(condition, what="", timeout=timeout)
    except LabError:
        return


def _pause(seconds: float) -> None:
    """Let traffic flow for a while: time is what is measured here."""
    time.sleep(seconds)


def as_json(experiment: Experiment) -> str:
    """All that was recorded, for other programs."""

    def plain(value: object) -> object:
        return sorted(value) if isinstance(value, frozenset) else vars(value)

    return json.dumps(experiment, default=plain)
