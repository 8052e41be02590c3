"""httpd's files, and what it has loaded of them: starts, graceful restarts, and the mirror of its present state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from luban.adapters.apache_httpd.connections import Endpoint
from luban.balancer_agent.listening import PORT_TAKEN
from luban.balancer_agent.memory import Skeleton, Store
from luban.balancer_agent.metrics import Metrics
from luban.balancer_agent.server import Server
from luban.balancer_agent.slots import View, lines, ports_of
from luban.errors import ConfigurationRefused, LubanError
from luban.render.balancer import BalancerDocument, BalancerSettings
from luban.render.httpd import AgentSettings, children_for, slot_host, slotted_config

log = structlog.get_logger(__name__)

RELOAD_SECONDS = 5.0
"""Least time between two graceful restarts: they cost clients' connections, and close together they crash children."""
LONGEST_PAUSE = 30.0
"""Between two attempts to start httpd."""
FIRST_RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 300.0
"""Between two attempts to load what httpd refused: the cause may go away, such as a port that another program held."""
_IN_ITS_OWN_WAY = "ListensOtherwise"


@dataclass(frozen=True)
class _Refusal:
    """Settings that httpd does not run with."""

    skeleton: Skeleton
    words: str
    final: bool
    """httpd ended of them although its check was content: only other settings are tried on it again."""
    patience: float
    """Seconds until the next attempt."""
    start_helps: bool
    """An httpd that is started with them would run: only the one that runs cannot change to them."""


class Loader:
    """Keeps httpd running with the wanted settings, or with the last good ones if httpd refuses the wanted."""

    def __init__(
        self, server: Server, runtime: AgentSettings, store: Store, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._server = server
        self._runtime = runtime
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._hosts: dict[str, str] = {}
        self._config = ""
        self._refused: _Refusal | None = None
        self._retry_after = 0.0
        self._reload_after = 0.0
        self._start_after = 0.0
        self._failures = 0

    @property
    def problem(self) -> str:
        """Why the wanted settings are not in force; empty: they are, or soon."""
        return refusal.words if (refusal := self._refusal()) else ""

    def _refusal(self) -> _Refusal | None:
        return self._refused if self._refused and self._refused.skeleton == self._wanted() else None

    @property
    def in_force(self) -> bool:
        """Whether httpd has loaded what is wanted."""
        return self._store.memory.in_force == self._wanted()

    @property
    def sticky(self) -> bool:
        """Whether httpd binds clients to members."""
        return (self._store.memory.in_force or self._wanted()).settings.sticky_cookie != ""

    def start_delay(self) -> float:
        """Seconds until httpd may be started again after it failed to."""
        return max(0.0, self._start_after - self._clock())

    def reconsider(self) -> None:
        """Try again at once what failed: something new is wanted."""
        self._start_after = self._retry_after = self._clock()
        self._failures = 0
        if self._refused:
            self._refused = replace(self._refused, patience=0.0)

    def adopt(self) -> bool:
        """Go on with an httpd that an earlier agent started. False if there is none."""
        memory = self._store.memory
        if not self._server.adopt():
            return False
        self._config = self._server.config_text()
        skeleton = memory.in_force
        if skeleton and _without_members(self._config) != _without_members(self._text(skeleton, View())):
            # Another version of this program wrote it: it has to be loaded anew.
            self._store.update(replace(memory, in_force=None))
        self._reload_after = self._clock() + RELOAD_SECONDS
        return True

    async def start(self, view: View) -> None:
        """Start httpd with the wanted settings, or the last good ones. Raises LubanError if neither works."""
        self._failures += 1
        self._start_after = self._clock() + min(LONGEST_PAUSE, 2.0**self._failures / 2)
        self._write_hosts()
        first, second = self._candidates()
        try:
            await self._start_with(first, view)
        except LubanError as error:
            if second is None:
                raise
            self._refuse(first, error, final=False)
            await self._start_with(second, view)
        self._failures = 0

    def _candidates(self) -> tuple[Skeleton, Skeleton | None]:
        """What to start with, and if that fails. The last good settings come first where the wanted are refused."""
        wanted, last = self._wanted(), self._store.memory.in_force
        if last is None or last == wanted:
            return wanted, None
        refusal = self._refusal()
        return (last, wanted) if refusal and not refusal.start_helps else (wanted, last)

    async def _start_with(self, skeleton: Skeleton, view: View) -> None:
        text = self._text(skeleton, view)
        await self._server.check(text)
        self._write_config(text)
        self._reload_after = self._clock() + RELOAD_SECONDS
        await self._server.start()
        self._store.update(replace(self._store.memory, in_force=skeleton))
        if skeleton == self._wanted():
            self._refused = None
        self._metrics.starts.inc()
        log.info("httpd started", slots=len(skeleton.ports))

    def write(self, view: View) -> None:
        """Bring the hosts file and the configuration file up to date; httpd is not told."""
        self._write_hosts()
        if skeleton := self._store.memory.in_force:
            self._write_config(self._text(skeleton, view))

    def _write_hosts(self) -> None:
        hosts = {slot_host(slot.name): slot.address for slot in self._store.table}
        if hosts != self._hosts:
            self._server.write_hosts(hosts)
            self._hosts = hosts

    async def reload(self, view: View) -> bool:
        """Let httpd load the wanted settings if it has others and the time has come. True if it did."""
        wanted = self._wanted()
        if self.in_force or not self._may_try() or self.reload_delay() > 0:
            return False
        before = self._config
        try:
            text = self._text(wanted, view)
            _check_takeover(_listen(self._config), _listen(text))
            await self._server.check(text, self._new_endpoint(wanted.settings, text))
            self._write_config(text)
            await self._server.graceful(children_for(wanted.settings.requests_at_once))
        except LubanError as error:
            # Not all that ends httpd is found by its own check.
            if self._server.running and not isinstance(error, ConfigurationRefused):
                raise
            self._write_config(before)
            self._refuse(wanted, error, final=not self._server.running and PORT_TAKEN not in error.message)
            return False
        finally:
            self._reload_after = self._clock() + RELOAD_SECONDS
        self._refused = None
        self._store.update(replace(self._store.memory, in_force=wanted))
        self._metrics.reloads.labels("loaded").inc()
        log.info("httpd loaded new settings", slots=len(wanted.ports))
        return True

    def reload_delay(self) -> float:
        """Seconds until httpd may be told to load what it has not loaded yet."""
        return max(0.0, self._reload_after - self._clock())

    def _may_try(self) -> bool:
        """Whether the wanted settings may be tried, for the first time or again."""
        refusal = self._refusal()
        return refusal is None or (not refusal.final and self._clock() >= self._retry_after)

    def _refuse(self, skeleton: Skeleton, error: LubanError, *, final: bool) -> None:
        before = self._refused if self._refused and self._refused.skeleton == skeleton else None
        patience = min(LONGEST_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, 2.0 * before.patience if before else 0.0))
        self._refused = _Refusal(skeleton, error.message, final, patience, error.reason == _IN_ITS_OWN_WAY)
        self._retry_after = self._clock() + patience
        self._metrics.reloads.labels("refused").inc()
        if before is None or before.words != error.message:
            log.error("httpd refuses the wanted settings, the old ones stay", words=error.message)

    def _wanted(self) -> Skeleton:
        return Skeleton(self._document().settings, ports_of(self._store.table))

    def _document(self) -> BalancerDocument:
        document = self._store.memory.document
        if document is None:
            raise LookupError("nothing is wanted yet")
        return document

    def _new_endpoint(self, settings: BalancerSettings, text: str) -> Endpoint | None:
        """Where httpd would have to begin to listen. The files tell, also if another program wrote the last one."""
        if _listen(text) == _listen(self._config):
            return None
        return self._runtime.listen_address or settings.listen_address, settings.listen_port

    def _text(self, skeleton: Skeleton, view: View) -> str:
        return slotted_config(skeleton.settings, lines(self._store.table, skeleton.ports, view), self._runtime)

    def _write_config(self, text: str) -> None:
        if text != self._config:
            self._server.write_config(text)
            self._config = text


def _listen(text: str) -> str:
    """The line of a configuration that says where clients connect: the first of its kind."""
    return next((line for line in text.splitlines() if line.startswith("Listen ")), "")


def _check_takeover(held: str, wanted: str) -> None:
    """Raises ConfigurationRefused if the httpd that runs is in its own way.

    A graceful restart begins to listen before it stops: from one address to another it works, but the port of one
    address cannot be had while that of all is held, nor the other way round, and httpd would end.
    """
    before, after = (line.removeprefix("Listen ").rpartition(":") for line in (held, wanted))
    if before[2] == after[2] and (before[0] == "") != (after[0] == ""):
        raise ConfigurationRefused(
            _IN_ITS_OWN_WAY,
            f"httpd listens at {before[0] or '*'}:{before[2]} and cannot change to {after[0] or '*'}:{after[2]} while "
            "it runs: stop and start this balancer's agent, or change listen.port too, and back when that is applied",
        )


def _without_members(text: str) -> str:
    """What of a configuration httpd cannot be told but by a reload; the slots' ports are remembered elsewhere."""
    return "\n".join(line for line in text.splitlines() if "BalancerMember" not in line)
