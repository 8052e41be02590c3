"""Several records: the list, the comparison, the table for a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from luban_app.catalogue import Language
from luban_app.house import csv_export
from luban_app.house.inputs import MAX_COMPARED, SEARCH_LENGTH, SORT_KEYS
from luban_app.house.records import Query, Record, RecordNotFoundError
from luban_app.house.service import Comparison, Difference, House, InputError
from luban_app.security import Visitor, visitor
from luban_app.web import language
from luban_app.web.forms import Problem
from luban_app.web.language import Translator
from luban_app.web.render import Renderer, number

PARTS = ("outside", "building", "inside", "total")
COLUMNS = ("name", *PARTS, "updated")
_MOST_CHOSEN = 20
"""Chosen records that a list carries along; more than can be compared, so that the fault can be seen and mended."""


@dataclass(frozen=True)
class Chart:
    """One part of a comparison; `numbers` are the scores in the homes' order."""

    id: str
    name: str
    numbers: tuple[float | None, ...]
    note: str


@dataclass(frozen=True)
class PartDifferences:
    """Where the homes differ in one part."""

    name: str
    rows: tuple[Difference, ...]


def read_query(house: House, request: Request) -> Query:
    """What the list's form asks for; it has one choice for the sort key and its order. Raises InputError."""
    given = request.query_params
    key, _, order = given.get("sort", "").rpartition("-")
    return house.query(given.get("q", ""), key, order, given.get("page", ""))


def chosen_ids(request: Request) -> list[str]:
    """The records that are ticked, each once, in the order given."""
    return list(dict.fromkeys(request.query_params.getlist("id")))[:_MOST_CHOSEN]


def charts_of(comparison: Comparison, house: House, spoken: Language) -> list[Chart]:
    """A chart for each part and one for the total."""
    t = Translator(spoken)
    found = []
    for part in house.catalogue.parts:
        values = tuple(home.evaluation.part(part.id).value for home in comparison.homes)
        found.append(Chart(part.id, part.names.get(spoken), values, spread(values, t)))
    totals = tuple(home.evaluation.total.value for home in comparison.homes)
    return [*found, Chart("total", t("total"), totals, spread(totals, t))]


def spread(values: Sequence[float | None], t: Translator) -> str:
    """How far apart scores are; nothing if one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    apart = max(known) - min(known)
    return t("compare.spread", n=number(apart)) if apart else t("compare.equal")


def differences_of(comparison: Comparison, house: House, spoken: Language) -> list[PartDifferences]:
    """The differing answers by part; parts without any are left out."""
    found = []
    for part in house.catalogue.parts:
        rows = tuple(row for row in comparison.differences if row.indicator.part == part.id)
        if rows:
            found.append(PartDifferences(part.names.get(spoken), rows))
    return found


def alike(comparison: Comparison, house: House) -> int:
    """How many indicators all homes answer in the same way."""
    differing = {row.indicator.id for row in comparison.differences}
    first = house.known(comparison.homes[0].record.answers)
    return sum(1 for indicator in first if indicator not in differing)


@dataclass(frozen=True)
class ListingViews:
    """Handlers of these pages."""

    house: House
    render: Renderer

    async def index(self, request: Request) -> Response:
        """The list."""
        who = await visitor(request)
        try:
            query = read_query(self.house, request)
        except InputError as error:
            return await self._list(request, who, Query(), [self._problem(request, error)], status=422)
        return await self._list(request, who, query, [])

    async def table(self, request: Request) -> Response:
        """What the list shows, on all its pages, as CSV."""
        who = await visitor(request)
        try:
            query = read_query(self.house, request)
        except InputError as error:
            return await self._list(request, who, Query(), [self._problem(request, error)], status=422)
        content = await self.house.export(who.session, language.negotiate(request), query)
        disposition = f'attachment; filename="{csv_export.FILE_NAME}"'
        return Response(content, media_type=csv_export.MEDIA_TYPE, headers={"Content-Disposition": disposition})

    async def compare(self, request: Request) -> Response:
        """Two to six records side by side; the list again, saying why, if it cannot be done."""
        who = await visitor(request)
        try:
            comparison = await self.house.compare(who.session, chosen_ids(request))
        except InputError as error:
            return await self._list(request, who, Query(), [self._problem(request, error)], status=422)
        return self._show(request, who, comparison)

    def _problem(self, request: Request, error: InputError) -> Problem:
        field = {"text": "q", "sort": "sort", "order": "sort"}.get(error.field, "")
        return Problem(field, error.message(language.negotiate(request)))

    async def _list(
        self, request: Request, who: Visitor, query: Query, problems: list[Problem], *, status: int = 200
    ) -> Response:
        spoken = language.negotiate(request)
        found = await self.house.find(who.session, query)
        chosen = chosen_ids(request)
        here = {record.id for record in found.records}
        elsewhere = await self._records(who, [record for record in chosen if record not in here])
        return self.render.page(
            request,
            "records.html",
            who=who,
            status=status,
            here="records",
            query=query,
            sorts=[(f"{key}-{order}", f"sort.{key}", f"order.{kind(key)}.{order}") for key, order in sort_choices()],
            sorted_by=f"{query.sort}-{'desc' if query.descending else 'asc'}",
            found=replace(found, records=tuple(self.house.localized(record, spoken) for record in found.records)),
            chosen=set(chosen),
            elsewhere=[self.house.localized(record, spoken) for record in elsewhere],
            problems=problems,
            most=MAX_COMPARED,
            text_length=SEARCH_LENGTH,
            columns=COLUMNS,
            parts=PARTS,
        )

    async def _records(self, who: Visitor, ids: Sequence[str]) -> list[Record]:
        """Those of `ids` that there are."""
        found = []
        for record in ids:
            try:
                found.append(await self.house.get(who.session, record))
            except RecordNotFoundError:
                continue
        return found

    def _show(self, request: Request, who: Visitor, comparison: Comparison) -> Response:
        spoken = language.negotiate(request)
        records = [self.house.localized(home.record, spoken) for home in comparison.homes]
        return self.render.page(
            request,
            "compare.html",
            who=who,
            here="records",
            records=records,
            names=[record.home.name for record in records],
            scores=charts_of(comparison, self.house, spoken),
            parts=differences_of(comparison, self.house, spoken),
            differing=len(comparison.differences),
            same=alike(comparison, self.house),
        )


def sort_choices() -> list[tuple[str, str]]:
    """Sort keys with their orders, the usual one first."""
    return [(key, order) for key in SORT_KEYS for order in (("asc", "desc") if key == "name" else ("desc", "asc"))]


def kind(key: str) -> str:
    """What a sort key orders: words for the orders differ."""
    return key if key in {"name", "updated"} else "score"
