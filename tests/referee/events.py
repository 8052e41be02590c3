"""What can happen: faults of hosts, balancers and VMs, loads, and what becomes of the operator itself."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from tests.referee.bridge import BONDS, BondVerdict, Failure, VMRecord, WatchedOperator
from tests.referee.centre import DataCentre
from tests.referee.story import Argument, BadStory, Happening

HOSTS = ("host-b", "host-c", "host-d")
REFUSALS = {
    "image": Failure("ImageNotFound", "volume luban-web.qcow2 is not in pool default", permanent=True),
    "pool": Failure("PoolFull", "no space left in pool default", permanent=False),
    "busy": Failure("HostBusy", "cannot fork", permanent=False),
}
SPREADS = ([1], [1, 3], [9, 1, 1], [1, 1, 8], [0, 1])
LOADS = (0, 5, 12, 30, 60, 90, 100, 130, 180, 200, 290, 320, 500, 1000)


@dataclass
class Stage:
    """Where a story is played."""

    centre: DataCentre
    operator: WatchedOperator
    dice: random.Random | None = None
    dies_after: int | None = None
    """The operator dies after so many actions of its next plan."""
    told: bool = True
    """Whether it has written its status by then."""
    away: float = 0.0
    """No operator is there for so many seconds."""

    def pick(self, which: int | str) -> VMRecord | None:
        """One of the VMs, by age; or the oldest on the host of this name."""
        vms = self.centre.by_age()
        if isinstance(which, str):
            return next((vm for vm in vms if vm.host == which), None)
        return vms[which % len(vms)] if vms else None


Draw = Callable[[random.Random], tuple[Argument, ...]]
Deed = Callable[..., None]


@dataclass(frozen=True)
class Kind:
    """A kind of event."""

    deed: Deed
    draw: Draw
    matters: bool
    """It may change whether what failed before can work now."""


KINDS: dict[str, Kind] = {}


def kind(name: str, *draws: Callable[[random.Random], Argument], matters: bool = True) -> Callable[[Deed], Deed]:
    """Register what a kind of event does, and how its arguments are drawn."""

    def register(deed: Deed) -> Deed:
        KINDS[name] = Kind(deed, lambda dice: tuple(draw(dice) for draw in draws), matters)
        return deed

    return register


def happen(stage: Stage, event: Happening) -> None:
    """Let it happen. Raises BadStory if there is no such event."""
    found = KINDS.get(event.kind)
    if found is None:
        raise BadStory(f"no event is called {event.kind!r}; there are: {', '.join(sorted(KINDS))}")
    stage.centre.note(f"** {event.words()}")
    try:
        found.deed(stage, *event.arguments)
    except TypeError as error:
        raise BadStory(f"{event.words()}: {error}") from error


def drawn(dice: random.Random, name: str, pause: float = 0.0) -> Happening:
    """An event of this kind with arguments by chance."""
    return Happening(pause, name, KINDS[name].draw(dice))


# How arguments are drawn.


def a_host(dice: random.Random) -> Argument:
    """One of the hosts there can be; often one that there is."""
    return dice.choice(("host-b", "host-b", "host-c", "host-c", "host-d"))


def a_vm(dice: random.Random) -> Argument:
    """Number of a VM, by age; or a host, for the oldest there."""
    return dice.choice((0, 1, 2, 3, 4, 5, "host-b", "host-c"))


def either(dice: random.Random) -> Argument:
    """Yes or no."""
    return dice.random() < 0.5


def one_of(*choices: Any) -> Callable[[random.Random], Argument]:
    """One of these."""
    return lambda dice: cast("Argument", dice.choice(choices))


# Hosts.


@kind("host-loses-power", a_host)
def _(stage: Stage, host: str) -> None:
    stage.centre.lose_power(host)


@kind("host-hangs", a_host)
def _(stage: Stage, host: str) -> None:
    stage.centre.rack(host).reachable = False


@kind("host-returns", a_host, either)
def _(stage: Stage, host: str, running: bool) -> None:
    stage.centre.come_back(host, running=running)


@kind("host-is-slow", a_host, one_of(2, 4, 8, 30))
def _(stage: Stage, host: str, seconds: float) -> None:
    stage.centre.slow_down(host, seconds)


@kind("host-refuses", a_host, one_of(*REFUSALS))
def _(stage: Stage, host: str, why: str) -> None:
    stage.centre.rack(host).refuses = REFUSALS[why]


@kind("host-cannot-boot", a_host)
def _(stage: Stage, host: str) -> None:
    stage.centre.rack(host).no_boot = True


@kind("volumes-are-stuck", a_host)
def _(stage: Stage, host: str) -> None:
    stage.centre.rack(host).volumes_stuck = True


@kind("host-is-repaired", a_host)
def _(stage: Stage, host: str) -> None:
    rack = stage.centre.rack(host)
    rack.refuses, rack.no_boot, rack.volumes_stuck = None, False, False


@kind("bond-is", a_host, one_of(*BONDS, None))
def _(stage: Stage, host: str, verdict: BondVerdict | None) -> None:
    stage.centre.rack(host).bond = verdict


# The balancer.


@kind("agent-is-silent", matters=False)
def _(stage: Stage) -> None:
    stage.centre.gate.reachable = False


@kind("httpd-restarts", matters=False)
def _(stage: Stage) -> None:
    stage.centre.gate.blind = True


@kind("httpd-is-down", matters=False)
def _(stage: Stage) -> None:
    stage.centre.gate.down, stage.centre.gate.reachable = True, False


@kind("balancer-is-back", matters=False)
def _(stage: Stage) -> None:
    stage.centre.gate.back()


@kind("another-balancer-is-down", one_of(1, 2), matters=False)
def _(stage: Stage, index: int) -> None:
    """If there are so many."""
    for gate in stage.centre.gates[index : index + 1]:
        gate.down, gate.reachable, gate.starts_at = True, False, math.inf


@kind("another-agent-is-silent", one_of(1, 2), matters=False)
def _(stage: Stage, index: int) -> None:
    for gate in stage.centre.gates[index : index + 1]:
        gate.reachable = False


@kind("all-balancers-are-back", matters=False)
def _(stage: Stage) -> None:
    pods = stage.centre.tier.replicas if stage.centre.tier is not None else 1
    for gate in stage.centre.gates[:pods]:
        gate.back()


@kind("network-is-cut", a_host, matters=False)
def _(stage: Stage, host: str) -> None:
    stage.centre.rack(host).cut = True


@kind("network-is-back", a_host, matters=False)
def _(stage: Stage, host: str) -> None:
    stage.centre.rack(host).cut = False


# VMs.


def _domain_of(stage: Stage, which: int | str) -> Any:
    vm = stage.pick(which)
    return stage.centre.domain(vm) if vm is not None else None


@kind("vm-is-sick", a_vm)
def _(stage: Stage, which: int | str) -> None:
    if domain := _domain_of(stage, which):
        domain.hung = True


@kind("vm-recovers", a_vm)
def _(stage: Stage, which: int | str) -> None:
    if domain := _domain_of(stage, which):
        stage.centre.recover(domain)


@kind("all-are-sick")
def _(stage: Stage) -> None:
    for domain in stage.centre.domains().values():
        domain.hung = True


@kind("all-recover")
def _(stage: Stage) -> None:
    for domain in stage.centre.domains().values():
        stage.centre.recover(domain)


@kind("vm-crashes", a_vm)
def _(stage: Stage, which: int | str) -> None:
    if domain := _domain_of(stage, which):
        domain.state = "Crashed"


@kind("vm-powers-off", a_vm)
def _(stage: Stage, which: int | str) -> None:
    if domain := _domain_of(stage, which):
        domain.state = "Off"


@kind("vm-is-paused", a_vm, one_of("user", "ioerror"))
def _(stage: Stage, which: int | str, _why: str) -> None:
    if (domain := _domain_of(stage, which)) and domain.state == "Running":
        domain.state = "Paused"


@kind("vm-will-not-resume", a_vm)
def _(stage: Stage, which: int | str) -> None:
    """Once it is suspended it does not go on."""
    if (domain := _domain_of(stage, which)) is not None:
        domain.stuck = True


@kind("vm-is-resumed", a_vm)
def _(stage: Stage, which: int | str) -> None:
    if (domain := _domain_of(stage, which)) and domain.state == "Paused":
        domain.state = "Running"


@kind("guests-boot-in", one_of(5.0, 20.0, 60.0, 200.0, 1000.0))
def _(stage: Stage, seconds: float) -> None:
    stage.centre.boot_seconds = seconds


@kind("guests-stop-in", one_of(2.0, 5.0, 20.0, 100_000.0))
def _(stage: Stage, seconds: float) -> None:
    stage.centre.shutdown_seconds = seconds


@kind("requests-take", one_of(1.0, 4.0, 20.0, 90.0), matters=False)
def _(stage: Stage, seconds: float) -> None:
    stage.centre.request_seconds = seconds


@kind("lease-moves", a_vm, a_vm)
def _(stage: Stage, of: int | str, to: int | str) -> None:
    """A hung VM's lease is over, and another VM gets its address."""
    old, new = _domain_of(stage, of), _domain_of(stage, to)
    if old and new and old is not new:
        old.hung, new.address = True, old.address


@kind("address-changes", a_vm)
def _(stage: Stage, which: int | str) -> None:
    if domain := _domain_of(stage, which):
        stage.centre.renew(domain)


# Loads.


@kind("load-is", one_of(*LOADS), matters=False)
def _(stage: Stage, load: int) -> None:
    stage.centre.load = load


@kind("load-per-vm-is", one_of(2, 5, 12, 30, 55, 62, 95), matters=False)
def _(stage: Stage, percent: int) -> None:
    """So many sessions for each VM that answers now."""
    stage.centre.load = percent * max(1, len(stage.centre.serving()))


@kind("load-spreads", one_of(*SPREADS), matters=False)
def _(stage: Stage, weights: list[int]) -> None:
    stage.centre.uneven = tuple(weights)


@kind("metrics-are-lost", matters=False)
def _(stage: Stage) -> None:
    stage.centre.metrics_lost = True


@kind("metrics-are-back", matters=False)
def _(stage: Stage) -> None:
    stage.centre.metrics_lost = False


@kind("probes-are-lost", matters=False)
def _(stage: Stage) -> None:
    stage.centre.probes_lost = True


@kind("probes-are-back", matters=False)
def _(stage: Stage) -> None:
    stage.centre.probes_lost = False


# The operator.


@kind("operator-dies-after", one_of(0, 1, 2, 3, 4, 6), either)
def _(stage: Stage, actions: int, told: bool) -> None:
    """In the middle of its next plan."""
    stage.dies_after, stage.told = actions, told


@kind("operator-is-away", one_of(5, 30, 120, 400, 900))
def _(stage: Stage, seconds: float) -> None:
    stage.operator.restart()
    stage.away += seconds


@kind("memory-is-lost")
def _(stage: Stage) -> None:
    stage.operator.restart()


@kind("clock-is-set", one_of(-3600, -600, -30, 30, 120, 600, 3600))
def _(stage: Stage, seconds: float) -> None:
    stage.centre.clock_offset += seconds
