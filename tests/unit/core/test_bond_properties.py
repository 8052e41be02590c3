"""What holds for every reading of a bond and every sequence of them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from luban.api.host import BondMode, Churn, Mii, PortState
from luban.core.bonds.host import BondExpectation, HostJudgement, HostMemory, judge_host
from luban.core.bonds.judge import judge_bond
from luban.core.bonds.model import SEVERITY, BondReading, BondSettings, HostReading, PortReading
from tests.unit.core.bond_states import START, from_netlink
from tests.unit.core.test_bond_rules import MAC, ZERO, Watched, backup, lacp, port

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
        and len(reading.ports) >= max((reading.min_links or 0) if reading.mode == "802.3ad" else 0, expected or 0)
        and not (reading.mode == "802.3ad" and reading.partner_mac == ZERO)
        and not (reading.mode == "active-backup" and all(one.state == "backup" for one in reading.ports))
        and (reading.miimon or reading.arp_interval)
    )


def lacks_data(one: PortReading, reading: BondReading) -> bool:
    """Whether something that a port's health hangs on is not known."""
    facts: tuple[object, ...] = (one.admin_up, one.carrier, one.mii, reading.mode)
    if reading.mode == "802.3ad":
        facts += (one.actor_state, one.partner_state, one.aggregator, reading.aggregator, one.state)
    return None in facts


@given(reading=_readings, expected=st.none() | st.integers(0, 4))
@settings(deadline=None, max_examples=500)
def test_healthy_exactly_if_faultless(reading: BondReading, expected: int | None) -> None:
    judgement = judge_bond(reading, expected, None, START)
    assert (judgement.verdict == "Healthy") == faultless(reading, expected)


@settings(deadline=None)
@given(bad=_ports, ports=_good_ports)
def test_one_bad_port_among_good_ones(bad: PortReading, ports: list[PortReading]) -> None:
    reading = lacp(*ports, replace(bad, name="eth9"))
    if not faultless(lacp(replace(bad, name="eth9")), None):
        judgement = judge_bond(reading, None, None, START)
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
    watched, history, last = Watched(BondSettings(hold_seconds=hold), expected), [], None
    for reading, after in steps:
        judgement = watched.sees(reading, after)
        history.append((watched.now, judgement.found))
        recent = [judgement.found, *(verdict for at, verdict in history if watched.now - at < hold)]
        assert judgement.verdict == max(recent, key=SEVERITY.index)
        assert judgement.found == judgement.reasons[0]
        assert len(set(judgement.reasons)) == len(judgement.reasons)
        assert 0 <= judgement.active <= len(reading.ports) <= judgement.total
        if any(lacks_data(one, reading) for one in reading.ports):
            assert {judgement.found, judgement.verdict}.isdisjoint({"Healthy", "Recovering"})
        if last is not None and last.verdict == judgement.verdict:
            assert judgement.since == last.since
        else:
            assert judgement.since == watched.now
        last = judgement


@settings(deadline=None)
@given(reading=_readings, devices=st.lists(st.sampled_from(["bond0", "br0", "eth9"]), max_size=2))
def test_a_host_has_the_verdict_of_its_bond(reading: BondReading, devices: list[str]) -> None:
    host = HostReading(START, (replace(reading, exists=True),), tuple(devices))
    judged: HostJudgement = judge_host(host, BondExpectation(), HostMemory(), START)
    assert judged.verdict == judged.bonds[0].verdict


# The readings above rarely come close to health: these differ from it in one fact of one port at a time.
_gaps = ("admin_up", "carrier", "mii", "state", "aggregator", "actor_state", "partner_state")
_nearly_good = st.builds(
    lambda name, gap, downs, bonds: bonds(
        port("eth1", carrier_downs=downs, **({gap: None} if name == "eth1" and gap else {})),
        port("eth2", **({gap: None} if name == "eth2" and gap else {})),
    ),
    name=st.sampled_from(["eth1", "eth2"]),
    gap=st.sampled_from([None, *_gaps]),
    downs=st.integers(0, 2),
    bonds=st.sampled_from([lacp, backup]),
)


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(st.tuples(_nearly_good, st.floats(0.0, 3.0)), min_size=1, max_size=8))
def test_a_port_with_missing_data_is_never_good(steps: list[tuple[BondReading, float]]) -> None:
    watched = Watched(BondSettings(hold_seconds=0.0))
    for reading, after in steps:
        judgement = watched.sees(reading, after)
        if any(lacks_data(one, reading) for one in reading.ports):
            assert judgement.verdict not in ("Healthy", "Recovering")


def test_judging_does_not_depend_on_the_order_of_ports() -> None:
    reading = from_netlink("lacp-silent-eth1-expired")
    turned = replace(reading, ports=tuple(reversed(reading.ports)))
    assert judge_bond(reading, None, None, START).reasons == judge_bond(turned, None, None, START).reasons
