"""The invariants of docs/algorithms.md section 8, over `core.plan` and a simulated world, whatever happens in it.

The same stories each time, so that nobody's change fails for another's fault. To look for new ones, for an hour:
`LUBAN_HYPOTHESIS=long pytest tests/unit/core/test_plan_properties.py`; LUBAN_EXAMPLES sets how many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from luban.api.cluster import Host, LubanClusterSpec
from luban.api.host import BondVerdict
from luban.core.left_out import Refusal
from luban.core.model import (
    Action,
    AssignVM,
    BalloonDomain,
    CreateVM,
    DeleteVM,
    DestroyDomain,
    EnsureDomain,
    Failure,
    Plan,
    ReleaseVM,
    RemoveDomain,
    RemoveStray,
    ResumeDomain,
    ShutdownDomain,
    SuspendDomain,
    VMRecord,
)
from luban.core.scaling import minimum
from tests.fakes.simulator import BALANCER, Operator, World, host_named, make_spec

LONG = os.environ.get("LUBAN_HYPOTHESIS") == "long"
EXAMPLES = int(os.environ.get("LUBAN_EXAMPLES", "5000" if LONG else "40"))
STEPS = 50 if LONG else 25
REST_SECONDS = 400.0
"""Nothing happens for so long: longer than a host is avoided, a failed VM is kept or a stabilization window lasts."""
GIVEN_UP_SECONDS = 60.0
"""So long a silent host is waited for, as documented."""
PATIENCE_SECONDS = 4 * 3600.0
"""Virtual time in which every cluster comes to rest once nothing goes wrong any more."""
RESTING = {
    "MinVMs",
    "WithinBand",
    "NotAllAboveUpper",
    "TooFewBelowLower",
    "OnTarget",
    "ShrinkUnsafe",
    "HostMinimum",
    "ScaleInPaused",
    "Manual",
    "MaxVMs",
    "NoHostHasRoom",
}
"""Reasons of decisions that wait for nothing but another load."""
BANDS = [{"metric": "CPU", "max": 70, "min": 15}, {"metric": "Memory", "max": 60, "min": 22}]
"""Of policy Rules: two that are not always of one mind."""
REPLACED = {"Outdated", "HostCordoned", "HostRemoved", "HostAboveMaximum"}
"""Reasons of deletions of VMs that get a successor."""
CONDITIONS = ("Ready", "HostsReachable", "VMsHealthy", "BalancersReady", "LoadKnown", "BondsHealthy", "AtMaximum")
NO_IMAGE = Failure("ImageNotFound", "volume luban-web.qcow2 is not in pool default", permanent=True)
NOT_OURS = Refusal("NamespaceNotAllowed", "LubanHost is not for namespace default")
NO_LUCK = Failure("HostBusy", "cannot fork", permanent=False)


ON_HOSTS = EnsureDomain | ShutdownDomain | DestroyDomain | RemoveDomain | BalloonDomain | SuspendDomain | ResumeDomain
"""Actions on the domains of hosts."""


# The referee: what no operator may ever do.


def referee(world: World, action: Action) -> None:
    """Fails on an action that breaks a promise."""
    assert action.reason, f"{action} has no reason"
    assert world.deleting or not world.spec.paused, f"{action} while paused"
    match action:
        case CreateVM():
            check_create(world, action)
        case AssignVM() | SuspendDomain():
            check_moves(world, action)
        case DeleteVM(name, reason) if name in world.vms:
            check_delete(world, world.vms[name], reason)
        case ShutdownDomain(vm) | DestroyDomain(vm):
            check_stop(world, action, world.vms[vm.name])
        case RemoveDomain(vm):
            domain = world.domain(vm)
            assert domain is None or domain.state in ("Off", "Crashed"), f"{vm.name} is removed while it runs"
        case ReleaseVM(name) if name in world.vms:
            vm = world.vms[name]
            assert world.domain(vm) is None, f"{name} is let go, its domain stays"
            assert vm.uid not in world.overlays(), f"{name} is let go, its overlay stays"
        case RemoveStray(_, _, uuid):
            assert uuid not in {vm.uid for vm in world.vms.values()}
    if isinstance(action, ON_HOSTS):
        assert world.machines[action.vm.host].reachable, f"{action} on a host that does not answer"
    if isinstance(action, EnsureDomain):
        assert world.machines[action.vm.host].refusal is None, f"{action.vm.name} is started on a refused host"


def check_create(world: World, action: CreateVM) -> None:
    """Room on an open host, and nothing that another VM has."""
    host = host_named(world.spec, action.host)
    assert host is not None
    assert not host.cordoned
    assert world.machines[host.name].reachable
    assert world.machines[host.name].refusal is None, f"{action.name} is made on a refused host"
    assert admits(world, host), f"{host.name}'s bond is {world.machines[host.name].bond}"
    assert action.name not in world.vms
    held = holding(world)
    pooled = sum(vm.role == "Warm" for vm in held)
    if action.role == "Serving":
        assert len(held) - pooled < world.spec.scaling.max_vms, "above maxVMs"
    else:
        assert world.spec.pool.size, "no pool is wanted"
    assert sum(vm.host == host.name for vm in held) < host.vms.max, f"above vms.max of {host.name}"
    addresses = {vm.planned_address for vm in world.vms.values()}
    if world.spec.template.spec.network.type == "User":
        assert action.address
        assert action.address not in addresses


def check_moves(world: World, action: AssignVM | SuspendDomain) -> None:
    """Into the pool, and out of it."""
    match action:
        case AssignVM(name, "Warm") if name in world.vms:
            check_delete(world, world.vms[name], "AboveDesired")
        case AssignVM(name, "Serving") if name in world.vms:
            check_taken(world, world.vms[name])
        case SuspendDomain(vm) if vm.name in world.vms:
            check_suspended(world, vm)


def check_taken(world: World, vm: VMRecord) -> None:
    """Never above maxVMs, and never what is outdated or on a host that is to be empty."""
    host = host_named(world.spec, vm.host)
    serving = [it for it in holding(world) if it.role == "Serving"]
    assert len(serving) < world.spec.scaling.max_vms, "above maxVMs"
    assert host is not None
    assert not host.cordoned, f"{vm.name} is taken on a host that is to be empty"
    assert vm.template == world.spec.template.spec, f"{vm.name} is taken, and is outdated"


def check_suspended(world: World, vm: VMRecord) -> None:
    """Only what is in the pool, and with nothing in flight: as what is stopped."""
    assert world.vms[vm.name].role == "Warm", f"{vm.name} is suspended and shall serve"
    waited = world.now - vm.phase_since if vm.phase == "Draining" else 0.0
    allowed = not world.busy(vm) or vm.phase == "Warm" or waited > world.spec.balancer.drain.timeout.seconds
    assert allowed, f"{vm.name} is suspended with work in flight"


def admits(world: World, host: Host) -> bool:
    """Whether the host's bond is good enough for a new VM."""
    verdict = world.machines[host.name].bond
    return {"Ignore": True, "Prefer": verdict != "Down", "Require": verdict == "Healthy"}[world.spec.bond_policy]


def holding(world: World) -> list[VMRecord]:
    """VMs whose domain runs, or may come to run: one that stopped by itself after it was up never does.

    One that somebody wants off a host that has been silent for a minute takes no room (docs/algorithms.md): a dead host
    would hold the places of its VMs for ever.
    """

    def holds(vm: VMRecord) -> bool:
        silent_since, host = world.machines[vm.host].silent_since, host_named(world.spec, vm.host)
        unwanted = vm.deleting_since is not None or host is None or host.cordoned
        if unwanted and silent_since is not None and world.now - silent_since >= GIVEN_UP_SECONDS:
            return False
        domain = world.domain(vm)
        stopped = domain is None or domain.state in ("Off", "Crashed")
        return vm.phase != "Lost" and not (stopped and vm.phase == "Ready" and vm.deleting_since is None)

    return [vm for vm in world.vms.values() if holds(vm)]


def serving_role(world: World) -> list[VMRecord]:
    """VMs that are to serve."""
    return [vm for vm in world.vms.values() if vm.role == "Serving"]


def pooled(world: World) -> list[VMRecord]:
    """VMs of the pool, and on their way there."""
    return [vm for vm in world.vms.values() if vm.role == "Warm"]


def check_delete(world: World, vm: VMRecord, reason: str) -> None:
    """Only what is known to be bad or above the wanted number goes, and never below a minimum."""
    if world.deleting or vm.deleting_since is not None or vm.phase in ("Failed", "Lost"):
        return
    host = host_named(world.spec, vm.host)
    emptied = host is None or host.cordoned
    assert emptied or world.machines[vm.host].reachable, f"{vm.name} goes, and nobody knows how it is"
    if vm.role == "Warm" or vm.phase != "Ready" or not world.answers(vm):
        return
    proxy = world.proxies[BALANCER]
    assert not (proxy.reachable and proxy.blind), "a VM that serves goes while the balancer says nothing"
    others = [it for it in serving_role(world) if it.name != vm.name and it.deleting_since is None]
    serving = sum(it.phase == "Ready" and is_enabled(world, it) for it in others)
    replaced = reason in REPLACED
    in_place = replaced and not has_room(world)
    assert serving >= world.spec.scaling.min_vms or in_place, f"{vm.name} goes, {serving} are left"
    stay = sum(it.host == vm.host and it.phase not in ("Failed", "Lost") for it in others)
    needed = host.vms.min if host is not None and not emptied else 0
    assert replaced or stay >= needed, f"{vm.name} goes, {stay} are left on its host"


def check_stop(world: World, action: ShutdownDomain | DestroyDomain, vm: VMRecord) -> None:
    """Nothing is in flight, or the VM was given the time to finish it."""
    if isinstance(action, DestroyDomain):
        waited = world.now - vm.phase_since
        assert vm.phase == "Stopping"
        domain = world.domain(vm)
        paused = domain is not None and domain.state == "Paused"
        assert paused or waited >= vm.template.termination_grace_period_seconds
        return
    # As the plan saw it: by now its status says Stopping. One that said so before is asked a second time at most.
    planned = action.vm
    waited = world.now - planned.phase_since if planned.phase == "Draining" else 0.0
    drained = planned.phase == "Stopping" or not world.busy(vm)
    assert drained or waited > world.spec.balancer.drain.timeout.seconds, f"{vm.name} is stopped with work in flight"


def is_enabled(world: World, vm: VMRecord) -> bool:
    """Whether a balancer sends requests to the VM."""
    return any(vm.name in proxy.enabled() for proxy in world.proxies.values())


def has_room(world: World) -> bool:
    """Whether one more VM fits."""
    held = holding(world)
    return len([vm for vm in held if vm.role == "Serving"]) < world.spec.scaling.max_vms and has_place(world)


def has_place(world: World, *, but: str = "") -> bool:
    """Whether any host, but one, can take one more domain."""
    held = holding(world)
    return any(
        host.name != but
        and not host.cordoned
        and world.machines[host.name].reachable
        and admits(world, host)
        and sum(vm.host == host.name for vm in held) < host.vms.max
        for host in world.spec.hosts
    )


def check_plan(world: World, operator: Operator, made: Plan) -> None:
    """What holds for every plan."""
    assert made.requeue_after > 0
    assert tuple(it.type for it in made.conditions if it.type != "PoolFilled") == CONDITIONS
    assert world.deleting or not world.spec.pool.size or made.conditions[-1].type == "PoolFilled"
    assert made.decision.reason
    assert made.decision.message
    if world.deleting:
        return
    assert world.spec.scaling.min_vms <= made.desired <= world.spec.scaling.max_vms
    if made.decision.verdict == "ScaleDown" and made.memory.evaluated == world.now:
        assert all(it.sessions is not None for it in made.decision.inputs)
        assert all(it.value is not None and not it.unknown for it in made.decision.metrics)
    if made.actions:
        assert operator.look() == operator.look(), "a plan depends on something else than its arguments"


# Rest: where every story must end.


def heal(world: World) -> None:
    """Nothing goes wrong any more; whatever was done stays done."""
    for machine in world.machines.values():
        machine.reachable, machine.refuses, machine.refusal = True, None, None
        for domain in machine.domains.values():
            domain.hung = domain.stuck = False
    # Bonds may stay bad for ever, but not all of them.
    if not any(admits(world, host) for host in world.spec.hosts):
        world.machines[world.spec.hosts[0].name].bond = "Healthy"
    for proxy in world.proxies.values():
        proxy.reachable, proxy.blind = True, False
    world.metrics_lost = world.probes_lost = False
    world.boot_seconds, world.shutdown_seconds = 20.0, 5.0
    world.change(paused=False, hosts=[{**it, "cordoned": False} for it in world.spec.wire()["hosts"]])


def settle(world: World, operator: Operator) -> Plan:
    """Run until nothing has happened for REST_SECONDS; fails if that takes too long."""
    end, quiet_since = world.now + PATIENCE_SECONDS, world.now
    while world.now - quiet_since < REST_SECONDS:
        made = operator.tick()
        check_plan(world, operator, made)
        if made.actions:
            quiet_since = world.now
        assert world.now < end, f"does not come to rest: {made.decision.message}; {made.actions}; {describe(world)}"
        world.advance(made.requeue_after)
    return operator.tick()


def describe(world: World) -> str:
    """The VMs in one line."""
    return "; ".join(f"{vm.name} {vm.phase} on {vm.host}" for vm in world.vms.values())


def check_rest(world: World, operator: Operator, made: Plan) -> None:
    """Everything that is wanted is there, everything that is there is wanted."""
    vms, pool = serving_role(world), pooled(world)
    uids = {vm.uid for vm in world.vms.values()}
    assert not made.actions
    assert not operator.look().actions
    assert all(vm.phase == "Ready" and vm.deleting_since is None for vm in vms), describe(world)
    assert len(vms) == made.desired or not has_room(world), f"{len(vms)} instead of {made.desired}"
    assert all(vm.template == world.spec.template.spec for vm in world.vms.values())
    check_pool(world, pool)
    strays = set(world.domains()) - uids
    assert not strays or not has_room(world), "a stray may stay only while nothing else can serve in its place"
    assert set(world.domains()) - strays == uids
    assert world.overlays() - strays == uids
    asleep = {vm.uid for vm in pool}
    assert all(it.state == ("Paused" if it.uuid in asleep else "Running") for it in world.domains().values())
    check_members(world)
    check_hosts(world, vms)
    assert made.decision.reason in RESTING, made.decision
    assert made.phase == "Ready" or len(vms) != made.desired, made.conditions
    check_restart(world, operator)


def check_pool(world: World, pool: list[VMRecord]) -> None:
    """It is full, or there is no room; and not all on one host, if another has some."""
    size = world.spec.pool.size
    assert all(vm.phase == "Warm" and vm.deleting_since is None for vm in pool), describe(world)
    assert len(pool) == size or (len(pool) < size and not has_place(world)), f"{len(pool)} of {size} are warm"
    hosts = {vm.host for vm in pool}
    if size > 1 and len(pool) == size and len(hosts) == 1:
        assert not has_place(world, but=hosts.pop()), "the pool is all on one host"


def check_members(world: World) -> None:
    """Every balancer sends requests to exactly the VMs there are, at their addresses.

    A stray that may stay (see check_rest) serves like them.
    """
    addresses = [domain.address for domain in world.domains().values()]
    strays = {domain.name for domain in world.domains().values()} - set(world.vms)
    assert len(set(addresses)) == len(addresses)
    for proxy in world.proxies.values():
        assert proxy.applied is not None
        assert proxy.applied == proxy.published
        members = {it.name: it for it in proxy.applied.members}
        assert set(members) == set(world.vms) | strays
        asleep = {vm.name for vm in pooled(world)}
        assert all(it.state == ("Disabled" if it.name in asleep else "Enabled") for it in members.values())
        assert {it.address for it in members.values()} == set(addresses)


def check_hosts(world: World, vms: list[VMRecord]) -> None:
    """No host has too many VMs, nor too few while others could give one."""
    for host in world.spec.hosts:
        count = sum(vm.host == host.name for vm in vms)
        # One above its maximum is replaced, not just let go: it stays while no host takes its successor.
        assert count <= host.vms.max or not has_room(world)
        full = len(vms) >= world.spec.scaling.max_vms or not admits(world, host)
        assert count >= host.vms.min or full, f"{host.name} has {count}"
    assert {vm.host for vm in vms} <= {host.name for host in world.spec.hosts}


def check_restart(world: World, operator: Operator) -> None:
    """An operator that is started anew finds nothing to do."""
    twin = Operator(world, status=operator.status)
    twin.restart()
    assert not twin.look().actions


# What can happen.


def pick(world: World, number: int, wanted: Callable[[VMRecord], bool] = lambda _: True) -> VMRecord | None:
    """One of the VMs."""
    vms = sorted((vm for vm in world.vms.values() if wanted(vm)), key=lambda vm: vm.name)
    return vms[number % len(vms)] if vms else None


def set_load(world: World, number: int) -> None:
    """Clients come and go."""
    world.load = (0, 5, 30, 90, 130, 200, 320, 1000)[number % 8]


def crash(world: World, number: int) -> None:
    """A domain ends by itself."""
    if vm := pick(world, number, lambda vm: world.domain(vm) is not None):
        world.crash(vm.name, "Crashed" if number % 2 else "Off")


def hang(world: World, number: int) -> None:
    """A guest stops to answer, or answers again."""
    if (vm := pick(world, number)) and (domain := world.domain(vm)):
        domain.hung = not domain.hung


def stick(world: World, number: int) -> None:
    """A domain will not go on once it is suspended, or will again."""
    if (vm := pick(world, number)) and (domain := world.domain(vm)):
        domain.stuck = not domain.stuck


def change_pool(world: World, number: int) -> None:
    """A pool is wanted, another one, or none."""
    world.change(pool={"size": number % 4, "balloon": {"min": "256Mi"} if number // 4 % 2 else {}})


def toggle_host(world: World, number: int) -> None:
    """libvirtd of a host hangs, or is back."""
    machine = world.machines[world.spec.hosts[number % len(world.spec.hosts)].name]
    machine.reachable = not machine.reachable


def toggle_use(world: World, number: int) -> None:
    """An administrator takes a host away from the cluster, or gives it back."""
    machine = world.machines[world.spec.hosts[number % len(world.spec.hosts)].name]
    machine.refusal = None if machine.refusal else NOT_OURS


def change_bond(world: World, number: int) -> None:
    """A cable is pulled or put back, or the node agent dies."""
    machine = world.machines[world.spec.hosts[number % len(world.spec.hosts)].name]
    machine.bond = BONDS[number % len(BONDS)]


def toggle_start(world: World, number: int) -> None:
    """A host cannot make domains any more, or can again."""
    machine = world.machines[world.spec.hosts[number % len(world.spec.hosts)].name]
    machine.refuses = None if machine.refuses else (NO_IMAGE, NO_LUCK)[number % 2]


def toggle_balancer(world: World, number: int) -> None:
    """The agent is gone or back; or httpd has just been started."""
    proxy = world.proxies[BALANCER]
    if number % 2:
        proxy.reachable = not proxy.reachable
    else:
        proxy.blind = not proxy.blind


def lose(world: World, number: int) -> None:
    """Metrics or probes are lost or back."""
    if number % 2:
        world.metrics_lost = not world.metrics_lost
    else:
        world.probes_lost = not world.probes_lost


def slow(world: World, number: int) -> None:
    """Guests boot or stop slowly, or fast again; requests take longer than a drain may."""
    world.boot_seconds = (20.0, 20.0, 90.0, 400.0)[number % 4]
    world.shutdown_seconds = (5.0, float("inf"))[number // 4 % 2]
    world.request_seconds = (4.0, 90.0)[number // 8 % 2]


def delete_vm(world: World, number: int) -> None:
    """`kubectl delete lubanvm`."""
    if vm := pick(world, number):
        world.user_deletes(vm.name)


def tear_out(world: World, number: int) -> None:
    """Someone deletes a LubanVM and strips its finalizer."""
    if vm := pick(world, number):
        del world.vms[vm.name]


def change_limits(world: World, number: int) -> None:
    """minVMs and maxVMs, as the API server would admit them."""
    lowest, highest = ((1, 2), (1, 6), (2, 3), (2, 6), (3, 4), (2, 2))[number % 6]
    floor = sum(host.vms.min for host in world.spec.hosts)
    room = sum(host.vms.max for host in world.spec.hosts)
    world.change_scaling(minVMs=min(lowest, room), maxVMs=max(highest, floor))


def change_host(world: World, number: int) -> None:
    """A host's own limits, or it is cordoned or opened."""
    host = world.spec.hosts[number % len(world.spec.hosts)]
    turn = number // len(world.spec.hosts)
    if turn % 2:
        world.change_host(host.name, cordoned=not host.cordoned)
        return
    low, high = ((0, 3), (1, 1), (1, 2), (1, 3), (2, 3))[turn // 2 % 5]
    others = [it.vms for it in world.spec.hosts if it.name != host.name]
    if low + sum(it.min for it in others) <= world.spec.scaling.max_vms and (
        high + sum(it.max for it in others) >= world.spec.scaling.min_vms
    ):
        world.change_host(host.name, vms={"min": low, "max": high})


def change_spec(world: World, number: int) -> None:
    """Pauses, policies, a new template."""
    match number % 8:
        case 0 | 1:
            world.new_template()
        case 2:
            world.change(paused=not world.spec.paused)
        case 3:
            world.change_scaling(pauseScaleIn=not world.spec.scaling.pause_scale_in)
        case 4:
            world.change_scaling(policy="Sessions")
        case 5:
            world.change_scaling(policy="Rules", rules=BANDS, safeShrink=bool(number // 8 % 2))
        case 6:
            world.change_scaling(policy="Target", target={"metric": "CPU", "percent": 20 + 10 * (number // 8 % 6)})
        case _:
            world.change_scaling(policy="Manual")
            world.change(replicas=number // 8 % 7)


EVENTS: tuple[Callable[[World, int], None], ...] = (
    set_load,
    set_load,
    crash,
    hang,
    stick,
    change_pool,
    toggle_host,
    toggle_use,
    toggle_start,
    change_bond,
    toggle_balancer,
    lose,
    slow,
    delete_vm,
    tear_out,
    change_limits,
    change_host,
    change_spec,
)
BONDS: tuple[BondVerdict | None, ...] = ("Healthy", "Degraded", "Down", "Recovering", "Unknown", "None", None)
NUMBERS = st.integers(0, 59)


@st.composite
def specs(draw: st.DrawFn) -> LubanClusterSpec:
    """A cluster on one to three hosts."""
    names = ("host-b", "host-c", "host-d")[: draw(st.integers(1, 3))]
    limits = [(draw(st.integers(0, 1)), draw(st.integers(1, 3))) for _ in names]
    hosts = [
        {"name": name, "forwardRange": f"127.0.{17 + index}.0/24", "vms": {"min": low, "max": high}}
        for index, (name, (low, high)) in enumerate(zip(names, limits, strict=True))
    ]
    floor, room = (sum(column) for column in zip(*limits, strict=True))
    lowest = min(draw(st.integers(1, 3)), room)
    window = draw(st.sampled_from(["0s", "30s", "2m"]))
    return make_spec(
        hosts,
        template={"network": {"type": draw(st.sampled_from(["User", "Network"]))}},
        balancer={"drain": {"timeout": "30s"}, "loadFactors": draw(st.sampled_from(["Static", "Adaptive"]))},
        pool={"size": draw(st.sampled_from([0, 0, 1, 2]))},
        bondPolicy=draw(st.sampled_from(["Prefer", "Prefer", "Require", "Ignore"])),
        scaling={
            "minVMs": lowest,
            "maxVMs": max(lowest, floor, draw(st.integers(2, 6))),
            "interval": draw(st.sampled_from(["5s", "15s", "60s"])),
            "sessions": {
                "lowerQuorum": draw(st.integers(1, 2)),
                "upperQuorumPercent": draw(st.sampled_from([100, 100, 50])),
            },
            "behavior": {
                "scaleUp": {"step": draw(st.integers(1, 2)), "cooldown": draw(st.sampled_from(["0s", "60s"]))},
                "scaleDown": {"step": draw(st.integers(1, 2)), "stabilizationWindow": window},
            },
        },
    )


class AnyStory(RuleBasedStateMachine):
    """Whatever happens, in whatever order: the referee is never called, and in the end all is well."""

    @initialize(spec=specs(), load=NUMBERS, seed=st.integers(0, 2**32))
    def begin(self, spec: LubanClusterSpec, load: int, seed: int) -> None:
        """A cluster that was just created."""
        self.world = World(spec, before=referee)
        self.dice = random.Random(seed)
        set_load(self.world, load)
        self.operator = Operator(self.world)

    @rule(
        what=st.lists(st.tuples(st.sampled_from(EVENTS), NUMBERS), max_size=3),
        ticks=st.integers(0, 40),
        pause=st.floats(0.5, 10),
    )
    def happens(self, what: list[tuple[Callable[[World, int], None], int]], ticks: int, pause: float) -> None:
        """Things happen, and the operator does its work for a while."""
        for event, number in what:
            event(self.world, number)
        self._work(ticks, pause)

    @rule(
        what=st.sampled_from(EVENTS),
        number=NUMBERS,
        ticks=st.integers(0, 10),
        after=st.integers(0, 12),
        told=st.booleans(),
    )
    def dies(self, what: Callable[[World, int], None], number: int, ticks: int, after: int, told: bool) -> None:
        """Something happens, and not much later the operator is killed in the middle of a plan."""
        what(self.world, number)
        self._work(ticks, 10.0)
        self.operator.tick(dice=self.dice, killed_after=after, told=told)

    @rule(what=st.sampled_from(EVENTS), number=NUMBERS, seconds=st.integers(1, 900))
    def happens_unseen(self, what: Callable[[World, int], None], number: int, seconds: int) -> None:
        """Something happens while no operator is there."""
        what(self.world, number)
        self.world.advance(seconds)

    @rule(calm=st.integers(0, 3))
    def rests(self, calm: int) -> None:
        """Once in a while nothing more goes wrong for a long time."""
        if calm == 0:
            self._come_to_rest()

    def _work(self, ticks: int, pause: float) -> None:
        for _ in range(ticks):
            made = self.operator.tick(dice=self.dice)
            check_plan(self.world, self.operator, made)
            self.world.advance(max(0.5, min(made.requeue_after, pause)))

    @invariant()
    def known_names(self) -> None:
        """No two VMs share an address that was given to them beforehand."""
        if hasattr(self, "world"):
            planned = [vm.planned_address for vm in self.world.vms.values() if vm.planned_address]
            assert len(set(planned)) == len(planned)

    def teardown(self) -> None:
        """Every story ends well."""
        if hasattr(self, "world"):
            self._come_to_rest()
            self._end()

    def _come_to_rest(self) -> None:
        heal(self.world)
        check_rest(self.world, self.operator, settle(self.world, self.operator))

    def _end(self) -> None:
        """The cluster is deleted, and nothing of it is left."""
        self.world.deleting = True
        made = self.operator.run(900.0)
        assert made.finished, made.decision
        assert not self.world.vms
        assert not self.world.domains()
        assert not self.world.overlays()
        assert self.world.proxies[BALANCER].published is None


PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
TestAnyStory = AnyStory.TestCase
TestAnyStory.settings = PROFILE


# A killed operator arrives where one that lives does.


@st.composite
def scripts(draw: st.DrawFn) -> list[tuple[int, int, int, int | None]]:
    """Event, its number, seconds after it, and after how many actions the operator dies (None: it lives)."""
    line = st.tuples(st.integers(0, len(EVENTS) - 1), NUMBERS, st.integers(0, 120), st.none() | st.integers(0, 8))
    return draw(st.lists(line, min_size=1, max_size=8))


def play(spec: LubanClusterSpec, script: list[tuple[int, int, int, int | None]], load: int, *, kills: bool) -> World:
    """Play a script to its end and rest."""
    world = World(spec, load=90, before=referee)
    operator = Operator(world)
    operator.run(120.0)
    for what, number, seconds, killed_after in script:
        EVENTS[what](world, number)
        if kills and killed_after is not None:
            operator.tick(killed_after=killed_after, told=bool(number % 2))
        operator.run(float(seconds))
    heal(world)
    world.load = load
    check_rest(world, operator, settle(world, operator))
    return world


@settings(PROFILE, max_examples=max(10, EXAMPLES // 4))
@given(spec=specs(), script=scripts(), load=st.sampled_from([0, 10_000]))
def test_a_killed_operator_arrives_at_the_same_end(
    spec: LubanClusterSpec, script: list[tuple[int, int, int, int | None]], load: int
) -> None:
    """With a load that leaves no doubt, the end depends on what is wanted, not on who died on the way."""
    lived, died = play(spec, script, load, kills=False), play(spec, script, load, kills=True)
    assert len(serving_role(lived)) == len(serving_role(died))
    if load == 0 and lived.spec.scaling.policy == "Sessions" and not lived.spec.scaling.pause_scale_in:
        assert len(serving_role(lived)) >= minimum(lived.spec) or not has_room(lived)
