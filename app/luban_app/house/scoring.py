"""Quantification: answers in, scores out. Pure: the same answers give the same scores in any order and on any VM.

A score is `50 + 10 * sum(w*s) / sum(w)` over the answered indicators, clamped to 0..100, where w is an indicator's
weight (1..5) and s the chosen option's score (-5..+5). 50 is neutral. Where nothing is answered there is no score:
not knowing a house is not the same as a middling house.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from luban_app.catalogue.model import Catalogue, Indicator, Option

Answers = Mapping[str, str]
"""Indicator id -> option id."""

NEUTRAL = 50
STEP = 10
"""Points of the result for one point of an option's score."""
MAX_SCORE = 100
FINDINGS = 3
"""How many of the best and the worst are shown."""

_SHOWN = 60


class AnswerError(ValueError):
    """An answer that the catalogue does not know.

    `field` is the indicator id as it was given (a form's field name), `value` what was answered.
    """

    def __init__(self, field: str, value: str, problem: str) -> None:
        self.field = field
        self.value = value
        super().__init__(f"{field[:_SHOWN]}: {problem}")


class UnknownIndicatorError(AnswerError):
    """The answer is to something that the catalogue does not ask."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(field, value, "no such indicator")


class UnknownOptionError(AnswerError):
    """The indicator exists, the option does not."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(field, value, f"no such option: {value[:_SHOWN]!r}")


@dataclass(frozen=True)
class Finding:
    """An answered indicator with the option chosen."""

    indicator: Indicator
    option: Option

    @property
    def contribution(self) -> int:
        """Weight times score: -25..+25."""
        return self.indicator.weight * self.option.score


@dataclass(frozen=True)
class Score:
    """A score from 0 to 100, or None where nothing is answered, and how much of the question it rests on."""

    value: float | None
    answered: int
    asked: int

    @property
    def share(self) -> float:
        """Indicators answered out of those asked, 0..1."""
        return self.answered / self.asked if self.asked else 0.0


@dataclass(frozen=True)
class PartScore:
    """The score of one part; `part` is its id."""

    part: str
    score: Score


@dataclass(frozen=True)
class Evaluation:
    """The result page: parts in the catalogue's order, the total over all answers, and what stands out."""

    parts: tuple[PartScore, ...]
    total: Score
    worst: tuple[Finding, ...]
    best: tuple[Finding, ...]

    def part(self, part_id: str) -> Score:
        """The score of the part with this id. Raises KeyError if there is none."""
        for part in self.parts:
            if part.part == part_id:
                return part.score
        raise KeyError(part_id)


def evaluate(catalogue: Catalogue, answers: Answers) -> Evaluation:
    """The scores that `answers` give; indicators that are not in it do not count.

    Raises UnknownIndicatorError or UnknownOptionError (both AnswerError) for the first such field by name.
    """
    findings = _findings(catalogue, answers)
    parts = tuple(PartScore(part.id, _score(_of(findings, part.id), len(part.indicators))) for part in catalogue.parts)
    return Evaluation(
        parts=parts,
        total=_score(findings, len(catalogue.indicators)),
        worst=_worst(findings),
        best=_best(findings),
    )


def _findings(catalogue: Catalogue, answers: Answers) -> list[Finding]:
    """The answers in the catalogue's order, whatever order they came in."""
    for field in sorted(answers):
        indicator = catalogue.indicator(field)
        if indicator is None:
            raise UnknownIndicatorError(field, answers[field])
        if indicator.option(answers[field]) is None:
            raise UnknownOptionError(field, answers[field])
    found = []
    for indicator in catalogue.indicators:
        option = indicator.option(answers[indicator.id]) if indicator.id in answers else None
        if option is not None:
            found.append(Finding(indicator, option))
    return found


def _of(findings: Iterable[Finding], part: str) -> list[Finding]:
    return [finding for finding in findings if finding.indicator.part == part]


def _score(findings: list[Finding], asked: int) -> Score:
    if not findings:
        return Score(None, 0, asked)
    weights = sum(finding.indicator.weight for finding in findings)
    weighted = sum(finding.contribution for finding in findings)
    # Whole numbers up to one division: the result is the nearest float, whatever was answered first.
    value = (NEUTRAL * weights + STEP * weighted) / weights
    return Score(min(max(value, 0.0), float(MAX_SCORE)), len(findings), asked)


def _worst(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The most harmful, worst first. `sorted` is stable: among equals, the catalogue's order decides."""
    bad = [finding for finding in findings if finding.contribution < 0]
    return tuple(sorted(bad, key=lambda finding: finding.contribution)[:FINDINGS])


def _best(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    good = [finding for finding in findings if finding.contribution > 0]
    return tuple(sorted(good, key=lambda finding: -finding.contribution)[:FINDINGS])


def version(catalogue: Catalogue) -> str:
    """16 hex digits that change with everything that scores depend on, and with nothing else."""
    weighed = [
        [part.id, indicator.id, indicator.weight, sorted((option.id, option.score) for option in indicator.options)]
        for part in catalogue.parts
        for indicator in sorted(part.indicators, key=lambda indicator: indicator.id)
    ]
    return hashlib.sha256(json.dumps(weighed).encode()).hexdigest()[:16]
