"""The warm pool: who fills it, who comes out of it, who goes back, and what becomes of it when things go wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from luban.core.left_out import Refusal
from luban.core.lifecycle import RESUME_SECONDS
from luban.core.model import (
    Action,
    AssignVM,
    ConditionState,
    CreateVM,
    DeleteVM,
    Failure,
    Plan,
    ResumeDomain,
    SuspendDomain,
    VMRecord,
)
from luban.core.pooled import BALLOON_SECONDS
from tests.fakes.simulator import BALANCER, Operator, World, make_spec

HOSTS = ({"name": "host-b", "vms": {"min": 1, "max": 3}}, {"name": "host-c", "vms": {"min": 1, "max": 3}})


@dataclass
class Pond:
    """A cluster with a pool, its operator, and what was done since."""

    world: World
    operator: Operator
    done: list[Action] = field(default_factory=list)

    @classmethod
    def filled(cls, *, serving: int = 2, size: int = 1, **spec: Any) -> Pond:
        """So many serve, and so many are warm."""
        pool = {"size": size, **spec.pop("pool", {})}
        scaling = {"policy": "Manual", "maxVMs": 4, **spec.pop("scaling", {})}
        wanted = {"hosts": HOSTS, "replicas": serving, "pool": pool, "scaling": scaling, **spec}
        world = World(make_spec(**wanted), load=40)
        pond = cls(world, Operator(world))
        pond.go(120)
        assert len(pond.serving) == serving, world.log
        assert len(pond.warm) == size, world.log
        pond.done.clear()
        return pond

    def go(self, seconds: float) -> Plan:
        """So much time passes."""
        end = self.world.now + seconds
        while True:
            made = self.operator.tick()
            self.done.extend(made.actions)
            if self.world.now >= end:
                return made
            self.world.advance(min(made.requeue_after, max(0.5, end - self.world.now)))

    def wants(self, replicas: int) -> None:
        """`kubectl scale`."""
        self.world.change(replicas=replicas)

    @property
    def serving(self) -> list[VMRecord]:
        """VMs that answer users."""
        return [vm for vm in self.world.vms.values() if vm.name in self.world.shares()]

    @property
    def warm(self) -> list[VMRecord]:
        """VMs of the pool whose domains are suspended."""
        domains = ((vm, self.world.domain(vm)) for vm in self.world.vms.values() if vm.role == "Warm")
        return [vm for vm, domain in domains if domain is not None and domain.state == "Paused"]

    def actions(self, kind: type[Action]) -> list[Any]:
        """What was done, of one kind."""
        return [action for action in self.done if isinstance(action, kind)]

    def reasons(self, kind: type[Action]) -> list[str]:
        """Why it was done."""
        return [action.reason for action in self.actions(kind)]

    def seconds_to(self, serving: int) -> float:
        """Time until so many answer users."""
        begun = self.world.now
        while len(self.serving) < serving:
            made = self.operator.tick()
            self.done.extend(made.actions)
            self.world.advance(made.requeue_after)
            assert self.world.now - begun < 600, self.world.log
        return self.world.now - begun


def condition(made: Plan) -> ConditionState:
    """What the plan says of the pool."""
    return next(it for it in made.conditions if it.type == "PoolFilled")


class TestFilling:
    """In the background, where the next VMs would go."""

    def test_a_warm_one_was_ready_is_suspended_and_known_to_the_balancer(self) -> None:
        pond = Pond.filled()
        (vm,) = pond.warm
        proxy = pond.world.proxies[BALANCER]
        assert proxy.applied is not None
        assert {it.name: it.state for it in proxy.applied.members}[vm.name] == "Disabled"
        assert "Ready" not in [line.split()[-2] for line in pond.world.log if vm.name in line and " is " in line]
        assert vm.phase == "Warm"

    def test_it_waits_until_all_others_serve(self) -> None:
        world = World(make_spec(HOSTS, pool={"size": 2}))
        operator = Operator(world)
        made = operator.run(5)
        assert condition(made).reason == "Filling"
        assert {vm.role for vm in world.vms.values()} == {"Serving"}
        operator.run(90)
        assert Counter(vm.role for vm in world.vms.values()) == {"Serving": 2, "Warm": 2}

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_never_all_on_one_host(self, size: int) -> None:
        assert len({vm.host for vm in Pond.filled(size=size).warm}) == 2

    def test_where_the_next_vm_would_go(self) -> None:
        pond = Pond.filled(serving=3)
        full = Counter(vm.host for vm in pond.serving)
        assert pond.warm[0].host == min(full, key=lambda host: full[host])

    def test_a_resident_one_takes_a_place_on_its_host(self) -> None:
        hosts = ({"name": "host-b", "vms": {"max": 2}}, {"name": "host-c", "vms": {"max": 1}})
        pond = Pond.filled(size=1, hosts=hosts)
        pond.world.change(pool={"size": 2})
        made = pond.go(60)
        assert len(pond.world.domains()) == 3
        assert condition(made).reason == "NoRoom"
        assert "it is full (2 of 2 VMs)" in condition(made).message

    def test_it_is_no_part_of_max_vms(self) -> None:
        pond = Pond.filled(serving=4, size=2, scaling={"maxVMs": 4})
        assert len(pond.world.domains()) == 6

    def test_after_failures_one_by_one_beside_those_that_are_warm(self) -> None:
        pond = Pond.filled(size=3)
        lost = [vm for vm in pond.warm if vm.host == "host-c"]
        pond.world.machines["host-c"].refuses = Failure("PoolFull", "no space left", permanent=False)
        for vm in lost:
            pond.world.crash(vm.name)
        pond.go(1500)
        assert len(pond.warm) < 3
        pond.world.machines["host-c"].refuses = None
        pond.go(1200)
        assert len(pond.warm) == 3

    def test_no_pool_no_word_of_it(self) -> None:
        world = World(make_spec(HOSTS))
        made = Operator(world).run(60)
        assert "PoolFilled" not in {it.type for it in made.conditions}

    def test_a_guest_gives_memory_back_before_it_rests(self) -> None:
        pond = Pond.filled(pool={"balloon": {"min": "256Mi"}})
        (vm,) = pond.warm
        domain = pond.world.domain(vm)
        assert domain is not None
        assert domain.balloon == 256 * 2**20
        asked, slept = (
            next(line for line in pond.world.log if word in line and vm.name in line) for word in ("Balloon", "Suspend")
        )
        begun, ended = (int(line[:3]) * 60 + int(line[4:6]) for line in (asked, slept))
        assert ended - begun >= BALLOON_SECONDS

    def test_without_a_word_on_memory_it_keeps_all(self) -> None:
        pond = Pond.filled()
        assert not [line for line in pond.world.log if "Balloon" in line]


class TestTaking:
    """A scale-up takes a warm VM, and the pool is filled again afterwards."""

    def test_a_warm_one_comes_instead_of_a_new_one(self) -> None:
        pond = Pond.filled()
        (warm,) = pond.warm
        pond.wants(3)
        assert pond.seconds_to(3) < pond.world.boot_seconds / 4
        assert warm.name in {vm.name for vm in pond.serving}
        assert pond.reasons(AssignVM) == ["BelowDesired"]
        assert not pond.actions(CreateVM)

    def test_the_intent_comes_before_the_domain(self) -> None:
        pond = Pond.filled()
        pond.wants(3)
        made = pond.operator.tick()
        kinds = [type(it).__name__ for it in made.actions]
        assert kinds[:3] == ["UpdateVM", "AssignVM", "ResumeDomain"]

    def test_it_gets_its_memory_back(self) -> None:
        pond = Pond.filled(pool={"balloon": {"min": "256Mi"}})
        pond.wants(3)
        pond.seconds_to(3)
        sizes = {pond.world.domain(vm).balloon for vm in pond.serving}  # type: ignore[union-attr]
        assert sizes <= {0, 2**30}

    def test_the_pool_is_filled_again_once_it_serves(self) -> None:
        pond = Pond.filled()
        pond.wants(3)
        pond.seconds_to(3)
        assert not pond.actions(CreateVM)
        pond.go(90)
        assert [it.role for it in pond.actions(CreateVM)] == ["Warm"]
        assert len(pond.warm) == 1

    def test_two_at_once(self) -> None:
        pond = Pond.filled(size=2)
        pond.wants(4)
        assert pond.seconds_to(4) < pond.world.boot_seconds / 4

    def test_what_the_pool_lacks_is_made(self) -> None:
        pond = Pond.filled()
        pond.wants(4)
        pond.operator.tick()
        assert Counter(vm.role for vm in pond.world.vms.values()) == {"Serving": 4}

    def test_one_that_still_boots_is_taken_too(self) -> None:
        pond = Pond.filled()
        pond.world.change(pool={"size": 2})
        pond.go(10)
        pond.wants(4)
        pond.go(40)
        assert len(pond.serving) == 4
        assert [it.role for it in pond.actions(CreateVM)][:1] == ["Warm"]

    def test_never_above_max_vms(self) -> None:
        pond = Pond.filled(serving=4, scaling={"maxVMs": 4})
        pond.wants(6)
        pond.go(60)
        assert len(pond.serving) == 4

    def test_a_full_host_has_the_room_of_its_warm_one(self) -> None:
        hosts = ({"name": "host-b", "vms": {"max": 2}}, {"name": "host-c", "vms": {"max": 1}})
        pond = Pond.filled(hosts=hosts, scaling={"policy": "Sessions", "minVMs": 2, "maxVMs": 3})
        pond.world.load = 300
        assert pond.seconds_to(3) < pond.world.boot_seconds
        assert condition(pond.go(60)).reason == "NoRoom"

    def test_a_lost_vm_is_replaced_by_it(self) -> None:
        pond = Pond.filled()
        pond.world.crash(pond.serving[0].name)
        assert pond.seconds_to(2) < pond.world.boot_seconds / 4


class TestTakingInVain:
    """One whose resume fails is thrown away, and the scale-up goes on cold."""

    def test_one_that_does_not_go_on(self) -> None:
        pond = Pond.filled()
        (warm,) = pond.warm
        pond.world.domain(warm).stuck = True  # type: ignore[union-attr]
        pond.wants(3)
        assert pond.seconds_to(3) < 2 * pond.world.boot_seconds
        pond.go(120)
        assert warm.name not in pond.world.vms
        assert "ResumeFailed" in pond.reasons(DeleteVM)
        assert len(pond.warm) == 1

    def test_one_that_does_not_answer(self) -> None:
        pond = Pond.filled()
        pond.world.domain(pond.warm[0]).hung = True  # type: ignore[union-attr]
        pond.wants(3)
        assert RESUME_SECONDS < pond.seconds_to(3) < RESUME_SECONDS + 2 * pond.world.boot_seconds

    def test_its_host_dies_meanwhile(self) -> None:
        pond = Pond.filled(size=1, hosts=(*HOSTS, {"name": "host-d", "vms": {"min": 0}}))
        (warm,) = pond.warm
        pond.wants(3)
        pond.world.apply_seconds = 30.0
        pond.operator.tick()
        pond.world.machines[warm.host].reachable = False
        pond.world.domain(warm).hung = True  # type: ignore[union-attr]
        assert pond.seconds_to(3) < RESUME_SECONDS + 3 * 30
        assert all(vm.host != warm.host or vm.name != warm.name for vm in pond.serving)

    @pytest.mark.parametrize("after", range(8))
    def test_an_operator_that_dies_anywhere(self, after: int) -> None:
        pond = Pond.filled()
        pond.wants(3)
        pond.operator.tick(killed_after=after)
        pond.go(120)
        assert (len(pond.serving), len(pond.warm)) == (3, 1)
        assert len(pond.world.domains()) == 4


class TestRecycling:
    """What is one too many goes to the pool if that has a place, drained first."""

    def test_it_is_drained_and_suspended_not_deleted(self) -> None:
        pond = Pond.filled(serving=3)
        pond.world.change(pool={"size": 2}, replicas=2)
        before = set(pond.world.vms)
        pond.go(60)
        assert (len(pond.serving), len(pond.warm)) == (2, 2)
        assert set(pond.world.vms) == before
        assert not pond.actions(DeleteVM)
        assert not pond.actions(CreateVM)
        assert pond.reasons(AssignVM) == ["Recycled"]

    def test_nothing_in_flight_when_it_is_suspended(self) -> None:
        pond = Pond.filled(serving=3)
        busy: list[str] = []

        def look(world: World, action: Action) -> None:
            if isinstance(action, SuspendDomain) and world.busy(action.vm):
                busy.append(action.vm.name)

        pond.world.before = look
        pond.world.change(pool={"size": 2}, replicas=2)
        pond.go(60)
        assert pond.actions(SuspendDomain)
        assert busy == []

    def test_a_full_pool_takes_none(self) -> None:
        pond = Pond.filled(serving=3)
        pond.wants(2)
        pond.go(60)
        assert pond.reasons(DeleteVM) == ["AboveDesired"]
        assert not pond.actions(AssignVM)

    def test_one_that_still_drains_comes_back_first(self) -> None:
        pond = Pond.filled(serving=3)
        pond.world.request_seconds = 25.0
        pond.world.change(pool={"size": 2}, replicas=2)
        pond.go(5)
        (name,) = [vm.name for vm in pond.world.vms.values() if vm.phase == "Draining"]
        pond.wants(3)
        pond.go(10)
        assert pond.world.vms[name].phase == "Ready"
        assert not pond.actions(ResumeDomain)

    def test_an_outdated_one_is_not_kept(self) -> None:
        pond = Pond.filled(serving=3)
        pond.world.new_template()
        pond.world.change(pool={"size": 2}, replicas=2)
        pond.go(400)
        assert all(vm.template == pond.world.spec.template.spec for vm in pond.world.vms.values())
        assert (len(pond.serving), len(pond.warm)) == (2, 2)

    def test_not_if_all_of_the_pool_would_be_on_one_host(self) -> None:
        pond = Pond.filled(serving=3, size=2)
        pond.go(10)
        pond.world.change(replicas=2)
        pond.go(120)
        assert len({vm.host for vm in pond.warm}) == 2


class TestEmptying:
    """Who must not stay in the pool."""

    def test_a_new_template_empties_it_one_by_one_and_none_of_it_serves(self) -> None:
        pond = Pond.filled(size=2)
        old = {vm.name for vm in pond.warm}
        pond.world.new_template()
        most = 0
        for _ in range(400):
            pond.go(1)
            leaving = [vm for vm in pond.world.vms.values() if vm.deleting_since is not None and vm.name in old]
            most = max(most, len(leaving))
            assert not old & {vm.name for vm in pond.serving}
        assert most == 1
        assert (len(pond.serving), len(pond.warm)) == (2, 2)
        assert not old & set(pond.world.vms)

    def test_room_for_a_rollout(self) -> None:
        """The hosts are full with the pool: it makes room."""
        hosts = ({"name": "host-b", "vms": {"max": 2}}, {"name": "host-c", "vms": {"max": 2}})
        pond = Pond.filled(size=2, hosts=hosts)
        pond.world.new_template()
        pond.go(600)
        assert (len(pond.serving), len(pond.warm)) == (2, 2)
        assert all(vm.template == pond.world.spec.template.spec for vm in pond.world.vms.values())

    def test_a_cordoned_host(self) -> None:
        pond = Pond.filled(size=2)
        pond.world.change_host("host-b", cordoned=True)
        pond.go(300)
        assert {vm.host for vm in pond.world.vms.values()} == {"host-c"}

    def test_at_max_vms_it_gives_the_successor_that_no_host_has_room_for(self) -> None:
        hosts = ({"name": "host-b", "vms": {"min": 0, "max": 2}}, {"name": "host-c", "vms": {"max": 3}})
        pond = Pond.filled(size=2, hosts=hosts, scaling={"maxVMs": 2})
        pond.world.change_host("host-c", cordoned=True)
        pond.go(300)
        assert {vm.host for vm in pond.serving} == {"host-b"}
        assert len(pond.serving) == 2

    def test_a_host_that_may_not_be_used_any_more(self) -> None:
        pond = Pond.filled(size=2)
        pond.world.machines["host-b"].refusal = Refusal("NamespaceNotAllowed", "not for you")
        pond.go(300)
        assert {vm.host for vm in pond.warm} == {"host-c"}
        assert {vm.host for vm in pond.serving} == {"host-b", "host-c"}, "what serves goes on"

    def test_a_smaller_one(self) -> None:
        pond = Pond.filled(size=3)
        pond.world.change(pool={"size": 1})
        pond.go(60)
        assert len(pond.warm) == 1
        assert pond.reasons(DeleteVM) == ["AbovePoolSize"] * 2

    def test_none(self) -> None:
        pond = Pond.filled(size=2)
        pond.world.change(pool={"size": 0})
        pond.go(60)
        assert len(pond.world.domains()) == 2

    @pytest.mark.parametrize("state", ["Crashed", "Off"])
    def test_one_whose_domain_ends_is_replaced(self, state: Any) -> None:
        pond = Pond.filled()
        (warm,) = pond.warm
        pond.world.crash(warm.name, state)
        pond.go(90)
        assert warm.name not in pond.world.vms
        assert len(pond.warm) == 1

    def test_one_that_somebody_resumes_is_suspended_again(self) -> None:
        pond = Pond.filled()
        (warm,) = pond.warm
        pond.world.domain(warm).state = "Running"  # type: ignore[union-attr]
        pond.go(20)
        assert [vm.name for vm in pond.warm] == [warm.name]

    def test_a_silent_host_does_not_count_and_what_is_too_many_then_goes(self) -> None:
        pond = Pond.filled(size=2, hosts=(*HOSTS, {"name": "host-d", "vms": {"min": 0}}))
        host = pond.warm[0].host
        pond.world.machines[host].reachable = False
        pond.go(200)
        assert sum(vm.role == "Warm" and vm.host != host for vm in pond.world.vms.values()) == 2
        pond.world.machines[host].reachable = True
        pond.go(120)
        assert len(pond.warm) == 2

    def test_one_host_was_all_there_was(self) -> None:
        pond = Pond.filled(size=2)
        pond.world.change_host("host-b", cordoned=True)
        pond.go(300)
        pond.world.change_host("host-b", cordoned=False)
        pond.go(300)
        assert len({vm.host for vm in pond.warm}) == 2

    def test_the_end_of_the_cluster(self) -> None:
        pond = Pond.filled(size=2)
        pond.world.deleting = True
        assert pond.go(120).finished
        assert not pond.world.domains()

    def test_or_not(self) -> None:
        pond = Pond.filled(size=1, deletionPolicy="Orphan")
        pond.world.deleting = True
        pond.go(30)
        assert [vm.phase for vm in pond.world.vms.values() if vm.role == "Warm"] == ["Warm"]
        assert len(pond.world.domains()) == 3
