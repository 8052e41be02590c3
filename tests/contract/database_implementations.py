"""The databases that records are kept in: a SQLite file, and a PostgreSQL server of the test run's own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import URL

from luban_app.store.engine import parse_url, sqlite_url

ORDINARY_USER = "daemon"
"""PostgreSQL refuses to run as root."""
PATIENCE = 60.0
"""Seconds in which the server has to start or to stop."""
ROLE = "luban"


def programs() -> Path:
    """Where Debian's package has the newest server. Raises LookupError if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise LookupError("no PostgreSQL: apt-get install postgresql")
    return found[-1].parent


class Postgres:
    """A server that listens on a private Unix socket alone, where everybody who reaches it is trusted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._user = ORDINARY_USER if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        folder.chmod(0o700)
        if self._user:
            shutil.chown(folder, self._user, self._user)

    def initialize(self) -> None:
        options = ["--auth=trust", f"--username={ROLE}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        command = [str(programs() / "initdb"), "-D", str(self.folder / "data"), *options]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self._identity())

    def _identity(self) -> dict[str, object]:
        return {"user": self._user, "group": self._user, "extra_groups": []} if self._user else {}

    def start(self) -> None:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "fsync": "off"}
        arguments = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(programs() / "postgres"), "-D", str(self.folder / "data"), *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._identity(),
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.run("SELECT 1", "postgres")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it at once, whoever is connected (a "fast shutdown")."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE)
            self._process = None

    def reload(self) -> None:
        """Have it read its access rules again; returns when it has."""
        assert self._process is not None
        before = self.run("SELECT pg_conf_load_time()", "postgres")
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if self.run("SELECT pg_conf_load_time()", "postgres") != before:
                    return
            except psycopg.OperationalError:
                # The new rules leave us out.
                return
            time.sleep(0.05)
        raise TimeoutError("PostgreSQL does not read its settings again")

    def freeze(self) -> None:
        """Let nobody work any more without anybody being told: stop the server and all that serve its clients."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in [self._process.pid, *map(int, children)]:
            os.kill(pid, number)

    def run(self, statement: str, database: str) -> list[tuple[object, ...]]:
        """One statement, committed at once; its rows, if it has any."""
        with psycopg.connect(
            host=str(self.folder), user=ROLE, dbname=database, autocommit=True, connect_timeout=5
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self) -> URL:
        """A new, empty database."""
        name = f"house{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}", "postgres")
        return parse_url(f"postgresql://{ROLE}@/{name}?host={self.folder}")


@contextmanager
def postgres() -> Iterator[Postgres]:
    # A path of its own in /tmp: a socket's path may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="luban-pg-") as folder:
        server = Postgres(Path(folder))
        server.initialize()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@dataclass(frozen=True)
class Database:
    """One kind of database, empty."""

    kind: str
    url: URL


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return Database("sqlite", sqlite_url(tmp_path))
    server: Postgres = request.getfixturevalue("postgres_server")
    return Database("postgresql", server.database())
