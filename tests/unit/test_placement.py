"""Where a VM goes ([L] Fig. 5) and which one leaves (Fig. 6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from luban.api.cluster import Host, HostVMs
from luban.core.model import VMRecord
from luban.core.placement import Occupancy, choose_host, choose_victim, removable, spares
from tests.unit.world import make_vm


def host(name: str, low: int = 1, high: int = 3, *, cordoned: bool = False) -> Host:
    return Host(name=name, uri=f"qemu+tls://{name}/system", vms=HostVMs(min=low, max=high), cordoned=cordoned)


def vm(name: str, where: str, created: float = 0.0, *, failed: bool = False) -> VMRecord:
    return make_vm(name, "Failed" if failed else "Ready", where, created=created)


def counted(live: dict[str, int], held: dict[str, int] | None = None) -> dict[str, Occupancy]:
    return {name: Occupancy(count, (held or live)[name]) for name, count in live.items()}


def occupancy(vms: Sequence[VMRecord]) -> dict[str, Occupancy]:
    live, failed = Counter(it.host for it in vms), Counter(it.host for it in vms if it.phase == "Failed")
    return {name: Occupancy(live[name], live[name], failed[name]) for name in live}


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
        found = choose_host(hosts, counted(live, held), reachable=lambda name: name not in silent, avoid=avoid)
        return found.name if found else None

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


class TestFig6:
    """The VM to stop."""

    @staticmethod
    def victim(vms: Sequence[VMRecord], sessions: dict[str, int], hosts: Sequence[Host] = (B, C)) -> str | None:
        found = choose_victim(vms, hosts, occupancy(vms), sessions)
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
        assert not spares(good, [B], occupancy([good, bad]))
        assert not spares(bad, [B], occupancy([bad]))

    def test_minima_can_be_set_aside(self) -> None:
        only = vm("vm-1", "host-b")
        found = choose_victim([only], [B], occupancy([only]), {}, keep_minima=False)
        assert found == only

    def test_nobody_to_choose_from(self) -> None:
        assert self.victim([], {}) is None


@pytest.mark.parametrize(
    ("live", "failed", "expected"),
    [(3, 0, 2), (1, 0, 0), (0, 0, 0), (2, 1, 1), (3, 1, 2), (1, 1, 0)],
)
def test_how_many_can_go(live: int, failed: int, expected: int) -> None:
    """Down to one good VM; failed ones on top of it."""
    assert removable("host-b", [B], {"host-b": Occupancy(live, live, failed)}) == expected
