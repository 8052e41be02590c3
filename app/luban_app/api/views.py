"""From the service's own types to those of the API, with words in one language."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from luban_app.api.models import (
    CatalogueOut,
    ComparedOut,
    ComparisonOut,
    DifferenceOut,
    EvaluationOut,
    FindingOut,
    FoundOut,
    GroupOut,
    IndicatorOut,
    OptionOut,
    PartOut,
    PartScoreOut,
    ReadingOut,
    RecordOut,
    ScoreOut,
    ScoresOut,
    SourceOut,
    SuggestionOut,
)
from luban_app.catalogue.model import Catalogue, Indicator, Language, Source
from luban_app.house import ruler, scoring
from luban_app.house.records import Found, Record
from luban_app.house.service import Comparison, House


def catalogue_out(catalogue: Catalogue, language: Language) -> CatalogueOut:
    """All that is asked."""
    parts = [
        PartOut(
            part.id,
            part.names.get(language),
            [
                GroupOut(group.id, group.names.get(language), [_indicator(one, language) for one in group.indicators])
                for group in part.groups
            ],
        )
        for part in catalogue.parts
    ]
    return CatalogueOut(language, parts)


def _indicator(indicator: Indicator, language: Language) -> IndicatorOut:
    options = [
        OptionOut(option.id, option.label.get(language), option.score, option.reason.get(language))
        for option in indicator.options
    ]
    return IndicatorOut(
        id=indicator.id,
        name=indicator.names.get(language),
        definition=indicator.definition.get(language),
        weight=indicator.weight,
        options=options,
        remedy=indicator.remedy.get(language),
        source=_source(indicator.source, language),
    )


def _source(source: Source, language: Language) -> SourceOut:
    return SourceOut(
        title=source.title.get(language),
        note=source.note.get(language),
        author=source.author.get(language) if source.author else None,
        chapter=source.chapter.get(language) if source.chapter else None,
        year=source.year,
    )


def evaluation_out(catalogue: Catalogue, evaluation: scoring.Evaluation, language: Language) -> EvaluationOut:
    """The result."""
    names = {part.id: part.names.get(language) for part in catalogue.parts}
    return EvaluationOut(
        parts=[PartScoreOut(one.part, names[one.part], _score(one.score)) for one in evaluation.parts],
        total=_score(evaluation.total),
        worst=[_finding(one, language) for one in evaluation.worst],
        best=[_finding(one, language) for one in evaluation.best],
    )


def _score(score: scoring.Score) -> ScoreOut:
    return ScoreOut(score.value, score.answered, score.asked, score.share)


def _finding(finding: scoring.Finding, language: Language) -> FindingOut:
    return FindingOut(
        indicator=finding.indicator.id,
        name=finding.indicator.names.get(language),
        option=finding.option.id,
        label=finding.option.label.get(language),
        score=finding.option.score,
        weight=finding.indicator.weight,
        contribution=finding.contribution,
        reason=finding.option.reason.get(language),
        remedy=finding.indicator.remedy.get(language),
    )


def record_out(house: House, record: Record, language: Language) -> RecordOut:
    """A kept evaluation; the owner is nobody's business."""
    home, scores = house.localized(record, language).home, record.scores
    return RecordOut(
        id=record.id,
        sample=record.sample,
        name=home.name,
        address=home.address,
        notes=home.notes,
        answers=dict(record.answers),
        scores=ScoresOut(scores.outside, scores.building, scores.inside, scores.total),
        created=record.created,
        updated=record.updated,
    )


def found_out(house: House, found: Found, language: Language) -> FoundOut:
    """One page of a list."""
    records = [record_out(house, record, language) for record in found.records]
    return FoundOut(records, found.total, found.page, found.pages)


def comparison_out(house: House, comparison: Comparison, language: Language) -> ComparisonOut:
    """Homes side by side."""
    homes = [
        ComparedOut(record_out(house, one.record, language), evaluation_out(house.catalogue, one.evaluation, language))
        for one in comparison.homes
    ]
    differences = [
        DifferenceOut(
            indicator=one.indicator.id,
            name=one.indicator.names.get(language),
            options=[None if option is None else option.id for option in one.options],
            labels=[None if option is None else option.label.get(language) for option in one.options],
        )
        for one in comparison.differences
    ]
    return ComparisonOut(homes, differences)


def reading_out(reading: ruler.Reading, language: Language) -> ReadingOut:
    """What the Luban ruler says."""
    character = reading.character
    return ReadingOut(
        cm=_cm(reading.cm),
        length=_cm(reading.length),
        character=character.name,
        name=character.name if language == "zh-TW" else character.english,
        meaning=character.meaning.get(language),
        division=reading.division.name,
        division_meaning=reading.division.gloss.get(language),
        auspicious=reading.auspicious,
        turn=reading.turn,
        from_cm=_cm(reading.span.start),
        to_cm=_cm(reading.span.end),
        suggestions=[
            SuggestionOut(one.character.name, str(one.nearest_cm), _cm(one.span.start), _cm(one.span.end))
            for one in reading.suggestions
        ],
        note=ruler.LENGTH_NOTE.get(language),
    )


def _cm(value: Fraction) -> str:
    """Rounded to 0.001 cm, without needless zeros."""
    thousandths = Decimal(round(value * 1000)).scaleb(-3)
    text = f"{thousandths:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
