"""The service that pages and API share: everything that can be done with homes, whoever asks for it."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property

from luban_app.catalogue.model import Catalogue, Indicator, Language, Option
from luban_app.house import csv_export, inputs, ruler, scoring
from luban_app.house.inputs import MAX_COMPARED, MIN_COMPARED, InputError
from luban_app.house.records import (
    MAX_RECORDS_PER_OWNER,
    Draft,
    Found,
    Home,
    Query,
    Record,
    RecordStore,
    SampleRecord,
    Scores,
)
from luban_app.house.samples import SAMPLES, Sample
from luban_app.house.scoring import Evaluation

__all__ = ["Compared", "Comparison", "Difference", "House", "InputError", "new_draft", "sample_records"]

SAMPLE_TIME = datetime(2026, 1, 1, tzinfo=UTC)
"""When the samples were "made": before all that people make, so that those come first."""
_DRAFT_BYTES = 12


@dataclass(frozen=True)
class Compared:
    """One column of a comparison; the evaluation is by today's catalogue."""

    record: Record
    evaluation: Evaluation


@dataclass(frozen=True)
class Difference:
    """An indicator on which the homes differ; one option a home, None where it is not answered."""

    indicator: Indicator
    options: tuple[Option | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Homes side by side, in the order asked for; differences in the catalogue's order."""

    homes: tuple[Compared, ...]
    differences: tuple[Difference, ...]


def scores_of(evaluation: Evaluation, catalogue: str) -> Scores:
    """The scores that are kept with a record, unrounded, with the version of the catalogue that they are by."""
    values = {part.part: part.score.value for part in evaluation.parts}
    parts = values.get("outside"), values.get("building"), values.get("inside")
    return Scores(*parts, evaluation.total.value, catalogue)


def new_draft() -> str:
    """An id for a form that begins."""
    return secrets.token_urlsafe(_DRAFT_BYTES)


def sample_records(catalogue: Catalogue, samples: Sequence[Sample] = SAMPLES) -> tuple[SampleRecord, ...]:
    """The samples as the store keeps them: in Chinese, and found by their English words as well."""
    return tuple(
        SampleRecord(
            Record(
                id=sample.id,
                owner="",
                home=Home(sample.names.zh_tw, "", sample.notes.zh_tw),
                answers=dict(sample.answers),
                scores=scores_of(scoring.evaluate(catalogue, sample.answers), scoring.version(catalogue)),
                created=SAMPLE_TIME,
                updated=SAMPLE_TIME,
            ),
            also=f"{sample.names.en}\n{sample.notes.en}",
        )
        for sample in samples
    )


@dataclass(frozen=True)
class House:
    """The service. `owner` is always a session's id; its methods raise what RecordStore's do, and InputError."""

    catalogue: Catalogue
    store: RecordStore
    ruler_length: Decimal = ruler.DEFAULT_LENGTH_CM
    """Length in cm of the Luban ruler that is used where nobody chooses one."""

    # Reading what was sent. The texts come as they were typed; nothing needs to be checked before.

    def home(self, name: str, address: str = "", notes: str = "") -> Home:
        """What people write about a home; the name may not be empty. Raises InputError."""
        return inputs.home(name, address, notes)

    def draft_home(self, name: str, address: str = "", notes: str = "") -> Home:
        """The same for a form that is only begun: the name may still be empty. Raises InputError."""
        return inputs.home(name, address, notes, draft=True)

    def answers(self, given: Mapping[str, str]) -> dict[str, str]:
        """Indicator id -> option id, without those that are empty. Raises InputError (its field: the indicator)."""
        return inputs.answers(self.catalogue, given)

    def query(self, text: str = "", sort: str = "", order: str = "", page: str = "", size: str = "") -> Query:
        """What to list; `order` is asc or desc; an empty parameter is the default. Raises InputError."""
        return inputs.query(text, sort, order, page, size)

    def measure(self, cm: str, length: str = "") -> ruler.Reading:
        """What the Luban ruler says; lengths are typed in cm, an empty length is the setting. Raises InputError."""
        read = inputs.measure(cm, length, self.ruler_length)
        return ruler.read(read.cm, read.length)

    # Evaluating.

    def evaluate(self, answers: Mapping[str, str]) -> Evaluation:
        """The scores of checked answers. Answers to what the catalogue no longer asks are left out."""
        return scoring.evaluate(self.catalogue, self.known(answers))

    def known(self, answers: Mapping[str, str]) -> dict[str, str]:
        """Those of a record's answers that today's catalogue still knows: it may have changed since."""
        return {
            indicator_id: option_id
            for indicator_id, option_id in answers.items()
            if (indicator := self.catalogue.indicator(indicator_id)) is not None and indicator.option(option_id)
        }

    # Keeping.

    async def create(self, owner: str, home: Home, answers: Mapping[str, str]) -> Record:
        """Evaluate and keep a new record. Raises TooManyRecordsError and StoreFullError."""
        return await self.store.create(owner, home, answers, self.scores(answers))

    async def get(self, owner: str, record: str) -> Record:
        """One's own, or a sample. Raises RecordNotFoundError."""
        return self._today(await self.store.get(owner, record))

    async def update(self, owner: str, record: str, home: Home, answers: Mapping[str, str]) -> Record:
        """Evaluate again and replace one's own. Raises RecordNotFoundError."""
        return await self.store.update(owner, record, home, answers, self.scores(answers))

    async def delete(self, owner: str, record: str) -> None:
        """Delete one's own. Raises RecordNotFoundError."""
        await self.store.delete(owner, record)

    async def find(self, owner: str, query: Query) -> Found:
        """One's own records and the samples, with scores by today's catalogue."""
        found = await self.store.find(owner, query)
        return replace(found, records=tuple(map(self._today, found.records)))

    async def draft(self, owner: str) -> Draft | None:
        """The form that the session has begun, if any, with the answers that today's catalogue knows."""
        draft = await self.store.draft(owner)
        return None if draft is None else self._known(draft)

    async def begin(self, owner: str, draft: str, home: Home, step: str) -> None:
        """Begin a form with this id. Raises DraftConflictError if one is open, DraftEndedError and StoreFullError."""
        await self.store.begin_draft(owner, Draft(home, id=draft, step=step))

    async def save_home(self, owner: str, draft: str, texts: Mapping[str, str], step: str) -> Draft:
        """Replace those texts of the home in a form. Raises DraftConflictError and DraftEndedError."""
        return self._known(await self.store.save_home(owner, draft, texts, step))

    async def save_answers(
        self, owner: str, draft: str, asked: Collection[str], answers: Mapping[str, str], step: str
    ) -> Draft:
        """Replace the answers to the indicators `asked`. Raises DraftConflictError and DraftEndedError."""
        return self._known(await self.store.save_answers(owner, draft, asked, answers, step))

    async def finish(self, owner: str, draft: str) -> Record:
        """Make the form a record. Raises what RecordStore.finish does."""
        return await self.store.finish(owner, draft, self.scores)

    async def edit(self, owner: str, record: Record, *, instead_of: str | None = None) -> None:
        """Begin a form that changes `record`, in place of the one that is open. Raises DraftConflictError."""
        form = Draft(record.home, self.known(record.answers), record.id, new_draft())
        await self.store.begin_draft(owner, form, instead_of=instead_of)

    async def drop_draft(self, owner: str, draft: str) -> None:
        """Throw a begun form away; another one stays."""
        await self.store.drop_draft(owner, draft)

    def _known(self, draft: Draft) -> Draft:
        return replace(draft, answers=self.known(draft.answers))

    # When the catalogue has changed.

    @cached_property
    def version(self) -> str:
        """Which version of the catalogue scores are by."""
        return scoring.version(self.catalogue)

    def scores(self, answers: Mapping[str, str]) -> Scores:
        """The scores that are kept with a record."""
        return scores_of(self.evaluate(answers), self.version)

    def _today(self, record: Record) -> Record:
        """The record with scores by today's catalogue, whoever kept it."""
        return (
            record if record.scores.catalogue == self.version else replace(record, scores=self.scores(record.answers))
        )

    async def prune(self) -> None:
        """Forget what nobody can reach any more."""
        await self.store.prune()

    async def rescore(self, after: str = "") -> str | None:
        """Evaluate some of the records again that another version of the catalogue evaluated; see RecordStore."""
        return await self.store.rescore(self.version, self.scores, after)

    # Looking at several.

    async def compare(self, owner: str, ids: Sequence[str]) -> Comparison:
        """2 to 6 different records side by side. Raises InputError (field: records) and RecordNotFoundError."""
        if not MIN_COMPARED <= len(ids) <= MAX_COMPARED:
            raise InputError("records", "records-count", least=MIN_COMPARED, most=MAX_COMPARED)
        if len(set(ids)) != len(ids):
            raise InputError("records", "twice")
        found = [await self.get(owner, record) for record in ids]
        homes = tuple(Compared(record, self.evaluate(record.answers)) for record in found)
        return Comparison(homes, tuple(self._differences(found)))

    def _differences(self, found: Sequence[Record]) -> list[Difference]:
        differences = []
        for indicator in self.catalogue.indicators:
            options = tuple(indicator.option(record.answers.get(indicator.id, "")) for record in found)
            if len(set(options)) > 1:
                differences.append(Difference(indicator, options))
        return differences

    async def export(self, owner: str, language: Language, query: Query | None = None) -> bytes:
        """All that `query` finds (its page and size do not count) as CSV in UTF-8; see csv_export."""
        everything = replace(query or Query(), page=1, size=MAX_RECORDS_PER_OWNER + len(SAMPLES))
        found = await self.find(owner, everything)
        return csv_export.table(
            self.catalogue, [self.localized(record, language) for record in found.records], language
        )

    def localized(self, record: Record, language: Language) -> Record:
        """A sample in the visitor's language; any other record as it is."""
        sample = next((sample for sample in SAMPLES if record.sample and sample.id == record.id), None)
        if sample is None:
            return record
        return replace(record, home=Home(sample.names.get(language), "", sample.notes.get(language)))
