"""The memory of an agent that was restarted: what the status of the one before says. Pure."""

from __future__ import annotations

from luban.api.host import BondPortStatus, BondStatus, BondVerdict, LubanHostStatus
from luban.core.bonds.host import HostMemory, Route
from luban.core.bonds.judge import HELD
from luban.core.bonds.model import (
    BondMemory,
    BondSettings,
    Counted,
    Gone,
    PortMemory,
    Sighting,
)
from luban.core.times import seconds_of


class RestoredMemory:
    """Translates a status that was written by a clock that people set into times of ours, which nobody sets."""

    def __init__(
        self, status: LubanHostStatus, now: float, wall: float, heartbeat: float, settings: BondSettings
    ) -> None:
        """`now` and `wall` are the same moment. `heartbeat`: seconds for which a report stands. Raises ValueError."""
        self._status = status
        self._now = now
        self._wall = wall
        self._settings = settings
        self._reported = self._ago(status.last_report) if status.last_report else None
        # The agent before us may have lived until its next sign of life was due.
        self._last = None if self._reported is None else min(now, self._reported + heartbeat)

    def memory(self) -> HostMemory:
        """All that the status tells. Raises ValueError on times that are none."""
        bonds = [bond for bond in self._status.bonds if bond.verdict != "None"]
        chosen = self._status.bond
        route = chosen.name if chosen is not None and chosen.chosen_by == "DefaultRoute" else ""
        return HostMemory(
            bonds={bond.name: self._bond(bond) for bond in bonds},
            known={bond.name: self._gone(bond.gone_since) for bond in bonds if _was_there(bond)},
            route=Route(route),
            boot=self._status.boot_id or "",
        )

    def _ago(self, text: str) -> float:
        """A time that was shown, on our clock: never in the future."""
        return self._now - max(0.0, self._wall - seconds_of(text))

    def _gone(self, text: str | None) -> Gone | None:
        return None if text is None else Gone(self._ago(text), seconds_of(text))

    def _bond(self, bond: BondStatus) -> BondMemory:
        seen: dict[BondVerdict, Sighting] = {}
        if self._last is not None:
            if "Flapping" in bond.reasons:
                # What made it so are counts that only the agent before us had.
                window = self._settings.flapping_window_seconds
                seen["Flapping"] = Sighting(self._last, "a link flapped before the agent was started again", window)
            kept = seen[bond.verdict].keep if bond.verdict in seen else 0.0
            seen[bond.verdict] = Sighting(self._last, _own(bond.message), kept)
        return BondMemory(
            published=bond.verdict,
            since=seconds_of(bond.since),
            seen=seen,
            ports={port.name: self._port(port) for port in bond.ports},
            index=bond.if_index,
        )

    def _port(self, port: BondPortStatus) -> PortMemory:
        gone = self._gone(port.gone_since)
        counter, count = "carrier", port.carrier_downs
        if count is None:
            counter, count = "bond", port.link_failures
        if count is None or self._reported is None:
            return PortMemory(port.carrier, gone=gone, index=port.if_index)
        return PortMemory(port.carrier, None, counter, (Counted(self._reported, count),), gone, port.if_index)


def _was_there(bond: BondStatus) -> bool:
    """Whether the bond was ever read, unlike one that only the spec names."""
    only_named = bond.reasons == ("Down",) and bond.mode is None and not bond.ports
    return bond.gone_since is not None or not only_named


def _own(message: str) -> str:
    """A message without what is added while its verdict is held."""
    return message.partition(HELD)[0]
