"""What is measured of a cluster's VMs, beside their sessions: from hosts by uuid, from balancers by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from luban.api.cluster import LubanClusterSpec
from luban.core.figures import NO_FIGURES, Figures
from luban.core.model import VMRecord
from luban.core.policies import policy_of
from luban.senses.requests import Rate

SHORTEST_SECONDS = 5.0
"""Hosts are asked no more often, however short the interval is: each QEMU is asked for it."""
SELDOM_SECONDS = 30.0
"""Hosts are asked so often, whatever the policy looks at: the figures are metrics too."""


def usage_period(spec: LubanClusterSpec) -> float:
    """Seconds between two looks at what VMs use: the policy's interval, if it looks at that."""
    if not policy_of(spec.scaling.policy).measures(spec.scaling):
        return SELDOM_SECONDS
    return min(max(spec.scaling.interval.seconds, SHORTEST_SECONDS), SELDOM_SECONDS)


def figures_of(
    vms: Iterable[VMRecord], used: Mapping[str, Figures], requests: Mapping[str, Rate]
) -> dict[str, Figures]:
    """By VM. `used`: by uuid. One of which nothing is known is missing."""
    found = {vm.name: _with_requests(used.get(vm.uid, NO_FIGURES), requests.get(vm.name)) for vm in vms}
    return {name: it for name, it in found.items() if it is not NO_FIGURES}


def _with_requests(figures: Figures, rate: Rate | None) -> Figures:
    if rate is None:
        return figures
    since = rate.since if figures is NO_FIGURES else min(rate.since, figures.since)
    return replace(figures, requests=rate.requests, response=rate.response, since=since)
