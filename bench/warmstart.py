"""How fast the cluster grows out of its pool: decision -> first request answered by the VM that was taken.

Baseline: the same without a pool, in turn in one run of the lab: decision -> first request answered by a new VM. Both
are asked for through httpd every POLL_SECONDS.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.reaction import answering_vm, decided_at
from bench.result import Result, say, spread
from lab.datacentre import CLUSTER, NAMESPACE, DataCentre
from lab.paths import Layout
from lab.process import LabError

BASE = 152
RUNS = 3
DEADLINE = 300.0
POLL_SECONDS = 0.02
CALM_SECONDS = 0.5
"""Between two looks at what nobody waits for."""


def until(condition: Callable[[], object], what: str, pause: float = CALM_SECONDS) -> None:
    """Poll until `condition` holds. Raises LabError naming `what`."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {DEADLINE:g} s")
        time.sleep(pause)


def patch(lab: DataCentre, **spec: Any) -> None:
    """Change fields of the cluster's spec."""
    text = json.dumps({"spec": spec})
    lab.kubectl("-n", NAMESPACE, "patch", "lubancluster", CLUSTER, "--type=merge", "-p", text)


def vms(lab: DataCentre) -> list[dict[str, Any]]:
    """The cluster's LubanVMs."""
    return list(json.loads(lab.kubectl("-n", NAMESPACE, "get", "lubanvms", "-o", "json"))["items"])


def settled(lab: DataCentre, serving: int, warm: int) -> bool:
    """Whether so many serve, so many are warm, and nothing else is there."""
    text = lab.kubectl("-n", NAMESPACE, "get", "lubancluster", CLUSTER, "-o", "json")
    counts = json.loads(text).get("status", {}).get("vms", {})
    return (counts.get("serving"), counts.get("warm")) == (serving, warm) and len(vms(lab)) == serving + warm


def grow_once(lab: DataCentre) -> float:
    """Seconds from the decision for a third VM to its first answer."""
    before = decided_at(lab)
    known = {vm["metadata"]["name"] for vm in vms(lab) if vm["spec"].get("role", "Serving") == "Serving"}
    patch(lab, replicas=3)
    until(lambda: answering_vm(lab) not in {"", *known}, "first answer of the third VM", POLL_SECONDS)
    answered = time.time()
    decided = decided_at(lab)
    if decided is None or decided == before:
        raise LabError("the operator's log tells of no decision to grow")
    return answered - decided


def one_run(lab: DataCentre, warm: int) -> float:
    """One growth from two VMs to three, with so many in the pool, and back."""
    patch(lab, replicas=2, pool={"size": warm})
    until(lambda: settled(lab, 2, warm), f"two VMs serve, {warm} are warm")
    seconds = grow_once(lab)
    patch(lab, replicas=2, pool={"size": 0})
    until(lambda: settled(lab, 2, 0), "two VMs are left")
    return seconds


def measure(lab: DataCentre) -> Result:
    """All runs, out of the pool and without it in turn."""
    lab.apply_sample()
    patch(lab, replicas=2, scaling={"policy": "Manual"})
    until(lambda: settled(lab, 2, 0), "two VMs serve")
    warm, cold = [], []
    for run in range(RUNS):
        warm.append(one_run(lab, 1))
        cold.append(one_run(lab, 0))
        say(f"run {run + 1}/{RUNS}: warm {warm[-1]:.2f} s, cold {cold[-1]:.1f} s")
    return Result(
        bench="warmstart",
        value=median(warm),
        unit="s from decision to the first request answered by the VM out of the pool",
        baseline="s from decision to the first request answered by a new VM, same cluster without a pool",
        baseline_value=median(cold),
        ratio=median(cold) / median(warm),
        detail={"warm": spread(warm), "cold": spread(cold), "state": "Paused"},
    )


def main() -> None:
    """Bring a lab up, measure, take it down."""
    lab = DataCentre(Layout.from_environment(BASE), say)
    try:
        lab.destroy()
        lab.up()
        measure(lab).print()
    finally:
        lab.destroy()


if __name__ == "__main__":
    main()
