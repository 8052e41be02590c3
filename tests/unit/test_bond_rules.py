"""The rules one by one, at their boundaries; hold, flapping, since; and what holds for every reading."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luban.api.host import BondMode, BondVerdict, Churn, Mii, PortState
from luban.core.bond_model import (
    SEVERITY,
    BondMemory,
    BondReading,
    HostReading,
    Judgement,
    PortReading,
    Settings,
    is_good,
    rank,
)
from luban.core.bonds import SAMPLES, HostJudgement, Wish, blank, judge, judge_host, primary, recall
from tests.unit.bond_states import START, from_netlink

MAC = "52:54:00:00:00:03"
ZERO = "00:00:00:00:00:00"


def port(name: str = "eth1", **changed: Any) -> PortReading:
    """A healthy LACP port."""
    good = PortReading(
        name=name,
        admin_up=True,
        carrier=True,
        mii="up",
        state="active",
        speed_mbps=1000,
        duplex="full",
        link_failures=0,
        carrier_downs=1,
        aggregator=1,
        actor_state=0x3F,
        partner_state=0x3F,
        churn_actor="none",
        churn_partner="none",
    )
    return replace(good, **changed)


def lacp(*ports: PortReading, **changed: Any) -> BondReading:
    """A healthy LACP bond."""
    good = BondReading(
        name="bond0",
        mode="802.3ad",
        admin_up=True,
        carrier=True,
        mii="up",
        miimon=100,
        arp_interval=0,
        min_links=0,
        aggregator=1,
        partner_mac=MAC,
        lacp_rate="fast",
        ports=ports or (port("eth1"), port("eth2")),
    )
    return replace(good, **changed)


def backup(*ports: PortReading, **changed: Any) -> BondReading:
    """A healthy active-backup bond."""
    plain = {"aggregator": None, "actor_state": None, "partner_state": None, "churn_actor": None, "churn_partner": None}
    chosen = ports or (port("eth1", **plain), port("eth2", state="backup", **plain))
    return lacp(
        *chosen, **{"mode": "active-backup", "active_slave": "eth1", "aggregator": None, "partner_mac": None, **changed}
    )


def found(reading: BondReading, expected: int | None = None) -> tuple[BondVerdict, ...]:
    """Every verdict of a reading that is seen for the first time."""
    return judge(reading, expected, None, START).reasons


class Watched:
    """A bond under a clock."""

    def __init__(self, settings: Settings | None = None, expected: int | None = None) -> None:
        self.now = START
        self.memory: BondMemory | None = None
        self.settings = settings or Settings()
        self.expected = expected

    def sees(self, reading: BondReading, after: float = 0.0) -> Judgement:
        """A reading, some seconds after the last one."""
        self.now += after
        judgement = judge(reading, self.expected, self.memory, self.now, self.settings)
        self.memory = judgement.memory
        return judgement


class TestRules:
    """Each rule alone: what matches and what just does not."""

    def test_healthy(self) -> None:
        judgement = judge(lacp(), None, None, START)
        assert (judgement.verdict, judgement.message) == ("Healthy", "2 of 2 ports carry traffic")
        assert (judgement.active, judgement.total, judgement.since) == (2, 2, START)
        assert judge(backup(), None, None, START).message == "2 of 2 ports can carry traffic"

    def test_no_ports(self) -> None:
        assert found(lacp(ports=())) == ("Down",)
        assert found(lacp(ports=()), 2) == ("Down", "Degraded")

    def test_no_ports_that_are_known_of(self) -> None:
        assert found(lacp(ports=(), ports_known=False)) == ("Unknown",)

    def test_bond_without_carrier(self) -> None:
        assert found(lacp(carrier=False)) == ("Down",)

    def test_bond_that_is_set_down_keeps_its_carrier(self) -> None:
        assert found(lacp(admin_up=False)) == ("Down",)

    def test_no_usable_port(self) -> None:
        assert found(lacp(port(carrier=False), port("eth2", mii="down"))) == ("Down", "Degraded")

    def test_a_bond_that_is_not_there(self) -> None:
        assert found(BondReading("bond9", exists=False), 2) == ("Down",)

    def test_both_silent_is_down_though_the_bond_keeps_its_carrier(self) -> None:
        silent = {"actor_state": 0x8F, "partner_state": 0x37}
        assert found(lacp(port(**silent), port("eth2", **silent))) == ("Down", "LACPTimeout", "Degraded")

    @pytest.mark.parametrize(("minimum", "matches"), [(0, False), (1, False), (2, True)])
    def test_min_links(self, minimum: int, matches: bool) -> None:
        reading = lacp(port(), port("eth2", carrier=False), min_links=minimum)
        assert ("MinLinksNotMet" in found(reading)) == matches
        assert found(reading)[0] == ("MinLinksNotMet" if matches else "Degraded")

    @pytest.mark.parametrize(
        ("bits", "matches"),
        [({"actor_state": 0x47}, True), ({"partner_state": 0}, True), ({"actor_state": 0x3F}, False)],
    )
    def test_a_port_without_a_partner(self, bits: dict[str, int], matches: bool) -> None:
        assert ("NoPartner" in found(lacp(port(), port("eth2", **bits)))) == matches

    def test_a_pulled_cable_is_not_a_missing_partner(self) -> None:
        unplugged = port("eth2", carrier=False, mii="down", actor_state=0x45, partner_state=0)
        assert found(lacp(port(), unplugged)) == ("Degraded",)

    def test_partner_zero_of_the_bond(self) -> None:
        assert found(lacp(partner_mac=ZERO))[0] == "NoPartner"

    def test_the_port_that_is_let_through_without_a_partner_is_not_down(self) -> None:
        alone = port(actor_state=0x4F, partner_state=0)
        idle = port("eth2", actor_state=0x47, partner_state=0, aggregator=2, state="backup")
        assert found(lacp(alone, idle, partner_mac=ZERO)) == ("NoPartner", "Degraded")
        assert found(lacp(replace(alone, carrier=False), idle, partner_mac=ZERO))[0] == "Down"
        assert found(lacp(replace(alone, aggregator=3), idle, partner_mac=ZERO))[0] == "Down"
        assert found(lacp(replace(alone, state="backup"), idle, partner_mac=ZERO))[0] == "Down"

    @pytest.mark.parametrize(("mii", "matches"), [("up", True), ("going-down", False), ("down", False)])
    def test_timeout_needs_a_link(self, mii: Mii, matches: bool) -> None:
        reading = lacp(port(), port("eth2", actor_state=0xBF, mii=mii))
        assert ("LACPTimeout" in found(reading)) == matches
        assert "Degraded" in found(reading)

    def test_aggregators_must_differ_for_five_seconds(self) -> None:
        split = lacp(port(), port("eth2", aggregator=2, state="backup", actor_state=0x07, partner_state=0x0F))
        watched = Watched()
        assert watched.sees(split).reasons == ("Degraded",)
        assert watched.sees(split, 4.9).reasons == ("Degraded",)
        assert watched.sees(split, 0.1).reasons == ("AggregatorMismatch", "Degraded")
        assert watched.sees(lacp(), 1.0).found == "Healthy"
        assert watched.sees(split, 1.0).reasons == ("Degraded",), "begins anew"

    @pytest.mark.parametrize("other", [{"speed_mbps": 100}, {"duplex": "half"}])
    def test_unlike_ports(self, other: dict[str, Any]) -> None:
        split = lacp(port(), port("eth2", aggregator=2, state="backup", partner_state=0x07, **other))
        watched = Watched()
        watched.sees(split)
        assert watched.sees(split, 5.0).reasons == ("SpeedMismatch", "Degraded")

    def test_different_partners_outweigh_different_speeds(self) -> None:
        split = lacp(
            port(partner_mac=MAC),
            port("eth2", aggregator=2, state="backup", speed_mbps=100, partner_mac="52:54:00:00:00:09"),
        )
        watched = Watched()
        watched.sees(split)
        assert watched.sees(split, 5.0).found == "AggregatorMismatch"

    @pytest.mark.parametrize(
        "change", [{"carrier": False}, {"partner_state": 0}, {"actor_state": 0x47}, {"admin_up": False}]
    )
    def test_ports_without_a_real_partner_do_not_mismatch(self, change: dict[str, Any]) -> None:
        split = lacp(port(), port("eth2", aggregator=2, state="backup", **change))
        watched = Watched()
        watched.sees(split)
        assert "AggregatorMismatch" not in watched.sees(split, 60.0).reasons

    @pytest.mark.parametrize("side", ["churn_actor", "churn_partner"])
    def test_churned(self, side: str) -> None:
        churned: dict[str, Any] = {side: "churned"}
        assert found(lacp(port(), port("eth2", **churned))) == ("Churned",)
        monitored: dict[str, Any] = {side: "monitoring"}
        assert found(lacp(port(), port("eth2", **monitored))) == ("Healthy",), "normal in the first minute"

    def test_fewer_ports_than_expected(self) -> None:
        judgement = judge(lacp(port()), 2, None, START)
        assert (judgement.verdict, judgement.active, judgement.total) == ("Degraded", 1, 2)
        assert judgement.message == "2 ports are expected, the bond has 1, 1 of 2 ports carry traffic"
        assert found(lacp(), 2) == ("Healthy",)
        assert found(lacp(port(), port("eth2", carrier=False)), 1) == ("Degraded",), "a dead port is never healthy"

    def test_nobody_watches_the_links(self) -> None:
        assert found(backup(miimon=0)) == ("MonitoringDisabled",)
        assert found(backup(miimon=0, arp_interval=100)) == ("Healthy",)

    def test_going_back(self) -> None:
        reading = backup(port("eth1"), port("eth2", mii="going-back"))
        assert found(reading) == ("Degraded", "Recovering")

    def test_a_moment_after_the_carrier_came_back(self) -> None:
        watched = Watched(Settings(hold_seconds=0.0))
        plain = backup()
        lost = replace(plain, ports=(plain.ports[0], replace(plain.ports[1], carrier=False, mii="down")))
        assert watched.sees(plain).verdict == "Healthy", "what was up at first sight does not recover"
        assert watched.sees(lost, 1.0).verdict == "Degraded"
        assert watched.sees(plain, 1.0).verdict == "Recovering"
        assert watched.sees(plain, 2.39).verdict == "Recovering"
        assert watched.sees(plain, 0.02).verdict == "Healthy"

    def test_a_flap_between_two_readings_recovers_too(self) -> None:
        watched = Watched(Settings(hold_seconds=0.0))
        watched.sees(lacp())
        flapped = lacp(port(carrier_downs=2), port("eth2"))
        assert watched.sees(flapped, 1.0).verdict == "Recovering"
        assert watched.sees(flapped, 2.5).verdict == "Healthy"

    def test_silent_paths_are_a_note_only(self) -> None:
        judgement = judge(backup(), None, None, START)
        assert (judgement.verdict, judgement.notes) == ("Healthy", ("SilentPathUnverified",))
        assert judge(backup(arp_interval=100), None, None, START).notes == ()
        assert judge(lacp(), None, None, START).notes == ()

    def test_long_lists_are_cut(self) -> None:
        ports = [port(f"eth{number}", carrier=False) for number in range(20)]
        message = judge(lacp(port("eth99"), *ports), None, None, START).message
        assert "and 16 more" in message
        assert message.count("no carrier") == 4


class TestMissingData:
    """No data is never good."""

    @pytest.mark.parametrize(
        "name", ["admin_up", "carrier", "mii", "state", "aggregator", "actor_state", "partner_state"]
    )
    def test_a_port_with_a_gap(self, name: str) -> None:
        gap: dict[str, Any] = {name: None}
        judgement = judge(lacp(port(), port("eth2", **gap)), None, None, START)
        assert judgement.reasons == ("Unknown",)
        assert "eth2: no data" in judgement.message
        assert [one.usable for one in judgement.ports] == [True, None]

    @pytest.mark.parametrize("name", ["speed_mbps", "duplex", "link_failures", "carrier_downs", "churn_actor"])
    def test_facts_that_health_does_not_hang_on(self, name: str) -> None:
        gap: dict[str, Any] = {name: None}
        assert found(lacp(port(**gap), port("eth2", **gap))) == ("Healthy",)

    @pytest.mark.parametrize("name", ["mode", "carrier", "miimon", "aggregator"])
    def test_a_bond_with_a_gap(self, name: str) -> None:
        gap: dict[str, Any] = {name: None}
        reading = backup(**{**gap, "arp_interval": 0}) if name == "miimon" else lacp(**gap)
        assert found(reading) == ("Unknown",)

    def test_down_is_possible_so_unknown_comes_before_degraded(self) -> None:
        assert found(lacp(port(mii="down"), port("eth2", actor_state=None))) == ("Unknown", "Degraded")

    def test_what_is_known_to_be_impaired_is_said(self) -> None:
        reading = lacp(port(), port("eth2", mii="down"), port("eth3", actor_state=None))
        assert found(reading) == ("Degraded", "Unknown")

    def test_ports_that_may_be_missing(self) -> None:
        assert found(lacp(ports_known=False)) == ("Unknown",)

    def test_a_blank_reading(self) -> None:
        reading = HostReading(START, (lacp(),), ("bond0",))
        emptied = judge_host(blank(reading, "no answer", START), Wish(), {}, START)
        assert (emptied.verdict, emptied.trouble) == ("Unknown", "no answer")
        assert judge_host(HostReading(START, trouble="no answer"), Wish(), {}, START).verdict == "Unknown"
        assert judge_host(HostReading(START), Wish(), {}, START).verdict == "None"


class TestTime:
    """Hold, flapping, since."""

    def test_worse_at_once_better_after_the_hold(self) -> None:
        watched = Watched()
        down = lacp(carrier=False)
        assert watched.sees(lacp()).verdict == "Healthy"
        worse = watched.sees(down, 100.0)
        assert (worse.verdict, worse.since) == ("Down", START + 100)
        held = watched.sees(lacp(), 1.0)
        assert (held.verdict, held.found, held.held, held.since) == ("Down", "Healthy", True, START + 100)
        assert held.message == (
            "the bond has no carrier, 2 of 2 ports carry traffic "
            "(over: now Healthy; Down until it has been better for 10 s)"
        )
        assert watched.sees(lacp(), 8.9).verdict == "Down"
        better = watched.sees(lacp(), 0.1)
        assert (better.verdict, better.since) == ("Healthy", START + 110)

    def test_better_in_steps(self) -> None:
        watched = Watched()
        degraded = lacp(port(), port("eth2", carrier=False))
        watched.sees(lacp(carrier=False))
        watched.sees(degraded, 1.0)
        assert watched.sees(lacp(), 8.0).verdict == "Down"
        assert watched.sees(lacp(), 1.0).verdict == "Degraded", "the worst of the last 10 s"
        assert watched.sees(lacp(), 1.0).verdict == "Recovering", "eth2 has had its carrier for 2 s"
        watched.sees(lacp(), 1.0)
        assert watched.sees(lacp(), 9.0).verdict == "Healthy"

    def test_a_relapse_holds_on(self) -> None:
        watched = Watched()
        for _ in range(5):
            watched.sees(lacp(carrier=False), 1.0)
            assert watched.sees(lacp(), 5.0).verdict == "Down"
        assert watched.sees(lacp(), 5.0).verdict == "Healthy"

    def test_since_is_kept_while_the_verdict_is(self) -> None:
        watched = Watched()
        watched.sees(lacp())
        assert watched.sees(lacp(port(link_failures=4), port("eth2")), 50.0).since == START

    def test_since_survives_a_restart(self) -> None:
        memory = judge(lacp(), None, None, START).memory
        assert recall(memory, "Healthy", START - 500).since == START - 500
        assert recall(memory, "Down", START - 500).since == START
        assert recall(memory, "Healthy", START + 500).since == START
        unseen = BondMemory("Healthy", START - 500)
        assert judge(lacp(), None, unseen, START).since == START - 500
        assert judge(lacp(carrier=False), None, unseen, START).since == START

    def test_a_clock_that_is_set_back_does_not_hold_for_hours(self) -> None:
        watched = Watched()
        watched.sees(lacp(carrier=False))
        watched.sees(lacp(), -3600.0)
        assert watched.sees(lacp(), 10.0).verdict == "Healthy"

    @pytest.mark.parametrize(("downs", "verdict"), [(2, "Healthy"), (3, "Flapping")])
    def test_flapping(self, downs: int, verdict: BondVerdict) -> None:
        watched = Watched(Settings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=7), port("eth2")))
        for number in range(downs):
            watched.sees(lacp(port(carrier_downs=8 + number), port("eth2")), 4.0)
        later = lacp(port(carrier_downs=7 + downs), port("eth2"))
        assert watched.sees(later, 3.0).verdict == verdict
        if verdict == "Flapping":
            assert "eth1: carrier lost 3 times within 60 s" in watched.sees(later).message

    def test_flapping_ends_with_its_window(self) -> None:
        watched = Watched(Settings(hold_seconds=0.0, flapping_window_seconds=60.0))
        watched.sees(lacp(port(carrier_downs=0), port("eth2")))
        after = lacp(port(carrier_downs=3), port("eth2"))
        watched.sees(after, 1.0)
        assert watched.sees(after, 59.9).verdict == "Flapping"
        assert watched.sees(after, 0.1).verdict == "Healthy"

    def test_flaps_that_polling_misses_count(self) -> None:
        """All that one reading sees is the counter."""
        watched = Watched(Settings(hold_seconds=0.0))
        watched.sees(lacp())
        assert watched.sees(lacp(port(carrier_downs=13), port("eth2")), 1.0).verdict == "Flapping"

    def test_a_counter_that_begins_anew_is_no_flap(self) -> None:
        watched = Watched(Settings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=40), port("eth2")))
        assert watched.sees(lacp(port(carrier_downs=0), port("eth2")), 1.0).verdict == "Healthy"
        assert watched.sees(lacp(port(carrier_downs=1), port("eth2")), 9.0).found != "Flapping"

    def test_another_counter_is_no_flap(self) -> None:
        watched = Watched(Settings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=None, link_failures=0), port("eth2")))
        assert watched.sees(lacp(port(carrier_downs=40), port("eth2")), 1.0).verdict == "Healthy"

    def test_old_kernels_have_the_bonds_own_count(self) -> None:
        watched = Watched(Settings(hold_seconds=0.0))
        watched.sees(lacp(port(carrier_downs=None, link_failures=5), port("eth2")))
        last = lacp(port(carrier_downs=None, link_failures=9), port("eth2"))
        assert watched.sees(last, 1.0).verdict == "Flapping"

    @settings(deadline=None)
    @given(steps=st.lists(st.tuples(st.floats(0.001, 5.0), st.integers(0, 9)), min_size=1, max_size=200))
    def test_memory_stays_small(self, steps: list[tuple[float, int]]) -> None:
        watched, count = Watched(), 0
        for after, more in steps:
            count += more
            watched.sees(lacp(port(carrier_downs=count), port("eth2")), after)
        assert watched.memory is not None
        assert len(watched.memory.ports["eth1"].downs) <= SAMPLES + 3
        assert len(watched.memory.seen) <= len(SEVERITY)

    @settings(deadline=None)
    @given(steps=st.lists(st.tuples(st.floats(0.001, 20.0), st.integers(0, 3)), min_size=1, max_size=60))
    def test_flaps_are_counted_nearly_exactly(self, steps: list[tuple[float, int]]) -> None:
        """Never fewer than within the window; more only by what is one bucket older."""
        watched, count, history = Watched(), 0, [(START, 0)]
        watched.sees(lacp(port(carrier_downs=0), port("eth2")))
        for after, more in steps:
            count += more
            judgement = watched.sees(lacp(port(carrier_downs=count), port("eth2")), after)
            history.append((watched.now, count))
            window = watched.settings.flapping_window_seconds
            least = count - _at(history, watched.now - window)
            most = count - _at(history, watched.now - window * (1 + 2 / SAMPLES))
            flapping = "Flapping" in judgement.reasons
            assert flapping or least < 3
            assert not flapping or most >= 3


def _at(history: list[tuple[float, int]], when: float) -> int:
    """The counter's value at a time; before the first look: the first value."""
    return max((count for at, count in history if at <= when), default=history[0][1])


class TestHost:
    """Which bond counts, and what placement makes of it."""

    def reading(self, *devices: str, **carries: tuple[str, ...]) -> HostReading:
        bonds = tuple(lacp(name=name, carries=above) for name, above in carries.items())
        return HostReading(START, bonds, devices)

    def test_the_named_one(self) -> None:
        chosen = primary(self.reading("bond0", bond0=(), bond1=()), "bond1")
        assert chosen is not None
        assert chosen.name == "bond1"

    @pytest.mark.parametrize(
        ("devices", "name"),
        [
            (("bond1",), "bond1"),
            (("br0",), "bond1"),
            (("bond1.100",), "bond1"),
            (("eth9", "br0"), "bond1"),
            (("eth9",), "bond0"),
            ((), "bond0"),
        ],
    )
    def test_the_one_below_the_default_route(self, devices: tuple[str, ...], name: str) -> None:
        chosen = primary(self.reading(*devices, bond0=("br9",), bond1=("bond1.100", "br0")))
        assert chosen is not None
        assert chosen.name == name

    def test_no_bond(self) -> None:
        assert primary(HostReading(START)) is None
        judged = judge_host(HostReading(START), Wish(), {}, START)
        assert (judged.bonds, judged.verdict) == ((), "None")

    def test_bonds_that_the_spec_names_and_the_kernel_has_not(self) -> None:
        wish = Wish(bond="bond7", expected_ports={"bond7": 2, "bond8": 2})
        judged = judge_host(self.reading(bond0=()), wish, {}, START)
        assert {bond.reading.name: bond.verdict for bond in judged.bonds} == {
            "bond0": "Healthy",
            "bond7": "Down",
            "bond8": "Down",
        }
        assert judged.verdict == "Down"
        assert judge_host(self.reading(bond0=()), Wish(expected_ports={"aa": 1}), {}, START).verdict == "Healthy"

    def test_memory_of_bonds_that_are_gone_goes(self) -> None:
        first = judge_host(self.reading(bond0=(), bond1=()), Wish(), {}, START)
        second = judge_host(self.reading(bond0=()), Wish(), first.memory, START)
        assert set(second.memory) == {"bond0"}

    def test_ranks(self) -> None:
        ranked = sorted(get_args(BondVerdict), key=rank)
        assert ranked[:2] == ["Down", "Unknown"]
        assert set(ranked[-3:]) == {"Healthy", "Recovering", "None"}
        assert len({rank(verdict) for verdict in ranked[2:-3]}) == 1
        assert [verdict for verdict in ranked if is_good(verdict)] == ["Healthy", "Recovering"]
        assert set(SEVERITY) == set(get_args(BondVerdict))


# For every reading

_maybe = st.sampled_from([None, True, True, True, False])
_bits = st.none() | st.sampled_from([0x3F, 0x3D, 0x3F, 0x8F, 0x47, 0x4F, 0x0F, 0]) | st.integers(0, 255)
_ports = st.builds(
    PortReading,
    name=st.sampled_from(["eth1", "eth2", "eth3", "p\\xff"]),
    admin_up=_maybe,
    carrier=_maybe,
    mii=st.none() | st.sampled_from(["up", *get_args(Mii)]),
    state=st.none() | st.sampled_from(["active", *get_args(PortState)]),
    speed_mbps=st.none() | st.sampled_from([100, 1000]),
    duplex=st.none() | st.sampled_from(["full", "half"]),
    link_failures=st.none() | st.integers(0, 20),
    carrier_downs=st.none() | st.integers(0, 20),
    aggregator=st.none() | st.sampled_from([0, 1, 1, 2]),
    actor_state=_bits,
    partner_state=_bits,
    churn_actor=st.none() | st.sampled_from(get_args(Churn)),
    churn_partner=st.none() | st.sampled_from(get_args(Churn)),
    partner_mac=st.none() | st.sampled_from([MAC, ZERO]),
)
_readings = st.builds(
    BondReading,
    name=st.just("bond0"),
    mode=st.none() | st.sampled_from(["802.3ad", "802.3ad", *get_args(BondMode)]),
    admin_up=_maybe,
    carrier=_maybe,
    miimon=st.none() | st.sampled_from([0, 100]),
    arp_interval=st.none() | st.sampled_from([0, 100]),
    min_links=st.none() | st.integers(0, 3),
    aggregator=st.none() | st.sampled_from([1, 1, 2]),
    partner_mac=st.none() | st.sampled_from([MAC, MAC, ZERO]),
    ports=st.lists(_ports, max_size=4, unique_by=lambda one: one.name).map(tuple),
    ports_known=st.sampled_from([True, True, False]),
    exists=st.sampled_from([True, True, True, False]),
)
_good_ports = st.lists(
    st.builds(port, name=st.sampled_from(["eth1", "eth2", "eth3"])), min_size=1, unique_by=lambda one: one.name
)


def faultless(reading: BondReading, expected: int | None) -> bool:
    """Another reading of what health needs: every single fact, checked without the rules."""
    lacp_bits = (0b111100, 0b11000000)
    for one in reading.ports:
        facts = [one.admin_up is True, one.carrier is True, one.mii == "up"]
        if reading.mode == "802.3ad":
            for state in (one.actor_state, one.partner_state):
                facts += [state is not None and state & lacp_bits[0] == lacp_bits[0] and state & lacp_bits[1] == 0]
            facts += [one.state == "active", one.aggregator is not None and one.aggregator == reading.aggregator]
            facts += [one.churn_actor != "churned", one.churn_partner != "churned"]
        if not all(facts):
            return False
    return bool(
        reading.exists
        and reading.ports_known
        and reading.ports
        and reading.mode is not None
        and reading.admin_up is not False
        and reading.carrier is True
        and len(reading.ports) >= max(reading.min_links or 0, expected or 0)
        and not (reading.mode == "802.3ad" and reading.partner_mac == ZERO)
        and (reading.miimon or reading.arp_interval)
    )


@given(reading=_readings, expected=st.none() | st.integers(0, 4))
@settings(deadline=None, max_examples=500)
def test_healthy_exactly_if_faultless(reading: BondReading, expected: int | None) -> None:
    judgement = judge(reading, expected, None, START)
    assert (judgement.verdict == "Healthy") == faultless(reading, expected)


@settings(deadline=None)
@given(bad=_ports, ports=_good_ports)
def test_one_bad_port_among_good_ones(bad: PortReading, ports: list[PortReading]) -> None:
    reading = lacp(*ports, replace(bad, name="eth9"))
    if not faultless(lacp(replace(bad, name="eth9")), None):
        judgement = judge(reading, None, None, START)
        assert judgement.verdict not in ("Healthy", "Recovering", "None")
        assert judgement.verdict != "Down", "the others carry traffic"


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(_readings, st.floats(0.0, 15.0)), min_size=1, max_size=12),
    expected=st.none() | st.integers(0, 4),
    hold=st.sampled_from([0.0, 10.0]),
)
def test_nothing_better_is_published_than_was_found_within_the_hold(
    steps: list[tuple[BondReading, float]], expected: int | None, hold: float
) -> None:
    watched, history, last = Watched(Settings(hold_seconds=hold), expected), [], None
    for reading, after in steps:
        judgement = watched.sees(reading, after)
        history.append((watched.now, judgement.found))
        recent = [judgement.found, *(verdict for at, verdict in history if watched.now - at < hold)]
        assert judgement.verdict == max(recent, key=SEVERITY.index)
        assert judgement.found == judgement.reasons[0]
        assert len(set(judgement.reasons)) == len(judgement.reasons)
        assert 0 <= judgement.active <= len(reading.ports) <= judgement.total
        if last is not None and last.verdict == judgement.verdict:
            assert judgement.since == last.since
        else:
            assert judgement.since == watched.now
        last = judgement


@settings(deadline=None)
@given(reading=_readings, devices=st.lists(st.sampled_from(["bond0", "br0", "eth9"]), max_size=2))
def test_a_host_has_the_verdict_of_its_bond(reading: BondReading, devices: list[str]) -> None:
    host = HostReading(START, (replace(reading, exists=True),), tuple(devices))
    judged: HostJudgement = judge_host(host, Wish(), {}, START)
    assert judged.verdict == judged.bonds[0].verdict


def test_judging_does_not_depend_on_the_order_of_ports() -> None:
    reading = from_netlink("lacp-silent-eth1-expired")
    turned = replace(reading, ports=tuple(reversed(reading.ports)))
    assert judge(reading, None, None, START).reasons == judge(turned, None, None, START).reasons
