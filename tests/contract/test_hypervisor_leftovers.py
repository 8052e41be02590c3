"""What ports.Hypervisor promises of volumes without a domain; the sides are those of test_hypervisor_contract.py."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace

import pytest

from luban.core.orphans import VMVolume
from tests.contract.hypervisor_implementations import BASE, daemon, kvm_host, machine, on_all, side
from tests.contract.hypervisor_sides import Implementation

pytestmark = [pytest.mark.contract]
__all__ = ["daemon", "kvm_host", "side"]


async def spare(side: Implementation, *known: str) -> dict[str, VMVolume]:
    """By name."""
    return {it.name: it for it in await side.hypervisor.spare_volumes(side.host, [side.pool], known)}


def left_behind(side: Implementation, end: str = ".qcow2") -> str:
    """A volume of a VM that is no more."""
    name = f"luban-{uuids.uuid4()}{end}"
    side.add_volume(name)
    return name


@on_all
async def test_a_domain_says_which_control_plane_made_it_and_where_its_disk_is(side: Implementation) -> None:
    marked, plain = replace(machine(side), plane="uid-of-kube-system"), machine(side, "luban-x8", "127.0.65.8")
    for vm in (marked, plain):
        await side.hypervisor.ensure_running(side.host, vm)
    found = (await side.hypervisor.inventory(side.host)).domains
    assert [(found[vm.uuid].plane, found[vm.uuid].pool) for vm in (marked, plain)] == [
        ("uid-of-kube-system", side.pool),
        ("", side.pool),
    ]


@on_all
async def test_volumes_of_vms_without_a_domain_are_spare(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    disk, seed = left_behind(side), left_behind(side, "-seed.iso")
    side.add_volume(f"{disk}.copy")
    found = await spare(side)
    assert found.keys() == {disk, seed}
    assert {(it.pool, it.uuid in it.name, it.user) for it in found.values()} == {(side.pool, True, "")}
    assert (await spare(side, found[disk].uuid)).keys() == {seed}


@on_all
async def test_a_domain_that_is_off_keeps_its_disk(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.destroy(side.host, vm.uuid)
    assert await spare(side) == {}


@on_all
async def test_missing_pools_have_none(side: Implementation) -> None:
    left_behind(side)
    assert await side.hypervisor.spare_volumes(side.host, ["no-such-pool"], ()) == ()
    assert await side.hypervisor.spare_volumes(side.host, [], ()) == ()


@on_all
async def test_a_spare_volume_is_deleted_and_nothing_else(side: Implementation) -> None:
    disk, other = left_behind(side), left_behind(side)
    volume = (await spare(side))[disk]
    assert await side.hypervisor.remove_volume(side.host, volume)
    assert side.volumes() == {BASE, other}
    assert await side.hypervisor.remove_volume(side.host, volume), "gone is gone"


@on_all
async def test_what_a_domain_of_somebody_has_as_its_disk_is_told_and_stays(side: Implementation) -> None:
    disk = left_behind(side)
    volume = (await spare(side))[disk]
    name = side.add_user(disk)
    assert (await spare(side))[disk].user == f"domain {name}"
    assert not await side.hypervisor.remove_volume(side.host, volume)
    assert disk in side.volumes()


@on_all
async def test_what_another_volume_is_made_from_is_told_and_stays(side: Implementation) -> None:
    disk = left_behind(side)
    volume = (await spare(side))[disk]
    side.add_volume("copy.qcow2", disk)
    assert (await spare(side))[disk].user == f"volume copy.qcow2 of pool {side.pool}"
    assert not await side.hypervisor.remove_volume(side.host, volume)
    assert disk in side.volumes()


@on_all
async def test_who_uses_the_disk_of_a_domain_beside_itself(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    assert await side.hypervisor.disk_user(side.host, vm.uuid) == ""
    side.add_volume("copy.qcow2", vm.overlay_volume)
    assert await side.hypervisor.disk_user(side.host, vm.uuid) == f"volume copy.qcow2 of pool {side.pool}"


@on_all
async def test_a_volume_that_got_a_domain_meanwhile_stays(side: Implementation) -> None:
    vm = machine(side)
    side.add_volume(vm.overlay_volume)
    volume = (await spare(side))[vm.overlay_volume]
    await side.hypervisor.ensure_running(side.host, vm)
    assert not await side.hypervisor.remove_volume(side.host, volume)
    assert vm.overlay_volume in side.volumes()


@on_all
async def test_one_that_was_written_meanwhile_stays(side: Implementation) -> None:
    disk = left_behind(side)
    volume = replace((await spare(side))[disk], stamp="1.0")
    assert not await side.hypervisor.remove_volume(side.host, volume)
    assert disk in side.volumes()
