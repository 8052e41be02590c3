"""ports.BondSource on the running kernel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import structlog

from luban.adapters.kernel_bonds import sysfs
from luban.adapters.kernel_bonds.device_names import readable
from luban.adapters.kernel_bonds.files import SysNet, boot_id
from luban.adapters.kernel_bonds.netlink import Dump, LinkEvents
from luban.adapters.kernel_bonds.readings import Speed, bond_readings, relevant
from luban.adapters.kernel_bonds.route_reader import RouteReader
from luban.adapters.kernel_bonds.wire import Link
from luban.core.bonds.model import BondReading, HostReading, PortReading
from luban.errors import TemporaryError

log = structlog.get_logger(__name__)

HANGS = "ReadingHangs"
"""Reason of the error when a reading did not come back, unlike one that failed."""
READ_SECONDS = 5.0
"""Deadline of a reading: a driver may keep the one who asks for its speed waiting."""
SPEED_SECONDS = 10.0
"""How long a port's speed is believed while its carrier and LACP state do not change: asking takes a lock that all of
the kernel's network configuration waits for."""


class KernelBonds:
    """Bonds of this host's network namespace. `proc` and `sys` are where those file systems are mounted.

    Needs no privileges; netlink is complete without any, while /proc and /sys then leave things out.
    """

    def __init__(self, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> None:
        self._proc = proc
        self._sysnet = SysNet(sys)
        self._dump = Dump()
        self._routes = RouteReader(self._dump, proc)
        self._speeds: dict[int, tuple[object, float, Speed]] = {}
        self._relevant: frozenset[int] = frozenset()
        self._events: list[LinkEvents] = []
        self._without_netlink = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bonds")
        self._reading: Future[HostReading] | None = None

    async def read(self) -> HostReading:
        """All bonds, now. Raises TemporaryError if nothing can be read, or not in time."""
        for events in self._events:
            events.repair()
        if self._reading is not None and not self._reading.done():
            raise TemporaryError(HANGS, "an earlier reading of the network devices has not come back")
        self._reading = self._thread.submit(self.read_now)
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await asyncio.wrap_future(self._reading)
        except TimeoutError as error:
            raise TemporaryError(HANGS, f"network devices not read within {READ_SECONDS:g} s") from error

    def watch(self, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake(reason)` on events of bonds and ports: link; overrun where some were lost; reopened where the
        subscription broke and was made anew, which each reading tries."""
        try:
            events = LinkEvents(wake, lambda: self._relevant)
        except OSError as error:
            raise TemporaryError("NetlinkFailed", f"no events from netlink: {error}") from error
        self._events.append(events)
        return events.close

    async def close(self) -> None:
        """End all subscriptions and the thread; one that hangs is left behind."""
        for events in self._events:
            events.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._reading is None or self._reading.done():
            self._dump.close()

    def read_now(self) -> HostReading:
        """`read`, in this thread. Raises TemporaryError."""
        try:
            links = self._dump.links()
        except TemporaryError as error:
            return self._without(error)
        self._without_netlink = False
        self._relevant = relevant(links)
        self._speeds = {index: known for index, known in self._speeds.items() if index in self._relevant}
        names = {readable(link.name): link.name for link in links}
        bonds = tuple(self._complete(bond, names) for bond in bond_readings(links, self._speed))
        return self._host(bonds, self._routes.devices(links) if bonds else ())

    def _without(self, error: TemporaryError) -> HostReading:
        """What the file systems say. Raises the error itself if they say nothing either."""
        found = sysfs.bond_names(self._proc, self._sysnet)
        if not found:
            raise error
        if not self._without_netlink:
            log.warning("bonds are read from /proc and /sys", error=error.message)
        self._without_netlink = True
        bonds = tuple(sysfs.read_bond(name, self._proc, self._sysnet) for name in found)
        return self._host(bonds, self._routes.devices_by_proc())

    def _host(self, bonds: tuple[BondReading, ...], devices: tuple[str, ...]) -> HostReading:
        return HostReading(time.time(), bonds, devices, boot=boot_id(self._proc))

    def _complete(self, bond: BondReading, names: dict[str, bytes]) -> BondReading:
        """Fill in what an old kernel's netlink does not tell."""
        if all(_is_complete(port, lacp=bond.is_lacp) for port in bond.ports):
            return bond
        return sysfs.fill(bond, sysfs.read_bond(names[bond.name], self._proc, self._sysnet))

    def _speed(self, link: Link) -> Speed:
        # LACP follows speed and duplex, so they may have changed when its state has.
        lacp = (link.port or {}).get("actor_state")
        state = (link.name, link.carrier, link.carrier_changes, link.flags, link.master, lacp)
        known = self._speeds.get(link.index)
        now = time.monotonic()
        if known is not None and known[0] == state and now - known[1] < SPEED_SECONDS:
            return known[2]
        speed = (self._sysnet.speed(link.name), self._sysnet.duplex(link.name))
        self._speeds[link.index] = state, now, speed
        return speed


def _is_complete(port: PortReading, *, lacp: bool) -> bool:
    facts: tuple[object, ...] = (port.mii, port.state)
    if lacp:
        facts += (port.aggregator, port.actor_state, port.partner_state)
    return None not in facts
