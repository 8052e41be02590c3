"""What ports.Hypervisor promises of domains that stop: of themselves, on demand, together with their daemon.

See test_hypervisor_contract.py, which has the rest.
"""

from __future__ import annotations

import asyncio
import signal
import uuid as uuids
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace

import pytest

from luban.errors import HostUnreachable, TemporaryError
from tests.contract.hypervisor_implementations import (
    BASE,
    PATIENCE,
    LibvirtImplementation,
    QemuImplementation,
    SlowPool,
    daemon,
    find,
    kvm_host,
    machine,
    needs,
    on_all,
    side,
    state_is,
    until_state,
)
from tests.contract.hypervisor_sides import Implementation

pytestmark = [pytest.mark.contract]
__all__ = ["daemon", "kvm_host", "side"]


@on_all
async def test_what_is_gone_needs_no_stopping(side: Implementation) -> None:
    nobody = str(uuids.uuid4())
    assert not await side.hypervisor.shutdown(side.host, nobody)
    await side.hypervisor.destroy(side.host, nobody)
    await side.hypervisor.remove(side.host, nobody, side.pool)
    await side.hypervisor.remove(side.host, nobody, "missing-pool")


@on_all
async def test_pulling_the_plug_twice(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    for _ in range(2):
        await side.hypervisor.destroy(side.host, vm.uuid)
        record = await find(side, vm)
        assert record is not None
        assert (record.state, record.reason) == ("Off", "Destroyed")
    assert not await side.hypervisor.shutdown(side.host, vm.uuid)


@on_all
async def test_a_paused_domain_says_so_hears_no_power_button_and_can_be_destroyed(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    side.come_up(vm.uuid)
    before = await find(side, vm)
    await until_state(side, vm, "Paused", lambda: asyncio.to_thread(side.pause, vm.uuid))
    record = await find(side, vm)
    assert before is not None
    assert before.address
    assert record == replace(before, state="Paused", reason="User")
    run = side.run_of(vm.uuid)
    await side.hypervisor.ensure_running(side.host, vm)
    assert side.run_of(vm.uuid) == run, "what is paused is not made anew"
    assert not await side.hypervisor.shutdown(side.host, vm.uuid)
    assert await state_is(side, vm, "Paused")
    await side.hypervisor.destroy(side.host, vm.uuid)
    record = await find(side, vm)
    assert record is not None
    assert (record.state, record.reason) == ("Off", "Destroyed")


@on_all
async def test_a_paused_domain_can_be_removed(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    side.pause(vm.uuid)
    await side.hypervisor.remove(side.host, vm.uuid, side.pool)
    assert await find(side, vm) is None
    assert side.volumes() == {BASE}


@needs("power-button")
async def test_the_power_button(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    side.come_up(vm.uuid)
    await until_state(side, vm, "Off", lambda: side.hypervisor.shutdown(side.host, vm.uuid))
    record = await find(side, vm)
    assert record is not None
    assert record.reason == "ShutdownByGuest"
    assert not await side.hypervisor.shutdown(side.host, vm.uuid)


@needs("seed")
async def test_a_guest_that_ignores_the_power_button_goes_on(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    assert await side.hypervisor.shutdown(side.host, vm.uuid)
    assert await state_is(side, vm, "Running")


@on_all
async def test_removal_takes_a_running_domain_with_its_disk_and_nothing_else(side: Implementation) -> None:
    vm, other = machine(side), machine(side, "luban-y8", address="127.0.65.3")
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.ensure_running(side.host, other)
    for _ in range(2):
        await side.hypervisor.remove(side.host, vm.uuid, side.pool)
        assert set((await side.hypervisor.inventory(side.host)).domains) == {other.uuid}
        assert side.volumes() == {BASE, other.overlay_volume}


@on_all
async def test_an_orphans_disk_is_found_through_the_domain(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.remove(side.host, vm.uuid, "the-templates-new-pool")
    assert side.volumes() == {BASE}


@needs("storage")
async def test_what_appears_after_the_removal_is_removed_too(side: Implementation) -> None:
    assert isinstance(side, LibvirtImplementation)
    vm, slow = machine(side), SlowPool()
    hurried = side.with_slow_pool(slow)
    with pytest.raises(TemporaryError) as error:
        await hurried.ensure_running(side.host, vm)
    assert error.value.reason == "LibvirtTimeout"
    assert await asyncio.to_thread(slow.begun.wait, PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while not await succeeds(hurried.remove(side.host, vm.uuid, side.pool)):
            pass
        slow.go_on.set()
        assert await asyncio.to_thread(slow.made.wait, PATIENCE)
        while await asyncio.to_thread(side.volumes) != {BASE}:
            pass
    assert side.domains().keys() == side.before


async def succeeds(call: Awaitable[None]) -> bool:
    """Whether a call is done in time."""
    try:
        await call
    except TemporaryError:
        return False
    return True


@needs("crash")
async def test_a_domain_that_dies_is_told_from_one_that_was_stopped(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await until_state(side, vm, "Crashed", lambda: side.crash(vm.uuid))
    record = await find(side, vm)
    assert record is not None
    assert record.reason == "Crashed"
    assert not await side.hypervisor.shutdown(side.host, vm.uuid)
    await side.hypervisor.ensure_running(side.host, vm)
    assert await state_is(side, vm, "Running")


@on_all
async def test_watchers_hear_of_starts_and_stops_until_they_leave(side: Implementation) -> None:
    vm, heard = machine(side), asyncio.Queue[str]()
    leave = side.hypervisor.watch(side.host, heard.put_nowait)
    await side.hypervisor.inventory(side.host)
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


@needs("outage")
async def test_a_daemon_that_hangs_is_unreachable_in_time_wakes_and_comes_back(side: Implementation) -> None:
    vm, impatient, lost = machine(side), side.impatient(), asyncio.Event()
    await side.hypervisor.ensure_running(side.host, vm)
    impatient.watch(side.host, lambda uuid: None if uuid else lost.set())
    assert set((await impatient.inventory(side.host)).domains) == {vm.uuid}
    run = side.run_of(vm.uuid)
    side.stop_answering()
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                with pytest.raises(HostUnreachable):
                    await impatient.inventory(side.host)
            with pytest.raises(TemporaryError):
                await impatient.destroy(side.host, vm.uuid)
            await lost.wait()
    finally:
        side.answer_again()
    # The connection may be found dead at first.
    with suppress(HostUnreachable):
        await side.hypervisor.inventory(side.host)
    await side.hypervisor.ensure_running(side.host, vm)
    assert await state_is(side, vm, "Running")
    assert side.run_of(vm.uuid) >= run


@needs("daemon")
async def test_a_daemon_that_was_killed_finds_its_domains_again(side: Implementation) -> None:
    assert isinstance(side, QemuImplementation)
    vm, lost = machine(side), asyncio.Event()
    await side.hypervisor.ensure_running(side.host, vm)
    side.hypervisor.watch(side.host, lambda uuid: None if uuid else lost.set())
    await side.hypervisor.inventory(side.host)
    pids = side.daemon.qemu_pids()
    side.daemon.daemon.kill(signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        await lost.wait()
    with pytest.raises(HostUnreachable):
        await side.hypervisor.inventory(side.host)
    await asyncio.to_thread(side.restart)
    assert await state_is(side, vm, "Running")
    await side.hypervisor.ensure_running(side.host, vm)
    assert side.daemon.qemu_pids() == pids
    heard = asyncio.Event()
    side.hypervisor.watch(side.host, lambda uuid: heard.set() if uuid == vm.uuid else None)
    await side.hypervisor.destroy(side.host, vm.uuid)
    async with asyncio.timeout(PATIENCE):
        await heard.wait()
