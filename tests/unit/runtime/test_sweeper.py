"""The sweep: what nobody stands for is told of, and removed where an administrator says so; nothing else ever is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from luban.api.cluster import LubanCluster
from luban.core.model import ClusterRef
from luban.core.orphans import ORPHAN_SECONDS
from luban.errors import HostUnreachable, PermanentError
from luban.ports import HostRef, Ports
from luban.runtime.metrics import Metrics
from luban.runtime.sweeper import HASTY_SECONDS, LOOK_SECONDS, MOST_REMOVALS, Sweeper
from luban.senses import Senses
from tests.fakes.balancers import FakeBalancers
from tests.fakes.cluster import FakeCluster
from tests.fakes.hypervisor import FakeDomain, FakeHost, FakeHypervisor
from tests.fakes.operator_harness import BootedProbes, LoopClock, VirtualClock, cluster_body

pytestmark = pytest.mark.looptime
HOUR = ORPHAN_SECONDS
UUID = "00000000-0000-4000-8000-0000000000{:02x}"


def luban_host(name: str, **libvirt: Any) -> dict[str, Any]:
    """A LubanHost, as a watch tells of it."""
    return {"metadata": {"name": name}, "spec": {"libvirt": {"uri": f"qemu+tls://{name}/system", **libvirt}}}


def vm_body(uid: str) -> dict[str, Any]:
    """As much of a LubanVM as the fake needs."""
    spec = {"clusterName": "shop", "host": "host-b", "hostURI": "qemu+tls://host-b/system"}
    return {"kind": "LubanVM", "metadata": {"name": uid, "namespace": "team-a", "uid": uid}, "spec": spec}


class Leading:
    """Whether we lead."""

    def __init__(self) -> None:
        self.leads = True

    def held(self) -> bool:
        """See Leadership."""
        return self.leads


@dataclass
class Scene:
    """One operator, one registered host, and a clock that waiting moves."""

    clock: VirtualClock = field(default_factory=LoopClock)
    clusters: list[LubanCluster] = field(default_factory=list)
    leading: Leading = field(default_factory=Leading)

    def __post_init__(self) -> None:
        self.api, self.hypervisor = FakeCluster(now=self.clock.now), FakeHypervisor(self.clock.now)
        self.hypervisor.boot_seconds = 0.0
        probes = BootedProbes(self.api, self.hypervisor)
        self.ports = Ports(self.hypervisor, self.api, FakeBalancers(), probes, self.clock, self.leading)
        self.metrics, self.senses = Metrics(CollectorRegistry()), Senses.of(self.ports)
        self.sweeper = Sweeper(self.ports, self.senses, self.metrics, lambda: self.clusters)

    @property
    def host(self) -> FakeHost:
        """The host."""
        return self.hypervisor.host("host-b")

    @property
    def volumes(self) -> set[str]:
        """Those in its pool."""
        return self.host.pools["default"]

    def register(self, name: str = "host-b", **libvirt: Any) -> None:
        """An administrator says where a host is."""
        self.senses.registry.take(luban_host(name, **{"pools": ["default"], **libvirt}))

    def domain(
        self, number: int, plane: str | None = None, cluster: str = "shop", state: str = "Running"
    ) -> FakeDomain:
        """A domain with our mark, and its disk."""
        uuid = UUID.format(number)
        made = FakeDomain(uuid, f"team-a_{number}", ClusterRef("team-a", cluster, "uid"), "default", state=state)  # type: ignore[arg-type]
        made.plane, made.booted_at = self.api.mark if plane is None else plane, 0.0
        self.host.domains[uuid] = made
        self.volume(number)
        return made

    def volume(self, number: int, end: str = ".qcow2") -> str:
        """A volume that was made for a VM."""
        name = f"luban-{UUID.format(number)}{end}"
        self.volumes.add(name)
        return name

    def vm(self, number: int, *, told: bool = True) -> None:
        """A LubanVM. `told`: the watch has told of it."""
        body = vm_body(UUID.format(number))
        self.api.objects["LubanVM", "team-a", body["metadata"]["name"]] = body
        if told:
            self.sweeper.vm_told(body, gone=False)

    def cluster(self, name: str = "shop") -> None:
        """A LubanCluster on the host."""
        self.clusters.append(LubanCluster.parse(self.api.create(cluster_body({}, name=name, namespace="team-a"))))

    async def run(self, seconds: float) -> None:
        """Sweep for so long."""
        sweeping = asyncio.ensure_future(self.sweeper.run())
        await asyncio.sleep(seconds)
        self.shown = {kind: self.orphans(kind) for kind in ("Domain", "Volume")}
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)

    def orphans(self, kind: str, host: str = "host-b") -> float | None:
        """What the metric says."""
        return self.metrics.registry.get_sample_value("luban_host_orphans", {"host": host, "kind": kind})


async def test_by_default_it_is_told_of_and_kept() -> None:
    scene = Scene()
    scene.register()
    scene.domain(1)
    scene.volume(2)
    with capture_logs() as logs:
        await scene.run(3 * HOUR)
    assert scene.shown == {"Domain": 1.0, "Volume": 1.0}
    told = [it for it in logs if it["event"] == "nobody stands for what is on a host"]
    assert [it["names"] for it in told] == [["team-a_1", f"luban-{UUID.format(2)}.qcow2"]], "once"
    assert len(scene.host.domains) == 1
    assert len(scene.volumes) == 3


async def test_where_an_administrator_says_so_it_is_removed_after_an_hour() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1)
    scene.volume(2)
    scene.volume(2, "-seed.iso")
    await scene.run(HOUR)
    assert (len(scene.host.domains), len(scene.volumes)) == (1, 4)
    await scene.run(HOUR + LOOK_SECONDS + 3 * HASTY_SECONDS)
    assert (scene.host.domains, scene.volumes) == ({}, {"luban-web.qcow2"})
    assert scene.shown == {"Domain": 0.0, "Volume": 0.0}


async def test_a_guest_is_asked_to_end_before_its_domain_goes() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1)
    await scene.run(3 * HOUR)
    calls = [call for call, uuid in scene.host.calls if uuid == UUID.format(1)]
    assert calls == ["disk_user", "shutdown", "disk_user", "remove"]


async def test_a_domain_whose_disk_somebody_uses_stays() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1)
    scene.host.users[f"luban-{UUID.format(1)}.qcow2"] = "domain somebody"
    await scene.run(3 * HOUR)
    assert (len(scene.host.domains), len(scene.volumes)) == (1, 2)
    assert scene.shown == {"Domain": 1.0, "Volume": 0.0}, "it is still told of"


@pytest.mark.parametrize("plane", ["", "another"])
async def test_what_another_control_plane_made_is_neither_told_of_nor_removed(plane: str) -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1, plane)
    await scene.run(3 * HOUR)
    assert scene.shown == {"Domain": 0.0, "Volume": 0.0}
    assert len(scene.host.domains) == 1
    assert len(scene.volumes) == 2
    assert not scene.api.calls["census"], "nothing to ask the API server for"


async def test_a_cluster_of_that_name_sees_to_its_domains_itself() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1)
    scene.cluster()
    await scene.run(3 * HOUR)
    assert len(scene.host.domains) == 1


async def test_a_vm_that_was_not_told_of_is_found_by_asking_the_api_server() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1)
    scene.volume(2)
    scene.vm(1, told=False)
    scene.vm(2, told=False)
    await scene.run(3 * HOUR)
    assert (len(scene.host.domains), len(scene.volumes)) == (1, 3)


async def test_nothing_happens_while_the_api_server_does_not_show_all() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1)
    scene.api.fail_next("census", PermanentError("Forbidden", "may not list"), times=10**6)
    with capture_logs() as logs:
        await scene.run(3 * HOUR)
    assert len(scene.host.domains) == 1
    assert [it["why"] for it in logs if it["event"] == "orphans not looked for"] == ["may not list"], "once"


async def test_who_does_not_lead_removes_nothing() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.domain(1)
    scene.leading.leads = False
    await scene.run(3 * HOUR)
    assert len(scene.host.domains) == 1


async def test_a_vm_that_comes_back_is_spared_at_the_last_moment() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.volume(1)
    real = scene.hypervisor.spare_volumes

    async def restored(*arguments: Any) -> Any:
        found = await real(*arguments)
        if scene.clock.monotonic() - begun > HOUR:
            asyncio.get_running_loop().call_soon(scene.vm, 1)
        return found

    begun = scene.clock.monotonic()
    scene.hypervisor.spare_volumes = restored  # type: ignore[method-assign]
    census = scene.api.census

    async def slow() -> Any:
        found = await census()
        await asyncio.sleep(1)
        return found

    scene.api.census = slow  # type: ignore[method-assign]
    await scene.run(3 * HOUR)
    assert len(scene.volumes) == 2


@pytest.mark.parametrize("number", [1, 3 * MOST_REMOVALS])
async def test_few_go_at_a_time(number: int) -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    for it in range(number):
        scene.volume(it)
    await scene.run(HOUR + LOOK_SECONDS + 3 * HASTY_SECONDS)
    assert len(scene.volumes) == 1
    times = [it for it in scene.host.calls if it[0] == "remove_volume"]
    looks = [it for it in scene.host.calls if it[0] == "spare_volumes"]
    assert len(times) == number
    assert len(looks) >= number / MOST_REMOVALS


async def test_one_that_cannot_be_removed_does_not_hold_up_the_others() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    stuck = {scene.volume(it) for it in range(MOST_REMOVALS)}
    others = {scene.volume(it) for it in range(MOST_REMOVALS, 2 * MOST_REMOVALS)}
    real = scene.hypervisor.remove_volume

    async def refuse(host: Any, volume: Any) -> bool:
        if volume.name in stuck:
            raise PermanentError("VolumeRefused", "no")
        return await real(host, volume)

    scene.hypervisor.remove_volume = refuse  # type: ignore[method-assign]
    await scene.run(HOUR + 2 * LOOK_SECONDS)
    assert scene.volumes == {"luban-web.qcow2", *stuck}
    assert not others & scene.volumes


async def test_a_hung_host_delays_only_itself() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.register("host-c", orphans="Remove")
    scene.volume(1)
    real = scene.hypervisor.inventory

    async def hang(host: Any) -> Any:
        if host.name == "host-c":
            await asyncio.Event().wait()
        return await real(host)

    scene.hypervisor.inventory = hang  # type: ignore[method-assign]
    await scene.run(3 * HOUR)
    assert scene.volumes == {"luban-web.qcow2"}


async def test_pools_that_nobody_names_are_left_alone() -> None:
    scene = Scene()
    scene.register(orphans="Remove", pools=[])
    scene.volume(1)
    await scene.run(3 * HOUR)
    assert len(scene.volumes) == 2
    scene.cluster()
    await scene.run(3 * HOUR)
    assert scene.volumes == {"luban-web.qcow2"}, "the LubanCluster's template names it"


async def test_a_domain_on_another_host_keeps_a_disk_on_shared_storage() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.volume(1)
    other = scene.hypervisor.host("host-c")
    other.domains[UUID.format(1)] = FakeDomain(UUID.format(1), "stray", ClusterRef("team-a", "shop"))
    ref = HostRef("host-c", "qemu+tls://host-c/system")
    scene.senses.hosts.follow("somebody", [ref], lambda _uuid: None)
    await scene.senses.hosts.look(ClusterRef("team-a", "shop"), (), {ref: False})
    await scene.run(3 * HOUR)
    assert len(scene.volumes) == 2
    scene.senses.hosts.follow("somebody", [], lambda _uuid: None)


async def test_at_another_place_all_is_seen_for_the_first_time() -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.volume(1)
    asyncio.get_running_loop().call_later(
        HOUR - 1, lambda: scene.register(orphans="Remove", uri="qemu+tls://elsewhere/system")
    )
    await scene.run(HOUR + 2 * LOOK_SECONDS)
    assert len(scene.volumes) == 2


async def test_a_host_that_is_registered_no_more_is_told_of_no_more() -> None:
    scene = Scene()
    scene.register()
    scene.volume(1)
    sweeping = asyncio.ensure_future(scene.sweeper.run())
    await asyncio.sleep(HOUR)
    assert scene.orphans("Volume") == 1.0
    scene.senses.registry.drop("host-b")
    await asyncio.sleep(HASTY_SECONDS)
    assert scene.orphans("Volume") is None
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


async def test_what_is_there_costs_a_host_few_calls_and_the_api_server_none() -> None:
    scene = Scene()
    scene.register()
    scene.domain(1)
    scene.vm(1)
    await scene.run(10 * HOUR)
    assert len(scene.host.calls) <= 2 * 10 * HOUR / LOOK_SECONDS + 2
    assert not scene.host.watchers, "it is let go in between"
    assert not scene.api.calls["census"]


async def test_a_fault_of_ours_ends_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.register(orphans="Remove")
    scene.volume(1)
    real, count = scene.hypervisor.inventory, 0

    async def breaks(host: Any) -> Any:
        nonlocal count
        count += 1
        if count == 1:
            raise ValueError("no such thing")
        if count == 2:
            raise HostUnreachable("HostUnreachable", "away")
        return await real(host)

    scene.hypervisor.inventory = breaks  # type: ignore[method-assign]
    with capture_logs() as logs:
        await scene.run(3 * HOUR)
    assert any("fault" in it["event"] for it in logs)
    assert scene.volumes == {"luban-web.qcow2"}


THING = st.tuples(
    st.integers(0, 3), st.sampled_from(["domain", "off", "earlier", "foreign", "other", "volume", "seed", "used", "vm"])
)


@settings(deadline=None)
@given(
    things=st.lists(THING, min_size=5, max_size=20),
    cluster=st.booleans(),
    later=st.lists(st.tuples(st.integers(0, 23), THING), max_size=6),
)
def test_nothing_with_a_vm_or_a_domain_or_a_user_is_ever_removed(
    things: list[tuple[int, str]], cluster: bool, later: list[tuple[int, tuple[int, str]]]
) -> None:
    asyncio.run(_whatever_happens(things, cluster, later))


async def _whatever_happens(
    things: list[tuple[int, str]], cluster: bool, later: list[tuple[int, tuple[int, str]]]
) -> None:
    clock = VirtualClock()
    scene = Scene(clock)
    scene.register(orphans="Remove")
    if cluster:
        scene.cluster("other")
    for number, kind in things:
        _add(scene, number, kind)
    for look in range(24):
        for at, (number, kind) in later:
            if at == look:
                _add(scene, number, kind)
        domains, volumes = _protected(scene)
        clock.seconds += LOOK_SECONDS
        scene.sweeper._begin_looks()
        await asyncio.gather(*(it.looking for it in scene.sweeper._hosts.values() if it.looking is not None))
        assert domains <= scene.host.domains.keys()
        assert volumes <= scene.volumes


def _add(scene: Scene, number: int, kind: str) -> None:
    """Something appears on the host, or a LubanVM in the API."""
    match kind:
        case "domain" | "off":
            scene.domain(number, state="Off" if kind == "off" else "Running")
        case "earlier":
            scene.domain(number, plane="")
        case "foreign":
            scene.domain(number).cluster = None
        case "other":
            scene.domain(number, cluster="other")
        case "volume" | "seed":
            scene.volume(number, ".qcow2" if kind == "volume" else "-seed.iso")
        case "used":
            for end in (".qcow2", "-seed.iso"):
                scene.host.users[scene.volume(number, end)] = "domain other"
        case "vm":
            scene.vm(number, told=number % 2 == 0)


def _protected(scene: Scene) -> tuple[set[str], set[str]]:
    """Domains and volumes that must be there after the next look, by what is there now."""
    vms = {uid for kind, _, uid in scene.api.objects if kind == "LubanVM"}
    clusters = {name for kind, _, name in scene.api.objects if kind == "LubanCluster"}
    domains = {
        uuid
        for uuid, it in scene.host.domains.items()
        if uuid in vms or it.cluster is None or it.cluster.name in clusters or it.plane != scene.api.mark
    }
    owned = {it for it in scene.volumes if any(uuid in it for uuid in vms | domains)}
    return domains, owned | (scene.host.users.keys() & scene.volumes) | {"luban-web.qcow2"}
