"""The simulated data centre with all that can go wrong in it, and what is true in it whoever says otherwise."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

from tests.referee.bridge import (
    BALANCER,
    TIMINGS,
    Action,
    DestroyDomain,
    Domain,
    EnsureDomain,
    Failure,
    HostObservation,
    Machine,
    Member,
    Observation,
    Proxy,
    RemoveDomain,
    ShutdownDomain,
    SuspendDomain,
    UpdateVM,
    VMRecord,
    World,
)

HOST_MEMORY_SECONDS = 5.0
"""A host that does not answer counts so long as it was seen last."""
RUNS = frozenset({"Running", "Paused", "ShuttingDown"})
SHORT_LIFE_SECONDS = 2.0
"""So long a domain lives that cannot boot."""


@dataclass
class Rack(Machine):
    """A KVM host with more ways to fail."""

    slow_until: float = -math.inf
    """libvirt takes too long for every call until then."""
    slow_since: float = 0.0
    picture: dict[str, Domain] = field(default_factory=dict)
    """Its domains as they were when it became slow."""
    no_boot: bool = False
    """Domains stop as soon as they are started."""
    volumes_stuck: bool = False
    """Volumes cannot be deleted."""
    cut: bool = False
    """No packet passes between the balancer and the VMs here."""


@dataclass
class Gate(Proxy):
    """A balancer that may be down as a whole."""

    down: bool = False
    """httpd is not running: users get nothing."""

    def speaks(self) -> bool:
        """Whether its agent answers and can say something about members."""
        return self.reachable and not self.blind and not self.down

    def back(self) -> None:
        """Its Pod runs, and nothing ails it."""
        self.reachable, self.blind, self.down, self.starts_at = True, False, False, math.inf


@dataclass
class DataCentre(World):
    """World with the referee's faults and truths."""

    clock_offset: float = 0.0
    """The operator's wall clock is ahead of the world's time by so many seconds."""
    uneven: tuple[int, ...] = (1,)
    """Sessions spread over the members in these proportions, by order of age."""
    scheduled: tuple[float, float, int] = (0.0, 0.0, 0)
    """The schedule that a user set last: it lasts from one time of day to another, and asks for so many VMs."""
    asked: set[str] = field(default_factory=set)
    """VMs that the user deleted or tore out."""
    leases: int = 0
    """Addresses given out by faults."""
    ever_answered: set[str] = field(default_factory=set)
    """UIDs of VMs that once answered users."""
    after: Callable[[Action, Failure | None], None] = lambda _action, _failure: None
    """Called after each action with its failure."""

    def __post_init__(self) -> None:
        """The simulator's machines and balancer give way to those that can fail in more ways."""
        self.machines = defaultdict(Rack)
        self.proxies = {BALANCER: Gate()}

    @property
    def wall(self) -> float:
        """What the operator's wall clock shows."""
        return self.now + self.clock_offset

    def rack(self, name: str) -> Rack:
        """A host by name."""
        found = self.machines[name]
        assert isinstance(found, Rack)
        return found

    @property
    def gate(self) -> Gate:
        """The first balancer."""
        return self.gates[0]

    @property
    def gates(self) -> list[Gate]:
        """All balancers, those among them that are being started or have ended."""
        return [gate for _, gate in sorted(self.proxies.items()) if isinstance(gate, Gate)]

    def speaks(self) -> bool:
        """Whether any balancer says something about members."""
        return any(gate.speaks() and gate.applied is not None for gate in self.gates)

    def new_proxy(self) -> Gate:
        """A balancer whose Pod is being started."""
        return Gate(reachable=False, starts_at=self.now + self.pod_seconds)

    # What is true.

    def answers_at(self, address: str) -> bool:
        """Whether a request that the balancer sends to this address is answered."""
        return any(
            it.address == address and self._domain_answers(it)
            for rack in self.machines.values()
            if not self._is_cut(rack)
            for it in rack.domains.values()
        )

    def _is_cut(self, machine: Machine) -> bool:
        return isinstance(machine, Rack) and machine.cut

    def _domain_answers(self, domain: Domain) -> bool:
        return domain.state == "Running" and self._is_up(domain) and not domain.hung

    def routed(self, vm: VMRecord) -> bool:
        """Whether an httpd that runs sends users' requests to where the VM really is."""
        return any(self.routes(gate, vm) for gate in self.gates)

    def routes(self, gate: Gate, vm: VMRecord) -> bool:
        """Whether this balancer's httpd does."""
        domain = self.domain(vm)
        if gate.down or gate.applied is None or domain is None or self.rack(vm.host).cut:
            return False
        return any(
            it.name == vm.name and it.state == "Enabled" and it.address == domain.address for it in gate.applied.members
        )

    def carries(self, proxy: Proxy, name: str) -> bool:
        """None through one whose httpd is down."""
        return not (isinstance(proxy, Gate) and proxy.down) and super().carries(proxy, name)

    def told(self, *, but: str) -> set[str]:
        """VMs that the other balancers are told to send requests to."""
        published = [
            gate.published for name, gate in self.proxies.items() if name != but and gate.published is not None
        ]
        return {member.name for content in published for member in content.members if member.state == "Enabled"}

    def goes_on_without(self, balancer: str, vm: VMRecord) -> bool:
        """Whether another balancer sends users' requests to the VM, and is told to go on so."""
        others = [gate for name, gate in self.proxies.items() if name != balancer and isinstance(gate, Gate)]
        return vm.name in self.told(but=balancer) and any(self.routes(gate, vm) for gate in others)

    def serves(self, vm: VMRecord) -> bool:
        """Whether the VM answers users."""
        return self.answers(vm) and self.routed(vm)

    def serving(self) -> list[VMRecord]:
        """VMs that answer users, oldest first."""
        return [vm for vm in self.by_age() if self.serves(vm)]

    def by_age(self) -> list[VMRecord]:
        """All VMs, oldest first."""
        return sorted(self.vms.values(), key=lambda vm: (vm.created, vm.name))

    def shares(self) -> dict[str, int]:
        """Active sessions of each VM that answers users."""
        names = [vm.name for vm in self.serving()]
        weights = [self.uneven[index % len(self.uneven)] for index in range(len(names))]
        return dict(zip(names, _apportioned(self.load, weights), strict=True))

    def in_use(self, vm: VMRecord) -> bool:
        """Whether stopping the VM now would break requests that it would have answered."""
        if not self.answers(vm) or self.rack(vm.host).cut:
            return False
        return any(self.in_flight(gate, vm.name) for gate in self.gates if not gate.down)

    def answering_host(self, name: str) -> bool:
        """Whether libvirt on the host answers in time."""
        rack = self.rack(name)
        return rack.reachable and rack.slow_until <= self.now

    def seems_up(self, name: str) -> bool:
        """Whether an operator takes the host for one that answers: a slow one is not found out at once."""
        rack = self.rack(name)
        return rack.reachable and (rack.slow_until <= self.now or self.now - rack.slow_since <= HOST_MEMORY_SECONDS)

    # What an operator sees.

    def observe(self, failures: Mapping[str, Failure] | None = None) -> Observation:
        """What the runtime's observer would see now: existing VMs have the spec's own timings."""
        seen = super().observe(failures)
        return replace(seen, vms=tuple(self._timed(vm) for vm in seen.vms))

    def _is_measured(self, host: str) -> bool:
        return self.answering_host(host)

    def _timed(self, vm: VMRecord) -> VMRecord:
        wanted = self.spec.template.spec
        if vm.template is wanted:
            return vm
        update = {name: getattr(wanted, name) for name in TIMINGS}
        return replace(vm, template=vm.template.model_copy(update=update))

    def _host(self, name: str) -> HostObservation:
        rack = self.rack(name)
        if not rack.reachable or rack.slow_until <= self.now:
            return super()._host(name)
        if self.now - rack.slow_since > HOST_MEMORY_SECONDS:
            return HostObservation(name, False, f"libvirt on {name} has not answered yet")
        real, rack.domains = rack.domains, rack.picture
        seen = super()._host(name)
        rack.domains = real
        return seen

    def _report(self, name: str, proxy: Proxy):  # type: ignore[no-untyped-def]
        report = super()._report(name, proxy)
        members = tuple(replace(it, healthy=self.answers_at(it.address)) for it in report.members)
        return replace(report, members=members)

    # What happens by itself.

    def _settle(self) -> None:
        super()._settle()
        for vm in self.vms.values():
            if vm.uid not in self.ever_answered and self.serves(vm):
                self.ever_answered.add(vm.uid)

    # What an operator does.

    def do(self, action: Action) -> Failure | None:
        """Carry out one action; a failure, if it could not be."""
        failure = super().do(action)
        if failure is not None:
            self.note(f"    failed: {failure.reason}: {failure.message}")
        self.after(action, failure)
        return failure

    def _update(self, action: UpdateVM) -> None:
        """The time of a transition is what the operator's wall clock shows."""
        before = self.vms.get(action.name)
        super()._update(action)
        if before is not None and before.phase != action.phase:
            self.vms[action.name] = replace(self.vms[action.name], phase_since=self.wall)

    def _ensure(self, vm: VMRecord) -> Failure | None:
        rack = self.rack(vm.host)
        found = rack.domains.get(vm.uid)
        if (late := self._late(vm.host)) is not None or (found is not None and found.state in RUNS):
            return late
        failure = super()._ensure(vm)
        if failure is None and rack.no_boot:
            domain = rack.domains[vm.uid]
            domain.state, domain.off_at = "ShuttingDown", self.now + SHORT_LIFE_SECONDS
        return failure

    def _end(self, vm: VMRecord, action: Action) -> Failure | None:
        if (late := self._late(vm.host)) is not None:
            return late
        domain = self.domain(vm)
        if isinstance(action, ShutdownDomain) and domain is not None and domain.state == "Paused":
            return Failure("DomainBusy", "requested operation is not valid: domain is not running", permanent=False)
        if isinstance(action, RemoveDomain) and self.rack(vm.host).volumes_stuck:
            return Failure("VolumeBusy", "cannot unlink the overlay: input/output error", permanent=False)
        return super()._end(vm, action)

    def _rest(self, vm: VMRecord, action: Action) -> Failure | None:
        return self._late(vm.host) or super()._rest(vm, action)

    def _late(self, host: str) -> Failure | None:
        if self.rack(host).slow_until <= self.now:
            return None
        return Failure("HostTimeout", f"libvirt on {host} did not answer in time", permanent=False)

    # Faults.

    def lose_power(self, name: str) -> None:
        """A host goes dark: its domains are off, libvirt says nothing."""
        rack = self.rack(name)
        rack.reachable = False
        for domain in rack.domains.values():
            self.recover(domain)
            domain.state = "Off"

    def come_back(self, name: str, *, running: bool) -> None:
        """A host is back. `running`: domains that are off start by themselves."""
        rack = self.rack(name)
        rack.reachable, rack.slow_until = True, -math.inf
        for domain in rack.domains.values():
            if running and domain.state in ("Off", "Crashed"):
                domain.state, domain.started = "Running", self.now

    def slow_down(self, name: str, seconds: float) -> None:
        """libvirt on the host does not answer for a while."""
        rack = self.rack(name)
        if rack.slow_until <= self.now:
            rack.slow_since, rack.picture = self.now, deepcopy(rack.domains)
        rack.slow_until = self.now + seconds

    def renew(self, domain: Domain) -> None:
        """The domain gets an address that no other has."""
        self.leases += 1
        domain.address = f"10.9.{self.leases // 250}.{self.leases % 250 + 1}"

    def recover(self, domain: Domain) -> None:
        """A domain answers again; if another has got its address meanwhile, at one of its own."""
        if domain.hung and sum(it.address == domain.address for it in self.domains().values()) > 1:
            self.renew(domain)
        domain.hung = False

    def heal(self, *, dead: frozenset[str] = frozenset()) -> None:
        """Nothing goes wrong any more, except that `dead` hosts stay dead; what users asked for stays asked."""
        for name in [*self.machines]:
            if name not in dead:
                self._repair(self.rack(name))
        pods = self.tier.replicas if self.tier is not None else 1
        for gate in self.gates[:pods]:
            gate.back()
        self.metrics_lost = self.probes_lost = False
        self.uneven = (1,)
        self.boot_seconds, self.shutdown_seconds, self.request_seconds = 20.0, 5.0, 4.0

    def _repair(self, rack: Rack) -> None:
        rack.reachable, rack.slow_until, rack.refuses = True, -math.inf, None
        rack.no_boot = rack.volumes_stuck = rack.cut = False
        rack.bond = None if rack.bond == "Down" else rack.bond
        for domain in rack.domains.values():
            self.recover(domain)
            domain.boot_seconds = min(domain.boot_seconds, 20.0)
            domain.stuck = False


def _apportioned(total: int, weights: list[int]) -> list[int]:
    """`total` in whole parts that are as near to the weights as can be."""
    if not sum(weights):
        weights = [1] * len(weights)
    whole, given, parts = sum(weights), 0, []
    for index in range(len(weights)):
        upto = total * sum(weights[: index + 1]) // whole
        parts.append(upto - given)
        given = upto
    return parts


def stops(action: Action) -> bool:
    """Whether an action ends a domain, or suspends it."""
    return isinstance(action, ShutdownDomain | DestroyDomain | RemoveDomain | SuspendDomain)


__all__ = ["RUNS", "DataCentre", "EnsureDomain", "Gate", "Member", "Rack", "stops"]
