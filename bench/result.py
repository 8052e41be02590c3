"""The one line that every benchmark prints."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Result:
    """A figure beside its baseline, both measured in the same run."""

    bench: str
    value: float
    unit: str
    baseline: str
    baseline_value: float | None
    ratio: float | None
    detail: dict[str, Any] = field(default_factory=dict)

    def print(self) -> None:
        """Write the line."""
        sys.stdout.write(json.dumps(asdict(self)) + "\n")
        sys.stdout.flush()


def spread(values: list[float]) -> dict[str, float]:
    """Least, median and greatest of several runs."""
    return {"min": min(values), "median": median(values), "max": max(values), "runs": len(values)}


def say(text: str) -> None:
    """Progress, on standard error: standard output is for the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
