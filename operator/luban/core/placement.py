"""Where a new VM goes (Luban cloud [L], Fig. 5) and which one leaves (Fig. 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple, get_args

from luban.api.cluster import BondPolicy, Host
from luban.api.cluster_status import PlacementReason
from luban.api.host import BondVerdict
from luban.core.bonds.model import rank
from luban.core.left_out import HostRoom
from luban.core.model import VMRecord

UNKNOWN: BondVerdict = "Unknown"
SOUND: frozenset[BondVerdict] = frozenset(verdict for verdict in get_args(BondVerdict) if rank(verdict) == 3)
"""Verdicts that take nothing from a host. None: it has no bond that could be impaired."""


@dataclass(frozen=True)
class Bonds:
    """Bond verdicts by host, and how much they count."""

    policy: BondPolicy = "Ignore"
    verdicts: Mapping[str, BondVerdict] = field(default_factory=dict)
    """A host that is missing is Unknown."""

    def verdict(self, host: str) -> BondVerdict:
        """Verdict of the host's bond."""
        return self.verdicts.get(host, UNKNOWN)

    def grade(self, host: str) -> int:
        """0: sound, 1: impaired, 2: unknown, 3: down. Always 0 if the policy looks away."""
        return 0 if self.policy == "Ignore" else 3 - rank(self.verdict(host))

    def admits(self, host: str) -> bool:
        """Whether the bond allows a new VM: Require wants it Healthy, Prefer only not Down."""
        if self.policy == "Require":
            return self.verdict(host) == "Healthy"
        return self.policy == "Ignore" or self.verdict(host) != "Down"


NO_BONDS = Bonds()


@dataclass(slots=True)
class Occupancy:
    """How many VMs a host has. The one part of a plan that changes while it is made: see `ledger`."""

    live: int
    """Wanted ones."""
    held: int
    """All, those on their way out included."""
    failed: int = 0
    """Wanted ones that failed: they hold room, but do not count towards the host's minimum."""
    arrived: int = 0
    """Those that this plan makes."""
    returned: int = 0
    """Those that are thought to be gone; see Ledger.without."""
    returned_memory: int = 0
    """Bytes that these could grow to."""


class Worth(NamedTuple):
    """What a host is worth as the place for one more VM: the lower, the better."""

    avoided: bool
    """A VM failed there lately."""
    has_minimum: bool
    grade: int
    """Of its bond."""
    live: int
    position: int
    """In the spec."""


@dataclass(frozen=True)
class Candidates:
    """The hosts among which a new VM's place is chosen."""

    hosts: Sequence[Host]
    """In the spec's order."""
    occupancy: Mapping[str, Occupancy]
    reachable: Callable[[str], bool]
    avoid: frozenset[str] = frozenset()
    """Hosts where a VM failed lately."""
    bonds: Bonds = NO_BONDS
    has_address: Callable[[Host], bool] = lambda _: True
    """Whether a host's forward range has an address left, or it needs none."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Hosts that may not be used, with the reason in words."""
    rooms: Mapping[str, HostRoom] = field(default_factory=dict)
    """What all clusters together leave on a host. One that is missing has no limit."""

    def why_unfit(self, host: Host) -> str:
        """Why nothing can be placed on the host; empty: it can."""
        if host.cordoned or host.name in self.refused:
            return self.refused.get(host.name, "it is cordoned")
        if not self.reachable(host.name):
            return "libvirt does not answer"
        if full := self._why_full(host):
            return full
        if not self.has_address(host):
            return f"its forwardRange {host.forward_range} is used up"
        if not self.bonds.admits(host.name):
            return f"its bond is {self.bonds.verdict(host.name)} (bondPolicy {self.bonds.policy})"
        return ""

    def _why_full(self, host: Host) -> str:
        found, room = self.occupancy[host.name], self.rooms.get(host.name)
        if found.held >= host.vms.max:
            return f"it is full ({found.held} of {host.vms.max} VMs)"
        if room is None or room.fits_after(found.arrived, found.returned, found.returned_memory):
            return ""
        return room.message

    def worth(self, host: Host, position: int) -> Worth:
        """What it is worth as it is now."""
        live = self.occupancy[host.name].live
        return Worth(host.name in self.avoid, live >= host.vms.min, self.bonds.grade(host.name), live, position)

    def any_fit(self) -> bool:
        """Whether any host can take one more VM."""
        return any(not self.why_unfit(host) for host in self.hosts)


@dataclass(frozen=True)
class Placing:
    """Where the next VM would go, and why."""

    host: Host | None
    reason: PlacementReason
    """What decided."""
    message: str


class Places:
    """The hosts as places for VMs that come one after the other.

    Fig. 5: the host with the fewest VMs, a tie goes to the first in the spec. A better bond comes before numbers, a
    host below its own minimum before that: one VM on each host is what survives the loss of a host. A host where a VM
    lately failed comes last.
    """

    def __init__(self, among: Candidates) -> None:
        self._among = among
        self._unfit = {host.name: among.why_unfit(host) for host in among.hosts}
        self._worth = {host.name: among.worth(host, position) for position, host in enumerate(among.hosts)}
        self._order = [(self._worth[host.name], host) for host in among.hosts if not self._unfit[host.name]]
        # Positions differ, so hosts themselves are never compared.
        heapify(self._order)

    def best(self) -> Host | None:
        """The host for one more VM; None: no host can take it."""
        return self._order[0][1] if self._order else None

    def fill(self) -> None:
        """One more VM went to the best host: what that, and those that share its addresses, are worth now."""
        worth, host = self._order[0]
        self._worth[host.name] = self._among.worth(host, worth.position)
        heapreplace(self._order, (self._worth[host.name], host))
        for other in self._among.hosts:
            if other.forward_range == host.forward_range and (other is host or host.forward_range):
                self._unfit[other.name] = self._among.why_unfit(other)
        while self._order and self._unfit[self._order[0][1].name]:
            heappop(self._order)

    def placing(self) -> Placing:
        """Where the next VM would go, and why."""
        best = self.best()
        return Placing(best, self._what_decided(best) if best is not None else "NoRoom", self.in_words())

    def _what_decided(self, best: Host) -> PlacementReason:
        if self._bonds_differ() and best != Places(replace(self._among, bonds=NO_BONDS)).best():
            return "BetterBond"
        others = (worth for name, worth in self._worth.items() if name != best.name and not self._unfit[name])
        mine, second = self._worth[best.name], min(others, default=None)
        if second is None:
            return "OnlyHost"
        if second.avoided != mine.avoided:
            return "NoRecentFailure"
        return "HostBelowMinimum" if second.has_minimum != mine.has_minimum else "FewestVMs"

    def _bonds_differ(self) -> bool:
        """Whether bonds make any difference between the hosts."""
        hosts, bonds = self._among.hosts, self._among.bonds
        return len({bonds.grade(host.name) for host in hosts}) > 1 or not all(bonds.admits(host.name) for host in hosts)

    def in_words(self) -> str:
        """Which is the best, and why none of the others."""
        best = self.best()
        if best is None:
            name, reasons = "nowhere", list(self._unfit.items())
        else:
            mine = self._worth[best.name]
            name, reasons = (
                best.name,
                [
                    (other, self._unfit[other] or self._why_worse(other, worth, best.name, mine))
                    for other, worth in self._worth.items()
                    if worth is not mine
                ],
            )
        words = "; ".join([f"not {other}: {reason}" for other, reason in reasons])
        return f"{name}; {words}" if words else name

    def _why_worse(self, host: str, worth: Worth, best: str, better: Worth) -> str:
        """Why the next VM does not go to a host that could take it, in words."""
        if worth.avoided != better.avoided:
            return "a VM failed there lately"
        if worth.has_minimum != better.has_minimum:
            return f"{best} is below its minimum"
        if worth.grade != better.grade:
            return f"its bond is {self._among.bonds.verdict(host)}"
        if worth.live != better.live:
            return f"it has more VMs ({worth.live}, {best} {better.live})"
        return f"it has as many VMs and stands after {best} in the spec"


class LeavingOrder(NamedTuple):
    """When a VM leaves, among those of hosts that are as full: the lower, the sooner."""

    sessions: float
    """Or, the other way round, the load. Unknown ones may be many: last choice."""
    bond: int
    """The worse, the lower."""
    age: float
    """The newest first."""
    name: str


def leaving_order(vm: VMRecord, sessions: Mapping[str, float], bonds: Bonds) -> LeavingOrder:
    """The one with the fewest sessions first, then by bond, then the newest."""
    return LeavingOrder(sessions.get(vm.name, math.inf), -bonds.grade(vm.host), -vm.created, vm.name)


def minima(hosts: Sequence[Host]) -> dict[str, int]:
    """VMs that stay on each host; a host that left the spec, or is cordoned, has no minimum."""
    return {host.name: host.vms.min for host in hosts if not host.cordoned}


def spares(vm: VMRecord, least: Mapping[str, int], occupancy: Mapping[str, Occupancy]) -> bool:
    """Whether the VM's host stays at its minimum without it."""
    found = occupancy[vm.host]
    return found.live - found.failed - (vm.phase != "Failed") >= least.get(vm.host, 0)


def removable(host: str, least: Mapping[str, int], occupancy: Mapping[str, Occupancy]) -> int:
    """How many VMs can go before the host is at its minimum."""
    found = occupancy[host]
    spare = found.live - found.failed - least.get(host, 0)
    return spare + found.failed if spare >= 0 else 0
