"""Growing patience with a cluster that cannot work: what fails again and again is tried ever more rarely.

As with CrashLoopBackOff: doubling up to five minutes, counted per cause, forgotten as soon as a VM becomes ready, a
host is back, or the user changes hosts or template. The first failure costs nothing: it is replaced at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from luban.api.cluster import LubanClusterSpec
from luban.core import phases
from luban.core.lifecycle import Step
from luban.core.memory import ClusterMemory, Setback
from luban.core.model import UpdateVM, VMRecord

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 300.0
SOUND_SECONDS = 600.0
"""A VM that served for so long did not fail at its start: its end is no setback."""


def memory_for(spec: LubanClusterSpec, before: LubanClusterSpec, memory: ClusterMemory) -> ClusterMemory:
    """What still holds of a cluster's memory when its spec changes: the policy is asked anew; and what failed may work
    now, if it is hosts or template that changed."""
    remedy = (spec.hosts, spec.template) != (before.hosts, before.template)
    return replace(memory, evaluated=None, setbacks={} if remedy else memory.setbacks)


def setbacks_after(
    before: Mapping[str, Setback], moving: Sequence[tuple[VMRecord, Step]], now: float
) -> dict[str, Setback]:
    """What failed lately, once steps are taken. Several VMs that fail in one tick are one setback.

    `moving`: VMs that come to another phase, with their steps.
    """
    if any(vm.phase in phases.BECOMES_READY and step.phase in phases.FIT for vm, step in moving):
        return {}
    fresh = {reason for vm, step in moving if (reason := _cause(vm, step, now))}
    return {**before, **{reason: _again(before.get(reason), now) for reason in fresh}}


def _cause(vm: VMRecord, step: Step, now: float) -> str:
    """Why the VM fails with this step; empty: it does not."""
    if step.phase not in phases.IN_VAIN:
        return ""
    if vm.phase == "Ready" and now - vm.phase_since >= SOUND_SECONDS:
        return ""
    update = next((action for action in step.actions if isinstance(action, UpdateVM)), None)
    return update.reason if update is not None else step.phase


def _again(before: Setback | None, now: float) -> Setback:
    count = before.count + 1 if before is not None else 1
    wait = 0.0 if count == 1 else min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (count - 2))
    return Setback(count, now + wait)
