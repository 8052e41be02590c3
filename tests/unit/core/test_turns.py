"""Who may start under a lowered maximum, while some of those that wait are asked to leave."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from luban.core.model import VMRecord
from luban.core.turns import Turns
from tests.fakes.simulator import make_vm

HOSTS = ("host-b", "host-c", "host-z")


def waiting_on(places: Sequence[str]) -> list[VMRecord]:
    return [make_vm(f"vm-{number:02d}", "Pending", host) for number, host in enumerate(places)]


def test_the_oldest_start_as_long_as_there_is_room() -> None:
    vms = waiting_on(["host-b", "host-b", "host-c", "host-b", "host-c"])
    assert Turns(vms, {"host-b": 2, "host-c": 1}, 9).barred == {"vm-03", "vm-04"}
    assert Turns(vms, {"host-b": 2, "host-c": 1}, 1).barred == {"vm-01", "vm-02", "vm-03", "vm-04"}
    assert Turns(vms, {"host-b": 2}, 9).barred == {"vm-02", "vm-03", "vm-04"}, "host-c is closed"


def test_one_that_leaves_takes_its_room_from_the_last() -> None:
    turns = Turns(waiting_on(["host-b"] * 4), {"host-b": 3}, 9)
    assert turns.newly_barred() == ["vm-03"]
    turns.leave("vm-03")
    assert turns.newly_barred() == ["vm-02"]
    turns.leave("vm-00")
    assert turns.newly_barred() == []
    assert turns.barred == {"vm-02"}


@given(
    st.lists(st.sampled_from(HOSTS), max_size=12),
    st.dictionaries(st.sampled_from(HOSTS[:2]), st.integers(-2, 5)),
    st.integers(-2, 8),
    st.randoms(use_true_random=False),
)
def test_as_if_dealt_anew(places: list[str], free: dict[str, int], left: int, chance: random.Random) -> None:
    """Each that leaves goes on holding its room; the turns of the others are as if they were dealt anew."""
    vms = waiting_on(places)
    turns, free, told = Turns(vms, free, left), dict(free), set[str]()
    for vm in chance.sample(vms, len(vms)):
        told |= set(turns.newly_barred())
        turns.leave(vm.name)
        vms.remove(vm)
        left -= 1
        free[vm.host] = free.get(vm.host, 0) - 1
        assert turns.barred == Turns(vms, free, left).barred
        told |= set(turns.newly_barred())
        assert turns.barred <= told
