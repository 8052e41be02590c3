"""Records in a database: SQLite for one machine, PostgreSQL for several VMs."""

from __future__ import annotations

import asyncio
import importlib
import secrets as random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.engine import URL

from luban_app.house.records import (
    KEEP_DAYS,
    MAX_RECORDS,
    Draft,
    Found,
    Home,
    Query,
    Record,
    RecordNotFoundError,
    SampleRecord,
    Scores,
    StoreFullError,
    StoreUnavailableError,
    UnnamedDraftError,
)
from luban_app.store import draft_statements, migrate, record_statements
from luban_app.store.engine import CONNECTIONS, POSTGRESQL, open_engine, translated
from luban_app.store.record_statements import SAMPLES, clean, own, values_of, visible
from luban_app.store.rows import microseconds, scores_of, to_record
from luban_app.store.schema import drafts, records, secrets

__all__ = ["SampleRecord", "SqlStore", "StoreUnavailableError"]

T = TypeVar("T")

CALL_SECONDS = 12.0
"""Longest that a caller waits, for a free thread, a connection and the answer together."""
RETRY_SECONDS = 1.0
"""After a failed attempt to prepare the database, further calls fail at once for so long."""
DRAFT_DAYS = 30
"""A begun form that nobody touched for so long is forgotten."""
COUNT_SECONDS = 60.0
"""How long the number of all records is believed: counting takes time where there are many."""
CLOSE_SECONDS = 5.0
"""Longest that closing waits for what is running."""
SECRET_BYTES = 32
_SECRET = "session"  # noqa: S105 - the name of the row
_ID_BYTES = 12
_LOCK_OWNER = text("SELECT pg_advisory_xact_lock(hashtextextended(:owner, 0))")


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
        self._kind = kind
        self._threads = futures.ThreadPoolExecutor(CONNECTIONS[kind], "store")
        self._running: set[futures.Future[Any]] = set()
        self._counted = (-COUNT_SECONDS, 0)
        """When all records were last counted, on the monotonic clock, and how many there were."""
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
        """Keep a new record. Raises TooManyRecordsError and StoreFullError."""
        record = self._new(owner, home, answers, scores)

        def work(connection: Connection) -> None:
            self._require_room(connection)
            record_statements.add(connection, record)

        await self._change(owner, work)
        self._one_more()
        return record

    async def get(self, owner: str, record: str) -> Record:
        """One's own, or a sample. Raises RecordNotFoundError."""
        row = await self._call(
            lambda connection: connection.execute(
                select(records).where(records.c.id == clean(record), visible(owner))
            ).one_or_none()
        )
        if row is None:
            raise RecordNotFoundError(record)
        return to_record(row)

    async def update(self, owner: str, record: str, home: Home, answers: Mapping[str, str], scores: Scores) -> Record:
        """Replace one's own. Raises RecordNotFoundError."""
        values = values_of(home, answers, scores) | {"updated": microseconds(self._now())}
        row = await self._call(lambda connection: record_statements.change(connection, owner, record, values))
        if row is None:
            raise RecordNotFoundError(record)
        return to_record(row)

    async def delete(self, owner: str, record: str) -> None:
        """Delete one's own. Raises RecordNotFoundError."""
        statement = delete(records).where(*own(owner, record))
        if not await self._call(lambda connection: connection.execute(statement).rowcount):
            raise RecordNotFoundError(record)

    async def find(self, owner: str, query: Query) -> Found:
        """One's own records and the samples."""
        return await self._call(lambda connection: record_statements.find(connection, owner, query))

    async def draft(self, owner: str) -> Draft | None:
        """The form that the session has begun, if any."""
        return await self._call(lambda connection: draft_statements.find(connection, owner))

    async def begin_draft(self, owner: str, draft: Draft, *, instead_of: str | None = None) -> None:
        """Keep a form in place of the one with the id `instead_of`. Raises what RecordStore's does."""
        now = self._now()
        # A form that changes a record, or takes the place of another, needs no room of its own.
        adds = instead_of is None and not draft.record

        def work(connection: Connection) -> None:
            draft_statements.require_place(connection, owner, draft.id, instead_of)
            if adds:
                self._require_room(connection)
            draft_statements.put(connection, owner, draft, now)

        await self._change(owner, work)
        if adds:
            self._one_more()

    async def save_home(self, owner: str, draft: str, texts: Mapping[str, str], step: str) -> Draft:
        """Replace texts of the home in a form. Raises DraftConflictError and DraftEndedError."""
        now = self._now()

        return await self._change(
            owner, lambda connection: draft_statements.save_home(connection, owner, draft, texts, step, now=now)
        )

    async def save_answers(
        self, owner: str, draft: str, asked: Collection[str], answers: Mapping[str, str], step: str
    ) -> Draft:
        """Replace the answers to the indicators `asked`. Raises DraftConflictError and DraftEndedError."""
        now = self._now()

        form = owner, draft
        return await self._change(
            owner, lambda connection: draft_statements.save_answers(connection, form, asked, answers, step, now=now)
        )

    async def finish(self, owner: str, draft: str, scores: Callable[[Mapping[str, str]], Scores]) -> Record:
        """Make the form a record. Raises what RecordStore.finish does."""

        def work(connection: Connection) -> Record:
            form = draft_statements.opened(connection, owner, draft)
            if not form.home.name:
                raise UnnamedDraftError
            record = self._finished(connection, owner, form, scores(form.answers))
            draft_statements.forget(connection, owner)
            return record

        return await self._change(owner, work)

    async def drop_draft(self, owner: str, draft: str) -> None:
        """Throw a form away. No error if it is not there; another one stays."""
        statement = delete(drafts).where(drafts.c.owner == owner, drafts.c.id == draft)
        await self._call(lambda connection: connection.execute(statement))

    async def touch(self, owner: str) -> None:
        """The session's cookie was made again: its records are kept for KEEP_DAYS more."""
        statement = update(records).where(records.c.owner == owner, records.c.owner != SAMPLES)
        seen = microseconds(self._now())
        await self._change(owner, lambda connection: connection.execute(statement.values(seen=seen)))

    async def prune(self) -> None:
        """Forget what nobody can reach any more, and forms that nobody touched for long."""
        await self._call(self._prune, begin=migrate.LOCKED)

    async def rescore(
        self, catalogue: str, scores: Callable[[Mapping[str, str]], Scores], after: str = "", most: int = 200
    ) -> str | None:
        """Evaluate up to `most` records again whose scores are by another version of the catalogue."""
        old = select(records).where(records.c.owner != SAMPLES, records.c.catalogue != catalogue)
        # Others that do the same, or change a record, are left to it.
        old = old.where(records.c.id > after).order_by(records.c.id).limit(most).with_for_update(skip_locked=True)

        def work(connection: Connection) -> str | None:
            found = list(map(to_record, connection.execute(old)))
            for record in found:
                values = scores_of(scores(record.answers))
                connection.execute(update(records).where(records.c.id == record.id).values(values))
            return found[-1].id if found else None

        return await self._call(work, begin=migrate.LOCKED)

    async def secret(self) -> bytes:
        """The key that cookies and CSRF tokens are signed with: the same on every VM, made once."""
        if self._secret is None:
            await self._call(lambda _connection: None)
        if self._secret is None:
            raise StoreUnavailableError("the database cannot be used: it was lost a moment ago")
        return self._secret

    async def check(self) -> None:
        """Raises StoreUnavailableError if the database cannot be used, or lacks what this program needs of it."""

        def work(connection: Connection) -> None:
            for table in (records, drafts):
                connection.execute(select(table).limit(1)).all()

        await self._call(work)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """The same, for callers without an event loop."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        # A connection that is given back after this would never be closed.
        futures.wait(set(self._running), CLOSE_SECONDS)
        self._engine.dispose()

    async def _change(self, owner: str, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that no other change by the same owner gets into, on whatever VM."""

        def alone(connection: Connection) -> T:
            if self._kind == POSTGRESQL:
                connection.execute(_LOCK_OWNER, {"owner": owner})
            return work(connection)

        return await self._call(alone, begin=migrate.LOCKED)

    async def _call(self, work: Callable[[Connection], T], *, begin: Mapping[str, str] | None = None) -> T:
        """Run `work` in a transaction of its own, which begins as the execution options `begin` say."""

        def transaction() -> T:
            with self._engine.connect().execution_options(**(begin or {})) as connection, connection.begin():
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
            running = self._threads.submit(work)
            self._running.add(running)
            running.add_done_callback(self._running.discard)
            return await asyncio.wrap_future(running)

    def _new(self, owner: str, home: Home, answers: Mapping[str, str], scores: Scores) -> Record:
        when = self._now()
        return Record(random.token_urlsafe(_ID_BYTES), owner, home, dict(answers), scores, when, when)

    def _finished(self, connection: Connection, owner: str, form: Draft, scores: Scores) -> Record:
        """The record that a form changes, or a new one."""
        values = values_of(form.home, form.answers, scores)
        values |= {"updated": microseconds(self._now()), "draft": form.id}
        row = record_statements.change(connection, owner, form.record, values) if form.record else None
        if row is not None:
            return to_record(row)
        record = self._new(owner, form.home, form.answers, scores)
        # In the place of the form: the two need no more room than it did.
        record_statements.add(connection, record, form.id)
        return record

    def _require_room(self, connection: Connection) -> None:
        """Raises StoreFullError. What other VMs have kept counts after COUNT_SECONDS at most."""
        if time.monotonic() >= self._counted[0] + COUNT_SECONDS:
            counts = (connection.execute(select(func.count()).select_from(table)) for table in (drafts, records))
            self._counted = time.monotonic(), sum(found.scalar_one() for found in counts)
        if self._counted[1] >= MAX_RECORDS:
            raise StoreFullError(f"{MAX_RECORDS} records are the most that are kept")

    def _one_more(self) -> None:
        """Count what has been kept. On the event loop alone, so that none is forgotten."""
        when, count = self._counted
        self._counted = when, count + 1

    def _prepare(self) -> None:
        if self._secret is not None:
            # It was in use before: unless it was emptied, all is there, and no lock is needed to see that.
            with self._engine.connect() as connection:
                if migrate.is_current(connection):
                    return
        with self._engine.connect().execution_options(**migrate.LOCKED) as connection, connection.begin():
            migrate.lock(connection)
            migrate.require_unicode(connection)
            migrate.migrate(connection)
            self._put_samples(connection)
            self._secret = self._shared_secret(connection)

    def _prune(self, connection: Connection) -> None:
        """Forget forms that nobody touched for long, and records that nobody can reach: their cookie has expired."""
        oldest = microseconds(self._now() - timedelta(days=DRAFT_DAYS))
        connection.execute(delete(drafts).where(drafts.c.updated < oldest))
        oldest = microseconds(self._now() - timedelta(days=KEEP_DAYS))
        unseen = records.c.seen < oldest, records.c.updated < oldest
        connection.execute(delete(records).where(records.c.owner != SAMPLES, *unseen))

    def _put_samples(self, connection: Connection) -> None:
        """Make the samples in the database those of this program."""
        wanted = [record_statements.row_of(sample.record, also=sample.also) for sample in self._samples]
        rows = connection.execute(select(records).where(records.c.owner == SAMPLES)).mappings()
        if sorted((dict(row) for row in rows), key=lambda row: str(row["id"])) == sorted(
            wanted, key=lambda row: str(row["id"])
        ):
            return
        connection.execute(delete(records).where(records.c.owner == SAMPLES))
        if wanted:
            connection.execute(insert(records), wanted)

    def _shared_secret(self, connection: Connection) -> bytes:
        """Every VM offers a secret, its known one if the database was emptied; the first one stays."""
        value = self._secret or random.token_bytes(SECRET_BYTES)
        offer = self._upsert(secrets).values(name=_SECRET, value=value)
        connection.execute(offer.on_conflict_do_nothing())
        return bytes(connection.execute(select(secrets.c.value).where(secrets.c.name == _SECRET)).scalar_one())
