"""Random moments of random clusters, one for each seed: what a plan is made of, in every mix that can be thought of.

They need not have come about in any real way: a plan must decide something whatever it is shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from luban.api.cluster import LubanClusterSpec
from luban.api.cluster_status import Decision
from luban.api.host import BondVerdict
from luban.api.template import VMTemplateSpec
from luban.api.vm import Phase
from luban.core.left_out import UnreadableVM
from luban.core.memory import ClusterMemory, Entered, Setback
from luban.core.model import (
    BalancerReport,
    BondObservation,
    DomainRecord,
    DomainState,
    Failure,
    HostObservation,
    Member,
    MemberReport,
    MemberState,
    Observation,
    Published,
    VMRecord,
)
from luban.core.times import Now
from tests.fakes.simulator import CLUSTER, EPOCH, make_spec

PHASES: tuple[Phase, ...] = tuple(it for it in get_args(Phase) if it not in ("Warm", "Resuming"))
"""Of clusters without a pool: the digests of their decisions must stay."""
DOMAIN_STATES: tuple[DomainState, ...] = get_args(DomainState)
MEMBER_STATES: tuple[MemberState, ...] = get_args(MemberState)
VERDICTS: tuple[BondVerdict, ...] = get_args(BondVerdict)
CAUSES = ("ImageNotFound", "AddressTaken", "HostBusy", "StartupTimeout", "DomainStopped")
DECISIONS = (("ScaleUp", "AllAboveUpper"), ("ScaleDown", "EnoughBelowLower"), ("Hold", "MinVMs"), ("Hold", "Manual"))


def _template(**fields: Any) -> VMTemplateSpec:
    return VMTemplateSpec.model_validate({"image": {"volume": "luban-web.qcow2"}, **fields})


TEMPLATES = {
    kind: (
        _template(network={"type": kind}),
        _template(network={"type": kind}, domain={"memory": {"max": "1024Mi"}}, readinessProbe={"periodSeconds": 5}),
        _template(network={"type": kind}, port=9090),
        _template(network={"type": kind}, terminationGracePeriodSeconds=5, startupTimeout="30s"),
    )
    for kind in ("Network", "User")
}
"""By network type: as the spec has it, the same in other words, outdated, and the same with other times."""


@dataclass(frozen=True)
class Moment:
    """What one plan is made of."""

    spec: LubanClusterSpec
    observation: Observation
    memory: ClusterMemory
    now: Now
    deleting: bool


@dataclass
class _Maker:
    """Makes one moment. How likely each kind of trouble is differs from cluster to cluster: most see little."""

    chance: random.Random
    most: int
    hosts: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    vms: list[VMRecord] = field(default_factory=list)
    now: float = EPOCH

    def __post_init__(self) -> None:
        self.trouble = self.chance.choice((0.0, 0.02, 0.1, 0.4))
        self.network = "User" if self.chance.random() < 0.25 else "Network"
        self.count = int(self.most * self.chance.random() ** 1.5) if self.most <= 60 else self.most
        self.moods = self.chance.choice(
            (
                {"Ready": 1},
                {"Ready": 20, "Booting": 1},
                {"Ready": 6, "Pending": 2, "Provisioning": 2, "Booting": 2},
                {"Pending": 3, "Provisioning": 3, "Ready": 1},
                {"Ready": 5, "Failed": 2, "Paused": 1, "Lost": 1, "Draining": 1, "Stopping": 1, "Booting": 1},
                dict.fromkeys(PHASES, 1),
            )
        )
        self.leaving = self.chance.choice((0.0, 0.0, 0.1, 0.5))
        self.outdated = self.chance.choice((0.0, 0.0, 0.2, 1.0))
        self.sick = self.chance.choice((0.0, 0.0, 0.0, 0.3, 0.9))
        self.tight = self.often(0.1)
        if self.tight:
            self._tighten()

    def _tighten(self) -> None:
        """At its maximum and at rest, but for what must be replaced."""
        self.trouble, self.leaving, self.outdated = self.chance.choice((0.0, 0.02)), 0.0, 0.3
        self.moods, self.sick = {"Ready": 20, "Booting": self.chance.choice((0, 1))}, self.chance.choice((0.0, 0.05))

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def bad(self) -> bool:
        return self.often(self.trouble)

    def ago(self, most: float = 4000.0) -> float:
        return self.now - self.chance.choice((0.0, 0.5, 3.0, 12.0, 45.0, 61.0, 90.0, 130.0, 400.0, 700.0, most))

    def some(self, values: Iterable[Any], share: float) -> list[Any]:
        return [value for value in values if self.often(share)]

    def moment(self) -> Moment:
        self._hosts()
        self.vms = [self._vm(number) for number in range(self.count)]
        self.chance.shuffle(self.vms)
        spec = self._spec()
        observation = self._observation(spec)
        wall = self.now + self.chance.choice((0.0, 1000.25))
        return Moment(spec, observation, self._memory(spec), Now(wall, self.now), self.often(0.07))

    def _hosts(self) -> None:
        number = self.chance.choice((1, 2, 2, 3, 4, 6, 9, 16))
        room = max(1, self.chance.choice((self.count // 2, self.count, self.count, 2 * self.count)) // number)
        for index in range(number):
            name = f"h{index}"
            high = min(1000, max(1, room + self.chance.choice((-1, 0, 0, 0, 1, 3))))
            low = min(high, self.chance.choice((0, 0, 1, 1, 2, room, room)))
            host: dict[str, Any] = {"name": name, "vms": {"min": low, "max": high}, "cordoned": self.often(0.12)}
            if self.network == "User":
                host["forwardRange"] = f"127.0.{17 + index}.0/24"
            self.hosts.append(host)
        self.places = [host["name"] for host in self.hosts] + (["gone"] if self.often(0.3) else [])

    def _spec(self) -> LubanClusterSpec:
        chance, spare = self.chance, 0 if self.tight else self.chance.choice((-5, -1, 0, 1, 4, 30, 80))
        most = max(1, min(1000, self.count + spare))
        lower = chance.choice((0, 10, 30))
        return make_spec(
            self.hosts,
            template={"network": {"type": self.network}},
            replicas=chance.choice((None, max(0, self.count - 7), self.count, min(1000, self.count + 5), 1)),
            paused=self.often(0.06),
            deletionPolicy=chance.choice(("Delete", "Orphan")),
            bondPolicy=chance.choice(("Ignore", "Prefer", "Require")),
            balancer={
                "drain": {"timeout": chance.choice(("0s", "30s", "60s"))},
                "loadFactors": chance.choice(("Static", "Adaptive")),
            },
            scaling={
                "policy": chance.choice(("Manual", "Sessions")),
                "minVMs": min(most, chance.choice((1, 2, max(1, self.count // 2)))),
                "maxVMs": most,
                "interval": chance.choice(("1s", "15s")),
                "pauseScaleIn": self.often(0.1),
                "sessions": {
                    "lowerPercent": lower,
                    "upperPercent": chance.choice((40, 60)),
                    "upperQuorumPercent": chance.choice((100, 100, 70)),
                    "lowerQuorum": chance.choice((1, 2, 3)),
                },
                "behavior": {
                    way: {
                        "step": chance.choice((1, 1, 2, 7, 60)),
                        "stabilizationWindow": chance.choice(("0s", "30s")),
                        "cooldown": chance.choice(("0s", "0s", "60s")),
                    }
                    for way in ("scaleUp", "scaleDown")
                },
            },
        )

    def _vm(self, number: int) -> VMRecord:
        chance = self.chance
        name = f"{CLUSTER}-{number * 7919 % 104729:05x}"
        host = chance.choice(self.places)
        phase = chance.choices(list(self.moods), list(self.moods.values()))[0]
        leaving = phase in ("Draining", "Stopping") if not self.bad() else self.often(0.5)
        templates = TEMPLATES[self.network]
        old = self.often(self.outdated)
        return VMRecord(
            name=name,
            uid=f"uid-{number}",
            host=host,
            host_uri=f"qemu+tls://{host}/system",
            template=templates[2] if old else templates[0] if self.often(0.8) else chance.choice(templates),
            created=EPOCH - chance.choice((0, 10, 10, 500, number)),
            phase=phase,
            deleting_since=EPOCH - 5 if leaving or self.often(self.leaving) else None,
            address=self._address(number, host) if phase not in ("Pending", "Provisioning") and not self.bad() else "",
            planned_address=self._address(number, host) if self.network == "User" else "",
            balancers=("lb-0",) if phase == "Ready" and not self.bad() else (),
            reason=chance.choice(("", "", "DrainTimeout", "StartupTimeout")),
            message=chance.choice(("", "in words")),
            was_ready=phase in ("Ready", "Draining", "Stopping", "Lost") or self.often(0.1),
            has_finalizer=not (self.trouble and self.often(0.05)),
        )

    def _address(self, number: int, host: str) -> str:
        if self.network == "User":
            third = 17 + int(host[1:]) if host != "gone" else 99
            return f"127.0.{third}.{self.chance.choice((2 + number % 250, 2 + number // 2 % 250))}"
        return f"10.0.{number // 250}.{number % 250 + 1}" if not self.bad() else "10.0.0.1"

    def _observation(self, spec: LubanClusterSpec) -> Observation:
        chance, names = self.chance, [vm.name for vm in self.vms]
        balancers = tuple(self._balancer(f"lb-{number}") for number in range(chance.choice((0, 1, 1, 1, 2, 3))))
        probes = {name: not (self.bad() or self.often(self.sick)) for name in self.some(names, 0.95)}
        busy = chance.choice((0, 5, 20, 50, 70, 90))
        hosts = [self._host(name) for name in self.places if name != "gone" or self.often(0.6)]
        return Observation(
            vms=tuple(self.vms),
            hosts=tuple(hosts if not self.bad() else self.some(hosts, 0.8)),
            balancers=balancers,
            bonds=self._bonds(),
            probes=probes,
            counted_probes=frozenset(self.some(sorted(probes), chance.choice((0.0, 0.5, 1.0)))),
            sessions={name: max(0, busy + chance.choice((-20, 0, 0, 1, 10))) for name in names if not self.bad()},
            provision_failures={name: self._failure() for name in names if self.bad() and self.often(0.4)},
            action_failures={
                about: self._failure()
                for about in (*(f"vm/{name}" for name in names), "balancer/lb-0", "creation", "domain/stray-1")
                if self.bad() and self.often(0.4)
            },
            published={it.name: self._published(spec) for it in balancers if not self.bad()},
            settings_version=chance.choice(("s1", "s1", "s2")),
            unreadable=tuple(
                UnreadableVM(f"odd-{number}", f"uid-odd-{number}", self.often(0.5), self.often(0.8), "cannot be read")
                for number in range(chance.choice((0, 0, 0, 2)))
            ),
        )

    def _failure(self) -> Failure:
        return Failure(self.chance.choice(CAUSES), "in words", self.often(0.3))

    def _bonds(self) -> dict[str, BondObservation]:
        verdicts = self.chance.choice((("Healthy",), VERDICTS))
        return {
            name: BondObservation(self.chance.choice(verdicts), self.chance.choice(("", "in words")))
            for name in self.places
            if not self.bad()
        }

    def _host(self, name: str) -> HostObservation:
        if self.bad() or (name == "gone" and self.often(0.5)):
            return HostObservation(name, False, "no answer")
        own = [vm for vm in self.vms if vm.host == name]
        strays = self.some([f"stray-{number}" for number in range(3)], self.trouble / 2)
        domains = [self._domain(vm) for vm in own if not self._missing(vm)]
        domains += [DomainRecord(f"{name}-{it}", it, "Running", self._stray_address(name)) for it in strays]
        return HostObservation(name, True, "", {domain.uuid: domain for domain in domains})

    def _missing(self, vm: VMRecord) -> bool:
        return vm.phase in ("Pending", "Provisioning", "Lost") if not self.bad() else self.often(0.5)

    def _domain(self, vm: VMRecord) -> DomainRecord:
        usual: DomainState = "Paused" if vm.phase == "Paused" else "Running"
        state = self.chance.choice(DOMAIN_STATES) if self.bad() else usual
        reason = self.chance.choice(("User", "IOErrorNoSpace", "Unheard")) if state == "Paused" else ""
        return DomainRecord(vm.uid, vm.name, state, vm.address if self.often(0.8) else "", reason)

    def _stray_address(self, host: str) -> str:
        return self.chance.choice(("", "10.9.9.9", self._address(self.chance.randrange(5), host)))

    def _balancer(self, name: str) -> BalancerReport:
        if self.bad():
            return BalancerReport(name, False, message="no answer")
        members = tuple(self._report(vm) for vm in self.vms if vm.phase not in ("Pending", "Lost") and not self.bad())
        strangers = tuple(MemberReport("left", "Enabled", "10.9.9.9") for _ in range(self.often(0.1)))
        return BalancerReport(
            name, True, not self.bad(), self.chance.choice(("v1", "v1", "v1", "v0")), "", (*members, *strangers)
        )

    def _usual_state(self, vm: VMRecord) -> MemberState:
        if vm.phase == "Ready" and vm.deleting_since is None:
            return "Enabled"
        return "Draining" if vm.phase == "Draining" else "Disabled"

    def _report(self, vm: VMRecord) -> MemberReport:
        state = self.chance.choice(MEMBER_STATES) if self.bad() else self._usual_state(vm)
        healthy = self.chance.choice((True, False, None)) if self.bad() else not self.often(self.sick)
        return MemberReport(vm.name, state, vm.address, 8080, healthy, drained=state != "Enabled" and not self.bad())

    def _published(self, spec: LubanClusterSpec) -> Published:
        members = [
            Member(
                vm.name,
                vm.address,
                vm.template.port,
                self.chance.choice(MEMBER_STATES) if self.bad() else self._usual_state(vm),
                1 if spec.balancer.load_factors == "Static" else self.chance.choice((100, 50)),
            )
            for vm in self.vms
            if vm.address and not self.bad()
        ]
        members += [Member("left", "10.9.9.9", 8080, "Enabled") for _ in range(self.often(0.1))]
        return Published("s1", "v1", tuple(sorted(members, key=lambda member: member.name)))

    def _memory(self, spec: LubanClusterSpec) -> ClusterMemory:
        chance = self.chance
        names = [vm.name for vm in self.vms]
        live = [vm for vm in self.vms if vm.deleting_since is None and vm.phase != "Lost"]
        wanted = max(0, len(live) + (0 if self.tight else chance.choice((-40, -8, -2, -1, 0, 0, 0, 0, 1, 5, 20))))
        if self.often(0.15):
            return ClusterMemory()
        return ClusterMemory(
            decision=self._decision(),
            last_scale=chance.choice((None, self.ago())),
            desired=chance.choice((None, wanted, wanted, wanted)),
            taken_over=self.often(0.1),
            evaluated=chance.choice((None, self.ago(), self.ago())),
            eligible=chance.choice((None, None, self.now + 3.0, self.ago())),
            up_since=chance.choice((None, self.ago())),
            down_since=chance.choice((None, self.ago())),
            shrinking=frozenset(self.some(names, chance.choice((0.0, 0.0, 0.1)))),
            misses={name: chance.randrange(1, 6) for name in names if self.bad()},
            avoid={name: self.now + chance.choice((-1.0, 100.0)) for name in self.places if self.bad()},
            strays={
                f"{name}-stray-{number}": self.ago() for name in self.places for number in self.some(range(3), 0.7)
            },
            entered={vm.name: Entered(vm.phase if not self.bad() else "Ready", self.ago()) for vm in self._seen()},
            closed={vm.name: self.ago() for vm in self.vms if vm.phase == "Draining" and self.often(0.5)},
            unheard={vm.name: self.ago() for vm in self.vms if vm.phase == "Stopping" and self.often(0.3)},
            mute={name: self.ago() for name in self.some(("lb-0", "lb-1"), self.trouble)},
            silent={name: self.ago() for name in self.places if self.often(0.5)},
            taken_addresses={f"127.0.17.{last}": self.now + 50.0 for last in self.some(range(2, 9), self.trouble)},
            setbacks=self._setbacks(),
        )

    def _seen(self) -> list[VMRecord]:
        return self.some(self.vms, 0.9)

    def _setbacks(self) -> dict[str, Setback]:
        return {
            cause: Setback(self.chance.choice((1, 2, 4)), self.now + self.chance.choice((-5.0, -5.0, 40.0)))
            for cause in self.some(CAUSES, self.trouble / 3)
        }

    def _decision(self) -> Decision | None:
        if self.often(0.1):
            return None
        verdict, reason = self.chance.choice(DECISIONS)
        return Decision.model_validate(
            {"at": "2026-01-31T12:00:00Z", "verdict": verdict, "reason": reason, "message": "as it was"}
        )


def moment_of(seed: int, most: int) -> Moment:
    """The moment of a seed: up to `most` VMs, or exactly so many if that is above 60."""
    return _Maker(random.Random(seed), most).moment()
