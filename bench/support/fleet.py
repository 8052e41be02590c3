"""A fleet for benchmarks: a real API server, real libvirtd processes with simulated domains, and witnesses before both.

The operator makes every VM itself, as it would on QEMU. It is told QEMU's URIs, and a witness on the way asks the
daemon for its test driver instead; the VMs have network type User, whose addresses the operator plans, so that
something can answer there. All clusters are in one namespace, the lab's. There are no LubanHosts: no node agent runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio.client import ApiClient, CoreV1Api, CustomObjectsApi

from bench.result import say
from bench.support.api_witness import ApiWitness
from bench.support.fleet_objects import IMAGE, Size, agent_of, cluster_body, cluster_name, host_name
from bench.support.guests import Guests, report_of
from bench.support.operators import Process
from bench.support.orderly import in_thread
from bench.support.rpc_witness import RpcWitness
from bench.support.simulated_hosts import SimulatedHost
from lab.binaries import ensure_binaries
from lab.controlplane import ControlPlane
from lab.datacentre import NAMESPACE
from lab.paths import Layout
from lab.process import Daemon, LabError, running
from luban.adapters.kubernetes_api.watch import EndpointLease, open_api
from luban.api import names
from luban.core.model import ClusterRef
from luban.render.balancer import parse_balancer_json

OPERATOR = "luban-operator"
"""Name of its ServiceAccount, and of its Lease."""
LOOK_SECONDS = 1.0
QUIET_SECONDS = 15.0
"""Whoever has written nothing for so long, while everything is ready, is done."""


@dataclass(frozen=True)
class Look:
    """How far everything is."""

    vms: list[dict[str, Any]]
    clusters: list[dict[str, Any]]

    def phases(self) -> Counter[str]:
        """LubanVMs by phase."""
        return Counter(vm.get("status", {}).get("phase", "Pending") for vm in self.vms)

    def unready(self) -> list[dict[str, Any]]:
        """LubanClusters that do not say Ready."""
        return [it for it in self.clusters if it.get("status", {}).get("phase") != "Ready"]

    def is_ready(self, size: Size) -> bool:
        """Whether all are there, and nothing is missing."""
        return self.phases() == {"Ready": size.all_vms} and len(self.clusters) == size.clusters and not self.unready()

    def words(self) -> str:
        """The same for people."""
        return f"VMs: {dict(self.phases())}, clusters not ready: {len(self.unready())}"


class Fleet:
    """The set-up, from `async with` on."""

    def __init__(self, layout: Layout, size: Size) -> None:
        # A folder of its own: a lab with the same base keeps what it has.
        self.layout = layout = Layout(layout.base, layout.state / "fleet")
        self.size = size
        user = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
        self.api = ApiWitness(layout.state / "audit", user, OPERATOR)
        self.plane = ControlPlane(layout, ensure_binaries(say), self.api.options())
        self.hosts = [SimulatedHost(host_name(it), layout.state / "hosts" / host_name(it)) for it in range(size.hosts)]
        self.witnesses = [RpcWitness(host.socket, layout.state / f"{host.name}.sock") for host in self.hosts]
        self.guests = Guests()
        self._stack = AsyncExitStack()

    client: ApiClient
    """Of an administrator."""

    @property
    def objects(self) -> CustomObjectsApi:
        """The API server's custom resources."""
        return CustomObjectsApi(self.client)

    async def __aenter__(self) -> Fleet:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _begin(self) -> None:
        await in_thread(self._clear)
        self._stack.push_async_callback(in_thread, self._clear)
        say("control plane: kube-apiserver and etcd")
        self.api.write_policy()
        await in_thread(self.plane.up)
        say(f"{self.size.hosts} libvirt daemons")
        await in_thread(self._start_hosts)
        self._stack.push_async_callback(in_thread, self._end_hosts)
        for witness in self.witnesses:
            await self._stack.enter_async_context(witness)
        self._stack.push_async_callback(self.guests.close)
        self.client = await open_api(str(self.layout.admin_kubeconfig))
        self._stack.push_async_callback(self.client.close)

    def _clear(self) -> None:
        """Stop what runs, also what an earlier run left behind, and remove all files."""
        folders = [self.layout.state, *(host.folder for host in self.hosts)]
        daemons = [Daemon(name, folder) for folder in folders for name in running(folder)]
        for daemon in daemons:
            daemon.kill(signal.SIGTERM)
        for daemon in daemons:
            daemon.stop()
        shutil.rmtree(self.layout.state, ignore_errors=True)

    def _start_hosts(self) -> None:
        for host in self.hosts:
            host.begin()
        for host in self.hosts:
            host.answer()
            host.add_image(IMAGE)

    def _end_hosts(self) -> None:
        for host in self.hosts:
            host.end()

    def apply_base(self, tree: Path) -> None:
        """Custom resources, admission policies and rights as the manifests of a source tree have them."""
        self.plane.kubectl("apply", "-k", str(tree / "manifests" / "base"))
        self.plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
        # Their storage is there a moment later: kubectl tries again until it is.
        self.plane.kubectl("get", f"{names.CLUSTERS},{names.VMS},{names.HOSTS}", "--all-namespaces", "--output=name")

    def operator(self, name: str, tree: Path, arguments: list[str]) -> Process:
        """An operator under its ServiceAccount and with its rights; not started."""
        config = self.layout.state / "operator.kubeconfig"
        self.plane.service_account_kubeconfig(NAMESPACE, OPERATOR, config)
        return Process(
            Daemon(name, self.layout.state),
            tree,
            ["luban", *arguments],
            config,
            f"http://{self.layout.operator}:8081/healthz",
        )

    async def create(self) -> None:
        """Create all LubanClusters, and let each one's balancer agent say where it answers."""
        uris = [witness.uri for witness in self.witnesses]
        for number in range(self.size.clusters):
            address, port = agent_of(self.layout, number)
            lease = EndpointLease(self.client, NAMESPACE, cluster_name(number), 0)
            if not await lease.announce(f"http://{address}:{port}"):
                raise LabError(f"the Lease of {cluster_name(number)} could not be written")
            body = cluster_body(self.layout, self.size, number, uris)
            await self.objects.create_namespaced_custom_object(
                names.GROUP, names.VERSION, NAMESPACE, names.CLUSTERS, body
            )
        await self.guests.listen(agent_of(self.layout, number) for number in range(self.size.clusters))

    async def resize(self, vms: int) -> None:
        """Let every cluster have so many VMs."""
        patch = {"spec": {"scaling": {"minVMs": vms, "maxVMs": vms}}}
        for number in range(self.size.clusters):
            await self.objects.patch_namespaced_custom_object(
                names.GROUP,
                names.VERSION,
                NAMESPACE,
                names.CLUSTERS,
                cluster_name(number),
                patch,
                _content_type="application/merge-patch+json",
            )

    async def list(self, plural: str) -> list[dict[str, Any]]:
        """All objects of a kind of ours."""
        found: Any = await self.objects.list_namespaced_custom_object(names.GROUP, names.VERSION, NAMESPACE, plural)
        return list(found["items"])

    async def look(self) -> Look:
        """Look at everything; guests and balancers take on what is new."""
        look = Look(await self.list(names.VMS), await self.list(names.CLUSTERS))
        await self.guests.listen((vm["spec"]["address"], vm["spec"]["template"]["port"]) for vm in look.vms)
        await self._take_on()
        return look

    async def _take_on(self) -> None:
        """Every balancer does at once what its ConfigMap says."""
        found = await CoreV1Api(self.client).list_namespaced_config_map(NAMESPACE)
        data = {it.metadata.name: it.data or {} for it in found.items if it.metadata is not None}
        for number in range(self.size.clusters):
            cluster = cluster_name(number)
            name = names.balancer_name(cluster, 0)
            if text := data.get(name, {}).get("balancer.json"):
                report = report_of(ClusterRef(NAMESPACE, cluster), name, parse_balancer_json(text))
                self.guests.reports[agent_of(self.layout, number)] = report

    async def settle(self, operator: Process, patience: float, size: Size | None = None) -> None:
        """Return when everything is ready and the operator has written nothing for QUIET_SECONDS.

        `size`: what is to be ready; None: the whole fleet.

        Raises LabError after `patience` seconds, naming what is not ready.
        """
        end = time.monotonic() + patience
        position, quiet_since, told = self.api.position(), time.monotonic(), ""
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            look = await self.look()
            if any(request.is_write for request in self.api.since(position)) or not look.is_ready(size or self.size):
                position, quiet_since = self.api.position(), time.monotonic()
            if look.words() != told:
                told = look.words()
                say(told)
            if time.monotonic() > end:
                raise LabError(f"not settled after {patience:g} s: {told}; {_why(look)}; see {operator.daemon.log}")
            await asyncio.sleep(LOOK_SECONDS)

    def host_calls(self) -> Counter[str]:
        """Calls to all hosts since the beginning."""
        return sum((witness.calls for witness in self.witnesses), Counter())

    async def cut_power(self, vm: dict[str, Any]) -> None:
        """End a VM's domain behind the operator's back."""
        host = next(host for host in self.hosts if host.name == vm["spec"]["host"])
        await in_thread(lambda: host.kept.lookupByUUIDString(vm["metadata"]["uid"]).destroy())


def chosen_layout(base: int) -> Layout:
    """Addresses and folder of a benchmark; LUBAN_LAB_BASE goes before its own `base`."""
    return Layout.from_environment(None if "LUBAN_LAB_BASE" in os.environ else base)


def _why(look: Look) -> str:
    """What the first cluster that is not ready says."""
    return "; ".join(_complaints(look)) or "everything is ready, but the operator goes on writing"


def _complaints(look: Look) -> Iterator[str]:
    for cluster in look.unready()[:1]:
        status = cluster.get("status", {})
        yield f"{cluster['metadata']['name']}: {status.get('phase', 'no status')}"
        for condition in status.get("conditions", []):
            if condition.get("message"):
                yield f"{condition['type']}={condition['status']}: {condition['message']}"
