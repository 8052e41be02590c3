"""A small data centre under virtual time, for tests of the decisions: hosts, domains, balancers, load, API objects.

`World` is what is; `Operator` is what runs on it: it observes, plans and applies, action by action, so that it can be
killed between any two of them. Nothing here sleeps or reads a clock, and nothing is random unless a seed is given.
"""

from __future__ import annotations

import hashlib
import math
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luban.api.cluster import Host, LubanClusterSpec
from luban.api.host import BondVerdict
from luban.api.names import balancer_name, ordinal_of
from luban.api.vm import Phase, Role
from luban.core.balancers import Tier
from luban.core.figures import Figures
from luban.core.left_out import Refusal
from luban.core.memory import ClusterMemory, TierMemory
from luban.core.model import (
    Action,
    AssignVM,
    BalancerReport,
    BalloonDomain,
    BondObservation,
    CreateVM,
    DeleteVM,
    DestroyDomain,
    DomainRecord,
    DomainState,
    EnsureDomain,
    Failure,
    HostObservation,
    Member,
    MemberReport,
    MemberState,
    Observation,
    OrphanVM,
    Plan,
    PublishBalancer,
    Published,
    ReleaseVM,
    RemoveBalancer,
    RemoveDomain,
    RemoveStray,
    ResumeDomain,
    ShutdownDomain,
    SuspendDomain,
    UpdateVM,
    VMRecord,
)
from luban.core.phases import PROBED
from luban.core.plan import plan
from luban.core.setbacks import memory_for
from luban.core.state import State
from luban.core.times import Now
from luban.runtime.apply import failure_subject, subject
from luban.runtime.observe import balancer_sessions
from luban.runtime.retries import Retries

EPOCH = 1_700_000_000.0
"""Where virtual time starts: seconds since the epoch."""
LOOK_SECONDS = 15.0
"""Between two looks at what VMs use."""
CLUSTER = "luban"
BALANCER = "luban-balancer-0"


def make_spec(
    hosts: Iterable[Mapping[str, Any]] = ({"name": "host-b"}, {"name": "host-c"}),
    *,
    template: Mapping[str, Any] | None = None,
    **rest: Any,
) -> LubanClusterSpec:
    """A spec in wire format with as few words as possible; `rest` are its other fields."""
    listed = [{"uri": f"qemu+tls://{host['name']}/system", **host} for host in hosts]
    spec = {"image": {"volume": "luban-web.qcow2"}, **(template or {})}
    return LubanClusterSpec.model_validate({"hosts": listed, "template": {"spec": spec}, **rest})


TEMPLATE = make_spec().template.spec
"""The template of `make_spec()`."""


def make_vm(name: str = "vm-1", phase: Phase = "Ready", host: str = "host-b", **fields: Any) -> VMRecord:
    """A LubanVM that is as ordinary as can be for its phase."""
    ordinary = {
        "uid": f"uid-{name}",
        "host_uri": f"qemu+tls://{host}/system",
        "template": TEMPLATE,
        "created": EPOCH,
        "phase_since": EPOCH,
        "was_ready": phase in ("Ready", "Draining", "Stopping", "Lost"),
        "balancers": (BALANCER,) if phase == "Ready" else (),
        "address": "" if phase in ("Pending", "Provisioning") else address_of(name),
    }
    return VMRecord(name=name, phase=phase, host=host, **{**ordinary, **fields})


def address_of(name: str) -> str:
    """The address of a VM that `make_vm` made."""
    return f"10.0.0.{zlib.crc32(name.encode()) % 250 + 1}"


def hosts_with(
    vms: Iterable[VMRecord],
    states: Mapping[str, DomainState | None] | None = None,
    *,
    silent: Iterable[str] = (),
    names: Iterable[str] = ("host-b", "host-c"),
) -> tuple[HostObservation, ...]:
    """Hosts as observed: each VM's domain runs, unless `states` says otherwise (None: there is no domain)."""
    found: dict[str, dict[str, DomainRecord]] = {name: {} for name in names}
    for vm in vms:
        state = (states or {}).get(vm.name, "Running")
        domains = found.setdefault(vm.host, {})
        if state is not None:
            domains[vm.uid] = DomainRecord(vm.uid, vm.name, state, address_of(vm.name))
    return tuple(
        HostObservation(name, False, "no answer") if name in set(silent) else HostObservation(name, True, "", domains)
        for name, domains in found.items()
    )


def balancer_with(members: Mapping[str, MemberState], *, version: str = "v1", **fields: Any) -> BalancerReport:
    """A report in which nothing is in flight on those that take nothing."""
    reports = tuple(
        MemberReport(name, state, address_of(name), 8080, drained=state != "Enabled") for name, state in members.items()
    )
    return BalancerReport(
        BALANCER, **{"reachable": True, "ready": True, "applied": version, "members": reports, **fields}
    )


def published_with(members: Mapping[str, MemberState], *, version: str = "v1") -> dict[str, Published]:
    """A ConfigMap with these members."""
    listed = tuple(Member(name, address_of(name), 8080, state) for name, state in sorted(members.items()))
    return {BALANCER: Published("", version, listed)}


def figures_at(sessions: int, since: float) -> Figures:
    """What is measured of a VM with so many active sessions."""
    return Figures(
        cpu=float(sessions), memory=20.0 + sessions / 2, network=1e6 * sessions, requests=2.0 * sessions, since=since
    )


@dataclass
class Domain:
    """A libvirt domain with its overlay."""

    uuid: str
    name: str
    address: str
    state: DomainState
    started: float
    boot_seconds: float
    """It answers its readiness probe so long after its start; infinite: never."""
    off_at: float = math.inf
    """When a shutdown under way is complete."""
    hung: bool = False
    """Runs, but answers nothing."""
    stuck: bool = False
    """Once suspended it does not go on."""
    balloon: int = 0
    """Bytes that its guest was last told to have; 0: nobody told it."""


@dataclass
class Machine:
    """A KVM host."""

    reachable: bool = True
    silent_since: float | None = None
    """Since when it does not answer."""
    domains: dict[str, Domain] = field(default_factory=dict)
    overlays: set[str] = field(default_factory=set)
    refuses: Failure | None = None
    """Why no domain can be made here; None: they can."""
    bond: BondVerdict | None = None
    """What the node agent says of its bond; None: there is no agent."""
    refusal: Refusal | None = None
    """Why the cluster may not use it; None: it may."""


@dataclass
class Proxy:
    """A balancer with its agent: takes on what is published after a delay, and counts what is in flight."""

    reachable: bool = True
    blind: bool = False
    """The agent answers, but httpd has just been started and says nothing about members."""
    published: Published | None = None
    due: float = 0.0
    """When the agent takes on what is published."""
    applied: Published | None = None
    closed: dict[str, float] = field(default_factory=dict)
    """By member: when it stopped to get new requests."""
    starts_at: float = math.inf
    """When its Pod is there; infinite: nobody starts one."""
    node: str = ""

    def enabled(self) -> set[str]:
        """Members that get new requests."""
        return {it.name for it in self.applied.members if it.state == "Enabled"} if self.applied else set()


@dataclass
class World:
    """All that exists, and the time."""

    spec: LubanClusterSpec
    now: float = EPOCH
    boot_seconds: float = 20.0
    address_seconds: float = 3.0
    """A domain's address is seen so long after its start."""
    shutdown_seconds: float = 5.0
    """Infinite: guests ignore the power button."""
    apply_seconds: float = 1.5
    """Balancers take on a publication so long after it."""
    request_seconds: float = 4.0
    """Requests in flight end so long after a member was closed."""
    load: int = 0
    """Active sessions of all clients; they spread evenly over the members that answer."""
    metrics_lost: bool = False
    probes_lost: bool = False
    deleting: bool = False
    """The LubanCluster has a deletion timestamp."""
    machines: dict[str, Machine] = field(default_factory=lambda: defaultdict(Machine))
    proxies: dict[str, Proxy] = field(default_factory=lambda: {BALANCER: Proxy()})
    vms: dict[str, VMRecord] = field(default_factory=dict)
    before: Callable[[World, Action], None] = lambda _world, _action: None
    """Called before each action of an operator: the referee."""
    log: list[str] = field(default_factory=list)
    pod_seconds: float = 8.0
    """A balancer's Pod is there so long after it was wanted."""
    tier: Tier | None = None
    """The balancers as an operator wanted them last."""
    _uids: int = 0

    clock_set: float = 0.0
    """By how much somebody set the time of day, in seconds."""

    # Time.

    @property
    def moment(self) -> Now:
        """The time on both clocks of an operator."""
        return Now(wall=self.now + self.clock_set, monotonic=self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps short enough for what follows from each other."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.5)
            self._settle()

    def _settle(self) -> None:
        for machine in self.machines.values():
            machine.silent_since = None if machine.reachable else machine.silent_since or self.now
            for domain in machine.domains.values():
                if domain.state == "ShuttingDown" and domain.off_at <= self.now:
                    domain.state = "Off"
        for proxy in self.proxies.values():
            if proxy.starts_at <= self.now:
                proxy.starts_at, proxy.reachable, proxy.due = math.inf, True, self.now + self.apply_seconds
            if proxy.reachable and not proxy.blind and proxy.due <= self.now and proxy.applied != proxy.published:
                before = proxy.enabled()
                proxy.applied = proxy.published
                proxy.closed.update(dict.fromkeys(before - proxy.enabled(), self.now))

    # What is.

    def domain(self, vm: VMRecord) -> Domain | None:
        """The domain of a VM, seen by nobody but us."""
        return self.machines[vm.host].domains.get(vm.uid)

    def domains(self) -> dict[str, Domain]:
        """All domains by uuid."""
        return {uuid: it for machine in self.machines.values() for uuid, it in machine.domains.items()}

    def overlays(self) -> set[str]:
        """All overlays, by the uuid of their domain."""
        return {uuid for machine in self.machines.values() for uuid in machine.overlays}

    def answers(self, vm: VMRecord) -> bool:
        """Whether a VM would answer a request."""
        domain = self.domain(vm)
        return domain is not None and domain.state == "Running" and self._is_up(domain) and not domain.hung

    def _is_up(self, domain: Domain) -> bool:
        return domain.started + domain.boot_seconds <= self.now

    def shares(self) -> dict[str, int]:
        """Active sessions of each member that gets requests and answers them."""
        enabled = set().union(*(proxy.enabled() for proxy in self.proxies.values()))
        names = sorted(vm.name for vm in self.vms.values() if vm.name in enabled and self.answers(vm))
        return {name: (self.load + index) // len(names) for index, name in enumerate(names)}

    def in_flight(self, proxy: Proxy, name: str) -> bool:
        """Whether the balancer has requests in flight on a member."""
        if name in proxy.enabled():
            return self.load > 0
        return self.now < proxy.closed.get(name, -math.inf) + self.request_seconds

    def busy(self, vm: VMRecord) -> bool:
        """Whether stopping the VM now would break requests."""
        domain = self.domain(vm)
        running = domain is not None and domain.state in ("Running", "ShuttingDown")
        return running and any(
            vm.name in proxy.enabled() or self.in_flight(proxy, vm.name) for proxy in self.proxies.values()
        )

    # What an operator sees of it.

    def observe(self, failures: Mapping[str, Failure] | None = None) -> Observation:
        """What the runtime's observer would see now."""
        vms = tuple(self.vms.values())
        observation = Observation(
            vms=vms,
            hosts=tuple(self._host(name) for name in self._observed_hosts()),
            balancers=tuple(self._report(name, proxy) for name, proxy in self.proxies.items()),
            bonds=self._bonds(),
            provision_failures={name: it for name, it in (failures or {}).items() if name in self.vms},
            published={name: it.published for name, it in self.proxies.items() if it.published is not None},
            settings_version=_hash(self.spec.balancer.model_dump_json()),
        )
        state = State(observation)
        probes = {
            vm.name: self.answers(vm) and not self.probes_lost
            for vm in (*state.live, *state.pool)
            if vm.phase in PROBED and state.runs(vm) and state.address(vm)
        }
        sessions = {} if self.metrics_lost else balancer_sessions(state)
        figures = {} if self.metrics_lost else self._figures(state)
        return replace(observation, probes=probes, sessions=sessions, figures=figures)

    def _figures(self, state: State) -> dict[str, Figures]:
        """What is measured of VMs that run: by hosts that answer, and by balancers of those that they send requests."""
        shares = self.shares()
        found = {vm.name: figures_at(shares.get(vm.name, 0), self.now - LOOK_SECONDS) for vm in state.serving}
        known = balancer_sessions(state)
        return {
            vm.name: replace(
                found[vm.name] if self._is_measured(vm.host) else Figures(since=found[vm.name].since),
                requests=found[vm.name].requests if vm.name in known else None,
            )
            for vm in state.serving
        }

    def _is_measured(self, host: str) -> bool:
        return self.machines[host].reachable

    def _bonds(self) -> dict[str, BondObservation]:
        verdicts = {host.name: self.machines[host.name].bond for host in self.spec.hosts}
        return {name: BondObservation(verdict) for name, verdict in verdicts.items() if verdict is not None}

    def _observed_hosts(self) -> list[str]:
        return list(dict.fromkeys([*(host.name for host in self.spec.hosts), *(vm.host for vm in self.vms.values())]))

    def _host(self, name: str) -> HostObservation:
        machine = self.machines[name]
        if machine.refusal and all(vm.host != name for vm in self.vms.values()):
            return HostObservation(name, False, refusal=machine.refusal)
        if not machine.reachable:
            return HostObservation(name, False, f"libvirt on {name} has not answered yet", refusal=machine.refusal)
        return HostObservation(
            name,
            True,
            refusal=machine.refusal,
            domains={
                uuid: DomainRecord(uuid, it.name, it.state, self._known_address(it))
                for uuid, it in machine.domains.items()
            },
        )

    def _known_address(self, domain: Domain) -> str:
        return domain.address if domain.started + self.address_seconds <= self.now else ""

    def _report(self, name: str, proxy: Proxy) -> BalancerReport:
        if not proxy.reachable:
            return BalancerReport(name, reachable=False, message="its agent does not answer")
        if proxy.blind or proxy.applied is None:
            return BalancerReport(name, reachable=True, ready=False, message="httpd is being started")
        shares = self.shares()
        members = tuple(self._member(proxy, member, shares) for member in proxy.applied.members)
        ready = proxy.applied == proxy.published
        return BalancerReport(
            name, reachable=True, ready=ready, applied=proxy.applied.version, members=members, node=proxy.node
        )

    def carries(self, proxy: Proxy, name: str) -> bool:
        """Whether a balancer brings clients to a VM."""
        return name in proxy.enabled()

    def _through(self, proxy: Proxy, name: str, sessions: int) -> int:
        """Those of a VM's sessions that came through one balancer: all that bring clients to it bring as many."""
        carriers = [it for it in self.proxies.values() if self.carries(it, name)]
        place = next((at for at, it in enumerate(carriers) if it is proxy), None)
        return 0 if place is None else sessions // len(carriers) + (place < sessions % len(carriers))

    def _member(self, proxy: Proxy, member: Member, shares: Mapping[str, int]) -> MemberReport:
        flying = self.in_flight(proxy, member.name)
        vm = self.vms.get(member.name)
        return MemberReport(
            member.name,
            member.state,
            address=member.address,
            port=member.port,
            healthy=vm is not None and self.answers(vm),
            in_flight=int(flying),
            sessions=self._through(proxy, member.name, shares.get(member.name, 0)),
            drained=member.state != "Enabled" and not flying,
        )

    # What happens to it from outside.

    def note(self, text: str) -> None:
        """A line in the log, with the virtual time."""
        seconds = int(self.now - EPOCH)
        self.log.append(f"{seconds // 60:3d}:{seconds % 60:02d}  {text}")

    def change(self, **fields: Any) -> None:
        """Change the spec; `fields` in wire format replace whole top-level fields."""
        self.spec = LubanClusterSpec.model_validate({**self.spec.wire(), **fields})

    def change_scaling(self, **fields: Any) -> None:
        """Change fields of spec.scaling."""
        self.change(scaling={**self.spec.scaling.wire(), **fields})

    def change_host(self, name: str, **fields: Any) -> None:
        """Change fields of one host entry."""
        self.change(hosts=[it | fields if it["name"] == name else it for it in self.spec.wire()["hosts"]])

    def new_template(self) -> None:
        """Ask for another template: a cpu more."""
        wire = self.spec.template.wire()
        wire["spec"]["domain"]["cpu"]["cores"] += 1
        self.change(template=wire)

    def user_deletes(self, name: str) -> None:
        """`kubectl delete lubanvm`."""
        self._delete(name)

    def crash(self, name: str, state: DomainState = "Crashed") -> None:
        """A VM's domain ends by itself."""
        domain = self.domain(self.vms[name])
        if domain is not None:
            domain.state = state

    def new_proxy(self) -> Proxy:
        """A balancer whose Pod is being started."""
        return Proxy(reachable=False, starts_at=self.now + self.pod_seconds)

    def follow(self, tier: Tier | None) -> None:
        """What a StatefulSet's controller does: Pods come and go at the end of the row. Names that nothing stands for
        any more are forgotten."""
        if tier is None:
            return
        self.tier = tier
        for index in range(tier.size):
            if (name := balancer_name(CLUSTER, index)) not in self.proxies:
                self.proxies[name] = self.new_proxy()
        for name, proxy in list(self.proxies.items()):
            if ordinal_of(name) >= tier.replicas:
                proxy.reachable, proxy.applied, proxy.starts_at = False, None, math.inf
            if ordinal_of(name) >= tier.size and proxy.published is None:
                del self.proxies[name]

    # What an operator does to it.

    def do(self, action: Action) -> Failure | None:  # noqa: C901 - one case for each kind of action
        """Carry out one action; a failure, if it could not be."""
        self.note(in_words(action))
        self.before(self, action)
        match action:
            case CreateVM():
                self._create(action)
            case AssignVM(name, role):
                self._assign(name, role)
            case DeleteVM(name):
                self._delete(name)
            case UpdateVM():
                self._update(action)
            case ReleaseVM(name) | OrphanVM(name):
                self._release(name, orphan=isinstance(action, OrphanVM))
            case EnsureDomain(vm):
                return self._ensure(vm)
            case ShutdownDomain(vm) | DestroyDomain(vm) | RemoveDomain(vm):
                return self._end(vm, action)
            case BalloonDomain(vm) | SuspendDomain(vm) | ResumeDomain(vm):
                return self._rest(vm, action)
            case RemoveStray(host, _, uuid):
                self.machines[host].domains.pop(uuid, None)
                self.machines[host].overlays.discard(uuid)
            case PublishBalancer() | RemoveBalancer():
                self._publish(action)
        return None

    def _create(self, action: CreateVM) -> None:
        if action.name in self.vms:
            return
        self._uids += 1
        self.vms[action.name] = VMRecord(
            name=action.name,
            uid=f"00000000-0000-4000-8000-{self._uids:012x}",
            host=action.host,
            host_uri=action.host_uri,
            template=self.spec.template.spec,
            created=math.floor(self.now),
            phase_since=math.floor(self.now),
            planned_address=action.address,
            role=action.role,
        )

    def _assign(self, name: str, role: Role) -> None:
        if name in self.vms:
            self.vms[name] = replace(self.vms[name], role=role)

    def _delete(self, name: str) -> None:
        vm = self.vms.get(name)
        if vm is None or vm.deleting_since is not None:
            return
        if vm.has_finalizer:
            self.vms[name] = replace(vm, deleting_since=math.floor(self.now))
        else:
            del self.vms[name]

    def _release(self, name: str, *, orphan: bool) -> None:
        vm = self.vms.get(name)
        if vm is not None and vm.deleting_since is None and orphan:
            self.vms[name] = replace(vm, has_finalizer=False)
        elif vm is not None:
            del self.vms[name]

    def _update(self, action: UpdateVM) -> None:
        vm = self.vms.get(action.name)
        if vm is None:
            return
        self.vms[action.name] = replace(
            vm,
            phase=action.phase,
            phase_since=vm.phase_since if vm.phase == action.phase else self.now,
            reason=action.reason,
            message=action.message,
            address=action.address,
            balancers=action.balancers,
            was_ready=vm.was_ready or action.phase == "Ready",
        )

    def _ensure(self, vm: VMRecord) -> Failure | None:
        machine = self.machines[vm.host]
        if not machine.reachable:
            return Failure("HostUnreachable", f"libvirt on {vm.host} does not answer", permanent=False)
        if machine.refuses is not None:
            return machine.refuses
        found = machine.domains.get(vm.uid)
        if found is not None and found.state == "Running":
            return None
        serial = int(vm.uid[-12:], 16)
        address = vm.planned_address or f"10.0.{serial // 250}.{serial % 250 + 1}"
        machine.overlays.add(vm.uid)
        machine.domains[vm.uid] = Domain(vm.uid, vm.name, address, "Running", self.now, self.boot_seconds)
        return None

    def _end(self, vm: VMRecord, action: Action) -> Failure | None:
        machine = self.machines[vm.host]
        if not machine.reachable:
            return Failure("HostUnreachable", f"libvirt on {vm.host} does not answer", permanent=False)
        domain = machine.domains.get(vm.uid)
        if isinstance(action, RemoveDomain):
            machine.domains.pop(vm.uid, None)
            machine.overlays.discard(vm.uid)
        elif domain is not None and isinstance(action, DestroyDomain):
            domain.state = "Off"
        elif domain is not None and domain.state == "Running":
            domain.state, domain.off_at = "ShuttingDown", self.now + self.shutdown_seconds
        return None

    def _rest(self, vm: VMRecord, action: Action) -> Failure | None:
        machine = self.machines[vm.host]
        if not machine.reachable:
            return Failure("HostUnreachable", f"libvirt on {vm.host} does not answer", permanent=False)
        domain = machine.domains.get(vm.uid)
        if domain is None or domain.state not in ("Running", "Paused"):
            return Failure("DomainMissing", f"{vm.name} is off, or gone", permanent=True)
        match action:
            case BalloonDomain(_, memory):
                domain.balloon = memory
            case SuspendDomain():
                domain.state = "Paused"
            case ResumeDomain() if domain.stuck:
                return Failure("LibvirtError", f"{vm.name} does not go on", permanent=False)
            case ResumeDomain():
                domain.state, domain.balloon = "Running", vm.template.domain.memory.max.bytes
        return None

    def _publish(self, action: PublishBalancer | RemoveBalancer) -> None:
        proxy = self.proxies[action.balancer]
        proxy.due = self.now + self.apply_seconds
        if isinstance(action, RemoveBalancer):
            proxy.published = None
        else:
            version = _hash(self.spec.balancer.model_dump_json())
            proxy.published = Published(version, _hash(f"{version} {action.members}"), action.members)


@dataclass
class Operator:
    """The runtime's loop without its concurrency. What survives its death is `status`."""

    world: World
    spec: LubanClusterSpec | None = None
    """The spec that it took over last."""
    memory: ClusterMemory = field(default_factory=ClusterMemory)
    status: ClusterMemory = field(default_factory=ClusterMemory)
    """What the LubanCluster's status keeps: desired, last_scale, decision."""
    provision_failures: dict[str, Failure] = field(default_factory=dict)
    action_failures: dict[str, Failure] = field(default_factory=dict)
    retries: Retries = field(default_factory=Retries)
    finished: bool = False
    last: Plan | None = None

    def look(self) -> Plan:
        """Observe and plan, and do nothing."""
        world = self.world
        observation = replace(world.observe(self.provision_failures), action_failures=dict(self.action_failures))
        return plan(world.spec, CLUSTER, observation, self.memory, world.moment, deleting=world.deleting)

    def tick(self, *, dice: random.Random | None = None, killed_after: int | None = None, told: bool = True) -> Plan:
        """Observe, plan, apply, report. `dice`: mixes the chains of actions, as concurrency does.

        `killed_after`: the operator dies after so many actions; `told`: it had written the status before.
        """
        if self.spec is not self.world.spec:
            self.memory = memory_for(self.world.spec, self.spec or self.world.spec, self.memory)
            self.spec = self.world.spec
            self.retries.forget()
        made = self.look()
        if made.hosts_back:
            self.retries.forget()
        actions = list(made.actions) if dice is None else interleaved(made.actions, dice)
        self._apply(actions if killed_after is None else actions[:killed_after])
        if killed_after is None or told:
            self.status = ClusterMemory(
                decision=made.decision,
                last_scale=made.memory.last_scale,
                desired=made.desired or None,
                taken_over=True,
                tier=_tier_status(made, self.world),
            )
        if made.tier is not None and not self.world.spec.paused and killed_after is None:
            self.world.follow(made.tier)
        if killed_after is not None:
            self.restart()
        else:
            self.memory, self.finished = made.memory, made.finished
        self.last = made
        return made

    def restart(self) -> None:
        """The process ends and another starts."""
        tier = self.status.tier
        seen = tier and replace(tier, seen=dict.fromkeys(tier.seen, self.world.now))
        self.memory, self.provision_failures, self.action_failures = replace(self.status, tier=seen), {}, {}
        self.retries = Retries()

    def run(self, seconds: float, *, until: Callable[[Plan], bool] = lambda _: False) -> Plan:
        """Tick for so long in virtual time, or until a plan pleases."""
        end = self.world.now + seconds
        while True:
            made = self.tick()
            if until(made) or self.world.now >= end or made.finished:
                return made
            self.world.advance(min(made.requeue_after, max(0.5, end - self.world.now)))

    def _apply(self, actions: Sequence[Action]) -> None:
        broken: set[str] = set()
        for action in actions:
            about = failure_subject(action)
            if subject(action) in broken:
                continue
            if not self.retries.may_try(about, action, self.world.now):
                broken.add(subject(action))
                continue
            failure = self.world.do(action)
            if failure is None:
                self.retries.succeeded(about, action)
                self.action_failures.pop(about, None)
            else:
                self.retries.failed(about, action, failure, self.world.now)
                self.action_failures[about] = failure
                broken.add(subject(action))
            if isinstance(action, EnsureDomain):
                self._remember(action.vm.name, failure)
        self._forget_others()

    def _forget_others(self) -> None:
        """Drop what is remembered of VMs that are gone."""
        for about in list(self.action_failures):
            if about.startswith("vm/") and about.removeprefix("vm/") not in self.world.vms:
                del self.action_failures[about]

    def _remember(self, name: str, failure: Failure | None) -> None:
        if failure is None:
            self.provision_failures.pop(name, None)
        else:
            self.provision_failures[name] = failure


def _tier_status(made: Plan, world: World) -> TierMemory | None:
    """What the status tells a successor of the balancers."""
    if made.tier is None:
        return None
    ready = [it.name for it in world.observe().balancers if it.reachable and it.ready]
    return TierMemory(made.tier.size, seen=dict.fromkeys(ready, world.now))


def interleaved(actions: Iterable[Action], dice: random.Random) -> list[Action]:
    """The actions in an order that the runtime could take: those about one subject in theirs, subjects mixed."""
    chains: dict[str, list[Action]] = defaultdict(list)
    for action in actions:
        chains[subject(action)].append(action)
    mixed: list[Action] = []
    while chains:
        name = dice.choice(sorted(chains))
        mixed.append(chains[name].pop(0))
        if not chains[name]:
            del chains[name]
    return mixed


def in_words(action: Action) -> str:  # noqa: C901 - one case for each kind of action
    """An action as a line of a log."""
    kind = type(action).__name__
    match action:
        case CreateVM(name, host, _, _, reason):
            return f"{kind} {name} on {host}: {reason}"
        case AssignVM(name, role, reason):
            return f"{name} is to be {role}: {reason}"
        case BalloonDomain(vm, memory, reason):
            return f"{kind} {vm.name} on {vm.host} to {memory}: {reason}"
        case UpdateVM(name, phase, reason):
            return f"{name} is {phase}: {reason}"
        case EnsureDomain(vm, reason) | ShutdownDomain(vm, reason) | DestroyDomain(vm, reason):
            return f"{kind} {vm.name} on {vm.host}: {reason}"
        case RemoveDomain(vm, reason) | SuspendDomain(vm, reason) | ResumeDomain(vm, reason):
            return f"{kind} {vm.name} on {vm.host}: {reason}"
        case PublishBalancer(balancer, members, reason):
            states = ", ".join(f"{it.name} {it.state}" for it in members)
            return f"{kind} {balancer} [{states}]: {reason}"
        case RemoveBalancer(balancer, reason):
            return f"{kind} {balancer}: {reason}"
        case RemoveStray(host, _, uuid, reason):
            return f"{kind} {uuid} on {host}: {reason}"
        case DeleteVM(name, reason) | ReleaseVM(name, reason) | OrphanVM(name, reason):
            return f"{kind} {name}: {reason}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def host_named(spec: LubanClusterSpec, name: str) -> Host | None:
    """The host entry; None: the host is not, or no longer, in the spec."""
    return next((host for host in spec.hosts if host.name == name), None)
