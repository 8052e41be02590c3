"""Hosts that LubanHosts say more of: whole stories of what is made where, and of mistakes that stop nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.api import names
from luban.core.usable_hosts import HostPolicy, UsableHosts
from luban.ports import HostRef, Inventory
from luban.senses.host_registry import HostRegistry
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness, cluster_body

B, C = "qemu+tls://host-b/system", "qemu+tls://host-c/system"
BRIDGE = {"spec": {"image": {"volume": "luban-web.qcow2"}, "network": {"type": "Bridge", "source": "br0"}}}


class World:
    """A harness whose hosts are registered, or not, by the test; what is asked and done is noted by URI."""

    def __init__(self, *, inline: bool = False, policy: HostPolicy = "Any", **spec: Any) -> None:
        hosts = cluster_body({})["spec"]["hosts"]
        given = hosts if inline else [{**it, "uri": ""} for it in hosts]
        self.harness = OperatorHarness({"hosts": given, **spec})
        self.policy = policy
        self.registry = self.harness.runtime.senses.registry
        self.registry.policy = policy
        self.said: dict[str, dict[str, Any]] = {}
        self.asked: set[str] = set()
        """URIs that the operator connected to."""
        real = self.harness.hypervisor.inventory

        async def inventory(host: HostRef) -> Inventory:
            self.asked.add(host.uri)
            return await real(host)

        self.harness.hypervisor.inventory = inventory  # type: ignore[method-assign]

    def register(self, name: str, **libvirt: Any) -> None:
        """An administrator writes a LubanHost."""
        self.said[name] = {
            "metadata": {"name": name},
            "spec": {"libvirt": {"uri": B if name == "host-b" else C} | libvirt},
        }
        self.registry.take(self.said[name])

    def deregister(self, name: str) -> None:
        """An administrator deletes one."""
        del self.said[name]
        self.registry.drop(name)

    def restart(self) -> None:
        """Another operator, which has read the LubanHosts."""
        self.registry = self.harness.new_operator().senses.registry
        self.registry.policy = self.policy
        for body in self.said.values():
            self.registry.take(body)

    def vms_on(self, host: str) -> list[dict[str, Any]]:
        """LubanVMs."""
        return [vm for vm in self.harness.vms() if vm["spec"]["host"] == host]

    def made_on(self, host: str) -> list[str]:
        """What was made there so far."""
        calls = self.harness.hypervisor.hosts[host].calls if host in self.harness.hypervisor.hosts else []
        return [uuid for call, uuid in calls if call == "ensure_running"]

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition of the cluster."""
        found: dict[str, Any] = {it["type"]: it for it in self.harness.body()["status"]["conditions"]}[kind]
        return found

    def host_status(self, name: str) -> dict[str, Any]:
        """What the status says of a host."""
        found: dict[str, Any] = {it["name"]: it for it in self.harness.body()["status"]["hosts"]}[name]
        return found

    def members(self) -> str:
        """What the balancer is told."""
        body = self.harness.api.find("ConfigMap", NAMESPACE, names.balancer_name("luban", 0))
        assert body is not None
        return json.dumps(json.loads(body["data"]["balancer.json"])["members"])


async def up(world: World) -> None:
    """Both hosts are registered, and a VM runs on each."""
    world.register("host-b")
    world.register("host-c")
    await world.harness.run(60)
    assert world.harness.consistent(2)


async def test_vms_are_made_where_lubanhosts_say() -> None:
    world = World(policy="Registered")
    await up(world)
    assert {vm["spec"]["hostURI"] for vm in world.harness.vms()} == {B, C}
    assert world.condition("HostsAllowed")["status"] == "True"
    assert all("reason" not in it or not it["reason"] for it in world.harness.body()["status"]["hosts"])


async def test_a_host_that_nobody_registered_is_told_of_and_left_alone() -> None:
    world = World()
    world.register("host-c")
    await world.harness.run(60)
    assert (len(world.vms_on("host-b")), len(world.vms_on("host-c"))) == (0, 2)
    told = world.host_status("host-b")
    assert (told["reachable"], told["reason"]) == (False, "HostNotRegistered")
    assert "an administrator has to make it" in told["message"]
    for kind in ("HostsAllowed",):
        condition = world.condition(kind)
        assert (condition["status"], condition["reason"]) == ("False", "HostNotRegistered")
        assert condition["message"].startswith("host-b: there is no LubanHost host-b")
    assert world.condition("HostsReachable")["status"] == "True", "it was not asked"
    assert world.harness.body()["status"]["phase"] == "Degraded"
    assert (
        "not host-b: it may not be used (HostNotRegistered)" in world.harness.body()["status"]["placement"]["message"]
    )
    assert world.asked == {C}


async def test_without_any_host_it_says_why_it_is_not_ready() -> None:
    world = World()
    await world.harness.run(60)
    assert world.harness.vms() == []
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "HostNotRegistered")
    assert world.asked == set()


async def test_registered_later_it_is_used() -> None:
    world = World()
    world.register("host-c")
    await world.harness.run(300)
    world.register("host-b")
    await world.harness.run(60)
    assert len(world.vms_on("host-b")) == 1, "its minimum"
    assert world.condition("HostsAllowed")["status"] == "True"
    assert world.host_status("host-b")["reachable"]


STRANGER = "qemu+tls://stranger/system"
ELSEWHERE = {STRANGER}
"""Where the host is from now on, once its last VM at the former place is gone."""
MISTAKES: dict[str, Any] = {
    "deregistered": lambda world: world.deregister("host-b"),
    "namespace taken away": lambda world: world.register("host-b", namespaces=["team-b"]),
    "another URI": lambda world: world.register("host-b", uri=STRANGER),
    "another pool": lambda world: world.register("host-b", pools=["other"]),
    "a limit that is not understood": lambda world: world.register("host-b", namespaces=7),
    "a network in which its VMs are not": lambda world: world.register("host-b", networks=["br0"]),
}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_mistake_stops_and_orphans_nothing(mistake: str, restarted: bool) -> None:
    world = World()
    await up(world)
    before, made = world.harness.domains(), world.made_on("host-b")
    MISTAKES[mistake](world)
    if restarted:
        world.restart()
    await world.harness.run(900)
    assert world.harness.consistent(2)
    assert world.harness.domains() == before
    assert world.condition("HostsAllowed")["status"] == "False"
    assert (world.host_status("host-b")["reachable"], world.host_status("host-b")["vms"]) == (True, 1)
    world.harness.change(replicas=4)
    await world.harness.run(60)
    assert (len(world.vms_on("host-b")), len(world.vms_on("host-c"))) == (1, 3)
    assert world.made_on("host-b") == made
    assert world.asked == {B, C}, "never the stranger"
    world.register("host-b")
    world.harness.change(replicas=5)
    await world.harness.run(60)
    assert world.harness.consistent(5)
    assert world.condition("HostsAllowed")["status"] == "True"


@pytest.mark.parametrize("mistake", [it for it in MISTAKES if it != "another URI"])
async def test_a_vm_that_dies_meanwhile_is_replaced_elsewhere(mistake: str) -> None:
    world = World()
    await up(world)
    MISTAKES[mistake](world)
    await world.harness.tick()
    world.harness.hypervisor.power_off(world.vms_on("host-b")[0]["metadata"]["uid"])
    await world.harness.run(120)
    assert world.harness.consistent(2)
    assert len(world.vms_on("host-c")) == 2


async def test_a_host_that_moved_is_used_once_its_last_vm_is_gone() -> None:
    world = World()
    await up(world)
    world.register("host-b", uri=STRANGER)
    world.harness.api.remove("LubanVM", NAMESPACE, world.vms_on("host-b")[0]["metadata"]["name"])
    await world.harness.run(120)
    assert world.harness.consistent(2)
    assert {vm["spec"]["hostURI"] for vm in world.harness.vms()} == {STRANGER, C}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_the_clusters_deletion_cleans_up_all_the_same(mistake: str, restarted: bool) -> None:
    world = World()
    await up(world)
    MISTAKES[mistake](world)
    await world.harness.run(30)
    if restarted:
        world.restart()
    world.harness.api.remove("LubanCluster", NAMESPACE, "luban")
    world.harness.runtime.update(world.harness.body())
    await world.harness.run(120)
    assert world.harness.runtime.finished
    assert world.harness.consistent(0)
    assert world.asked - ELSEWHERE == {B, C}


async def test_cordoned_it_is_emptied_although_it_may_not_be_used() -> None:
    world = World()
    await up(world)
    world.register("host-b", namespaces=["team-b"])
    hosts = world.harness.body()["spec"]["hosts"]
    world.harness.change(hosts=[{**it, "cordoned": it["name"] == "host-b"} for it in hosts])
    await world.harness.run(120)
    assert world.harness.consistent(2)
    assert world.vms_on("host-b") == []


async def test_a_vm_that_was_not_started_yet_is_made_elsewhere() -> None:
    world = World()
    world.register("host-b")
    world.register("host-c")
    while not world.vms_on("host-b"):
        await world.harness.tick()
    world.deregister("host-b")
    await world.harness.run(60)
    assert world.made_on("host-b") == []
    assert world.harness.consistent(2)
    assert len(world.vms_on("host-c")) == 2


async def test_hosts_are_sorted_anew_only_if_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    world, sorted_ = World(), 0
    real = HostRegistry.usable

    def counted(*arguments: Any) -> UsableHosts:
        nonlocal sorted_
        sorted_ += 1
        return real(*arguments)

    monkeypatch.setattr(HostRegistry, "usable", counted)
    await up(world)
    sorted_ = 0
    world.register("host-b")
    await world.harness.run(300)
    assert sorted_ == 0
    for change in (
        lambda: world.register("host-b", namespaces=[NAMESPACE]),
        lambda: world.deregister("host-b"),
        lambda: world.harness.change(replicas=3),
    ):
        before = sorted_
        change()
        await world.harness.tick()
        assert sorted_ > before


class TestPolicy:
    async def test_any_takes_inline_uris_as_ever(self) -> None:
        world = World(inline=True)
        await world.harness.run(60)
        assert world.harness.consistent(2)

    async def test_registered_refuses_them_and_connects_nowhere(self) -> None:
        world = World(inline=True, policy="Registered")
        await world.harness.run(60)
        assert world.harness.vms() == []
        assert world.asked == set()
        assert world.condition("HostsAllowed")["reason"] == "InlineURIRefused"

    async def test_unless_a_lubanhost_says_the_same(self) -> None:
        world = World(inline=True, policy="Registered")
        world.register("host-b", uri="qemu://host-b/system")
        world.register("host-c", uri="qemu+tls://host-x/system")
        await world.harness.run(60)
        assert len(world.vms_on("host-b")) == 2
        assert world.asked == {B}
        assert world.condition("HostsAllowed")["reason"] == "HostURIDiffers"

    async def test_a_cluster_that_was_refused_can_be_deleted(self) -> None:
        world = World(inline=True, policy="Registered")
        await world.harness.run(30)
        world.harness.api.remove("LubanCluster", NAMESPACE, "luban")
        world.harness.runtime.update(world.harness.body())
        await world.harness.run(30)
        assert world.harness.runtime.finished
        assert world.asked == set()


async def test_a_spec_that_changes_during_a_look_is_judged_before_anything_is_made() -> None:
    """A pool that may not be used, for as long as one look takes."""
    world = World()
    world.register("host-b", pools=["default"])
    world.register("host-c", pools=["default"])
    harness, forbidden = (
        world.harness,
        {"spec": {"image": {"pool": "other", "volume": "x"}, "network": {"type": "User"}}},
    )
    good = harness.body()["spec"]["template"]
    real = harness.hypervisor.inventory

    async def change_meanwhile(host: HostRef) -> Inventory:
        harness.change(template=forbidden)
        return await real(host)

    harness.hypervisor.inventory = change_meanwhile  # type: ignore[method-assign]
    await harness.tick()
    harness.hypervisor.inventory = real  # type: ignore[method-assign]
    assert harness.vms() == []
    harness.change(template=good)
    await harness.run(60)
    assert harness.consistent(2)


class TestCidr:
    """Addresses that guests and DHCP servers tell, and a LubanHost that says which can be."""

    async def world(self, cidr: str) -> World:
        world = World(template=BRIDGE)
        world.register("host-b", cidr=cidr)
        world.register("host-c", cidr=cidr)
        self.probed: list[str] = []

        async def ready(address: str, port: int, path: str, timeout: float) -> bool:
            self.probed.append(address)
            return True

        world.harness.probes.ready = ready  # type: ignore[method-assign]
        await world.harness.run(20)
        for number, uuid in enumerate(sorted(world.harness.domains())):
            world.harness.hypervisor.boot(uuid, f"10.20.0.{number + 1}")
        return world

    async def test_an_address_outside_is_neither_probed_nor_proxied_to(self) -> None:
        world = await self.world("10.30.0.0/16")
        with capture_logs() as logs:
            await world.harness.run(60)
        assert self.probed == []
        assert "10.20.0." not in world.members()
        for vm in world.harness.vms():
            assert (vm["status"]["phase"], vm["status"]["reason"]) == ("Booting", "AddressNotAllowed")
            assert "is not in 10.30.0.0/16, the cidr of LubanHost host-" in vm["status"]["message"]
            assert vm["status"]["address"] == ""
        assert len([it for it in logs if it["event"] == "address left out"]) == 2, "told once"

    async def test_one_inside_is(self) -> None:
        world = await self.world("10.20.0.0/16")
        await world.harness.run(60)
        assert {vm["status"]["phase"] for vm in world.harness.vms()} == {"Ready"}
        assert "10.20.0.1" in world.members()

    async def test_one_that_serves_is_left_out_and_comes_back_and_is_never_stopped(self) -> None:
        world = await self.world("10.20.0.0/16")
        await world.harness.run(60)
        before = world.harness.domains()
        world.register("host-b", cidr="10.30.0.0/16")
        await world.harness.run(60)
        (vm,) = world.vms_on("host-b")
        assert (vm["status"]["phase"], vm["status"]["reason"]) == ("Ready", "AddressNotAllowed")
        assert vm["metadata"]["name"] not in world.members()
        assert world.harness.domains() == before
        world.register("host-b", cidr="10.20.0.0/16")
        await world.harness.run(60)
        (vm,) = world.vms_on("host-b")
        assert (vm["status"]["reason"], vm["status"].get("message", "")) == ("ProbeAnswered", "")
        assert vm["status"]["address"].startswith("10.20.0.")
        assert vm["metadata"]["name"] in world.members()
        assert world.harness.domains() == before

    async def test_one_that_times_out_says_why(self) -> None:
        world = await self.world("10.30.0.0/16")
        await world.harness.run(330)
        messages = [vm["status"]["message"] for vm in world.harness.vms() if vm["status"]["phase"] == "Failed"]
        assert messages
        assert all("within 5m: its address 10.20.0." in message for message in messages)


async def test_two_entries_that_turn_out_to_be_one_daemon_are_one_host() -> None:
    """One by its name, the other by its address: their texts say nothing, the domains that are there do."""
    world = World(inline=True)
    world.harness.hypervisor.hosts["host-c"] = world.harness.hypervisor.host("host-b")
    await world.harness.run(120)
    told = world.condition("HostsAllowed")
    assert (told["status"], told["reason"]) == ("False", "HostListedTwice")
    assert "host-c is the same libvirt daemon as host-b" in told["message"]
    await world.harness.run(300)
    assert world.condition("HostsAllowed")["reason"] == "HostListedTwice"
    assert world.condition("Ready")["status"] == "True", "nothing that runs is touched"
    world.harness.change(replicas=4)
    await world.harness.run(60)
    assert len(world.vms_on("host-c")) <= 1
