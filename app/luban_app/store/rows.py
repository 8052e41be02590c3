"""Between rows of the database and records: texts that are searched and sorted, answers, times."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row

from luban_app.house.records import Draft, Home, Record, Scores

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
ESCAPE = "\\"


def search_key(text: str) -> str:
    """The text as it is compared: any case, and full-width letters and digits like plain ones."""
    return unicodedata.normalize("NFKC", text).casefold()


def like_pattern(text: str) -> str:
    """A LIKE pattern (with ESCAPE) for "contains `text`": its wildcards stand for themselves."""
    escaped = search_key(text)
    for special in (ESCAPE, "%", "_"):
        escaped = escaped.replace(special, ESCAPE + special)
    return f"%{escaped}%"


def microseconds(when: datetime) -> int:
    """Microseconds since 1970."""
    return (when - _EPOCH) // _MICROSECOND


def pack_answers(answers: Mapping[str, str]) -> str:
    """Answers as JSON; the same answers always give the same text."""
    return json.dumps(dict(answers), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def texts_of(home: Home, also: str = "") -> dict[str, Any]:
    """The columns that come from what people wrote; `also` is searched too, but not shown."""
    return {
        "name": home.name,
        "address": home.address,
        "notes": home.notes,
        "name_key": search_key(home.name),
        "search_key": search_key("\n".join((home.name, home.address, home.notes, also))),
    }


def scores_of(scores: Scores) -> dict[str, Any]:
    """The columns of the scores."""
    return {
        "outside": scores.outside,
        "building": scores.building,
        "inside": scores.inside,
        "total": scores.total,
        "catalogue": scores.catalogue,
    }


def to_record(row: Row[Any]) -> Record:
    """The record in a row of `records`."""
    return Record(
        id=row.id,
        owner=row.owner,
        home=Home(row.name, row.address, row.notes),
        answers=json.loads(row.answers),
        scores=Scores(row.outside, row.building, row.inside, row.total, row.catalogue),
        created=_EPOCH + timedelta(microseconds=row.created),
        updated=_EPOCH + timedelta(microseconds=row.updated),
    )


def to_draft(row: Row[Any]) -> Draft:
    """The draft in a row of `drafts`."""
    return Draft(Home(row.name, row.address, row.notes), json.loads(row.answers), row.record, row.id, row.step)
