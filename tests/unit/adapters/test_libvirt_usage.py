"""libvirt's statistics as counters: what is not told is unknown, never zero."""

from __future__ import annotations

import threading
from typing import Any

import libvirt
import pytest

from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.usage import read_usage
from luban.ports import GuestMemory, Usage
from tests.fakes.libvirt_domains import LOCAL, StandInDomain

FULL = {
    "cpu.time": 2_500_000_000,
    "vcpu.current": 2,
    "net.count": 2,
    "net.0.rx.bytes": 10,
    "net.0.tx.bytes": 20,
    "net.1.rx.bytes": 300,
    "net.1.tx.bytes": 400,
    "balloon.available": 1000,
    "balloon.usable": 250,
    "balloon.maximum": 1024,
    "balloon.last-update": 1_700_000_000,
}


class Domain(StandInDomain):
    """One that has an id."""

    def ID(self) -> int:
        return 17


class Connection:
    """It tells `values` of one domain."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.domain, self.values = Domain(None), values
        self.asked: list[tuple[int, int]] = []

    def getAllDomainStats(self, stats: int, flags: int) -> list[Any]:
        self.asked.append((stats, flags))
        return [(self.domain, self.values)]


def usage(values: dict[str, Any]) -> Usage:
    connection = Connection(values)
    found = read_usage(Session(LOCAL, connection, threading.Event()), lambda: 5.0)
    assert list(found) == [connection.domain.uuid]
    return found[connection.domain.uuid]


def test_all_that_is_told() -> None:
    memory = GuestMemory(used=750 * 1024, maximum=1024 * 1024, told=1_700_000_000)
    assert usage(FULL) == Usage(5.0, 17, cpu_seconds=2.5, vcpus=2, network_bytes=730, memory=memory)


def test_one_call_that_waits_for_no_job_and_asks_for_nothing_else() -> None:
    connection = Connection(FULL)
    read_usage(Session(LOCAL, connection, threading.Event()), lambda: 5.0)
    ((stats, flags),) = connection.asked
    assert flags & libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    assert flags & libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
    assert not stats & (libvirt.VIR_DOMAIN_STATS_BLOCK | libvirt.VIR_DOMAIN_STATS_STATE)


def test_a_driver_that_tells_nothing() -> None:
    assert usage({}) == Usage(5.0, 17)


@pytest.mark.parametrize("missing", ["balloon.available", "balloon.usable", "balloon.maximum", "balloon.last-update"])
def test_memory_that_is_told_in_part_is_unknown(missing: str) -> None:
    assert usage({name: value for name, value in FULL.items() if name != missing}).memory is None


def test_memory_that_was_never_told_is_unknown() -> None:
    assert usage({**FULL, "balloon.last-update": 0}).memory is None


def test_interfaces_of_which_nothing_is_known() -> None:
    assert usage({"net.count": 1, "net.0.name": "user"}).network_bytes is None
    assert usage({"net.count": 2, "net.1.rx.bytes": 5, "net.1.tx.bytes": 6}).network_bytes == 11
