"""What running domains use, as ports.Hypervisor promises it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from luban.errors import HostUnreachable
from luban.ports import HostRef
from tests.contract.hypervisor_implementations import (
    PATIENCE,
    QemuImplementation,
    daemon,
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


@on_all
async def test_of_those_that_run_alone(side: Implementation) -> None:
    vm = machine(side)
    assert vm.uuid not in await side.hypervisor.usage(side.host)
    await side.hypervisor.ensure_running(side.host, vm)
    assert vm.uuid in await side.hypervisor.usage(side.host)
    await side.hypervisor.destroy(side.host, vm.uuid)
    assert vm.uuid not in await side.hypervisor.usage(side.host)


@on_all
async def test_a_new_start_has_another_number(side: Implementation) -> None:
    vm, runs = machine(side), []
    for _ in range(2):
        await side.hypervisor.ensure_running(side.host, vm)
        runs += [(await side.hypervisor.usage(side.host))[vm.uuid].run for _ in range(2)]
        await side.hypervisor.destroy(side.host, vm.uuid)
    assert runs[0] == runs[1]
    assert runs[2] == runs[3]
    assert runs[0] != runs[2]


@on_all
async def test_time_goes_forward(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    first, second = [(await side.hypervisor.usage(side.host))[vm.uuid].at for _ in range(2)]
    assert first <= second


@needs("usage")
async def test_cpu_time_and_vcpus_are_counted(side: Implementation) -> None:
    vm = machine(side, domain={"cpu": {"cores": 2}, "memory": {"max": "64Mi"}})
    await side.hypervisor.ensure_running(side.host, vm)
    first = (await side.hypervisor.usage(side.host))[vm.uuid]
    second = (await side.hypervisor.usage(side.host))[vm.uuid]
    assert first.cpu_seconds is not None
    assert second.cpu_seconds is not None
    assert 0 <= first.cpu_seconds <= second.cpu_seconds
    assert first.vcpus == 2


@on_all
async def test_what_a_guest_does_not_tell_is_unknown(side: Implementation) -> None:
    """There is nothing on its disk: no balloon driver."""
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    assert (await side.hypervisor.usage(side.host))[vm.uuid].memory is None


@on_all
async def test_a_silent_daemon_is_unreachable(side: Implementation) -> None:
    gone = side.other_daemon("qemu+tcp://127.0.0.1:1/system")
    with pytest.raises(HostUnreachable):
        await side.hypervisor.usage(HostRef("host-x", gone.uri))


@needs("daemon")
async def test_a_qemu_that_hangs_holds_up_nothing_else_and_is_left_out_then(side: Implementation) -> None:
    assert isinstance(side, QemuImplementation)
    hangs, goes_on = machine(side), machine(side, "luban-x8", "127.0.65.3")
    await side.hypervisor.ensure_running(side.host, hangs)
    before = set(side.daemon.qemu_pids())
    await side.hypervisor.ensure_running(side.host, goes_on)
    impatient = side.impatient_of_usage()
    await impatient.usage(side.host)
    (pid,) = before
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(HostUnreachable):
            await impatient.usage(side.host)
        assert await state_is(side, goes_on, "Running")
        await side.hypervisor.ensure_running(side.host, machine(side, "luban-x9", "127.0.65.4"))
        async with asyncio.timeout(PATIENCE):
            found = await impatient.usage(side.host)
        assert found[goes_on.uuid].cpu_seconds is not None
        await side.hypervisor.destroy(side.host, hangs.uuid)
        assert await state_is(side, hangs, "Off")
    finally:
        if pid in side.daemon.qemu_pids():
            os.kill(pid, signal.SIGCONT)
