"""The pure parts of the failover experiment: losses, latencies and verdicts; two clocks; QEMU's monitor protocol."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.bonds import data
from lab.bonds.clock import ClockMap, best_fit
from lab.bonds.data import Loss, Report, Sample
from lab.bonds.qmp import Answer, Event, Greeting, parse
from lab.bonds.reporting import Sighting

REPORTS = [Report(0.0, "Healthy"), Report(10.05, "Degraded"), Report(12.5, "Degraded"), Report(15.0, "Healthy")]


def sample(at: float, sent: int, acked: int) -> Sample:
    return Sample(at, (sent, sent), (sent, sent), (acked, acked), {"eth1": acked}, {"eth1": acked})


class TestLosses:
    def test_by_the_time_when_they_were_sent(self) -> None:
        losses = [Loss(9.99, 0), Loss(10.0, 0), Loss(10.5, 1), Loss(11.0, 0)]
        assert data.lost_between(losses, 10.0, 11.0) == 2

    def test_the_longest_outage_is_of_one_flow(self) -> None:
        losses = [Loss(10.0 + number / 100, 0) for number in range(30)] + [Loss(10.31, 1), Loss(12.0, 0)]
        assert data.longest_outage(losses, 10.0, 13.0) == pytest.approx(0.30)

    def test_one_answer_in_between_does_not_end_it_two_do(self) -> None:
        assert data.longest_outage([Loss(1.00, 0), Loss(1.02, 0)], 0, 2) == pytest.approx(0.03)
        assert data.longest_outage([Loss(1.00, 0), Loss(1.03, 0)], 0, 2) == pytest.approx(0.01)

    def test_nothing_lost(self) -> None:
        assert data.longest_outage([], 0, 2) == 0.0

    @given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1)), max_size=40))
    def test_never_longer_than_from_the_first_to_the_last(self, lost: list[tuple[float, int]]) -> None:
        losses = [Loss(at, flow) for at, flow in lost]
        whole = max((it.at for it in losses), default=0) - min((it.at for it in losses), default=0)
        assert 0 <= data.longest_outage(losses, 0, 101) <= whole + data.PROBE_SECONDS + 1e-9


class TestVerdicts:
    def test_detection_is_the_first_report_after_the_fault(self) -> None:
        assert data.detection(REPORTS, 10.0, 13.0) == pytest.approx(0.05)

    def test_what_was_reported_before_the_fault_is_none_of_it(self) -> None:
        assert data.detection(REPORTS, 12.6, 13.0) is None
        assert data.detection(REPORTS, 15.5, 16.0) is None

    def test_recovery_is_the_healthy_that_stayed(self) -> None:
        assert data.recovery(REPORTS, 13.0, 20.0) == pytest.approx(2.0)
        relapse = [*REPORTS, Report(16.0, "LACPTimeout"), Report(17.0, "Healthy")]
        assert data.recovery(relapse, 13.0, 20.0) == pytest.approx(4.0)

    def test_no_recovery(self) -> None:
        assert data.recovery(REPORTS[:3], 13.0, 20.0) is None, "still degraded"
        assert data.recovery(REPORTS[:1], 13.0, 20.0) is None, "never anything else"

    def test_before_during_after(self) -> None:
        assert data.verdict_at(REPORTS, 10.0) == "Healthy"
        assert data.verdicts_between(REPORTS, 10.0, 13.0) == ("Degraded",)
        assert data.verdict_at([], 1.0) == ""


class TestRates:
    SAMPLES = (sample(0, 0, 0), sample(1, 100, 1000), sample(2, 200, 3000))

    def test_sent_and_confirmed(self) -> None:
        assert data.sent_between(self.SAMPLES, 1.0, 2.0) == 200
        assert data.rate_between(self.SAMPLES, 1.0, 2.0) == pytest.approx(4000)

    def test_no_time_no_rate(self) -> None:
        assert data.rate_between(self.SAMPLES, 1.2, 1.3) == 0.0

    def test_no_samples(self) -> None:
        with pytest.raises(ValueError, match="no samples"):
            data.sample_at([], 1.0)


class TestClocks:
    def test_the_quickest_round_trip_counts(self) -> None:
        fit = best_fit([(0.0, 105.0, 1.0), (2.0, 102.1, 2.2), (3.0, 104.0, 3.5)])
        assert (fit.at, fit.error) == (pytest.approx(2.1), pytest.approx(0.1))
        assert fit.offset == pytest.approx(100.0)

    @given(drift=st.floats(-1e-3, 1e-3), offset=st.floats(-1e6, 1e6), at=st.floats(0, 100))
    def test_a_clock_that_drifts_evenly_is_translated_exactly_between_two_looks(
        self, drift: float, offset: float, at: float
    ) -> None:
        now = 0.0

        def guest(host: float) -> float:
            return host + offset + drift * host

        clocks = ClockMap(lambda: (now, guest(now), now))
        clocks.look()
        now = 100.0
        clocks.look()
        assert clocks.to_host(guest(at)) == pytest.approx(at, abs=1e-6)

    def test_never_compared(self) -> None:
        with pytest.raises(ValueError, match="never compared"):
            ClockMap(lambda: (0.0, 0.0, 0.0)).to_host(1.0)


class TestMonitor:
    def test_each_kind_of_line(self) -> None:
        greeting = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}}}
        assert parse(json.dumps(greeting).encode()) == Greeting("7.2.22")
        assert parse(b'{"return": {}, "id": 3}') == Answer(3, {})
        refused = b'{"id": 4, "error": {"class": "GenericError", "desc": "Device \'x\' not found"}}'
        assert parse(refused) == Answer(4, error="GenericError: Device 'x' not found")
        assert parse(b'{"event": "STOP", "data": {"a": 1}}') == Event("STOP", {"a": 1})

    @pytest.mark.parametrize("line", [b"", b"[]", b'{"hello": 1}', b"QEMU 7.2"])
    def test_what_is_no_qmp(self, line: bytes) -> None:
        with pytest.raises(ValueError, match=r"not QMP|Expecting value"):
            parse(line)


class TestSightings:
    def test_a_report(self) -> None:
        ports = [{"name": "eth1", "usable": False}, {"name": "eth2", "usable": True}, {"name": "eth3"}]
        status = {
            "bond": {"name": "bond0", "verdict": "Degraded", "mode": "802.3ad"},
            "bonds": [
                {"name": "bond1", "ports": [], "notes": ["SilentPathUnverified"]},
                {"name": "bond0", "ports": ports, "notes": ["PortsOmitted"]},
            ],
        }
        seen = Sighting(1.0, {"metadata": {"name": "host-b"}, "status": status})
        assert (seen.node, seen.verdict, seen.mode, seen.usable) == ("host-b", "Degraded", "802.3ad", {"eth2"})
        assert seen.notes == {"PortsOmitted"}

    def test_none_yet(self) -> None:
        seen = Sighting(1.0, {"metadata": {"name": "host-b"}, "spec": {}})
        assert (seen.verdict, seen.mode, seen.usable, seen.notes) == ("", "", frozenset(), frozenset())
