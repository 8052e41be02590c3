"""The Target policy: as many VMs as keep a metric at a value, as Kubernetes' HorizontalPodAutoscaler works it out."""

from __future__ import annotations

import math
from dataclasses import replace

from luban.core.policies.base import Policy, PolicyInput, Recommendation, ScalingLimits
from luban.core.policies.moves import grow, shrink
from luban.core.policies.readings import Reading, in_percent, nothing_to_read, read, unknown_in_words, why_not_fewer

TOLERANCE = 0.1
"""A mean that is so near to the target, relative to it, is as it should be."""
ROUNDING = 1e-9
"""What sums of fractions may be off by."""


def recommend(given: PolicyInput) -> Recommendation:
    """desired = ceil(N * metric / target), N being the VMs that carry the load; none within the tolerance."""
    reading = read(given, given.spec.scaling.target)
    found = nothing_to_read(given) or _judge(given, reading, given.limits())
    return replace(found, metrics=(reading.wire(),))


def _judge(given: PolicyInput, reading: Reading, room: ScalingLimits) -> Recommendation:
    """A VM that nobody knows anything of counts as idle for growing, and forbids shrinking."""
    target = given.spec.scaling.target.percent
    if not reading.known:
        return Recommendation("Hold", "LoadUnknown", unknown_in_words([reading]))
    needed = max(1, math.ceil(reading.total / target - ROUNDING))
    aim = f"{reading.figure} on {len(reading.by_vm)} VMs, the target is {target} %"
    if reading.unknown:
        aim = f"{aim}, {unknown_in_words([reading])}"
    mean = reading.total / room.total if room.total else 0.0
    if abs(mean / target - 1) <= TOLERANCE + ROUNDING or needed == room.total:
        return Recommendation("Hold", "OnTarget", f"{aim}: {room.total} are right", wanted=room.total)
    aim = f"{aim}: {needed} would be right for {in_percent(reading.total)} in all"
    if needed > room.total:
        return replace(grow(aim, "AboveTarget", room, by=needed - room.total), wanted=needed)
    held = why_not_fewer(given, [reading])
    if held is not None:
        return replace(held, message=f"{aim}, but {held.message}")
    return replace(shrink(aim, "BelowTarget", room, by=room.total - needed), wanted=needed)


TARGET = Policy(recommend, counts=True, measures=lambda scaling: (scaling.target,))
