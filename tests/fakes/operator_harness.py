"""A whole harness behind the ports: API server, hosts, one balancer, VMs that answer; all on one virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from luban.api import names
from luban.api.cluster import LubanCluster
from luban.core.model import BalancerReport, ClusterRef, MemberReport
from luban.ports import Leadership, Ports, Unrivalled
from luban.render.balancer import parse_balancer_json
from luban.render.balancer_objects import AgentProgram
from luban.runtime.metrics import Metrics
from luban.runtime.tick import ClusterRuntime
from luban.senses import Senses
from tests.fakes.cluster import FakeCluster
from tests.fakes.hypervisor import FakeHypervisor

NAMESPACE = "default"
START = 1_800_000_000.0


class Killed(BaseException):
    """The operator is dead: nothing that it still tries may have an effect."""


class VirtualClock:
    """Time that moves only when it is told to: `seconds` is the time of day, which may be set back."""

    def __init__(self, seconds: float = START) -> None:
        self._seconds = self._passed = seconds

    @property
    def seconds(self) -> float:
        """Seconds since the epoch."""
        return self._seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._passed += max(0.0, value - self._seconds)
        self._seconds = value

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._seconds

    def monotonic(self) -> float:
        """The same as long as nobody sets that back."""
        return self._passed


class LoopClock(VirtualClock):
    """The time of the event loop, for tests under looptime: whatever sleeps moves it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return START + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        """The same."""
        return self.now()


@dataclass
class FollowingBalancer:
    """A balancer agent that is always up to date with its ConfigMap."""

    api: FakeCluster
    in_flight: dict[str, int] = field(default_factory=dict)
    """By VM."""
    silent: bool = False
    gone: set[str] = field(default_factory=set)
    """Balancers that do not answer."""

    async def report(self, cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        """See Balancers."""
        body = self.api.find("ConfigMap", cluster.namespace, name)
        if self.silent or body is None or name in self.gone:
            return BalancerReport(name, reachable=False, message="silent")
        content = parse_balancer_json(body["data"]["balancer.json"])
        members = tuple(self._member(member) for member in content.members)
        return BalancerReport(name, True, True, content.version, "", members)

    async def follow(
        self,
        cluster: ClusterRef,
        name: str,
        endpoint: str,
        *,
        members: int,
        heard: Callable[[BalancerReport | None], None],
    ) -> BalancerReport | None:
        """An agent of an earlier version: it answers once."""
        return await self.report(cluster, name, endpoint, members=members)

    def _member(self, member: Any) -> MemberReport:
        flying = self.in_flight.get(member.name, 0)
        drained = member.state != "Enabled" and flying == 0
        return MemberReport(member.name, member.state, member.address, member.port, True, flying, flying, drained)

    async def close(self) -> None:
        """See Balancers."""


@dataclass
class BootedProbes:
    """A VM answers when its domain has booted."""

    api: FakeCluster
    hypervisor: FakeHypervisor
    deaf: set[str] = field(default_factory=set)
    """Addresses that answer nothing."""

    async def ready(self, address: str, port: int, path: str, timeout: float) -> bool:
        """See Probes."""
        uids = [
            body["metadata"]["uid"]
            for (kind, _, _), body in self.api.objects.items()
            if kind == "LubanVM" and body["spec"].get("address") == address
        ]
        return address not in self.deaf and any(self.hypervisor.booted(uid) for uid in uids)

    async def gauge(self, address: str, port: int, path: str, metric: str, timeout: float) -> int | None:
        """See Probes."""
        return None

    async def close(self) -> None:
        """See Probes."""


class OperatorHarness:
    """One LubanCluster on two hosts, and the operator that looks after it."""

    def __init__(
        self, spec: dict[str, Any] | None = None, *, boot_seconds: float = 10.0, clock: VirtualClock | None = None
    ) -> None:
        self.clock = clock or VirtualClock()
        self.agents: AgentProgram | None = None
        """What runs in the balancers' Pods, if the operator makes them."""
        self.dead = False
        """The operator was killed; its successor is not there yet."""
        self.api = FakeCluster(now=self.clock.now)
        self.hypervisor = FakeHypervisor(self.clock.now, boot_seconds=boot_seconds, shutdown_seconds=2.0)
        self.balancer = FollowingBalancer(self.api)
        self.probes = BootedProbes(self.api, self.hypervisor)
        self.api.create(cluster_body(spec or {}))
        self.api.create(lease_body())
        self.runtime = self.new_operator()

    def new_operator(self) -> ClusterRuntime:
        """An operator that knows nothing but what the API server has."""
        metrics = Metrics(CollectorRegistry())
        ports = self.ports()
        self.runtime = ClusterRuntime(ports, metrics, LubanCluster.parse(self.body()), Senses.of(ports))
        return self.runtime

    def ports(self, leadership: Leadership | None = None) -> Ports:
        """What an operator works through here."""
        parts = self.hypervisor, self.api, self.balancer, self.probes, self.clock
        return Ports(*parts, leadership or Unrivalled(), self.agents)

    def body(self) -> dict[str, Any]:
        """The LubanCluster object."""
        body = self.api.find("LubanCluster", NAMESPACE, "luban")
        assert body is not None
        return body

    def change(self, **spec: Any) -> None:
        """Change fields of the spec, and have the operator see it."""
        self.api.change("LubanCluster", NAMESPACE, "luban", lambda body: body["spec"].update(spec))
        self.runtime.update(self.body())

    async def tick(self) -> float:
        """One tick; then the clock moves on by what the operator asked for."""
        delay = await self.runtime.tick()
        await self.runtime.recorder.sent()
        self.clock.seconds += delay
        return delay

    async def run(self, seconds: float) -> None:
        """Ticks for so long."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end and not self.runtime.finished and not self.dead:
            with contextlib.suppress(Killed):
                await self.tick()

    def vms(self) -> list[dict[str, Any]]:
        """LubanVM objects."""
        return [body for (kind, _, _), body in self.api.objects.items() if kind == "LubanVM"]

    def domains(self) -> set[str]:
        """UUIDs of our domains on all hosts."""
        return {uuid for host in self.hypervisor.hosts.values() for uuid, it in host.domains.items() if it.cluster}

    def overlays(self) -> set[str]:
        """Volumes that VMs own."""
        pools = [pool for host in self.hypervisor.hosts.values() for pool in host.pools.values()]
        return {name for pool in pools for name in pool if name != "luban-web.qcow2"}

    def consistent(self, count: int) -> bool:
        """Whether exactly `count` VMs serve, each with domain and overlay, and nothing else is there."""
        uids = {vm["metadata"]["uid"] for vm in self.vms()}
        phases = {vm["status"]["phase"] for vm in self.vms()} if count else {"Ready"}
        overlays = {f"luban-{uid}.qcow2" for uid in uids}
        return len(uids) == count and phases == {"Ready"} and self.domains() == uids and self.overlays() == overlays


def cluster_body(spec: dict[str, Any], *, name: str = "luban", namespace: str = NAMESPACE) -> dict[str, Any]:
    """A LubanCluster on host-b and host-c under policy Manual."""
    hosts = [
        {
            "name": host,
            "uri": f"qemu+tls://{host}/system",
            "vms": {"min": 1, "max": 3},
            "forwardRange": f"127.0.{octet}.0/24",
        }
        for host, octet in (("host-b", 17), ("host-c", 18))
    ]
    template = {"spec": {"image": {"volume": "luban-web.qcow2"}, "network": {"type": "User"}}}
    scaling = {"policy": "Manual", "minVMs": 2, "maxVMs": 6, "interval": "5s"}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "LubanCluster",
        "metadata": {"name": name, "namespace": namespace, "finalizers": [names.FINALIZER_CLUSTER]},
        "spec": {"hosts": hosts, "template": template, "scaling": scaling, "replicas": 2, **spec},
    }


def lease_body(name: str = "luban", namespace: str = NAMESPACE, index: int = 0) -> dict[str, Any]:
    """The Lease with which the balancer's agent says where it reports."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": names.balancer_name(name, index),
            "namespace": namespace,
            "annotations": {names.ANNOTATION_AGENT_ENDPOINT: f"http://balancer-{index}.invalid"},
        },
    }


def ref() -> ClusterRef:
    """The one cluster."""
    return ClusterRef(NAMESPACE, "luban")
