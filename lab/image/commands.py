"""Running the programs that the build is made of."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.process import LabError

LAST_LINES = 15
LINE_LENGTH = 300


def run(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program to its end and return its standard output.

    Raises LabError with the last lines of what it said if it fails, or if it is not installed.
    """
    try:
        done = subprocess.run(
            list(command), cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]}: not installed") from error
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()[-LAST_LINES:]
        said = "\n".join(line[:LINE_LENGTH] for line in lines)
        raise LabError(f"{command[0]} failed with status {done.returncode}:\n{said}")
    return done.stdout
