"""Evaluations that are kept: what a record is, who may see it, and the store behind pages and API."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

NAME_LENGTH = 80
ADDRESS_LENGTH = 200
NOTES_LENGTH = 1000
PAGE_SIZE = 20
MAX_RECORDS_PER_OWNER = 500
"""A session that tries to fill the database is stopped here."""
MAX_RECORDS = 100_000
"""Many sessions that try it together are stopped here: about 1 GB if each record and form is as long as it may be."""
FULL_SECONDS = 24 * 3600
"""Whoever finds no room may try again after so long."""
KEEP_DAYS = 400
"""Records are kept for so long after their session's cookie was last made: more than two lives of one (see security),
so that a renewal that the database does not hear of loses nobody anything."""

SortKey = Literal["updated", "name", "outside", "building", "inside", "total"]


class RecordNotFoundError(LookupError):
    """There is no such record, or it is somebody else's: the two must not be told apart."""


class TooManyRecordsError(Exception):
    """The owner has MAX_RECORDS_PER_OWNER already."""


class StoreFullError(Exception):
    """There are MAX_RECORDS records and forms already, of all sessions together."""


class DraftConflictError(Exception):
    """The form that was sent is not the one that the session has open: another window ended or replaced it."""


class DraftEndedError(Exception):
    """The form that was sent is finished; `record` is what became of it."""

    def __init__(self, record: Record) -> None:
        super().__init__(record.id)
        self.record = record


class UnnamedDraftError(Exception):
    """A form cannot be finished before the home has a name."""


class StoreUnavailableError(Exception):
    """The database cannot be used now; trying again later may help. The message is for everybody.

    `reason` is for the log alone: paths, addresses and the driver's words, but no secrets.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Home:
    """What people write about a home: plain text, trimmed; the name is not empty."""

    name: str
    address: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Scores:
    """Scores, 0..100; None: nothing answered in that part."""

    outside: float | None = None
    building: float | None = None
    inside: float | None = None
    total: float | None = None
    catalogue: str = ""
    """Version of the catalogue that they are by."""


@dataclass(frozen=True)
class Record:
    """One evaluated home."""

    id: str
    """Opaque and unguessable, URL-safe."""
    owner: str
    """Session that it belongs to; empty: a sample, which everybody sees and nobody changes."""
    home: Home
    answers: Mapping[str, str]
    """Indicator id -> option id."""
    scores: Scores
    created: datetime
    updated: datetime
    """Both in UTC."""

    @property
    def sample(self) -> bool:
        """Whether it ships with the service."""
        return not self.owner


@dataclass(frozen=True)
class SampleRecord:
    """A record that ships with the service; a search looks through `also` too (the other language's words)."""

    record: Record
    also: str = ""


@dataclass(frozen=True)
class Draft:
    """A form that was begun: kept for its session until it is finished or thrown away. A session has one at most."""

    home: Home
    answers: Mapping[str, str] = field(default_factory=dict)
    record: str = ""
    """Id of the record that is being edited; empty: a new one."""
    id: str = ""
    """Chosen by whoever begins it. It travels with every page of the form, so that a window that shows an older form
    cannot change this one."""
    step: str = ""
    """Where its owner left it: a name that pages give to their steps."""


@dataclass(frozen=True)
class Query:
    """What to list."""

    text: str = ""
    """Part of name, address or notes, in any case; empty: all."""
    sort: SortKey = "updated"
    descending: bool = True
    """Records without a score in the sorted part come last either way."""
    page: int = 1
    size: int = PAGE_SIZE


@dataclass(frozen=True)
class Found:
    """One page of a list."""

    records: tuple[Record, ...]
    total: int
    """Records on all pages."""
    page: int
    pages: int


class RecordStore(Protocol):
    """Records and drafts. A session sees its own records and the samples; it changes its own only.

    Every call may be made from any VM at the same time: the database is shared. Every call raises
    StoreUnavailableError if the database cannot be used.
    """

    async def create(self, owner: str, home: Home, answers: Mapping[str, str], scores: Scores) -> Record:
        """Keep a new record. Raises TooManyRecordsError and StoreFullError."""
        ...

    async def get(self, owner: str, record: str) -> Record:
        """One's own, or a sample. Raises RecordNotFoundError."""
        ...

    async def update(self, owner: str, record: str, home: Home, answers: Mapping[str, str], scores: Scores) -> Record:
        """Replace one's own. Raises RecordNotFoundError."""
        ...

    async def delete(self, owner: str, record: str) -> None:
        """Delete one's own. Raises RecordNotFoundError."""
        ...

    async def find(self, owner: str, query: Query) -> Found:
        """One's own records and the samples."""
        ...

    async def draft(self, owner: str) -> Draft | None:
        """The form that the session has begun, if any."""
        ...

    async def begin_draft(self, owner: str, draft: Draft, *, instead_of: str | None = None) -> None:
        """Keep a form in place of the one with the id `instead_of`; None: there must be none.

        Raises DraftConflictError, DraftEndedError and StoreFullError.
        """
        ...

    async def save_home(self, owner: str, draft: str, texts: Mapping[str, str], step: str) -> Draft:
        """Replace texts of the home (by name: name, address, notes) in a form and leave the others; the form then.

        Raises DraftConflictError and DraftEndedError.
        """
        ...

    async def save_answers(
        self, owner: str, draft: str, asked: Collection[str], answers: Mapping[str, str], step: str
    ) -> Draft:
        """Replace the answers to the indicators `asked` and leave the others; the form as it is then.

        Raises DraftConflictError and DraftEndedError.
        """
        ...

    async def finish(self, owner: str, draft: str, scores: Callable[[Mapping[str, str]], Scores]) -> Record:
        """Make the form a record, or change the record that it edits (which is made anew if it was deleted meanwhile).

        Raises DraftConflictError, DraftEndedError, UnnamedDraftError and TooManyRecordsError.
        """
        ...

    async def drop_draft(self, owner: str, draft: str) -> None:
        """Throw a form away. No error if it is not there; another one stays."""
        ...

    async def touch(self, owner: str) -> None:
        """The session's cookie was made again: its records are kept for KEEP_DAYS more."""
        ...

    async def prune(self) -> None:
        """Forget what nobody can reach any more, and forms that nobody touched for long."""
        ...

    async def rescore(
        self, catalogue: str, scores: Callable[[Mapping[str, str]], Scores], after: str = "", most: int = 200
    ) -> str | None:
        """Evaluate up to `most` records again whose scores are by another version of the catalogue.

        They come in the order of their ids, after the id `after`. The last one's id; None: there are no more.
        """
        ...

    async def secret(self) -> bytes:
        """The key that cookies and CSRF tokens are signed with: the same on every VM, made once."""
        ...

    async def check(self) -> None:
        """Raises an error with a message for people if the database cannot be used."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
