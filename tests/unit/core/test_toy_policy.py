"""CONTRIBUTING's recipe for a policy, followed: settings as a model, one file, one line; nothing else knows of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from luban.api.cluster import LubanClusterSpec, PolicyName, Scaling
from luban.api.common import Model
from luban.core.policies import POLICIES
from luban.core.policies.base import Policy, PolicyInput, Recommendation
from luban.core.policies.moves import grow, shrink
from tests.fakes.simulator import Operator, World, make_spec


# What goes to api/cluster.py: the settings, a word in PolicyName, and a field.
class Toy(Model):
    """Settings of the toy policy."""

    each: int = 10
    """Sessions that one VM takes."""


class ToyScaling(Scaling):
    """scaling with the toy's settings."""

    policy: Any = "Toy"
    toy: Toy = Toy()


# What goes to a file of its own in core/policies.
def recommend(given: PolicyInput) -> Recommendation:
    """As many VMs as the sessions need."""
    room, settings = given.limits(), given.spec.scaling
    assert isinstance(settings, ToyScaling)
    needed = max(1, -(-sum(given.sessions.values()) // settings.toy.each))
    words = f"{needed} are needed"
    if needed > room.total:
        return replace(grow(words, "ToyWantsMore", room, by=needed - room.total), wanted=needed)
    if needed < room.total:
        return replace(shrink(words, "ToyWantsFewer", room, by=room.total - needed), wanted=needed)
    return Recommendation("Hold", "ToyIsHappy", words)


TOY = Policy(recommend, counts=True)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setitem(POLICIES, "Toy", TOY)  # type: ignore[misc]


def toy_spec() -> LubanClusterSpec:
    scaling = ToyScaling.model_validate(
        {"minVMs": 1, "maxVMs": 5, "behavior": {"scaleUp": {"step": 2}, "scaleDown": {"stabilizationWindow": "2m"}}}
    )
    hosts = [{"name": name, "vms": {"min": 0, "max": 5}} for name in ("host-b", "host-c")]
    return make_spec(hosts).model_copy(update={"scaling": scaling})


def test_it_grows_shrinks_and_comes_to_rest() -> None:
    """Steps, windows, limits, drain: all that is the same for every policy."""
    world = World(toy_spec())
    operator = Operator(world)
    operator.run(200)
    assert len(world.vms) == 1
    world.load = 45
    operator.run(200)
    assert len(world.vms) == 5
    assert operator.last is not None
    assert (operator.last.decision.reason, operator.last.actions) == ("ToyIsHappy", ())
    world.load = 15
    operator.run(100)
    assert len(world.vms) == 5
    assert operator.last.decision.reason == "Stabilizing"
    operator.run(400)
    assert len(world.vms) == 2
    world.load = 900
    operator.run(300)
    assert (len(world.vms), operator.last.decision.reason) == (5, "MaxVMs")


def test_every_word_has_its_policy() -> None:
    assert POLICIES.keys() == {*get_args(PolicyName), "Toy"}
