"""Real server processes, as several VMs run them: one database between them, lost and found again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.contract.database_implementations import Postgres, postgres

pytestmark = pytest.mark.integration

APP = Path(__file__).parents[2] / "app"
PATIENCE = 60.0
ROOT = "/api/v1"
HOME = {"name": "Garden flat", "answers": {"pylon": "none"}}


class Server:
    """A process that serves, and all that it said."""

    def __init__(self, vm: str, log: Path, *options: str, **environment: str) -> None:
        self.log = log
        # Not this process's own environment: DATABASE_URL might be set in it.
        kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "LUBAN_DATA_DIR"}}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "luban_app", "--port", "0", *options],
                cwd=APP,
                env={**kept, "LUBAN_VM": vm, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: self._port() is not None or self.process.poll() is not None, "server listens")
        assert self.process.poll() is None, self.said()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self._port()}", timeout=30)

    def said(self) -> str:
        return self.log.read_text()

    def _port(self) -> int | None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said())
        return int(found[1]) if found else None

    def status(self, path: str) -> int:
        return self.client.get(path).status_code

    def end(self) -> int:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.05)


@pytest.fixture
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@contextmanager
def serving(*servers: Server) -> Iterator[None]:
    try:
        yield
    finally:
        codes = [server.end() for server in servers]
    assert codes == [0] * len(servers)
    for server in servers:
        assert "Traceback" not in server.said()
        assert all(json.loads(line) for line in server.said().splitlines())


def ready(server: Server) -> bool:
    return server.status("/readyz") == 200


def test_two_vms_share_records_and_sessions(database: Postgres, tmp_path: Path) -> None:
    url = database.database().render_as_string(hide_password=False)
    one, two = (Server(vm, tmp_path / vm, DATABASE_URL=url) for vm in ("vm-1", "vm-2"))
    with serving(one, two):
        wait_for(lambda: ready(one) and ready(two), "both are ready")
        made = one.client.post(f"{ROOT}/records", json=HOME)
        assert (made.status_code, made.headers["X-Luban-VM"]) == (201, "vm-1")
        two.client.cookies.update(one.client.cookies)
        path = made.headers["location"]
        read = two.client.get(path)
        assert (read.json(), read.headers["X-Luban-VM"]) == (made.json(), "vm-2")
        assert "set-cookie" not in read.headers, "the cookie that the other VM signed is known here"
        assert two.client.delete(path).status_code == 204
        assert one.status(path) == 404
    assert sum("migrating the database" in server.said() for server in (one, two)) == 1


def test_a_lost_database_makes_a_vm_unready_and_never_dead(database: Postgres, tmp_path: Path) -> None:
    url = database.database()
    database.stop()
    server = Server("vm-1", tmp_path / "log", "--database-url", url.set(password="hunter2").render_as_string(False))
    with serving(server):
        for _ in range(2):
            wait_for(lambda: server.status("/readyz") == 503, "not ready")
            assert server.status("/healthz") == 200
            lost = server.client.get(f"{ROOT}/records")
            assert (lost.status_code, lost.headers["content-type"]) == (503, "application/problem+json")
            page = server.client.get("/records")
            assert page.status_code == 503
            assert "OperationalError" not in page.text
            database.start()
            wait_for(lambda: ready(server), "ready again")
            assert server.status("/records") == 200
            assert server.client.post(f"{ROOT}/records", json=HOME).status_code == 201
            database.stop()
        database.start()
    assert "hunter2" not in server.said()


def test_sqlite_survives_the_process(tmp_path: Path) -> None:
    paths = []
    for vm in ("first", "second"):
        server = Server(vm, tmp_path / vm, "--data-dir", str(tmp_path / "data"), "--ruler-length", "43.2")
        with serving(server):
            wait_for(lambda server=server: ready(server), "ready")  # type: ignore[misc]
            assert server.client.get(f"{ROOT}/ruler?cm=88").json()["length"] == "43.2"
            if paths:
                server.client.cookies.update(paths[0][1])
                assert server.status(paths[0][0]) == 200
            made = server.client.post(f"{ROOT}/records", json=HOME)
            paths.append((made.headers["location"], dict(server.client.cookies)))


@pytest.mark.parametrize(
    "options",
    [
        ("--database-url", "mysql://luban:hunter2@db/house"),
        ("--database-url", "postgresql://luban:hunter2@db:port/house"),
        ("--ruler-length", "12"),
        ("--ruler-length", "long"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "luban_app", "--port", "0", *options],
        cwd=APP,
        env={**os.environ, "LUBAN_VM": "vm-1", "LUBAN_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not (tmp_path / "data").exists()
    assert done.returncode == 1
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "hunter2" not in done.stderr + done.stdout
