"""Two URIs of one daemon are found out by what is there; two daemons are not taken for one."""

from __future__ import annotations

from collections.abc import Collection

from luban.senses.same_daemons import SURE, SameDaemons

NAME, ADDRESS, OTHER = "qemu+tls://host-b/system", "qemu+tls://192.0.2.7/system", "qemu+tls://host-c/system"


def same(known: SameDaemons, one: str = NAME, other: str = ADDRESS) -> bool:
    return known.identity(one) == known.identity(other)


def look(known: SameDaemons, domains: Collection[str], *uris: str, times: int = SURE) -> None:
    for _ in range(times):
        for uri in uris or (NAME, ADDRESS):
            known.take(uri, domains)


def test_the_same_domains_again_and_again_are_one_daemons() -> None:
    known = SameDaemons()
    look(known, {"a", "b"}, times=1)
    assert not same(known), "once is chance"
    look(known, {"a", "b"})
    assert same(known)
    assert (known.turn, known.identity(OTHER)) == (1, "tls://host-c:16514/system?[]")


def test_of_hosts_with_nothing_nothing_is_told() -> None:
    known = SameDaemons()
    look(known, set(), times=9)
    assert not same(known)
    look(known, {"a"})
    look(known, set(), times=9)
    assert same(known)


def test_what_changes_between_two_looks_changes_nothing_of_it() -> None:
    known = SameDaemons()
    look(known, {"a"})
    for domains in ({"a", "b"}, {"b"}, {"b", "c", "d"}):
        look(known, domains, times=1)
    assert same(known)
    assert known.turn == 1


def test_a_domain_that_is_migrated_is_in_two_places_beside_others() -> None:
    known = SameDaemons()
    for _ in range(9):
        known.take(NAME, {"a", "b"})
        known.take(OTHER, {"b", "c"})
    assert not same(known, NAME, OTHER)


def test_two_that_were_taken_for_one_are_told_apart_again() -> None:
    known = SameDaemons()
    look(known, {"a"})
    for _ in range(SURE):
        known.take(NAME, {"a"})
        known.take(ADDRESS, {"b"})
    assert not same(known)


def test_what_turned_out_holds_while_nobody_looks() -> None:
    known = SameDaemons()
    look(known, {"a"})
    known.forget(ADDRESS)
    look(known, {"b"}, NAME, times=9)
    assert same(known)


def test_three_ways_to_one_daemon() -> None:
    known = SameDaemons()
    look(known, {"a"}, NAME, ADDRESS, OTHER)
    assert len({known.identity(uri) for uri in (NAME, ADDRESS, OTHER)}) == 1
