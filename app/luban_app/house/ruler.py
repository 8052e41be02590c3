"""The Luban ruler (魯班尺, also 門公尺 or 文公尺): which character a door's or a table's measure falls on.

The ruler is divided into eight characters, each into four minor divisions, and laid end to end along what is measured.
Its length is a setting, because tradition does not agree on it: 42.9 cm is what is given most often, and 42.76, 43.2
and 46.08 cm are met with as well. The 丁蘭尺 (38.8 cm, ten characters, for graves and altars) is another
ruler, not a variant of this one.

All arithmetic is exact: measures are Decimal or Fraction, bounds are Fraction. Intervals are half open, so a measure
on a boundary belongs to what begins there, and a whole multiple of the ruler's length begins again at 財.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from luban_app.catalogue.model import Text
from luban_app.house.ruler_signs import CHARACTERS, Character, Division

DEFAULT_LENGTH_CM = Decimal("42.9")
VARIANT_LENGTHS_CM = (Decimal("42.76"), DEFAULT_LENGTH_CM, Decimal("43.2"), Decimal("46.08"))
"""Lengths in use; the form offers them. Which is right is a matter of school."""
MIN_LENGTH_CM = Decimal(30)
MAX_LENGTH_CM = Decimal(60)
MAX_MEASURE_CM = Decimal(10_000)

LENGTH_NOTE = Text(
    "魯班尺的長度各家不一，本站預設 42.9 公分，另有 42.76、43.2 與 46.08 公分等說法。"
    "丁蘭尺（38.8 公分）用於墳墓與神龕，是另一種尺。",
    "Schools differ on the ruler's length. The default here is 42.9 cm; 42.76, 43.2 and 46.08 cm are used too. "
    "The Dinglan ruler (丁蘭尺, 38.8 cm), for graves and altars, is a different one.",
)

_TENTH = 10
"""Millimetres in a centimetre."""
_MAX_EXPONENT = 30
_MAX_TYPED = 60
# A comma before exactly three digits is refused: it may stand for thousands as well as for a fraction.
_TYPED = re.compile(
    r"(?P<minus>[-\N{MINUS SIGN}]?)(?P<whole>[0-9]+)"
    r"(?:(?:\.|,(?![0-9]{3}(?![0-9])))(?P<rest>[0-9]{1,6}))?\s*(?:cm|公分|厘米)?",
    re.IGNORECASE,
)

Exact = Decimal | Fraction | int


class MeasureError(ValueError):
    """A measure or a ruler length that cannot be used; `field` names which of the two."""

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        super().__init__(f"{field}: {problem}")


@dataclass(frozen=True)
class Span:
    """A half-open range of measures, [start, end), in cm."""

    start: Fraction
    end: Fraction

    def __contains__(self, cm: object) -> bool:
        return isinstance(cm, Fraction) and self.start <= cm < self.end


@dataclass(frozen=True)
class Suggestion:
    """An auspicious character's range and the measure in it that is nearest to the one read, in whole mm (as cm)."""

    character: Character
    span: Span
    nearest_cm: Decimal


@dataclass(frozen=True)
class Reading:
    """What the ruler says about a measure. All lengths are in cm.

    `turn` counts whole rulers before the measure. `position` is the distance from where this ruler begins, `within`
    from where the minor division begins; `span` and `division_span` are the ranges around the measure. `suggestions`
    holds the measure's own range if it is auspicious, else the next lower and the next higher auspicious ones.
    """

    cm: Fraction
    length: Fraction
    character: Character
    division: Division
    turn: int
    position: Fraction
    within: Fraction
    span: Span
    division_span: Span
    suggestions: tuple[Suggestion, ...]

    @property
    def auspicious(self) -> bool:
        """Whether the character is one of 財, 義, 官 and 本."""
        return self.character.auspicious


def parse_cm(text: str, field: str = "cm") -> Decimal:
    """A measure as people type it: 88.5, 88,5 and 88.5 公分 are the same; full-width digits (４２．９) will do.

    Raises MeasureError naming `field`; whether the measure is in range, or below zero, is for `read` to say.
    """
    typed = _TYPED.fullmatch(unicodedata.normalize("NFKC", text[:_MAX_TYPED]).strip())
    if len(text) > _MAX_TYPED or typed is None:
        raise MeasureError(field, "expected a number of centimetres, as 88.5")
    return Decimal(f"{'-' if typed['minus'] else ''}{typed['whole']}.{typed['rest'] or '0'}")


def read(cm: Exact, length_cm: Exact = DEFAULT_LENGTH_CM) -> Reading:
    """Read a measure of `cm` centimetres on a ruler of `length_cm`.

    Raises MeasureError unless 0 < cm <= 10,000 and 30 <= length_cm <= 60.
    """
    measure = _exact("cm", cm, Decimal(0), MAX_MEASURE_CM)
    if measure == 0:
        raise MeasureError("cm", "must be more than 0")
    length = _exact("length_cm", length_cm, MIN_LENGTH_CM, MAX_LENGTH_CM)
    per_character = len(CHARACTERS[0].divisions)
    unit = length / (len(CHARACTERS) * per_character)
    # Divisions counted from the very beginning, so that ranges need no case for a new ruler.
    step = measure // unit
    at = step // per_character
    turn, index = divmod(at, len(CHARACTERS))
    return Reading(
        cm=measure,
        length=length,
        character=CHARACTERS[index],
        division=CHARACTERS[index].divisions[step % per_character],
        turn=turn,
        position=measure - turn * length,
        within=measure - step * unit,
        span=_span(at, length),
        division_span=Span(step * unit, (step + 1) * unit),
        suggestions=_suggestions(measure, at, length),
    )


def _exact(field: str, value: Exact, low: Decimal, high: Decimal) -> Fraction:
    """`value` as a fraction. Floats are refused: 42.9 is not 42.9 in binary, and boundaries would shift."""
    if isinstance(value, bool) or not isinstance(value, Decimal | Fraction | int):
        raise MeasureError(field, "must be a Decimal, a Fraction or an int")
    if isinstance(value, Decimal) and not value.is_finite():
        raise MeasureError(field, "must be a finite number")
    # Compared before it is converted: Fraction(Decimal("1e999999")) would fill the memory.
    if not low <= value <= high:
        raise MeasureError(field, f"must be from {low} to {high} cm")
    if isinstance(value, Decimal) and abs(int(value.as_tuple().exponent)) > _MAX_EXPONENT:
        raise MeasureError(field, f"has more than {_MAX_EXPONENT} decimals")
    return Fraction(value)


def _span(at: int, length: Fraction) -> Span:
    """The range of the character `at`, counted from the beginning over all turns."""
    width = length / len(CHARACTERS)
    return Span(at * width, (at + 1) * width)


def _sign(at: int) -> Character:
    return CHARACTERS[at % len(CHARACTERS)]


def _suggestions(measure: Fraction, at: int, length: Fraction) -> tuple[Suggestion, ...]:
    if _sign(at).auspicious:
        return (_suggest(measure, at, length),)
    # The first character, 財, is auspicious: below an inauspicious one there always is another.
    lower = next(below for below in range(at - 1, -1, -1) if _sign(below).auspicious)
    higher = next(above for above in range(at + 1, at + len(CHARACTERS)) if _sign(above).auspicious)
    return _suggest(measure, lower, length), _suggest(measure, higher, length)


def _suggest(measure: Fraction, at: int, length: Fraction) -> Suggestion:
    """The mm mark in the range of character `at` that is nearest to the measure; never 0, which is no measure."""
    span = _span(at, length)
    first = max(math.ceil(span.start * _TENTH), 1)
    last = math.ceil(span.end * _TENTH) - 1
    mark = min(max(round(measure * _TENTH), first), last)
    return Suggestion(_sign(at), span, Decimal(mark).scaleb(-1))
