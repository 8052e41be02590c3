"""A host's bonds: which one matters, what becomes of one that is gone, and what a restart remembers."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luban.api.host import MAX_BONDS, BondVerdict
from luban.core.bonds.host import (
    BondExpectation,
    HostJudgement,
    HostMemory,
    Route,
    carrier_of_route,
    followed,
    judge_host,
    recall_host,
)
from luban.core.bonds.judge import FORGET_SECONDS, judge_bond, recall_bond
from luban.core.bonds.model import SEVERITY, BondMemory, BondReading, BondSettings, HostReading, Sighting, is_good, rank
from tests.unit.core.bond_states import START
from tests.unit.core.test_bond_rules import lacp, port


def bonds(**carries: tuple[str, ...]) -> tuple[BondReading, ...]:
    """Healthy bonds, each with what stands on top of it."""
    return tuple(lacp(name=name, carries=above) for name, above in carries.items())


BOTH = bonds(bond0=(), bond1=())
BROKEN = lacp(name="bond1", carrier=False)


class Watched:
    """A host under a clock."""

    def __init__(self, expectation: BondExpectation | None = None) -> None:
        self.now = 100.0
        self.memory = HostMemory()
        self.expectation = expectation or BondExpectation()
        self.boot = ""

    def sees(self, *found: BondReading, route: str = "", after: float = 1.0, trouble: str = "") -> HostJudgement:
        """A reading, some seconds after the last one."""
        self.now += after
        reading = HostReading(START, found, (route,) if route else (), trouble, self.boot)
        judgement = judge_host(reading, self.expectation, self.memory, self.now, START + self.now)
        self.memory = judgement.memory
        return judgement


def name_of(judgement: HostJudgement) -> str:
    """The bond that matters."""
    assert judgement.primary is not None
    return judgement.primary.reading.name


class TestPrimary:
    """Which bond counts."""

    def test_the_named_one(self) -> None:
        judged = Watched(BondExpectation("bond1")).sees(*BOTH, route="bond0")
        assert (name_of(judged), judged.chosen_by) == ("bond1", "Spec")

    @pytest.mark.parametrize(
        ("devices", "name"),
        [
            (("bond1",), "bond1"),
            (("br0",), "bond1"),
            (("bond1.100",), "bond1"),
            (("eth9", "br0"), "bond1"),
            (("eth9",), ""),
            ((), ""),
        ],
    )
    def test_the_one_below_the_default_route(self, devices: tuple[str, ...], name: str) -> None:
        found = bonds(bond0=("br9",), bond1=("bond1.100", "br0"))
        assert carrier_of_route(HostReading(START, found, devices)) == name

    def test_a_bond_that_loses_carrier_and_route_goes_on_to_matter(self) -> None:
        watched = Watched()
        assert watched.sees(*BOTH, route="bond1").chosen_by == "DefaultRoute"
        assert watched.sees(BOTH[0], BROKEN, route="bond1").verdict == "Down"
        for _ in range(100):
            lost = watched.sees(BOTH[0], BROKEN)
            assert (name_of(lost), lost.verdict, lost.chosen_by) == ("bond1", "Down", "DefaultRoute")

    def test_another_bond_counts_when_it_had_the_route_for_the_hold(self) -> None:
        watched = Watched(BondExpectation(settings=BondSettings(hold_seconds=10.0)))
        watched.sees(*BOTH, route="bond1")
        assert name_of(watched.sees(BOTH[0], BROKEN, route="bond0")) == "bond1"
        assert name_of(watched.sees(BOTH[0], BROKEN, route="bond0", after=9.9)) == "bond1"
        moved = watched.sees(BOTH[0], BROKEN, route="bond0", after=0.1)
        assert (name_of(moved), moved.verdict) == ("bond0", "Healthy")

    def test_a_route_that_flaps_moves_nothing(self) -> None:
        watched = Watched()
        watched.sees(*BOTH, route="bond1")
        for number in range(400):
            assert name_of(watched.sees(*BOTH, route=("bond0", "", "bond1")[number % 3], after=0.05)) == "bond1"

    def test_nobody_ever_had_the_route_so_the_worst_counts(self) -> None:
        watched = Watched()
        assert name_of(watched.sees(*BOTH)) == "bond0"
        judged = watched.sees(BOTH[0], BROKEN)
        assert (name_of(judged), judged.verdict, judged.chosen_by) == ("bond1", "Down", "Worst")

    def test_the_first_that_has_the_route_counts_at_once(self) -> None:
        watched = Watched()
        watched.sees(*BOTH)
        assert name_of(watched.sees(*BOTH, route="bond1")) == "bond1"

    def test_readings_that_fail_move_nothing(self) -> None:
        watched = Watched()
        watched.sees(*BOTH, route="bond1")
        judged = watched.sees(trouble="no answer")
        assert (name_of(judged), judged.verdict, len(judged.bonds)) == ("bond1", "Unknown", 2)

    def test_a_named_bond_is_unknown_while_nothing_can_be_read(self) -> None:
        assert Watched(BondExpectation("bond1")).sees(trouble="no answer").verdict == "Unknown"

    @given(
        steps=st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.floats(0.01, 4.0)), min_size=1, max_size=60),
        hold=st.sampled_from([1.0, 10.0]),
    )
    @settings(deadline=None)
    def test_the_route_moves_only_after_the_hold(self, steps: list[tuple[str, float]], hold: float) -> None:
        route, now, alone = Route(), 0.0, 0.0
        for carrier, after in steps:
            now += after
            before, route = route, followed(route, carrier, now, hold)
            # How long this carrier has had the route without a break.
            alone = now if carrier != before.bond and carrier != before.rival else alone
            if before.bond and route.bond != before.bond:
                assert route.bond == carrier
                assert now - alone >= hold
            assert route.bond or not before.bond, "never forgotten"


class TestGone:
    """Bonds that are not there any more."""

    def test_no_bond(self) -> None:
        judged = Watched().sees()
        assert (judged.bonds, judged.verdict, judged.primary) == ((), "None", None)

    def test_the_only_bond_is_gone(self) -> None:
        watched = Watched()
        watched.sees(lacp(), route="bond0")
        gone = watched.sees()
        assert (gone.verdict, gone.bonds[0].reading.gone_since) == ("Down", START + watched.now)
        assert gone.bonds[0].message == "there is no such bond on this host any more"
        assert watched.sees(after=FORGET_SECONDS - 1).verdict == "Down"
        assert watched.sees(after=1.0).verdict == "None"

    def test_it_comes_back(self) -> None:
        watched = Watched()
        watched.sees(lacp(), route="bond0")
        watched.sees()
        assert watched.sees(lacp(), route="bond0").verdict == "Down", "held"
        assert watched.sees(lacp(), route="bond0", after=10.0).verdict == "Healthy"
        assert watched.memory.known == {"bond0": None}

    def test_the_primary_is_gone(self) -> None:
        watched = Watched()
        watched.sees(*BOTH, route="bond1")
        assert name_of(watched.sees(BOTH[0])) == "bond1"
        forgotten = watched.sees(BOTH[0], after=FORGET_SECONDS)
        assert (name_of(forgotten), forgotten.verdict) == ("bond0", "Healthy")

    def test_the_spec_names_another(self) -> None:
        watched = Watched()
        watched.sees(*BOTH, route="bond1")
        watched.sees(BOTH[0])
        watched.expectation = BondExpectation("bond0")
        judged = watched.sees(BOTH[0])
        assert ([bond.reading.name for bond in judged.bonds], judged.verdict) == (["bond0"], "Healthy")
        assert set(watched.memory.bonds) == {"bond0"}

    def test_it_is_not_forgotten_while_nothing_can_be_read(self) -> None:
        watched = Watched()
        watched.sees(lacp(), route="bond0")
        assert watched.sees(trouble="no answer", after=2 * FORGET_SECONDS).verdict == "Unknown"
        assert watched.sees().verdict == "Down", "missed from the first good reading on"

    def test_bonds_that_the_spec_names_and_the_kernel_never_had(self) -> None:
        watched = Watched(BondExpectation(bond="bond7", expected_ports={"bond7": 2, "bond8": 2}))
        judged = watched.sees(lacp())
        assert {bond.reading.name: bond.verdict for bond in judged.bonds} == {
            "bond0": "Healthy",
            "bond7": "Down",
            "bond8": "Down",
        }
        assert judged.verdict == "Down"
        watched.expectation = BondExpectation()
        assert [bond.reading.name for bond in watched.sees(lacp()).bonds] == ["bond0"], "never were there"

    def test_memory_stays_small(self) -> None:
        watched = Watched()
        for number in range(100):
            watched.sees(lacp(port(f"eth{number}"), name=f"bond{number:03}"))
        assert len(watched.memory.known) == len(watched.memory.bonds) == MAX_BONDS + 1
        assert "bond098" in watched.memory.known, "the latest stay"

    @given(steps=st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.1, 300.0)), max_size=30))
    @settings(deadline=None)
    def test_a_host_that_had_a_bond_is_never_without(self, steps: list[tuple[bool, bool, float]]) -> None:
        watched, last = Watched(), 0.0
        watched.sees(*BOTH, route="bond1")
        for there, trouble, after in steps:
            judged = watched.sees(*(BOTH if there and not trouble else ()), trouble="x" * trouble, after=after)
            if not there and not trouble and last < FORGET_SECONDS - after:
                assert judged.verdict in ("Down", "Unknown")
            last = 0.0 if there or trouble else last + after


class TestRecall:
    """A restart."""

    def test_a_hold_goes_on(self) -> None:
        before = BondMemory("Degraded", START - 500, {"Degraded": Sighting(95.0, "eth2: no carrier")})
        judgement = judge_bond(lacp(), None, before, 100.0, wall=START)
        assert (judgement.verdict, judgement.since) == ("Degraded", START - 500)
        assert judgement.message.startswith("eth2: no carrier (over: now Healthy")
        assert judge_bond(lacp(), None, judgement.memory, 105.0, wall=START + 5).verdict == "Healthy"

    def test_what_was_seen_meanwhile_counts_as_well(self) -> None:
        before = BondMemory("Down", START - 500, {"Down": Sighting(95.0, "dead")})
        live = judge_bond(lacp(), None, None, 99.0, wall=START - 1).memory
        both = recall_bond(live, before, 100.0)
        assert (both.published, both.since) == ("Down", START - 500)
        assert judge_bond(lacp(), None, both, 100.0, wall=START).verdict == "Down"
        assert judge_bond(lacp(), None, both, 105.0, wall=START + 5).verdict == "Healthy"

    def test_what_is_worse_now_is_as_old_as_it_is(self) -> None:
        before = BondMemory("Healthy", START - 500, {"Healthy": Sighting(95.0, "")})
        live = judge_bond(lacp(carrier=False), None, None, 99.0, wall=START - 1).memory
        both = recall_bond(live, before, 100.0)
        assert (both.published, both.since) == ("Down", START - 1)

    def test_a_lost_port_is_found_missing(self) -> None:
        before = judge_bond(lacp(), None, None, 95.0, wall=START - 5).memory
        live = judge_bond(lacp(port()), None, None, 99.0, wall=START - 1).memory
        judgement = judge_bond(lacp(port()), None, recall_bond(live, before, 100.0), 100.0, wall=START)
        assert (judgement.verdict, judgement.total) == ("Degraded", 2)

    def test_carriers_lost_meanwhile_count(self) -> None:
        before = judge_bond(lacp(), None, None, 95.0, wall=START - 5).memory
        flapped = lacp(port(carrier_downs=9), port("eth2"))
        live = judge_bond(flapped, None, None, 99.0, wall=START - 1).memory
        assert "Flapping" in judge_bond(flapped, None, recall_bond(live, before, 100.0), 100.0, wall=START).reasons

    def test_the_route_and_the_bonds_that_were_there(self) -> None:
        before = HostMemory(known={"bond1": None}, route=Route("bond1"))
        live = judge_host(HostReading(START, bonds(bond0=()), ("bond0",)), BondExpectation(), HostMemory(), 99.0).memory
        memory = recall_host(live, before, 100.0)
        assert memory.route == Route("bond1", "bond0", 100.0)
        judged = judge_host(HostReading(START, bonds(bond0=()), ("bond0",)), BondExpectation(), memory, 101.0)
        assert (name_of(judged), judged.verdict) == ("bond1", "Down")


def test_ranks() -> None:
    ranked = sorted(get_args(BondVerdict), key=rank)
    assert ranked[:2] == ["Down", "Unknown"]
    assert set(ranked[-3:]) == {"Healthy", "Recovering", "None"}
    assert len({rank(verdict) for verdict in ranked[2:-3]}) == 1
    assert [verdict for verdict in ranked if is_good(verdict)] == ["Healthy", "Recovering"]
    assert set(SEVERITY) == set(get_args(BondVerdict))
