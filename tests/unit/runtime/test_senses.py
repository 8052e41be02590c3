"""What one look costs, and whom it waits for."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.core.model import BalancerReport, ClusterRef
from luban.errors import HostUnreachable, TemporaryError
from luban.ports import HostRef, Inventory
from luban.runtime import observe
from luban.senses import hosts
from luban.senses.steady import SteadyWords
from tests.fakes.operator_harness import NAMESPACE, OperatorHarness

GAUGE = {"scaling": {"policy": "Sessions", "minVMs": 2, "maxVMs": 6, "sessions": {"source": "Metric"}}}


def with_probe(harness: OperatorHarness, **probe: Any) -> None:
    """Change the readiness probe."""
    template = {"spec": {"image": {"volume": "luban-web.qcow2"}, "network": {"type": "User"}, "readinessProbe": probe}}
    harness.change(template=template)


async def counted_probes(harness: OperatorHarness, seconds: float) -> int:
    """How many probes the operator makes in that time."""
    real, count = harness.probes.ready, 0

    async def ready(*arguments: Any) -> bool:
        nonlocal count
        count += 1
        return await real(*arguments)

    harness.probes.ready = ready  # type: ignore[method-assign]
    await harness.run(seconds)
    return count


@pytest.mark.parametrize(("period", "wanted"), [(60, 20), (20, 60)])
async def test_each_vm_is_probed_at_its_own_period(period: int, wanted: int) -> None:
    harness = OperatorHarness()
    await harness.run(60)
    with_probe(harness, periodSeconds=period)
    await harness.run(10)
    assert wanted - 2 <= await counted_probes(harness, 600) <= wanted + 2


async def test_a_missed_probe_is_counted_once_however_many_ticks_pass() -> None:
    harness = OperatorHarness()
    with_probe(harness, periodSeconds=60)
    await harness.run(60)
    harness.probes.deaf.add(harness.vms()[0]["spec"]["address"])
    await harness.run(100)
    name = harness.vms()[0]["metadata"]["name"]
    assert harness.runtime.memory.misses[name] in {1, 2}


async def test_a_vm_whose_metrics_hang_holds_up_no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "PROBE_PATIENCE_SECONDS", 0.01)
    harness = OperatorHarness(GAUGE)
    await harness.run(60)
    slow = harness.vms()[0]["spec"]["address"]
    gate, asked = asyncio.Event(), 0

    async def gauge(address: str, *_: Any) -> int | None:
        nonlocal asked
        if address == slow:
            asked += 1
            await gate.wait()
        return 7

    harness.probes.gauge = gauge  # type: ignore[method-assign]
    await harness.run(60)
    assert asked == 1
    condition = {it["type"]: it for it in harness.body()["status"]["conditions"]}["LoadKnown"]
    assert condition["status"] == "False"
    assert harness.vms()[0]["metadata"]["name"] in condition["message"]
    gate.set()
    await harness.run(10)
    assert {it["type"]: it for it in harness.body()["status"]["conditions"]}["LoadKnown"]["status"] == "True"
    harness.runtime.observer.close()


async def test_a_gauge_is_not_read_in_every_tick() -> None:
    harness = OperatorHarness(GAUGE)
    await harness.run(60)
    count = 0

    async def gauge(*_: Any) -> int | None:
        nonlocal count
        count += 1
        return 7

    harness.probes.gauge = gauge  # type: ignore[method-assign]
    for _ in range(10):
        await harness.runtime.tick()
        harness.clock.seconds += 0.2
    assert count <= 4


async def test_a_host_is_asked_once_when_the_balancer_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = OperatorHarness()
    await harness.run(60)
    real, under_way, most = harness.hypervisor.inventory, 0, 0

    async def slow(host: HostRef) -> Inventory:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        under_way -= 1
        return await real(host)

    harness.hypervisor.inventory = slow  # type: ignore[method-assign]
    harness.api.fail_next("read_config_map", TemporaryError("Unavailable", "no"), times=5)
    for _ in range(6):
        await harness.runtime.tick()
    assert under_way == 0
    assert most == 2, "two hosts, each asked once at a time"
    assert harness.api.find("LubanCluster", NAMESPACE, "luban")


async def test_an_error_that_nobody_foresaw_makes_one_host_unreachable() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    real = harness.hypervisor.inventory

    async def break_(host: HostRef) -> Inventory:
        if host.name == "host-b":
            raise ValueError("no such thing")
        return await real(host)

    harness.hypervisor.inventory = break_  # type: ignore[method-assign]
    with capture_logs() as logs:
        await harness.run(10)
    conditions = {it["type"]: it for it in harness.body()["status"]["conditions"]}
    assert conditions["Reconciled"]["status"] == "True"
    assert conditions["HostsReachable"]["reason"] == "HostUnreachable"
    assert "ValueError: no such thing" in conditions["HostsReachable"]["message"]
    told = next(it for it in logs if it["event"] == "unexpected error of a host")
    assert (told["host"], told["exc_info"]) == ("host-b", True)


TEXTS = ("libvirt does not answer within 3 s", "waits until a call that hangs has ended")


async def test_a_host_that_hangs_is_told_in_words_that_stay() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    texts = itertools.cycle(TEXTS)
    real = harness.hypervisor.inventory

    async def hangs(host: HostRef) -> Inventory:
        if host.name == "host-c":
            raise HostUnreachable("HostUnreachable", next(texts))
        return await real(host)

    harness.hypervisor.inventory = hangs  # type: ignore[method-assign]
    harness.api.calls.clear()
    await harness.run(300)
    assert harness.api.calls["patch_cluster_status"] <= 2
    (told,) = (it for it in harness.body()["status"]["hosts"] if it["name"] == "host-c")
    assert (told["reachable"], told["message"]) == (False, TEXTS[0])
    harness.hypervisor.inventory = real  # type: ignore[method-assign]
    await harness.run(10)
    assert all(it["reachable"] for it in harness.body()["status"]["hosts"])


async def test_a_balancer_that_hangs_is_told_in_words_that_stay() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    texts = itertools.cycle(TEXTS)

    async def hangs(cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        return BalancerReport(name, reachable=False, message=next(texts))

    harness.balancer.report = hangs  # type: ignore[method-assign]
    harness.api.calls.clear()
    await harness.run(300)
    assert harness.api.calls["patch_cluster_status"] <= 3


def test_words_that_are_said_twice_replace_those_before() -> None:
    words = SteadyWords()
    assert [words.choose("a", it) for it in "ABABBA"] == ["A", "A", "A", "A", "B", "B"]
    assert words.choose("b", "X") == "X"
    words.over("a")
    assert words.choose("a", "C") == "C"


async def test_a_deletion_that_cannot_go_on_is_looked_at_ever_more_seldom() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.hypervisor.disconnect("host-b")
    harness.api.remove("LubanCluster", NAMESPACE, "luban")
    harness.runtime.update(harness.body())
    await harness.run(300)
    harness.api.calls.clear()
    await harness.run(600)
    assert harness.api.calls["list_vms"] <= 125
    assert not harness.runtime.finished
    harness.hypervisor.host("host-b").reachable = True
    await harness.run(60)
    assert harness.consistent(0)


async def test_a_clock_that_is_set_back_makes_no_silent_host_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0.01)
    harness = OperatorHarness()
    await harness.run(60)
    gate = asyncio.Event()

    async def hangs(*_: Any) -> Inventory:
        await gate.wait()
        return {}

    harness.hypervisor.inventory = hangs  # type: ignore[method-assign]
    harness.clock.seconds -= 3600
    await harness.run(20)
    assert not any(host["reachable"] for host in harness.body()["status"]["hosts"])
    harness.runtime.observer.close()


async def test_a_loop_that_ended_while_a_host_hangs_can_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion goes on where the daemon left off."""
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0.01)
    harness = OperatorHarness()
    await harness.run(60)
    gate, answer = asyncio.Event(), harness.hypervisor.inventory

    async def hangs(host: HostRef) -> Inventory:
        if host.name == "host-c":
            await gate.wait()
        return await answer(host)

    harness.hypervisor.inventory = hangs  # type: ignore[method-assign]
    for _ in range(3):
        await harness.tick()
        harness.runtime.observer.close()
        await asyncio.sleep(0)
    gate.set()
    await harness.run(10)
    assert all(host["reachable"] for host in harness.body()["status"]["hosts"])


async def test_a_call_that_is_given_up_is_a_host_that_has_not_answered() -> None:
    """A CancelledError is no Exception: it would end the loop, and kopf would give the cluster up."""
    harness = OperatorHarness()
    await harness.run(60)
    answer = harness.hypervisor.inventory

    async def given_up(host: HostRef) -> Inventory:
        if host.name == "host-c":
            raise asyncio.CancelledError
        return await answer(host)

    harness.hypervisor.inventory = given_up  # type: ignore[method-assign]
    await harness.run(20)
    assert [host["reachable"] for host in harness.body()["status"]["hosts"]] == [True, False]
    harness.hypervisor.inventory = answer  # type: ignore[method-assign]
    await harness.run(10)
    assert all(host["reachable"] for host in harness.body()["status"]["hosts"])


async def test_a_balancer_that_tells_is_asked_no_more_and_wakes_the_cluster_with_its_news() -> None:
    harness = OperatorHarness()
    real, asked = harness.balancer.report, 0
    tells: list[Any] = []

    async def report(*arguments: Any, **more: Any) -> BalancerReport:
        nonlocal asked
        asked += 1
        return await real(*arguments, **more)

    async def follow(*arguments: Any, members: int, heard: Any) -> None:
        async def tell(**changes: Any) -> None:
            heard(replace(await real(*arguments, members=members), **changes))

        tells.append(tell)
        await tell()
        await asyncio.Event().wait()

    harness.balancer.report, harness.balancer.follow = report, follow  # type: ignore[method-assign, assignment]
    await harness.run(1)
    for _ in range(60):
        for tell in tells:
            await tell()
        await harness.tick()
    assert harness.consistent(2)
    assert asked <= 3
    harness.runtime.wake.clear()
    await tells[-1]()
    assert not harness.runtime.wake.is_set(), "nothing is new"
    harness.balancer.in_flight[harness.vms()[0]["metadata"]["name"]] = 3
    await tells[-1]()
    assert not harness.runtime.wake.is_set(), "figures alone"
    await tells[-1](ready=False)
    assert harness.runtime.wake.is_set(), "httpd does not serve as wanted"
    harness.runtime.observer.close()
