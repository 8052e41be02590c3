"""What is nobody's, and when that is believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luban.core.model import ClusterRef
from luban.core.orphans import (
    ORPHAN_SECONDS,
    TOLD_SECONDS,
    Census,
    DomainOwner,
    Orphan,
    Sightings,
    VMVolume,
    idle_volumes,
    is_nobodys,
    is_still_nobodys,
    ripe,
    sighted,
    told,
)

PLANE = "plane-1"
OWNER = DomainOwner(ClusterRef("team-a", "shop", "uid-of-shop"), PLANE)
NOBODY = Census(frozenset(), frozenset())
VOLUME = VMVolume("default", "luban-u.qcow2", "u")
ORPHAN = Orphan("Volume", "u", "luban-u.qcow2", "default", "1.5")


class TestDomains:
    """Whose a domain is."""

    def test_one_of_a_cluster_that_is_no_more_is_nobodys(self) -> None:
        assert is_nobodys("u", OWNER, NOBODY, PLANE)

    @pytest.mark.parametrize(
        "census",
        [
            Census(frozenset({"u"}), frozenset()),
            Census(frozenset(), frozenset({("team-a", "shop")})),
        ],
        ids=["its LubanVM is there", "a LubanCluster of its name is there"],
    )
    def test_somebody_stands_for_it(self, census: Census) -> None:
        assert not is_nobodys("u", OWNER, census, PLANE)
        assert not is_still_nobodys(replace(ORPHAN, kind="Domain", cluster=("team-a", "shop")), census)

    @pytest.mark.parametrize("made_by", ["", "plane-2"])
    def test_what_another_control_plane_made_or_an_earlier_version_is_left_alone(self, made_by: str) -> None:
        assert not is_nobodys("u", replace(OWNER, plane=made_by), NOBODY, PLANE)

    def test_while_we_do_not_know_ourselves_nothing_is_ours(self) -> None:
        assert not is_nobodys("u", replace(OWNER, plane=""), NOBODY, "")


def test_volumes_without_vm_domain_or_user_are_idle() -> None:
    used = VMVolume("default", "luban-v.qcow2", "v", user="domain other")
    assert idle_volumes([VOLUME, used], NOBODY, ()) == [VOLUME]
    assert idle_volumes([VOLUME], Census(frozenset({"u"}), frozenset()), ()) == []
    assert idle_volumes([VOLUME], NOBODY, {"u"}) == [], "a domain of another host on the same storage"


class TestAge:
    """For how long it was so."""

    def test_told_at_the_second_sight_and_removed_after_an_hour(self) -> None:
        seen: Sightings = sighted({}, [ORPHAN], 0.0)
        assert (told(seen, 0.0), ripe(seen, 0.0)) == ([], [])
        seen = sighted(seen, [ORPHAN], TOLD_SECONDS)
        assert (told(seen, TOLD_SECONDS), ripe(seen, TOLD_SECONDS)) == ([ORPHAN], [])
        assert ripe(seen, ORPHAN_SECONDS) == [ORPHAN]

    @pytest.mark.parametrize("meanwhile", [[], [replace(ORPHAN, stamp="2.5")]], ids=["not there", "written"])
    def test_it_begins_anew(self, meanwhile: list[Orphan]) -> None:
        seen = sighted(sighted({}, [ORPHAN], 0.0), meanwhile, ORPHAN_SECONDS - 1)
        seen = sighted(seen, [ORPHAN], ORPHAN_SECONDS)
        assert ripe(seen, ORPHAN_SECONDS) == []

    def test_the_oldest_come_first(self) -> None:
        other = replace(ORPHAN, uuid="a", name="luban-a.qcow2")
        seen = sighted(sighted({}, [ORPHAN], 0.0), [other, ORPHAN], 1.0)
        assert ripe(seen, 2 * ORPHAN_SECONDS) == [ORPHAN, other]
