"""Room and addresses while VMs come and go within one plan."""

from __future__ import annotations

from collections import Counter

from luban.api.cluster import Host
from luban.core.ledger import Addresses, Ledger
from luban.core.placement import Occupancy
from tests.fakes.simulator import make_vm

RANGE = "127.0.17.0/24"
HOST = Host(name="host-b", uri="qemu+tls://host-b/system", forward_range=RANGE)


def ledger(*taken: str) -> Ledger:
    return Ledger(
        live=2,
        total=3,
        occupancy={"host-b": Occupancy(2, 3, 1)},
        broken=Counter({"host-b": 1}),
        addresses=Addresses(taken),
    )


class TestAddresses:
    def test_the_lowest_that_nobody_has(self) -> None:
        addresses = Addresses(["127.0.17.2", "127.0.17.4", "127.0.18.3"])
        assert addresses.lowest(RANGE) == "127.0.17.3"
        addresses.take("127.0.17.3")
        assert addresses.lowest(RANGE) == "127.0.17.5"

    def test_one_that_is_released_is_the_lowest_again(self) -> None:
        addresses = Addresses([f"127.0.17.{last}" for last in range(2, 255)])
        assert addresses.lowest(RANGE) == ""
        addresses.release("127.0.17.9")
        assert addresses.lowest(RANGE) == "127.0.17.9"

    def test_one_that_two_have_is_released_by_both(self) -> None:
        addresses = Addresses(["127.0.17.2", "127.0.17.2"])
        addresses.release("127.0.17.2")
        assert addresses.lowest(RANGE) == "127.0.17.3"


class TestLedger:
    def test_one_that_leaves_keeps_its_room(self) -> None:
        found = ledger()
        found.leave(make_vm(phase="Failed"), holds=True)
        assert (found.live, found.total, found.occupancy["host-b"]) == (1, 3, Occupancy(1, 3, 0))
        assert found.broken["host-b"] == 1

    def test_unless_nobody_waits_for_its_end(self) -> None:
        found = ledger()
        found.leave(make_vm(), holds=False)
        assert (found.live, found.total, found.occupancy["host-b"]) == (1, 2, Occupancy(1, 2, 1))
        assert not found.gone

    def test_without_a_finalizer_nothing_is_left_of_it(self) -> None:
        found = ledger("127.0.17.2")
        vm = make_vm("vm-1", "Failed", planned_address="127.0.17.2", has_finalizer=False)
        found.leave(vm, holds=False)
        assert (found.gone, found.broken["host-b"], found.free_address(HOST)) == ({"vm-1"}, 0, "127.0.17.2")

    def test_one_that_comes_takes_room_and_address(self) -> None:
        found = ledger()
        found.arrive("host-b", found.free_address(HOST))
        assert (found.live, found.total, found.occupancy["host-b"]) == (3, 4, Occupancy(3, 4, 1, arrived=1))
        assert found.free_address(HOST) == "127.0.17.3"

    def test_as_if_one_were_gone_is_over_afterwards(self) -> None:
        found = ledger("127.0.17.2")
        with found.without(make_vm(planned_address="127.0.17.2")):
            assert (found.occupancy["host-b"].held, found.free_address(HOST)) == (2, "127.0.17.2")
        assert (found.occupancy["host-b"].held, found.free_address(HOST)) == (3, "127.0.17.3")
