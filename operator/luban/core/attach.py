"""Who serves whom (ELBaaS, cross scheduling): which balancers send requests to which VMs, and how many it takes.

Each VM is attached to p balancers, and none has more than d_max VMs. Where the room is not enough for that, every VM
gets one before any gets two. No balancer has two VMs fewer than another. What is attached stays where it is as far as
that allows; and what moves is let go by its old balancer only once a new one sends it requests, if there is room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Front:
    """A balancer that can take VMs."""

    name: str
    host: str = ""
    """Name of the host that it runs on; empty: none of the cluster's, or not known."""
    attached: frozenset[str] = frozenset()
    """VMs that it was told of, those on their way out left aside."""
    sending: frozenset[str] = frozenset()
    """VMs that it is known to send requests to."""


@dataclass(frozen=True)
class AttachmentRule:
    """How many balancers a VM shall have, and how many VMs a balancer may have."""

    p: int
    """Balancers per VM."""
    d_max: int
    """VMs per balancer."""


Attached = dict[str, frozenset[str]]
"""By balancer: its VMs."""


def attach(vms: Mapping[str, str], fronts: Sequence[Front], rule: AttachmentRule) -> Attached:
    """VMs of each balancer, from what is attached now. `vms`: by name, the host of each.

    What was carried out and is asked again gives the same: the result for the result is itself, once the balancers
    send requests to all that they were told of.
    """
    if not fronts:
        return {}
    table = _Table(vms, fronts, rule)
    table.take_over()
    table.trim()
    table.fill()
    table.level_out()
    return _one_after_the_other(table, fronts, rule.d_max)


@dataclass
class _Table:
    """Attachments while they are worked out."""

    vms: Mapping[str, str]
    fronts: Sequence[Front]
    rule: AttachmentRule
    of: dict[str, set[str]] = field(default_factory=dict)
    """By balancer: its VMs."""
    has: dict[str, set[str]] = field(default_factory=dict)
    """By VM: its balancers."""

    def __post_init__(self) -> None:
        self._hosts = {front.name: front.host for front in self.fronts}
        self._before = {front.name: front.attached for front in self.fronts}
        self.of = {front.name: set() for front in self.fronts}
        self.has = {vm: set() for vm in sorted(self.vms)}
        self._wanted = min(self.rule.p, len(self.fronts))

    def _add(self, vm: str, balancer: str) -> None:
        self.of[balancer].add(vm)
        self.has[vm].add(balancer)

    def _drop(self, vm: str, balancer: str) -> None:
        self.of[balancer].remove(vm)
        self.has[vm].remove(balancer)

    def _beside(self, vm: str, balancer: str) -> bool:
        """Whether both are on one host, and so fail together."""
        return bool(self._hosts[balancer]) and self._hosts[balancer] == self.vms[vm]

    def take_over(self) -> None:
        """What is attached now, but for what d_max does not allow any more."""
        for front in self.fronts:
            for vm in front.attached & self.has.keys():
                self._add(vm, front.name)
        for balancer, found in self.of.items():
            if len(found) > self.rule.d_max:
                by_need = sorted(found, key=lambda vm: (len(self.has[vm]), vm))
                for vm in by_need[self.rule.d_max :]:
                    self._drop(vm, balancer)

    def trim(self) -> None:
        """Let VMs with too many balancers go, from the fullest ones."""
        for vm, balancers in self.has.items():
            while len(balancers) > self._wanted:
                self._drop(vm, max(balancers, key=lambda it: (len(self.of[it]), self._beside(vm, it), it)))

    def fill(self) -> None:
        """Give VMs with too few balancers more: one to each first, then a second one, and so on."""
        for level in range(1, self._wanted + 1):
            for vm, balancers in self.has.items():
                # If there is no room for one, there is none for any.
                if len(balancers) < level and not (self._join(vm) or self._make_room(vm) or self._take_from(vm, level)):
                    return

    def _join(self, vm: str) -> bool:
        """Attach a VM to the emptiest balancer that has room."""
        found = min((it for it in self.of if self._may_join(vm, it)), key=lambda it: self._rank(vm, it), default=None)
        if found is not None:
            self._add(vm, found)
        return found is not None

    def _may_join(self, vm: str, balancer: str) -> bool:
        return vm not in self.of[balancer] and len(self.of[balancer]) < self.rule.d_max

    def _rank(self, vm: str, balancer: str) -> tuple[int, bool, str]:
        return len(self.of[balancer]), self._beside(vm, balancer), balancer

    def _make_room(self, vm: str) -> bool:
        """All room is where the VM is already: somebody else moves there.

        It is there for the finding: a full balancer has a VM that one with room has not.
        """
        free = min((it for it in self.of if len(self.of[it]) < self.rule.d_max), key=self._load, default=None)
        if free is None:
            return False
        full = min(self.of.keys() - self.has[vm])
        self._move(self._cheapest(self.of[full] - self.of[free], full, free), full, free)
        self._add(vm, full)
        return True

    def _take_from(self, vm: str, level: int) -> bool:
        """There is no room at all: a VM that has more balancers than `level` gives one away."""
        rich = [
            (-len(self.has[other]), other in self._before[balancer], balancer, other)
            for balancer in self.of.keys() - self.has[vm]
            for other in self.of[balancer]
            if len(self.has[other]) > level
        ]
        if not rich:
            return False
        _, _, balancer, other = min(rich)
        self._drop(other, balancer)
        self._add(vm, balancer)
        return True

    def level_out(self) -> None:
        """Move VMs from the fullest balancer to the emptiest, until no other has two more than it."""
        while (
            len(self.of[full := max(self.of, key=self._load)]) - len(self.of[low := min(self.of, key=self._load)]) > 1
        ):
            self._move(self._cheapest(self.of[full] - self.of[low], full, low), full, low)

    def _load(self, balancer: str) -> tuple[int, str]:
        return len(self.of[balancer]), balancer

    def _cheapest(self, vms: Iterable[str], source: str, target: str) -> str:
        """Whom to move: one that nothing changes for, then one that it takes off its host, or not to it."""
        return min(
            vms,
            key=lambda vm: (
                vm in self._before[source],
                vm not in self._before[target],
                self._beside(vm, target),
                not self._beside(vm, source),
                vm,
            ),
        )

    def _move(self, vm: str, source: str, target: str) -> None:
        self._drop(vm, source)
        self._add(vm, target)


def _one_after_the_other(table: _Table, fronts: Sequence[Front], d_max: int) -> Attached:
    """What is attached now and not wanted any more stays as long as the VM would serve less without it.

    First what a VM cannot do without, then what comes new, then the rest, as long as there is room.
    """
    if all(table.of[front.name] == front.attached for front in fronts):
        return {front.name: front.attached for front in fronts}
    sent = {front.name: front.sending for front in fronts}
    serves = {vm: [vm in sent[it] for it in found] for vm, found in table.has.items()}
    idle = {vm for vm, found in serves.items() if not any(found)}
    halting = {vm for vm, found in serves.items() if not all(found)} - idle
    needed: dict[str, str] = {}
    for front in sorted(fronts, key=lambda it: (len(it.attached), it.name)):
        needed = dict.fromkeys(idle & front.attached & front.sending, front.name) | needed
    return {front.name: _stage(front, table, needed, halting, d_max) for front in fronts}


def _stage(front: Front, table: _Table, needed: Mapping[str, str], halting: set[str], d_max: int) -> frozenset[str]:
    """`needed`: by VM that would serve nobody, the balancer that keeps it. `halting`: VMs that would serve less."""
    wanted, going = table.of[front.name], front.attached - table.of[front.name]
    kept = (wanted & front.attached).union(vm for vm in going if needed.get(vm) == front.name)
    coming = sorted(wanted - front.attached, key=lambda vm: (len(table.has[vm]), vm))
    spare = sorted(going & halting & front.sending)
    return frozenset(kept.union([*coming, *spare][: max(0, d_max - len(kept))]))


@dataclass(frozen=True)
class TierNeed:
    """How many balancers are needed, and why."""

    count: int
    reason: str
    message: str


def balancers_needed(vms: int, lost: int, rule: AttachmentRule, minimum: int, maximum: int) -> TierNeed:
    """How many balancers so many VMs need: p different ones, with room for p attachments each.

    `lost`: balancers that are known to serve nobody; others stand in for them.
    """
    room = -(-vms * rule.p // rule.d_max)
    reason, need, message = "BalancersPerVM", rule.p if vms else 0, f"each VM has {rule.p} balancers"
    if room > need:
        reason, need = "AttachmentRoom", room
        message = f"{vms} VMs with {rule.p} balancers each, at most {rule.d_max} VMs per balancer"
    if lost:
        reason, need, message = "BalancerLost", need + lost, f"{message}; {lost} serve nobody"
    if need <= minimum:
        reason, need, message = "Minimum", minimum, f"balancer.replicas.min is {minimum}"
    if need > maximum:
        return TierNeed(maximum, "TierAtMaximum", f"{message}: {need} are needed, balancer.replicas.max is {maximum}")
    return TierNeed(need, reason, message)


def violations(vms: Mapping[str, frozenset[str]], balancers: Mapping[str, int], rule: AttachmentRule) -> dict[str, int]:
    """How often each invariant of cross scheduling does not hold. `vms`: by VM, the balancers that send it requests.
    `balancers`: those that are ready, and to how many VMs each sends requests.

    TooFewBalancers: VMs with fewer than p, or than all, though there is room. AboveMaximum: balancers with more than
    d_max VMs. Idle: balancers without a VM while another has two or more.
    """
    wanted = min(rule.p, len(balancers), len(balancers) * rule.d_max // max(1, len(vms)))
    most = max(balancers.values(), default=0)
    return {
        "TooFewBalancers": sum(len(found & balancers.keys()) < wanted for found in vms.values()),
        "AboveMaximum": sum(count > rule.d_max for count in balancers.values()),
        "Idle": sum(count == 0 and most > 1 for count in balancers.values()),
    }
