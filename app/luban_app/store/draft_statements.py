"""Forms that were begun, on a connection whose transaction no other change of the same owner can get into."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from luban_app.house.records import Draft, DraftConflictError, DraftEndedError
from luban_app.store.rows import microseconds, pack_answers, to_draft, to_record
from luban_app.store.schema import drafts, records


def find(connection: Connection, owner: str) -> Draft | None:
    """The owner's form, if there is one."""
    row = connection.execute(select(drafts).where(drafts.c.owner == owner)).one_or_none()
    return None if row is None else to_draft(row)


def require_place(connection: Connection, owner: str, draft: str, instead_of: str | None) -> None:
    """Raises what RecordStore.begin_draft does if a form with the id `draft` may not begin."""
    there = find(connection, owner)
    if (None if there is None else there.id) != instead_of:
        raise DraftConflictError
    _refuse_ended(connection, owner, draft)


def put(connection: Connection, owner: str, draft: Draft, now: datetime) -> None:
    """Keep a form in place of the owner's, if there is one."""
    forget(connection, owner)
    connection.execute(insert(drafts), _row(owner, draft, now))


def save_home(
    connection: Connection, owner: str, draft: str, texts: Mapping[str, str], step: str, *, now: datetime
) -> Draft:
    """See RecordStore.save_home."""
    there = opened(connection, owner, draft)
    _update(connection, owner, now, {**texts, "step": step})
    return replace(there, home=replace(there.home, **texts), step=step)


def save_answers(
    connection: Connection,
    form: tuple[str, str],
    asked: Collection[str],
    answers: Mapping[str, str],
    step: str,
    *,
    now: datetime,
) -> Draft:
    """See RecordStore.save_answers; `form` is owner and id."""
    there = opened(connection, *form)
    kept = {indicator: option for indicator, option in there.answers.items() if indicator not in asked}
    changed = replace(there, answers=kept | dict(answers), step=step)
    _update(connection, form[0], now, {"answers": pack_answers(changed.answers), "step": step})
    return changed


def opened(connection: Connection, owner: str, draft: str) -> Draft:
    """The form with this id. Raises DraftConflictError and DraftEndedError if it is not the owner's open one."""
    there = find(connection, owner)
    if there is not None and there.id == draft:
        return there
    if there is None:
        _refuse_ended(connection, owner, draft)
    raise DraftConflictError


def forget(connection: Connection, owner: str) -> None:
    """Throw the owner's form away."""
    connection.execute(delete(drafts).where(drafts.c.owner == owner))


def _refuse_ended(connection: Connection, owner: str, draft: str) -> None:
    """Raises DraftEndedError if the form with this id is a record already."""
    if draft:
        row = connection.execute(select(records).where(records.c.owner == owner, records.c.draft == draft)).first()
        if row is not None:
            raise DraftEndedError(to_record(row))


def _update(connection: Connection, owner: str, now: datetime, values: Mapping[str, Any]) -> None:
    changed = {**values, "updated": microseconds(now)}
    connection.execute(update(drafts).where(drafts.c.owner == owner).values(changed))


def _row(owner: str, draft: Draft, now: datetime) -> dict[str, Any]:
    return {
        "owner": owner,
        "id": draft.id,
        "record": draft.record,
        "name": draft.home.name,
        "address": draft.home.address,
        "notes": draft.home.notes,
        "answers": pack_answers(draft.answers),
        "step": draft.step,
        "updated": microseconds(now),
    }
