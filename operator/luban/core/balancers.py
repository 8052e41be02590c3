"""The balancers of a cluster where there can be several, and what the operator makes for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tier:
    """The balancers of a cluster, as they are and as they should be."""

    size: int
    """How many there should be."""
    replicas: int
    """How many Pods shall run: one that leaves runs on until others serve its VMs."""
    reason: str
    message: str
    usable: frozenset[str]
    """Those that stay and serve."""
    starting: frozenset[str]
    """Those that stay and were never seen to serve, while others do."""
    leaving: frozenset[str]
    """Those that are above the size."""
    gone: frozenset[str]
    """Those of them that serve nobody any more."""
    violations: Mapping[str, int] = field(default_factory=dict)
    """By invariant of cross scheduling: how often it does not hold now."""


@dataclass(frozen=True)
class BalancerObjects:
    """What the operator makes for a cluster's balancers: as it is, and as it should be but for the number of Pods."""

    wanted: str
    """Version of what should be there."""
    version: str = ""
    """Version of what is there; empty: it is not, or may not be complete."""
    replicas: int = 0
    """How many Pods are asked for."""


@dataclass(frozen=True)
class EnsureBalancers:
    """Make the balancers' Pods and all that goes with them, or make them as they should be."""

    replicas: int
    version: str
    """Of what is to be made."""
    reason: str
