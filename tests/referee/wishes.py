"""What users do: change the spec, delete VMs, delete the cluster. What the API server refuses does not happen."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from tests.referee.bridge import BOND_POLICIES, Host, LubanClusterSpec
from tests.referee.events import HOSTS, Stage, a_host, a_vm, either, kind, one_of

DURATIONS = ("0s", "10s", "30s", "1m", "2m", "5m")


def legal(spec: LubanClusterSpec) -> bool:
    """Whether the API server would take the spec: the rules that the events here could break."""
    limits, scaling = [host.vms for host in spec.hosts], spec.scaling
    return (
        bool(spec.hosts)
        and all(it.min <= it.max for it in limits)
        and scaling.min_vms <= scaling.max_vms
        and all(it.min_vms <= scaling.max_vms for it in scaling.schedules)
        and sum(it.max for it in limits) >= scaling.min_vms
        and sum(it.min for it in limits) <= scaling.max_vms
        and scaling.sessions.lower_percent < scaling.sessions.upper_percent
    )


def ask(stage: Stage, **fields: Any) -> None:
    """Change top-level fields of the spec, given in wire format, if the API server lets them in."""
    changed = LubanClusterSpec.model_validate({**stage.centre.spec.wire(), **fields})
    if legal(changed):
        stage.centre.spec = changed
    else:
        stage.centre.note("   refused by the API server")


def _scaling(stage: Stage, **fields: Any) -> None:
    ask(stage, scaling={**stage.centre.spec.scaling.wire(), **fields})


def _hosts(stage: Stage) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = stage.centre.spec.wire()["hosts"]
    return listed


def _change_host(stage: Stage, name: str, **fields: Any) -> None:
    ask(stage, hosts=[it | fields if it["name"] == name else it for it in _hosts(stage)])


def host_entry(name: str, low: int, high: int) -> dict[str, Any]:
    """A host of the spec in wire format."""
    third = 17 + HOSTS.index(name)
    return {
        "name": name,
        "uri": f"qemu+tls://{name}/system",
        "forwardRange": f"127.0.{third}.0/24",
        "vms": {"min": low, "max": high},
    }


@kind("user-sets-limits", one_of(1, 1, 2, 2, 3), one_of(1, 2, 2, 3, 3, 4, 6))
def _(stage: Stage, low: int, high: int) -> None:
    _scaling(stage, minVMs=low, maxVMs=high)


@kind("user-sets-pool", one_of(0, 1, 1, 2, 3), either)
def _(stage: Stage, size: int, balloons: bool) -> None:
    ask(stage, pool={"size": size, "balloon": {"min": "256Mi"} if balloons else {}})


@kind("user-sets-policy", one_of("Sessions", "Sessions", "Rules", "Target", "Manual"))
def _(stage: Stage, policy: str) -> None:
    _scaling(stage, policy=policy)


@kind(
    "user-sets-rules",
    one_of("CPU", "Memory", "Sessions"),
    one_of(60, 70, 90),
    one_of(0, 20, 40),
    one_of(50, 80),
    either,
)
def _(stage: Stage, first: str, upper: int, lower: int, memory: int, safe: bool) -> None:
    """Two bands, the second of the memory, of which each VM needs something that is no load."""
    bands = [{"metric": first, "max": upper, "min": lower}, {"metric": "Memory", "max": memory, "min": 10}]
    _scaling(stage, policy="Rules", rules=bands, safeShrink=safe)


@kind("user-sets-victim", one_of("MostLoaded", "LeastSessions"))
def _(stage: Stage, victim: str) -> None:
    _scaling(stage, victim=victim)


@kind("user-sets-schedule", one_of(1, 2, 4), one_of(1, 3, 8), one_of(1, 2, 3, 4))
def _(stage: Stage, minutes: int, lasts: int, count: int) -> None:
    """Once, some minutes from now by the operator's clock."""
    begin = (stage.centre.wall // 60 + minutes) * 60
    at = datetime.fromtimestamp(begin, UTC)
    cron = f"{at.minute} {at.hour} {at.day} {at.month} *"
    schedule = {"name": "peak", "cron": cron, "duration": f"{lasts}m", "minVMs": count}
    _scaling(stage, schedules=[schedule])
    if stage.centre.spec.scaling.schedules and stage.centre.spec.scaling.schedules[0].cron == cron:
        stage.centre.scheduled = (begin, begin + 60.0 * lasts, count)


@kind("user-sets-target", one_of("CPU", "Sessions", "Memory"), one_of(30, 50, 80))
def _(stage: Stage, metric: str, percent: int) -> None:
    _scaling(stage, policy="Target", target={"metric": metric, "percent": percent})


@kind("user-sets-replicas", one_of(0, 1, 2, 3, 4, 5))
def _(stage: Stage, replicas: int) -> None:
    """`kubectl scale`, by hand from now on."""
    _scaling(stage, policy="Manual")
    ask(stage, replicas=replicas)


@kind("user-sets-thresholds", one_of(5, 10, 15), one_of(60, 70, 90), one_of(1, 2, 2, 3), one_of(50, 100, 100))
def _(stage: Stage, lower: int, upper: int, lower_quorum: int, upper_quorum: int) -> None:
    _scaling(
        stage,
        sessions={
            **stage.centre.spec.scaling.sessions.wire(),
            "lowerPercent": lower,
            "upperPercent": upper,
            "lowerQuorum": lower_quorum,
            "upperQuorumPercent": upper_quorum,
        },
    )


@kind("user-sets-sessions-per-vm", one_of(50, 100, 200))
def _(stage: Stage, sessions: int) -> None:
    _scaling(stage, sessions={**stage.centre.spec.scaling.sessions.wire(), "maxPerVM": sessions})


@kind("user-sets-growing", one_of(*DURATIONS), one_of(1, 2, 3), one_of(*DURATIONS))
def _(stage: Stage, window: str, step: int, cooldown: str) -> None:
    _behavior(stage, "scaleUp", window, step, cooldown)


@kind("user-sets-shrinking", one_of(*DURATIONS), one_of(1, 2, 3), one_of(*DURATIONS))
def _(stage: Stage, window: str, step: int, cooldown: str) -> None:
    _behavior(stage, "scaleDown", window, step, cooldown)


def _behavior(stage: Stage, direction: str, window: str, step: int, cooldown: str) -> None:
    behavior = stage.centre.spec.scaling.behavior.wire()
    behavior[direction] = {"stabilizationWindow": window, "step": step, "cooldown": cooldown}
    _scaling(stage, behavior=behavior)


@kind("user-sets-interval", one_of("5s", "15s", "60s"))
def _(stage: Stage, interval: str) -> None:
    _scaling(stage, interval=interval)


@kind("user-pauses-scale-in", either)
def _(stage: Stage, paused: bool) -> None:
    _scaling(stage, pauseScaleIn=paused)


@kind("user-sets-host-limits", a_host, one_of(0, 0, 1, 1, 2), one_of(1, 1, 2, 3))
def _(stage: Stage, host: str, low: int, high: int) -> None:
    _change_host(stage, host, vms={"min": low, "max": high})


@kind("user-cordons", a_host)
def _(stage: Stage, host: str) -> None:
    _change_host(stage, host, cordoned=True)


@kind("user-uncordons", a_host)
def _(stage: Stage, host: str) -> None:
    _change_host(stage, host, cordoned=False)


@kind("user-removes-host", a_host)
def _(stage: Stage, host: str) -> None:
    rest = [it for it in _hosts(stage) if it["name"] != host]
    if rest:
        ask(stage, hosts=rest)


@kind("user-adds-host", a_host, one_of(0, 1), one_of(1, 2, 3))
def _(stage: Stage, host: str, low: int, high: int) -> None:
    if host not in [it["name"] for it in _hosts(stage)]:
        ask(stage, hosts=[*_hosts(stage), host_entry(host, low, high)])


@kind("user-reorders-hosts")
def _(stage: Stage) -> None:
    ask(stage, hosts=_hosts(stage)[::-1])


@kind("user-rolls-out")
def _(stage: Stage) -> None:
    """Another template: a cpu more."""
    stage.centre.new_template()


@kind("user-rolls-back")
def _(stage: Stage) -> None:
    """The template of the beginning."""
    wire = stage.centre.spec.template.wire()
    wire["spec"]["domain"]["cpu"]["cores"] = 1
    ask(stage, template=wire)


@kind("user-sets-timings", one_of("30s", "60s", "3m", "5m"), one_of("0s", "30s", "1m"), one_of(0, 10, 30, 60))
def _(stage: Stage, startup: str, retention: str, grace: int) -> None:
    """Fields of the template that hold for the VMs there are."""
    wire = stage.centre.spec.template.wire()
    wire["spec"] |= {
        "startupTimeout": startup,
        "failedRetention": retention,
        "terminationGracePeriodSeconds": grace,
    }
    ask(stage, template=wire)


@kind("user-sets-bond-policy", one_of(*BOND_POLICIES))
def _(stage: Stage, policy: str) -> None:
    ask(stage, bondPolicy=policy)


@kind("user-pauses", one_of(True, False, False))
def _(stage: Stage, paused: bool) -> None:
    ask(stage, paused=paused)


@kind("user-sets-load-factors", one_of("Static", "Adaptive"))
def _(stage: Stage, factors: str) -> None:
    ask(stage, balancer={**stage.centre.spec.balancer.wire(), "loadFactors": factors})


@kind("user-sets-balancing", one_of("byrequests", "bytraffic", "bybusyness"))
def _(stage: Stage, method: str) -> None:
    ask(stage, balancer={**stage.centre.spec.balancer.wire(), "method": method})


@kind("user-sets-drain", one_of("5s", "30s", "60s"))
def _(stage: Stage, timeout: str) -> None:
    ask(stage, balancer={**stage.centre.spec.balancer.wire(), "drain": {"timeout": timeout}})


TIERS: dict[str, dict[str, Any]] = {
    "one": {},
    "two-each": {"replicas": {"min": 1, "max": 3}, "attachment": {"mode": "Cross", "p": 2, "dMax": 6}},
    "two-of-three": {"replicas": {"min": 3, "max": 3}, "attachment": {"mode": "Cross", "p": 2, "dMax": 4}},
    "slices": {"replicas": {"min": 1, "max": 3}, "attachment": {"mode": "Slice", "dMax": 2}},
}
"""Balancers by name of the arrangement: there is room for six VMs in each."""


@kind("user-sets-tier", one_of("one", "two-each", "two-each", "two-of-three", "slices"))
def _(stage: Stage, tier: str) -> None:
    rest = {key: it for key, it in stage.centre.spec.balancer.wire().items() if key not in ("replicas", "attachment")}
    ask(stage, balancer={**rest, **TIERS[tier]})


@kind("user-sets-deletion-policy", one_of("Delete", "Orphan"))
def _(stage: Stage, policy: str) -> None:
    ask(stage, deletionPolicy=policy)


@kind("user-deletes-vm", a_vm)
def _(stage: Stage, which: int | str) -> None:
    if (vm := stage.pick(which)) is not None:
        stage.centre.asked.add(vm.name)
        stage.centre.user_deletes(vm.name)


@kind("user-tears-out-vm", a_vm)
def _(stage: Stage, which: int | str) -> None:
    """Deletes a LubanVM and strips its finalizer."""
    if (vm := stage.pick(which)) is not None:
        stage.centre.asked.add(vm.name)
        del stage.centre.vms[vm.name]


@kind("user-deletes-cluster")
def _(stage: Stage) -> None:
    stage.centre.deleting = True


def open_hosts(spec: LubanClusterSpec) -> list[Host]:
    """Hosts on which the user lets new VMs be placed."""
    return [host for host in spec.hosts if not host.cordoned]


def first_spec(dice: random.Random) -> dict[str, Any]:
    """A spec by chance that the API server takes."""
    while True:
        wire = _some_spec(dice)
        if legal(LubanClusterSpec.model_validate(wire)):
            return wire


def _some_spec(dice: random.Random) -> dict[str, Any]:
    names = HOSTS[: dice.choice((1, 2, 2, 2, 3))]
    hosts = [host_entry(name, dice.choice((0, 0, 1, 1)), dice.choice((1, 2, 2, 3, 3))) for name in names]
    low = dice.choice((1, 1, 2, 2, 3))
    scaling: dict[str, Any] = {"minVMs": low, "maxVMs": max(low, dice.choice((2, 2, 3, 4, 6))), "interval": "15s"}
    scaling["rules"] = [{"metric": "CPU", "max": 70, "min": 20}]
    spec: dict[str, Any] = {"hosts": hosts, "scaling": scaling, "template": {"spec": {"image": {"volume": "w.qcow2"}}}}
    if dice.random() < 0.3:
        scaling["policy"], spec["replicas"] = "Manual", dice.choice((1, 2, 3, 4))
    if dice.random() < 0.6:
        scaling["behavior"] = {"scaleDown": {"stabilizationWindow": dice.choice(("0s", "30s", "2m"))}}
    if dice.random() < 0.3:
        scaling["sessions"] = {"lowerQuorum": dice.choice((1, 2)), "upperQuorumPercent": dice.choice((50, 100))}
    if dice.random() < 0.3:
        spec["balancer"] = {"loadFactors": "Adaptive", "drain": {"timeout": dice.choice(("10s", "30s"))}}
    if dice.random() < 0.3:
        spec["bondPolicy"] = dice.choice(("Require", "Ignore"))
    if dice.random() < 0.3:
        spec["template"]["spec"]["network"] = {"type": "User"}
    if dice.random() < 0.4:
        spec["pool"] = {"size": dice.choice((1, 1, 2, 3))}
    return spec
