"""Records in a database: SQLite for one machine, PostgreSQL for several VMs."""

from __future__ import annotations

import asyncio
import importlib
import secrets as random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Integer, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.engine import URL
from sqlalchemy.sql.dml import ReturningInsert

from luban_app import store_migrate
from luban_app.records import (
    MAX_RECORDS_PER_OWNER,
    Draft,
    Found,
    Home,
    Query,
    Record,
    RecordNotFoundError,
    SampleRecord,
    Scores,
    StoreUnavailableError,
    TooManyRecordsError,
)
from luban_app.store_engine import CONNECTIONS, SQLITE, open_engine, translated
from luban_app.store_rows import (
    ESCAPE,
    like_pattern,
    microseconds,
    pack_answers,
    scores_of,
    texts_of,
    to_draft,
    to_record,
)
from luban_app.store_schema import drafts, records, secrets

__all__ = ["SampleRecord", "SqlStore", "StoreUnavailableError"]

T = TypeVar("T")

CALL_SECONDS = 12.0
"""Longest that a caller waits, for a free thread, a connection and the answer together."""
RETRY_SECONDS = 1.0
"""After a failed attempt to prepare the database, further calls fail at once for so long."""
DRAFT_DAYS = 30
"""A begun form that nobody touched for so long is forgotten at the next start."""
SECRET_BYTES = 32
_SECRET = "session"  # noqa: S105 - the name of the row
_ID_BYTES = 12
_SAMPLES = ""
_PARAMETER = "the_"
"""Before the columns' names in statements: SQLAlchemy keeps the plain names for itself."""


class SqlStore:
    """A RecordStore (see there for what the methods do) on SQLAlchemy.

    Every method raises StoreUnavailableError if the database cannot be used. The database is prepared (migrated,
    samples put in) by the first call that reaches it; connections come back by themselves.
    """

    def __init__(
        self, url: URL, samples: Sequence[SampleRecord] = (), now: Callable[[], datetime] | None = None
    ) -> None:
        """Connects to nothing yet. Raises StoreUrlError."""
        self._url = url
        self._samples = tuple(samples)
        self._now = now or (lambda: datetime.now(UTC))
        self._engine = open_engine(url)
        kind = url.get_backend_name()
        # Of the two dialects, only the one that is used is loaded.
        self._upsert = importlib.import_module(f"sqlalchemy.dialects.{kind}").insert
        self._threads = ThreadPoolExecutor(CONNECTIONS[kind], "store")
        self._preparing = asyncio.Lock()
        self._prepared = False
        self._not_before = 0.0
        self._secret: bytes | None = None

    async def prepare(self) -> None:
        """Migrate the database and put the samples in, unless that is done. Raises StoreUnavailableError."""
        if self._prepared:
            return
        async with self._preparing:
            if self._prepared:
                return
            if time.monotonic() < self._not_before:
                raise StoreUnavailableError("the database cannot be used: it was tried a moment ago")
            try:
                await self._run(self._prepare)
            except StoreUnavailableError:
                self._not_before = time.monotonic() + RETRY_SECONDS
                raise
            self._prepared = True

    async def create(self, owner: str, home: Home, answers: Mapping[str, str], scores: Scores) -> Record:
        """Keep a new record. Raises TooManyRecordsError."""
        when = self._now()
        record = Record(random.token_urlsafe(_ID_BYTES), owner, home, dict(answers), scores, when, when)
        await self._call(lambda connection: _insert(connection, record))
        return record

    async def get(self, owner: str, record: str) -> Record:
        """One's own, or a sample. Raises RecordNotFoundError."""
        row = await self._call(
            lambda connection: connection.execute(
                select(records).where(records.c.id == _clean(record), _visible(owner))
            ).one_or_none()
        )
        if row is None:
            raise RecordNotFoundError(record)
        return to_record(row)

    async def update(self, owner: str, record: str, home: Home, answers: Mapping[str, str], scores: Scores) -> Record:
        """Replace one's own. Raises RecordNotFoundError."""
        values = {
            **texts_of(home),
            **scores_of(scores),
            "answers": pack_answers(answers),
            "updated": microseconds(self._now()),
        }
        statement = update(records).where(*_own(owner, record)).values(values).returning(*records.c)
        row = await self._call(lambda connection: connection.execute(statement).one_or_none())
        if row is None:
            raise RecordNotFoundError(record)
        return to_record(row)

    async def delete(self, owner: str, record: str) -> None:
        """Delete one's own. Raises RecordNotFoundError."""
        statement = delete(records).where(*_own(owner, record))
        if not await self._call(lambda connection: connection.execute(statement).rowcount):
            raise RecordNotFoundError(record)

    async def find(self, owner: str, query: Query) -> Found:
        """One's own records and the samples."""
        return await self._call(lambda connection: _find(connection, owner, query))

    async def draft(self, owner: str) -> Draft | None:
        """The form that the session has begun, if any."""
        statement = select(drafts).where(drafts.c.owner == owner)
        row = await self._call(lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else to_draft(row)

    async def save_draft(self, owner: str, draft: Draft) -> None:
        """Keep a begun form; it replaces the one before."""
        values = {
            "record": draft.record,
            "name": draft.home.name,
            "address": draft.home.address,
            "notes": draft.home.notes,
            "answers": pack_answers(draft.answers),
            "updated": microseconds(self._now()),
        }
        statement = self._upsert(drafts).values(owner=owner, **values)
        statement = statement.on_conflict_do_update(index_elements=["owner"], set_=values)
        await self._call(lambda connection: connection.execute(statement))

    async def drop_draft(self, owner: str) -> None:
        """Throw the begun form away. No error if there is none."""
        await self._call(lambda connection: connection.execute(delete(drafts).where(drafts.c.owner == owner)))

    async def secret(self) -> bytes:
        """The key that cookies and CSRF tokens are signed with: the same on every VM, made once."""
        if self._secret is None:
            await self._call(lambda _connection: None)
        if self._secret is None:
            raise StoreUnavailableError("the database cannot be used: it was lost a moment ago")
        return self._secret

    async def check(self) -> None:
        """Raises StoreUnavailableError if the database cannot be used."""
        await self._call(lambda connection: connection.execute(select(records.c.id).limit(1)).all())

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """The same, for callers without an event loop."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    async def _call(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction of its own."""

        def transaction() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        try:
            async with asyncio.timeout(CALL_SECONDS):
                if not self._prepared:
                    await self.prepare()
                return await self._run(transaction)
        except StoreUnavailableError:
            # It may be another one when it is back, or have been emptied: look at it again before it is used.
            self._prepared = False
            raise
        except TimeoutError as error:
            self._prepared = False
            raise StoreUnavailableError("the database cannot be used: it does not answer in time") from error

    async def _run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread. Raises StoreUnavailableError."""
        with translated():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _prepare(self) -> None:
        if self._secret is not None:
            # It was in use before: unless it was emptied, all is there, and no lock is needed to see that.
            with self._engine.connect() as connection:
                if store_migrate.is_current(connection):
                    return
        if self._url.get_backend_name() == SQLITE and self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        with self._engine.connect().execution_options(**store_migrate.LOCKED) as connection, connection.begin():
            store_migrate.lock(connection)
            store_migrate.require_unicode(connection)
            store_migrate.migrate(connection)
            self._put_samples(connection)
            self._secret = self._shared_secret(connection)
            oldest = microseconds(self._now() - timedelta(days=DRAFT_DAYS))
            connection.execute(delete(drafts).where(drafts.c.updated < oldest))

    def _put_samples(self, connection: Connection) -> None:
        """Make the samples in the database those of this program."""
        wanted = [_row(sample.record, sample.also) for sample in self._samples]
        rows = connection.execute(select(records).where(records.c.owner == _SAMPLES)).mappings()
        if sorted((dict(row) for row in rows), key=lambda row: str(row["id"])) == sorted(
            wanted, key=lambda row: str(row["id"])
        ):
            return
        connection.execute(delete(records).where(records.c.owner == _SAMPLES))
        if wanted:
            connection.execute(insert(records), wanted)

    def _shared_secret(self, connection: Connection) -> bytes:
        """Every VM offers a secret, its known one if the database was emptied; the first one stays."""
        value = self._secret or random.token_bytes(SECRET_BYTES)
        offer = self._upsert(secrets).values(name=_SECRET, value=value)
        connection.execute(offer.on_conflict_do_nothing())
        return bytes(connection.execute(select(secrets.c.value).where(secrets.c.name == _SECRET)).scalar_one())


def _clean(record: str) -> str:
    """PostgreSQL refuses NUL in a text; no record has one in its id either."""
    return record.replace("\0", "�")


def _visible(owner: str) -> ColumnElement[bool]:
    return records.c.owner.in_([owner, _SAMPLES])


def _own(owner: str, record: str) -> tuple[ColumnElement[bool], ...]:
    """One's own, never a sample: nobody is the samples' owner, not even a session without a name."""
    return records.c.id == _clean(record), records.c.owner == owner, records.c.owner != _SAMPLES


def _row(record: Record, also: str = "") -> dict[str, Any]:
    return {
        "id": record.id,
        "owner": record.owner,
        **texts_of(record.home, also),
        "answers": pack_answers(record.answers),
        **scores_of(record.scores),
        "created": microseconds(record.created),
        "updated": microseconds(record.updated),
    }


def _insert(connection: Connection, record: Record) -> None:
    """Insert unless the owner has too many already, in one statement: no other VM gets in between."""
    values = {_PARAMETER + name: value for name, value in _row(record).items()}
    if connection.execute(_INSERT, values | {"most": MAX_RECORDS_PER_OWNER}).one_or_none() is None:
        raise TooManyRecordsError(f"{MAX_RECORDS_PER_OWNER} records are the most that one session keeps")


def _limited_insert() -> ReturningInsert[Any]:
    """INSERT ... SELECT ... WHERE the owner has fewer than `most`. Made once: that takes as long as running it."""
    columns = list(records.c)
    owner = bindparam(_PARAMETER + "owner", type_=records.c.owner.type)
    count = select(func.count()).select_from(records).where(records.c.owner == owner).scalar_subquery()
    values = select(*(bindparam(_PARAMETER + column.name, type_=column.type) for column in columns))
    source = values.where(count < bindparam("most", type_=Integer))
    return insert(records).from_select(columns, source).returning(records.c.id)


_INSERT = _limited_insert()


def _find(connection: Connection, owner: str, query: Query) -> Found:
    where: list[ColumnElement[bool]] = [_visible(owner)]
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
