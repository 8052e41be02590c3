"""The Rules policy: ordered bands of metrics, after elastic load balancing as a service [E]."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from luban.api.measures import Rule
from luban.core.policies.base import Policy, PolicyInput, Recommendation, ScalingLimits
from luban.core.policies.moves import grow, shrink
from luban.core.policies.readings import Reading, in_percent, nothing_to_read, read, unknown_in_words, why_not_fewer

Judged = tuple[Rule, Reading]


def recommend(given: PolicyInput) -> Recommendation:
    """The first rule whose metric is outside its band decides: above max add VMs, below min remove some.

    Above counts what is known alone: a VM that nobody knows anything of may be idle. Below, all must be known.
    """
    judged = [(rule, read(given, rule)) for rule in given.spec.scaling.rules]
    found = nothing_to_read(given) or _Decision(given, judged, given.limits()).make()
    return replace(found, metrics=tuple(reading.wire() for _, reading in judged))


@dataclass(frozen=True)
class _Decision:
    given: PolicyInput
    judged: Sequence[Judged]
    room: ScalingLimits

    def make(self) -> Recommendation:
        """What the rules make of it; a rule that may not remove a VM lets those after it decide."""
        held = None
        for rule, reading in self.judged:
            if reading.known and reading.least > rule.max:
                return grow(f"{reading.figure}, above its max of {rule.max} %", "AboveMax", self.room)
            if reading.known and reading.mean < rule.min:
                found = self._fewer(f"{reading.figure}, below its min of {rule.min} %")
                if found.delta or not self._safe:
                    return found
                held = held or found
        return held or self._calm()

    @property
    def _safe(self) -> bool:
        return self.given.spec.scaling.safe_shrink

    def _calm(self) -> Recommendation:
        """Nothing is to be done: all is within its band, as far as anybody knows."""
        in_doubt = [it for rule, it in self.judged if not it.known or it.mean > rule.max]
        if words := unknown_in_words(in_doubt):
            known = [f"{it.figure} as far as it is known" for it in in_doubt if it.by_vm]
            return Recommendation("Hold", "LoadUnknown", "; ".join([*known, words]))
        bands = (f"{reading.figure} ({rule.min} to {rule.max} %)" for rule, reading in self.judged)
        return Recommendation("Hold", "WithinBand", ", ".join(bands))

    def _fewer(self, loads: str) -> Recommendation:
        """Remove VMs, or the reason why not."""
        held = why_not_fewer(self.given, [reading for _, reading in self.judged])
        if held is not None:
            return replace(held, message=f"{loads}, but {held.message}")
        by = self.room.down_step
        if self._safe and self.room.total > self.room.minimum:
            if unsafe := next(self._unsafe(1), ""):
                return Recommendation("Hold", "ShrinkUnsafe", f"{loads}, but {unsafe}")
            by = max(count for count in range(1, by + 1) if not next(self._unsafe(count), ""))
        return shrink(loads, "BelowMin", self.room, by=by)

    def _unsafe(self, by: int) -> Iterator[str]:
        """What would be above its max if the same load were carried by so many VMs fewer."""
        for rule, reading in self.judged:
            left = reading.count - by
            if left < 1:
                yield "none of those that serve would be left"
            elif reading.total / left >= rule.max:
                mean = in_percent(reading.total / left)
                yield f"{reading.name} would be at {mean} on {left} VMs, and its max is {rule.max} %"


def burdens(given: PolicyInput) -> Mapping[str, float] | None:
    """How far each VM is towards the max of the rule that it is nearest to; None: the sessions say who leaves."""
    if given.spec.scaling.victim != "MostLoaded":
        return None
    found: dict[str, float] = {}
    for rule in given.spec.scaling.rules:
        for name, value in read(given, rule).by_vm.items():
            found[name] = max(found.get(name, 0.0), value / rule.max)
    return found


RULES = Policy(recommend, counts=True, measures=lambda scaling: scaling.rules, burdens=burdens)
