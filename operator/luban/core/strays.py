"""Domains with this cluster's metadata that no LubanVM stands for."""

from __future__ import annotations

import math

from luban.api.cluster import LubanClusterSpec
from luban.core.model import Action, ClusterMemory, RemoveStray
from luban.core.state import State

STRAY_SECONDS = 300.0
"""So long a stray lives on, out of the balancers: time to see what went wrong."""
STRAY_NOTICE_SECONDS = 15.0
"""So long nothing is said of it: a host's picture may be some seconds old."""


def strays_since(state: State, memory: ClusterMemory, now: float) -> dict[str, float]:
    """By uuid: since when each stray stands there."""
    return {domain.uuid: memory.strays.get(domain.uuid, now) for _, domain in state.strays}


def strays_in_words(state: State, memory: ClusterMemory, now: float) -> tuple[str, ...]:
    """Those that stand there for long enough to be told of."""
    return tuple(
        f"domain {domain.name} on {host}"
        for host, domain in state.strays
        if memory.strays.get(domain.uuid, now) <= now - STRAY_NOTICE_SECONDS
    )


def remove_strays(spec: LubanClusterSpec, state: State, memory: ClusterMemory, until: float) -> tuple[Action, ...]:
    """Remove domains that stood without a LubanVM from `until` or before, and in every tick since.

    Never at the first sighting, which could be a call that came late. `until` is minutes ago, unless the cluster goes.
    """
    uris = {host.name: host.uri for host in spec.hosts}
    return tuple(
        RemoveStray(host, uris[host], domain.uuid, "NoLubanVM")
        for host, domain in state.strays
        if host in uris and memory.strays.get(domain.uuid, math.inf) <= until
    )
