"""Addresses of domains: who says what, and what of it is believed. Stand-ins for libvirt's objects."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest
from structlog.testing import capture_logs

from luban.adapters.libvirt_hosts.address_sources import newest
from luban.adapters.libvirt_hosts.addresses import (
    AGENT_RETRY,
    LEASE_REFRESH,
    LEASE_RETRY,
    REFRESH,
    STALE,
    AddressBook,
    Answer,
    Lease,
    Nic,
    answer_for,
    unfit,
)
from tests.fakes.libvirt_domains import AGENT, LEASE, Scene, StandInDomain, failure, marked

# ---- addresses: planned, leased, told by the agent -------------------------------------------------------------


def test_a_planned_address_is_never_asked_for() -> None:
    domain = StandInDomain(marked("127.0.17.2"), "192.0.2.1")
    scene = Scene(domain)
    scene.network.give(domain, "192.0.2.1")
    assert scene.addresses(domain) == ["127.0.17.2"]
    assert domain.asked == []
    assert scene.network.asked == 0


def test_leases_are_looked_at_often_while_one_is_awaited_and_then_rarely() -> None:
    domain = StandInDomain(marked())
    scene = Scene(domain)
    scene.read()
    scene.read()
    assert scene.network.asked == 1
    scene.network.give(domain, "192.168.122.9")
    scene.now += LEASE_RETRY
    assert scene.read()[domain.uuid].address == "192.168.122.9"
    scene.now += LEASE_REFRESH - 0.1
    scene.read()
    assert scene.network.asked == 2
    assert scene.ask() == 0
    assert domain.asked == []


def test_one_look_at_the_leases_is_for_all_domains() -> None:
    domains = [StandInDomain(marked()) for _ in range(20)]
    scene = Scene(*domains)
    for number, domain in enumerate(domains):
        scene.network.give(domain, f"192.168.122.{number + 2}")
    assert scene.addresses(*domains) == [f"192.168.122.{number + 2}" for number in range(20)]
    assert scene.network.asked == 1


def test_the_mac_address_is_the_domains_own() -> None:
    """A domain of an earlier operator has a MAC address that today's rule does not give."""
    domain = StandInDomain(marked(), mac="52:54:00:aa:bb:cc")
    scene = Scene(domain)
    scene.network.give(domain, "192.168.122.9")
    assert scene.addresses(domain) == ["192.168.122.9"]


def test_an_address_goes_with_its_lease() -> None:
    hung, successor = StandInDomain(marked()), StandInDomain(marked())
    scene = Scene(hung, successor)
    scene.network.give(hung, "192.168.122.9")
    assert scene.addresses(hung, successor) == ["192.168.122.9", ""]
    scene.network.take_back(hung)
    scene.now += LEASE_REFRESH
    assert scene.addresses(hung, successor) == ["", ""]
    scene.network.give(successor, "192.168.122.9", expires=7300)
    scene.now += LEASE_REFRESH
    assert scene.addresses(hung, successor) == ["", "192.168.122.9"]


def test_of_two_leases_the_newest_counts_in_whatever_order() -> None:
    domain = StandInDomain(marked())
    for leases in ([("192.0.2.50", 100), ("192.0.2.51", 200)], [("192.0.2.51", 200), ("192.0.2.50", 100)]):
        scene = Scene(domain)
        for address, expires in leases:
            scene.network.give(domain, address, expires)
        assert scene.addresses(domain) == ["192.0.2.51"]


def test_a_lease_that_never_expires_is_the_newest() -> None:
    rows: list[dict[str, Any]] = [
        {"mac": "06:AA:00:00:00:01", "ipaddr": "192.0.2.1", "prefix": 24, "type": 0, "expirytime": 0},
        {"mac": "06:aa:00:00:00:01", "ipaddr": "192.0.2.2", "prefix": 24, "type": 0, "expirytime": 10**10},
        {"mac": "06:aa:00:00:00:01", "ipaddr": "2001:db8::1", "prefix": 64, "type": 1, "expirytime": 10**11},
        {"mac": None, "ipaddr": None, "prefix": None, "type": 0, "expirytime": None},
    ]
    assert newest(rows)["06:aa:00:00:00:01"].address == "192.0.2.1"


@pytest.mark.parametrize("active", [0, 1])
def test_without_an_answer_about_leases_those_known_stay_and_a_stopped_network_has_none(active: int) -> None:
    domain = StandInDomain(marked())
    scene = Scene(domain)
    scene.network.give(domain, "192.168.122.9")
    assert scene.addresses(domain) == ["192.168.122.9"]
    scene.network.fails, scene.network.active = failure(libvirt.VIR_ERR_INTERNAL_ERROR, "cannot"), active
    domain.lease = "192.168.122.9"
    scene.now += LEASE_REFRESH
    assert scene.addresses(domain) == (["192.168.122.9"] if active else [""])


def test_where_a_networks_leases_cannot_be_had_each_domain_is_asked_about() -> None:
    domain = StandInDomain(marked())
    scene = Scene(domain)
    scene.network.fails = failure(libvirt.VIR_ERR_NO_SUPPORT, "not supported")
    domain.lease = "192.168.122.9"
    assert scene.addresses(domain) == ["192.168.122.9"]
    assert domain.asked == [LEASE]
    scene.now += REFRESH
    domain.lease = ""
    assert scene.addresses(domain) == [""]


def test_the_agent_is_asked_where_there_is_no_lease_and_not_often() -> None:
    domain = StandInDomain(marked())
    scene = Scene(domain)
    assert scene.ask() == 0
    scene.read()
    assert scene.ask() == 1
    scene.now += AGENT_RETRY - 0.1
    scene.read()
    assert scene.ask() == 0
    domain.agent = "10.1.2.3"
    scene.now += 0.1
    assert scene.addresses(domain) == ["10.1.2.3"]
    scene.now += AGENT_RETRY
    scene.read()
    assert scene.ask() == 0
    assert domain.asked == [AGENT, AGENT]


def test_on_a_bridge_the_agent_alone_is_asked() -> None:
    domain = StandInDomain(marked(), "10.1.2.3", network="")
    scene = Scene(domain)
    assert scene.addresses(domain) == ["10.1.2.3"]
    assert scene.network.asked == 0


def test_a_silent_agent_has_said_it_and_one_that_says_nothing_takes_it_back() -> None:
    domain = StandInDomain(marked(), "10.1.2.3", network="")
    scene = Scene(domain)
    assert scene.addresses(domain) == ["10.1.2.3"]
    domain.agent = None
    scene.now += REFRESH
    assert scene.addresses(domain) == ["10.1.2.3"]
    domain.agent = ""
    scene.now += REFRESH
    assert scene.addresses(domain) == [""]


def test_a_stopped_domain_has_no_address_and_gets_a_new_one() -> None:
    domain = StandInDomain(marked())
    scene = Scene(domain)
    scene.network.give(domain, "192.168.122.9")
    assert scene.addresses(domain) == ["192.168.122.9"]
    domain.standing = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
    assert scene.addresses(domain) == [""]
    domain.standing = (libvirt.VIR_DOMAIN_RUNNING, 0)
    scene.network.take_back(domain)
    scene.network.give(domain, "192.168.122.10")
    assert scene.addresses(domain) == ["192.168.122.10"]


def test_a_paused_domain_keeps_its_address_and_its_agent_is_left_in_peace() -> None:
    domain = StandInDomain(marked(), "10.1.2.3", network="")
    scene = Scene(domain)
    assert scene.addresses(domain) == ["10.1.2.3"]
    domain.standing = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
    scene.now += REFRESH
    assert scene.addresses(domain) == ["10.1.2.3"]
    assert domain.asked == [AGENT]


def test_an_answer_about_a_forgotten_domain_is_dropped() -> None:
    book = AddressBook()
    book.agent("gone", Answer("10.1.2.3"), 0.0)
    assert book.published(0.0).by_uuid == {}


# ---- one address, one domain -----------------------------------------------------------------------------------


def test_a_lease_beats_what_an_agent_says() -> None:
    liar, owner = StandInDomain(marked(), "192.168.122.9", network=""), StandInDomain(marked())
    scene = Scene(liar, owner)
    assert scene.addresses(liar, owner) == ["192.168.122.9", ""]
    scene.network.give(owner, "192.168.122.9")
    scene.now += LEASE_REFRESH
    with capture_logs() as logs:
        for _ in range(3):
            assert scene.addresses(liar, owner) == ["", "192.168.122.9"]
    (entry,) = [entry for entry in logs if entry["event"] == "address left out"]
    assert entry["domain"] == liar.uuid
    assert (entry["host"], entry["cluster"], entry["vm"]) == ("host-b", "shop/luban", "luban-x7")
    assert owner.mac in entry["why"]


def test_nor_can_an_agent_claim_what_somebody_elses_machine_has_by_lease() -> None:
    liar, foreign = StandInDomain(marked(), "192.168.122.9"), StandInDomain(None)
    scene = Scene(liar, foreign)
    scene.network.give(foreign, "192.168.122.9")
    assert scene.addresses(liar) == [""]


def test_of_two_agents_the_first_keeps_it_as_long_as_it_says_so() -> None:
    first, second = StandInDomain(marked(), "10.1.2.3", network=""), StandInDomain(marked(), network="")
    scene = Scene(first, second)
    assert scene.addresses(first, second) == ["10.1.2.3", ""]
    second.agent = "10.1.2.3"
    scene.now += REFRESH
    assert scene.addresses(first, second) == ["10.1.2.3", ""]
    first.agent = None
    for _ in range(int(STALE / REFRESH) + 1):
        scene.now += REFRESH
        scene.addresses()
    assert scene.addresses(first, second) == ["", "10.1.2.3"]


def test_of_two_leases_of_one_address_the_newest_keeps_it() -> None:
    book = AddressBook()
    for uuid, mac in (("old", "06:00:00:00:00:01"), ("new", "06:00:00:00:00:02")):
        assert book.nics_due([uuid]) == [uuid]
        book.nic(uuid, Nic(mac, "default"))
    leases = {"06:00:00:00:00:01": Lease("192.0.2.9", 24, 100.0), "06:00:00:00:00:02": Lease("192.0.2.9", 24, 200.0)}
    for order in (leases, dict(reversed(leases.items()))):
        book.leases("default", order, 0.0)
        assert book.published(0.0).by_uuid == {"new": "192.0.2.9"}
        assert "192.0.2.9" in book.published(0.0).complaints["old"]


# ---- what can be a member's ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "prefix", "why"),
    [
        ("10.0.0.5", 24, ""),
        ("8.8.8.8", 0, ""),
        ("10.0.0.255", 0, ""),
        ("10.0.0.255", 16, ""),
        ("192.0.2.255", 31, ""),
        ("192.0.2.1", 32, ""),
        ("0.0.0.0", 0, "unspecified"),
        ("0.1.2.3", 8, "unspecified"),
        ("127.0.0.1", 8, "loopback"),
        ("127.0.17.2", 0, "loopback"),
        ("169.254.169.254", 16, "link-local"),
        ("224.0.0.1", 4, "multicast"),
        ("239.1.2.3", 0, "multicast"),
        ("255.255.255.255", 0, "reserved"),
        ("240.0.0.1", 0, "reserved"),
        ("10.0.0.255", 24, "broadcast"),
        ("10.0.0.0", 24, "its network's own"),
        ("10.0.0.5", 99, ""),
        ("10.0.0.5", None, ""),
        ("fe80::1%eth0", 64, "not an IPv4 address"),
        ("::ffff:10.0.0.5", 96, "not an IPv4 address"),
        ("010.0.0.5", 24, "not an IPv4 address"),
        ("10.0.0.5/24", 24, "not an IPv4 address"),
        ("10.0.0.5 ", 24, "not an IPv4 address"),
        ("evil", 0, "not an IPv4 address"),
        ("", 0, "not an IPv4 address"),
        (None, 0, "not an IPv4 address"),
        (167772165, 0, "not an IPv4 address"),
    ],
)
def test_addresses_that_cannot_be_a_members(address: Any, prefix: Any, why: str) -> None:
    assert unfit(address, prefix) == why


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "evil", "127.0.0.1", "255.255.255.255", "192.0.2.255"])
def test_whoever_says_it_an_unfit_address_is_left_out_and_logged_once(address: str) -> None:
    told, leased = StandInDomain(marked(), address, network=""), StandInDomain(marked())
    scene = Scene(told, leased)
    scene.network.give(leased, address)
    with capture_logs() as logs:
        assert scene.addresses(told, leased) == ["", ""]
        scene.now += REFRESH
        assert scene.addresses(told, leased) == ["", ""]
    assert sorted(entry["domain"] for entry in logs) == sorted([told.uuid, leased.uuid])
    assert all(address in entry["why"] for entry in logs)


@pytest.mark.parametrize("address", ["192.0.2.1", "evil", "0.0.0.0"])
def test_a_forward_that_is_none_is_left_out_and_logged_once(address: str) -> None:
    domain = StandInDomain(marked(address))
    scene = Scene(domain)
    with capture_logs() as logs:
        for _ in range(3):
            assert scene.addresses(domain) == [""]
    assert [address in entry["why"] for entry in logs] == [True]


MAC = "52:54:00:11:22:33"


@pytest.mark.parametrize(
    ("interfaces", "address"),
    [
        (None, ""),
        ({}, ""),
        ({"lo": {"hwaddr": "00:00:00:00:00:00", "addrs": [{"addr": "127.0.0.1", "type": 0}]}}, ""),
        ({"docker0": {"hwaddr": "02:42:00:00:00:01", "addrs": [{"addr": "172.17.0.1", "type": 0}]}}, ""),
        ({"eth0": {"hwaddr": MAC, "addrs": None}}, ""),
        ({"eth0": {"hwaddr": MAC}}, ""),
        ({"eth0": {"hwaddr": MAC, "addrs": [{}, {"addr": None}, {"addr": "10.0.0.5"}]}}, "10.0.0.5"),
        ({"eth0": {"hwaddr": MAC, "addrs": [{"addr": "169.254.3.4", "type": 0}]}}, ""),
        ({"eth0": {"hwaddr": MAC, "addrs": [{"addr": "fe80::1%eth0", "type": 1}]}}, ""),
        (
            {
                "eth0": {
                    "hwaddr": MAC.upper(),
                    "addrs": [{"addr": "fd00::1", "type": 1}, {"addr": "10.0.0.5", "type": 0}],
                }
            },
            "10.0.0.5",
        ),
        ({"tun0": {"hwaddr": None, "addrs": [{"addr": "10.8.0.1", "type": 0}]}}, ""),
    ],
)
def test_only_the_address_of_our_own_nic_counts(interfaces: Any, address: str) -> None:
    assert answer_for(interfaces, MAC).address == address


def test_what_a_guest_says_is_not_told_at_length() -> None:
    addrs = [{"addr": "x" * 10_000}] * 1000
    assert len(answer_for({"eth0": {"hwaddr": MAC, "addrs": addrs}}, MAC).complaint) < 400


def test_ipv6_addresses_are_nothing_to_complain_about() -> None:
    assert answer_for({"eth0": {"hwaddr": MAC, "addrs": [{"addr": "fe80::1%eth0"}]}}, MAC) == Answer()
