"""The LubanHost's status from a judgement, and when bonds are read."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luban.api.host import MAX_BONDS, MAX_PORTS, LubanHost, LubanHostSpec
from luban.core.bonds.host import BondExpectation, HostMemory, judge_host
from luban.core.bonds.model import BondReading, HostReading
from luban.node_agent.metrics import Metrics
from luban.node_agent.reporter import Reporter
from luban.node_agent.schedule import ECHOES, SPACING, Schedule
from luban.node_agent.status import expectation_of, status_of
from tests.unit.core.bond_states import START, STATES, from_netlink
from tests.unit.core.test_bond_rules import backup, lacp, port
from tests.unit.node_agent.test_node_agent import DEGRADED, DOWN, HEALTHY, FakeApi, VirtualClock


class TestStatus:
    """The status alone."""

    @pytest.mark.parametrize("state", STATES)
    def test_every_recorded_state_makes_a_status_that_can_be_read(self, state: str) -> None:
        judged = judge_host(HostReading(START, (from_netlink(state),)), BondExpectation(), HostMemory(), START)
        status = status_of(judged, None, 3, START)
        body = {"metadata": {"name": "host-b"}, "status": json.loads(json.dumps(status.wire()))}
        assert LubanHost.parse(body).status == status

    def test_states_are_hexadecimal(self) -> None:
        judged = judge_host(
            HostReading(START, (from_netlink("lacp-silent-eth1-expired"),)), BondExpectation(), HostMemory(), START
        )
        first = status_of(judged, None, 0, START).bonds[0].ports[0]
        assert (first.actor_state, first.partner_state, first.usable) == ("0x8f", "0x37", False)
        assert first.message == "LACP partner does not answer (actor EXPIRED 0x8f)"

    def test_sizes_are_bounded_and_what_matters_stays(self) -> None:
        ports = [port(f"eth{number:03}") for number in range(200)]
        ports[150] = replace(ports[150], carrier=False)
        bonds = [lacp(*ports, name=f"bond{number:03}") for number in range(40)]
        judged = judge_host(HostReading(START, tuple(bonds), ("bond039",)), BondExpectation(), HostMemory(), START)
        status = status_of(judged, None, 0, START)
        assert (len(status.bonds), status.notes) == (MAX_BONDS, ("BondsOmitted",))
        assert status.bonds[-1].name == "bond039"
        assert (len(status.bonds[0].ports), status.bonds[0].notes) == (MAX_PORTS, ("PortsOmitted",))
        assert "eth150" in {one.name for one in status.bonds[0].ports}
        assert status.bonds[0].total == 200
        assert len(json.dumps(status.wire())) < 400_000

    def test_metrics_and_status_show_the_same(self) -> None:
        ports = [port(f"eth{number:03}") for number in range(60)]
        ports[50] = replace(ports[50], carrier=False)
        bonds = [lacp(*ports, name=f"bond{number:03}") for number in range(40)]
        bonds[30] = replace(bonds[30], carrier=False)
        judged = judge_host(HostReading(START, tuple(bonds), ("bond039",)), BondExpectation(), HostMemory(), START)
        status = status_of(judged, None, 0, START)
        metrics = Metrics(Reporter(FakeApi(), "host-b", VirtualClock(), lambda _: None, 60.0))
        metrics.judgement = judged
        (usable,) = [it for it in metrics.registry.collect() if it.name == "luban_bond_port_usable"]
        measured = {(it.labels["bond"], it.labels["port"]): it.value for it in usable.samples}
        assert measured == {(bond.name, one.name): one.usable for bond in status.bonds for one in bond.ports}
        assert len(measured) == MAX_BONDS * MAX_PORTS
        assert {"bond030", "bond039"} <= {bond.name for bond in status.bonds}, "the worst and the one that counts"

    def test_control_characters_are_escaped(self) -> None:
        judged = judge_host(HostReading(START, trouble="bad\x1b[2J\x7f\n"), BondExpectation(), HostMemory(), START)
        assert status_of(judged, None, 0, START).conditions[0].message == r"bad\x1b[2J\x7f\x0a"

    def test_long_messages_are_cut(self) -> None:
        reading = lacp(*(port("x" * 400 + str(number), carrier=False) for number in range(4)))
        status = status_of(
            judge_host(HostReading(START, (reading,)), BondExpectation(), HostMemory(), START), None, 0, START
        )
        assert len(status.bonds[0].message) == 1024
        assert {len(one.name) for one in status.bonds[0].ports} == {64}

    @pytest.mark.parametrize(
        ("reading", "speed"),
        [
            (HEALTHY, 2000),
            (DEGRADED, 1000),
            (backup(), 1000),
            (backup(active_slave=None), None),
            (DOWN, 2000),
            (lacp(port(speed_mbps=None), port("eth2")), None),
            (lacp(port(carrier=False)), None),
        ],
    )
    def test_speed(self, reading: BondReading, speed: int | None) -> None:
        status = status_of(
            judge_host(HostReading(START, (reading,)), BondExpectation(), HostMemory(), START), None, 0, START
        )
        assert status.bond is not None
        assert status.bond.speed == speed

    def test_the_spec_in_words_of_the_rules(self) -> None:
        spec = {"bond": "bond1", "expectedPorts": [{"bond": "bond1", "ports": 2}], "flapping": {"window": "2m"}}
        expectation = expectation_of(LubanHostSpec.model_validate(spec))
        assert (expectation.bond, dict(expectation.expected_ports)) == ("bond1", {"bond1": 2})
        assert (expectation.settings.hold_seconds, expectation.settings.flapping_window_seconds) == (10.0, 120.0)
        assert expectation_of(LubanHostSpec()) == BondExpectation(), "the spec's defaults are the rules' own"


class TestSchedule:
    """When to read."""

    def test_at_once_then_regularly(self) -> None:
        schedule = Schedule(1.0, 100.0)
        assert schedule.due() == 100.0
        schedule.reading(100.0)
        assert schedule.due() == 101.0

    def test_an_event_and_its_echoes(self) -> None:
        schedule = Schedule(5.0, 0.0)
        schedule.reading(0.0)
        schedule.event(1.0)
        seen = []
        while (due := schedule.due()) < 6.0:
            seen.append(due)
            schedule.reading(due)
        assert seen == pytest.approx([1.0, 1.15, 5.0])

    @settings(deadline=None)
    @given(events=st.lists(st.floats(0.0, 20.0), max_size=50).map(sorted), resync=st.sampled_from([0.5, 1.0, 5.0]))
    def test_every_event_is_followed(self, events: list[float], resync: float) -> None:
        schedule, reads, waiting = Schedule(resync, 0.0), [], list(events)
        while (due := schedule.due()) < 40.0:
            if waiting and waiting[0] <= due:
                schedule.event(waiting.pop(0))
            else:
                schedule.reading(due)
                reads.append(due)
        gaps = [after - before for before, after in itertools.pairwise(reads)]
        assert all(SPACING - 1e-9 <= gap <= resync + SPACING + 1e-9 for gap in gaps)
        for event in events:
            assert any(event <= at <= event + SPACING + 1e-9 for at in reads), "at once"
        if events:
            for delay in ECHOES:
                assert any(at == pytest.approx(events[-1] + delay, abs=SPACING) for at in reads)
