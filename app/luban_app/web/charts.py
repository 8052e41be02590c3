"""Geometry of the charts; templates draw them as inline SVG. Pure numbers, no markup and no words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, cos, floor, pi, sin

from luban_app.house.ruler import Reading
from luban_app.house.ruler_signs import CHARACTERS

DIAL_RADIUS = 52
_START = 0.75 * pi
"""The dial begins at the lower left and runs clockwise over three quarters of a circle, as on an instrument."""
_SWEEP = 1.5 * pi
_FULL = 100.0


@dataclass(frozen=True)
class Point:
    """A point of a drawing, y downwards."""

    x: float
    y: float

    def __str__(self) -> str:
        return f"{self.x:.2f} {self.y:.2f}"


@dataclass(frozen=True)
class Dial:
    """A score as an arc around (0, 0): `track` is the whole scale, `arc` the score's share, None without a score."""

    track: str
    arc: str | None
    middle: tuple[Point, Point]
    """The mark at 50, where a neutral home stands."""


def _on_dial(value: float, radius: float) -> Point:
    angle = _START + _SWEEP * value / _FULL
    return Point(radius * cos(angle), radius * sin(angle))


def _arc(value: float) -> str:
    """A path from 0 to `value` along the dial."""
    large = 1 if _SWEEP * value / _FULL > pi else 0
    start, end = _on_dial(0, DIAL_RADIUS), _on_dial(value, DIAL_RADIUS)
    return f"M{start}A{DIAL_RADIUS} {DIAL_RADIUS} 0 {large} 1 {end}"


def dial(value: float | None) -> Dial:
    """The dial of a score from 0 to 100."""
    middle = (_on_dial(50, DIAL_RADIUS - 7), _on_dial(50, DIAL_RADIUS + 7))
    # An arc of no length is nothing; a round cap makes a dot of a very short one: "0" is seen, and told from no score.
    arc = None if value is None else _arc(max(value, 0.1))
    return Dial(_arc(_FULL), arc, middle)


BAR_HEIGHT = 18
BAR_GAP = 12
BAR_LEFT = 26
BAR_WIDTH = 300
BAR_RIGHT = 52


@dataclass(frozen=True)
class Bar:
    """One home's row: its number stands left of the bar, its score right of it."""

    label: str
    value: float | None
    y: int
    width: float
    best: bool
    """Nothing in the drawing is higher."""

    @property
    def end(self) -> float:
        """Where the bar ends."""
        return BAR_LEFT + self.width


@dataclass(frozen=True)
class Bars:
    """Scores of several homes in one part, on one scale from 0 to 100."""

    bars: tuple[Bar, ...]

    @property
    def width(self) -> int:
        """Width of the drawing."""
        return BAR_LEFT + BAR_WIDTH + BAR_RIGHT

    @property
    def height(self) -> int:
        """Height of the drawing."""
        return len(self.bars) * (BAR_HEIGHT + BAR_GAP)

    @property
    def middle(self) -> float:
        """Where 50 is."""
        return BAR_LEFT + BAR_WIDTH / 2


def label(index: int) -> str:
    """1, 2, 3 ...: short names of the homes compared; people often call homes A and B themselves."""
    return str(index + 1)


def bars(values: Sequence[float | None]) -> Bars:
    """Rows in the order given."""
    rows = []
    highest = max((value for value in values if value is not None), default=None)
    for index, value in enumerate(values):
        width = round((value or 0.0) / _FULL * BAR_WIDTH, 2)
        top = index * (BAR_HEIGHT + BAR_GAP) + BAR_GAP // 2
        rows.append(Bar(label(index), value, top, width, value == highest))
    return Bars(tuple(rows))


ROW_WIDTH = 480
ROW_CHARACTERS = 4
"""The ruler is drawn in two rows of four characters: on one, a phone would leave no room for the names."""
_ROWS = len(CHARACTERS) // ROW_CHARACTERS


@dataclass(frozen=True)
class Cell:
    """A character or a minor division on the strip."""

    name: str
    x: float
    width: float
    auspicious: bool
    here: bool

    @property
    def centre(self) -> float:
        """Where its name stands."""
        return round(self.x + self.width / 2, 2)


@dataclass(frozen=True)
class Tick:
    """A whole centimetre; each fifth carries its number."""

    x: float
    label: str


@dataclass(frozen=True)
class Row:
    """Half of the ruler, to scale; `mark` is where the measure is, if it is in this half."""

    characters: tuple[Cell, ...]
    divisions: tuple[Cell, ...]
    ticks: tuple[Tick, ...]
    mark: float | None


def strip(reading: Reading) -> tuple[Row, ...]:
    """The one ruler, of those laid end to end, on which the measure falls. Every x is from 0 to ROW_WIDTH."""
    return tuple(_row(reading, number) for number in range(_ROWS))


def _row(reading: Reading, number: int) -> Row:
    characters, divisions = [], []
    width = ROW_WIDTH / ROW_CHARACTERS
    signs = CHARACTERS[number * ROW_CHARACTERS : (number + 1) * ROW_CHARACTERS]
    for index, sign in enumerate(signs):
        left, here = index * width, sign is reading.character
        characters.append(Cell(sign.name, left, width, sign.auspicious, here))
        part = width / len(sign.divisions)
        for at, division in enumerate(sign.divisions):
            is_it = here and division is reading.division
            divisions.append(Cell(division.name, left + at * part, part, sign.auspicious, is_it))
    start = reading.length * (reading.turn * _ROWS + number) / _ROWS
    end = start + reading.length / _ROWS
    mark = _scaled(reading.cm - start, reading.length) if start <= reading.cm < end else None
    return Row(tuple(characters), tuple(divisions), _ticks(start, end, reading.length), mark)


def _scaled(cm: Fraction, length: Fraction) -> float:
    return round(float(cm / length * ROW_WIDTH * _ROWS), 2)


def _ticks(start: Fraction, end: Fraction, length: Fraction) -> tuple[Tick, ...]:
    """Centimetres as on a tape along the wall: they go on counting over every ruler laid before this one."""
    marks = range(ceil(start), floor(end) + 1)
    return tuple(Tick(_scaled(cm - start, length), str(cm) if cm % 5 == 0 else "") for cm in marks)
