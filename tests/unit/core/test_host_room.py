"""What is left on a host that several clusters share."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban.api.libvirt_host import LibvirtHost
from luban.core.host_room import GIBI, Claim, Limit, limits_of, room_of
from luban.core.left_out import HostRoom
from luban.core.model import ClusterRef

WEB, SHOP, LATER = ClusterRef("team-a", "web"), ClusterRef("team-b", "shop"), ClusterRef("team-b", "later")


def claim(uid: str, cluster: ClusterRef = WEB, *, memory: int = GIBI, created: str = "", holds: bool = True) -> Claim:
    return Claim(uid, cluster, memory, created or f"2026-01-01T00:00:{uid.zfill(2)}Z", holds)


def waiting(uid: str, cluster: ClusterRef = WEB, created: str = "", memory: int = GIBI) -> Claim:
    return claim(uid, cluster, created=created, holds=False, memory=memory)


def free(room: HostRoom) -> int:
    """How many more VMs fit."""
    return next((count for count in range(99) if not room.fits_after(count)), 99)


def test_an_empty_host_has_room_up_to_its_maximum() -> None:
    room = room_of(WEB, [], [Limit(vms=3)], GIBI)
    assert (free(room), room.late) == (3, frozenset())


def test_vms_of_all_clusters_count_and_the_words_name_them() -> None:
    room = room_of(WEB, [claim("1"), claim("2", SHOP), claim("3", SHOP)], [Limit(vms=3)], GIBI)
    assert (free(room), room.late) == (0, frozenset())
    assert room.message == "all clusters fill it (3 of 3 VMs: team-b/shop 2, team-a/web 1)"


def test_first_come_first_served_among_those_that_wait() -> None:
    claims = [waiting("3", SHOP), waiting("1", WEB), waiting("2", SHOP)]
    assert room_of(WEB, claims, [Limit(vms=2)], GIBI).late == {"3"}


def test_of_the_same_second_the_same_one_is_served_whoever_asks() -> None:
    claims = [waiting("7", SHOP, "2026-01-01T00:00:00Z"), waiting("5", WEB, "2026-01-01T00:00:00Z")]
    late = {room_of(it, order, [Limit(vms=1)], GIBI).late for it in (WEB, SHOP) for order in (claims, claims[::-1])}
    assert late == {frozenset({"7"})}


def test_what_was_started_keeps_its_room_although_another_was_made_before() -> None:
    assert room_of(WEB, [waiting("1"), claim("2", SHOP)], [Limit(vms=1)], GIBI).late == {"1"}


def test_a_lowered_limit_stops_nothing_that_runs() -> None:
    room = room_of(WEB, [claim("1"), claim("2"), claim("3")], [Limit(vms=1)], GIBI)
    assert (free(room), room.late) == (0, frozenset())


def test_memory_counts_as_much_as_vms_may_grow_to() -> None:
    room = room_of(WEB, [claim("1", memory=3 * GIBI)], [Limit(vms=9, memory=6 * GIBI)], 2 * GIBI)
    assert free(room) == 1
    room = room_of(WEB, [claim("1", memory=5 * GIBI)], [Limit(vms=9, memory=6 * GIBI)], 2 * GIBI)
    assert room.message == "all clusters fill it (5.0 GiB of 6.0 GiB memory, 2.0 GiB for one more: team-a/web 1)"
    assert free(room) == 0


def test_one_that_is_too_large_keeps_no_smaller_one_waiting() -> None:
    claims = [waiting("1", memory=5 * GIBI), waiting("2", SHOP)]
    assert room_of(SHOP, claims, [Limit(memory=4 * GIBI)], GIBI).late == {"1"}


def test_a_quota_binds_its_own_namespace_alone() -> None:
    limits = [Limit(vms=9), Limit(vms=1, namespace="team-b")]
    claims = [claim("1", SHOP), waiting("2", LATER), waiting("3", WEB)]
    own, other = room_of(LATER, claims, limits, GIBI), room_of(WEB, claims, limits, GIBI)
    assert (free(own), free(other)) == (0, 7)
    assert own.late == other.late == {"2"}
    assert own.message == "namespace team-b has its quota there (1 of 1 VMs: team-b/shop 1)"


@pytest.mark.parametrize(
    ("libvirt", "memory", "elsewhere"),
    [
        ({}, 15 * GIBI, 2 * GIBI),
        ({"memory": {"reserve": "4Gi"}}, 12 * GIBI, 2 * GIBI),
        ({"memory": {"max": "40Gi", "reserve": "4Gi"}}, 40 * GIBI, 0),
    ],
)
def test_without_a_maximum_a_host_lends_what_it_has(libvirt: object, memory: int, elsewhere: int) -> None:
    said = LibvirtHost.model_validate({"uri": "qemu+tls://host-b/system", **dict(libvirt)})  # type: ignore[call-overload]
    assert limits_of(said, 16 * GIBI, 2 * GIBI) == (Limit(None, memory, elsewhere=elsewhere),)


def test_a_host_that_does_not_say_what_it_has_lends_nothing() -> None:
    """A limit that is not known must not become none at all."""
    room = room_of(WEB, [], limits_of(LibvirtHost(uri="qemu:///system"), 0, 0), GIBI)
    assert not room.fits_after()
    assert "does not say how much memory" in room.message
    said = LibvirtHost.model_validate({"uri": "qemu:///system", "memory": {"max": "2Gi"}})
    assert free(room_of(WEB, [], limits_of(said, 0, 0), GIBI)) == 2


def test_what_leaves_gives_back_its_own_memory_and_no_more() -> None:
    room = room_of(WEB, [claim("1", memory=GIBI), claim("2", memory=3 * GIBI)], [Limit(memory=4 * GIBI)], 2 * GIBI)
    assert not room.fits_after(returned=1, returned_memory=GIBI)
    assert room.fits_after(returned=1, returned_memory=3 * GIBI)
    assert not room.fits_after(arrived=1, returned=1, returned_memory=3 * GIBI)


def test_what_is_about_to_be_made_takes_room_and_makes_nobody_late() -> None:
    room = room_of(WEB, [waiting("1", SHOP), claim("", WEB)], [Limit(vms=2)], GIBI)
    assert (free(room), room.late) == (0, frozenset())


CLAIMS = st.lists(
    st.builds(
        Claim,
        uid=st.uuids().map(str),
        cluster=st.sampled_from([WEB, SHOP, LATER]),
        memory=st.integers(1, 4).map(GIBI.__mul__),
        created=st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]),
        holds=st.booleans(),
    ),
    max_size=12,
)
LIMITS = st.tuples(
    st.builds(Limit, vms=st.none() | st.integers(1, 8), memory=st.none() | st.integers(1, 16).map(GIBI.__mul__)),
    st.builds(Limit, vms=st.none() | st.integers(1, 4), namespace=st.just("team-b")),
)


@given(claims=CLAIMS, limits=LIMITS, need=st.integers(1, 4).map(GIBI.__mul__), seed=st.integers(0, 9))
def test_nobody_gets_more_than_there_is(claims: list[Claim], limits: tuple[Limit, Limit], need: int, seed: int) -> None:
    """Whoever starts what is not late, and makes what is free, stays within each limit that was kept before."""
    shuffled = list(claims)
    random.Random(seed).shuffle(shuffled)
    room = room_of(SHOP, claims, limits, need)
    assert room == room_of(SHOP, shuffled, limits, need), "the order in which they are told decides nothing"
    held = [it for it in claims if it.holds]
    served = [it for it in claims if it.uid not in room.late]
    made = [replace(claim("new", SHOP), memory=need)] * min(free(room), 20)
    for limit in limits:
        if within(held, limit):
            assert within([*served, *made], limit)


def within(claims: list[Claim], limit: Limit) -> bool:
    counted = [it for it in claims if limit.namespace in ("", it.cluster.namespace)]
    few = limit.vms is None or len(counted) <= limit.vms
    return few and (limit.memory is None or sum(it.memory for it in counted) <= limit.memory)
