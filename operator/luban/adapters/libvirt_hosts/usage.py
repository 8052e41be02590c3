"""What running domains use, as counters. Blocking; a job of a lane.

libvirt asks each QEMU for CPU times and memory through its monitor. NOWAIT passes over one that is busy with another
call, but the first call to one that hangs waits for it: so this is never part of the read that says how a host is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import libvirt

from luban.adapters.libvirt_hosts.session import Session
from luban.ports import GuestMemory, Usage

_WHAT = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
_OF = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_NANO = 1e-9
_KIBI = 1024

Values = Mapping[str, Any]


def read_usage(session: Session, clock: Callable[[], float]) -> dict[str, Usage]:
    """Of all that run, by uuid, in one call. What a driver or a guest does not tell is None."""
    rows: list[tuple[Any, Values]] = session.connection.getAllDomainStats(_WHAT, _OF)
    at = clock()
    return {domain.UUIDString(): _usage(at, domain.ID(), values) for domain, values in rows}


def _usage(at: float, run: int, values: Values) -> Usage:
    time = values.get("cpu.time")
    return Usage(
        at=at,
        run=run,
        cpu_seconds=time * _NANO if time is not None else None,
        vcpus=values.get("vcpu.current"),
        network_bytes=_network(values),
        memory=_memory(values),
    )


def _network(values: Values) -> int | None:
    """Over all interfaces; None: of none it is known, as of those in user mode."""
    count = int(values.get("net.count", 0))
    counters = [values.get(f"net.{number}.{way}.bytes") for number in range(count) for way in ("rx", "tx")]
    known = [it for it in counters if it is not None]
    return sum(known) if known else None


def _memory(values: Values) -> GuestMemory | None:
    """As the guest's balloon driver tells it: without one, or before it told for the first time, nothing is known."""
    available, usable, maximum = (values.get(f"balloon.{name}") for name in ("available", "usable", "maximum"))
    told = values.get("balloon.last-update")
    if not available or usable is None or not maximum or not told:
        return None
    return GuestMemory(used=_KIBI * max(0, available - usable), maximum=_KIBI * maximum, told=told)
