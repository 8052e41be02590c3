"""Who says that something is wrong with the bond: the experiment works with any of them."""

from __future__ import annotations

from typing import Any, Protocol

from lab.bonds.data import Report
from lab.bonds.guest import BondGuest
from lab.bonds.rpc import GuestProcess
from lab.bonds.settings import NEAR


class Observer(Protocol):
    """Watches bond0 of a guest while the experiment breaks cables."""

    name: str
    """What tables and plots call it."""

    def start(self, guest: BondGuest) -> None:
        """Begin to watch; called when bond0 is there. Raises LabError."""

    def reports(self) -> list[Report]:
        """All that it has said since `start`, oldest first, on our clock."""

    def stop(self) -> None:
        """End it."""


class NetlinkObserver:
    """The kernel's own events, read by `inside/links.py`: how soon one could know."""

    name = "netlink events"

    def __init__(self) -> None:
        self._guest: BondGuest | None = None
        self._process: GuestProcess | None = None

    def start(self, guest: BondGuest) -> None:
        """Begin to watch."""
        self._guest = guest
        self._process = guest.spawn_program("links", NEAR)

    def reports(self) -> list[Report]:
        """All that it has said since `start`. Raises LabError if it has ended."""
        if self._guest is None or self._process is None:
            return []
        return [self._report(self._guest, line) for line in self._process.json_lines()]

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    @staticmethod
    def _report(guest: BondGuest, line: dict[str, Any]) -> Report:
        usable = frozenset(port for port, good in line["ports"].items() if good)
        return Report(at=guest.clock.to_host(line["at"] / 1e9), verdict=line["verdict"], usable=usable)
