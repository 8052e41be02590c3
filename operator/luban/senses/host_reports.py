"""What the node agents report about bonds, as one operator has heard it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from luban.api.cluster import Host
from luban.api.common import ObjectMeta
from luban.api.host import BondStatus, BondVerdict, LubanHost
from luban.core.model import BondObservation
from luban.core.placement import UNKNOWN
from luban.core.times import seconds_of

log = structlog.get_logger(__name__)

STALE_SECONDS = 180.0
"""A report older than three of the agent's signs of life says nothing any more."""
OMITTED = "BondsOmitted"
"""Note of a LubanHost that does not list all of its bonds."""
LONGEST_MESSAGE, LONGEST_NAME = 1024, 64
"""What a node says is copied into the status of clusters: one node must not make it too large to be written."""


@dataclass(frozen=True)
class Heard:
    """The last report of a node."""

    host: LubanHost | None
    """None: it could not be read."""
    left_out: tuple[str, ...]
    """What of it could not be read: another version wrote it."""
    incomplete: bool
    """Whether a bond is among that."""
    at: float
    """When it arrived, in seconds of our own monotonic clock: the node's may be wrong."""


@dataclass
class HostReports:
    """The LubanHosts, fed from a watch."""

    _heard: dict[str, Heard] = field(default_factory=dict)
    """By node."""

    def take(self, body: Mapping[str, Any], now: float, wall: float) -> bool:
        """A LubanHost was read or changed. Returns whether it says something new.

        `now`: seconds of our monotonic clock; `wall`: seconds since the epoch.
        """
        name = ObjectMeta.model_validate(body["metadata"]).name
        before, (host, left_out) = self._heard.get(name), _parsed(body)
        if left_out and (before is None or before.left_out != left_out):
            log.warning("parts of a LubanHost left out", node=name, parts=left_out)
        incomplete = host is not None and _lacks_bonds(host, body.get("status"))
        self._heard[name] = Heard(host, left_out, incomplete, _arrival(before, host, now, wall))
        return before is None or _facts(before.host) != _facts(host)

    def drop(self, node: str) -> None:
        """The LubanHost of a node is gone."""
        self._heard.pop(node, None)

    def look(self, host: Host, now: float) -> BondObservation | None:
        """The bond of a host that matters at `now` (our monotonic clock); None: no agent ever reported."""
        node = node_of(host)
        heard = self._heard.get(node)
        if heard is None:
            return None
        if heard.host is None:
            return BondObservation(UNKNOWN, f"LubanHost {node} cannot be read: is its agent of another version?")
        if heard.host.status.last_report is None:
            return None
        if now - heard.at > STALE_SECONDS:
            last = heard.host.status.last_report
            return BondObservation(UNKNOWN, f"the agent of node {node} has not reported since {last}")
        return _chosen(host.bond, heard.host, incomplete=heard.incomplete)


def node_of(host: Host) -> str:
    """Kubernetes node whose agent reports on a host."""
    return host.node_name or host.name


_ESSENTIAL = ("status.lastReport:", "status.bonds:")
"""Places without which a report says nothing."""


def _parsed(body: Mapping[str, Any]) -> tuple[LubanHost | None, tuple[str, ...]]:
    """With what could not be read. None if that is what matters."""
    try:
        host = LubanHost.parse(body)
        seconds_of(host.status.last_report or "1970-01-01T00:00:00Z")
    except ValueError as error:
        return None, (str(error),)
    unreadable = any(text.startswith(_ESSENTIAL) for text in host.left_out)
    return (None if unreadable else host), host.left_out


def _lacks_bonds(host: LubanHost, status: Any) -> bool:
    """Whether there is a bond in a status that was not read from it."""
    read = host.status
    if not isinstance(status, dict):
        return False
    return len(read.bonds) < len(status.get("bonds") or ()) or (read.bond is None and bool(status.get("bond")))


def _arrival(before: Heard | None, host: LubanHost | None, now: float, wall: float) -> float:
    """A report is as old as we know it. At first sight that is what it says itself."""
    stamp = host.status.last_report if host is not None else None
    if before is not None:
        known = before.host.status.last_report if before.host is not None else None
        return before.at if stamp == known else now
    return now - max(0.0, wall - seconds_of(stamp)) if stamp else now


def _facts(host: LubanHost | None) -> object:
    """What a cluster acts on: not the time, nor every counter of every port."""
    if host is None:
        return None
    return [(bond.name, bond.verdict, bond.active, bond.total) for bond in host.status.bonds], host.status.bond


def _chosen(wanted: str, host: LubanHost, *, incomplete: bool) -> BondObservation:
    status, node = host.status, host.metadata.name
    name = wanted or (status.bond.name if status.bond is not None else "")
    found = next((bond for bond in status.bonds if bond.name == name), None)
    if found is not None:
        return _observed(found)
    if wanted:
        others = ", ".join(bond.name for bond in status.bonds)[:LONGEST_MESSAGE] or "none"
        omitted = incomplete or any(note.startswith(OMITTED) for note in status.notes)
        verdict: BondVerdict = UNKNOWN if omitted else "Down"
        return BondObservation(verdict, f"node {node} reports no bond {wanted}; it has: {others}", wanted)
    if status.bond is not None and status.bond.verdict != "None":
        told = next((it.message for it in status.conditions if it.type == "BondHealthy"), "")
        return BondObservation(status.bond.verdict, told[:LONGEST_MESSAGE], status.bond.name[:LONGEST_NAME])
    if incomplete:
        return BondObservation(UNKNOWN, f"LubanHost {node} cannot be read in full: is its agent of another version?")
    return BondObservation("None", f"node {node} has no bond")


def _observed(bond: BondStatus) -> BondObservation:
    return BondObservation(
        verdict=bond.verdict,
        message=bond.message[:LONGEST_MESSAGE],
        name=bond.name[:LONGEST_NAME],
        mode=bond.mode or "",
        active=bond.active,
        total=bond.total,
        since=bond.since[:LONGEST_NAME],
    )
