"""Errors as RFC 9457 says, for whatever goes wrong under /api."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from luban_app.api.models import Problem
from luban_app.house.inputs import InputError
from luban_app.house.records import (
    FULL_SECONDS,
    RecordNotFoundError,
    StoreFullError,
    StoreUnavailableError,
    TooManyRecordsError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
"""What a client is told to wait while the database is away."""


def respond(
    status: int, detail: str, *, field: str = "", code: str = "", headers: dict[str, str] | None = None
) -> Response:
    """The problem as a response."""
    kind = f"urn:luban:problem:{code}" if code else "about:blank"
    problem = Problem(kind, HTTPStatus(status).phrase, status, detail, field, code)
    return Response(msgspec.json.encode(problem), status, headers, MEDIA_TYPE)


def problem_of(error: Exception) -> Response:
    """The problem that an exception means."""
    match error:
        case InputError():
            return respond(422, str(error), field=error.field, code=error.code)
        case RecordNotFoundError():
            return respond(404, "there is no such record", code="no-record")
        case TooManyRecordsError():
            return respond(409, str(error), code="too-many-records")
        case StoreFullError() | StoreUnavailableError():
            return _not_now(error)
        case HTTPException():
            detail = "" if error.detail == HTTPStatus(error.status_code).phrase else error.detail
            return respond(error.status_code, detail, headers=dict(error.headers or {}))
    return respond(500, "an error that is not yours; it has been logged")


def _not_now(error: StoreFullError | StoreUnavailableError) -> Response:
    """503, and when to try again."""
    full = isinstance(error, StoreFullError)
    detail, code = (str(error), "store-full") if full else ("the database cannot be used now", "unavailable")
    headers = {"Retry-After": str(FULL_SECONDS if full else RETRY_SECONDS), "Cache-Control": "no-store"}
    return respond(503, detail, code=code, headers=headers)
