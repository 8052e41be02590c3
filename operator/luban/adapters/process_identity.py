"""Who this process is, so that its successor on the same machine knows whether it still runs.

<host name>_<boot>.<PID namespace>.<PID>.<start>: the last four together belong to one process alone, ever.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

_PROC = Path("/proc")
_IDENTITY = re.compile(r".*_(?P<place>[0-9a-f-]+\.[0-9]+)\.(?P<pid>[0-9]+)\.(?P<start>[0-9]+)")
_ENDED = frozenset("ZX")
"""States of a process that has ended and that nobody has asked after yet."""


def own_identity(proc: Path = _PROC) -> str:
    """Of this process. Raises OSError where /proc is not Linux'."""
    state = _state(proc, os.getpid())
    assert state is not None
    return f"{socket.gethostname()}_{_place(proc)}.{os.getpid()}.{state[1]}"


def has_ended(identity: str, proc: Path = _PROC) -> bool:
    """Whether the process of an identity is known to have ended. Of another machine or container nothing is known."""
    found = _IDENTITY.fullmatch(identity)
    if found is None or found["place"] != _place(proc):
        return False
    state = _state(proc, int(found["pid"]))
    if state is None:
        return not _exists(int(found["pid"]))
    return state[0] in _ENDED or state[1] != found["start"]


def _exists(pid: int) -> bool:
    """Whether there is such a process, even if /proc hides those of others (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _place(proc: Path) -> str:
    """This machine since its last start, and in it this namespace of PIDs."""
    boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}.{(proc / 'self/ns/pid').stat().st_ino}"


def _state(proc: Path, pid: int) -> tuple[str, str] | None:
    """A process's state and when it was started; None: there is none."""
    try:
        # The name of the program is in brackets and may hold anything.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], fields[19]
