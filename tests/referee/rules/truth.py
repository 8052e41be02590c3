"""Facts that several rules judge by. All of them are read from the world, none from what the operator says."""

from __future__ import annotations

import math

from tests.referee.bridge import Host, Measure, VMRecord, figures_at
from tests.referee.centre import RUNS, DataCentre


def staying(centre: DataCentre) -> list[VMRecord]:
    """VMs that nobody has asked to leave, nor sent to the pool."""
    return [vm for vm in centre.by_age() if vm.deleting_since is None and vm.role == "Serving"]


def host_of(centre: DataCentre, name: str) -> Host | None:
    """The host's entry in the spec; None: it is not, or no longer, there."""
    return next((host for host in centre.spec.hosts if host.name == name), None)


def is_emptied(centre: DataCentre, name: str) -> bool:
    """Whether the user wants nothing on the host: cordoned, or gone from the spec."""
    host = host_of(centre, name)
    return host is None or host.cordoned


def is_outdated(centre: DataCentre, vm: VMRecord) -> bool:
    """Whether the spec asks for another machine than this."""
    wanted, has = centre.spec.template.spec, vm.template
    return any(
        getattr(has, part) != getattr(wanted, part) for part in ("domain", "image", "network", "cloud_init", "port")
    )


def must_move(centre: DataCentre, vm: VMRecord) -> bool:
    """Whether the user asked for something that this VM is in the way of: another template, an empty host, fewer VMs
    on its host."""
    host = host_of(centre, vm.host)
    if host is None or host.cordoned or is_outdated(centre, vm):
        return True
    return sum(it.host == vm.host for it in staying(centre)) > host.vms.max


def admits(centre: DataCentre, host: Host) -> bool:
    """Whether the host's bond is good enough for a new VM."""
    verdict = centre.rack(host.name).bond
    return {"Ignore": True, "Prefer": verdict != "Down", "Require": verdict == "Healthy"}[centre.spec.bond_policy]


def has_place(centre: DataCentre, vms: list[VMRecord], *, now: bool) -> bool:
    """Whether one more VM fits beside `vms`. `now`: on a host that answers; else also on one that will.

    What stands on a host that was given up takes no place, unless it answers all the same.
    """
    vms = [vm for vm in vms if centre.rack(vm.host).reachable or not is_emptied(centre, vm.host) or centre.serves(vm)]
    return len(vms) < centre.spec.scaling.max_vms and any(
        not host.cordoned
        and admits(centre, host)
        and (not now or centre.seems_up(host.name))
        and sum(it.host == host.name for it in vms) < host.vms.max
        for host in centre.spec.hosts
    )


def makes_room(centre: DataCentre, vm: VMRecord) -> bool:
    """Whether what the user asked for cannot be had but by taking this VM before its successor serves.

    That is so only if each VM that stays answers users (or another one would make room), none more fits for good
    (a place that a leaving VM still holds, or on a host that is silent now, is waited for), and the successor can
    start at once when this one is gone. One that answers nobody, on a dead host that the user emptied, makes no room.
    """
    here = [
        it
        for it in staying(centre)
        if centre.serves(it) or centre.rack(it.host).reachable or not is_emptied(centre, it.host)
    ]
    others = [it for it in here if it.name != vm.name]
    return (
        must_move(centre, vm)
        and all(centre.serves(it) for it in here)
        and not has_place(centre, here, now=False)
        and has_place(centre, others, now=True)
    )


def ceiling(centre: DataCentre) -> int:
    """VMs that may be there at most."""
    return min(centre.spec.scaling.max_vms, sum(host.vms.max for host in centre.spec.hosts))


def floor(centre: DataCentre) -> int:
    """VMs that should be there at least."""
    of_hosts = sum(host.vms.min for host in centre.spec.hosts if not host.cordoned)
    return min(max(asked_for(centre), of_hosts), ceiling(centre))


def asked_for(centre: DataCentre) -> int:
    """minVMs, or what a schedule asks for that lasts now, by the operator's clock."""
    begin, end, count = centre.scheduled
    return max(centre.spec.scaling.min_vms, count if begin <= centre.wall < end else 0)


def load_in_words(centre: DataCentre) -> str:
    """What the policy must make of the load now: low, high, between, unknown, or unmeasured (there are clients, or
    could be, and nobody answers them)."""
    if centre.metrics_lost or not centre.speaks():
        return "unknown"
    shares = list(centre.shares().values())
    if not shares:
        return "unmeasured"
    match centre.spec.scaling.policy:
        case "Rules":
            return _by_rules(centre, shares)
        case "Target":
            return _by_target(centre, shares)
    return _by_sessions(centre, shares)


def _by_sessions(centre: DataCentre, shares: list[int]) -> str:
    limits = centre.spec.scaling.sessions
    above = sum(100 * it >= limits.upper_percent * limits.max_per_vm for it in shares)
    below = sum(100 * it <= limits.lower_percent * limits.max_per_vm for it in shares)
    if 100 * above >= limits.upper_quorum_percent * len(shares):
        return "high"
    return "low" if below >= limits.lower_quorum else "between"


def _by_rules(centre: DataCentre, shares: list[int]) -> str:
    """The first rule whose mean is outside its band; a shrink that is not safe is none."""
    scaling, count = centre.spec.scaling, len(shares)
    means = [(rule, _total(centre, rule, shares) / count) for rule in scaling.rules]
    safe = count > 1 and all(mean * count / (count - 1) < rule.max for rule, mean in means)
    for rule, mean in means:
        if mean > rule.max:
            return "high"
        if mean < rule.min and (safe or not scaling.safe_shrink):
            return "low"
    return "between"


def _by_target(centre: DataCentre, shares: list[int]) -> str:
    """Whether the mean is more than a tenth away from the target, and another number would be nearer. Those that start
    are among the number."""
    target, count = centre.spec.scaling.target, max(1, len(staying(centre)))
    total = _total(centre, target, shares)
    needed = max(1, math.ceil(total / target.percent - 1e-9))
    if abs(total / count / target.percent - 1) <= 0.1 + 1e-9 or needed == count:
        return "between"
    return "high" if needed > count else "low"


def _total(centre: DataCentre, measure: Measure, shares: list[int]) -> float:
    """A metric of all VMs in percent, as the simulator makes it out of their sessions."""
    if measure.metric == "Sessions":
        return sum(100 * it / centre.spec.scaling.sessions.max_per_vm for it in shares)
    figures = [figures_at(it, 0.0) for it in shares]
    return sum((it.cpu if measure.metric == "CPU" else it.memory) or 0.0 for it in figures)


def may_come_to_run(centre: DataCentre, vm: VMRecord) -> bool:
    """Whether the VM's domain runs, or may yet.

    A domain is started only at the beginning of a VM's life; one that stopped by itself later stays off. What the user
    gave up (its host does not answer and was emptied, or the VM was asked to leave) does not count: a
    dead host would hold the places of its VMs for ever.
    """
    if not centre.rack(vm.host).reachable:
        return not is_emptied(centre, vm.host) and vm.deleting_since is None
    domain = centre.domain(vm)
    if domain is not None and domain.state in RUNS:
        return True
    return vm.phase in ("Pending", "Provisioning") and vm.deleting_since is None


def runs_on(centre: DataCentre, host: str, *, but: str = "", pool: bool = True) -> int:
    """How many of the cluster's LubanVMs run on the host, without the one with the uid `but`. `pool`: with those of it.

    What the user gave up is not counted: see `may_come_to_run`.
    """
    domains = centre.rack(host).domains
    return sum(
        vm.uid in domains and domains[vm.uid].state in RUNS and vm.uid != but and may_come_to_run(centre, vm)
        for vm in centre.vms.values()
        if vm.host == host and (pool or vm.role == "Serving")
    )
