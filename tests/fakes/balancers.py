"""Balancer agents in memory behind ports.Balancers, and an httpd in memory behind balancer_agent.server.Server.

The httpd keeps to what the real one was seen to do: it looks a slot's name up again only a second after it changed, it
reads its file when it is started or reloaded and at no other time, and a reload sets its counters to zero. It notes
every act that would have lost a request on the real one in `violations`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from luban.adapters.apache_httpd.connections import Endpoint
from luban.adapters.apache_httpd.manager import LiveSlot, SlotState
from luban.core.model import BalancerReport, ClusterRef
from luban.errors import ConfigurationRefused, TemporaryError
from luban.render.httpd import slot_host

LOOKUP_SECONDS = 1.0
Heard = Callable[[BalancerReport | None], None]
_MEMBER = re.compile(
    r"BalancerMember http://(s\d+)\.slot\.invalid:(\d+) route=(\S+) loadfactor=(\d+)(?: status=\+(\w+))? "
)


@dataclass
class FakeBalancers:
    """Agents by endpoint; one that is missing, or in `silent`, does not answer."""

    agents: dict[str, BalancerReport] = field(default_factory=dict)
    clusters: dict[str, ClusterRef] = field(default_factory=dict)
    """Whose agent is at an endpoint; missing: whoever asks."""
    silent: set[str] = field(default_factory=set)
    old: set[str] = field(default_factory=set)
    """Endpoints of agents of an earlier version, which cannot be followed."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    followers: dict[str, list[tuple[Heard, asyncio.Future[BalancerReport | None]]]] = field(default_factory=dict)
    """By endpoint."""

    async def report(self, cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        """What the agent at the endpoint says, as if it had come over the wire."""
        self.asked.append((name, endpoint))
        report, whose = self.agents.get(endpoint), self.clusters.get(endpoint, cluster)
        asked_for = (cluster.namespace, cluster.name, name)
        if report is None or endpoint in self.silent or (whose.namespace, whose.name, report.name) != asked_for:
            return BalancerReport(name, reachable=False, message=f"{endpoint} does not report")
        return replace(report, reachable=True)

    async def follow(
        self,
        cluster: ClusterRef,
        name: str,
        endpoint: str,
        *,
        members: int,
        heard: Callable[[BalancerReport | None], None],
    ) -> BalancerReport | None:
        """The same now, and whenever `change` is called, until `end` or `lose` is."""
        first = await self.report(cluster, name, endpoint, members=members)
        if not first.reachable or endpoint in self.old:
            return first
        heard(first)
        ended: asyncio.Future[BalancerReport | None] = asyncio.get_running_loop().create_future()
        self.followers.setdefault(endpoint, []).append((heard, ended))
        try:
            return await ended
        finally:
            self.followers[endpoint].remove((heard, ended))

    def change(self, endpoint: str, report: BalancerReport | None) -> None:
        """An agent has something new to say. None: a sign of life."""
        if report is not None:
            self.agents[endpoint] = report
        for heard, _ in list(self.followers.get(endpoint, ())):
            heard(replace(report, reachable=True) if report is not None else None)

    def end(self, endpoint: str) -> None:
        """The time of its followers is over."""
        self._end(endpoint, None)

    def lose(self, endpoint: str) -> None:
        """An agent ends."""
        name = self.agents.pop(endpoint).name
        self._end(endpoint, BalancerReport(name, reachable=False, message=f"{endpoint} does not report"))

    def _end(self, endpoint: str, with_: BalancerReport | None) -> None:
        for _, ended in list(self.followers.get(endpoint, ())):
            ended.set_result(with_)

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class _FakeSlot:
    state: SlotState
    port: int
    served: int = 0


class FakeHttpd:
    """One httpd. `now` is a function that tells the time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.running = False
        self.config = ""
        self.hosts: dict[str, str] = {}
        self.live: dict[str, _FakeSlot] = {}
        self.in_flight: Counter[Endpoint] = Counter()
        self.refuse = ""
        """Words with which every configuration is refused; empty: none is."""
        self.fatal = ""
        """httpd ends when it loads a configuration with this text, although its check is content."""
        self.last_words = "httpd ended"
        """What it says of that."""
        self.checks = 0
        self.deaf = False
        """True: it does not obey its manager."""
        self.silent = False
        """True: its manager does not answer."""
        self.starts = 0
        self.reloads: list[float] = []
        self.violations: list[str] = []
        self._moved: dict[str, float] = {}

    def adopt(self) -> bool:
        """Whether it runs."""
        return self.running

    def config_text(self) -> str:
        """The file."""
        return self.config

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """Point names at addresses."""
        for name in self.live if self.running else ():
            host = slot_host(name)
            if host in addresses and self.hosts.get(host) != addresses[host]:
                self._moved[name] = self._now()
                if self.takes_requests(name):
                    self.violations.append(f"{name} was pointed elsewhere while it took requests")
        self.hosts = dict(addresses)

    def write_config(self, text: str) -> None:
        """Replace the file."""
        self.config = text

    async def check(self, text: str, listen: Endpoint | None = None) -> None:
        """Refuse if told to."""
        self.checks += 1
        if self.refuse:
            raise ConfigurationRefused("HttpdRefused", self.refuse)
        if not _MEMBER.search(text):
            raise ConfigurationRefused("HttpdRefused", "no slots")

    async def start(self) -> None:
        """Read the file; names are looked up when first needed."""
        self.starts += 1
        self._survive()
        self.running = True
        self._moved = {}
        self.live = _parse(self.config)

    async def graceful(self, children: int) -> None:
        """Read the file again."""
        self.reloads.append(self._now())
        self._survive()
        fresh = _parse(self.config)
        for name in fresh.keys() & self.live.keys():
            if "D" in fresh[name].state.flags and "D" not in self.live[name].state.flags:
                # Children of before the reload would go on sending requests to it.
                self.violations.append(f"the reload closed {name}")
            self._check_opened(name, fresh[name].state)
        self.live = fresh

    def _survive(self) -> None:
        if self.fatal and self.fatal in self.config:
            self.die()
            raise TemporaryError("HttpdEnded", self.last_words)

    async def stop(self, patience: float) -> None:
        """End."""
        self.die()

    async def ended(self) -> None:
        """Never returns: tests that need it use the real one."""
        await asyncio.Event().wait()

    async def slots(self) -> dict[str, LiveSlot]:
        """All slots."""
        if not self.running or self.silent:
            raise TemporaryError("HttpdUnreachable", "httpd does not answer")
        return {name: LiveSlot(slot.state, slot.port, False, slot.served) for name, slot in self.live.items()}

    async def set(self, slot: str, port: int, state: SlotState) -> None:
        """Change a slot, if there is one of this name and port."""
        if self.deaf or slot not in self.live or self.live[slot].port != port:
            return
        mirrored = _parse(self.config)[slot].state
        if mirrored.flags != state.flags - {"C"}:
            self.violations.append(f"{slot} is not in the file as it is set")
        self.live[slot].state = state
        self._check_opened(slot, state)

    def _check_opened(self, slot: str, state: SlotState) -> None:
        if "D" not in state.flags and self._now() < self._moved.get(slot, float("-inf")) + LOOKUP_SECONDS:
            self.violations.append(f"{slot} took requests before httpd knew its address")

    async def status(self) -> dict[str, str]:
        """No figures."""
        return {}

    def connections(self, targets: Collection[Endpoint]) -> Counter[Endpoint]:
        """What `in_flight` says."""
        return Counter({target: self.in_flight[target] for target in targets})

    async def close(self) -> None:
        """Nothing to close."""

    def die(self) -> None:
        """The process is gone, and what was in flight with it."""
        self.running = False
        self.live = {}
        self.in_flight.clear()

    def takes_requests(self, slot: str) -> bool:
        """Whether new requests may go to a slot."""
        return self.running and not self.live[slot].state.flags

    def serving(self) -> dict[str, str]:
        """Address by route of every slot that takes new requests."""
        return {
            slot.state.route: self.hosts[slot_host(name)]
            for name, slot in self.live.items()
            if self.takes_requests(name)
        }

    def endpoints(self) -> list[Endpoint]:
        """Where new requests go."""
        return sorted(
            (self.hosts[slot_host(name)], slot.port) for name, slot in self.live.items() if self.takes_requests(name)
        )


def _parse(text: str) -> dict[str, _FakeSlot]:
    return {
        name: _FakeSlot(SlotState(frozenset(flags), route, int(factor)), int(port))
        for name, port, route, factor, flags in _MEMBER.findall(text)
    }
