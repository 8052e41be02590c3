"""No own action takes away the last VMs that answer. Each story took a service down once."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from luban.core.memory import ClusterMemory
from luban.core.model import CreateVM, EnsureDomain, Failure, Member, Observation, Published
from luban.core.plan import plan
from luban.core.steps import GONE_SECONDS
from luban.core.times import Now
from tests.fakes.simulator import (
    BALANCER,
    CLUSTER,
    EPOCH,
    Operator,
    World,
    balancer_with,
    hosts_with,
    make_spec,
    make_vm,
    published_with,
)


def loses_power(world: World, host: str) -> None:
    """libvirt is silent, and so are its VMs: only the balancers can tell that they are gone."""
    machine = world.machines[host]
    machine.reachable = False
    for domain in machine.domains.values():
        domain.state = "Off"


def fewest(world: World, operator: Operator, seconds: float) -> int:
    """How few VMs answered at any moment of the time that passes."""
    end, low = world.now + seconds, len(world.shares())
    while world.now < end:
        world.advance(operator.tick().requeue_after)
        low = min(low, len(world.shares()))
    return low


class TestSickMembersAreNoOthersThatServe:
    """A host is gone, the balancers call its VMs sick, and the user changes something: what answers stays."""

    HOSTS = ({"name": "host-b", "vms": {"min": 1, "max": 2}}, {"name": "host-c", "vms": {"min": 0, "max": 2}})

    def told(self, **spec: Any) -> tuple[World, Operator]:
        world = World(make_spec(self.HOSTS, **spec), load=200)
        operator = Operator(world)
        operator.run(300)
        loses_power(world, "host-b")
        operator.run(30)
        assert len(world.shares()) == 1
        return world, operator

    def test_fewer_replicas(self) -> None:
        manual = {"minVMs": 1, "maxVMs": 4, "policy": "Manual"}
        world, operator = self.told(replicas=3, scaling=manual)
        world.change(replicas=2)
        assert fewest(world, operator, 600) >= 1

    def test_a_lower_maximum(self) -> None:
        world, operator = self.told(scaling={"minVMs": 1, "maxVMs": 3})
        world.change_scaling(maxVMs=2)
        assert fewest(world, operator, 600) >= 1

    def test_a_new_template(self) -> None:
        world, operator = self.told(scaling={"minVMs": 2, "maxVMs": 3})
        world.new_template()
        assert fewest(world, operator, 600) >= 1

    def test_a_cordoned_host(self) -> None:
        world, operator = self.told(scaling={"minVMs": 1, "maxVMs": 3})
        world.change_host("host-c", cordoned=True)
        assert fewest(world, operator, 600) >= 1

    def test_a_template_that_mends_what_makes_all_sick_does_roll_out(self) -> None:
        """Our own probes say the same as the balancers: nobody loses anything."""
        world = World(make_spec(scaling={"minVMs": 2, "maxVMs": 2}), load=100)
        operator = Operator(world)
        operator.run(120)
        for domain in world.domains().values():
            domain.hung = True
        operator.run(30)
        world.new_template()
        operator.run(600)
        assert len(world.shares()) == 2


class TestAScaleDownThatCannotBeCarriedOut:
    """It is asked again, not done later under another load."""

    def low(self, load: int) -> Observation:
        """Three VMs serve with this many sessions each, and a fourth boots."""
        vms = (*(make_vm(f"vm-{index}", host=("host-b", "host-c")[index % 2]) for index in range(3)),)
        told: dict[str, Any] = {vm.name: "Enabled" for vm in vms}
        report = balancer_with(told)
        # One of them is sick: nobody may go before the others answer.
        sick = replace(report, members=tuple(replace(it, healthy=it.name != "vm-0") for it in report.members))
        return Observation(
            vms=vms,
            hosts=hosts_with(vms),
            balancers=(sick,),
            published=published_with(told),
            sessions=dict.fromkeys(told, load),
        )

    def test_it_changes_no_wanted_number(self) -> None:
        spec = make_spec(scaling={"behavior": {"scaleDown": {"stabilizationWindow": "0s"}}})
        made = plan(spec, CLUSTER, self.low(3), ClusterMemory(desired=3), Now(EPOCH, EPOCH))
        assert (made.decision.verdict, made.desired) == ("Hold", 3)

    def test_one_whose_deletion_failed_is_asked_again(self) -> None:
        """The API did not take it; meanwhile the load is high."""
        world = World(make_spec(scaling={"behavior": {"scaleDown": {"stabilizationWindow": "0s"}}}), load=200)
        operator = Operator(world)
        operator.run(200)
        before = len(world.shares())
        assert before >= 3
        world.load = 6
        while operator.look().decision.verdict != "ScaleDown":
            operator.tick()
            world.advance(1)
        # Everything of this plan is lost but what the operator remembers.
        operator.memory = operator.look().memory
        world.load = 50 * before
        assert fewest(world, operator, 120) == before

    def test_nor_by_a_successor_that_reads_it_in_the_status(self) -> None:
        world = World(make_spec(scaling={"behavior": {"scaleDown": {"stabilizationWindow": "0s"}}}), load=200)
        operator = Operator(world)
        operator.run(200)
        before = len(world.shares())
        world.load = 6
        while operator.look().decision.verdict != "ScaleDown":
            operator.tick()
            world.advance(1)
        operator.tick(killed_after=0)
        world.load = 50 * before
        assert fewest(world, operator, 120) == before


class TestShortAlready:
    def test_a_rollout_waits_for_what_is_stuck_on_its_way_out(self) -> None:
        hosts = [{"name": "host-b", "vms": {"min": 0, "max": 3}}, {"name": "host-c", "vms": {"min": 0, "max": 3}}]
        world = World(make_spec(hosts, scaling={"minVMs": 2, "maxVMs": 3}), load=150)
        operator = Operator(world)
        operator.run(200)
        assert len(world.shares()) == 3
        leaving = max((vm for vm in world.vms.values() if vm.host == "host-b"), key=lambda vm: vm.created)
        world.user_deletes(leaving.name)
        operator.run(3)
        world.machines["host-b"].reachable = False
        world.load = 100
        operator.run(20)
        world.new_template()
        assert fewest(world, operator, 300) >= 2


class TestABalancerThatSaysNothing:
    """Its httpd goes on to send requests, and cannot be told of a successor."""

    @pytest.mark.parametrize("change", ["template", "cordon", "maximum"])
    def test_nobody_is_asked_to_leave(self, change: str) -> None:
        hosts = [{"name": name, "vms": {"min": 0, "max": 3}} for name in ("host-b", "host-c")]
        world = World(make_spec(hosts, scaling={"minVMs": 1, "maxVMs": 2}), load=160)
        operator = Operator(world)
        operator.run(200)
        before = len(world.shares())
        world.proxies[BALANCER].reachable = False
        operator.run(20)
        match change:
            case "template":
                world.new_template()
            case "cordon":
                world.change_host("host-c", cordoned=True)
            case "maximum":
                world.change_scaling(maxVMs=1)
        assert fewest(world, operator, 600) == before
        world.proxies[BALANCER].reachable = True
        operator.run(900)
        assert len(world.shares()) == (1 if change == "maximum" else 2)


class TestAllAreSick:
    def test_nobody_measures_the_load_so_nothing_shrinks(self) -> None:
        world = World(make_spec(scaling={"behavior": {"scaleDown": {"stabilizationWindow": "0s"}}}), load=290)
        operator = Operator(world)
        operator.run(400)
        before = len(world.vms)
        for domain in world.domains().values():
            domain.hung = True
        world.probes_lost = True
        operator.run(900)
        assert len(world.vms) == before
        assert operator.last is not None
        assert operator.last.decision.reason == "NothingAnswers"


class TestAMaximumThatWasLoweredMeanwhile:
    """Placed, not started yet: it is not started any more."""

    def provisioning(self, **host: Any) -> tuple[type, ...]:
        vms = (make_vm("vm-1"), make_vm("vm-2", "Provisioning", "host-b", created=EPOCH + 1))
        told: dict[str, Any] = {"vm-1": "Enabled"}
        observation = Observation(
            vms=vms,
            hosts=hosts_with(vms, {"vm-2": None}),
            balancers=(balancer_with(told),),
            published=published_with(told),
            sessions={"vm-1": 80},
        )
        hosts = [{"name": "host-b", **host}, {"name": "host-c", "cordoned": True, "vms": {"min": 0}}]
        spec = make_spec(hosts, scaling={"minVMs": 1, "maxVMs": 4})
        made = plan(spec, CLUSTER, observation, ClusterMemory(desired=2), Now(EPOCH, EPOCH))
        return tuple(type(action) for action in made.actions)

    def test_room(self) -> None:
        assert EnsureDomain in self.provisioning(vms={"min": 0, "max": 2})

    def test_no_room(self) -> None:
        assert EnsureDomain not in self.provisioning(vms={"min": 0, "max": 1})

    def test_closed(self) -> None:
        assert EnsureDomain not in self.provisioning(vms={"min": 0, "max": 2}, cordoned=True)


class TestADeadHost:
    """What the user wants off it is not waited for."""

    def told(self) -> tuple[World, Operator]:
        hosts = [{"name": name, "vms": {"min": 0, "max": 4}} for name in ("host-b", "host-c")]
        spec = make_spec(hosts, replicas=4, scaling={"policy": "Manual", "minVMs": 2, "maxVMs": 4})
        world = World(spec, load=100)
        operator = Operator(world)
        operator.run(200)
        loses_power(world, "host-c")
        operator.run(60)
        return world, operator

    def test_cordoned(self) -> None:
        world, operator = self.told()
        world.change_host("host-c", cordoned=True)
        operator.run(300)
        assert len(world.shares()) == 4

    def test_removed(self) -> None:
        world, operator = self.told()
        world.change(hosts=[it for it in world.spec.wire()["hosts"] if it["name"] == "host-b"])
        operator.run(300)
        assert len(world.shares()) == 4

    def test_its_vms_deleted(self) -> None:
        world, operator = self.told()
        for vm in list(world.vms.values()):
            if vm.host == "host-c":
                world.user_deletes(vm.name)
        operator.run(600)
        assert len(world.shares()) == 4

    def test_left_alone_nothing_happens(self) -> None:
        world, operator = self.told()
        operator.run(3600)
        assert len(world.shares()) == 2


class TestGrowingPatience:
    """What fails again and again is tried ever more rarely, by one VM."""

    def test_creations(self) -> None:
        spec = make_spec(template={"failedRetention": "0s"}, scaling={"minVMs": 4})
        world = World(spec, boot_seconds=float("inf"))
        spec_with_short_start = {**world.spec.template.wire()}
        spec_with_short_start["spec"]["startupTimeout"] = "5s"
        world.change(template=spec_with_short_start)
        operator, made = Operator(world), []
        for _ in range(3600):
            made += [world.now for action in operator.tick().actions if isinstance(action, CreateVM)]
            world.advance(1)
        assert len(made) < 30, "four at first, then one at a time"
        gaps = [later - earlier for earlier, later in itertools.pairwise(made[7:])]
        assert gaps == sorted(gaps)
        assert gaps[-1] >= 300


class TestOrphansOfAClusterOfTheSameName:
    """They serve until the new cluster's own VMs do, then they are drained."""

    def test_they_stay_members_meanwhile(self) -> None:
        world = World(make_spec(), load=100)
        old = Operator(world)
        old.run(120)
        orphans = {vm.name: vm for vm in world.vms.values()}
        world.vms.clear()
        operator, seen = Operator(world), []
        for _ in range(200):
            world.advance(operator.tick().requeue_after)
            published = world.proxies[BALANCER].published
            assert published is not None
            seen.append({it.name: it.state for it in published.members})
        own_first = next(index for index, members in enumerate(seen) if any(name not in orphans for name in members))
        assert all(members[name] == "Enabled" for members in seen[:own_first] for name in orphans)
        assert "Draining" in {members.get(name) for members in seen for name in orphans}
        assert not orphans.keys() & seen[-1].keys()
        assert len(seen[-1]) == 2

    def test_their_addresses_are_not_given_away(self) -> None:
        hosts = [{"name": "host-b", "forwardRange": "127.0.17.0/24", "vms": {"min": 0}}]
        spec = make_spec(hosts, template={"network": {"type": "User"}}, scaling={"minVMs": 1})
        told = Published("", "v1", (Member("luban-old", "127.0.17.2", 8080, "Enabled"),))
        observation = Observation(
            hosts=hosts_with([], names=["host-b"]), balancers=(balancer_with({}),), published={BALANCER: told}
        )
        made = plan(spec, CLUSTER, observation, ClusterMemory(), Now(EPOCH, EPOCH))
        assert [it.address for it in made.actions if isinstance(it, CreateVM)] == ["127.0.17.3"]


def test_an_address_that_somebody_else_holds_is_not_tried_again() -> None:
    hosts = [{"name": "host-b", "forwardRange": "127.0.17.0/24", "vms": {"min": 0}}]
    spec = make_spec(hosts, template={"network": {"type": "User"}}, scaling={"minVMs": 1})
    vm = make_vm("vm-1", "Provisioning", planned_address="127.0.17.2")
    taken = Failure("AddressTaken", "127.0.17.2 is held by somebody else", permanent=True)
    seen = Observation(
        vms=(vm,), hosts=hosts_with([vm], {"vm-1": None}, names=["host-b"]), provision_failures={"vm-1": taken}
    )
    memory = plan(spec, CLUSTER, seen, ClusterMemory(), Now(EPOCH, EPOCH)).memory
    made = plan(spec, CLUSTER, Observation(hosts=hosts_with([], names=["host-b"])), memory, Now(EPOCH + 1, EPOCH + 1))
    assert [it.address for it in made.actions if isinstance(it, CreateVM)] == ["127.0.17.3"]


class TestAHostThatNeverComesBack:
    """The user takes it out of the spec: what is left on it holds no deletion up for ever."""

    def test_its_vms_are_let_go(self) -> None:
        hosts = [{"name": name, "vms": {"min": 0, "max": 4}} for name in ("host-b", "host-c")]
        world = World(make_spec(hosts, scaling={"minVMs": 2, "maxVMs": 4}), load=40)
        operator = Operator(world)
        operator.run(200)
        loses_power(world, "host-c")
        world.change(hosts=[it for it in world.spec.wire()["hosts"] if it["name"] == "host-b"])
        operator.run(GONE_SECONDS - 60)
        assert {vm.host for vm in world.vms.values()} == {"host-b", "host-c"}
        operator.run(180)
        assert {vm.host for vm in world.vms.values()} == {"host-b"}
        assert len(world.shares()) == 2

    def test_one_that_is_only_silent_keeps_them(self) -> None:
        world = World(make_spec(), load=40)
        operator = Operator(world)
        operator.run(200)
        loses_power(world, "host-c")
        victim = next(vm.name for vm in world.vms.values() if vm.host == "host-c")
        world.user_deletes(victim)
        operator.run(3600)
        assert victim in world.vms
