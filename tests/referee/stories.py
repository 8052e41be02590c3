"""Stories by chance, from a seed: plots in which troubles and wishes meet, and noise between them.

Plain chance seldom makes the sequences that hurt: a fault that goes unnoticed, then a wish that trusts what was seen
before it. So most of a story is a plot: parts in a given order, each part one of several events. All kinds of events
also come as noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.referee.events import KINDS, drawn
from tests.referee.story import Happening, Story
from tests.referee.wishes import first_spec, host_entry

Part = Callable[[random.Random], list[Happening]]

SOON = (0.0, 1.0, 3.0, 5.0, 10.0)
LATER = (20.0, 40.0, 60.0, 120.0)
LONG = (200.0, 400.0)
LOUD = frozenset({"user-deletes-cluster", "user-tears-out-vm", "operator-is-away", "clock-is-set", "lease-moves"})
"""Kinds that would drown the others if they came as often."""


def some(*names: str, pauses: Sequence[float] = SOON) -> Part:
    """One event of one of these kinds."""
    return lambda dice: [drawn(dice, dice.choice(names), dice.choice(pauses))]


def exactly(name: str, *arguments: object, pauses: Sequence[float] = SOON) -> Part:
    """This event."""
    return lambda dice: [Happening(dice.choice(pauses), name, arguments)]  # type: ignore[arg-type]


def perhaps(part: Part) -> Part:
    """This part, every other time."""
    return lambda dice: part(dice) if dice.random() < 0.5 else []


def noise(most: int) -> Part:
    """Some events of any kind."""

    def draw(dice: random.Random) -> list[Happening]:
        names = [name for name in KINDS if name not in LOUD or dice.random() < 0.2]
        return [
            drawn(dice, dice.choice(names), dice.choice((*SOON, *LATER, dice.choice(LONG))))
            for _ in range(dice.randrange(most + 1))
        ]

    return draw


def wait(pauses: Sequence[float]) -> Part:
    """Time passes; the load stays what it is."""
    return lambda dice: [Happening(dice.choice(pauses), "metrics-are-back")]


GROWN = some("load-per-vm-is", "load-is", pauses=LATER)
HOST_TROUBLE = ("host-loses-power", "host-loses-power", "host-hangs", "host-is-slow")
VM_TROUBLE = ("vm-is-sick", "all-are-sick", "vm-crashes", "vm-powers-off", "vm-is-paused", "network-is-cut")
BALANCER_TROUBLE = ("agent-is-silent", "agent-is-silent", "httpd-restarts", "httpd-is-down")
TIER_TROUBLE = ("another-balancer-is-down", "another-agent-is-silent", "httpd-is-down", "agent-is-silent")
SENSE_TROUBLE = ("metrics-are-lost", "probes-are-lost")
PROVISION_TROUBLE = ("host-refuses", "host-cannot-boot", "guests-boot-in")
REPLACING = ("user-rolls-out", "user-rolls-out", "user-cordons", "user-removes-host", "user-sets-host-limits")
SHRINKING = ("user-sets-limits", "user-sets-replicas", "user-cordons", "user-sets-host-limits")
OPERATOR_TROUBLE = ("operator-dies-after", "memory-is-lost", "operator-is-away", "clock-is-set")
RECOVERY = ("host-returns", "balancer-is-back", "all-recover", "metrics-are-back", "network-is-back", "probes-are-back")


@dataclass(frozen=True)
class Plot:
    """Parts in their order. `weight`: how often it comes; `spec`: in which cluster it plays; None: in any."""

    parts: tuple[Part, ...]
    weight: int = 2
    spec: Callable[[random.Random], dict[str, Any]] | None = None


def tight_spec(dice: random.Random) -> dict[str, Any]:
    """A spec in which there is just enough room, where faults hurt most."""
    low = dice.choice((1, 2, 2))
    high = low + dice.choice((0, 1, 1, 2))
    hosts = [
        host_entry("host-b", dice.choice((0, 1)), dice.choice((2, 3))),
        host_entry("host-c", 0, dice.choice((2, 3))),
    ]
    scaling: dict[str, Any] = {"minVMs": low, "maxVMs": high, "interval": "15s"}
    scaling["behavior"] = {"scaleDown": {"stabilizationWindow": dice.choice(("0s", "30s", "2m"))}}
    spec: dict[str, Any] = {"hosts": hosts, "scaling": scaling, "template": {"spec": {"image": {"volume": "w.qcow2"}}}}
    if dice.random() < 0.3:
        scaling["policy"], spec["replicas"] = "Manual", high
    return spec


def elastic_spec(dice: random.Random) -> dict[str, Any]:
    """A spec that follows the load quickly, on hosts that each keep a VM."""
    hosts = [host_entry("host-b", 1, 3), host_entry("host-c", dice.choice((0, 1, 1)), 3)]
    window = dice.choice(("0s", "0s", "30s"))
    scaling = {
        "minVMs": dice.choice((1, 2, 2)),
        "maxVMs": dice.choice((3, 4, 6)),
        "interval": "15s",
        "behavior": {"scaleDown": {"stabilizationWindow": window}},
    }
    return {"hosts": hosts, "scaling": scaling, "template": {"spec": {"image": {"volume": "w.qcow2"}}}}


PLOTS: tuple[Plot, ...] = (
    # What is out of order meets a wish.
    Plot(
        (
            GROWN,
            some(*HOST_TROUBLE, *VM_TROUBLE, pauses=LATER),
            some(*REPLACING, *SHRINKING, pauses=LATER),
            wait(LATER),
        ),
        weight=6,
    ),
    Plot(
        (
            some(*HOST_TROUBLE, pauses=LONG),
            some(*REPLACING, *SHRINKING, pauses=LATER),
            perhaps(some(*RECOVERY)),
            wait(LONG),
        )
    ),
    Plot((some(*HOST_TROUBLE, pauses=LATER), some(*SHRINKING, pauses=LATER), wait(LATER)), weight=4, spec=tight_spec),
    # A VM leaves on a host that falls silent; then a rollout.
    Plot(
        (
            exactly("load-per-vm-is", 70, pauses=LATER),
            some("user-deletes-vm", pauses=LONG),
            some("host-hangs", "host-loses-power", pauses=SOON),
            exactly("load-is", 100),
            some(*REPLACING, pauses=LATER),
            wait(LATER),
        ),
        weight=4,
        spec=tight_spec,
    ),
    # The balancer is silent, and something is to be replaced or removed.
    Plot(
        (
            some(*BALANCER_TROUBLE, pauses=LATER),
            some(*REPLACING, *SHRINKING, "load-is", pauses=(3.0, 20.0, 60.0)),
            wait(LONG),
            perhaps(exactly("balancer-is-back")),
        ),
        weight=3,
    ),
    # All are sick for long.
    Plot(
        (GROWN, GROWN, some("all-are-sick", "network-is-cut", "probes-are-lost", pauses=LONG), wait(LONG), wait(LONG))
    ),
    Plot((GROWN, exactly("all-are-sick", pauses=LATER), wait(LONG)), weight=2, spec=elastic_spec),
    # The load falls, something is in the way, the load is another.
    Plot(
        (
            exactly("load-per-vm-is", 62, pauses=LATER),
            exactly("load-per-vm-is", 40, pauses=LATER),
            exactly("guests-boot-in", 200.0),
            exactly("vm-crashes", "host-c", pauses=LATER),
            exactly("load-per-vm-is", 5, pauses=SOON),
            some("load-per-vm-is", "load-is", "metrics-are-lost", *BALANCER_TROUBLE, pauses=(20.0, 40.0, 60.0)),
            wait((250.0, 400.0)),
            some(*RECOVERY),
        ),
        weight=6,
        spec=elastic_spec,
    ),
    # A VM cannot be started yet, and limits change.
    Plot(
        (
            some(*PROVISION_TROUBLE, *HOST_TROUBLE, pauses=(0.0, 1.0, 20.0)),
            some(*HOST_TROUBLE, *PROVISION_TROUBLE, "load-per-vm-is", pauses=LATER),
            some("user-sets-host-limits", "user-sets-limits", "user-cordons", "user-removes-host", pauses=SOON),
            perhaps(some("operator-dies-after", "memory-is-lost")),
            some("host-is-repaired", "host-returns", pauses=SOON),
            wait(LATER),
        ),
    ),
    Plot(
        (
            exactly("host-hangs", "host-c", pauses=(0.0, 60.0)),
            exactly("host-refuses", "host-b", "busy"),
            some("load-per-vm-is", "vm-crashes", "user-deletes-vm", "user-rolls-out"),
            some("user-sets-host-limits", "user-sets-limits", pauses=(5.0, 20.0)),
            some("host-is-repaired", "host-returns", pauses=SOON),
            exactly("host-is-repaired", "host-b", pauses=SOON),
            wait(LATER),
        ),
        weight=4,
    ),
    # A cluster that cannot work.
    Plot(
        (
            some("host-refuses", "host-cannot-boot", "volumes-are-stuck"),
            exactly("user-rolls-out", pauses=LATER),
            wait((900.0,)),
        )
    ),
    Plot(
        (exactly("host-refuses", "host-b", "image"), exactly("host-refuses", "host-c", "image"), wait((900.0,))),
        weight=1,
    ),
    # The operator is away, dies, or its clock is set while something is on its way.
    Plot(
        (
            GROWN,
            some(*REPLACING, *SHRINKING, "user-deletes-vm", "vm-crashes", pauses=LATER),
            some(*OPERATOR_TROUBLE, pauses=(0.0, 1.0, 3.0, 20.0)),
            some(*OPERATOR_TROUBLE, "load-is", "requests-take", pauses=(0.0, 1.0, 3.0, 20.0)),
            wait(LONG),
        ),
        weight=4,
    ),
    # A policy that counts, or a time of day, meets trouble.
    Plot(
        (
            some("user-sets-rules", "user-sets-target", pauses=SOON),
            some("user-sets-victim", "user-sets-shrinking", "user-sets-growing"),
            GROWN,
            some(*HOST_TROUBLE, *VM_TROUBLE, *BALANCER_TROUBLE, *SENSE_TROUBLE, *OPERATOR_TROUBLE, pauses=LATER),
            some("load-is", "load-per-vm-is", pauses=LONG),
            perhaps(some(*RECOVERY)),
            some("load-is", *REPLACING, *SHRINKING, "user-sets-policy", pauses=LONG),
            wait(LONG),
        ),
        weight=5,
        spec=elastic_spec,
    ),
    Plot(
        (
            some("user-sets-schedule", pauses=LATER),
            some("user-sets-rules", "user-sets-replicas", "load-is"),
            some(*HOST_TROUBLE, *OPERATOR_TROUBLE, *SHRINKING, "user-sets-schedule", pauses=LATER),
            wait((300.0, 600.0)),
        ),
        weight=2,
    ),
    # Users change their minds.
    Plot(
        (
            GROWN,
            some(*REPLACING, *SHRINKING, pauses=LATER),
            some(*REPLACING, *SHRINKING, "user-sets-policy"),
            wait(LONG),
        )
    ),
    # Several balancers, which come and go.
    Plot(
        (
            some("user-sets-tier"),
            some("load-per-vm-is", "user-sets-replicas", pauses=(60.0, 120.0)),
            some(*TIER_TROUBLE, pauses=LATER),
            some("user-deletes-vm", "user-rolls-out", "user-sets-replicas", "user-sets-tier", *TIER_TROUBLE),
            perhaps(exactly("all-balancers-are-back")),
            some("operator-dies-after", "vm-crashes", "user-sets-tier", *TIER_TROUBLE),
            wait(LONG),
        ),
        weight=4,
    ),
    # VMs do not go as they should.
    Plot(
        (
            some("guests-stop-in", "requests-take", "vm-is-paused", "vm-is-sick", pauses=LATER),
            some("user-deletes-vm", "user-rolls-out", "user-sets-replicas", *BALANCER_TROUBLE),
            some("user-deletes-vm", "clock-is-set", "operator-dies-after", *BALANCER_TROUBLE),
            wait(LONG),
        ),
    ),
    # A pool is filled, its VMs or their host fail, the load rises and falls, and the operator may die over it.
    Plot(
        (
            some("user-sets-pool", pauses=(60.0, 120.0)),
            perhaps(some(*VM_TROUBLE, "vm-will-not-resume", "host-loses-power", "host-hangs", pauses=LATER)),
            some("load-per-vm-is", "load-is", "user-sets-replicas", "vm-crashes", "user-rolls-out", pauses=LATER),
            perhaps(some("operator-dies-after", "vm-will-not-resume", "host-loses-power", "host-is-slow")),
            some("user-sets-replicas", "load-is", "user-sets-pool", "user-cordons", pauses=(1.0, 5.0, 60.0)),
            perhaps(some("operator-dies-after", "requests-take")),
            wait(LONG),
        ),
        weight=4,
    ),
    # Addresses move.
    Plot((GROWN, some("lease-moves", "address-changes", pauses=LATER), wait(LATER)), weight=1),
    # Anything.
    Plot((noise(4), noise(4), noise(4)), weight=4),
)


def story_of(seed: int) -> Story:
    """The story of a seed; always the same."""
    dice = random.Random(seed)
    plots = dice.choices(PLOTS, [it.weight for it in PLOTS], k=dice.choice((1, 1, 2)))
    happenings: list[Happening] = []
    for plot in plots:
        for part in plot.parts:
            happenings += part(dice) + (noise(1)(dice) if dice.random() < 0.25 else [])
    make = plots[0].spec or (tight_spec if dice.random() < 0.3 else first_spec)
    return Story(
        spec=make(dice),
        happenings=_begun(dice, happenings),
        load=dice.choice((0, 50, 100, 100, 130, 150, 200, 290)),
        ending=dice.choice(("heals", "heals", "heals", "buries", "deletes")),
        dice=dice.randrange(1000) if dice.random() < 0.5 else None,
        seed=seed,
    )


def _begun(dice: random.Random, happenings: list[Happening]) -> tuple[Happening, ...]:
    """Most stories begin with a cluster that has come up."""
    if dice.random() < 0.8:
        happenings = [Happening(dice.choice((60.0, 120.0)), "metrics-are-back"), *happenings]
    return tuple(happenings)
