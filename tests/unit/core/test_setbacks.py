"""Growing patience: what counts as a setback, how long it costs, what ends it."""

from __future__ import annotations

from luban.core.lifecycle import Step
from luban.core.memory import Setback
from luban.core.model import Observation, UpdateVM, VMRecord
from luban.core.setbacks import FIRST_SECONDS, LONGEST_SECONDS, SOUND_SECONDS, setbacks_after
from luban.core.state import State
from luban.core.steps import Steps
from tests.fakes.simulator import EPOCH, make_vm


def after(before: dict[str, Setback], *vms: VMRecord, now: float = EPOCH, **phases: Step) -> dict[str, Setback]:
    steps = {vm.name: phases.get(vm.name.replace("-", "_"), Step(vm.phase)) for vm in vms}
    return setbacks_after(before, Steps(steps).moving(State(Observation(vms=vms))), now)


def fails(name: str, reason: str = "ImageNotFound") -> Step:
    return Step("Failed", (UpdateVM(name, "Failed", reason),))


BOOTING = make_vm("vm-1", "Booting")


def test_the_first_costs_nothing() -> None:
    assert after({}, BOOTING, vm_1=fails("vm-1")) == {"ImageNotFound": Setback(1, EPOCH)}


def test_then_it_doubles_up_to_five_minutes() -> None:
    found: dict[str, Setback] = {}
    waits = []
    for _ in range(9):
        found = after(found, BOOTING, vm_1=fails("vm-1"))
        waits.append(found["ImageNotFound"].retry_at - EPOCH)
    assert waits[:4] == [0.0, FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LONGEST_SECONDS


def test_several_in_one_tick_are_one() -> None:
    other = make_vm("vm-2", "Booting")
    assert after({}, BOOTING, other, vm_1=fails("vm-1"), vm_2=fails("vm-2"))["ImageNotFound"].count == 1


def test_each_cause_is_counted_by_itself() -> None:
    found = after({"ImageNotFound": Setback(4, EPOCH)}, BOOTING, vm_1=fails("vm-1", "StartupTimeout"))
    assert {cause: it.count for cause, it in found.items()} == {"ImageNotFound": 4, "StartupTimeout": 1}


def test_a_vm_that_becomes_ready_ends_it() -> None:
    assert after({"ImageNotFound": Setback(4, EPOCH)}, BOOTING, vm_1=Step("Ready")) == {}


def test_one_that_failed_already_is_not_counted_again() -> None:
    failed = make_vm("vm-1", "Failed")
    assert after({"X": Setback(2, EPOCH)}, failed) == {"X": Setback(2, EPOCH)}


def test_one_that_served_for_long_is_no_setback() -> None:
    lost = Step("Lost", (UpdateVM("vm-1", "Lost", "DomainStopped"),))
    assert after({}, make_vm("vm-1"), now=EPOCH + SOUND_SECONDS, vm_1=lost) == {}
    assert after({}, make_vm("vm-1"), now=EPOCH + SOUND_SECONDS - 1, vm_1=lost)["DomainStopped"].count == 1
