"""The operator as a program: adapters made, wired, run, and closed in order."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import kopf
import structlog
from prometheus_client import REGISTRY

from luban.adapters.balancers_http import HttpBalancers, IPNetwork
from luban.adapters.clock import SystemClock
from luban.adapters.http_endpoints import HttpEndpoints
from luban.adapters.kubernetes_api import connect, connect_lease
from luban.adapters.kubernetes_api.tokens import connect_own_tokens
from luban.adapters.kubernetes_api.transport import pod_namespace
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.adapters.probes_http import HttpProbes
from luban.adapters.process_identity import has_ended, own_identity
from luban.api.names import OPERATOR_USER
from luban.controller.handlers import build_registry
from luban.controller.leadership import Leader
from luban.controller.manager import Manager
from luban.core.usable_hosts import HostPolicy
from luban.errors import TemporaryError
from luban.ports import LeaseStore, Ports, Unrivalled
from luban.programs import return_memory, set_on_signals, share_arenas
from luban.render.balancer_objects import AgentProgram
from luban.runtime.metrics import Metrics

log = structlog.get_logger(__name__)

LEASE_NAMESPACE = "luban-system"
"""Where an operator outside of Kubernetes looks for its Lease: that of manifests/base."""


@dataclass(frozen=True)
class Options:
    """Settings of the program."""

    kubeconfig: str | None
    """Path; None: the Pod's service account, or kubectl's default."""
    namespaces: tuple[str, ...]
    """Namespaces to watch; empty: all."""
    listen_address: str
    listen_port: int
    """Where /metrics, /healthz and /readyz are served."""
    hosts: HostPolicy = "Any"
    """Who may say where a host is."""
    allow_insecure_hosts: bool = False
    """Connect to hosts where anybody could answer."""
    user_networking: bool = False
    """Make VMs with network type User."""
    agent_networks: tuple[IPNetwork, ...] = ()
    """Where balancer agents may be asked; empty: anywhere but on loopback, link-local and multicast addresses."""
    leader_election: bool = True
    """Act only while holding a Lease; False: there is certainly no other operator."""
    lease_namespace: str = ""
    """Namespace of that Lease. Empty: the Pod's, else LEASE_NAMESPACE."""
    lease_name: str = "luban-operator"
    balancer_image: str = ""
    """Image of the balancers' Pods; empty: they are made by somebody else."""
    agents_operator: str = OPERATOR_USER
    """User whose token the Pods' agents take."""


async def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT; VMs and balancers go on without it."""
    if options.kubeconfig:
        # kopf reads its kubeconfig from the environment only.
        os.environ["KUBECONFIG"] = options.kubeconfig
    share_arenas()
    stop, metrics = asyncio.Event(), Metrics(REGISTRY)
    set_on_signals(stop)
    endpoints = HttpEndpoints(REGISTRY)
    await endpoints.listen(options.listen_address, options.listen_port)
    lease = await _lease(options) if options.leader_election else None
    leader = Leader(lease, own_identity(), SystemClock(), has_ended) if lease is not None else None
    returning = asyncio.ensure_future(return_memory())
    ports = await _ports(options, leader)
    log.info(
        "operator started",
        namespaces=list(options.namespaces) or "all",
        hosts=options.hosts,
        port=options.listen_port,
    )
    try:
        await _terms(options, ports, metrics, leader, stop)
    finally:
        returning.cancel()
        await endpoints.close()
        await _close(ports, lease)
        log.info("operator stopped")


async def _lease(options: Options) -> LeaseStore:
    namespace = options.lease_namespace or pod_namespace(options.kubeconfig, None) or LEASE_NAMESPACE
    return await connect_lease(options.kubeconfig, namespace, options.lease_name)


async def _ports(options: Options, leader: Leader | None) -> Ports:
    settings = HypervisorSettings(allow_insecure=options.allow_insecure_hosts, user_networking=options.user_networking)
    leadership = leader or Unrivalled()
    return Ports(
        hypervisor=LibvirtHypervisor(settings),
        cluster=await connect(options.kubeconfig, may_write=leadership.held, follow=options.namespaces),
        balancers=HttpBalancers(
            networks=options.agent_networks, credentials=await connect_own_tokens(options.kubeconfig)
        ),
        probes=HttpProbes(),
        clock=SystemClock(),
        leadership=leadership,
        agents=AgentProgram(options.balancer_image, options.agents_operator) if options.balancer_image else None,
    )


async def _terms(options: Options, ports: Ports, metrics: Metrics, leader: Leader | None, stop: asyncio.Event) -> None:
    """Act whenever and as long as we lead, until `stop`."""
    while not stop.is_set():
        if leader is not None and not await leader.acquire(stop):
            return
        metrics.leading.set(1)
        await ports.cluster.begin_anew()
        try:
            await _term(options, Manager(ports, metrics, options.hosts), leader, stop)
        finally:
            metrics.leading.set(0)
            if leader is not None:
                await leader.release()


async def _term(options: Options, manager: Manager, leader: Leader | None, stop: asyncio.Event) -> None:
    """Act until `stop`, or until we lead no more. Raises an error if kopf ended by itself: nobody is heard then."""
    ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(stop.wait())]
    if leader is not None:
        ends.append(asyncio.ensure_future(leader.keep()))
    beginning = asyncio.ensure_future(manager.begin())
    sweeping: list[asyncio.Future[Any]] = []
    try:
        await asyncio.wait({beginning, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if beginning.done():
            beginning.result()
            sweeping.append(asyncio.ensure_future(manager.sweeper.run()))
            await _handle(options, manager, stop, ends)
        for end in ends:
            if end.done():
                # A fault in keeping the Lease is none that another try mends, and no loss of it either.
                end.result()
    finally:
        # Also if kopf was never reached: what follows objects tells the manager until the next term.
        try:
            await manager.stop()
        finally:
            await _end(beginning, *sweeping, *ends)


async def _handle(options: Options, manager: Manager, stop: asyncio.Event, ends: list[asyncio.Future[Any]]) -> None:
    """Have kopf hand LubanClusters to the manager until one of `ends`."""
    foreign = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=build_registry(manager),
        standalone=True,
        clusterwide=not options.namespaces,
        namespaces=options.namespaces,
    )
    # kopf has taken the signals to itself: only now can they be taken back.
    set_on_signals(stop)
    handlers = asyncio.ensure_future(kopf.run_tasks(tasks, ignored=foreign))
    try:
        await asyncio.wait({handlers, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if handlers.done():
            handlers.result()
            raise TemporaryError("WatchEnded", "kopf ended by itself; the lines before this one in the log say why")
    finally:
        try:
            await manager.stop()
        finally:
            await _end(handlers)


async def _end(*futures: asyncio.Future[Any]) -> None:
    """Our loops have ended. kopf, told to stop, would still wait five seconds for tasks that are not its own."""
    running = [future for future in futures if not future.done()]
    for future in running:
        future.cancel()
    for result in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(result, Exception):
            log.error("ended with a fault", exc_info=result)


async def _close(ports: Ports, lease: LeaseStore | None) -> None:
    """Close every adapter, even if one of them cannot."""
    closings = [ports.hypervisor.close(), ports.balancers.close(), ports.probes.close(), ports.cluster.close()]
    if lease is not None:
        closings.append(lease.close())
    for result in await asyncio.gather(*closings, return_exceptions=True):
        if isinstance(result, BaseException):
            log.warning("an adapter did not close", error=repr(result))
