"""What the catalogue consists of: parts, groups, indicators, options. Immutable, shared by all requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

Language = Literal["zh-TW", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

SCORE_MIN = -5
SCORE_MAX = 5
WEIGHT_MIN = 1
WEIGHT_MAX = 5


@dataclass(frozen=True)
class Text:
    """The same words in both languages."""

    zh_tw: str
    en: str

    def get(self, language: Language) -> str:
        """The words in `language`. Raises ValueError for a language that the catalogue does not speak."""
        if language == "zh-TW":
            return self.zh_tw
        if language == "en":
            return self.en
        raise ValueError(f"language: {language!r} is not one of {', '.join(LANGUAGES)}")


@dataclass(frozen=True)
class Source:
    """The book that an indicator goes back to, or folk usage.

    `chapter` is set only where it is known for certain; `year` is that of the edition meant, None if there is none.
    """

    id: str
    title: Text
    note: Text
    author: Text | None = None
    chapter: Text | None = None
    year: int | None = None


@dataclass(frozen=True)
class Option:
    """One answer: `score` from -5 (bad) to +5 (good), 0 neutral, and the reason for it."""

    id: str
    label: Text
    score: int
    reason: Text


@dataclass(frozen=True)
class Indicator:
    """One thing to look at; `weight` from 1 to 5 says how much it counts against the others."""

    id: str
    part: str
    group: str
    names: Text
    definition: Text
    weight: int
    options: tuple[Option, ...]
    remedy: Text
    source: Source

    def option(self, option_id: str) -> Option | None:
        """The option with this id, or None."""
        return next((option for option in self.options if option.id == option_id), None)


@dataclass(frozen=True)
class Group:
    """A section of the form: indicators that are looked at together."""

    id: str
    part: str
    names: Text
    indicators: tuple[Indicator, ...]


@dataclass(frozen=True)
class Part:
    """One third of the evaluation: outside, building or inside."""

    id: str
    names: Text
    groups: tuple[Group, ...]

    @cached_property
    def indicators(self) -> tuple[Indicator, ...]:
        """All indicators of the part, in the form's order."""
        return tuple(indicator for group in self.groups for indicator in group.indicators)


@dataclass(frozen=True)
class Catalogue:
    """All parts in the form's order. This order also breaks ties between equal indicators."""

    parts: tuple[Part, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)

    @cached_property
    def indicators(self) -> tuple[Indicator, ...]:
        """All indicators, in the form's order."""
        return tuple(indicator for part in self.parts for indicator in part.indicators)

    @cached_property
    def _by_id(self) -> dict[str, Indicator]:
        return {indicator.id: indicator for indicator in self.indicators}

    def indicator(self, indicator_id: str) -> Indicator | None:
        """The indicator with this id, or None."""
        return self._by_id.get(indicator_id)
