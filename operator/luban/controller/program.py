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
from luban.adapters.kubernetes_api import connect
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.adapters.probes_http import HttpProbes
from luban.controller.handlers import build_registry
from luban.controller.manager import Manager
from luban.ports import Ports
from luban.programs import set_on_signals
from luban.runtime.metrics import Metrics

log = structlog.get_logger(__name__)


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
    allow_insecure_hosts: bool = False
    """Connect to hosts where anybody could answer."""
    user_networking: bool = False
    """Make VMs with network type User."""
    agent_networks: tuple[IPNetwork, ...] = ()
    """Where balancer agents may be asked; empty: anywhere but on loopback, link-local and multicast addresses."""


async def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT; VMs and balancers go on without it."""
    if options.kubeconfig:
        # kopf reads its kubeconfig from the environment only.
        os.environ["KUBECONFIG"] = options.kubeconfig
    ports = Ports(
        hypervisor=LibvirtHypervisor(
            HypervisorSettings(allow_insecure=options.allow_insecure_hosts, user_networking=options.user_networking)
        ),
        cluster=await connect(options.kubeconfig),
        balancers=HttpBalancers(networks=options.agent_networks),
        probes=HttpProbes(),
        clock=SystemClock(),
    )
    manager = Manager(ports, Metrics(REGISTRY))
    endpoints = HttpEndpoints(REGISTRY)
    await endpoints.listen(options.listen_address, options.listen_port)
    stop = asyncio.Event()
    log.info("operator started", namespaces=list(options.namespaces) or "all", port=options.listen_port)
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
        await _first_to_end(handlers, stop)
        await manager.stop()
    finally:
        # Our loops have ended. kopf, told to stop, would still wait five seconds for tasks that are not its own.
        handlers.cancel()
        await asyncio.gather(handlers, return_exceptions=True)
        await endpoints.close()
        await _close(ports)
        log.info("operator stopped")


async def _first_to_end(handlers: asyncio.Future[Any], stop: asyncio.Event) -> None:
    """Wait for the signal to stop. Raises what kopf raised, if it ended by itself."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    await asyncio.wait({handlers, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if handlers.done():
        handlers.result()


async def _close(ports: Ports) -> None:
    """Close every adapter, even if one of them cannot."""
    results = await asyncio.gather(
        ports.hypervisor.close(),
        ports.balancers.close(),
        ports.probes.close(),
        ports.cluster.close(),
        return_exceptions=True,
    )
    for result in results:
        if isinstance(result, BaseException):
            log.warning("an adapter did not close", error=repr(result))
