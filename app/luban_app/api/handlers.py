"""The JSON API's handlers: read what was sent, let House do it, answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from spectree import Response as Answers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from luban_app import security
from luban_app.api import views
from luban_app.api.document import spec
from luban_app.api.models import (
    CatalogueOut,
    CompareQuery,
    ComparisonOut,
    EvaluateIn,
    EvaluationOut,
    ExportQuery,
    FoundOut,
    LanguageQuery,
    ListQuery,
    Problem,
    ReadingOut,
    RecordIn,
    RecordOut,
    RulerQuery,
)
from luban_app.catalogue.model import LANGUAGES, Language
from luban_app.house import csv_export, inputs
from luban_app.house.inputs import InputError
from luban_app.house.service import House

T = TypeVar("T")

JSON = "application/json"
CATALOGUE_SECONDS = 300
"""How long a client may keep the catalogue."""
_SHORT_FIELD = 100

_encode = msgspec.json.Encoder().encode


def _described(
    done: Mapping[str, Any], *problems: int, query: type | None = None, json: type | None = None
) -> Callable[[T], T]:
    """The handler's entry in the OpenAPI document. What it reads is checked by House, not by spectree."""
    answers = Answers(**done, **{f"HTTP_{status}": Problem for status in problems})
    decorate: Callable[[T], T] = spec.validate(query=query, json=json, resp=answers, skip_validation=True)
    return decorate


def _answer(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encode(value), status, headers, JSON)


def _language(request: Request) -> Language:
    return inputs.one_of("language", request.query_params.get("language", "zh-TW"), LANGUAGES)


async def _body(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The body as `decoder` reads it. Raises HTTPException (400, 403, 413, 415) and InputError."""
    security.require_json(request)
    body = await security.body_of(request)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        place = path.rstrip("`").lstrip(".")
        raise InputError(place[:_SHORT_FIELD] or "body", "malformed", problem=problem) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON") from error


async def _owner(request: Request) -> str:
    return (await security.visitor(request)).session


_evaluate_in = msgspec.json.Decoder(EvaluateIn)
_record_in = msgspec.json.Decoder(RecordIn)


@dataclass(frozen=True)
class Handlers:
    """All operations, with what they need."""

    house: House
    _catalogues: dict[Language, bytes] = field(default_factory=dict)

    @_described({"HTTP_200": CatalogueOut}, 422, query=LanguageQuery)
    async def catalogue(self, request: Request) -> Response:
        """All indicators with their options, scores, reasons, remedies and sources."""
        language = _language(request)
        if language not in self._catalogues:
            self._catalogues[language] = _encode(views.catalogue_out(self.house.catalogue, language))
        headers = {"Cache-Control": f"public, max-age={CATALOGUE_SECONDS}"}
        return Response(self._catalogues[language], 200, headers, JSON)

    @_described({"HTTP_200": EvaluationOut}, 400, 413, 415, 422, query=LanguageQuery, json=EvaluateIn)
    async def evaluate(self, request: Request) -> Response:
        """Evaluate answers; nothing is kept."""
        language = _language(request)
        given = self.house.answers((await _body(request, _evaluate_in)).answers)
        return _answer(views.evaluation_out(self.house.catalogue, self.house.evaluate(given), language))

    @_described({"HTTP_200": FoundOut}, 422, 503, query=ListQuery)
    async def find(self, request: Request) -> Response:
        """List the session's own records and the samples, a page at a time."""
        language = _language(request)
        asked = request.query_params
        query = self.house.query(*(asked.get(name, "") for name in ("text", "sort", "order", "page", "size")))
        found = await self.house.find(await _owner(request), query)
        return _answer(views.found_out(self.house, found, language))

    @_described({"HTTP_201": RecordOut}, 400, 403, 409, 413, 415, 422, 503, json=RecordIn)
    async def create(self, request: Request) -> Response:
        """Evaluate a home and keep it as the session's own."""
        security.require_same_origin(request)
        sent = await _body(request, _record_in)
        home = self.house.home(sent.name, sent.address, sent.notes)
        record = await self.house.create(await _owner(request), home, self.house.answers(sent.answers))
        headers = {"Location": f"/api/v1/records/{record.id}"}
        return _answer(views.record_out(self.house, record, "zh-TW"), 201, headers)

    @_described({"HTTP_200": RecordOut}, 404, 422, 503, query=LanguageQuery)
    async def read(self, request: Request) -> Response:
        """One of the session's own records, or a sample."""
        language = _language(request)
        record = await self.house.get(await _owner(request), request.path_params["record"])
        return _answer(views.record_out(self.house, record, language))

    @_described({"HTTP_200": RecordOut}, 400, 403, 404, 413, 415, 422, 503, json=RecordIn)
    async def replace(self, request: Request) -> Response:
        """Replace one of the session's own records by what is sent, and evaluate it again."""
        security.require_same_origin(request)
        sent = await _body(request, _record_in)
        home = self.house.home(sent.name, sent.address, sent.notes)
        answers = self.house.answers(sent.answers)
        record = await self.house.update(await _owner(request), request.path_params["record"], home, answers)
        return _answer(views.record_out(self.house, record, "zh-TW"))

    @_described({"HTTP_204": None}, 403, 404, 503)
    async def delete(self, request: Request) -> Response:
        """Delete one of the session's own records."""
        security.require_same_origin(request)
        await self.house.delete(await _owner(request), request.path_params["record"])
        return Response(status_code=204)

    @_described({"HTTP_200": ComparisonOut}, 404, 422, 503, query=CompareQuery)
    async def compare(self, request: Request) -> Response:
        """Two to six records side by side, with what they differ in."""
        language = _language(request)
        ids = [one.strip() for text in request.query_params.getlist("records") for one in text.split(",")]
        comparison = await self.house.compare(await _owner(request), [one for one in ids if one])
        return _answer(views.comparison_out(self.house, comparison, language))

    @_described({"HTTP_200": ReadingOut}, 422, query=RulerQuery)
    async def ruler(self, request: Request) -> Response:
        """What the Luban ruler says about a measure, and the nearest auspicious ones."""
        language = _language(request)
        asked = request.query_params
        reading = self.house.measure(asked.get("cm", ""), asked.get("length", ""))
        return _answer(views.reading_out(reading, language))

    @_described({"HTTP_200": None}, 422, 503, query=ExportQuery)
    async def export(self, request: Request) -> Response:
        """All records that a list would find, as CSV for a spreadsheet."""
        asked = request.query_params
        query = self.house.query(*(asked.get(name, "") for name in ("text", "sort", "order")))
        content = await self.house.export(await _owner(request), _language(request), query)
        headers = {"Content-Disposition": f'attachment; filename="{csv_export.FILE_NAME}"'}
        return Response(content, 200, headers, csv_export.MEDIA_TYPE)
