"""How the database behind RecordStore is made and migrated, and what happens while it is lost."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from luban_app.house.records import Query, StoreUnavailableError
from luban_app.store import migrate, sql_store
from luban_app.store.engine import StoreUrlError, explained, make_file, open_engine, parse_url, sqlite_url
from luban_app.store.schema import HEAD, metadata
from luban_app.store.sql_store import SqlStore
from tests.contract.database_implementations import (  # noqa: F401 - fixtures
    ROLE,
    Database,
    Postgres,
    database,
    postgres,
    postgres_server,
)
from tests.contract.test_record_store_contract import ANA, BEN, SAMPLES, keep

pytestmark = pytest.mark.contract


# Migrations.


@pytest.fixture
def engine(database: Database) -> Any:  # noqa: F811
    engine = open_engine(database.url)
    yield engine
    engine.dispose()


def migrated(engine: Engine) -> None:
    with engine.connect().execution_options(**migrate.LOCKED) as connection, connection.begin():
        migrate.lock(connection)
        migrate.migrate(connection)


def test_migrations_make_exactly_the_tables_that_the_program_uses(engine: Engine) -> None:
    migrated(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert migrate.current(connection) == HEAD
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1


def test_what_the_first_version_kept_goes_on(engine: Engine) -> None:
    with engine.connect().execution_options(**migrate.LOCKED) as connection, connection.begin():
        migrate.lock(connection)
        migrate.upgrade(connection, "0001")
        texts = {"name": "Old", "address": "", "notes": "", "answers": '{"pylon":"none"}'}
        keys = {"name_key": "old", "search_key": "old"}
        scores = dict.fromkeys(("outside", "building", "inside", "total"))
        insert(connection, "drafts", {"owner": ANA, "record": "", "updated": 5, **texts})
        insert(connection, "drafts", {"owner": BEN, "record": "", "updated": 5, **texts})
        kept = {"id": "r1", "owner": ANA, "created": 5, "updated": 7, **texts, **keys, **scores}
        insert(connection, "records", kept)
    migrated(engine)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, step, name FROM drafts")).all()
        assert {(row.step, row.name) for row in rows} == {("", "Old")}
        assert len({row.id for row in rows} - {""}) == 2
        record = connection.execute(text("SELECT id, draft, seen, catalogue FROM records")).one()
        assert tuple(record) == ("r1", "", 7, "")


def insert(connection: Connection, table: str, row: dict[str, Any]) -> None:
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row)


async def test_a_database_that_lacks_a_column_is_not_ready(database: Database) -> None:  # noqa: F811
    store = SqlStore(database.url)
    await store.check()
    other = open_engine(database.url)
    with other.begin() as connection:
        connection.execute(text("ALTER TABLE drafts DROP COLUMN step"))
    other.dispose()
    with pytest.raises(StoreUnavailableError):
        await store.check()
    await store.close()


def test_the_program_knows_the_newest_migration() -> None:
    folder = Path(migrate.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [HEAD]


def test_a_migration_that_fails_leaves_nothing_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(connection: Any, revision: str) -> None:
        connection.execute(text("CREATE TABLE half (id INTEGER)"))
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(migrate, "upgrade", breaks)
    with pytest.raises(RuntimeError, match="on purpose"):
        migrated(engine)
    assert inspect(engine).get_table_names() == []


def test_a_database_that_is_newer_is_left_alone(engine: Engine) -> None:
    migrated(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    migrated(engine)
    with engine.connect() as connection:
        assert migrate.current(connection) == "9999"


# Addresses.


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://u:hunter2@h/d", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://u:hunter2@h/d",
     "postgresql://u:hunter2@h:port/d"],
)  # fmt: skip
def test_an_unusable_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreUrlError) as refused:
        parse_url(url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("url", ["postgres://h/d", "postgresql://h/d", "postgresql+psycopg://h/d"])
def test_every_spelling_of_postgresql_means_our_driver(url: str) -> None:
    assert parse_url(url).drivername == "postgresql+psycopg"


# A database that is lost.


async def test_a_database_that_is_not_there_is_unavailable_and_says_so_shortly() -> None:
    store = SqlStore(parse_url("postgresql://u:hunter2@127.0.0.1:1/d"))
    try:
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError) as lost:
                await store.check()
            assert "hunter2" not in str(lost.value)
            assert time.monotonic() - started < 5
    finally:
        await store.close()


async def test_why_a_server_is_unavailable_is_for_the_log_alone() -> None:
    store = SqlStore(parse_url("postgresql://u:hunter2@127.0.0.1:1/d"))
    with pytest.raises(StoreUnavailableError) as lost:
        await store.check()
    await store.close()
    assert str(lost.value) == "the database cannot be used: OperationalError"
    said = explained(lost.value)
    assert said["error"] == str(lost.value)
    assert "127.0.0.1" in said["reason"]
    assert "port 1 failed: Connection refused" in said["reason"]
    assert "\n" not in said["reason"]
    assert "hunter2" not in said["reason"]


async def test_a_wrong_password_is_not_told_to_the_log(own_server: Postgres) -> None:
    access = own_server.folder / "data" / "pg_hba.conf"
    own_server.run(f"ALTER ROLE {ROLE} PASSWORD 'correct'", "postgres")
    url = own_server.database()
    access.write_text("local all all scram-sha-256\n")
    own_server.reload()
    store = SqlStore(url.set(password="hunter2"))
    with pytest.raises(StoreUnavailableError) as lost:
        await store.check()
    await store.close()
    assert f'password authentication failed for user "{ROLE}"' in explained(lost.value)["reason"]
    assert "hunter2" not in str(explained(lost.value))


def test_where_the_driver_said_nothing_there_is_no_reason() -> None:
    assert explained(StoreUnavailableError("it was tried a moment ago")) == {"error": "it was tried a moment ago"}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("broken.sqlite", "file is not a database"),
        ("folder", "unable to open database file"),
        ("file/x.sqlite", "Not a directory"),
        ("missing/x.sqlite", "No such file or directory"),
    ],
)
async def test_a_file_that_is_no_database_is_unavailable_and_named(tmp_path: Path, path: str, why: str) -> None:
    (tmp_path / "broken.sqlite").write_bytes(b"this is no database" * 1000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    store = SqlStore(parse_url(f"sqlite:///{tmp_path}/{path}"))
    with pytest.raises(StoreUnavailableError) as lost:
        await store.check()
    await store.close()
    # Everybody sees the one, the log has the other too.
    assert str(lost.value) == "the database cannot be used: its file cannot be opened"
    assert explained(lost.value) == {"error": str(lost.value), "reason": f"{tmp_path}/{path}: {why}"}
    # A typing error in an address makes no folders.
    assert not (tmp_path / "missing").exists()


@pytest.fixture
def generous() -> Iterator[None]:
    """New files are for everybody to read, unless their maker says otherwise."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in folder.iterdir()}


@pytest.mark.usefixtures("generous")
async def test_nobody_else_can_read_the_file_and_its_companions(tmp_path: Path) -> None:
    store = SqlStore(sqlite_url(tmp_path), SAMPLES)
    await keep(store)
    assert modes(tmp_path) == {f"luban.sqlite{suffix}": 0o600 for suffix in ("", "-wal", "-shm")}
    await store.close()


@pytest.mark.usefixtures("generous")
async def test_a_file_behind_a_link_is_private_too(tmp_path: Path) -> None:
    (tmp_path / "luban.sqlite").symlink_to(tmp_path / "real.sqlite")
    store = SqlStore(sqlite_url(tmp_path))
    await store.check()
    await store.close()
    assert mode(tmp_path / "real.sqlite") == 0o600


@pytest.mark.usefixtures("generous")
async def test_a_file_that_is_there_keeps_its_mode_and_its_records(tmp_path: Path) -> None:
    store = SqlStore(sqlite_url(tmp_path))
    made = await keep(store)
    await store.close()
    (tmp_path / "luban.sqlite").chmod(0o640)
    make_file(str(tmp_path / "luban.sqlite"))
    store = SqlStore(sqlite_url(tmp_path))
    assert await store.get(ANA, made.id) == made
    await store.close()
    assert mode(tmp_path / "luban.sqlite") == 0o640


async def test_a_database_that_is_locked_for_long_is_unavailable_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luban_app.store.engine.STATEMENT_SECONDS", 0.2)
    url = parse_url(f"sqlite:///{tmp_path}/house.sqlite")
    store = SqlStore(url)
    await store.check()
    blocker = open_engine(url)
    with blocker.connect().execution_options(**migrate.LOCKED) as connection, connection.begin():
        with pytest.raises(StoreUnavailableError):
            await keep(store)
        assert (await store.find(ANA, Query())).total == 0
    await keep(store)
    blocker.dispose()
    await store.close()


@pytest.fixture
def own_server() -> Any:
    """A server that a test may stop."""
    with postgres() as server:
        yield server


async def test_connections_come_back_by_themselves(own_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_store, "RETRY_SECONDS", 0.0)
    store = SqlStore(own_server.database())
    made = await keep(store)
    own_server.stop()
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await store.get(ANA, made.id)
    with pytest.raises(StoreUnavailableError):
        await store.check()
    own_server.start()
    await asyncio.gather(*(store.check() for _ in range(8)))
    assert await store.get(ANA, made.id) == made
    await store.close()


async def test_a_server_that_is_away_at_the_start_is_used_once_it_is_there(
    own_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_store, "RETRY_SECONDS", 0.0)
    url = own_server.database()
    own_server.stop()
    store = SqlStore(url, SAMPLES)
    with pytest.raises(StoreUnavailableError):
        await store.check()
    own_server.start()
    assert (await store.find(ANA, Query())).total == len(SAMPLES)
    await store.close()


async def test_a_server_that_no_longer_answers_holds_nobody_up_for_ever(
    own_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_store, "CALL_SECONDS", 0.5)
    store = SqlStore(own_server.database())
    await store.check()
    own_server.freeze()
    started = time.monotonic()
    try:
        lost = await asyncio.gather(*(store.check() for _ in range(10)), return_exceptions=True)
    finally:
        own_server.thaw()
    assert {type(one) for one in lost} == {StoreUnavailableError}
    assert time.monotonic() - started < 5
    monkeypatch.setattr(sql_store, "CALL_SECONDS", 30.0)
    await store.check()
    await store.close()


async def test_a_statement_that_takes_too_long_is_ended(own_server: Postgres) -> None:
    engine = open_engine(own_server.database())
    with engine.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "5s"
    engine.dispose()


async def test_a_database_of_another_encoding_is_refused(postgres_server: Postgres) -> None:  # noqa: F811
    postgres_server.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", "postgres")
    store = SqlStore(postgres_server.database().set(database="latin"))
    with pytest.raises(StoreUnavailableError, match="LATIN1"):
        await store.check()
    await store.close()


async def test_a_database_that_was_emptied_meanwhile_is_made_again(own_server: Postgres) -> None:
    url = own_server.database()
    store = SqlStore(url, SAMPLES)
    await keep(store)
    own_server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public", str(url.database))
    with pytest.raises(StoreUnavailableError):
        await store.check()
    assert (await store.find(ANA, Query())).total == len(SAMPLES)
    await store.close()
