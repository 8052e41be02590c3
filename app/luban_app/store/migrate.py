"""Brings a database to the newest schema, however many VMs try that at once."""

from __future__ import annotations

from importlib import resources

from sqlalchemy import Connection, inspect, select, text

from luban_app import logs
from luban_app.house.records import StoreUnavailableError
from luban_app.store.engine import BEGIN_OPTION, POSTGRESQL
from luban_app.store.schema import HEAD, versions

LOCK_KEY = 0x4C7562616E
"""Advisory lock that migrating VMs take in turn: "Luban"."""
WAIT_SECONDS = 120
"""Longest that a VM waits for another one's migration."""

_log = logs.get("luban_app.store")


def migrate(connection: Connection) -> None:
    """Migrate to HEAD within the connection's transaction. A database that is newer than this program is left alone.

    Migrations only ever add, so that an older VM can go on while newer ones start.
    """
    version = current(connection)
    if version is not None and version > HEAD:
        _log.warning("the database is newer than this program", version=version, known=HEAD)
    if is_current(connection):
        return
    _log.info("migrating the database", found=version or "empty", to=HEAD)
    upgrade(connection, HEAD)


def upgrade(connection: Connection, revision: str) -> None:
    """Run alembic's migrations up to `revision` on this connection, whose transaction stays open."""
    # Imported here: alembic takes longer to load than all the rest, and hardly any start needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = resources.files(__package__).joinpath("migrations")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def current(connection: Connection) -> str | None:
    """The revision that the database has; None: it is empty."""
    if not inspect(connection).has_table(versions.name):
        return None
    return connection.execute(select(versions.c.version_num)).scalar()


def is_current(connection: Connection) -> bool:
    """Whether the database needs no migration."""
    version = current(connection)
    return version is not None and version >= HEAD


def require_unicode(connection: Connection) -> None:
    """Raises StoreUnavailableError if the database cannot keep every text, as one made with another encoding."""
    if connection.dialect.name == POSTGRESQL:
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
        if encoding != "UTF8":
            raise StoreUnavailableError(f"the database cannot be used: its encoding is {encoding}; UTF8 is needed")


def lock(connection: Connection) -> None:
    """Wait until no other VM migrates; the end of the connection's transaction lets the next one in.

    SQLite needs nothing here: its transaction began as one that writes (see `LOCKED`).
    """
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text(f"SET LOCAL statement_timeout = '{WAIT_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})


LOCKED = {BEGIN_OPTION: "BEGIN IMMEDIATE"}
"""Execution options of a connection that writes: on SQLite, nobody else does between its reading and writing."""
