"""What ports.Hypervisor promises, held by the fake, by libvirt's test driver and by QEMU under a real libvirt daemon.

Not every side can do everything: libvirt's test driver has no guests that can fail to start and no uploads, and the
QEMU machines here have an empty disk, so nobody in them obeys the power button. A test names what it needs, and runs
on the sides that have it; `test_every_need_is_met` fails if none has.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid as uuids
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import libvirt
import pytest

from lab.hosts import KvmHosts
from lab.paths import Layout
from luban.adapters.libvirt_hypervisor import LibvirtHypervisor, Settings
from luban.adapters.libvirt_lane import Pace
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterRef, DomainRecord
from luban.errors import ForeignDomain, HostUnreachable, LubanError, PermanentError
from luban.ports import HostRef, Hypervisor, Machine
from tests.fakes.hypervisor import FakeHypervisor

pytestmark = [pytest.mark.contract]

CLUSTER = ClusterRef("shop", "luban", "0c1f6f0e-3a53-4d57-9a3a-aaaaaaaaaaaa")
BASE = "luban-web.qcow2"
# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)
PATIENCE = 30.0
"""Seconds in which something that must happen may happen."""


class Side(Protocol):
    """One implementation, and what a person could do beside it."""

    hypervisor: Hypervisor
    host: HostRef
    pool: str
    network: dict[str, str]

    def stingy(self, min_free_bytes: int) -> Hypervisor:
        """The same hosts, for somebody who wants so much free space in a pool."""

    def other_daemon(self, uri: str) -> HostRef:
        """A host whose daemon is not there."""

    def domains(self) -> dict[str, str]:
        """All domains of the host: name by uuid."""

    def volumes(self) -> set[str]:
        """All volumes of the pool."""

    def run_of(self, uuid: str) -> int:
        """A number that is another one after each start."""

    def add_foreign(self, name: str, uuid: str) -> None:
        """Make a domain of somebody else's, switched off or not."""

    def come_up(self, uuid: str) -> None:
        """Let a guest boot, if this side's guests need to be told."""

    async def crash(self, uuid: str) -> None:
        """Make a running domain die."""


class FakeSide:
    """The fake."""

    has = frozenset({"seed", "libvirt-network", "observed-address", "power-button", "start-failure", "crash"})

    def __init__(self) -> None:
        self.fake = FakeHypervisor()
        self.hypervisor: Hypervisor = self.fake
        self.host = HostRef("host-b", "qemu+tls://host-b/system")
        self.pool = "default"
        self.network = {"type": "Network", "source": "default"}

    def stingy(self, min_free_bytes: int) -> Hypervisor:
        """See Side."""
        self.fake.min_free_bytes = min_free_bytes
        return self.fake

    def other_daemon(self, uri: str) -> HostRef:
        """See Side."""
        self.fake.disconnect("host-x")
        return HostRef("host-x", uri)

    def domains(self) -> dict[str, str]:
        """See Side."""
        return {uuid: domain.name for uuid, domain in self.fake.host("host-b").domains.items()}

    def volumes(self) -> set[str]:
        """See Side."""
        return set(self.fake.host("host-b").pools["default"])

    def run_of(self, uuid: str) -> int:
        """See Side."""
        domain = self.fake.domain(uuid)
        assert domain is not None
        return domain.starts

    def add_foreign(self, name: str, uuid: str) -> None:
        """See Side."""
        self.fake.add_foreign("host-b", name, uuid)

    def come_up(self, uuid: str) -> None:
        """See Side."""
        self.fake.boot(uuid, "192.168.122.23")

    def fail_next_start(self) -> None:
        """The next start fails."""
        self.fake.host("host-b").failures.append(LubanError("StartFailed", "no"))

    async def crash(self, uuid: str) -> None:
        """See Side."""
        self.fake.power_off(uuid, "Crashed")


class LibvirtSide:
    """The adapter, and a connection of the test's own to the same daemon."""

    kind = "test"

    def __init__(self, uri: str, pool: str, network: dict[str, str]) -> None:
        self.uri, self.pool, self.network = uri, pool, network
        self.host = HostRef("host-b", uri)
        self.opened: list[LibvirtHypervisor] = []
        self.hypervisor: Hypervisor = self.stingy(1)
        self.own = libvirt.open(uri)
        self.storage = self.own.storagePoolLookupByName(pool)
        self.before = set(self.domains())
        if BASE not in self.volumes():
            self.storage.createXML(
                f"<volume><name>{BASE}</name><capacity>1048576</capacity>"
                "<target><format type='qcow2'/></target></volume>",
                0,
            )

    def stingy(self, min_free_bytes: int) -> Hypervisor:
        """See Side."""
        pace = Pace(first_retry=0.0, last_retry=0.0)
        self.opened.append(LibvirtHypervisor(Settings(min_free_bytes=min_free_bytes, pace=pace)))
        return self.opened[-1]

    def other_daemon(self, uri: str) -> HostRef:
        """See Side."""
        return HostRef("host-x", uri)

    def domains(self) -> dict[str, str]:
        """See Side."""
        return {domain.UUIDString(): domain.name() for domain in self.own.listAllDomains()}

    def volumes(self) -> set[str]:
        """See Side."""
        return {volume.name() for volume in self.storage.listAllVolumes()}

    def run_of(self, uuid: str) -> int:
        """See Side."""
        number: int = self.own.lookupByUUIDString(uuid).ID()
        return number

    def add_foreign(self, name: str, uuid: str) -> None:
        """See Side."""
        self.own.defineXML(
            f"<domain type='{self.kind}'><name>{name}</name><uuid>{uuid}</uuid>"
            "<memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os></domain>"
        )

    def come_up(self, uuid: str) -> None:
        """See Side."""

    async def crash(self, uuid: str) -> None:
        """See Side."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave nothing behind."""
        for hypervisor in self.opened:
            await hypervisor.close()
        for domain in self.own.listAllDomains():
            if domain.UUIDString() not in self.before:
                if domain.isActive():
                    domain.destroy()
                domain.undefine()
        for volume in self.storage.listAllVolumes():
            volume.delete(0)
        self.own.close()


class TestDriverSide(LibvirtSide):
    """libvirt's test driver in this process: its state lives as long as somebody has a connection to it."""

    __test__ = False
    has = frozenset({"libvirt-network", "observed-address", "power-button"})

    def __init__(self) -> None:
        super().__init__("test:///default", "default-pool", {"type": "Network", "source": "default"})


class QemuSide(LibvirtSide):
    """QEMU under a session daemon."""

    kind = "qemu"
    has = frozenset({"seed", "start-failure", "crash"})

    async def crash(self, uuid: str) -> None:
        """Kill its QEMU process, which we started through libvirt."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if b"qemu-system" in command and uuid.encode() in command:
                    os.kill(int(entry.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def qemu_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A session daemon with an empty storage pool."""
    raise NotImplementedError


SIDES = {"fake": FakeSide, "test-driver": TestDriverSide, "qemu": QemuSide}
NEEDS: set[str] = set()


def needs(*what: str) -> Callable[[Any], Any]:
    """Run a test on the sides that have all of `what`."""
    NEEDS.update(what)
    able = [name for name, side in SIDES.items() if side.has.issuperset(what)]
    return pytest.mark.parametrize("daemon", able, indirect=True)


on_all = needs()


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> str:
    """URI of the daemon that the side needs, started only for those that need one."""
    uri: str = request.getfixturevalue("qemu_uri") if request.param == "qemu" else ""
    return uri


@pytest.fixture
async def side(request: pytest.FixtureRequest, daemon: str) -> AsyncIterator[Side]:
    """The side that a test runs on, from nothing to nothing."""
    if daemon:
        it: Side = QemuSide(daemon, "default", {"type": "User", "source": ""})
    else:
        it = SIDES[request.node.callspec.params["daemon"]]()
    yield it
    if isinstance(it, LibvirtSide):
        await it.close()


def machine(side: Side, name: str = "luban-x7", address: str = "", **template: Any) -> Machine:
    """A machine that can run on that side."""
    fields = {
        "image": {"pool": side.pool, "volume": BASE, "size": "16Mi"},
        "network": side.network,
        "domain": {"memory": {"max": "64Mi"}},
    }
    return Machine(
        uuid=str(uuids.uuid4()),
        name=name,
        cluster=CLUSTER,
        template=VMTemplateSpec.model_validate(fields | template),
        forward_address=address or ("127.0.65.2" if side.network["type"] == "User" else ""),
    )


async def find(side: Side, vm: Machine) -> DomainRecord | None:
    """The machine's domain as the hypervisor lists it."""
    return (await side.hypervisor.list_domains(side.host, CLUSTER)).get(vm.uuid)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that happens on its own."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.02)


async def state_is(side: Side, vm: Machine, state: str) -> bool:
    """Whether the machine's domain is in that state."""
    record = await find(side, vm)
    return record is not None and record.state == state


def test_every_need_is_met() -> None:
    assert set().union(*(side.has for side in SIDES.values())) >= NEEDS


# ---- making ------------------------------------------------------------------------------------------------


@on_all
async def test_nothing_of_ours_at_first(side: Side) -> None:
    assert await side.hypervisor.list_domains(side.host, CLUSTER) == {}


@on_all
async def test_a_made_domain_runs_and_is_listed_by_its_uuid(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    record = await find(side, vm)
    assert record is not None
    assert (record.uuid, record.name, record.state) == (vm.uuid, "shop_luban-x7", "Running")
    assert side.volumes() == {BASE, vm.overlay_volume}


@on_all
async def test_making_it_again_changes_nothing(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    run, everything = side.run_of(vm.uuid), (side.domains(), side.volumes())
    await side.hypervisor.ensure_running(side.host, vm)
    assert side.run_of(vm.uuid) == run
    assert (side.domains(), side.volumes()) == everything


@on_all
async def test_two_attempts_at_a_time_make_one_domain(side: Side) -> None:
    vm = machine(side)
    attempts = (side.hypervisor.ensure_running(side.host, vm) for _ in range(2))
    await asyncio.gather(*attempts)
    assert await state_is(side, vm, "Running")
    assert side.volumes() == {BASE, vm.overlay_volume}


@on_all
async def test_a_domain_that_is_off_is_started_with_the_same_disk(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.destroy(side.host, vm.uuid)
    await side.hypervisor.ensure_running(side.host, vm)
    assert await state_is(side, vm, "Running")
    assert side.volumes() == {BASE, vm.overlay_volume}


@needs("seed")
async def test_user_data_makes_a_seed_and_removal_deletes_it(side: Side) -> None:
    vm = replace(machine(side), user_data="#cloud-config\n{}\n")
    await side.hypervisor.ensure_running(side.host, vm)
    assert side.volumes() == {BASE, vm.overlay_volume, vm.seed_volume}
    await side.hypervisor.destroy(side.host, vm.uuid)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.remove(side.host, vm.uuid, side.pool)
    assert side.volumes() == {BASE}


# ---- addresses ---------------------------------------------------------------------------------------------


@on_all
async def test_a_planned_address_is_known_at_once(side: Side) -> None:
    vm = machine(side, address="127.0.65.9", network={"type": "User"})
    await side.hypervisor.ensure_running(side.host, vm)
    record = await find(side, vm)
    assert record is not None
    assert record.address == "127.0.65.9"


@needs("observed-address")
async def test_an_address_is_observed_when_the_guest_has_one(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    side.come_up(vm.uuid)
    record = await find(side, vm)
    assert record is not None
    assert record.address.startswith("192.168.122.")
    await side.hypervisor.destroy(side.host, vm.uuid)
    record = await find(side, vm)
    assert record is not None
    assert record.address == ""


# ---- whose is it -------------------------------------------------------------------------------------------


@on_all
async def test_each_cluster_sees_its_own(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    for other in (ClusterRef("shop", "other"), ClusterRef("else", "luban"), replace(CLUSTER, uid="made anew")):
        assert await side.hypervisor.list_domains(side.host, other) == {}
    assert await side.hypervisor.list_domains(side.host, replace(CLUSTER, uid="")) != {}


@on_all
async def test_a_foreign_domain_of_our_name_is_left_alone(side: Side) -> None:
    vm, theirs = machine(side), str(uuids.uuid4())
    side.add_foreign(vm.domain_name, theirs)
    before = side.domains()
    with pytest.raises(ForeignDomain) as error:
        await side.hypervisor.ensure_running(side.host, vm)
    assert error.value.reason == "ForeignDomain"
    assert vm.domain_name in error.value.message
    assert (side.domains(), side.volumes()) == (before, {BASE})


@on_all
async def test_a_domain_without_our_metadata_is_never_touched(side: Side) -> None:
    vm = machine(side)
    side.add_foreign("somebody-elses", vm.uuid)
    before = side.domains()
    for call in (
        side.hypervisor.ensure_running(side.host, vm),
        side.hypervisor.shutdown(side.host, vm.uuid),
        side.hypervisor.destroy(side.host, vm.uuid),
        side.hypervisor.remove(side.host, vm.uuid, side.pool),
    ):
        with pytest.raises(ForeignDomain):
            await call
    assert side.domains() == before
    assert await find(side, vm) is None


# ---- what cannot be had: a reason, and nothing left behind -------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "template", "named"),
    [
        ("ImageNotFound", {"image": {"pool": "POOL", "volume": "missing.qcow2"}}, "missing.qcow2"),
        ("PoolNotFound", {"image": {"pool": "missing-pool", "volume": BASE}}, "missing-pool"),
        ("NetworkNotFound", {"network": {"type": "Network", "source": "missing-net"}}, "missing-net"),
        (
            "ImageNotFound",
            {"domain": {"kernelBoot": {"kernelVolume": "missing-kernel"}}},
            "missing-kernel",
        ),
    ],
)
@on_all
async def test_what_is_missing_is_named(
    side: Side, reason: str, template: dict[str, Any], named: str
) -> None:
    if template.get("image", {}).get("pool") == "POOL":
        template = {"image": template["image"] | {"pool": side.pool}}
    vm, before = machine(side, **template), side.domains()
    with pytest.raises(PermanentError) as error:
        await side.hypervisor.ensure_running(side.host, vm)
    assert error.value.reason == reason
    assert named in error.value.message
    assert side.host.name in error.value.message
    assert (side.domains(), side.volumes()) == (before, {BASE})


@on_all
async def test_a_full_pool_is_said_before_anything_is_made(side: Side) -> None:
    vm, before = machine(side), side.domains()
    with pytest.raises(PermanentError) as error:
        await side.stingy(2**60).ensure_running(side.host, vm)
    assert error.value.reason == "StoragePoolFull"
    assert side.pool in error.value.message
    assert "bytes free" in error.value.message
    assert (side.domains(), side.volumes()) == (before, {BASE})


@needs("start-failure")
async def test_a_failed_start_leaves_nothing_behind(side: Side) -> None:
    # Nobody can listen on an address of the documentation range.
    vm = replace(machine(side, address="192.0.2.1"), user_data="#cloud-config\n{}\n")
    if isinstance(side, FakeSide):
        side.fail_next_start()
    with pytest.raises(LubanError) as error:
        await side.hypervisor.ensure_running(side.host, vm)
    assert error.value.reason == "StartFailed"
    assert vm.uuid not in side.domains()
    assert side.volumes() == {BASE}


@needs("start-failure")
async def test_a_failed_start_keeps_what_was_there_before(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.destroy(side.host, vm.uuid)
    if isinstance(side, FakeSide):
        side.fail_next_start()
    with pytest.raises(LubanError):
        await side.hypervisor.ensure_running(side.host, replace(vm, forward_address="192.0.2.1"))
    assert await state_is(side, vm, "Off")
    assert side.volumes() == {BASE, vm.overlay_volume}


@on_all
async def test_an_unusable_uri_is_permanent(side: Side) -> None:
    host = HostRef("host-q", "vmware://host-q/system")
    with pytest.raises(PermanentError) as error:
        await side.hypervisor.list_domains(host, CLUSTER)
    assert error.value.reason == "InvalidURI"
    assert "host-q" in error.value.message
    assert "vmware://host-q/system" in error.value.message


@on_all
async def test_a_daemon_that_is_not_there_is_unreachable(side: Side) -> None:
    gone = side.other_daemon("qemu+tcp://127.0.0.1:1/system")
    with pytest.raises(HostUnreachable) as error:
        await side.hypervisor.list_domains(gone, CLUSTER)
    assert "host-x" in error.value.message
    with pytest.raises(HostUnreachable):
        await side.hypervisor.ensure_running(gone, machine(side))
    assert await side.hypervisor.list_domains(side.host, CLUSTER) == {}


# ---- stopping and removing ---------------------------------------------------------------------------------


@on_all
async def test_what_is_gone_needs_no_stopping(side: Side) -> None:
    nobody = str(uuids.uuid4())
    await side.hypervisor.shutdown(side.host, nobody)
    await side.hypervisor.destroy(side.host, nobody)
    await side.hypervisor.remove(side.host, nobody, side.pool)
    await side.hypervisor.remove(side.host, nobody, "missing-pool")


@on_all
async def test_pulling_the_plug_twice(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    for _ in range(2):
        await side.hypervisor.destroy(side.host, vm.uuid)
        assert await state_is(side, vm, "Off")
    await side.hypervisor.shutdown(side.host, vm.uuid)


@needs("power-button")
async def test_the_power_button(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    side.come_up(vm.uuid)
    await side.hypervisor.shutdown(side.host, vm.uuid)
    await until(lambda: state_is(side, vm, "Off"))
    await side.hypervisor.shutdown(side.host, vm.uuid)


@needs("seed")
async def test_a_guest_that_ignores_the_power_button_goes_on(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.shutdown(side.host, vm.uuid)
    assert await state_is(side, vm, "Running")


@on_all
async def test_removal_takes_a_running_domain_with_its_disk_and_nothing_else(side: Side) -> None:
    vm, other = machine(side), machine(side, "luban-y8", address="127.0.65.3")
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.ensure_running(side.host, other)
    for _ in range(2):
        await side.hypervisor.remove(side.host, vm.uuid, side.pool)
        assert set(await side.hypervisor.list_domains(side.host, CLUSTER)) == {other.uuid}
        assert side.volumes() == {BASE, other.overlay_volume}


@on_all
async def test_an_orphans_disk_is_found_through_the_domain(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.remove(side.host, vm.uuid, "the-templates-new-pool")
    assert side.volumes() == {BASE}


@needs("crash")
async def test_a_domain_that_dies_is_told_from_one_that_was_stopped(side: Side) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.crash(vm.uuid)
    await until(lambda: state_is(side, vm, "Crashed"))
    await side.hypervisor.ensure_running(side.host, vm)
    assert await state_is(side, vm, "Running")


# ---- events ------------------------------------------------------------------------------------------------


@on_all
async def test_watchers_hear_of_starts_and_stops_until_they_leave(side: Side) -> None:
    vm, heard = machine(side), asyncio.Queue[str]()
    leave = side.hypervisor.watch(side.host, heard.put_nowait)
    await side.hypervisor.list_domains(side.host, CLUSTER)
    await side.hypervisor.ensure_running(side.host, vm)
    async with asyncio.timeout(PATIENCE):
        assert await heard.get() == vm.uuid
    await side.hypervisor.destroy(side.host, vm.uuid)
    later = asyncio.Queue[str]()
    leave()
    leave()
    stay = side.hypervisor.watch(side.host, later.put_nowait)
    heard = asyncio.Queue[str]()
    await side.hypervisor.remove(side.host, vm.uuid, side.pool)
    async with asyncio.timeout(PATIENCE):
        assert await later.get() == vm.uuid
    assert heard.empty()
    stay()


@on_all
async def test_closing_twice(side: Side) -> None:
    await side.hypervisor.list_domains(side.host, CLUSTER)
    await side.hypervisor.close()
    await side.hypervisor.close()
