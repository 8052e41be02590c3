"""Where a new VM goes (Luban cloud [L], Fig. 5) and which one leaves (Fig. 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from luban.api.cluster import Host
from luban.core.model import VMRecord


@dataclass(frozen=True)
class Occupancy:
    """How many VMs a host has."""

    live: int
    """Wanted ones."""
    held: int
    """All, those on their way out included."""
    failed: int = 0
    """Wanted ones that failed: they hold room, but do not count towards the host's minimum."""


def choose_host(
    hosts: Sequence[Host],
    occupancy: Mapping[str, Occupancy],
    *,
    reachable: Callable[[str], bool],
    avoid: Iterable[str] = (),
) -> Host | None:
    """The host for one more VM; None: no host has room.

    Fig. 5: the host with the fewest VMs, a tie goes to the first in the spec. A host below its own minimum comes
    before all others; a host where a VM lately failed comes last.
    """
    shunned = frozenset(avoid)
    able = [
        (host.name in shunned, occupancy[host.name].live >= host.vms.min, occupancy[host.name].live, index)
        for index, host in enumerate(hosts)
        if not host.cordoned and reachable(host.name) and occupancy[host.name].held < host.vms.max
    ]
    return hosts[min(able)[-1]] if able else None


def choose_victim(
    candidates: Sequence[VMRecord],
    hosts: Sequence[Host],
    occupancy: Mapping[str, Occupancy],
    sessions: Mapping[str, int],
    *,
    keep_minima: bool = True,
) -> VMRecord | None:
    """The VM to stop; None: there is none, or every host is at its minimum.

    Fig. 6: if all hosts above their minimum hold the same number, the VM with the fewest sessions of all, otherwise
    the one with the fewest sessions on the fullest host. Ties: the newest. Unknown sessions may be many: last choice.
    """
    eligible = [vm for vm in candidates if not keep_minima or spares(vm, hosts, occupancy)]
    if not eligible:
        return None
    fullest = max(occupancy[vm.host].live for vm in eligible)
    fullest_only = [vm for vm in eligible if occupancy[vm.host].live == fullest]
    return min(fullest_only, key=lambda vm: (sessions.get(vm.name, math.inf), -vm.created, vm.name))


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
