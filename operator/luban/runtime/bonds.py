"""What the node agents report about bonds, as one operator has heard it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from luban.api.cluster import Host
from luban.api.common import ObjectMeta
from luban.api.host import BondStatus, LubanHost
from luban.core.model import BondObservation
from luban.core.placement import UNKNOWN
from luban.core.times import seconds_of

STALE_SECONDS = 180.0
"""A report older than three of the agent's signs of life says nothing any more."""


@dataclass(frozen=True)
class Heard:
    """The last report of a node."""

    host: LubanHost | None
    """None: it could not be read."""
    at: float
    """When it arrived, by our own clock: the node's may be wrong."""


@dataclass
class HostReports:
    """The LubanHosts, fed from a watch."""

    _heard: dict[str, Heard] = field(default_factory=dict)
    """By node."""

    def take(self, body: Mapping[str, Any], now: float) -> bool:
        """A LubanHost was read or changed at `now` (seconds since the epoch). Returns whether it says something new."""
        name = ObjectMeta.model_validate(body["metadata"]).name
        before, host = self._heard.get(name), _parsed(body)
        self._heard[name] = Heard(host, _arrival(before, host, now))
        return before is None or _facts(before.host) != _facts(host)

    def drop(self, node: str) -> None:
        """The LubanHost of a node is gone."""
        self._heard.pop(node, None)

    def look(self, host: Host, now: float) -> BondObservation | None:
        """The bond of a host that matters, as it stands at `now`; None: no agent ever reported."""
        node = node_of(host)
        heard = self._heard.get(node)
        if heard is None:
            return None
        if heard.host is None:
            return BondObservation(UNKNOWN, f"LubanHost {node} cannot be read: is its agent of another version?")
        if heard.host.status.last_report is None:
            return None
        age = now - heard.at
        if age > STALE_SECONDS:
            return BondObservation(UNKNOWN, f"the agent of node {node} has not reported for {age // 60:.0f} min")
        return _chosen(host.bond, heard.host)


def node_of(host: Host) -> str:
    """Kubernetes node whose agent reports on a host."""
    return host.node_name or host.name


def _parsed(body: Mapping[str, Any]) -> LubanHost | None:
    try:
        return LubanHost.parse(body)
    except ValidationError:
        return None


def _arrival(before: Heard | None, host: LubanHost | None, now: float) -> float:
    """A report is as old as we know it. At first sight that is what it says itself, at most."""
    stamp = host.status.last_report if host is not None else None
    if before is not None:
        known = before.host.status.last_report if before.host is not None else None
        return before.at if stamp == known else now
    return min(now, seconds_of(stamp)) if stamp else now


def _facts(host: LubanHost | None) -> object:
    """The report without its time."""
    return host.status.model_copy(update={"last_report": None}) if host is not None else None


def _chosen(wanted: str, host: LubanHost) -> BondObservation:
    status, node = host.status, host.metadata.name
    name = wanted or (status.bond.name if status.bond is not None else "")
    found = next((bond for bond in status.bonds if bond.name == name), None)
    if found is not None:
        return _observed(found)
    if wanted:
        others = ", ".join(bond.name for bond in status.bonds) or "none"
        return BondObservation(UNKNOWN, f"node {node} reports no bond {wanted}; it has: {others}", wanted)
    if status.bond is not None and status.bond.verdict != "None":
        return BondObservation(status.bond.verdict, name=status.bond.name)
    return BondObservation("None", f"node {node} has no bond")


def _observed(bond: BondStatus) -> BondObservation:
    return BondObservation(
        verdict=bond.verdict,
        message=bond.message,
        name=bond.name,
        mode=bond.mode or "",
        active=bond.active,
        total=bond.total,
        since=bond.since,
    )
