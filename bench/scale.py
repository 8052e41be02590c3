"""Processor seconds of one plan that makes 1,000 VMs on 64 hosts, beside the decisions before they were made for it.

The baseline is the code of commit OLD, taken out of this clone, on the same world in the same run. It makes at most 50
VMs in one plan, so its plan is repeated, told each time what it created so far, until all 1,000 are there, and the
seconds of all are added up; so it is with those that leave. Both run in processes of their own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.result import Result, say, spread

OLD = "c8f8b2df508533c1b4ce694edf6fc2f8bb8fd48e"
"""The last commit that looked at all VMs for each that comes or goes."""
ROOT = Path(__file__).resolve().parent.parent
RUNS = 7
GROWTH = (1000, 2000, 4000, 8000)


@dataclass(frozen=True)
class Version:
    """One version of the operator's code."""

    name: str
    folder: Path
    """Where the package `luban` is."""

    def measure(self, case: str, count: int, runs: int = RUNS) -> dict[str, float]:
        """Processor seconds; see bench/support/plans.py."""
        say(f"{self.name}: {case} {count:,}, {runs} times")
        command = [sys.executable, "-m", "bench.support.plans", case, str(count), str(runs)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(self.folder), str(ROOT)))}
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
        found = spread(json.loads(done.stdout))
        say(f"  {found['median']:.4f} s")
        return found


def take_out_old(folder: Path) -> Path:
    """The old operator's code in a folder. Exits with the remedy if this clone does not have the commit."""
    done = subprocess.run(["git", "archive", OLD, "operator"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"commit {OLD}, the baseline, is not in this clone ({done.stderr.decode().strip()}): "
            "run `git fetch --unshallow` in a clone of the repository and try again"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "operator"


def compare(old: Version, new: Version, case: str, count: int, old_runs: int) -> dict[str, Any]:
    """Both versions on one case."""
    before, now = old.measure(case, count, old_runs), new.measure(case, count)
    return {"old": before, "new": now, "ratio": before["median"] / now["median"]}


def main() -> None:
    """Measure and print."""
    new = Version("new", ROOT / "operator")
    with tempfile.TemporaryDirectory(prefix="luban-scale-") as folder:
        old = Version("old", take_out_old(Path(folder)))
        arriving = compare(old, new, "arrivals", 1000, 1)
        detail = {
            "arrivals_1000": arriving,
            "departures_500": compare(old, new, "departures", 1000, 1),
            "rest_1000": compare(old, new, "rest", 1000, 1),
            "rest_10000": compare(old, new, "rest", 10_000, 1),
        }
        growth = {f"arrivals_{count}": new.measure("arrivals", count, 3)["median"] for count in GROWTH}
    value, baseline = arriving["new"]["median"], arriving["old"]["median"]
    Result(
        bench="scale",
        value=value,
        unit="s",
        baseline=f"the code of commit {OLD[:7]}, 50 at a time",
        baseline_value=baseline,
        ratio=baseline / value,
        detail={**detail, "growth": growth},
    ).print()


if __name__ == "__main__":
    main()
