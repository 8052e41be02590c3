"""What ports.Hypervisor promises of domains that rest and go on again. See test_hypervisor_contract.py."""

from __future__ import annotations

import uuid as uuids

import pytest

from luban.errors import ForeignDomain, PermanentError
from tests.contract.hypervisor_implementations import (
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
MEBI = 2**20


@on_all
async def test_to_rest_and_to_go_on_each_twice(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    side.come_up(vm.uuid)
    run = side.run_of(vm.uuid)
    before = await find(side, vm)
    assert before is not None
    for _ in range(2):
        await side.hypervisor.suspend(side.host, vm.uuid)
        record = await find(side, vm)
        assert record is not None
        assert (record.state, record.reason, record.address) == ("Paused", "User", before.address)
    for _ in range(2):
        await side.hypervisor.resume(side.host, vm.uuid)
        assert await state_is(side, vm, "Running")
    assert side.run_of(vm.uuid) == run, "it is the same run"


@on_all
async def test_what_is_off_or_gone_neither_rests_nor_goes_on(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    await side.hypervisor.destroy(side.host, vm.uuid)
    hypervisor, host = side.hypervisor, side.host
    for uuid in (vm.uuid, str(uuids.uuid4())):
        for call in (
            hypervisor.suspend(host, uuid),
            hypervisor.resume(host, uuid),
            hypervisor.set_memory(host, uuid, 64 * MEBI),
            hypervisor.set_time(host, uuid, 1_800_000_000.0),
        ):
            with pytest.raises(PermanentError) as error:
                await call
            assert error.value.reason == "DomainMissing"


@on_all
async def test_somebody_elses_domain_is_left_alone(side: Implementation) -> None:
    uuid = str(uuids.uuid4())
    side.add_foreign("theirs", uuid)
    for call in (side.hypervisor.suspend(side.host, uuid), side.hypervisor.resume(side.host, uuid)):
        with pytest.raises(ForeignDomain):
            await call


@on_all
async def test_memory_is_given_back_and_got_again(side: Implementation) -> None:
    vm = machine(side, domain={"memory": {"max": "64Mi"}})
    await side.hypervisor.ensure_running(side.host, vm)
    for memory in (32 * MEBI, 64 * MEBI):
        await side.hypervisor.set_memory(side.host, vm.uuid, memory)
        assert await state_is(side, vm, "Running")


@needs("forward")  # libvirt's test driver says that its guests have one.
async def test_a_guest_without_an_agent_keeps_its_time_and_that_is_no_error(side: Implementation) -> None:
    vm = machine(side)
    await side.hypervisor.ensure_running(side.host, vm)
    assert not await side.hypervisor.set_time(side.host, vm.uuid, 1_800_000_000.0)
