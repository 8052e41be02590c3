"""Specs that cannot be read while no good one is known: told, measured, and taken once they are mended."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from luban.errors import TemporaryError
from tests.fakes.managed import BAD, World

pytestmark = pytest.mark.looptime(end=7200)


async def test_a_spec_that_was_never_good_is_told_once() -> None:
    world = World()
    world.spoil(**BAD["refused by the operator alone"])
    for _ in range(3):
        with pytest.raises(ValueError, match="listen") as caught:
            await world.run(10)
        await world.manager.refuse(world.body(), caught.value)
    found = world.condition("SpecValid")
    assert (found["status"], found["reason"]) == ("False", "SpecRefused")
    assert world.api.calls["patch_cluster_status"] == 1


async def refuse(world: World) -> None:
    """The loop of a cluster whose spec cannot be read, as kopf's side runs it."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (whatever is bad)
        await world.run(10)
    await world.manager.refuse(world.body(), caught.value)


@pytest.mark.parametrize("what", BAD)
async def test_after_a_restart_a_refused_cluster_is_ready_no_more(what: str) -> None:
    world = World()
    await world.run(60)
    assert world.condition("Ready")["status"] == "True"
    world.spoil(**BAD[what])
    world.restart()
    world.api.calls.clear()
    for _ in range(3):
        await refuse(world)
    told = {
        kind: (world.condition(kind)["status"], world.condition(kind)["reason"]) for kind in ("Ready", "Reconciled")
    }
    assert told == {"Ready": ("Unknown", "NotReconciled"), "Reconciled": ("False", "SpecRefused")}
    assert world.body()["status"]["phase"] == "Degraded"
    assert "nothing is in force" in world.condition("SpecValid")["message"]
    assert world.api.calls["patch_cluster_status"] == 1
    assert world.harness.consistent(2), "what runs runs on"


async def test_a_refused_cluster_has_series_until_it_is_gone() -> None:
    world = World()
    await world.run(60)
    world.spoil(**BAD["no hosts"])
    world.restart()
    for _ in range(2):
        await refuse(world)
        # The second one knows only the first one's status, and writes nothing.
        world.restart()
    await refuse(world)
    series = generate_latest(world.registry).decode()
    assert 'luban_cluster_condition{cluster="luban",namespace="default",status="Unknown",type="Ready"} 1.0' in series
    world.manager.forget(world.body()["metadata"]["uid"])
    assert 'cluster="luban"' not in generate_latest(world.registry).decode()


async def test_a_refused_spec_that_is_mended_is_taken() -> None:
    world = World()
    await world.run(60)
    good = world.body()["spec"]["template"]
    world.spoil(**BAD["no template"])
    world.restart()
    await refuse(world)
    world.spoil(template=good)
    await world.run(30)
    assert [world.condition(kind)["status"] for kind in ("SpecValid", "Ready", "Reconciled")] == ["True"] * 3
    assert world.body()["status"]["phase"] == "Ready"


async def test_a_refusal_that_cannot_be_told_is_told_later() -> None:
    world = World()
    world.spoil(**BAD["no hosts"])
    world.api.fail_next("patch_cluster_status", TemporaryError("Timeout", "no answer"))
    await refuse(world)
    assert "conditions" not in world.body().get("status", {})
    await refuse(world)
    assert world.condition("SpecValid")["status"] == "False"
