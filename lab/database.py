"""The lab's PostgreSQL: what all VMs share. It stands for the database on the paper's host A.

A server of its own, from Debian's package, as the ordinary user `LAB_USER`, on 127.0.0.1: there QEMU's user-mode
network leads the guests. Whoever is on this machine can reach the port, so it asks for a password (SCRAM).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from lab.hosts import ensure_lab_user
from lab.paths import LAB_USER, Layout
from lab.process import Daemon, LabError, wait_until

FIRST_PORT = 15400
"""Port of the lab with base 0; each base has its own, for they all share one address."""
GUEST_GATEWAY = "10.0.2.2"
"""This machine, as guests on QEMU's user-mode network know it."""
NAME = "luban"
"""Of the database and of its user."""
START_SECONDS = 60.0
_PROGRAMS = Path("/usr/lib/postgresql")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    # A lab may lose its last records when the machine (not the process) dies.
    "synchronous_commit": "off",
    "password_encryption": "scram-sha-256",
}


class Database:
    """PostgreSQL of one lab. Its data stay for the next start; `destroy` of the lab removes them."""

    def __init__(self, layout: Layout) -> None:
        self.daemon = Daemon("postgresql", layout.state)
        self.port = FIRST_PORT + layout.base
        self.data = layout.state / "postgresql" / "data"
        self._secret = layout.state / "postgresql.password"
        self._user = LAB_USER if os.geteuid() == 0 else None

    def url(self, host: str = GUEST_GATEWAY) -> str:
        """What the service's DATABASE_URL says; it holds the password."""
        return f"postgresql://{NAME}:{self._password()}@{host}:{self.port}/{NAME}"

    def up(self) -> None:
        """Make it if it is not there, start it if it does not run; returns when it answers. Raises LabError."""
        if self.daemon.pid():
            return
        programs = _programs()
        ensure_lab_user()
        if not (self.data / "PG_VERSION").exists():
            self._make(programs)
        options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]
        self.daemon.start([*command, "-k", ""], user=self._user, cwd=self.data, env={"HOME": str(self.data)})
        wait_until(lambda: self._answers(programs), what=f"PostgreSQL (log: {self.daemon.log})", timeout=START_SECONDS)

    def down(self) -> None:
        """Stop it; clients are cut off."""
        # SIGTERM would wait for them.
        self.daemon.stop(by=signal.SIGINT)

    def sql(self, statement: str) -> str:
        """Run one statement as its owner; returns what psql prints, without headings. Raises LabError."""
        command = ["psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(self.port), "-U", NAME, "-d", NAME]
        env = {**os.environ, "PGPASSWORD": self._password()}
        done = subprocess.run(
            [*command, "-c", statement], capture_output=True, text=True, env=env, check=False, timeout=30
        )
        if done.returncode != 0:
            raise LabError(f"psql: {done.stderr.strip()}")
        return done.stdout

    def _password(self) -> str:
        if not self._secret.exists():
            self._secret.parent.mkdir(parents=True, exist_ok=True)
            self._secret.touch(mode=0o600)
            self._secret.write_text(secrets.token_urlsafe(24))
        return self._secret.read_text()

    def _make(self, programs: Path) -> None:
        """initdb in a folder of its own, then the one database."""
        shutil.rmtree(self.data.parent, ignore_errors=True)
        self.data.mkdir(parents=True, mode=0o700)
        if self._user:
            for folder in (self.data.parent, self.data):
                shutil.chown(folder, self._user, self._user)
        with tempfile.NamedTemporaryFile("w") as password:
            password.write(self._password())
            password.flush()
            if self._user:
                shutil.chown(password.name, self._user, self._user)
            self._run(
                str(programs / "initdb"), "-D", str(self.data), "-U", NAME, f"--pwfile={password.name}",
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
            )  # fmt: skip
        # In single-user mode: there is no server yet that could be asked.
        self._run(
            str(programs / "postgres"), "--single", "-D", str(self.data), "postgres", stdin=f"CREATE DATABASE {NAME};\n"
        )

    def _run(self, *command: str, stdin: str = "") -> None:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            cwd=self.data,
            env={"HOME": str(self.data), "PATH": os.environ["PATH"]},
        )
        if done.returncode != 0:
            raise LabError(f"{Path(command[0]).name}: {done.stderr.strip() or done.stdout.strip()}")

    def _answers(self, programs: Path) -> bool:
        if self.daemon.pid() is None:
            raise LabError(f"PostgreSQL ended; its log {self.daemon.log} says:\n{self.daemon.tail()}")
        command = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False, timeout=10).returncode == 0


def _programs() -> Path:
    """The newest server's programs. Raises LabError if there is none."""
    found = sorted(_PROGRAMS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise LabError("PostgreSQL is not installed: run `make packages`")
    return found[-1].parent
