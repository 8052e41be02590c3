"""Connections to the database, tuned for each kind, and what their errors mean."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection, Dialect, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from luban_app.house.records import StoreUnavailableError

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
CONNECT_SECONDS = 3
STATEMENT_SECONDS = 5
"""Longest that PostgreSQL works on one statement, and longest that SQLite waits for a lock."""
POLL_SECONDS = 0.02
CONNECTIONS = {SQLITE: 1, POSTGRESQL: 4}
"""Threads and connections. SQLite writes one at a time anyway, and one thread never waits for its own locks."""

_making = threading.Lock()
_NOT_OPENED = "the database cannot be used: its file cannot be opened"

BEGIN_OPTION = "luban_begin"
"""Execution option: how a transaction begins on SQLite."""


class StoreUrlError(ValueError):
    """The address of the database is not usable at all. The message names no password."""


def parse_url(text: str) -> URL:
    """`sqlite:///path` or `postgresql://user:password@host/name`; both may name a driver, but only ours.

    Raises StoreUrlError. The text may hold a password, so it never goes into the message.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # Not chained: SQLAlchemy quotes the text.
        raise StoreUrlError("database URL: not a URL; expected sqlite:///path or postgresql://user@host/name") from None
    kind = {"sqlite": SQLITE, "sqlite+pysqlite": SQLITE}.get(url.drivername)
    if kind is None and url.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        kind = POSTGRESQL
    if kind is None:
        raise StoreUrlError(f"database URL: {url.drivername!r} is not known; use sqlite or postgresql")
    if kind == SQLITE and url.database in {None, "", ":memory:"}:
        raise StoreUrlError("database URL: sqlite needs the path of a file")
    return url.set(drivername="sqlite+pysqlite" if kind == SQLITE else "postgresql+psycopg")


def sqlite_url(folder: Path) -> URL:
    """The database file in a data folder."""
    return URL.create("sqlite+pysqlite", database=str(folder / "luban.sqlite"))


def make_file(path: str) -> None:
    """Make an empty SQLite file that only its owner can read, unless a file is there; that keeps its mode.

    SQLite itself would let everybody read it. Its companions (-wal, -shm) get the mode of the file. Raises OSError.
    """
    # A file that is there is never opened: closing it again would end SQLite's locks on it in this whole process.
    with _making:
        try:
            os.close(os.open(os.path.realpath(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return


def open_engine(url: URL) -> Engine:
    """The engine for `url`; connects to nothing yet. Raises StoreUrlError."""
    try:
        return _sqlite(url) if url.get_backend_name() == SQLITE else _postgresql(url)
    except (NoSuchModuleError, ArgumentError, TypeError, ImportError) as error:
        raise StoreUrlError(f"database URL: {type(error).__name__}") from error


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": STATEMENT_SECONDS, "check_same_thread": False},
        pool_size=CONNECTIONS[SQLITE],
        max_overflow=0,
        # What people write, and the signing key, stay out of tracebacks and logs.
        hide_parameters=True,
        pool_timeout=STATEMENT_SECONDS,
    )

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _record: Any, arguments: list[Any], options: dict[str, Any]) -> DBAPIConnection:
        with _naming(arguments[0]):
            if not options.get("uri"):
                make_file(arguments[0])
            return dialect.connect(*arguments, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # Python's sqlite3 would begin transactions where it thinks fit: here SQLAlchemy says when.
        connection.isolation_level = None
        with _naming(str(url.database)):
            _write_ahead(connection)
        # In WAL mode NORMAL loses the last transactions if the power fails, never the file; FULL syncs each time.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(BEGIN_OPTION, "BEGIN"))

    return engine


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Raises StoreUnavailableError whose reason names the file if it cannot be opened: SQLite's own words never do."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailableError(_NOT_OPENED, f"{path}: {error}") from error
    except OSError as error:
        raise StoreUnavailableError(_NOT_OPENED, f"{path}: {error.strerror}") from error


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, which lets others read while one writes; the file remembers it."""
    deadline = time.monotonic() + STATEMENT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # Where several processes make the same new file, SQLite does not wait here as it does elsewhere.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return


def _postgresql(url: URL) -> Engine:
    return create_engine(
        url,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "options": f"-c statement_timeout={STATEMENT_SECONDS}s -c timezone=UTC -c client_encoding=UTF8",
            "application_name": "luban",
            # A host that vanished must not hold a thread for the kernel's quarter of an hour.
            "tcp_user_timeout": STATEMENT_SECONDS * 1000,
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
        },
        pool_size=CONNECTIONS[POSTGRESQL],
        max_overflow=0,
        # What people write, and the signing key, stay out of tracebacks and logs.
        hide_parameters=True,
        pool_timeout=STATEMENT_SECONDS,
        pool_pre_ping=True,
        pool_recycle=1800,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the driver raises when the database is not usable into StoreUnavailableError.

    Wrong data and broken constraints are our own faults and stay as they are.
    """
    try:
        yield
    except (DataError, IntegrityError):
        raise
    except (DBAPIError, PoolTimeoutError) as error:
        raise StoreUnavailableError(f"the database cannot be used: {_reason(error)}") from error
    except TimeoutError:
        # The caller's own deadline: a kind of OSError by name alone.
        raise
    except OSError as error:
        raise StoreUnavailableError(f"the database cannot be used: {error.strerror or type(error).__name__}") from error


def _reason(error: DBAPIError | PoolTimeoutError) -> str:
    """The kind of error alone: drivers put addresses, statements and values into their messages."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return type(error.orig).__name__
    return type(error).__name__


def explained(error: StoreUnavailableError) -> dict[str, str]:
    """For the log, which strangers do not read: the message, and as `reason` the first line of the driver's own words.

    libpq names host, port, user and database there, never a password; statements and values come on later lines.
    """
    cause = error.__cause__
    words = str(cause.orig).strip() if isinstance(cause, DBAPIError) and cause.orig is not None else ""
    reason = error.reason or words.partition("\n")[0]
    return {"error": str(error)} | ({"reason": reason} if reason else {})
