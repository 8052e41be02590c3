"""A disk that is full, for one file."""

from __future__ import annotations

from pathlib import Path


def fill_disk(path: Path) -> None:
    """Let every attempt to replace a file in one step fail for want of room."""
    _fresh(path).symlink_to("/dev/full")


def free_disk(path: Path) -> None:
    """Make room again."""
    _fresh(path).unlink()


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")
