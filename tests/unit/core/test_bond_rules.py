"""The rules one by one, at their boundaries, and what missing data makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luban.api.host import MAX_PORTS, BondVerdict, Mii
from luban.core.bonds.host import BondExpectation, HostMemory, judge_host
from luban.core.bonds.judge import FORGET_SECONDS, judge_bond
from luban.core.bonds.model import (
    BondMemory,
    BondReading,
    BondSettings,
    HostReading,
    Judgement,
    PortReading,
)
from tests.unit.core.bond_states import START

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
    return judge_bond(reading, expected, None, START).reasons


class Watched:
    """A bond under a clock."""

    def __init__(self, settings: BondSettings | None = None, expected: int | None = None) -> None:
        self.now = START
        self.memory: BondMemory | None = None
        self.settings = settings or BondSettings()
        self.expected = expected

    def sees(self, reading: BondReading, after: float = 0.0) -> Judgement:
        """A reading, some seconds after the last one."""
        self.now += after
        judgement = judge_bond(reading, self.expected, self.memory, self.now, self.settings)
        self.memory = judgement.memory
        return judgement


class TestRules:
    """Each rule alone: what matches and what just does not."""

    def test_healthy(self) -> None:
        judgement = judge_bond(lacp(), None, None, START)
        assert (judgement.verdict, judgement.message) == ("Healthy", "2 of 2 ports carry traffic")
        assert (judgement.active, judgement.total, judgement.since) == (2, 2, START)
        assert judge_bond(backup(), None, None, START).message == "2 of 2 ports can carry traffic"

    def test_no_ports(self) -> None:
        assert found(lacp(ports=())) == ("Down",)
        assert found(lacp(ports=()), 2) == ("Down", "Degraded")

    def test_no_ports_that_are_known_of(self) -> None:
        assert found(lacp(ports=(), ports_known=False)) == ("Unknown",)

    def test_bond_without_carrier(self) -> None:
        assert found(lacp(carrier=False)) == ("Down",)

    def test_bond_that_is_set_down_keeps_its_carrier(self) -> None:
        assert found(lacp(admin_up=False)) == ("Down",)

    def test_active_backup_without_an_active_port(self) -> None:
        ports = (port("eth1", state="backup"), port("eth2", state="backup"))
        assert found(backup(*ports, active_slave=None))[0] == "Down"
        assert found(backup())[0] == "Healthy"

    def test_active_backup_whose_active_port_was_taken_out(self) -> None:
        """A port that is gone has no state: it cannot be the active one."""
        idle = backup().ports[1]
        before = judge_bond(backup(), None, None, START)
        left = judge_bond(backup(idle, active_slave=None), None, before.memory, START + 1)
        assert left.reading.ports[1].gone_since is not None
        assert (left.found, left.message) == ("Down", "no port is the active one, 1 of 2 ports can carry traffic")

    def test_no_usable_port(self) -> None:
        assert found(lacp(port(carrier=False), port("eth2", mii="down"))) == ("Down", "Degraded")

    def test_a_bond_that_is_not_there(self) -> None:
        assert found(BondReading("bond9", exists=False), 2) == ("Down",)

    def test_both_silent_is_down_though_the_bond_keeps_its_carrier(self) -> None:
        silent = {"actor_state": 0x8F, "partner_state": 0x37}
        assert found(lacp(port(**silent), port("eth2", **silent))) == ("Down", "LACPTimeout", "Degraded")

    def test_min_links_mean_something_to_lacp_only(self) -> None:
        lost = backup(backup().ports[0], replace(backup().ports[1], carrier=False), min_links=2)
        assert found(lost) == ("Degraded",)

    def test_a_bond_that_the_kernel_keeps_down_for_its_min_links(self) -> None:
        reading = lacp(port(), port("eth2", carrier=False), min_links=2, carrier=False)
        judgement = judge_bond(reading, None, None, START)
        assert judgement.reasons == ("Down", "MinLinksNotMet", "Degraded")
        assert judgement.message == (
            "the kernel keeps the bond down, 2 links are the minimum (min_links) (eth2: no carrier), "
            "1 of 2 ports carry traffic"
        )
        assert judge_bond(replace(reading, min_links=1), None, None, START).message.startswith("eth2: no carrier")

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

    @pytest.mark.parametrize("bits", [{"actor_state": 0x3D, "partner_state": 0x39}, {"actor_state": 0x39}])
    def test_an_individual_link_carries_traffic_and_is_not_aggregated(self, bits: dict[str, int]) -> None:
        judgement = judge_bond(lacp(port(**bits)), None, None, START)
        assert judgement.reasons == ("NoPartner",)
        states = f"actor {bits['actor_state']:#04x}, partner {bits.get('partner_state', 0x3F):#04x}"
        assert judgement.message == f"eth1: no LACP partner that aggregates ({states}), 1 of 1 ports carry traffic"
        beside = lacp(port(**bits), port("eth2", aggregator=2, state="backup"))
        assert found(beside) == ("NoPartner", "Degraded")

    @pytest.mark.parametrize(
        "change",
        [
            {"partner_state": 0x31},
            {"actor_state": 0x29},
            {"partner_state": 0xB9},
            {"carrier": False},
            {"aggregator": 2},
        ],
    )
    def test_an_individual_link_that_carries_nothing_is_down(self, change: dict[str, Any]) -> None:
        assert found(lacp(port(**{"partner_state": 0x39, **change})))[0] == "Down"

    @pytest.mark.parametrize("bits", [{"actor_state": 0x45, "partner_state": 0x01}, {"partner_state": 0}])
    def test_a_half_duplex_port_is_told_by_its_duplex(self, bits: dict[str, int]) -> None:
        """The kernel speaks no LACP on it, so there may well be a partner."""
        slow = port("eth2", duplex="half", aggregator=2, **bits)
        judgement = judge_bond(lacp(port(), slow), None, None, START)
        assert judgement.reasons == ("NoPartner", "Degraded")
        assert judgement.message.startswith("eth2: half duplex, LACP needs full duplex (actor 0x")
        assert judgement.ports[1].trouble.startswith("half duplex, LACP needs full duplex (")
        assert "no LACP partner" not in judgement.message

    def test_a_bond_of_half_duplex_ports(self) -> None:
        bits = {"duplex": "half", "actor_state": 0x45, "partner_state": 0x01}
        bond = lacp(port(**bits), port("eth2", aggregator=2, **bits), partner_mac=ZERO)
        assert judge_bond(bond, None, None, START).message == (
            "eth1: half duplex, LACP needs full duplex (actor DEFAULTED 0x45); "
            "eth2: half duplex, LACP needs full duplex (actor DEFAULTED 0x45), 0 of 2 ports carry traffic"
        )

    def test_duplex_is_no_trouble_without_lacp(self) -> None:
        assert judge_bond(backup(port(duplex="half"), port("eth2", state="backup")), None, None, START).verdict == (
            "Healthy"
        )

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
        judgement = judge_bond(lacp(port()), 2, None, START)
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
        watched = Watched(BondSettings(hold_seconds=0.0))
        plain = backup()
        lost = replace(plain, ports=(plain.ports[0], replace(plain.ports[1], carrier=False, mii="down")))
        assert watched.sees(plain).verdict == "Healthy", "what was up at first sight does not recover"
        assert watched.sees(lost, 1.0).verdict == "Degraded"
        assert watched.sees(plain, 1.0).verdict == "Recovering"
        assert watched.sees(plain, 2.39).verdict == "Recovering"
        assert watched.sees(plain, 0.02).verdict == "Healthy"

    def test_a_flap_between_two_readings_recovers_too(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp())
        flapped = lacp(port(carrier_downs=2), port("eth2"))
        assert watched.sees(flapped, 1.0).verdict == "Recovering"
        assert watched.sees(flapped, 2.5).verdict == "Healthy"

    def test_no_data_comes_before_recovering(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp())
        assert watched.sees(lacp(port(carrier_downs=2), port("eth2", mii=None)), 1.0).reasons == (
            "Unknown",
            "Recovering",
        )

    def test_a_port_that_is_gone_is_missed_for_an_hour(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp())
        lost = watched.sees(lacp(port()), 1.0)
        assert (lost.verdict, lost.active, lost.total) == ("Degraded", 1, 2)
        assert lost.message == "eth2: not a port of the bond any more, 1 of 2 ports carry traffic"
        assert lost.reading.ports[1].gone_since == START + 1
        assert watched.sees(lacp(port()), FORGET_SECONDS - 1).verdict == "Degraded"
        assert watched.sees(lacp(port()), 1.0).verdict == "Healthy"

    def test_a_port_that_is_gone_is_not_missed_if_the_spec_counts_without_it(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0), expected=1)
        watched.sees(lacp())
        assert watched.sees(lacp(port()), 1.0).verdict == "Healthy"

    def test_a_port_that_comes_back_is_a_port_again(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp())
        watched.sees(lacp(port()), 1.0)
        assert watched.sees(lacp(), 5.0).verdict == "Healthy"
        again = watched.sees(lacp(port()), FORGET_SECONDS)
        assert again.verdict == "Degraded", "missed anew"

    def test_ports_are_not_missed_while_they_are_not_known(self) -> None:
        watched = Watched(BondSettings(hold_seconds=0.0))
        watched.sees(lacp())
        assert watched.sees(lacp(port(), ports_known=False), 1.0).reasons == ("Unknown",)
        assert watched.sees(lacp(), 1.0).verdict == "Healthy"

    def test_all_ports_gone(self) -> None:
        watched = Watched()
        watched.sees(lacp())
        gone = watched.sees(lacp(ports=()), 1.0)
        assert (gone.verdict, gone.active, gone.total) == ("Down", 0, 2)
        assert gone.message == "the bond has no ports"

    def test_memory_of_ports_that_are_gone_stays_small(self) -> None:
        watched = Watched()
        watched.sees(lacp(*(port(f"eth{number}") for number in range(200))), 1.0)
        watched.sees(lacp(port("eth0")), 1.0)
        assert watched.memory is not None
        assert len(watched.memory.ports) == MAX_PORTS + 1

    def test_silent_paths_are_a_note_only(self) -> None:
        judgement = judge_bond(backup(), None, None, START)
        assert (judgement.verdict, judgement.notes) == ("Healthy", ("SilentPathUnverified",))
        assert judge_bond(backup(arp_interval=100), None, None, START).notes == ()
        assert judge_bond(lacp(), None, None, START).notes == ()

    def test_long_lists_are_cut(self) -> None:
        ports = [port(f"eth{number}", carrier=False) for number in range(20)]
        message = judge_bond(lacp(port("eth99"), *ports), None, None, START).message
        assert "and 16 more" in message
        assert message.count("no carrier") == 4


class TestMissingData:
    """No data is never good."""

    @pytest.mark.parametrize(
        "name", ["admin_up", "carrier", "mii", "state", "aggregator", "actor_state", "partner_state"]
    )
    def test_a_port_with_a_gap(self, name: str) -> None:
        gap: dict[str, Any] = {name: None}
        judgement = judge_bond(lacp(port(), port("eth2", **gap)), None, None, START)
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
        first = judge_host(HostReading(START, (lacp(),), ("bond0",)), BondExpectation(), HostMemory(), START)
        emptied = judge_host(HostReading(START, trouble="no answer"), BondExpectation(), first.memory, START + 1)
        assert (emptied.verdict, emptied.trouble) == ("Unknown", "no answer")
        assert [(bond.reading.name, bond.total) for bond in emptied.bonds] == [("bond0", 0)]
        again = judge_host(HostReading(START, (lacp(),), ("bond0",)), BondExpectation(), emptied.memory, START + 12)
        assert (again.verdict, again.bonds[0].total) == ("Healthy", 2)
        assert (
            judge_host(HostReading(START, trouble="no answer"), BondExpectation(), HostMemory(), START).verdict
            == "Unknown"
        )
        assert judge_host(HostReading(START), BondExpectation(), HostMemory(), START).verdict == "None"
