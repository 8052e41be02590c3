"""The devices of the default routes, asked for now and then: of netlink, or of /proc where there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from luban.adapters.kernel_bonds.device_names import readable
from luban.adapters.kernel_bonds.netlink import Dump
from luban.adapters.kernel_bonds.proc_routes import proc_routes
from luban.adapters.kernel_bonds.routes import default_devices
from luban.adapters.kernel_bonds.wire import Link
from luban.errors import TemporaryError

log = structlog.get_logger(__name__)

ROUTES_SECONDS = 1.0
"""How long what was read is believed, at least: a bond's events come in bursts, and say nothing about routes."""
_SHARE = 100
"""And so many times as long as reading took: a host may have all the routes of the Internet."""


class RouteReader:
    """One thread at a time."""

    def __init__(self, dump: Dump, proc: Path) -> None:
        self._dump = dump
        self._proc = proc
        self._indexes: list[int] = []
        self._until = 0.0
        self._fails = False

    def devices(self, links: Sequence[Link]) -> tuple[str, ...]:
        """Readable names of the devices, the preferred first. `links`: all that there are now."""
        begun = time.monotonic()
        if begun >= self._until:
            self._read(links)
            now = time.monotonic()
            self._until = now + max(ROUTES_SECONDS, _SHARE * (now - begun))
        if self._fails:
            return self.devices_by_proc()
        names = {link.index: readable(link.name) for link in links}
        return tuple(names[index] for index in self._indexes if index in names)

    def devices_by_proc(self) -> tuple[str, ...]:
        """The same without netlink: tables that rules lead to, and further next hops, go unseen."""
        return tuple(readable(name) for name in default_devices(proc_routes(self._proc)))

    def _read(self, links: Sequence[Link]) -> None:
        try:
            routes, rules = self._dump.routes(), self._dump.rules()
        except TemporaryError as error:
            if not self._fails:
                log.warning("routes are read from /proc", error=error.message)
            self._fails = True
            return
        self._fails = False
        vrf_tables = sorted({link.vrf_table for link in links if link.vrf_table is not None})
        self._indexes = default_devices(routes, rules, vrf_tables)
