"""Two URIs of one daemon are found out by what is there; two daemons are not taken for one."""

from __future__ import annotations

from luban.senses.same_daemons import SURE, SameDaemons

NAME, ADDRESS, OTHER = "qemu+tls://host-b/system", "qemu+tls://192.0.2.7/system", "qemu+tls://host-c/system"


def same(known: SameDaemons, one: str = NAME, other: str = ADDRESS) -> bool:
    return known.identity(one) == known.identity(other)


def running(*uuids: str) -> set[tuple[str, str]]:
    return {(uuid, "Running") for uuid in uuids}


def look(known: SameDaemons, domains: str, *uris: str, times: int = SURE + 1) -> None:
    """Domains of a letter each are seen at these URIs in turn; the first look at the first one is compared to none."""
    for _ in range(times):
        for uri in uris or (NAME, ADDRESS):
            known.take(uri, running(*domains))


def test_the_same_domains_again_and_again_are_one_daemons() -> None:
    known = SameDaemons()
    look(known, "ab", times=1)
    assert not same(known), "once is chance"
    look(known, "ab")
    assert same(known)
    assert (known.turn, known.identity(OTHER)) == (1, "tls://host-c:16514/system?[]")


def test_of_hosts_with_nothing_nothing_is_told() -> None:
    known = SameDaemons()
    look(known, "", times=9)
    assert not same(known)
    look(known, "ab")
    look(known, "", times=9)
    assert same(known)


def test_of_one_domain_alone_nothing_is_told() -> None:
    known = SameDaemons()
    look(known, "a", times=9)
    assert not same(known)


def test_what_changes_between_two_looks_changes_nothing_of_it() -> None:
    known = SameDaemons()
    look(known, "ab")
    for domains in ("abc", "bc", "bcde"):
        look(known, domains, times=1)
    assert same(known)
    assert known.turn == 1


def test_a_domain_that_is_migrated_is_in_two_places_beside_others() -> None:
    known = SameDaemons()
    for _ in range(9):
        known.take(NAME, running("a", "b"))
        known.take(OTHER, running("b", "c"))
    assert not same(known, NAME, OTHER)
    for _ in range(9):
        known.take(NAME, running("a", "b"))
        known.take(OTHER, {("a", "Paused"), ("b", "Paused")})
    assert not same(known, NAME, OTHER), "all of them are on their way"


def test_what_one_says_while_the_other_is_silent_proves_nothing() -> None:
    """A host died, and its domains were brought up on another one."""
    known = SameDaemons()
    known.take(NAME, running("a", "b"))
    look(known, "ab", OTHER, times=9)
    assert not same(known, NAME, OTHER)
    known.forget(NAME)
    look(known, "ab", OTHER, times=9)
    assert not same(known, NAME, OTHER)


def test_two_that_were_taken_for_one_are_told_apart_again() -> None:
    known = SameDaemons()
    look(known, "ab")
    for _ in range(SURE + 1):
        known.take(NAME, running("a", "b"))
        known.take(ADDRESS, running("c", "d"))
    assert not same(known)


def test_what_turned_out_holds_while_nobody_looks() -> None:
    known = SameDaemons()
    look(known, "ab")
    known.forget(ADDRESS)
    look(known, "cd", NAME, times=9)
    assert same(known)


def test_three_ways_to_one_daemon() -> None:
    known = SameDaemons()
    look(known, "ab", NAME, ADDRESS, OTHER)
    assert len({known.identity(uri) for uri in (NAME, ADDRESS, OTHER)}) == 1
