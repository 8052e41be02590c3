"""luban_cluster_condition says what the status says."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from luban.api.conditions import CONDITIONS
from tests.fakes.operator_harness import OperatorHarness


def shown(registry: CollectorRegistry) -> dict[str, set[str]]:
    """By condition: statuses whose sample is 1."""
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == "luban_cluster_condition":
                statuses = found.setdefault(sample.labels["type"], set())
                statuses |= {sample.labels["status"]} if sample.value else set()
    return found


def told(body: dict[str, Any]) -> dict[str, set[str]]:
    """The same from the status."""
    return {it["type"]: {it["status"]} for it in body["status"]["conditions"]}


async def test_every_condition_has_exactly_the_status_that_is_told() -> None:
    harness = OperatorHarness({"pool": {"size": 1}})
    await harness.run(60)
    assert shown(harness.runtime.metrics.registry) == told(harness.body())
    assert shown(harness.runtime.metrics.registry).keys() == CONDITIONS.keys()


async def test_a_condition_that_there_is_no_more_is_not_shown() -> None:
    harness = OperatorHarness({"pool": {"size": 1}})
    await harness.run(60)
    harness.change(pool={"size": 0})
    await harness.run(60)
    assert shown(harness.runtime.metrics.registry) == told(harness.body())
    assert "PoolFilled" not in shown(harness.runtime.metrics.registry)


async def test_a_refused_spec_shows() -> None:
    harness = OperatorHarness()
    await harness.run(60)
    harness.runtime.update({**harness.body(), "spec": {}})
    await harness.tick()
    assert shown(harness.runtime.metrics.registry)["SpecValid"] == {"False"}
