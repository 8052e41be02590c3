"""Metrics of the serving VMs, in percent of what one VM can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from luban.api.cluster import Scaling
from luban.api.cluster_status import MetricInput
from luban.api.measures import Measure, MetricName, Weights
from luban.core.figures import NO_FIGURES
from luban.core.policies.base import PolicyInput, Recommendation


@dataclass(frozen=True)
class Reading:
    """A metric of the VMs that carry the load."""

    name: str
    by_vm: Mapping[str, float]
    """Percent. Missing: unknown."""
    unknown: tuple[str, ...]
    """VMs that carry load, nobody knows how much."""

    @property
    def count(self) -> int:
        """N: VMs that carry the load."""
        return len(self.by_vm) + len(self.unknown)

    @property
    def total(self) -> float:
        """The sum over those that are known: no less than this is carried."""
        return sum(self.by_vm.values())

    @property
    def mean(self) -> float:
        """Of those that are known."""
        return self.total / len(self.by_vm) if self.by_vm else 0.0

    @property
    def least(self) -> float:
        """What the mean over all is at least: growing asks for no more than is known."""
        return self.total / self.count if self.count else 0.0

    @property
    def known(self) -> bool:
        """Whether at least half of them are known."""
        return 2 * len(self.unknown) <= self.count

    @property
    def figure(self) -> str:
        """The mean in words."""
        return f"{self.name} is at {in_percent(self.mean)}"

    def wire(self) -> MetricInput:
        """For the status."""
        value = round(self.mean, 1) if self.by_vm else None
        return MetricInput(name=self.name, value=value, unknown=len(self.unknown))


def in_percent(value: float) -> str:
    """With a tenth where there is one."""
    return f"{value:.1f} %".replace(".0 %", " %")


def read(given: PolicyInput, measure: Measure) -> Reading:
    """A metric of all that serve and answer: those that do not carry nothing."""
    carrying = [name for name in given.serving if name not in given.not_answering]
    found = {name: _percent(given, name, measure) for name in carrying}
    return Reading(
        _name_of(measure),
        {name: value for name, value in found.items() if value is not None},
        tuple(name for name, value in found.items() if value is None),
    )


def nothing_to_read(given: PolicyInput) -> Recommendation | None:
    """Hold, if no VM carries load; None: one does."""
    if not given.serving:
        return Recommendation("Hold", "NothingServes", "no VM serves yet, so there is no load to judge")
    if all(name in given.not_answering for name in given.serving):
        message = f"{', '.join(sorted(given.not_answering))}: no VM answers, so nobody knows the load"
        return Recommendation("Hold", "NothingAnswers", message)
    return None


def why_not_fewer(given: PolicyInput, readings: Sequence[Reading]) -> Recommendation | None:
    """Hold, if anything is unknown that could be high; None: all is known."""
    if given.not_answering:
        words = f"{', '.join(sorted(given.not_answering))} fails its health check"
        return Recommendation("Hold", "NotAnswering", words)
    if words := unknown_in_words(readings):
        return Recommendation("Hold", "LoadUnknown", words)
    return None


def unknown_in_words(readings: Sequence[Reading]) -> str:
    """What is unknown of whom; empty: nothing."""
    missing = {it.name: it.unknown for it in readings if it.unknown}
    return "; ".join(f"{metric} of {', '.join(names)} is unknown" for metric, names in missing.items())


def _percent(given: PolicyInput, vm: str, measure: Measure) -> float | None:
    if measure.metric != "Average":
        return _of_one(given, vm, measure.metric)
    weights = _weights(measure.weights)
    parts = {name: _of_one(given, vm, name) for name in weights}
    known = {name: value for name, value in parts.items() if value is not None}
    if not weights or known.keys() != weights.keys():
        return None
    return sum(weights[name] * value for name, value in known.items()) / sum(weights.values())


def _of_one(given: PolicyInput, vm: str, metric: MetricName) -> float | None:
    scaling, figures = given.spec.scaling, given.figures.get(vm, NO_FIGURES)
    match metric:
        case "CPU":
            return figures.cpu
        case "Memory":
            return figures.memory
        case "Network":
            return _share(figures.network, _link(scaling))
        case "Requests":
            return _share(figures.requests, scaling.per_vm.requests)
        case "Sessions":
            return _share(given.sessions.get(vm), scaling.sessions.max_per_vm)
        case "Average":
            return None
        case _:
            assert_never(metric)


def _link(scaling: Scaling) -> int | None:
    return scaling.per_vm.network.bytes if scaling.per_vm.network is not None else None


def _share(value: float | None, full: int | None) -> float | None:
    return None if value is None or full is None else 100.0 * value / full


def _weights(weights: Weights | None) -> dict[MetricName, int]:
    """Those that count."""
    if weights is None:
        return {}
    of: dict[MetricName, int] = {
        "CPU": weights.cpu,
        "Memory": weights.memory,
        "Network": weights.network,
        "Sessions": weights.sessions,
        "Requests": weights.requests,
    }
    return {name: weight for name, weight in of.items() if weight}


def _name_of(measure: Measure) -> str:
    weights = _weights(measure.weights) if measure.metric == "Average" else {}
    return (
        f"Average({', '.join(f'{name} {weight}' for name, weight in weights.items())})" if weights else measure.metric
    )
