"""Daemons of the lab: started detached, recorded by pid, stopped by pid and never by name."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05


class LabError(Exception):
    """Something in the lab did not come up or go down; the message names it and where its log is."""


def wait_until(condition: Callable[[], bool], *, what: str, timeout: float) -> None:
    """Poll `condition` until it holds. Raises LabError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not there after {timeout:g} s")
        time.sleep(POLL_SECONDS)


def running(state: Path) -> list[str]:
    """Names of the daemons of a lab that run."""
    names = sorted(record.stem for record in (state / "run").glob("*.json"))
    return [name for name in names if Daemon(name, state).pid() is not None]


def require_free(address: str, *ports: int) -> None:
    """Raises LabError, with the remedy, if another program (most likely another lab) listens there."""
    for port in ports:
        with socket.socket() as ours:
            # As servers do: connections that only linger are in nobody's way.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                ours.bind((address, port))
            except OSError as error:
                raise LabError(
                    f"{address}:{port}: {error.strerror}. Another lab? Choose a block of addresses of your own: "
                    "LUBAN_LAB_BASE=N, N from 1 to 250 (16 unless set)"
                ) from error


def _start_ticks(pid: int) -> str | None:
    """Start time of a process in clock ticks: tells a process from a later one with the same pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


@dataclass(frozen=True)
class Daemon:
    """One background program of the lab: pid in `<state>/run/<name>.json`, output in `<state>/log/<name>.log`."""

    name: str
    state: Path

    @property
    def record(self) -> Path:
        """File with pid and start time."""
        return self.state / "run" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """File with standard output and error of all its starts."""
        return self.state / "log" / f"{self.name}.log"

    def pid(self) -> int | None:
        """Its pid if it runs, else None."""
        try:
            record = json.loads(self.record.read_text())
        except FileNotFoundError:
            return None
        pid = int(record["pid"])
        start = _start_ticks(pid)
        return pid if start is not None and start == record["start"] else None

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> int:
        """Start it unless it runs already; returns its pid. `env` is added to ours. `user` needs root."""
        if running := self.pid():
            return running
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                start_new_session=True,
            )
        # It is followed by its pid from here on; without this, Popen complains that nobody waited for it.
        process.returncode = 0
        self.record.write_text(json.dumps({"pid": process.pid, "start": _start_ticks(process.pid)}))
        return process.pid

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to it, if it runs."""
        if pid := self.pid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, *, timeout: float = 15.0, by: signal.Signals = signal.SIGTERM) -> bool:
        """Ask it to end (`by`), insist after `timeout` seconds (SIGKILL), forget it.

        Returns whether it ended when it was asked.
        """
        self.kill(by)
        deadline = time.monotonic() + timeout
        while self.pid() is not None and time.monotonic() < deadline:
            self._reap()
            time.sleep(POLL_SECONDS)
        obeyed = self.pid() is None
        self.kill(signal.SIGKILL)
        self._reap()
        self.record.unlink(missing_ok=True)
        return obeyed

    def _reap(self) -> None:
        """Collect it if it was our child, so that no zombie keeps the pid."""
        try:
            pid = int(json.loads(self.record.read_text())["pid"])
            os.waitpid(pid, os.WNOHANG)
        except (FileNotFoundError, ChildProcessError):
            pass

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log, for error messages."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"
