"""Hosts that two clusters of two namespaces share: limits over both of them hold, whatever they do in what order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from luban.api.cluster import LubanCluster
from luban.core.model import ClusterRef, DomainRecord
from luban.errors import PermanentError
from luban.ports import HostRef, MarkedDomain, Ports, Unrivalled
from luban.runtime.metrics import Metrics
from luban.runtime.tick import ClusterRuntime
from luban.senses import Senses
from luban.senses.host_claims import HostClaims
from luban.senses.hosts import Picture
from tests.fakes.cluster import FakeCluster
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.operator_harness import BootedProbes, FollowingBalancer, VirtualClock, cluster_body, lease_body

URIS = {"host-b": "qemu+tls://host-b/system", "host-c": "qemu+tls://host-c/system"}
NAMES = {"team-a": "web", "team-b": "shop"}


class Neighbours:
    """Two clusters, one operator."""

    def __init__(self, **libvirt: Any) -> None:
        """`libvirt`: what the administrator says of both hosts."""
        self.clock = VirtualClock()
        self.api = FakeCluster(now=self.clock.now)
        self.hypervisor = FakeHypervisor(self.clock.now, boot_seconds=10.0, shutdown_seconds=2.0)
        self.libvirt = libvirt
        for octet, (namespace, name) in enumerate(NAMES.items()):
            self.api.create(cluster_body(self._spec(octet), name=name, namespace=namespace))
            self.api.create(lease_body(name, namespace))
        self.most: dict[str, int] = {}
        """By host: most domains that ran there at any time."""
        self.start()

    def _spec(self, octet: int) -> dict[str, Any]:
        hosts = [
            {"name": host, "vms": {"min": 0, "max": 6}, "forwardRange": f"127.0.{20 * octet + place}.0/24"}
            for place, host in enumerate(URIS, 17)
        ]
        return {"hosts": hosts, "scaling": {"policy": "Manual", "minVMs": 1, "maxVMs": 12}, "replicas": 2}

    def start(self) -> None:
        """The operator, or its successor, which knows nothing but what the API server has."""
        balancer, probes = FollowingBalancer(self.api), BootedProbes(self.api, self.hypervisor)
        ports = Ports(self.hypervisor, self.api, balancer, probes, self.clock, Unrivalled())
        self.senses = Senses.of(ports)
        for host in URIS:
            self.register(host, **self.libvirt)
        self.runtimes = {
            namespace: ClusterRuntime(
                ports, Metrics(CollectorRegistry()), LubanCluster.parse(self.body(namespace)), self.senses
            )
            for namespace in NAMES
        }

    def register(self, host: str, **libvirt: Any) -> None:
        """An administrator writes a LubanHost."""
        body = {"metadata": {"name": host}, "spec": {"libvirt": {"uri": URIS[host], **libvirt}}}
        self.senses.registry.take(body)

    def body(self, namespace: str) -> dict[str, Any]:
        """The LubanCluster object."""
        body = self.api.find("LubanCluster", namespace, NAMES[namespace])
        assert body is not None
        return body

    def want(self, **replicas: int) -> None:
        """By namespace, with _ for -: how many VMs its user wants."""
        for name, count in replicas.items():
            namespace = name.replace("_", "-")
            edit = {"replicas": count}
            self.api.change("LubanCluster", namespace, NAMES[namespace], lambda body, it=edit: body["spec"].update(it))  # type: ignore[misc]
            self.runtimes[namespace].update(self.body(namespace))

    async def run(self, seconds: float, *, together: bool = True) -> None:
        """Both tick for so long, at the same time or one after the other."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            ticks = [runtime.tick() for runtime in self.runtimes.values()]
            delays = await asyncio.gather(*ticks) if together else [await tick for tick in ticks]
            self.clock.seconds += min(delays)
            for host, count in self.running().items():
                self.most[host] = max(count, self.most.get(host, 0))

    def running(self) -> Mapping[str, int]:
        """Domains by host, as somebody sees who asks libvirt."""
        return {
            name: sum(it.state in ("Running", "Paused", "ShuttingDown") for it in host.domains.values())
            for name, host in self.hypervisor.hosts.items()
        }

    def change_domain(self, namespace: str, **domain: Any) -> None:
        """The user changes what his VMs are."""
        template = self.body(namespace)["spec"]["template"]
        template["spec"]["domain"].update(domain)
        self.api.change(
            "LubanCluster", namespace, NAMES[namespace], lambda body: body["spec"].update(template=template)
        )
        self.runtimes[namespace].update(self.body(namespace))

    def vms(self, namespace: str) -> list[dict[str, Any]]:
        """LubanVMs of a namespace."""
        return [body for (kind, where, _), body in self.api.objects.items() if (kind, where) == ("LubanVM", namespace)]

    def ready(self, namespace: str) -> int:
        """VMs of a namespace that serve."""
        return sum(vm["status"]["phase"] == "Ready" for vm in self.vms(namespace))

    def placement(self, namespace: str) -> str:
        """Where the cluster's next VM would go, in words."""
        words: str = self.body(namespace)["status"]["placement"]["message"]
        return words


@pytest.mark.parametrize("together", [True, False])
async def test_both_grow_in_the_same_second_and_get_no_more_than_there_is(together: bool) -> None:
    scene = Neighbours(vms={"max": 3})
    await scene.run(60, together=together)
    scene.want(team_a=5, team_b=5)
    await scene.run(120, together=together)
    assert scene.most == {"host-b": 3, "host-c": 3}
    assert scene.ready("team-a") + scene.ready("team-b") == 6
    for namespace in NAMES:
        assert "host-b: all clusters fill it (3 of 3 VMs: " in scene.placement(namespace)
        assert "team-a/web" in scene.placement(namespace)
    loser = min(NAMES, key=scene.ready)
    conditions = {it["type"]: it for it in scene.body(loser)["status"]["conditions"]}
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", "NoRoom")


async def test_when_the_first_shrinks_the_second_gets_the_room() -> None:
    scene = Neighbours(vms={"max": 3})
    scene.want(team_a=5, team_b=1)
    await scene.run(90)
    scene.want(team_b=4)
    await scene.run(60)
    assert (scene.ready("team-a"), scene.ready("team-b")) == (5, 1)
    scene.want(team_a=2)
    await scene.run(120)
    assert (scene.ready("team-a"), scene.ready("team-b")) == (2, 4)
    assert scene.most == {"host-b": 3, "host-c": 3}


async def test_a_restarted_operator_exceeds_nothing_either() -> None:
    scene = Neighbours(vms={"max": 3})
    scene.want(team_a=4, team_b=4)
    for _ in range(12):
        await scene.run(3)
        scene.start()
    await scene.run(60)
    assert scene.most == {"host-b": 3, "host-c": 3}
    assert scene.ready("team-a") + scene.ready("team-b") == 6


async def test_of_two_made_for_one_place_the_first_made_has_it_and_the_other_leaves() -> None:
    """As two operators would have made them, one just after the other began to lead."""
    scene = Neighbours(vms={"max": 2})
    scene.register("host-c", namespaces=["nobody"])
    scene.want(team_a=1, team_b=1)
    await scene.run(60)
    scene.register("host-b", vms={"max": 9})
    real = scene.hypervisor.ensure_running
    scene.want(team_a=2, team_b=2)
    await asyncio.gather(*(runtime.tick() for runtime in scene.runtimes.values()))
    waiting = [body for (kind, _, _), body in scene.api.objects.items() if kind == "LubanVM"]
    assert len(waiting) == 4
    assert scene.hypervisor.ensure_running == real
    scene.register("host-b", vms={"max": 3})
    scene.libvirt = {"vms": {"max": 3}}
    scene.start()
    scene.register("host-c", namespaces=["nobody"])
    await scene.run(60)
    assert scene.most["host-b"] == 3
    assert scene.ready("team-a") + scene.ready("team-b") == 3


async def test_memory_counts_too_and_what_is_not_ours() -> None:
    scene = Neighbours(memory={"reserve": "2Gi"})
    for host in URIS:
        scene.hypervisor.host(host).memory = 8 * 2**30
    scene.hypervisor.add_foreign("host-b", "database", "d-1", memory=4 * 2**30)
    scene.want(team_a=6, team_b=6)
    await scene.run(120)
    assert scene.running() == {"host-b": 2 + 1, "host-c": 6}
    assert "6.0 GiB of 6.0 GiB memory" in scene.placement("team-a")
    assert "others 4.0 GiB" in scene.placement("team-a")


async def test_a_quota_leaves_room_for_others() -> None:
    quota = [{"namespace": "team-a", "vms": {"max": 1}}]
    scene = Neighbours(vms={"max": 4}, quotas=quota)
    scene.want(team_a=6, team_b=4)
    await scene.run(120)
    assert (scene.ready("team-a"), scene.ready("team-b")) == (2, 4)
    assert "namespace team-a has its quota there (1 of 1 VMs: team-a/web 1)" in scene.placement("team-a")


async def test_a_rollout_at_a_full_host_goes_on_in_place_and_loses_no_room_to_others() -> None:
    scene = Neighbours(vms={"max": 2})
    scene.want(team_a=2, team_b=2)
    await scene.run(60)
    scene.want(team_b=6)
    await scene.run(30)
    scene.change_domain("team-a", cpu={"cores": 2})
    await scene.run(300)
    assert [vm["spec"]["template"]["domain"]["cpu"]["cores"] for vm in scene.vms("team-a")] == [2, 2]
    assert (scene.ready("team-a"), scene.ready("team-b")) == (2, 2)
    assert scene.most == {"host-b": 2, "host-c": 2}


async def test_a_rollout_to_larger_vms_stops_nothing_where_they_do_not_fit() -> None:
    """Each VM that leaves gives back its own memory, which is too little for its successor."""
    scene = Neighbours(memory={"max": "2Gi"})
    scene.want(team_a=2, team_b=2)
    await scene.run(60)
    assert (scene.ready("team-a"), scene.ready("team-b")) == (2, 2)
    scene.change_domain("team-a", memory={"max": "2Gi"})
    await scene.run(300)
    assert (scene.ready("team-a"), scene.ready("team-b")) == (2, 2)
    assert "2.0 GiB of 2.0 GiB memory, 2.0 GiB for one more" in scene.placement("team-a")
    scene.want(team_b=1)
    await scene.run(300)
    scene.register("host-b", memory={"max": "3Gi"})
    await scene.run(300)
    grown = [vm for vm in scene.vms("team-a") if vm["spec"]["template"]["domain"]["memory"]["max"] == "2Gi"]
    assert len(grown) >= 1
    assert scene.ready("team-a") == 2


async def test_a_host_that_fails_between_look_and_decision_has_the_limit_that_it_had() -> None:
    scene = Neighbours(memory={"reserve": "1Gi"})
    for host in URIS:
        scene.hypervisor.host(host).memory = 3 * 2**30
    await scene.run(60)
    real = scene.api.list_vms_on

    async def and_fails(host: str) -> list[dict[str, Any]]:
        """The last thing before a cluster decides."""
        for name, uri in URIS.items():
            sense = scene.senses.hosts._hosts[HostRef(name, uri)]
            sense._picture = Picture(scene.clock.monotonic(), 0, error="connection reset")
        return await real(host)

    scene.api.list_vms_on = and_fails  # type: ignore[method-assign]
    scene.want(team_a=6, team_b=6)
    await scene.run(5)
    scene.api.list_vms_on = real  # type: ignore[method-assign]
    await scene.run(60)
    assert scene.most == {"host-b": 2, "host-c": 2}


async def test_a_rollout_makes_no_other_clusters_vm_late() -> None:
    """One that leaves, and the one in its place, have one place together."""
    scene = Neighbours(vms={"max": 2})
    scene.register("host-c", namespaces=["nobody"])
    scene.want(team_a=1, team_b=1)
    await scene.run(60)
    made = {vm["metadata"]["name"] for vm in scene.vms("team-b")}
    scene.change_domain("team-a", cpu={"cores": 2})
    for _ in range(60):
        await scene.run(1)
        assert "3 of 2" not in scene.placement("team-b")
        assert {vm["metadata"]["name"] for vm in scene.vms("team-b")} == made
    assert (scene.ready("team-a"), scene.ready("team-b")) == (1, 1)


async def test_a_cluster_that_may_make_nothing_holds_no_room() -> None:
    """Its namespace has a ResourceQuota, say."""
    scene = Neighbours(vms={"max": 3})
    await scene.run(60)
    create = scene.api.create_vm

    async def denied(cluster: ClusterRef, body: Mapping[str, Any]) -> dict[str, Any]:
        if cluster.namespace == "team-a":
            raise PermanentError("Forbidden", "exceeded quota: lubanvms")
        return await create(cluster, body)

    scene.api.create_vm = denied  # type: ignore[method-assign]
    scene.want(team_a=4)
    await scene.run(30)
    scene.want(team_b=4)
    await scene.run(120)
    assert (scene.ready("team-a"), scene.ready("team-b")) == (2, 4)


async def test_a_domain_runs_on_whoever_let_its_lubanvm_go() -> None:
    """Somebody's finalizer keeps the LubanVM; its domain counts until it is gone."""
    mark = MarkedDomain(ClusterRef("team-a", "web"), DomainRecord("u-1", "team-a_web-1", "Running"), memory=2**30)
    body = {
        "metadata": {"namespace": "team-a", "name": "web-1", "uid": "u-1", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterName": "web", "template": {}},
    }
    asking = ClusterRef("team-b", "shop")
    (claim,) = HostClaims().on("host-b", [body], {"u-1": mark}, asking, ())
    assert (claim.uid, claim.memory, claim.holds) == ("u-1", 2**30, True)
    assert HostClaims().on("host-b", [body], {}, asking, ()) == []
