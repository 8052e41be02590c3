"""Records in the database: what belongs to whom, and the statements about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, select, update

from luban_app.house.records import MAX_RECORDS_PER_OWNER, Found, Home, Query, Record, Scores, TooManyRecordsError
from luban_app.store.rows import ESCAPE, like_pattern, microseconds, pack_answers, scores_of, texts_of, to_record
from luban_app.store.schema import records

SAMPLES = ""
"""Owner of the samples."""


def clean(record: str) -> str:
    """PostgreSQL refuses NUL in a text; no record has one in its id either."""
    return record.replace("\0", "�")


def visible(owner: str) -> ColumnElement[bool]:
    """One's own and the samples."""
    return records.c.owner.in_([owner, SAMPLES])


def own(owner: str, record: str) -> tuple[ColumnElement[bool], ...]:
    """One's own, never a sample: nobody is the samples' owner, not even a session without a name."""
    return records.c.id == clean(record), records.c.owner == owner, records.c.owner != SAMPLES


def values_of(home: Home, answers: Mapping[str, str], scores: Scores, also: str = "") -> dict[str, Any]:
    """The columns that come from what people say about a home."""
    return {**texts_of(home, also), "answers": pack_answers(answers), **scores_of(scores)}


def row_of(record: Record, *, also: str = "", draft: str = "") -> dict[str, Any]:
    """All columns of a new record; a search looks through `also` too."""
    return {
        "id": record.id,
        "owner": record.owner,
        **values_of(record.home, record.answers, record.scores, also),
        "created": microseconds(record.created),
        "updated": microseconds(record.updated),
        "draft": draft,
        "seen": microseconds(record.updated),
    }


def add(connection: Connection, record: Record, draft: str = "") -> None:
    """Insert a record, saved from the form `draft`, where nothing else of its owner's is under way.

    Raises TooManyRecordsError.
    """
    owned = select(func.count()).select_from(records).where(records.c.owner == record.owner)
    if connection.execute(owned).scalar_one() >= MAX_RECORDS_PER_OWNER:
        raise TooManyRecordsError(f"{MAX_RECORDS_PER_OWNER} records are the most that one session keeps")
    connection.execute(insert(records), row_of(record, draft=draft))


def change(connection: Connection, owner: str, record: str, values: Mapping[str, Any]) -> Row[Any] | None:
    """Change one's own record; its new row, None if there is none."""
    statement = update(records).where(*own(owner, record)).values(values).returning(*records.c)
    return connection.execute(statement).one_or_none()


def find(connection: Connection, owner: str, query: Query) -> Found:
    """See RecordStore.find."""
    where: list[ColumnElement[bool]] = [visible(owner)]
    if query.text:
        where.append(records.c.search_key.like(like_pattern(query.text), escape=ESCAPE))
    total = connection.execute(select(func.count()).select_from(records).where(*where)).scalar_one()
    pages = max(1, -(-total // query.size))
    # A page that is no more, as after a deletion, is the last one.
    page = min(max(query.page, 1), pages)
    statement = _sorted(select(records).where(*where), query).limit(query.size).offset((page - 1) * query.size)
    return Found(tuple(map(to_record, connection.execute(statement))), total, page, pages)


def _sorted(statement: Select[Any], query: Query) -> Select[Any]:
    """Ordered as asked, None last either way; equal ones in the order of their ids, so that pages never overlap."""
    column = records.c["name_key" if query.sort == "name" else query.sort]
    return statement.order_by(column.is_(None), column.desc() if query.descending else column.asc(), records.c.id)
