"""What goes over the JSON API, in both directions. These types are the OpenAPI document's schemas."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from luban_app.house.inputs import MAX_ANSWERS, MAX_PAGE, MAX_PAGE_SIZE, SEARCH_LENGTH
from luban_app.house.records import ADDRESS_LENGTH, NAME_LENGTH, NOTES_LENGTH

LanguageName = Literal["zh-TW", "en"]
SortName = Literal["updated", "name", "outside", "building", "inside", "total"]
OrderName = Literal["asc", "desc"]
Order = Annotated[OrderName, Meta(description="By default desc, but asc for names.")]
Centimetres = r"^[0-9]{1,40}([.,][0-9]{1,6})?( ?(cm|公分|厘米))?$"
Answers = Annotated[
    dict[str, str],
    Meta(
        description="Indicator id -> option id; an empty option: not answered.",
        extra_json_schema={"maxProperties": MAX_ANSWERS},
    ),
]
Percent = Annotated[float | None, Meta(description="0..100; null: nothing answered.")]


class EvaluateIn(Struct, forbid_unknown_fields=True):
    """Answers to evaluate."""

    answers: Answers


class RecordIn(Struct, forbid_unknown_fields=True):
    """A home to keep."""

    name: Annotated[str, Meta(min_length=1, extra_json_schema={"maxLength": NAME_LENGTH})]
    address: Annotated[str, Meta(extra_json_schema={"maxLength": ADDRESS_LENGTH})] = ""
    notes: Annotated[str, Meta(extra_json_schema={"maxLength": NOTES_LENGTH})] = ""
    answers: Answers = {}


class LanguageQuery(Struct):
    """The language of names and texts."""

    language: LanguageName = "zh-TW"


class ListQuery(Struct):
    """What to list."""

    text: Annotated[
        str,
        Meta(
            description="Part of name, address or notes, in any case; empty: all.",
            extra_json_schema={"maxLength": SEARCH_LENGTH},
        ),
    ] = ""
    sort: SortName = "updated"
    order: Order | UnsetType = UNSET
    page: Annotated[int, Meta(ge=1, le=MAX_PAGE)] = 1
    size: Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE)] = 20
    language: LanguageName = "zh-TW"


class ExportQuery(Struct):
    """What to export, and in which language."""

    text: Annotated[str, Meta(extra_json_schema={"maxLength": SEARCH_LENGTH})] = ""
    sort: SortName = "updated"
    order: Order | UnsetType = UNSET
    language: LanguageName = "zh-TW"


class CompareQuery(Struct):
    """Which records to compare."""

    records: Annotated[str, Meta(description="Two to six record ids with commas between them.")]
    language: LanguageName = "zh-TW"


class RulerQuery(Struct):
    """A measure to read on the Luban ruler."""

    cm: Annotated[str, Meta(pattern=Centimetres, description="The measure in cm, 0 < cm <= 10000, as 88.5.")]
    length: Annotated[str, Meta(pattern=Centimetres, description="The ruler's length in cm, 30 to 60.")] | UnsetType = (
        UNSET
    )
    language: LanguageName = "zh-TW"


class Problem(Struct, omit_defaults=True):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = ""
    field: Annotated[str, Meta(description="The field, parameter or indicator that is wrong.")] = ""
    code: Annotated[str, Meta(description="The kind of fault, for programs.")] = ""


class SourceOut(Struct):
    """The book that an indicator goes back to, or folk usage."""

    title: str
    note: str
    author: str | None
    chapter: str | None
    year: int | None


class OptionOut(Struct):
    """One answer to choose from."""

    id: str
    label: str
    score: Annotated[int, Meta(ge=-5, le=5)]
    reason: str


class IndicatorOut(Struct):
    """One thing to look at."""

    id: str
    name: str
    definition: str
    weight: Annotated[int, Meta(ge=1, le=5)]
    options: list[OptionOut]
    remedy: str
    source: SourceOut


class GroupOut(Struct):
    """Indicators that are looked at together."""

    id: str
    name: str
    indicators: list[IndicatorOut]


class PartOut(Struct):
    """One third of the evaluation."""

    id: str
    name: str
    groups: list[GroupOut]


class CatalogueOut(Struct):
    """All that is asked."""

    language: LanguageName
    parts: list[PartOut]


class ScoreOut(Struct):
    """A score and what it rests on."""

    value: Percent
    answered: int
    asked: int
    share: Annotated[float, Meta(ge=0, le=1, description="answered / asked")]


class PartScoreOut(Struct):
    """The score of one part."""

    part: str
    name: str
    score: ScoreOut


class FindingOut(Struct):
    """An answered indicator that stands out."""

    indicator: str
    name: str
    option: str
    label: str
    score: int
    weight: int
    contribution: Annotated[int, Meta(description="weight * score")]
    reason: str
    remedy: str


class EvaluationOut(Struct):
    """The result: a score is 50 + 10 * sum(weight * score) / sum(weight) over the answered indicators, in 0..100."""

    parts: list[PartScoreOut]
    total: ScoreOut
    worst: list[FindingOut]
    best: list[FindingOut]


class ScoresOut(Struct):
    """Scores as they were when the record was saved."""

    outside: Percent
    building: Percent
    inside: Percent
    total: Percent


class RecordOut(Struct):
    """A kept evaluation."""

    id: str
    sample: Annotated[bool, Meta(description="It ships with the service and cannot be changed.")]
    name: str
    address: str
    notes: str
    answers: dict[str, str]
    scores: ScoresOut
    created: datetime
    updated: datetime


class FoundOut(Struct):
    """One page of a list."""

    records: list[RecordOut]
    total: Annotated[int, Meta(description="Records on all pages.")]
    page: int
    pages: int


class ComparedOut(Struct):
    """One of the homes compared, evaluated by today's catalogue."""

    record: RecordOut
    evaluation: EvaluationOut


class DifferenceOut(Struct):
    """An indicator on which the homes differ."""

    indicator: str
    name: str
    options: Annotated[list[str | None], Meta(description="One option id a home; null: not answered.")]
    labels: list[str | None]


class ComparisonOut(Struct):
    """Homes side by side."""

    homes: list[ComparedOut]
    differences: list[DifferenceOut]


class SuggestionOut(Struct):
    """The nearest measure in an auspicious range."""

    character: str
    cm: Annotated[str, Meta(description="In whole millimetres, as cm.")]
    from_cm: str
    to_cm: str


class ReadingOut(Struct):
    """What the Luban ruler says; exact lengths in cm, rounded to 0.001."""

    cm: str
    length: str
    character: str
    name: str
    meaning: str
    division: str
    division_meaning: str
    auspicious: bool
    turn: Annotated[int, Meta(description="Whole rulers before the measure.")]
    from_cm: str
    to_cm: str
    suggestions: list[SuggestionOut]
    note: Annotated[str, Meta(description="Why the ruler's length is a setting.")]
