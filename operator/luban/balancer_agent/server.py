"""httpd as the agent uses it: a Protocol, so that tests can put another in its place, and the real one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from luban.adapters.apache_httpd.connections import Endpoint, open_connections
from luban.adapters.apache_httpd.manager import GENERATION, HttpdManager, LiveSlot, SlotState
from luban.adapters.apache_httpd.process import Httpd
from luban.balancer_agent.listening import try_listen, with_remedy
from luban.errors import LubanError, TemporaryError
from luban.render.httpd import MOST_CHILDREN, AgentSettings

log = structlog.get_logger(__name__)

START_SECONDS = 15.0
"""Longest wait for httpd to answer after a start or a graceful restart; on an idle machine 0.2 s."""
POLL_SECONDS = 0.05


class Server(Protocol):
    """One httpd. Calls raise LubanError subclasses only."""

    @property
    def running(self) -> bool:
        """Whether its process lives."""

    def adopt(self) -> bool:
        """Find an httpd that an earlier agent started. True if there is one."""

    def config_text(self) -> str:
        """The configuration file; empty: none."""

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """Point slots' host names at IP addresses; httpd follows within a second."""

    def write_config(self, text: str) -> None:
        """Replace the configuration file; httpd reads it at a start or graceful restart only."""

    async def check(self, text: str, listen: Endpoint | None = None) -> None:
        """Raises ConfigurationRefused if httpd would not take `text`, or cannot begin to listen at `listen`."""

    async def start(self) -> None:
        """Start httpd; returns when it answers. Raises TemporaryError with its words if it does not."""

    async def graceful(self, children: int) -> None:
        """Let httpd read its configuration again; returns when the new one is in force. It begins so many children."""

    async def stop(self, patience: float) -> None:
        """Let requests in flight end for `patience` seconds at most, and end httpd."""

    async def ended(self) -> None:
        """Return when httpd has ended."""

    async def slots(self) -> dict[str, LiveSlot]:
        """All slots by name."""

    async def set(self, slot: str, port: int, state: SlotState) -> None:
        """Ask for a slot's state; whether it was taken on, `slots` tells."""

    async def status(self) -> dict[str, str]:
        """The lines of server-status by name."""

    def connections(self, targets: Collection[Endpoint]) -> Counter[Endpoint]:
        """Open connections to each of the targets."""

    async def close(self) -> None:
        """Let go of httpd without ending it."""


class HttpdServer:
    """The real one."""

    def __init__(self, binary: str, runtime: AgentSettings) -> None:
        self._httpd = Httpd(binary, Path(runtime.folder))
        self._manager = HttpdManager(runtime.manager_address, runtime.manager_port, runtime.secret)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._httpd.pid is not None

    def adopt(self) -> bool:
        """Find an httpd that an earlier agent started. True if there is one."""
        return self._httpd.adopt()

    def config_text(self) -> str:
        """The configuration file; empty: none."""
        return self._httpd.config.read_text(errors="replace") if self._httpd.config.exists() else ""

    def write_hosts(self, addresses: Mapping[str, str]) -> None:
        """Point slots' host names at IP addresses."""
        self._httpd.write_hosts(addresses)

    def write_config(self, text: str) -> None:
        """Replace the configuration file."""
        self._httpd.write_config(text)

    async def check(self, text: str, listen: Endpoint | None = None) -> None:
        """Let httpd check a configuration, and try `listen` if given: -t does not, and a reload would end httpd."""
        await self._httpd.check(text)
        if listen is not None:
            try_listen(*listen)

    async def start(self) -> None:
        """Start httpd; returns when it answers."""
        await self._httpd.start()
        await self._answering(-1)

    async def graceful(self, children: int) -> None:
        """Let httpd read its configuration again; returns when a child with the new one answers."""
        # Twice, for what ends and begins meanwhile.
        if ended := await self._httpd.make_room(MOST_CHILDREN - 2 * children):
            log.warning("what was open for many configurations is cut", children=ended)
        generation = await self._generation()
        await self._httpd.graceful()
        await self._answering(generation)

    async def stop(self, patience: float) -> None:
        """Let requests in flight end for `patience` seconds at most, and end httpd."""
        await self._httpd.stop(patience)

    async def ended(self) -> None:
        """Return when httpd has ended."""
        await self._httpd.wait()

    async def slots(self) -> dict[str, LiveSlot]:
        """All slots by name."""
        return await self._manager.slots()

    async def set(self, slot: str, port: int, state: SlotState) -> None:
        """Ask for a slot's state."""
        await self._manager.set(slot, port, state)

    async def status(self) -> dict[str, str]:
        """The lines of server-status by name."""
        return await self._manager.status()

    def connections(self, targets: Collection[Endpoint]) -> Counter[Endpoint]:
        """Open connections to each of the targets."""
        return open_connections(targets)

    async def close(self) -> None:
        """Close our connections; httpd runs on."""
        await self._manager.close()

    async def _generation(self) -> int:
        return int((await self._manager.status()).get(GENERATION, "-1"))

    async def _answering(self, generation: int) -> None:
        """Return when httpd answers with a later generation than this. Raises TemporaryError if it never does."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._is_later(generation):
                    if not self.running:
                        words = with_remedy(self._httpd.last_words()) or "see its log"
                        raise TemporaryError("HttpdEnded", f"httpd ended: {words}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise TemporaryError("HttpdSilent", f"httpd does not answer after {START_SECONDS:g} s") from error

    async def _is_later(self, generation: int) -> bool:
        try:
            return await self._generation() > generation
        except LubanError:
            return False
