"""Asking the guest: the host's end of the channel that `inside/serve.py` answers."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.process import LabError

SLACK_SECONDS = 10.0
"""How much longer than the program itself the answer may take: the guest is emulated, its host may be busy."""

Line = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A program that ran in the guest."""

    code: int
    stdout: str
    stderr: str


@dataclass
class GuestProcess:
    """A program that runs in the guest."""

    channel: Channel
    pid: int
    name: str
    lines: list[str] = field(default_factory=list)
    """What it has printed (standard output and error together)."""
    code: int | None = None
    """Its exit status, once it has ended."""
    on_line: Line | None = None
    """Called with each line as it comes, in the channel's thread: be quick."""
    ended: threading.Event = field(default_factory=threading.Event)

    def json_lines(self) -> list[Any]:
        """What it has printed so far, one JSON value a line. Raises LabError if it has ended or prints others."""
        lines = list(self.lines)
        if self.ended.is_set():
            raise LabError(f"{self.name} in the guest ended with {self.code}; it said {lines[-5:]}")
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise LabError(f"{self.name} in the guest said {lines[-5:]}") from error

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        self.channel.call("kill", pid=self.pid, signal=int(number))

    def stop(self, *, timeout: float = 10.0) -> int:
        """Ask it to end (SIGTERM), insist after `timeout` seconds; returns its exit status."""
        self.signal(signal.SIGTERM)
        if not self.ended.wait(timeout):
            self.signal(signal.SIGKILL)
        return self.wait(timeout=timeout)

    def wait(self, *, timeout: float) -> int:
        """Its exit status. Raises LabError with its last lines if it has not ended after `timeout` seconds."""
        if not self.ended.wait(timeout) or self.code is None:
            raise LabError(f"{self.name} in the guest did not end in {timeout:g} s; it said {self.lines[-5:]}")
        return self.code


class Channel:
    """Requests to the guest and its answers, over one connected socket. Threads may share it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._write = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._processes: dict[int, GuestProcess] = {}
        self._early: dict[int, list[dict[str, Any]]] = {}
        self._known = threading.Lock()
        self.ready = threading.Event()
        """Set when the guest has booted."""
        self.closed = threading.Event()
        """Set when the guest has gone."""
        self._reader = threading.Thread(target=self._read, name="guest-rpc", daemon=True)
        self._reader.start()

    def call(self, operation: str, *, patience: float = SLACK_SECONDS, **fields: object) -> dict[str, Any]:
        """Send one request; returns the answer. Raises LabError if it fails, or after `patience` seconds."""
        number = next(self._numbers)
        box: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting[number] = box
        try:
            with self._write:
                self._connection.sendall(json.dumps({"id": number, "op": operation, **fields}).encode() + b"\n")
            answer = self._await(box, operation, patience)
        except OSError as error:
            raise LabError(f"the guest has gone ({operation}): {error}") from error
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise LabError(f"{operation} {fields.get('argv', '')} in the guest: {answer['error']}")
        return answer

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        timeout: float = 10.0,
        netns: str | None = None,
        user: int | None = None,
    ) -> Finished:
        """Run a program in the guest to its end. Raises LabError if it takes longer than `timeout` seconds."""
        request = {"argv": list(argv), "stdin": stdin, "netns": netns, "user": user, "timeout": timeout}
        answer = self.call("run", patience=timeout + SLACK_SECONDS, **request)
        return Finished(answer["code"], answer["stdout"], answer["stderr"])

    def spawn(
        self,
        argv: Sequence[str],
        *,
        netns: str | None = None,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Line | None = None,
    ) -> GuestProcess:
        """Start a program in the guest; its lines come as it prints them."""
        answer = self.call("spawn", argv=list(argv), netns=netns, user=user, env=dict(env or {}))
        process = GuestProcess(self, answer["pid"], " ".join(argv), on_line=on_line)
        with self._known:
            self._processes[process.pid] = process
            early = self._early.pop(process.pid, [])
        for message in early:
            _tell(process, message)
        return process

    def put(self, path: str, content: bytes, *, mode: int = 0o644, user: int = 0) -> None:
        """Write a file in the guest (below /run or /tmp, the rest is read-only)."""
        self.call("put", path=path, content=base64.b64encode(content).decode(), mode=mode, user=user)

    def clock(self) -> tuple[float, float, float]:
        """One look at the guest's CLOCK_MONOTONIC: ours before, the guest's, ours after; all in seconds."""
        before = time.monotonic()
        answer = self.call("clock")
        return before, answer["at"] / 1e9, time.monotonic()

    def close(self) -> None:
        """Hang up: the guest ends."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(timeout=5)
        self._connection.close()

    def _await(self, box: queue.SimpleQueue[dict[str, Any]], operation: str, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return box.get(timeout=min(1.0, max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                if self.closed.is_set():
                    raise LabError(f"the guest has gone ({operation})") from None
                if time.monotonic() >= deadline:
                    raise LabError(f"the guest does not answer ({operation}, {timeout:g} s)") from None

    def _read(self) -> None:
        try:
            for line in self._connection.makefile("rb"):
                self._take(json.loads(line))
        except (OSError, ValueError):
            pass
        self.closed.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.ready.set()
        elif box := self._waiting.get(message.get("id", 0)):
            box.put(message)
        elif "id" not in message:
            with self._known:
                process = self._processes.get(message["pid"])
                if process is None:
                    # Its first line can overtake the answer that tells its pid.
                    self._early.setdefault(message["pid"], []).append(message)
                    return
            _tell(process, message)


def _tell(process: GuestProcess, message: dict[str, Any]) -> None:
    if "code" in message:
        process.code = message["code"]
        process.ended.set()
        return
    process.lines.append(message["line"])
    if process.on_line is not None:
        process.on_line(message["line"])
