"""Where a VM goes ([L] Fig. 5) and which one leaves (Fig. 6)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from luban.api.cluster import BondPolicy, Host, HostVMs
from luban.core.model import VMRecord
from luban.core.placement import (
    NO_BONDS,
    Bonds,
    Candidates,
    Occupancy,
    Places,
    Placing,
    leaving_order,
    minima,
    removable,
    spares,
)
from luban.core.victims import Victims
from tests.fakes.simulator import make_vm


def host(name: str, low: int = 1, high: int = 3, *, cordoned: bool = False) -> Host:
    return Host(name=name, uri=f"qemu+tls://{name}/system", vms=HostVMs(min=low, max=high), cordoned=cordoned)


def vm(name: str, where: str, created: float = 0.0, *, failed: bool = False) -> VMRecord:
    return make_vm(name, "Failed" if failed else "Ready", where, created=created)


def counted(live: dict[str, int], held: dict[str, int] | None = None) -> dict[str, Occupancy]:
    return {name: Occupancy(count, (held or live)[name]) for name, count in live.items()}


def occupancy(vms: Sequence[VMRecord]) -> dict[str, Occupancy]:
    live, failed = Counter(it.host for it in vms), Counter(it.host for it in vms if it.phase == "Failed")
    return {name: Occupancy(live[name], live[name], failed[name]) for name in live}


def place(among: Candidates) -> Placing:
    return Places(among).placing()


def choose_victim(
    vms: Sequence[VMRecord],
    hosts: Sequence[Host],
    sessions: dict[str, int],
    *,
    keep_minima: bool = True,
    bonds: Bonds = NO_BONDS,
) -> VMRecord | None:
    counts, least = occupancy(vms), minima(hosts)
    victims = Victims(counts, lambda vm: not keep_minima or spares(vm, least, counts))
    victims.add((leaving_order(vm, sessions, bonds), vm) for vm in vms)
    return victims.first()


B, C, D = host("host-b"), host("host-c"), host("host-d")


class TestFig5:
    """The host for one more VM."""

    @staticmethod
    def chosen(
        hosts: Sequence[Host],
        live: dict[str, int],
        *,
        held: dict[str, int] | None = None,
        silent: Iterable[str] = (),
        avoid: Iterable[str] = (),
    ) -> str | None:
        silent = set(silent)
        found = Candidates(hosts, counted(live, held), lambda name: name not in silent, frozenset(avoid))
        best = Places(found).best()
        return best.name if best else None

    def test_step_4_a_tie_goes_to_the_first(self) -> None:
        """ "If the numbers are the same, host B is preferred": the first in the spec."""
        assert self.chosen([B, C], {"host-b": 1, "host-c": 1}) == "host-b"
        assert self.chosen([C, B], {"host-b": 1, "host-c": 1}) == "host-c"

    def test_step_5_otherwise_the_one_with_the_fewest(self) -> None:
        assert self.chosen([B, C], {"host-b": 2, "host-c": 1}) == "host-c"

    def test_the_papers_six(self) -> None:
        live = {"host-b": 0, "host-c": 0}
        order = []
        while (name := self.chosen([B, C], live)) is not None:
            live[name] += 1
            order.append(name)
        assert order == ["host-b", "host-c"] * 3

    def test_a_full_host_takes_none(self) -> None:
        small = host("host-b", high=1)
        assert self.chosen([small, C], {"host-b": 1, "host-c": 2}) == "host-c"
        assert self.chosen([small], {"host-b": 1}) is None

    def test_those_on_their_way_out_hold_their_room(self) -> None:
        assert self.chosen([B], {"host-b": 1}, held={"host-b": 3}) is None

    def test_a_host_below_its_minimum_comes_first(self) -> None:
        wide = host("host-c", low=2)
        assert self.chosen([B, wide], {"host-b": 1, "host-c": 1}) == "host-c"
        assert self.chosen([host("host-b", low=0), C], {"host-b": 0, "host-c": 0}) == "host-c"

    def test_a_cordoned_host_takes_none(self) -> None:
        assert self.chosen([host("host-b", cordoned=True), C], {"host-b": 0, "host-c": 2}) == "host-c"

    def test_a_silent_host_takes_none(self) -> None:
        assert self.chosen([B, C], {"host-b": 0, "host-c": 2}, silent=["host-b"]) == "host-c"
        assert self.chosen([B, C], {"host-b": 0, "host-c": 0}, silent=["host-b", "host-c"]) is None

    def test_a_host_to_avoid_is_the_last_choice_but_one(self) -> None:
        live = {"host-b": 0, "host-c": 2}
        assert self.chosen([B, C], live, avoid=["host-b"]) == "host-c"
        assert self.chosen([B, C], {"host-b": 0, "host-c": 3}, avoid=["host-b"]) == "host-b"
        assert self.chosen([B, C], live, avoid=["host-b", "host-c"]) == "host-b"

    def test_no_hosts(self) -> None:
        assert self.chosen([], {}) is None


class TestBonds:
    """bondPolicy: the health of the hosts' bonds counts."""

    @staticmethod
    def chosen(live: dict[str, int], policy: BondPolicy, verdicts: dict[str, str], **more: Any) -> str | None:
        found = Candidates([B, C], counted(live), lambda _: True, bonds=Bonds(policy, verdicts), **more)
        best = Places(found).best()
        return best.name if best else None

    ORDER = (("Healthy", "Recovering", "None"), ("Degraded", "Flapping", "LACPTimeout"), ("Unknown",))

    @pytest.mark.parametrize(
        ("better", "worse"),
        [(good, bad) for first, second in itertools.pairwise(ORDER) for good in first for bad in second],
    )
    def test_prefer_takes_the_better_one_even_if_it_is_fuller(self, better: str, worse: str) -> None:
        verdicts = {"host-b": worse, "host-c": better}
        assert self.chosen({"host-b": 1, "host-c": 2}, "Prefer", verdicts) == "host-c"
        assert self.chosen({"host-b": 1, "host-c": 3}, "Prefer", verdicts) == "host-b", "the better one is full"

    def test_one_vm_on_each_host_comes_before_the_bonds(self) -> None:
        """What an impaired bond still carries is worth more than all VMs on one host."""
        assert (
            self.chosen({"host-b": 0, "host-c": 1}, "Prefer", {"host-b": "Degraded", "host-c": "Healthy"}) == "host-b"
        )
        assert self.chosen({"host-b": 0, "host-c": 1}, "Prefer", {"host-b": "Down", "host-c": "Healthy"}) == "host-c"

    @pytest.mark.parametrize("grade", ORDER)
    def test_prefer_looks_at_numbers_where_bonds_are_alike(self, grade: tuple[str, ...]) -> None:
        verdicts = {"host-b": grade[0], "host-c": grade[-1]}
        assert self.chosen({"host-b": 2, "host-c": 1}, "Prefer", verdicts) == "host-c"
        assert self.chosen({"host-b": 1, "host-c": 1}, "Prefer", verdicts) == "host-b"

    def test_down_takes_none(self) -> None:
        assert self.chosen({"host-b": 0, "host-c": 3}, "Prefer", {"host-b": "Down", "host-c": "Healthy"}) is None

    def test_a_host_that_never_reported_is_unknown(self) -> None:
        assert self.chosen({"host-b": 1, "host-c": 2}, "Prefer", {"host-c": "Degraded"}) == "host-c"
        assert self.chosen({"host-b": 1, "host-c": 0}, "Prefer", {}) == "host-c", "nobody reports: as without bonds"

    @pytest.mark.parametrize("verdict", ["Recovering", "None", "Degraded", "Unknown", "Down"])
    def test_require_admits_healthy_only(self, verdict: str) -> None:
        assert self.chosen({"host-b": 0, "host-c": 2}, "Require", {"host-b": verdict, "host-c": "Healthy"}) == "host-c"
        assert self.chosen({"host-b": 0, "host-c": 3}, "Require", {"host-b": verdict, "host-c": "Healthy"}) is None

    @pytest.mark.parametrize("verdict", ["Down", "Degraded", "Unknown"])
    def test_ignore_looks_away(self, verdict: str) -> None:
        assert self.chosen({"host-b": 0, "host-c": 2}, "Ignore", {"host-b": verdict, "host-c": "Healthy"}) == "host-b"

    def test_a_host_where_a_vm_failed_comes_after_an_impaired_bond(self) -> None:
        verdicts = {"host-b": "Degraded", "host-c": "Healthy"}
        assert self.chosen({"host-b": 0, "host-c": 0}, "Prefer", verdicts, avoid=frozenset({"host-c"})) == "host-b"

    def test_a_tie_takes_the_vm_on_the_worse_bond(self) -> None:
        vms = [vm("vm-1", "host-b", 1.0), vm("vm-2", "host-c", 2.0), vm("vm-3", "host-b"), vm("vm-4", "host-c")]
        sessions = dict.fromkeys(("vm-1", "vm-2", "vm-3", "vm-4"), 5)
        bonds = Bonds("Prefer", {"host-b": "Degraded", "host-c": "Healthy"})
        found = choose_victim(vms, [B, C], sessions, bonds=bonds)
        assert found is not None
        assert found.name == "vm-1"
        fewer = choose_victim(vms, [B, C], sessions | {"vm-2": 4}, bonds=bonds)
        assert fewer is not None
        assert fewer.name == "vm-2", "sessions come first"


class TestReasons:
    """What is said about the choice."""

    def test_the_bond_decided(self) -> None:
        bonds = Bonds("Prefer", {"host-b": "Degraded", "host-c": "Healthy"})
        found = place(Candidates([B, C], counted({"host-b": 1, "host-c": 2}), lambda _: True, bonds=bonds))
        assert (found.host, found.reason) == (C, "BetterBond")
        assert found.message == "host-c; not host-b: its bond is Degraded"

    def test_the_bond_only_agreed(self) -> None:
        bonds = Bonds("Prefer", {"host-b": "Degraded", "host-c": "Healthy"})
        found = place(Candidates([B, C], counted({"host-b": 2, "host-c": 1}), lambda _: True, bonds=bonds))
        assert (found.host, found.reason) == (C, "FewestVMs")

    @pytest.mark.parametrize(
        ("live", "avoid", "silent", "where", "reason"),
        [
            ({"host-b": 2, "host-c": 1}, (), (), "host-c", "FewestVMs"),
            ({"host-b": 1, "host-c": 1}, (), (), "host-b", "FewestVMs"),
            ({"host-b": 1, "host-c": 0}, (), (), "host-c", "HostBelowMinimum"),
            ({"host-b": 0, "host-c": 0}, (), (), "host-b", "FewestVMs"),
            ({"host-b": 1, "host-c": 2}, ("host-b",), (), "host-c", "NoRecentFailure"),
            ({"host-b": 1, "host-c": 2}, (), ("host-b",), "host-c", "OnlyHost"),
            ({"host-b": 3, "host-c": 3}, (), (), "", "NoRoom"),
        ],
    )
    def test_what_decided(
        self, live: dict[str, int], avoid: tuple[str, ...], silent: tuple[str, ...], where: str, reason: str
    ) -> None:
        among = Candidates([B, C], counted(live), lambda name: name not in silent, avoid=frozenset(avoid))
        found = place(among)
        assert (found.host.name if found.host else "", found.reason) == (where, reason)

    def test_numbers_order_and_minimum(self) -> None:
        wide = host("host-d", low=2)
        among = Candidates([B, C, wide], counted({"host-b": 1, "host-c": 1, "host-d": 1}), lambda _: True)
        assert place(among).message == (
            "host-d; not host-b: host-d is below its minimum; not host-c: host-d is below its minimum"
        )
        among = Candidates([B, C, D], counted({"host-b": 1, "host-c": 1, "host-d": 2}), lambda _: True)
        assert place(among).message == (
            "host-b; not host-c: it has as many VMs and stands after host-b in the spec; "
            "not host-d: it has more VMs (2, host-b 1)"
        )

    def test_nowhere(self) -> None:
        closed = host("host-d", cordoned=True)
        used_up = host("host-e").model_copy(update={"forward_range": "127.0.17.0/24"})
        live = {"host-b": 3, "host-c": 0, "host-d": 0, "host-e": 0, "host-f": 0}
        among = Candidates(
            [B, C, closed, used_up, host("host-f")],
            counted(live),
            lambda name: name != "host-c",
            bonds=Bonds("Prefer", {"host-f": "Down"}),
            has_address=lambda it: it.name != "host-e",
        )
        found = place(among)
        assert (found.host, found.message) == (
            None,
            "nowhere; not host-b: it is full (3 of 3 VMs); not host-c: libvirt does not answer; "
            "not host-d: it is cordoned; not host-e: its forwardRange 127.0.17.0/24 is used up; "
            "not host-f: its bond is Down (bondPolicy Prefer)",
        )


class TestFig6:
    """The VM to stop."""

    @staticmethod
    def victim(vms: Sequence[VMRecord], sessions: dict[str, int], hosts: Sequence[Host] = (B, C)) -> str | None:
        found = choose_victim(vms, hosts, sessions)
        return found.name if found else None

    def test_step_4_same_numbers_the_fewest_sessions_of_all(self) -> None:
        vms = [vm("vm-1", "host-b"), vm("vm-2", "host-c"), vm("vm-3", "host-b"), vm("vm-4", "host-c")]
        assert self.victim(vms, {"vm-1": 9, "vm-2": 7, "vm-3": 8, "vm-4": 5}) == "vm-4"

    def test_step_5_otherwise_the_fewest_sessions_on_the_fullest(self) -> None:
        """Minute fifteen: host-b runs two, vm-3 has the fewest of them."""
        vms = [vm("vm-1", "host-b"), vm("vm-2", "host-c"), vm("vm-3", "host-b")]
        assert self.victim(vms, {"vm-1": 15, "vm-2": 3, "vm-3": 8}) == "vm-3"

    def test_two_hosts_are_the_fullest(self) -> None:
        vms = [vm(f"vm-{index}", name) for index, name in enumerate(["host-b", "host-c", "host-d", "host-b", "host-c"])]
        loads = {"vm-0": 9, "vm-1": 6, "vm-2": 0, "vm-3": 8, "vm-4": 7}
        assert self.victim(vms, loads, [B, C, host("host-d", low=0)]) == "vm-1"

    def test_one_on_each_host_stays(self) -> None:
        assert self.victim([vm("vm-1", "host-b"), vm("vm-2", "host-c")], {"vm-1": 0, "vm-2": 0}) is None

    def test_a_host_at_its_minimum_is_left_out_even_if_it_is_the_fullest(self) -> None:
        wide = host("host-c", low=3)
        vms = [vm(f"vm-{index}", name) for index, name in enumerate(["host-b", "host-b", "host-c", "host-c", "host-c"])]
        assert self.victim(vms, {"vm-0": 5, "vm-1": 4}, [B, wide]) == "vm-1"

    def test_a_tie_takes_the_newest(self) -> None:
        vms = [vm("vm-1", "host-b", 10.0), vm("vm-2", "host-b", 30.0), vm("vm-3", "host-b", 20.0)]
        assert self.victim(vms, {"vm-1": 5, "vm-2": 5, "vm-3": 5}) == "vm-2"

    def test_of_the_same_second_the_first_by_name(self) -> None:
        assert self.victim([vm("vm-2", "host-b"), vm("vm-1", "host-b")], {"vm-1": 5, "vm-2": 5}) == "vm-1"

    def test_unknown_sessions_are_the_last_choice(self) -> None:
        vms = [vm("vm-1", "host-b", 1.0), vm("vm-2", "host-b", 2.0)]
        assert self.victim(vms, {"vm-1": 99}) == "vm-1"
        assert self.victim(vms, {}) == "vm-2"

    def test_a_cordoned_host_and_one_that_left_the_spec_have_no_minimum(self) -> None:
        closed = host("host-b", cordoned=True)
        assert self.victim([vm("vm-1", "host-b"), vm("vm-2", "host-c")], {}, [closed, C]) == "vm-1"
        assert self.victim([vm("vm-1", "host-z"), vm("vm-2", "host-c")], {}, [C]) == "vm-1"

    def test_failed_vms_do_not_make_up_a_minimum(self) -> None:
        good, bad = vm("vm-1", "host-b"), vm("vm-2", "host-b", failed=True)
        assert self.victim([good, bad], {"vm-1": 0}) == "vm-2"
        assert not spares(good, minima([B]), occupancy([good, bad]))
        assert not spares(bad, minima([B]), occupancy([bad]))

    def test_minima_can_be_set_aside(self) -> None:
        only = vm("vm-1", "host-b")
        found = choose_victim([only], [B], {}, keep_minima=False)
        assert found == only

    def test_nobody_to_choose_from(self) -> None:
        assert self.victim([], {}) is None


@pytest.mark.parametrize(
    ("live", "failed", "expected"),
    [(3, 0, 2), (1, 0, 0), (0, 0, 0), (2, 1, 1), (3, 1, 2), (1, 1, 0)],
)
def test_how_many_can_go(live: int, failed: int, expected: int) -> None:
    """Down to one good VM; failed ones on top of it."""
    assert removable("host-b", minima([B]), {"host-b": Occupancy(live, live, failed)}) == expected
