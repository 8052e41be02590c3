"""The operator as a process: the working tree's, or that of an earlier commit; and what it takes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.datacentre import ROOT, await_answer
from lab.process import Daemon, LabError

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """A program that runs with the sources below `tree`, in the background."""

    daemon: Daemon
    tree: Path
    command: Sequence[str]
    """What follows `python -m`."""
    kubeconfig: Path
    health: str
    """URL that answers 200 as soon as it works."""

    def start(self) -> None:
        """Start it; returns when it answers."""
        # Not from a folder that holds sources itself: they would come first.
        cwd = self.daemon.state
        env = {"KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": f"{self.tree / 'operator'}:{self.tree}"}
        self._require_its_own_sources(env, cwd)
        self.daemon.start([sys.executable, "-m", *self.command], env=env, cwd=cwd)
        await_answer(self.daemon, self.health)

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far, its threads' included. Raises LabError if it has ended."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mib(self) -> float:
        """Memory that it holds now. Raises LabError if it has ended."""
        line = next(line for line in self._proc("status").splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    def _proc(self, file: str) -> str:
        pid = self.daemon.pid()
        if pid is None:
            raise LabError(f"{self.daemon.name} ended; its log {self.daemon.log} says:\n{self.daemon.tail()}")
        return Path(f"/proc/{pid}/{file}").read_text()

    def _require_its_own_sources(self, env: dict[str, str], cwd: Path) -> None:
        """An installed package must not be measured in the place of another commit's."""
        code = "import luban; print(luban.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **env}, cwd=cwd, capture_output=True, text=True, check=True
        )
        if not Path(done.stdout.strip()).is_relative_to(self.tree):
            raise LabError(f"{self.daemon.name} would run {done.stdout.strip()}, not the sources in {self.tree}")


def unpack(commit: str, folder: Path) -> Path:
    """Operator, CRDs and manifests of an earlier commit, in `folder`. Raises LabError if git does not have it."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "operator", "crds", "manifests"], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise LabError(
            f"commit {commit}, which is measured for comparison, is not here ({done.stderr.decode().strip()}): this "
            "needs a clone with its whole history; in a shallow one, run `git fetch --unshallow`"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder
