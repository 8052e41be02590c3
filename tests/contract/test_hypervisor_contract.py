"""What ports.Hypervisor promises, held by the fake, by libvirt's test driver and by QEMU under a real libvirt daemon.

hypervisor_implementations.py has the sides; a test names what it needs and runs on the sides that have it.
"""

from __future__ import annotations

import asyncio
import uuid as uuids
from dataclasses import replace
from typing import Any

import pytest

from luban.core.model import ClusterRef
from luban.errors import ForeignDomain, HostUnreachable, LubanError, PermanentError
from luban.ports import HostRef
from tests.contract.hypervisor_implementations import (
    ABLE_TO,
    BASE,
    CLUSTER,
    NEEDS,
    FakeImplementation,
    LibvirtImplementation,
    daemon,
    find,
    kvm_host,
    machine,
    needs,
    on_all,
    side,
    state_is,
)
from tests.contract.hypervisor_sides import Implementation

pytestmark = [pytest.mark.contract]
__all__ = ["daemon", "kvm_host", "side"]


def test_every_need_is_met() -> None:
    assert frozenset().union(*ABLE_TO.values()) >= NEEDS


@on_all
async def test_nothing_of_ours_at_first(side: Implementation) -> None:
    assert (await side.hypervisor.inventory(side.host)).domains == {}


@on_all
async def test_a_made_domain_runs_and_is_listed_by_its_uuid(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    record = await find(side, vm)
    assert record is not None
    assert (record.uuid, record.name, record.state) == (vm.uuid, "shop_luban-x7", "Running")
    assert side.volumes() == {BASE, vm.overlay_volume}


@on_all
async def test_making_it_again_changes_nothing(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    run, everything = side.run_of(vm.uuid), (side.domains(), side.volumes())
    await side.hypervisor.ensure_running(side.host, vm)
    assert side.run_of(vm.uuid) == run
    assert (side.domains(), side.volumes()) == everything


@on_all
async def test_two_attempts_at_a_time_make_one_domain(side: Implementation) -> None:
    vm = machine(side)
    attempts = (side.hypervisor.ensure_running(side.host, vm) for _ in range(2))
    await asyncio.gather(*attempts)
    assert await state_is(side, vm, "Running")
    assert side.volumes() == {BASE, vm.overlay_volume}


@on_all
async def test_a_domain_that_is_off_is_started_with_the_same_disk(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.destroy(side.host, vm.uuid)
    await side.hypervisor.ensure_running(side.host, vm)
    assert await state_is(side, vm, "Running")
    assert side.volumes() == {BASE, vm.overlay_volume}


@needs("seed")
async def test_user_data_makes_a_seed_and_removal_deletes_it(side: Implementation) -> None:
    vm = replace(machine(side), user_data="#cloud-config\n{}\n")
    await side.hypervisor.ensure_running(side.host, vm)
    assert side.volumes() == {BASE, vm.overlay_volume, vm.seed_volume}
    await side.hypervisor.destroy(side.host, vm.uuid)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.remove(side.host, vm.uuid, side.pool)
    assert side.volumes() == {BASE}


@on_all
async def test_a_planned_address_is_known_at_once(side: Implementation) -> None:
    vm = machine(side, address="127.0.65.9", network={"type": "User"})
    await side.hypervisor.ensure_running(side.host, vm)
    record = await find(side, vm)
    assert record is not None
    assert record.address == "127.0.65.9"


@needs("observed-address")
async def test_an_address_is_observed_when_the_guest_has_one(side: Implementation) -> None:
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


@on_all
async def test_each_domain_says_whose_it_is(side: Implementation) -> None:
    vm, other = (
        machine(side),
        replace(machine(side, "luban-x8", "127.0.65.3"), cluster=ClusterRef("else", "other", "0123")),
    )
    for it in (vm, other):
        await side.hypervisor.ensure_running(side.host, it)
    found = (await side.hypervisor.inventory(side.host)).domains
    assert {uuid: it.owner for uuid, it in found.items()} == {vm.uuid: CLUSTER, other.uuid: other.cluster}


@on_all
async def test_memory_is_told_as_much_as_guests_may_grow_to(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    side.add_foreign("database", str(uuids.uuid4()))
    found = await side.hypervisor.inventory(side.host)
    assert found.domains[vm.uuid].memory == vm.template.domain.memory.max.bytes
    assert found.memory >= found.domains[vm.uuid].memory
    assert found.domains.keys() == {vm.uuid}


@on_all
async def test_a_foreign_domain_of_our_name_is_left_alone(side: Implementation) -> None:
    vm, theirs = machine(side), str(uuids.uuid4())
    side.add_foreign(vm.domain_name, theirs)
    before = side.domains()
    with pytest.raises(ForeignDomain) as error:
        await side.hypervisor.ensure_running(side.host, vm)
    assert error.value.reason == "ForeignDomain"
    assert vm.domain_name in error.value.message
    assert (side.domains(), side.volumes()) == (before, {BASE})


@on_all
async def test_a_domain_without_our_metadata_is_never_touched(side: Implementation) -> None:
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
    side: Implementation, reason: str, template: dict[str, Any], named: str
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


VICTIM = "13b9436a-cc98-4689-8d88-d1a7c651bfa3"


@pytest.mark.parametrize(
    "template",
    [
        {"image": {"pool": "POOL", "volume": f"luban-{VICTIM}.qcow2"}},
        {"image": {"pool": "POOL", "volume": f"luban-{VICTIM}-seed.iso"}},
        {"image": {"pool": "POOL", "volume": f"Luban-{VICTIM}.QCOW2"}},
        {"domain": {"kernelBoot": {"kernelVolume": f"luban-{VICTIM}-seed.iso"}}},
        {"domain": {"kernelBoot": {"kernelVolume": BASE, "initrdVolume": f"luban-{VICTIM}-seed.iso"}}},
    ],
)
@on_all
async def test_what_was_made_for_a_vm_is_never_a_base(side: Implementation, template: dict[str, Any]) -> None:
    if "image" in template:
        template = {"image": template["image"] | {"pool": side.pool}}
    victim = replace(machine(side, "victim"), uuid=VICTIM, user_data="#cloud-config\n{}\n" if side.seeds else None)
    await side.hypervisor.ensure_running(side.host, victim)
    vm, before = machine(side, address="127.0.65.3", **template), (side.domains(), side.volumes())
    with pytest.raises(PermanentError) as error:
        await side.hypervisor.ensure_running(side.host, vm)
    assert error.value.reason == "VolumeRefused"
    assert VICTIM in error.value.message.lower()
    assert (side.domains(), side.volumes()) == before


@needs("storage")
async def test_nor_what_is_made_from_it(side: Implementation) -> None:
    assert isinstance(side, LibvirtImplementation)
    victim = machine(side, "victim")
    await side.hypervisor.ensure_running(side.host, victim)
    side.add_copy("innocent.qcow2", victim.overlay_volume)
    vm = machine(side, address="127.0.65.3", image={"pool": side.pool, "volume": "innocent.qcow2"})
    with pytest.raises(PermanentError) as error:
        await side.hypervisor.ensure_running(side.host, vm)
    assert error.value.reason == "VolumeRefused"
    assert victim.overlay_volume in error.value.message


@on_all
async def test_a_full_pool_is_said_before_anything_is_made(side: Implementation) -> None:
    vm, before = machine(side), side.domains()
    with pytest.raises(PermanentError) as error:
        await side.stingy(2**60).ensure_running(side.host, vm)
    assert error.value.reason == "StoragePoolFull"
    assert side.pool in error.value.message
    assert "bytes free" in error.value.message
    assert (side.domains(), side.volumes()) == (before, {BASE})


TOO_LARGE = {"memory": {"max": "900Ti"}}


@needs("start-failure")
async def test_a_failed_start_leaves_nothing_behind(side: Implementation) -> None:
    vm = replace(machine(side, domain=TOO_LARGE), user_data="#cloud-config\n{}\n")
    if isinstance(side, FakeImplementation):
        side.fail_next_start()
    with pytest.raises(LubanError) as error:
        await side.hypervisor.ensure_running(side.host, vm)
    assert error.value.reason == "StartFailed"
    assert vm.uuid not in side.domains()
    assert side.volumes() == {BASE}


@needs("start-failure")
async def test_a_failed_start_keeps_what_was_there_before(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.destroy(side.host, vm.uuid)
    if isinstance(side, FakeImplementation):
        side.fail_next_start()
    with pytest.raises(LubanError):
        await side.hypervisor.ensure_running(side.host, replace(vm, template=machine(side, domain=TOO_LARGE).template))
    assert await state_is(side, vm, "Off")
    assert side.volumes() == {BASE, vm.overlay_volume}


@needs("forward")
async def test_an_address_that_another_vm_has_is_named_at_once_and_for_good(side: Implementation) -> None:
    """As when two clusters were given one range: the second one hears of it from QEMU alone."""
    network = {"type": "User"}
    first = machine(side, "luban-x7", address="127.0.65.7", network=network)
    await side.hypervisor.ensure_running(side.host, first)
    second = machine(side, "second-y8", address="127.0.65.7", network=network)
    with pytest.raises(PermanentError) as error:
        await side.hypervisor.ensure_running(side.host, second)
    assert error.value.reason == "AddressTaken"
    assert "127.0.65.7" in error.value.message
    assert set(side.domains()) == {first.uuid}
    assert side.volumes() == {BASE, first.overlay_volume}
    await side.hypervisor.ensure_running(side.host, replace(second, forward_address="127.0.65.8"))
    assert await state_is(side, second, "Running")


@on_all
async def test_an_unusable_uri_is_permanent(side: Implementation) -> None:
    host = HostRef("host-q", "vmware://host-q/system")
    with pytest.raises(PermanentError) as error:
        await side.hypervisor.inventory(host)
    assert error.value.reason == "InvalidURI"
    assert "host-q" in error.value.message
    assert "vmware://host-q/system" in error.value.message


@on_all
async def test_a_daemon_that_is_not_there_is_unreachable(side: Implementation) -> None:
    gone = side.other_daemon("qemu+tcp://127.0.0.1:1/system")
    with pytest.raises(HostUnreachable) as error:
        await side.hypervisor.inventory(gone)
    assert "host-x" in error.value.message
    with pytest.raises(HostUnreachable):
        await side.hypervisor.ensure_running(gone, machine(side, network={"type": "Bridge", "source": "br0"}))
    assert (await side.hypervisor.inventory(side.host)).domains == {}


@on_all
async def test_closing_twice(side: Implementation) -> None:
    await side.hypervisor.inventory(side.host)
    await side.hypervisor.close()
    await side.hypervisor.close()
