"""The paper's failover experiment (section 4.3) on a real kernel, judged by the node agent through a real API server.

Four bonding modes; each cable pulled and put back, then made silent; streams and probes every 10 ms cross all the
time. The table that it prints is the run's report: latency from the monitor's command to the LubanHost in the API
server, packets lost, verdicts before, during and after.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rich.console import Console

from lab.bonds.data import Experiment, Outcome
from lab.bonds.experiment import run_experiment
from lab.bonds.guest import BondGuest, Fault
from lab.bonds.image import ensure_bond_guest
from lab.bonds.report import results_table
from lab.bonds.reporting import watched
from lab.bonds.settings import Mode
from lab.controlplane import ControlPlane
from luban.core.bonds.rules import SILENT_PATH

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

NODE = "host-b"
TABLE_WIDTH = 150
# Far from what is measured on an idle machine (docs/bonds.md; `make bench NAME=bond` holds it against polling), so that
# one passes as well that emulates several machines at once.
NOTICED_MS = 6000.0
"""From the monitor's command to the verdict in the API server, for a pulled cable."""
SILENT_NOTICED_MS = 10_000.0
"""The same for a partner that LACP (fast) does not hear any more: it waits for three periods of a second."""
MOST_LOST = 100
"""Probes that a pulled cable may cost, there and back: half a second of the two flows, which send one every 10 ms."""
SUSTAINED = 0.5
"""Part of the streams' rate that goes on over the other cable."""


@pytest.fixture(scope="module")
def experiment(luban_base: ControlPlane) -> Iterator[Experiment]:
    """All modes and faults, once."""
    with BondGuest(ensure_bond_guest()) as guest, watched(guest, luban_base, NODE) as observer:
        yield run_experiment(guest, tuple(Mode), (Fault.PULLED, Fault.SILENT), observer=observer)
    luban_base.kubectl("delete", "lubanhost", NODE)


def outcomes(experiment: Experiment, fault: Fault, *modes: Mode) -> list[Outcome]:
    """Both cables of each mode."""
    found = [it for it in experiment.outcomes() if it.fault is fault and it.mode in modes]
    assert len(found) == 2 * len(modes)
    return found


def test_the_report(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        console = Console(width=TABLE_WIDTH, highlight=False)
        console.print()
        console.print(results_table(experiment))
    assert [run.mode for run in experiment.runs] == list(Mode)


def test_a_pulled_cable_is_reported_in_every_mode_and_traffic_goes_on(experiment: Experiment) -> None:
    for outcome in outcomes(experiment, Fault.PULLED, *Mode):
        assert outcome.before == "Healthy", outcome
        assert "Degraded" in outcome.during, outcome
        assert outcome.after == "Healthy", outcome
        assert outcome.detected_ms is not None, outcome
        assert outcome.detected_ms < NOTICED_MS, outcome
        assert outcome.lost + outcome.lost_at_return <= MOST_LOST, outcome
        assert outcome.throughput > SUSTAINED, outcome


def test_a_partner_that_falls_silent_is_noticed_by_lacp(experiment: Experiment) -> None:
    for outcome in outcomes(experiment, Fault.SILENT, Mode.LACP):
        assert outcome.detected_ms is not None, outcome
        assert outcome.detected_ms < SILENT_NOTICED_MS, outcome
        assert {"LACPTimeout", "NoPartner"} & set(outcome.during), outcome
        assert outcome.after == "Healthy", outcome


def test_without_lacp_a_silent_path_goes_unnoticed_and_that_is_said(experiment: Experiment) -> None:
    """The verdict stays: nothing that the kernel tells changes. What the agent can say is its note."""
    for outcome in outcomes(experiment, Fault.SILENT, Mode.ACTIVE_BACKUP, Mode.ROUND_ROBIN, Mode.XOR):
        assert (outcome.detected_ms, outcome.during) == (None, ()), outcome
    for run in experiment.runs:
        notes = {SILENT_PATH in report.notes for report in run.reports}
        assert notes == {run.mode is not Mode.LACP}, run.mode
