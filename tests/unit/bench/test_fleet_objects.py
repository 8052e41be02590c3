"""The objects of a fleet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.support.fleet_objects import Size, agent_of, cluster_body
from lab.paths import Layout
from luban.api.cluster import LubanCluster

FULL = Size(clusters=100, vms=10, hosts=20, share=4)
LAYOUT = Layout(132, Path("/lab"))
URIS = [f"qemu+unix:///session?socket=/lab/{number}" for number in range(FULL.hosts)]


def clusters() -> list[LubanCluster]:
    bodies = [cluster_body(LAYOUT, FULL, number, URIS) for number in range(FULL.clusters)]
    return [LubanCluster.parse({**body, "metadata": {**body["metadata"], "namespace": "x"}}) for body in bodies]


def test_every_host_serves_as_many_clusters_as_any_other() -> None:
    used = Counter(host.uri for cluster in clusters() for host in cluster.spec.hosts)
    assert used == dict.fromkeys(URIS, FULL.clusters * FULL.share // FULL.hosts)


def test_no_two_forward_ranges_and_no_two_agents_are_the_same() -> None:
    ranges = [host.forward_range for cluster in clusters() for host in cluster.spec.hosts]
    agents = {agent_of(LAYOUT, number) for number in range(FULL.clusters)}
    assert (len(set(ranges)), len(agents)) == (FULL.clusters * FULL.share, FULL.clusters)


def test_hosts_have_room_for_all_vms_but_for_one_hosts_share() -> None:
    for cluster in clusters():
        *others, _ = (host.vms.max for host in cluster.spec.hosts)
        assert sum(others) >= FULL.vms


@pytest.mark.parametrize("share", [0, 21])
def test_a_cluster_cannot_use_more_hosts_than_there_are_or_none(share: int) -> None:
    with pytest.raises(ValueError, match="hosts"):
        Size(clusters=1, vms=1, hosts=20, share=share)
