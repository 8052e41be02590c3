"""Seconds since the epoch to RFC 3339 and back. Pure: nothing here reads a clock."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(seconds: float) -> str:
    """Kubernetes' form of a time, in UTC with microseconds: 2026-01-31T12:00:00.250000Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds_of(text: str) -> float:
    """Inverse of `rfc3339`; reads times without a fraction too. Raises ValueError on anything else."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
