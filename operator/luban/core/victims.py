"""VMs of one kind, of which one after the other may be asked to leave (Luban cloud [L], Fig. 6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush

from luban.core.model import VMRecord
from luban.core.placement import LeavingOrder, Occupancy


class Victims:
    """Fig. 6: the one with the fewest sessions on the fullest host, or of all if the hosts hold the same number.

    While VMs leave, hosts only become emptier, and who may not go any more never may again: so each VM is looked at
    once, each host again only when it was the fullest, and a choice costs the logarithm of their numbers.
    """

    def __init__(
        self, occupancy: Mapping[str, Occupancy], may_go: Callable[[VMRecord], bool], *, fullest_host: bool = True
    ) -> None:
        """`occupancy`: as it is at each moment. `may_go`: whether a VM may still leave as one of this kind.

        `fullest_host`: whether hosts count at all; if not, the VMs of all stand in one order.
        """
        self._occupancy = occupancy
        self._may_go = may_go
        self._fullest_host = fullest_host
        self._vms: dict[str, VMRecord] = {}
        self._on: dict[str, list[LeavingOrder]] = defaultdict(list)
        """By host: its VMs, the first to leave in front."""
        self._hosts: list[tuple[int, LeavingOrder, str]] = []
        """The fullest in front; ties by the first VM to leave."""
        self._entries: dict[str, tuple[int, LeavingOrder, str]] = {}
        """By host: its entry that counts."""

    def add(self, vms: Iterable[tuple[LeavingOrder, VMRecord]]) -> None:
        """These are of the kind too."""
        hosts = set()
        for order, vm in vms:
            self._vms[vm.name] = vm
            heappush(self._on[vm.host], order)
            hosts.add(vm.host)
        for host in hosts:
            self._enter(host)

    def first(self) -> VMRecord | None:
        """The one to leave next; None: there is none that may."""
        while self._hosts:
            entry = self._hosts[0]
            host = entry[-1]
            order = self._first_on(host) if self._entries.get(host) is entry else None
            if order is not None and entry[:2] == (self._fullness(host), order):
                return self._vms[order.name]
            heappop(self._hosts)
            if order is not None:
                self._enter(host)
        return None

    def _fullness(self, host: str) -> int:
        """The lower, the fuller."""
        return -self._occupancy[host].live if self._fullest_host else 0

    def _first_on(self, host: str) -> LeavingOrder | None:
        orders = self._on[host]
        while orders and not self._may_go(self._vms[orders[0].name]):
            heappop(orders)
        return orders[0] if orders else None

    def _enter(self, host: str) -> None:
        """Give the host its place among the others as it is now; an earlier entry counts no more."""
        entry = (self._fullness(host), self._on[host][0], host)
        self._entries[host] = entry
        heappush(self._hosts, entry)
