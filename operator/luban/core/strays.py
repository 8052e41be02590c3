"""Domains with this cluster's metadata that no LubanVM stands for."""

from __future__ import annotations

import math

from luban.api.cluster import LubanClusterSpec
from luban.core.memory import ClusterMemory
from luban.core.model import RemoveStray
from luban.core.state import State

STRAY_SECONDS = 300.0
"""So long a stray lives on at least: time to see what went wrong."""
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


def remove_strays(spec: LubanClusterSpec, state: State, memory: ClusterMemory, until: float) -> tuple[RemoveStray, ...]:
    """Remove domains that stood without a LubanVM from `until` or before, and in every tick since.

    Never at the first sighting, which could be a call that came late. `until` is minutes ago, unless the cluster goes.
    """
    uris = {host.name: host.uri for host in spec.hosts if host.uri}
    return tuple(
        RemoveStray(host, uris[host], domain.uuid, "NoLubanVM")
        for host, domain in state.strays
        if host in uris and memory.strays.get(domain.uuid, math.inf) <= until
    )


def remove_idle_strays(
    spec: LubanClusterSpec, state: State, memory: ClusterMemory, now: float
) -> tuple[RemoveStray, ...]:
    """The same while the cluster lives: after STRAY_SECONDS, and once no balancer sends requests there any more.

    While VMs are missing a stray may serve in their place; then it is drained like any other.
    """
    removals = remove_strays(spec, state, memory, now - STRAY_SECONDS)
    if not removals:
        return ()
    patience = STRAY_SECONDS + spec.balancer.drain.timeout.seconds
    hastened = {it.uuid for it in removals if memory.strays.get(it.uuid, now) <= now - patience}
    addresses = {domain.uuid: domain.address for _, domain in state.strays}
    told, busy = _enabled_addresses(state), _busy_addresses(state)
    return tuple(
        it
        for it in removals
        if (address := addresses[it.uuid]) not in told and (it.uuid in hastened or address not in busy)
    )


def _enabled_addresses(state: State) -> set[str]:
    """Addresses to which a balancer sends new requests."""
    published = [member for it in state.observation.published.values() for member in it.members]
    enabled = {member.name for member in published if member.state == "Enabled"}
    return {member.address for member in published if member.name in enabled} - {""}


def _busy_addresses(state: State) -> set[str]:
    """Addresses where a balancer still has some requests in flight."""
    busy = {member.name for it in state.observation.balancers for member in it.members if not member.drained}
    published = (member for it in state.observation.published.values() for member in it.members)
    return {member.address for member in published if member.name in busy} - {""}
