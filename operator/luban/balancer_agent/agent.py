"""The balancer agent: follows its ConfigMap, keeps httpd at it, watches members, answers questions."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from luban.adapters.apache_httpd.process import LogTail, find_httpd
from luban.adapters.balancers_http import REPORT_PATH, report_json
from luban.adapters.http_endpoints import Guard, HttpEndpoints, Refusal, answer_anybody
from luban.adapters.kubernetes_api.tokens import connect_token_reviews
from luban.adapters.kubernetes_api.watch import ConfigMapSource, EndpointLease, open_api
from luban.adapters.probes_http import HttpProbes
from luban.api.names import agent_audience, balancer_name
from luban.balancer_agent.converge import LONGEST_RETRY_SECONDS, Converger, Inputs
from luban.balancer_agent.feed import ReportFeed
from luban.balancer_agent.gate import DEFAULT_OPERATOR, Gate
from luban.balancer_agent.health import Check, HealthChecks
from luban.balancer_agent.loader import Loader
from luban.balancer_agent.memory import Store, secret
from luban.balancer_agent.metrics import Metrics
from luban.balancer_agent.report import why_not_ready
from luban.balancer_agent.requests import RequestLog, Traffic
from luban.balancer_agent.server import HttpdServer, Server
from luban.balancer_agent.sessions import SessionWindow
from luban.balancer_agent.sources import DOCUMENT_KEY, FolderSource, Source
from luban.core.model import BalancerReport, ClusterRef
from luban.errors import LubanError
from luban.ports import Probes
from luban.render.balancer import parse_balancer_json, route_of
from luban.render.httpd import ERROR_LOG, REQUEST_LOG, AgentSettings

log = structlog.get_logger(__name__)

ANNOUNCE_SECONDS = 300.0
ANNOUNCE_RETRY_SECONDS = 10.0
FOLLOW_RETRY_SECONDS = 5.0
"""Between two attempts to follow the configuration; a source never ends unless there is a fault in it."""
_HARMLESS = re.compile(r"^\[[^]]*\] \[\w+:(notice|info)\]")
PORT_REMEDY = "choose another with --report-address and --report-port"
STALLED_SECONDS = 60.0
"""The agent counts as dead when its last look at httpd began longer ago than this."""


@dataclass(frozen=True)
class AgentOptions:
    """How an agent is started; `luban balancer-agent --help` says what each option means."""

    cluster: str
    state_dir: Path
    namespace: str = "default"
    index: int = 0
    httpd_binary: str = ""
    listen_address: str = ""
    manager_address: str = ""
    manager_port: int = 9181
    report_address: str = "0.0.0.0"  # noqa: S104 (the operator asks from another machine)
    report_port: int = 9180
    advertise: str = ""
    kubeconfig: str = ""
    config_dir: Path | None = None
    stop_seconds: int = 20
    operator: str = DEFAULT_OPERATOR
    open_reports: bool = False
    node: str = ""

    @property
    def name(self) -> str:
        """Name of the balancer."""
        return balancer_name(self.cluster, self.index)


async def run(options: AgentOptions, stop: asyncio.Event) -> None:
    """Run until `stop` is set; then httpd finishes its requests and ends. Raises PermanentError if it cannot begin."""
    structlog.contextvars.bind_contextvars(cluster=options.cluster, balancer=options.name)
    runtime = _runtime(options)
    server = HttpdServer(find_httpd(options.httpd_binary), runtime)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        outside = await _reach_out(options, stack)
        agent = Agent(options, runtime, server, outside.source, guard=outside.guard)
        stack.push_async_callback(agent.close)
        await agent.run(stop, outside.announce)


def _runtime(options: AgentOptions) -> AgentSettings:
    """Make the state folder: httpd's children (nobody, if we are root) must get through it to the hosts file."""
    folder = options.state_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    return AgentSettings(
        folder=str(folder),
        manager_address=options.manager_address or _loopback(options.report_address),
        manager_port=options.manager_port,
        secret=secret(folder),
        listen_address=options.listen_address,
        stop_seconds=options.stop_seconds,
    )


def _loopback(address: str) -> str:
    """The address itself if only this machine reaches it, else 127.0.0.1."""
    return address if ipaddress.ip_address(address).is_loopback else "127.0.0.1"


@dataclass(frozen=True)
class Outside:
    """What an agent has beyond its machine."""

    source: Source
    """Where the configuration comes from."""
    announce: Callable[[str], Awaitable[bool]] | None = None
    """Tells the operator where we are."""
    guard: Guard = answer_anybody
    """Tells the operator from others."""


async def _reach_out(options: AgentOptions, stack: contextlib.AsyncExitStack) -> Outside:
    if options.config_dir is not None:
        return Outside(FolderSource(options.config_dir))
    api = await open_api(options.kubeconfig)
    stack.push_async_callback(api.close)
    lease = EndpointLease(api, options.namespace, options.cluster, options.index)
    return Outside(ConfigMapSource(api, options.namespace, options.name), lease.announce, await _guard(options, stack))


async def _guard(options: AgentOptions, stack: contextlib.AsyncExitStack) -> Guard:
    if options.open_reports:
        log.warning("reports are given to anybody who reaches the port")
        return answer_anybody
    audience = agent_audience(options.namespace, options.cluster)
    reviews = await connect_token_reviews(audience, options.kubeconfig or None)
    stack.push_async_callback(reviews.close)
    return Gate(reviews.user, audience, options.operator, asyncio.get_running_loop().time, time.time).refusal


class Agent:
    """All parts of one agent."""

    def __init__(
        self,
        options: AgentOptions,
        runtime: AgentSettings,
        server: Server,
        source: Source,
        *,
        probes: Probes | None = None,
        guard: Guard = answer_anybody,
    ) -> None:
        self._options = options
        self._server = server
        self._source = source
        self._wake = asyncio.Event()
        self._probes = probes or HttpProbes()
        self._health = HealthChecks(self._probes, self._wake.set)
        self._metrics = Metrics()
        self._guard = guard
        folder = Path(runtime.folder)
        self._sessions = SessionWindow()
        self._requests, self._traffic = RequestLog(), Traffic()
        self._request_log = LogTail(folder / REQUEST_LOG, from_start=True)
        self._error_log = LogTail(folder / ERROR_LOG)
        clock = asyncio.get_running_loop().time
        self._clock = clock
        self._store = Store(folder)
        self._loader = Loader(server, runtime, self._store, self._metrics, clock)
        inputs = Inputs(clock, lambda: self._sessions.counts(clock()), lambda: self._health.failing, self._traffic)
        self._converger = Converger(server, self._loader, self._store, self._metrics, inputs)
        self._document_problem = ""
        self._looked_at = clock()
        self._status: Mapping[str, str] = {}
        cluster = ClusterRef(options.namespace, options.cluster)
        self._endpoints = HttpEndpoints(
            self._metrics.registry,
            alive=self.stall,
            ready=self.outage,
            refresh=self._read_status,
            documents={REPORT_PATH: lambda: report_json(self.report(), cluster)},
            feeds={REPORT_PATH: lambda seconds: self._followed(cluster, seconds)},
            guard=self._refusal,
        )
        self._feed = ReportFeed(self._known, clock)
        self._metrics.publish(self.report, lambda: self._status)

    async def run(self, stop: asyncio.Event, announce: Callable[[str], Awaitable[bool]] | None = None) -> None:
        """Run until `stop` is set, then stop httpd."""
        if self._loader.adopt():
            log.info("adopted a running httpd")
        await self._endpoints.listen(self._options.report_address, self._options.report_port, PORT_REMEDY)
        tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._converge())]
        if announce is not None:
            tasks.append(asyncio.create_task(self._announce(announce)))
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
        log.info("stopping httpd", patience=self._options.stop_seconds)
        await self._server.stop(self._options.stop_seconds + 1.0)

    async def close(self) -> None:
        """Let go of everything but httpd."""
        await self._endpoints.close()
        await self._health.close()
        await self._probes.close()

    def report(self) -> BalancerReport:
        """What the balancer does now, with connections counted anew."""
        self._converger.count()
        return self._known()

    async def _followed(self, cluster: ClusterRef, seconds: float) -> AsyncGenerator[Any, None]:
        """The report as it goes over the wire, again and again."""
        async with contextlib.aclosing(self._feed.follow(seconds)) as reports:
            async for report in reports:
                yield None if report is None else report_json(report, cluster)

    def _known(self) -> BalancerReport:
        """What the balancer did at the last look."""
        report = replace(self._converger.report(self._options.name), node=self._options.node)
        if not self._document_problem:
            return report
        return replace(report, ready=False, message=self._document_problem)

    async def _refusal(self, authorization: str, address: str) -> Refusal | None:
        """Why somebody who asks for the report does not get it; counted."""
        refusal = await self._guard(authorization, address)
        if refusal is not None:
            self._metrics.refusals.labels(str(refusal.status)).inc()
        return refusal

    def stall(self) -> str:
        """Says so if the agent does not look at httpd regularly any more; empty: it does."""
        stalled = self._clock() - self._looked_at >= STALLED_SECONDS
        return "the agent does not look at httpd any more" if stalled else ""

    def outage(self) -> str:
        """Says so if nobody should be sent here, by the last look at httpd; empty: they should."""
        return why_not_ready(self._converger.seen.live if self._server.running else {})

    async def _follow(self) -> None:
        """Take on each new document. Nothing that goes wrong with one ends httpd."""
        while True:
            try:
                async for data in self._source.changes():
                    self._document_problem = self._accept(data)
                    self._wake.set()
            except Exception as error:
                log.exception("the configuration cannot be followed")
                self._document_problem = f"the configuration cannot be followed: {error!r}"
            await asyncio.sleep(FOLLOW_RETRY_SECONDS)

    def _accept(self, data: Mapping[str, str] | None) -> str:
        """Take on a document; what is wrong with it, if anything. httpd goes on with the last good one."""
        if data is None or DOCUMENT_KEY not in data:
            return f"ConfigMap {self._options.name} is not there, or has no {DOCUMENT_KEY}"
        try:
            self._converger.accept(parse_balancer_json(data[DOCUMENT_KEY]))
        except ValueError as error:
            log.error("configuration not accepted", error=str(error))  # noqa: TRY400 (the message says it all)
            return str(error)
        except Exception as error:
            log.exception("configuration not accepted")
            return f"the configuration cannot be taken on: {error!r}"
        return ""

    async def _converge(self) -> None:
        """Look at httpd whenever something happens, and regularly."""
        while True:
            self._wake.clear()
            self._looked_at = self._clock()
            delay = await self._look()
            self._feed.looked()
            await self._pause(delay)

    async def _look(self) -> float:
        """One look. Returns seconds until the next one is due. Nothing that goes wrong in it ends httpd."""
        try:
            self._read_logs()
            delay = await self._converger.step()
            self._follow_health()
        except Exception as error:
            log.exception("the agent fails")
            self._converger.fail(error)
            return LONGEST_RETRY_SECONDS
        return delay

    async def _pause(self, delay: float) -> None:
        """Wait for the next reason to look: time, a new document, a health check's verdict, the end of httpd."""
        reasons: list[asyncio.Task[Any]] = [asyncio.create_task(self._wake.wait())]
        if self._server.running:
            reasons.append(asyncio.create_task(self._server.ended()))
        try:
            await asyncio.wait(reasons, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for reason in reasons:
                reason.cancel()
            await asyncio.gather(*reasons, return_exceptions=True)

    def _read_logs(self) -> None:
        document = self._store.memory.document
        bound = document.settings.sessions_per_address if document else 0
        requests = self._requests.take(_lines(self._request_log), self._clock())
        self._sessions.add(requests, bound)
        self._traffic.add(requests)
        self._traffic.keep(route_of(slot.serves) for slot in self._store.table if slot.member)
        for line in _lines(self._error_log):
            (log.info if _HARMLESS.search(line) else log.warning)("httpd says", line=line)

    def _follow_health(self) -> None:
        """Check the members that take requests."""
        document, live = self._store.memory.document, self._converger.seen.live
        if document is None:
            return
        ask = document.settings
        checks = {
            slot.serves: Check(
                slot.address,
                slot.port,
                ask.health_path,
                float(ask.health_interval_seconds),
                float(ask.health_timeout_seconds),
            )
            for slot in self._store.table
            if slot.wanted == "Enabled" and slot.name in live and "D" not in live[slot.name].state.flags
        }
        self._health.follow(checks)

    async def _read_status(self) -> None:
        try:
            self._status = await self._server.status()
        except LubanError:
            self._status = {}

    async def _announce(self, announce: Callable[[str], Awaitable[bool]]) -> None:
        """Keep our Lease naming our endpoint: written once, and again only if it is gone or changed."""
        while True:
            done = await self._announced(announce)
            await asyncio.sleep(ANNOUNCE_SECONDS if done else ANNOUNCE_RETRY_SECONDS)

    async def _announced(self, announce: Callable[[str], Awaitable[bool]]) -> bool:
        """Announce once; whether that succeeded. Nothing that goes wrong in it ends httpd."""
        try:
            return await announce(self._options.advertise)
        except Exception:
            log.exception("the endpoint cannot be announced")
            return False


def _lines(tail: LogTail) -> list[str]:
    """New lines of a log of httpd's; none if it cannot be read now."""
    try:
        return tail.lines()
    except LubanError as error:
        log.warning("log not read", error=error.message)
        return []
