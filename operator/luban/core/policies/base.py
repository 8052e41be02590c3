"""What every scaling policy is given, and what it answers. A policy is one file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from luban.api.cluster import LubanClusterSpec, Scaling
from luban.api.cluster_status import DecisionInput, MetricInput
from luban.api.measures import Measure
from luban.core.figures import Figures

PolicyVerdict = Literal["ScaleUp", "ScaleDown", "Hold", "AtMaximum"]


@dataclass(frozen=True)
class Recommendation:
    """What a policy would do now, before windows and cooldowns. `delta` VMs are to be added (negative: removed)."""

    verdict: PolicyVerdict
    reason: str
    message: str
    delta: int = 0
    inputs: tuple[DecisionInput, ...] = ()
    metrics: tuple[MetricInput, ...] = ()
    wanted: int | None = None
    """How many would be right, whatever the step and the limits are; None: as many as `delta` makes."""


@dataclass(frozen=True)
class ScalingLimits:
    """How far a cluster can grow and shrink now."""

    total: int
    """N: VMs that serve or are wanted to."""
    starting: int
    """Those of N that do not serve yet, but are on their way."""
    minimum: int
    maximum: int
    """scaling.maxVMs. The hosts may hold fewer: a greater wish is cut to what they hold."""
    has_host: bool
    """Whether any host can take one more VM."""
    up_step: int = 1
    down_step: int = 1
    removable: int = 0
    """VMs that can go without leaving a host below its own minimum."""
    movable: frozenset[str] | None = None
    """Names of the serving ones among them; None: all."""
    minimum_of_hosts: bool = False
    """Whether the minimum is what the hosts' own add up to, more than scaling.minVMs."""
    schedule: str = ""
    """Name of the schedule that the minimum comes from; empty: none."""

    @property
    def why_minimum(self) -> str:
        """Where the minimum comes from, if it is not what users set for the cluster; in brackets, or empty."""
        if self.minimum_of_hosts:
            return " (hosts[].vms.min add up to it)"
        return f" (schedule {self.schedule})" if self.schedule else ""


@dataclass(frozen=True)
class PolicyInput:
    """All that a policy may look at."""

    spec: LubanClusterSpec
    desired: int
    """How many VMs are wanted so far."""
    serving: Sequence[str]
    """VMs that the balancers send requests to, answering or not."""
    sessions: Mapping[str, int]
    """Active sessions by VM. Missing: unknown."""
    not_answering: Collection[str]
    """Serving VMs that do not answer: they carry no load, and theirs is unknown."""
    limits: Callable[[], ScalingLimits]
    """Asked only by those that need it: it costs a look at every host."""
    figures: Mapping[str, Figures] = field(default_factory=dict)
    """What else is measured, by VM. Missing: unknown."""


@dataclass(frozen=True)
class Policy:
    """One way to decide how many VMs are wanted."""

    recommend: Callable[[PolicyInput], Recommendation]
    immediate: bool = False
    """The user's own word: asked in every tick, and waits for no window, interval or cooldown."""
    counts: bool = False
    """Its wish is a number: when it falls, the highest within the window of behavior.scaleDown holds. Otherwise a wish
    to shrink must have held through that window without a break."""
    measures: Callable[[Scaling], Sequence[Measure]] = lambda _: ()
    """The metrics that it looks at; none: sessions alone."""
    burdens: Callable[[PolicyInput], Mapping[str, float] | None] = lambda _: None
    """How loaded VMs are, of which the most loaded is to leave first; None: the one with the fewest sessions leaves."""
