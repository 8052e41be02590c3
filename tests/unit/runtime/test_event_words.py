"""Events say facts: the host, the address, why; each trouble once, and no name twice in a row."""

from __future__ import annotations

from typing import Any

import pytest

from luban.api import reasons
from luban.api.reasons import in_words
from luban.errors import TemporaryError
from luban.ports import HostRef
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness

MANUAL: dict[str, Any] = {"scaling": {"policy": "Manual", "minVMs": 1, "maxVMs": 6, "interval": "5s"}}
NO_IMAGE = {"template": {"spec": {"image": {"volume": "none.qcow2"}, "network": {"type": "User"}}}}


def messages(harness: OperatorHarness, reason: str) -> set[str]:
    return {it.message for it in harness.api.events(NAMESPACE) if it.kind == "LubanVM" and it.reason == reason}


def condition(harness: OperatorHarness, kind: str) -> str:
    found = {it["type"]: it for it in harness.body()["status"]["conditions"]}[kind]
    return str(found["message"])


async def test_a_vm_that_comes_and_goes_names_its_host_and_its_address() -> None:
    harness = OperatorHarness({**MANUAL, "replicas": 3})
    await harness.run(60)
    vms = harness.vms()
    assert messages(harness, "Placed") == {f"placed on {vm['spec']['placement']}" for vm in vms}
    assert messages(harness, "ProbeAnswered") == {
        f"Ready on {vm['spec']['host']} at {vm['status']['address']}: it answered its readiness probe" for vm in vms
    }
    for vm in vms:
        harness.balancer.in_flight[vm["metadata"]["name"]] = 4
    harness.change(replicas=2)
    await harness.run(5)
    (leaving,) = (vm["spec"]["host"] for vm in harness.vms() if "deletionTimestamp" in vm["metadata"])
    assert messages(harness, "Removing") == {f"asked to leave {leaving}: more live than are wanted (AboveDesired)"}
    harness.balancer.in_flight.clear()
    await harness.run(60)
    (drained,) = messages(harness, "Drained")
    assert drained.startswith(f"Stopping on {leaving} at ")
    assert drained.endswith(": nothing was in flight any more")


async def test_what_will_not_work_is_one_warning_on_the_vm() -> None:
    harness = OperatorHarness(NO_IMAGE)
    await harness.run(20)
    told = [it for it in harness.api.events(NAMESPACE) if it.kind == "LubanVM" and it.type == "Warning"]
    assert told
    assert len({it.uid for it in told}) == len(told), [it.message for it in told]
    for event in told:
        assert event.message.startswith("on host-")
        assert "host host-" not in event.message


async def test_what_is_tried_again_names_its_host_once() -> None:
    harness = OperatorHarness(MANUAL)

    async def fails(host: HostRef, *_: Any) -> None:
        raise TemporaryError("StartFailed", f"host {host.name}: start domain 'x': no")

    harness.hypervisor.ensure_running = fails  # type: ignore[method-assign]
    await harness.run(30)
    assert {message.partition(": ")[2] for message in messages(harness, "StartFailed")} == {"start domain 'x': no"}
    assert "on host-b: start domain 'x': no" in condition(harness, "VMsHealthy")
    assert "host host-" not in condition(harness, "VMsHealthy")


async def test_a_host_that_does_not_answer_is_named_once() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.hypervisor.disconnect("host-b")
    await harness.run(60)
    assert condition(harness, "HostsReachable").count("host-b: ") == 1


@pytest.mark.parametrize(
    "reason", [*reasons.CHANGES, *reasons.VMS, *(it for of in reasons.FAILURES.values() for it in of)]
)
def test_every_reason_of_a_vm_ends_a_sentence(reason: str) -> None:
    words = in_words(reason)
    assert words
    assert not words.endswith(".")
    assert " " in words


def test_a_reason_without_words_stands_for_itself() -> None:
    assert in_words("Lost") == "Lost"
