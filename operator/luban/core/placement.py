"""Where a new VM goes (Luban cloud [L], Fig. 5) and which one leaves (Fig. 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from luban.api.cluster import BondPolicy, Host
from luban.api.host import BondVerdict
from luban.core.bonds.model import rank
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


@dataclass(frozen=True)
class Occupancy:
    """How many VMs a host has."""

    live: int
    """Wanted ones."""
    held: int
    """All, those on their way out included."""
    failed: int = 0
    """Wanted ones that failed: they hold room, but do not count towards the host's minimum."""


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
    no_address: frozenset[str] = frozenset()
    """Hosts whose forward range is used up."""

    def why_unfit(self, host: Host) -> str:
        """Why nothing can be placed on the host; empty: it can."""
        held = self.occupancy[host.name].held
        if host.cordoned:
            return "it is cordoned"
        if not self.reachable(host.name):
            return "libvirt does not answer"
        if held >= host.vms.max:
            return f"it is full ({held} of {host.vms.max} VMs)"
        if host.name in self.no_address:
            return f"its forwardRange {host.forward_range} is used up"
        if not self.bonds.admits(host.name):
            return f"its bond is {self.bonds.verdict(host.name)} (bondPolicy {self.bonds.policy})"
        return ""

    def key(self, host: Host) -> tuple[bool, bool, int, int, int]:
        """The lower, the better."""
        live = self.occupancy[host.name].live
        return (
            host.name in self.avoid,
            live >= host.vms.min,
            self.bonds.grade(host.name),
            live,
            self.hosts.index(host),
        )

    def best(self) -> Host | None:
        """The host for one more VM; None: no host can take it.

        Fig. 5: the host with the fewest VMs, a tie goes to the first in the spec. A better bond comes before numbers,
        a host below its own minimum before that: one VM on each host is what survives the loss of a host. A host
        where a VM lately failed comes last.
        """
        return min((host for host in self.hosts if not self.why_unfit(host)), key=self.key, default=None)

    def why_not(self, host: Host, best: Host | None) -> str:
        """Why the next VM does not go to `host`, in words."""
        unfit = self.why_unfit(host)
        if unfit or best is None:
            return unfit
        mine, other = self.occupancy[host.name].live, self.occupancy[best.name].live
        reasons = (
            "a VM failed there lately",
            f"{best.name} is below its minimum",
            f"its bond is {self.bonds.verdict(host.name)}",
            f"it has more VMs ({mine}, {best.name} {other})",
            f"it has as many VMs and stands after {best.name} in the spec",
        )
        pairs = zip(self.key(host), self.key(best), reasons, strict=True)
        return next(reason for own, better, reason in pairs if own != better)


@dataclass(frozen=True)
class Placing:
    """Where the next VM would go, and why."""

    host: Host | None
    by_bond: bool
    """Whether another host would have been chosen, had the bonds not counted."""
    message: str


def place(among: Candidates) -> Placing:
    """Choose the host for one more VM and give the reasons."""
    best = among.best()
    blind = replace(among, bonds=NO_BONDS).best()
    others = [host for host in among.hosts if best is None or host.name != best.name]
    words = "; ".join(f"not {host.name}: {among.why_not(host, best)}" for host in others)
    name = best.name if best is not None else "nowhere"
    return Placing(best, best != blind, f"{name}; {words}" if words else name)


def choose_victim(
    candidates: Sequence[VMRecord],
    hosts: Sequence[Host],
    occupancy: Mapping[str, Occupancy],
    sessions: Mapping[str, int],
    *,
    keep_minima: bool = True,
    bonds: Bonds = NO_BONDS,
) -> VMRecord | None:
    """The VM to stop; None: there is none, or every host is at its minimum.

    Fig. 6: if all hosts above their minimum hold the same number, the VM with the fewest sessions of all, otherwise
    the one with the fewest sessions on the fullest host. Ties: the worse bond, then the newest. Unknown sessions may
    be many: last choice.
    """
    eligible = [vm for vm in candidates if not keep_minima or spares(vm, hosts, occupancy)]
    if not eligible:
        return None
    fullest = max(occupancy[vm.host].live for vm in eligible)
    fullest_only = [vm for vm in eligible if occupancy[vm.host].live == fullest]
    return min(
        fullest_only,
        key=lambda vm: (sessions.get(vm.name, math.inf), -bonds.grade(vm.host), -vm.created, vm.name),
    )


def spares(vm: VMRecord, hosts: Sequence[Host], occupancy: Mapping[str, Occupancy]) -> bool:
    """Whether the VM's host stays at its minimum without it."""
    found = occupancy[vm.host]
    others = found.live - found.failed - (vm.phase != "Failed")
    return others >= _minimum(vm.host, hosts)


def removable(host: str, hosts: Sequence[Host], occupancy: Mapping[str, Occupancy]) -> int:
    """How many VMs can go before the host is at its minimum."""
    found = occupancy[host]
    spare = found.live - found.failed - _minimum(host, hosts)
    return spare + found.failed if spare >= 0 else 0


def _minimum(name: str, hosts: Sequence[Host]) -> int:
    """A host that left the spec, or is cordoned, has none."""
    return next((host.vms.min for host in hosts if host.name == name and not host.cordoned), 0)
