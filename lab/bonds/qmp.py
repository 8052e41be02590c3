"""QEMU's monitor: commands out, answers in, events put aside. QMP is one JSON object a line over a socket."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass
from typing import Any

from lab.process import LabError

TIMEOUT = 15.0
"""Seconds that QEMU may take to answer a command; most take a millisecond, but its start is slower."""


@dataclass(frozen=True)
class Greeting:
    """QEMU's first line."""

    version: str
    """like 7.2.22"""


@dataclass(frozen=True)
class Answer:
    """The outcome of a command."""

    number: int | None
    result: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that QEMU tells of itself."""

    name: str
    data: dict[str, Any]


def parse(line: bytes) -> Greeting | Answer | Event:
    """What one line of QMP says. Raises ValueError for a line that is none of its kinds."""
    message = json.loads(line)
    match message:
        case {"QMP": {"version": {"qemu": {"major": major, "minor": minor, "micro": micro}}}}:
            return Greeting(f"{major}.{minor}.{micro}")
        case {"return": result}:
            return Answer(message.get("id"), result)
        case {"error": {"class": kind, "desc": text}}:
            return Answer(message.get("id"), error=f"{kind}: {text}")
        case {"event": str(name)}:
            return Event(name, message.get("data", {}))
    raise ValueError(f"not QMP: {line[:200]!r}")


class Monitor:
    """Commands to one QEMU over a connected socket, one at a time; threads may share it."""

    def __init__(self, connection: socket.socket) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._connection = connection
        self._connection.settimeout(TIMEOUT)
        self._lines = connection.makefile("rb")
        self.events: list[Event] = []
        """Events seen so far; they are read together with answers."""

    def open(self) -> str:
        """Take QEMU's greeting and leave negotiation mode; returns QEMU's version. Raises LabError."""
        greeting = self._read()
        if not isinstance(greeting, Greeting):
            raise LabError(f"QEMU did not greet but said {greeting}")
        self.execute("qmp_capabilities")
        return greeting.version

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command; returns its result. Raises LabError with QEMU's words, or if it does not answer."""
        with self._lock:
            self._number += 1
            request = {"execute": command, "arguments": arguments, "id": self._number}
            try:
                self._connection.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise LabError(f"QEMU has gone ({command}): {error}") from error
            answer = self._answer(self._number)
        if answer.error is not None:
            raise LabError(f"QEMU refuses {command}: {answer.error}")
        return answer.result

    def human(self, line: str) -> str:
        """Run a command of QEMU's monitor for people, for what QMP lacks; returns what it prints."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        """Close the socket."""
        self._lines.close()
        self._connection.close()

    def _answer(self, number: int) -> Answer:
        while True:
            message = self._read()
            # The answer to a command that we gave up on earlier may still come.
            if isinstance(message, Answer) and message.number in (number, None):
                return message

    def _read(self) -> Greeting | Answer | Event:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise LabError(f"QEMU does not answer: {error}") from error
        if not line:
            raise LabError("QEMU has ended")
        message = parse(line)
        if isinstance(message, Event):
            self.events.append(message)
        return message
