"""Where a new VM goes (Luban cloud [L], Fig. 5) and which one leaves (Fig. 6)."""

from __future__ import annotations

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
    live_per_host: Mapping[str, int],
    sessions: Mapping[str, int],
) -> VMRecord | None:
    """The VM to stop; None: every host is at its minimum.

    Fig. 6: if all hosts above their minimum hold the same number, the VM with the fewest sessions of all, otherwise
    the one with the fewest sessions on the fullest host. Ties: the newest. A host that left the spec, or is cordoned,
    has no minimum.
    """
    minimum = {host.name: 0 if host.cordoned else host.vms.min for host in hosts}
    eligible = [vm for vm in candidates if live_per_host.get(vm.host, 0) > minimum.get(vm.host, 0)]
    if not eligible:
        return None
    fullest = max(live_per_host.get(vm.host, 0) for vm in eligible)
    fullest_only = [vm for vm in eligible if live_per_host.get(vm.host, 0) == fullest]
    return min(fullest_only, key=lambda vm: (sessions.get(vm.name, 0), -vm.created, vm.name))
