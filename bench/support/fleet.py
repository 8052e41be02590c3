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
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kubernetes.aio.client import ApiClient, CustomObjectsApi

from bench.result import say
from bench.support.api_witness import ApiWitness
from bench.support.fleet_objects import IMAGE, Size, agent_of, cluster_body, cluster_name, host_name
from bench.support.fleet_view import Look, View
from bench.support.guests import Guests
from bench.support.mirror import Listen, nobody
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

OPERATOR = "luban-operator"
"""Name of its ServiceAccount, and of its Lease."""
LOOK_SECONDS = 0.5
TELL_SECONDS = 5.0
LAG_SECONDS = 0.02
AT_ONCE = 10
"""Clusters whose VMs are being made. An operator that is to make a thousand at once is too busy to stay the leader."""
QUIET_SECONDS = 15.0
LONG_QUIET_SECONDS = 50.0
"""Whoever has written nothing for so long, while everything is ready, is done. What is not urgent in a status is
written half a minute after it changed, or a quarter of a minute later, at the next look at the load."""


class UnsettledError(LabError):
    """It does not come to rest."""


@dataclass
class _Waiting:
    """For an operator; with progress, and an end."""

    operator: Process
    patience: float
    begun: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def go_on(self, look: Look) -> None:
        """Raises UnsettledError once it takes too long, with what the operator says."""
        now = time.monotonic()
        if now - self.told > TELL_SECONDS:
            self.told = now
            say(f"  {look.words()}")
        if now - self.begun > self.patience:
            where = self.operator.daemon.log
            raise UnsettledError(f"{look.words()} after {self.patience:g} s: {look.why()} (log: {where})")


class Fleet:
    """The set-up, from `async with` on."""

    client: ApiClient
    """Of an administrator."""
    view: View

    def __init__(self, layout: Layout, size: Size, listen: Listen = nobody) -> None:
        """`listen`: told of each change of a LubanVM."""
        # A folder of its own: a lab with the same base keeps what it has.
        self.layout = layout = Layout(layout.base, layout.state / "fleet")
        self.size = size
        self.guests = Guests()
        self.worst_lag = 0.0
        """Seconds by which this process, with guests and witnesses, was late at most since somebody set it back."""
        user = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
        self.api = ApiWitness(layout.state / "audit", user, OPERATOR)
        self.plane = ControlPlane(layout, ensure_binaries(say), self.api.options())
        self.hosts = [SimulatedHost(host_name(it), layout.state / "hosts" / host_name(it)) for it in range(size.hosts)]
        self.witnesses = [RpcWitness(host.socket, layout.state / f"{host.name}.sock") for host in self.hosts]
        self._listen = listen
        self._stack = AsyncExitStack()

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
        self._stack.push_async_callback(in_thread, self._end_hosts)
        await in_thread(self._start_hosts)
        for witness in self.witnesses:
            await self._stack.enter_async_context(witness)
        self._stack.push_async_callback(self.guests.close)
        self.client = await open_api(str(self.layout.admin_kubeconfig))
        self._stack.push_async_callback(self.client.close)
        self.view = View(self.layout, self.size, self.guests, self.client, self._listen)
        self._in_background(*(mirror.run() for mirror in self.view.mirrors), self._feel_lag())

    def _in_background(self, *works: Any) -> None:
        """Until the end."""
        tasks = [asyncio.ensure_future(work) for work in works]

        async def end() -> None:
            for task in tasks:
                if task.done():
                    task.result()
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._stack.push_async_callback(end)

    async def _feel_lag(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(LAG_SECONDS)
            self.worst_lag = max(self.worst_lag, time.monotonic() - begun - LAG_SECONDS)

    def _clear(self) -> None:
        """Stop what runs, also what an earlier run left behind, and remove all files."""
        folders = [self.layout.state, *(host.folder for host in self.hosts)]
        daemons = [Daemon(name, folder) for folder in folders for name in running(folder)]
        for daemon in daemons:
            daemon.kill(signal.SIGTERM)
        for daemon in daemons:
            daemon.stop()
        shutil.rmtree(self.layout.state, ignore_errors=True)
        with suppress(OSError):
            # Not if a lab with the same base keeps something there.
            self.layout.state.parent.rmdir()

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
        health = f"http://{self.layout.operator}:8081/healthz"
        return Process(Daemon(name, self.layout.state), tree, ["luban", *arguments], config, health)

    async def create(self, operator: Process, patience: float) -> None:
        """Create all LubanClusters, AT_ONCE at a time, and let each one's balancer agent say where it answers.

        Raises UnsettledError after `patience` seconds.
        """
        waiting = _Waiting(operator, patience)
        await self.guests.listen(agent_of(self.layout, number) for number in range(self.size.clusters))
        for number in range(self.size.clusters):
            while number - (look := self.view.look()).complete(self.size) >= AT_ONCE:
                waiting.go_on(look)
                await asyncio.sleep(LOOK_SECONDS)
            await self._announce_agent(number)
            await self._create(number)

    async def _announce_agent(self, number: int) -> None:
        address, port = agent_of(self.layout, number)
        lease = EndpointLease(self.client, NAMESPACE, cluster_name(number), 0)
        if not await lease.announce(f"http://{address}:{port}"):
            raise LabError(f"the Lease of {cluster_name(number)} could not be written")

    async def _create(self, number: int) -> None:
        body = cluster_body(self.layout, self.size, number, [witness.uri for witness in self.witnesses])
        objects = CustomObjectsApi(self.client)
        await objects.create_namespaced_custom_object(names.GROUP, names.VERSION, NAMESPACE, names.CLUSTERS, body)

    async def resize(self, vms: int) -> None:
        """Let every cluster have so many VMs."""
        objects, patch = CustomObjectsApi(self.client), {"spec": {"scaling": {"minVMs": vms, "maxVMs": vms}}}
        for number in range(self.size.clusters):
            where = names.GROUP, names.VERSION, NAMESPACE, names.CLUSTERS, cluster_name(number)
            await objects.patch_namespaced_custom_object(*where, patch, _content_type="application/merge-patch+json")

    async def serve(self, operator: Process, patience: float, *, without: str = "") -> None:
        """Return when all VMs are Ready, whatever else the clusters say; `without`: uid of one that must be gone.

        Raises UnsettledError after `patience` seconds.
        """
        waiting = _Waiting(operator, patience)
        while not (look := self.view.look()).serves(self.size, without):
            waiting.go_on(look)
            await asyncio.sleep(LOOK_SECONDS)

    async def settle(
        self, operator: Process, patience: float, *, vms: int | None = None, quiet: float = QUIET_SECONDS
    ) -> None:
        """Return when everything is ready and the operator has written nothing for `quiet` seconds.

        `vms`: how many of each cluster; None: all. Raises UnsettledError after `patience` seconds, naming what is not
        ready.
        """
        waiting, size = _Waiting(operator, patience), replace(self.size, vms=vms or self.size.vms)
        position, quiet_since = self.api.position(), time.monotonic()
        while time.monotonic() - quiet_since < quiet:
            look = self.view.look()
            if any(request.is_write for request in self.api.since(position)) or not look.is_ready(size):
                position, quiet_since = self.api.position(), time.monotonic()
            waiting.go_on(look)
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
