"""Stories that broke a rule once, each named after what was wrong."""

from __future__ import annotations

from typing import Any

from tests.referee.story import Argument, Happening, Story
from tests.referee.wishes import host_entry

ONE_HOST = (("host-b", 0, 4),)
TWO_AND_TWO = (("host-b", 1, 2), ("host-c", 0, 2))
DEFAULTS = (("host-b", 1, 3), ("host-c", 1, 3))
NO_MINIMA = (("host-b", 0, 3), ("host-c", 0, 3))
AT_ONCE = {"scaleDown": {"stabilizationWindow": "0s"}}

Hosts = tuple[tuple[str, int, int], ...]


def spec(hosts: Hosts, *, replicas: int | None = None, **scaling: Any) -> dict[str, Any]:
    """A spec in wire format."""
    listed = [host_entry(*host) for host in hosts]
    template = {"spec": {"image": {"volume": "w.qcow2"}}}
    wanted = {"hosts": listed, "template": template, "scaling": {"interval": "15s", **scaling}}
    return wanted if replicas is None else {**wanted, "replicas": replicas}


def story(load: int, wanted: dict[str, Any], *happenings: tuple[Any, ...]) -> Story:
    """Pause, kind and arguments of each event; five minutes follow the last."""
    return Story(wanted, (*(_happening(*it) for it in happenings), Happening(300.0, "metrics-are-back")), load)


def _happening(pause: float, kind: str, *arguments: Argument) -> Happening:
    return Happening(pause, kind, arguments)


DARK = (300, "host-loses-power", "host-b")

KNOWN: dict[str, Story] = {
    "sick-count-as-serving-replicas": story(
        200,
        spec(TWO_AND_TWO, replicas=3, minVMs=1, maxVMs=4, policy="Manual"),
        DARK,
        (33, "user-sets-replicas", 2),
    ),
    "sick-count-as-serving-maxvms": story(
        200, spec(TWO_AND_TWO, minVMs=1, maxVMs=3), DARK, (33, "user-sets-limits", 1, 2)
    ),
    "sick-count-as-serving-rollout": story(200, spec(TWO_AND_TWO, minVMs=2, maxVMs=3), DARK, (33, "user-rolls-out")),
    "sick-count-as-serving-cordon": story(
        200, spec(TWO_AND_TWO, minVMs=1, maxVMs=3), DARK, (33, "user-cordons", "host-c")
    ),
    "sick-count-as-serving-by-defaults": story(
        100,
        spec(DEFAULTS, minVMs=2, maxVMs=2),
        (0, "guests-boot-in", 60.0),
        (120, "host-loses-power", "host-c"),
        (62, "user-rolls-out"),
    ),
    **{
        f"stale-scale-down-{name}": story(
            130,
            spec(DEFAULTS, minVMs=2, maxVMs=6, behavior=AT_ONCE),
            (60, "load-is", 100),
            (30, "guests-boot-in", 200.0),
            (0, "load-is", 12),
            (0, "vm-crashes", "host-c"),
            (20, *then),
        )
        for name, then in {
            "high": ("load-is", 110),
            "very-high": ("load-is", 180),
            "unknown": ("metrics-are-lost",),
        }.items()
    },
    "rollout-when-already-short": story(
        100,
        spec(NO_MINIMA, minVMs=2, maxVMs=3),
        (120, "load-is", 150),
        (60, "user-deletes-vm", 2),
        (3, "host-hangs", "host-b"),
        (0, "load-is", 100),
        (60, "user-rolls-out"),
    ),
    "rollout-while-the-agent-is-silent": story(
        100, spec(DEFAULTS, minVMs=2, maxVMs=2), (60, "agent-is-silent"), (20, "user-rolls-out")
    ),
    "all-sick-reads-as-no-load": story(
        290,
        spec(DEFAULTS, minVMs=2, maxVMs=6),
        (400, "probes-are-lost"),
        (0, "all-are-sick"),
        (900, "all-recover"),
        (0, "probes-are-back"),
    ),
    "started-above-a-lowered-maximum": story(
        100,
        spec(NO_MINIMA, minVMs=2, maxVMs=3),
        (0, "host-hangs", "host-c"),
        (60, "host-refuses", "host-b", "busy"),
        (0, "vm-crashes", 1),
        (3, "user-sets-host-limits", "host-b", 0, 1),
        (2, "host-is-repaired", "host-b"),
    ),
    "killed-before-a-scale-up-was-told": story(
        0, spec(ONE_HOST, minVMs=2), (60, "operator-dies-after", 1, False), (0, "load-is", 500)
    ),
    "a-spec-that-remedies-nothing": story(
        0,
        spec(DEFAULTS, minVMs=2),
        (20, "host-refuses", "host-b", "image"),
        (3, "user-cordons", "host-c"),
        (0, "load-per-vm-is", 95),
        (5, "user-sets-sessions-per-vm", 50),
        (120, "metrics-are-back"),
    ),
    "a-silent-host-that-left-the-spec": story(
        0,
        spec(DEFAULTS, minVMs=2),
        (1, "host-loses-power", "host-b"),
        (0, "user-removes-host", "host-b"),
        (0, "host-cannot-boot", "host-c"),
        (0, "user-rolls-out"),
    ),
    "a-stray-that-serves": story(
        130,
        spec(DEFAULTS, minVMs=2),
        (60, "user-tears-out-vm", 3),
        (0, "guests-boot-in", 200.0),
        (120, "vm-crashes", "host-c"),
    ),
    "a-power-button-on-a-slow-host": story(
        290,
        spec(ONE_HOST, minVMs=2, behavior=AT_ONCE),
        (343, "vm-crashes", "host-b"),
        (1, "host-is-slow", "host-b", 8),
        (0, "load-per-vm-is", 5),
        (5, "load-is", 130),
    ),
    "one-too-many-for-a-minimum-that-waits": story(
        0, spec((("host-b", 1, 3), ("host-c", 0, 2)), minVMs=2), (1, "vm-is-paused", 3, "user")
    ),
    "idle-because-out-of-reach": story(
        100,
        spec((("host-b", 1, 3),), minVMs=1, sessions={"lowerQuorum": 1, "upperQuorumPercent": 50}),
        (120, "lease-moves", 1, 2),
        (300, "metrics-are-back"),
    ),
    "an-address-that-moves": story(
        0,
        spec(DEFAULTS, minVMs=2),
        (20, "user-removes-host", "host-c"),
        (3, "lease-moves", "host-b", "host-c"),
        (5, "user-sets-drain", "5s"),
    ),
    "placed-on-a-host-that-closed": story(
        0,
        spec((("host-b", 1, 3), ("host-c", 1, 1)), minVMs=2, maxVMs=2),
        (60, "host-hangs", "host-c"),
        (0, "host-refuses", "host-b", "busy"),
        (0, "user-rolls-out"),
        (20, "user-cordons", "host-b"),
    ),
    "a-rollout-and-fewer-wanted-in-one-look": story(
        0,
        spec(DEFAULTS, minVMs=2, behavior={"scaleDown": {"stabilizationWindow": "0s"}}),
        (60, "load-per-vm-is", 62),
        (5, "vm-crashes", "host-c"),
        (0, "load-per-vm-is", 5),
        (20, "user-rolls-out"),
        (1, "load-is", 130),
    ),
}
