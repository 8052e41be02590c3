"""What one tick of a cluster tells the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from luban.api.cluster_status import Decision
from luban.api.vm import Phase


@dataclass(frozen=True)
class Entered:
    """When a VM was first seen in its phase."""

    phase: Phase
    since: float


@dataclass(frozen=True)
class Wish:
    """How many VMs a policy found right."""

    until: float
    """When it was known to be right for the last time."""
    count: int


@dataclass(frozen=True)
class Setback:
    """VMs of a cluster fail for one cause again and again."""

    count: int
    """How often in a row."""
    retry_at: float
    """Until then no VM is made."""


@dataclass(frozen=True)
class TierMemory:
    """What is remembered of the balancers, where there can be several."""

    size: int = 0
    """How many there should be; 0: not decided yet."""
    above_since: float | None = None
    """Since when fewer would do without a break."""
    seen: Mapping[str, float] = field(default_factory=dict)
    """By balancer: when it was last known to serve."""


@dataclass(frozen=True)
class ClusterMemory:
    """What one tick tells the next. Lost on a restart, except what the runtime reads back from the status."""

    decision: Decision | None = None
    last_scale: float | None = None
    desired: int | None = None
    """How many VMs the policy last settled on."""
    taken_over: bool = False
    """Decision and wanted number are another process's, which may have died before it told all or did all."""
    evaluated: float | None = None
    """When the policy was last asked."""
    eligible: float | None = None
    """When a wish that waits may be carried out."""
    up_since: float | None = None
    """Since when the policy wishes to grow without a break."""
    down_since: float | None = None
    """Since when the policy wishes to shrink without a break."""
    wishes: tuple[Wish, ...] = ()
    """Numbers that a policy which counts found right, the oldest first; only those that no later one is above."""
    shrinking: frozenset[str] = frozenset()
    """VMs that the last scale-down asked to leave. Those that are still there were not asked in the end."""
    misses: dict[str, int] = field(default_factory=dict)
    """By VM: readiness probes missed in a row since it was Ready."""
    avoid: dict[str, float] = field(default_factory=dict)
    """By host: time until which a VM that failed there is not placed there again, if another host can take it."""
    strays: dict[str, float] = field(default_factory=dict)
    """By uuid: since when a domain stands there without a LubanVM."""
    entered: dict[str, Entered] = field(default_factory=dict)
    """By VM: since when it is in its phase."""
    closed: dict[str, float] = field(default_factory=dict)
    """By VM on its way out: since when no balancer sends it anything new."""
    unheard: dict[str, float] = field(default_factory=dict)
    """By VM that stops: when the power button was last known to have been pressed in vain."""
    mute: dict[str, float] = field(default_factory=dict)
    """By balancer: when it was last known not to serve, or said nothing."""
    silent: dict[str, float] = field(default_factory=dict)
    """By host: since when it does not answer."""
    taken_addresses: dict[str, float] = field(default_factory=dict)
    """Addresses of forward ranges that somebody else holds: until when they are not tried again."""
    setbacks: dict[str, Setback] = field(default_factory=dict)
    """By cause (the reason of the failure)."""
    tier: TierMemory | None = None
    """None: there is one balancer."""
