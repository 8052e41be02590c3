"""Ports and bonds that are renamed, swapped, replaced, moved: who is who, and how many there should be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luban.core.bonds.host import BondExpectation, HostMemory, recall_host
from luban.core.bonds.identity import successors
from luban.core.bonds.judge import FORGET_SECONDS, judge_bond, recall_bond
from luban.core.bonds.model import BondReading, BondSettings, Judgement, PortReading
from tests.unit.core.bond_states import START
from tests.unit.core.test_bond_hosts import Watched as WatchedHost
from tests.unit.core.test_bond_hosts import name_of
from tests.unit.core.test_bond_rules import Watched, lacp, port

NO_HOLD = BondSettings(hold_seconds=0.0)


def nic(name: str, index: int | None, **changed: Any) -> PortReading:
    """A healthy port with an index."""
    return port(name, index=index, **changed)


def bond(*ports: PortReading, name: str = "bond0", index: int | None = 10, **changed: Any) -> BondReading:
    """A healthy bond with an index."""
    return lacp(*ports, name=name, index=index, **changed)


ETH1, ETH2, ETH3 = nic("eth1", 1), nic("eth2", 2), nic("eth3", 3)
UPLINK2 = replace(ETH2, name="uplink2")


def count(judgement: Judgement) -> str:
    """Verdict and ports."""
    return f"{judgement.found} {judgement.active}/{judgement.total}"


class TestPorts:
    """One bond."""

    @pytest.mark.parametrize(
        ("before", "after", "result"),
        [
            ((ETH1, ETH2), (ETH1, UPLINK2), "Healthy 2/2"),
            ((ETH1, ETH2), (nic("up1", 1), nic("up2", 2)), "Healthy 2/2"),
            ((ETH1, ETH2), (ETH1, ETH3), "Healthy 2/2"),
            ((ETH1, ETH2), (ETH3, nic("eth4", 4)), "Healthy 2/2"),
            ((ETH1, ETH2), (ETH1, nic("eth2", 9)), "Healthy 2/2"),
            ((ETH1, ETH2), (nic("eth2", 1), nic("eth1", 2)), "Healthy 2/2"),
            ((ETH1, ETH2), (ETH1, UPLINK2, ETH3), "Healthy 3/3"),
            ((ETH1, ETH2, ETH3), (ETH1, UPLINK2), "Degraded 2/3"),
            ((ETH1, ETH2, ETH3), (ETH1, nic("eth4", 4)), "Degraded 2/3"),
            ((ETH1, ETH2), (UPLINK2,), "Degraded 1/2"),
            ((ETH1, ETH2), (nic("eth1", 2),), "Degraded 1/2"),
            ((ETH1, ETH2), (ETH1,), "Degraded 1/2"),
            ((port("eth1"), port("eth2")), (port("eth1"), port("uplink2")), "Healthy 2/2"),
            ((port("eth1"), port("eth2"), port("eth3")), (port("eth1"), port("uplink2")), "Degraded 2/3"),
            ((port("eth1"), port("eth2")), (ETH1, UPLINK2), "Healthy 2/2"),
            ((ETH1, ETH2), (port("eth1"), port("uplink2")), "Healthy 2/2"),
        ],
        ids=[
            "renamed",
            "both renamed",
            "swapped for another",
            "both swapped for others",
            "swapped for one that gets its name",
            "names swapped",
            "renamed, one added",
            "renamed, one lost",
            "two lost, one added",
            "renamed, the other lost",
            "lost, its name given to the other",
            "lost",
            "renamed, no indexes",
            "renamed and lost, no indexes",
            "renamed, indexes from now on",
            "renamed, no indexes any more",
        ],
    )
    def test_one_change(self, before: tuple[PortReading, ...], after: tuple[PortReading, ...], result: str) -> None:
        watched = Watched(NO_HOLD)
        watched.sees(bond(*before))
        for _ in range(3):
            assert count(watched.sees(bond(*after), 1000.0)) == result

    @pytest.mark.parametrize("expected", [2, 3])
    def test_the_number_in_the_spec_asks_for_no_names(self, expected: int) -> None:
        watched = Watched(NO_HOLD, expected)
        watched.sees(bond(ETH1, ETH2))
        found = watched.sees(bond(ETH1, UPLINK2), 1.0)
        assert count(found) == ("Healthy 2/2" if expected == 2 else "Degraded 2/3")
        assert count(watched.sees(bond(ETH1), 1.0)) == f"Degraded 1/{expected}"

    def test_the_port_that_is_missed_is_the_one_that_went(self) -> None:
        watched = Watched(NO_HOLD)
        watched.sees(bond(ETH1, ETH2, ETH3))
        found = watched.sees(bond(UPLINK2, ETH3), 1.0)
        assert found.message == "eth1: not a port of the bond any more, 2 of 3 ports carry traffic"

    def test_a_name_that_another_port_has_now_is_told_by_its_index(self) -> None:
        watched = Watched(NO_HOLD)
        watched.sees(bond(ETH1, ETH2))
        for _ in range(2):
            found = watched.sees(bond(nic("eth1", 2)), 1.0)
            assert [one.name for one in found.ports] == ["eth1", "eth1 (ifindex 1)"]
            assert (found.ports[0].usable, found.reading.ports[1].index) == (True, 1)
        assert count(watched.sees(bond(nic("eth1", 2), nic("eth2", 1)), 1.0)) == "Healthy 2/2"

    def test_one_of_the_past_without_an_index_has_a_name_of_its_own_too(self) -> None:
        watched = Watched(NO_HOLD)
        watched.sees(bond(port("eth1"), ETH2))
        found = watched.sees(bond(nic("eth1", 2)), 1.0)
        assert [one.name for one in found.ports] == ["eth1", "eth1 (former)"]

    def test_a_port_of_another_bond_is_told_to_be_there(self) -> None:
        watched = Watched(NO_HOLD)
        watched.sees(bond(ETH1, ETH2))
        moved = judge_bond(bond(ETH1), None, watched.memory, START + 1, NO_HOLD, elsewhere={1: "bond0", 2: "bond1"})
        assert moved.message == "eth2: a port of bond1 now, 1 of 2 ports carry traffic"

    def test_counters_follow_the_device(self) -> None:
        """Not its name: the ports that swap names have each lost one carrier or none."""
        watched = Watched(NO_HOLD)
        watched.sees(bond(nic("eth1", 1, carrier_downs=9), nic("eth2", 2, carrier_downs=0)))
        swapped = bond(nic("eth2", 1, carrier_downs=9), nic("eth1", 2, carrier_downs=0))
        assert watched.sees(swapped, 1.0).reasons == ("Healthy",)
        flapped = bond(nic("eth2", 1, carrier_downs=9), nic("eth1", 2, carrier_downs=3))
        assert "eth1: carrier lost 3 times" in watched.sees(flapped, 1.0).message

    def test_another_device_of_the_same_name_has_a_past_of_its_own(self) -> None:
        watched = Watched(NO_HOLD)
        watched.sees(bond(ETH1, nic("eth2", 2, carrier_downs=0, carrier=False)))
        assert watched.sees(bond(ETH1, nic("eth2", 9, carrier_downs=40)), 1.0).reasons == ("Healthy",)

    def test_a_port_that_is_back_makes_up_for_the_latest_loss(self) -> None:
        """So that no more are asked for than there were at one time within the hour."""
        watched = Watched(NO_HOLD)
        watched.sees(bond(ETH1, ETH2, ETH3))
        watched.sees(bond(ETH2, ETH3), 1.0)
        watched.sees(bond(ETH3), 1000.0)
        back = watched.sees(bond(ETH1, ETH3), 1000.0)
        assert (count(back), back.ports[-1].name) == ("Degraded 2/3", "eth2")
        assert back.reading.ports[-1].gone_since == START + 1001.0
        assert count(watched.sees(bond(ETH1, ETH3), FORGET_SECONDS - 2000.1)) == "Degraded 2/3"
        assert count(watched.sees(bond(ETH1, ETH3), 0.1)) == "Healthy 2/2"


class TestRestart:
    """What an agent remembers that was started again."""

    @pytest.mark.parametrize(
        ("before", "after", "result"),
        [
            ((ETH1, ETH2), (ETH1, UPLINK2), "Healthy 2/2"),
            ((ETH1, ETH2), (ETH1, ETH3), "Healthy 2/2"),
            ((ETH1, ETH2), (nic("eth2", 1), nic("eth1", 2)), "Healthy 2/2"),
            ((ETH1, ETH2, ETH3), (ETH1, UPLINK2), "Degraded 2/3"),
            ((port("eth1"), port("eth2")), (ETH1, UPLINK2), "Healthy 2/2"),
            ((ETH1, ETH2), (nic("eth1", 2),), "Degraded 1/2"),
        ],
    )
    @pytest.mark.parametrize("first", ["object", "reading"])
    def test_one_change_meanwhile(
        self, first: str, before: tuple[PortReading, ...], after: tuple[PortReading, ...], result: str
    ) -> None:
        old = judge_bond(bond(*before), None, None, START).memory
        live = judge_bond(bond(*after), None, None, START + 5).memory if first == "reading" else None
        memory = recall_bond(live, old, START + 6)
        for at in (7, 8, 3000):
            judged = judge_bond(bond(*after), None, memory, START + at, NO_HOLD)
            memory = judged.memory
            assert count(judged) == result

    def test_counters_of_another_device_are_left(self) -> None:
        old = judge_bond(bond(ETH1, nic("eth2", 2, carrier_downs=0)), None, None, START).memory
        new = bond(ETH1, nic("eth2", 9, carrier_downs=40))
        memory = recall_bond(judge_bond(new, None, None, START + 5).memory, old, START + 6)
        assert judge_bond(new, None, memory, START + 7, NO_HOLD).reasons == ("Healthy",)


class TestBonds:
    """The bonds of a host."""

    def test_renamed(self) -> None:
        watched = WatchedHost()
        watched.sees(bond(ETH1, ETH2, carrier=False), route="bond0")
        judged = watched.sees(bond(ETH1, ETH2, name="uplink"), route="uplink")
        assert [one.reading.name for one in judged.bonds] == ["uplink"]
        assert (judged.verdict, judged.chosen_by) == ("Down", "DefaultRoute"), "the hold goes on"
        assert watched.sees(bond(ETH1, name="uplink"), after=10.0).verdict == "Degraded"

    def test_names_swapped(self) -> None:
        watched = WatchedHost()
        watched.sees(bond(ETH1, ETH2), bond(ETH3, name="bond1", index=11), route="bond0")
        one, two = bond(ETH1, ETH2, name="bond1"), bond(ETH3, name="bond0", index=11)
        judged = watched.sees(two, one, route="bond1")
        assert (name_of(judged), [count(it) for it in judged.bonds]) == ("bond1", ["Healthy 1/1", "Healthy 2/2"])

    def test_made_anew_under_its_name(self) -> None:
        watched = WatchedHost(BondExpectation(settings=NO_HOLD))
        watched.sees(bond(ETH1, ETH2), route="bond0")
        watched.sees()
        assert count(watched.sees(bond(ETH1, index=20), route="bond0").bonds[0]) == "Degraded 1/2"
        assert count(watched.sees(bond(ETH1, ETH2, index=20), route="bond0").bonds[0]) == "Healthy 2/2"

    def test_made_anew_under_another_name(self) -> None:
        """A bond that took over the ports is no loss of the old one; a port that it lacks is missed."""
        watched = WatchedHost(BondExpectation(settings=NO_HOLD))
        watched.sees(bond(ETH1, ETH2), route="bond0")
        watched.sees(bond(ports=()))
        assert watched.sees().verdict == "Down"
        judged = watched.sees(bond(ETH1, name="team0", index=20), route="")
        assert [(it.reading.name, count(it)) for it in judged.bonds] == [("team0", "Degraded 1/2")]
        assert judged.chosen_by == "DefaultRoute"
        assert watched.sees(bond(ETH1, ETH2, name="team0", index=20)).verdict == "Healthy"

    def test_another_bond_of_other_ports_is_no_heir(self) -> None:
        watched = WatchedHost(BondExpectation(settings=NO_HOLD))
        watched.sees(bond(ETH1, ETH2), route="bond0")
        judged = watched.sees(bond(ETH3, name="bond1", index=20))
        assert (name_of(judged), judged.verdict, len(judged.bonds)) == ("bond0", "Down", 2)

    def test_a_bond_whose_name_another_one_has_now_is_forgotten(self) -> None:
        watched = WatchedHost(BondExpectation(settings=NO_HOLD))
        watched.sees(bond(ETH1, ETH2), bond(ETH3, name="bond1", index=11), route="bond1")
        judged = watched.sees(bond(ETH1, ETH2, name="bond1"), route="bond1")
        assert [(it.reading.name, count(it)) for it in judged.bonds] == [("bond1", "Healthy 2/2")]

    def test_ports_exchanged(self) -> None:
        watched = WatchedHost(BondExpectation(settings=NO_HOLD))
        eth4 = nic("eth4", 4)
        watched.sees(bond(ETH1, ETH2), bond(ETH3, eth4, name="bond1", index=11))
        judged = watched.sees(bond(ETH1, ETH3), bond(ETH2, eth4, name="bond1", index=11))
        assert [count(it) for it in judged.bonds] == ["Healthy 2/2", "Healthy 2/2"]

    def test_a_port_moved(self) -> None:
        watched = WatchedHost(BondExpectation(settings=NO_HOLD))
        watched.sees(bond(ETH1, ETH2), bond(ETH3, name="bond1", index=11))
        judged = watched.sees(bond(ETH1), bond(ETH2, ETH3, name="bond1", index=11))
        assert [count(it) for it in judged.bonds] == ["Degraded 1/2", "Healthy 2/2"]
        assert judged.bonds[0].message == "eth2: a port of bond1 now, 1 of 2 ports carry traffic"

    def test_a_bond_that_the_spec_names_is_asked_for_by_name(self) -> None:
        watched = WatchedHost(BondExpectation("bond0", {"bond0": 2}, settings=NO_HOLD))
        watched.sees(bond(ETH1, ETH2), route="bond0")
        judged = watched.sees(bond(ETH1, ETH2, name="uplink"), route="uplink")
        assert (name_of(judged), judged.verdict) == ("bond0", "Down")

    def test_renamed_while_the_agent_was_away(self) -> None:
        before, live = WatchedHost(), WatchedHost()
        before.sees(bond(ETH1, ETH2), route="bond0")
        live.sees(bond(ETH1, UPLINK2, name="uplink"), route="uplink")
        live.memory = recall_host(live.memory, before.memory, live.now)
        judged = live.sees(bond(ETH1, UPLINK2, name="uplink"), route="uplink")
        assert [(it.reading.name, count(it)) for it in judged.bonds] == [("uplink", "Healthy 2/2")]
        assert (name_of(judged), judged.chosen_by) == ("uplink", "DefaultRoute")


class TestReboot:
    """Indexes are given anew, and counters begin anew."""

    BEFORE = bond(nic("eth1", 1, carrier_downs=0), nic("eth2", 2, carrier_downs=0), nic("eth3", 3, carrier_downs=0))
    AFTER = bond(nic("eth1", 2, carrier_downs=4), nic("eth2", 1, carrier_downs=4), index=3)

    def judged(self, boot: str, *, recalled: bool) -> Judgement:
        """After a restart of the agent, and perhaps of the machine."""
        before, live = (WatchedHost(BondExpectation(settings=NO_HOLD)) for _ in range(2))
        before.boot = "one"
        before.sees(self.BEFORE)
        live.boot = boot
        if recalled:
            live.sees(self.AFTER)
        live.memory = recall_host(live.memory, before.memory, live.now)
        assert live.memory.boot == (boot if recalled else "one")
        return live.sees(self.AFTER).bonds[0]

    @pytest.mark.parametrize("recalled", [False, True])
    def test_ports_are_known_by_their_names(self, recalled: bool) -> None:
        judged = self.judged("two", recalled=recalled)
        assert [one.name for one in judged.ports] == ["eth1", "eth2", "eth3"]
        assert judged.reasons == ("Degraded",), "what the new kernel counted is no flapping"

    def test_without_a_reboot_by_their_indexes(self) -> None:
        judged = self.judged("one", recalled=False)
        assert judged.reasons == ("Degraded", "Flapping", "Recovering")

    def test_a_reading_that_does_not_say_changes_nothing(self) -> None:
        watched = WatchedHost()
        watched.boot = "one"
        watched.sees(self.BEFORE)
        watched.boot = ""
        watched.sees(self.BEFORE, trouble="no answer")
        assert watched.memory.boot == "one"


def test_nothing_is_known_of_nobody() -> None:
    assert successors({"a": None, "b": 1}, {}) == {}
    assert recall_host(HostMemory(), HostMemory(), 0.0) == HostMemory()


@dataclass
class Machine:
    """A bond's ports as a kernel would have them: who is in it, by index, and what they are called."""

    inside: dict[int, str] = field(default_factory=lambda: {1: "eth1", 2: "eth2", 3: "eth3"})
    outside: dict[int, str] = field(default_factory=dict)
    made: int = 3

    def do(self, what: str, which: int) -> None:
        """One change."""
        inside, outside = sorted(self.inside), sorted(self.outside)
        if what == "lose" and inside:
            lost = inside[which % len(inside)]
            self.outside[lost] = self.inside.pop(lost)
        elif what == "return" and outside:
            back = outside[which % len(outside)]
            self.inside[back] = self.outside.pop(back)
        elif what == "add" and len(inside) < 6:
            self.made += 1
            self.inside[self.made] = self.free(f"eth{which}")
        elif what == "rename" and inside:
            self.inside[inside[which % len(inside)]] = self.free(f"up{which}")
        elif what == "swap" and len(inside) > 1:
            one, two = inside[which % len(inside)], inside[which % len(inside) - 1]
            self.inside[one], self.inside[two] = self.inside[two], self.inside[one]

    def free(self, name: str) -> str:
        """A name like this one that no device has."""
        names = {*self.inside.values(), *self.outside.values()}
        return next(it for it in (name, *(f"{name}-{number}" for number in range(99))) if it not in names)

    def reading(self, *, indexes: bool) -> BondReading:
        """The bond."""
        ports = [nic(name, index if indexes else None) for index, name in self.inside.items()]
        return lacp(*ports) if ports else lacp(ports=())


_changes = st.tuples(
    st.sampled_from(["lose", "return", "add", "rename", "swap", "none"]), st.integers(0, 5), st.booleans()
)


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(st.tuples(_changes, st.sampled_from([1.0, 600.0, 1900.0])), max_size=25))
def test_as_many_as_at_one_time_within_the_hour(steps: list[tuple[tuple[str, int, bool], float]]) -> None:
    """Whatever is renamed, swapped, lost, found and added, and whether the next reading comes at once or not."""
    machine, watched = Machine(), Watched(NO_HOLD)
    history = [(watched.now, 3)]
    watched.sees(machine.reading(indexes=True))
    for (what, which, at_once), after in steps:
        machine.do(what, which)
        if at_once:
            continue
        judged = watched.sees(machine.reading(indexes=True), after)
        here = len(machine.inside)
        # A port that is missed was there until just now: the hour begins with the reading that misses it.
        lately = [
            one
            for number, (_, one) in enumerate(history)
            if _ended(history, number, watched.now) > watched.now - FORGET_SECONDS
        ]
        assert judged.active == here
        assert judged.total == max([here, *lately])
        names = [one.name for one in judged.ports]
        assert len(set(names)) == len(names)
        history.append((watched.now, here))


def _ended(history: list[tuple[float, int]], number: int, now: float) -> float:
    """When the number of a reading was first found to be another."""
    return history[number + 1][0] if number + 1 < len(history) else now


@settings(deadline=None)
@given(steps=st.lists(_changes, max_size=25))
def test_without_indexes_numbers_are_right_too(steps: list[tuple[str, int, bool]]) -> None:
    machine, watched, most = Machine(), Watched(NO_HOLD), 3
    watched.sees(machine.reading(indexes=False))
    for what, which, _ in steps:
        machine.do(what, which)
        judged = watched.sees(machine.reading(indexes=False), 1.0)
        most = max(most, len(machine.inside))
        assert (judged.active, judged.total) == (len(machine.inside), most)
