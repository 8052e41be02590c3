"""What a spec asks for at a time of day."""

from __future__ import annotations

from luban.api.cluster import LubanClusterSpec
from luban.core.times import LATEST


def in_force(spec: LubanClusterSpec, wall: float) -> LubanClusterSpec:
    """The spec with what its schedules make of it now: minVMs is raised, and the one that raises it is left alone.

    `wall`: seconds since the epoch. A spec without schedules is the same object.
    """
    scaling = spec.scaling
    if not scaling.schedules:
        return spec
    moment = min(max(wall, 0.0), LATEST)
    lasting = [it for it in scaling.schedules if it.min_vms > scaling.min_vms and it.lasts(moment)]
    most = max(lasting, key=lambda it: it.min_vms, default=None)
    least = min(most.min_vms, scaling.max_vms) if most is not None else scaling.min_vms
    changed = scaling.model_copy(update={"min_vms": least, "schedules": (most,) if most is not None else ()})
    return spec.model_copy(update={"scaling": changed})


def raises(spec: LubanClusterSpec) -> str:
    """Name of the schedule that raises minVMs in a spec as it is in force; empty: none does."""
    return spec.scaling.schedules[0].name if spec.scaling.schedules else ""
