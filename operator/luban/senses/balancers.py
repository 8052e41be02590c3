"""The balancers: each agent tells its report when it changes, and is asked anew twice a minute.

An agent that cannot be followed (it is away, or of an earlier version) is asked in each look; a look waits for it once,
and a little. For all others nobody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from luban.core.model import BalancerReport, ClusterRef
from luban.core.news import is_news
from luban.ports import Balancers
from luban.senses.asking import Asker, Question
from luban.senses.steady import SteadyWords

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 1.0
"""A look waits so long for an agent that must be asked; one that was slow is waited for no more until it is prompt."""
REPORT_SECONDS = 2.5
"""A report says something for so long after it was given, or after the agent's last sign of life."""
AGAIN_SECONDS = 300.0
"""An agent of an earlier version is taken for one so long; it may have been replaced then."""
PACE_SECONDS = 1.0
"""An agent is followed anew at most so often."""


@dataclass(frozen=True)
class Agent:
    """Where a balancer's agent is asked."""

    endpoint: str
    members: int
    """So many its balancer can have at most."""


class _Ear:
    """Hears what one agent tells."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.told: BalancerReport | None = None
        """What it told last while it was followed: its signs of life are about that."""
        self.last: BalancerReport | None = None
        """What was known of it last, whether it was followed or asked."""
        self.heard_at = float("-inf")
        """When it was last heard while it was followed."""
        self.deaf_until = float("-inf")
        """Until when it is not followed."""
        self.task: asyncio.Task[None] | None = None

    @property
    def listens(self) -> bool:
        """Whether it is followed."""
        return self.task is not None and not self.task.done()

    def close(self) -> None:
        """Hear no more."""
        if self.task is not None:
            self.task.cancel()


class BalancerSense:
    """The balancers of one cluster."""

    def __init__(self, balancers: Balancers, monotonic: Callable[[], float], wake: Callable[[], None]) -> None:
        """`wake`: called when a balancer has news, not when its figures alone change."""
        self._balancers, self._monotonic, self._wake = balancers, monotonic, wake
        self._ears: dict[str, _Ear] = {}
        """By balancer."""
        self._asker: Asker[BalancerReport] = Asker(monotonic)
        self._words = SteadyWords()

    async def look(self, cluster: ClusterRef, agents: Mapping[str, Agent]) -> dict[str, BalancerReport]:
        """What each balancer's agent says. One that says nothing is not reachable."""
        self._take_over(agents)
        told = {name: ear.told for name, ear in self._ears.items() if self._hears(ear)}
        silent = {name: self._question(cluster, name, agent) for name, agent in agents.items() if name not in told}
        asked = (await self._asker.ask(silent, PATIENCE_SECONDS)).values
        for name, report in asked.items():
            self._answered(cluster, name, report)
        return {name: self._in_words(name, told.get(name) or asked.get(name)) for name in agents}

    def close(self) -> None:
        """Ask and hear no more."""
        self._take_over({})
        self._asker.close()

    def _take_over(self, agents: Mapping[str, Agent]) -> None:
        for name, ear in list(self._ears.items()):
            if agents.get(name) != ear.agent:
                self._ears.pop(name).close()
        for name, agent in agents.items():
            self._ears.setdefault(name, _Ear(agent))

    def _hears(self, ear: _Ear) -> bool:
        """Whether what an agent told while it was followed holds now."""
        return ear.listens and ear.told is not None and self._monotonic() - ear.heard_at <= REPORT_SECONDS

    def _question(self, cluster: ClusterRef, name: str, agent: Agent) -> Question[BalancerReport]:
        return Question(
            about=agent,
            ask=lambda: self._balancers.report(cluster, name, agent.endpoint, members=agent.members),
            period=0.0,
            lifetime=REPORT_SECONDS,
        )

    def _answered(self, cluster: ClusterRef, name: str, report: BalancerReport) -> None:
        """An agent was asked. One that answers can be followed."""
        ear = self._ears[name]
        ear.last = report
        if report.reachable and not ear.listens and self._monotonic() >= ear.deaf_until:
            ear.task = asyncio.ensure_future(self._listen(cluster, name, ear))

    def _in_words(self, name: str, report: BalancerReport | None) -> BalancerReport:
        """The report, in words that stay."""
        if report is None:
            return BalancerReport(name, False, message=self._words.keep(name, "its agent has not answered yet"))
        if report.reachable:
            self._words.over(name)
            return report
        return replace(report, message=self._words.choose(name, report.message))

    async def _listen(self, cluster: ClusterRef, name: str, ear: _Ear) -> None:
        """Follow an agent until it cannot be followed any more: then the next look asks it, and comes at once if it was
        followed before."""
        agent, ended = ear.agent, None
        try:
            while ended is None:
                begun = self._monotonic()
                ended = await self._balancers.follow(
                    cluster, name, agent.endpoint, members=agent.members, heard=lambda report: self._heard(ear, report)
                )
                if ended is None and self._monotonic() - begun < PACE_SECONDS:
                    await asyncio.sleep(PACE_SECONDS)
        except Exception:
            log.exception("a balancer is not followed by a fault of the operator", cluster=str(cluster), balancer=name)
        ear.deaf_until = self._monotonic() + (AGAIN_SECONDS if ended is None or ended.reachable else PACE_SECONDS)
        if ear.heard_at > float("-inf"):
            ear.heard_at, ear.told = float("-inf"), None
            self._wake()

    def _heard(self, ear: _Ear, report: BalancerReport | None) -> None:
        ear.heard_at = self._monotonic()
        if report is None:
            return
        before, ear.told, ear.last = ear.last, report, report
        if is_news(before, report):
            self._wake()
