"""Growing and shrinking as far as limits and hosts allow: the same for all policies that look at the load."""

from __future__ import annotations

from luban.core.policies.base import Recommendation, ScalingLimits


def grow(loads: str, reason: str, room: ScalingLimits, *, by: int | None = None) -> Recommendation:
    """Add VMs because of `loads`, or say what is in the way.

    `by`: how many are needed, as far as anybody can say: then VMs that do not serve yet are among those counted on.
    None: as many as a step, and none while a VM is on its way that may be enough.
    """
    if room.total >= room.maximum:
        return Recommendation("AtMaximum", "MaxVMs", f"{loads}, but maxVMs {room.maximum} is reached")
    if not room.has_host:
        return Recommendation("AtMaximum", "NoHostHasRoom", f"{loads}, but no host can take another VM")
    if room.starting and by is None:
        return Recommendation(
            "Hold", "WarmingUp", f"{loads}; of {room.total} wanted VMs {room.starting} do not serve yet"
        )
    step = room.up_step if by is None else min(by, room.up_step)
    return Recommendation("ScaleUp", reason, loads, min(step, room.maximum - room.total))


def shrink(loads: str, reason: str, room: ScalingLimits, *, by: int) -> Recommendation:
    """Remove up to `by` VMs because of `loads`, or say what is in the way.

    A VM that does not serve yet holds nothing up: it would be the first to go.
    """
    if room.total <= room.minimum:
        return Recommendation(
            "Hold", "MinVMs", f"{loads}, but the minimum of {room.minimum} VMs is reached{room.why_minimum}"
        )
    delta = min(by, room.down_step, room.total - room.minimum, room.removable)
    if delta < 1:
        return Recommendation("Hold", "HostMinimum", f"{loads}, but no host with an idle VM is above its vms.min")
    return Recommendation("ScaleDown", reason, loads, -delta)
