"""Several balancers in a simulated data centre: who serves whom while all of it comes and goes."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from luban.core.model import Plan, RemoveBalancer
from tests.fakes.simulator import BALANCER, Operator, Proxy, World, make_spec

SECOND, THIRD = "luban-balancer-1", "luban-balancer-2"
SEEDS = st.integers(0, 2**32)
HOSTS = tuple({"name": name, "vms": {"min": 0, "max": 10}} for name in ("host-b", "host-c", "host-d"))
DRAIN = {"drain": {"timeout": "30s"}}


def tier_spec(vms: int = 4, *, window: str = "60s", **balancer: Any) -> Any:
    """VMs in a fixed number behind balancers."""
    scaling = {
        "policy": "Manual",
        "minVMs": 1,
        "maxVMs": 20,
        "behavior": {"scaleDown": {"stabilizationWindow": window}},
    }
    return make_spec(HOSTS, scaling=scaling, replicas=vms, balancer={**DRAIN, **balancer})


def cross(p: int = 2, d_max: int = 50, least: int = 1, most: int = 3) -> dict[str, Any]:
    """spec.balancer with cross scheduling."""
    return {"replicas": {"min": least, "max": most}, "attachment": {"mode": "Cross", "p": p, "dMax": d_max}}


def slices(d_max: int, least: int = 1, most: int = 3) -> dict[str, Any]:
    """spec.balancer with one balancer for each VM."""
    return {"replicas": {"min": least, "max": most}, "attachment": {"mode": "Slice", "dMax": d_max}}


class Stage:
    """A data centre, and its operator."""

    def __init__(self, spec: Any) -> None:
        self.world = World(spec, load=4)
        self.operator = Operator(self.world)

    def run(self, seconds: float) -> Plan:
        """Go on for so long."""
        return self.operator.run(seconds)

    def enabled(self) -> dict[str, int]:
        """By running balancer: VMs that it sends requests to."""
        return {name: len(it.enabled()) for name, it in self.world.proxies.items() if it.applied is not None}

    def balancers_of(self) -> dict[str, int]:
        """By VM that answers: balancers that send it requests."""
        found = [it.enabled() for it in self.world.proxies.values()]
        vms = self.world.vms.values()
        return {vm.name: sum(vm.name in it for it in found) for vm in vms if self.world.answers(vm)}

    def kill(self, name: str) -> None:
        """The balancer's machine is gone."""
        proxy = self.world.proxies[name]
        proxy.reachable, proxy.applied = False, None

    def returns(self, name: str) -> None:
        """Its Pod is started anew."""
        self.world.proxies[name].starts_at = self.world.now + 1.0


class TestGrowth:
    """More balancers for want of them or of room."""

    def test_as_many_as_each_vm_needs(self) -> None:
        stage = Stage(tier_spec(**cross()))
        made = stage.run(120)
        assert made.tier is not None
        assert (made.tier.size, made.tier.reason) == (2, "BalancersPerVM")
        assert stage.enabled() == {BALANCER: 4, SECOND: 4}

    def test_room(self) -> None:
        stage = Stage(tier_spec(**slices(d_max=3)))
        made = stage.run(120)
        assert made.tier is not None
        assert (made.tier.size, made.tier.reason) == (2, "AttachmentRoom")
        assert stage.enabled() == {BALANCER: 2, SECOND: 2}
        assert set(stage.balancers_of().values()) == {1}

    def test_no_more_than_the_maximum(self) -> None:
        stage = Stage(tier_spec(vms=9, **slices(d_max=2, most=3)))
        made = stage.run(200)
        assert made.tier is not None
        assert (made.tier.size, made.tier.reason) == (3, "TierAtMaximum")
        assert stage.enabled() == {BALANCER: 2, SECOND: 2, THIRD: 2}

    def test_meanwhile_the_first_one_serves_and_nothing_is_called_broken(self) -> None:
        stage = Stage(tier_spec(**cross()))
        stage.world.pod_seconds = 100.0
        made = stage.run(80)
        assert stage.enabled()[BALANCER] == 4
        ready = next(it for it in made.conditions if it.type == "BalancersReady")
        assert (ready.status, ready.reason) == (None, "BalancersStarting")
        assert SECOND in ready.message

    def test_nothing_leaves_the_first_one_for_others_that_nobody_has_heard_of(self) -> None:
        """It says nothing just then, and serves: its VMs stay until one of the others does."""
        stage = Stage(tier_spec(**DRAIN))
        stage.run(60)
        first = stage.world.proxies[BALANCER]
        first.blind = True
        stage.run(15)
        stage.world.pod_seconds = 30.0
        stage.world.change(balancer={**DRAIN, **cross(least=3)})
        stage.run(20)
        assert first.published is not None
        assert [it.state for it in first.published.members] == ["Enabled"] * 4
        first.blind = False
        stage.run(60)
        assert set(stage.balancers_of().values()) == {2}


class TestShrinking:
    """Fewer, one after the other, and nobody notices."""

    def test_after_the_window(self) -> None:
        stage = Stage(tier_spec(**slices(d_max=2)))
        stage.run(120)
        stage.world.change(replicas=2)
        made = stage.run(50)
        assert made.tier is not None
        assert (len(stage.world.vms), made.tier.size, made.tier.reason) == (2, 2, "Shrinking")
        made = stage.run(60)
        assert made.tier is not None
        assert (made.tier.size, made.tier.replicas) == (1, 1)
        assert stage.world.proxies.keys() == {BALANCER}, "its ConfigMap is removed"
        assert stage.enabled() == {BALANCER: 2}

    def test_its_pod_runs_until_the_others_serve_its_vms(self) -> None:
        stage = Stage(tier_spec(window="0s", **slices(d_max=3)))
        stage.run(120)
        stage.world.apply_seconds = 20.0
        stage.world.change(balancer={**DRAIN, **slices(d_max=50)})
        made = stage.run(10)
        assert made.tier is not None
        assert (made.tier.size, made.tier.replicas, made.tier.leaving) == (1, 2, {SECOND})
        assert stage.enabled()[SECOND] == 2, "it keeps what it has"
        made = stage.run(60)
        assert made.tier is not None
        assert made.tier.replicas == 1

    def test_one_that_leaves_is_not_called_broken(self) -> None:
        stage = Stage(tier_spec(window="0s", **slices(d_max=3)))
        stage.run(120)
        stage.world.change(balancer={**DRAIN, **slices(d_max=50)})
        stage.operator.run(60, until=lambda made: bool(made.tier and made.tier.gone))
        assert stage.operator.last is not None
        ready = next(it for it in stage.operator.last.conditions if it.type == "BalancersReady")
        assert ready.status is True

    def test_back_to_a_single_one(self) -> None:
        stage = Stage(tier_spec(**cross()))
        stage.run(120)
        stage.world.change(balancer=DRAIN)
        made = stage.run(120)
        assert made.tier is None
        assert stage.world.proxies.keys() == {BALANCER}
        assert stage.enabled() == {BALANCER: 4}


class TestLoss:
    """A balancer is gone."""

    def test_its_vms_get_another_one(self) -> None:
        stage = Stage(tier_spec(**slices(d_max=50, least=2)))
        stage.run(120)
        stage.kill(SECOND)
        stage.run(30)
        assert stage.enabled()[BALANCER] == 4

    def test_not_at_once(self) -> None:
        stage = Stage(tier_spec(**slices(d_max=50, least=2)))
        stage.run(120)
        stage.world.proxies[SECOND].reachable = False
        stage.run(6)
        assert stage.enabled() == {BALANCER: 2, SECOND: 2}

    def test_another_one_stands_in_and_leaves_when_it_is_back(self) -> None:
        stage = Stage(tier_spec(**cross()))
        stage.run(120)
        stage.kill(BALANCER)
        made = stage.run(60)
        assert made.tier is not None
        assert (made.tier.size, made.tier.reason) == (3, "BalancerLost")
        assert set(stage.balancers_of().values()) == {2}
        stage.returns(BALANCER)
        stage.run(200)
        assert stage.world.proxies.keys() == {BALANCER, SECOND}
        assert stage.enabled() == {BALANCER: 4, SECOND: 4}

    def test_it_delays_the_drain_of_its_own_vms_alone(self) -> None:
        stage = Stage(tier_spec(**slices(d_max=50, least=2)))
        stage.world.load = 0
        stage.run(120)
        mine = {name: sorted(it.enabled()) for name, it in stage.world.proxies.items()}
        stage.world.proxies[SECOND].reachable = False
        stage.world.user_deletes(mine[BALANCER][0])
        stage.world.user_deletes(mine[SECOND][0])
        stage.run(20)
        assert mine[BALANCER][0] not in stage.world.vms
        assert mine[SECOND][0] in stage.world.vms
        stage.run(200)
        assert mine[SECOND][0] not in stage.world.vms, "nor that for ever"

    def test_the_cluster_shrinks_without_it(self) -> None:
        stage = Stage(tier_spec(**cross(least=2)))
        stage.run(120)
        stage.kill(SECOND)
        stage.run(60)
        stage.world.change(replicas=2)
        stage.run(300)
        assert len(stage.world.vms) == 2

    def test_a_successor_of_the_operator_does_not_forget_it(self) -> None:
        """Reports are missing in the first look of a new process: nothing moves for that."""
        stage = Stage(tier_spec(**slices(d_max=50, least=2)))
        stage.run(120)
        before = {name: it.published for name, it in stage.world.proxies.items()}
        stage.operator.restart()
        for proxy in stage.world.proxies.values():
            proxy.reachable = False
        stage.run(3)
        assert {name: it.published for name, it in stage.world.proxies.items()} == before


def test_another_host_than_the_vms_first() -> None:
    stage = Stage(tier_spec(vms=2, **slices(d_max=50, least=2, most=2)))
    stage.world.proxies = {BALANCER: Proxy(node="host-b"), SECOND: Proxy(node="host-c")}
    stage.run(120)
    places = {vm.name: vm.host for vm in stage.world.vms.values()}
    assert {places[name] for name in stage.world.proxies[BALANCER].enabled()} == {"host-c"}
    assert {places[name] for name in stage.world.proxies[SECOND].enabled()} == {"host-b"}


def test_deletion_leaves_nothing() -> None:
    stage = Stage(tier_spec(**cross()))
    stage.run(120)
    stage.world.deleting = True
    made = stage.run(200)
    assert made.finished
    assert not stage.world.vms
    assert all(it.published is None for it in stage.world.proxies.values())


class Chaos(Stage):
    """Whatever can happen, and what must hold all the same."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        p, most = dice.choice((1, 2, 2, 3)), dice.choice((3, 4, 5))
        self.d_max = dice.choice((20, 12, 50)) if p < 3 else 20
        shape = cross(p, self.d_max, most=most) if p > 1 else slices(dice.choice((5, 7, 20)), most=most)
        self.d_max = shape["attachment"]["dMax"]
        super().__init__(tier_spec(dice.randint(1, 8), window=dice.choice(("0s", "60s")), **shape))
        self.shape, self.p = shape, p
        self.world.before = self.referee
        self.silenced = False

    def referee(self, world: World, action: Any) -> None:
        """Nothing is stopped that gets requests, nor a ConfigMap removed that somebody goes by."""
        if isinstance(action, RemoveBalancer) and not world.deleting:
            assert world.proxies[action.balancer].applied is None, "its Pod still runs"
        if type(action).__name__ == "ShutdownDomain" and not self.silenced:
            assert not world.busy(action.vm), f"{action.vm.name} is stopped before it is drained"

    def event(self) -> None:
        """Something happens."""
        world, names = self.world, sorted(self.world.proxies)
        match self.dice.randint(0, 8):
            case 0:
                world.change(replicas=self.dice.randint(1, 12))
            case 1 if world.vms:
                world.crash(self.dice.choice(sorted(world.vms)))
            case 2 if world.vms:
                world.user_deletes(self.dice.choice(sorted(world.vms)))
            case 3 if len(self.running()) > 1:
                self.kill(self.dice.choice(self.running()))
            case 4:
                self.returns(self.dice.choice(names))
            case 5:
                self.operator.restart()
            case 6 if len(self.running()) > 1:
                world.proxies[self.dice.choice(self.running())].reachable, self.silenced = False, True
            case 7:
                world.new_template()
            case _:
                self.run(self.dice.choice((5.0, 20.0, 60.0)))

    def running(self) -> list[str]:
        return sorted(name for name, it in self.world.proxies.items() if it.applied is not None and it.reachable)

    def check(self) -> None:
        """What holds at any time."""
        assert max(self.enabled().values(), default=0) <= self.d_max

    def recover(self) -> None:
        """Nothing is wrong any more."""
        for proxy in self.world.proxies.values():
            if not proxy.reachable:
                proxy.starts_at = self.world.now + 1.0


@settings(max_examples=25)
@given(SEEDS)
def test_whatever_happens_all_serve_in_the_end(seed: int) -> None:
    stage = Chaos(random.Random(seed))
    for _ in range(stage.dice.randint(1, 15)):
        stage.event()
        for _ in range(stage.dice.randint(1, 6)):
            made = stage.operator.tick(dice=stage.dice, killed_after=stage.dice.choice((None, None, None, 0, 1, 3)))
            stage.world.advance(min(made.requeue_after, 2.0))
            stage.check()
    stage.recover()
    made = stage.run(1200)
    assert made.tier is not None
    served, counts = stage.balancers_of(), stage.enabled()
    assert not made.actions, made.actions
    assert len(counts) == made.tier.size == made.tier.replicas == len(stage.world.proxies)
    wanted = min(stage.p, len(counts))
    assert set(served.values()) <= {wanted} or made.tier.reason == "TierAtMaximum"
    assert all(served.values())
    assert max(counts.values()) <= stage.d_max
    assert max(counts.values()) - min(counts.values()) <= 1
    assert not any(made.tier.violations.values())


def test_one_balancer_is_as_ever() -> None:
    stage = Stage(tier_spec())
    made = stage.run(120)
    assert made.tier is None
    assert made.memory.tier is None
    assert stage.enabled() == {BALANCER: 4}
