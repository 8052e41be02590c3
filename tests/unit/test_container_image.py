"""The Dockerfile, as far as it can be judged without building it."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def let_in(path: str) -> bool:
    """Whether .dockerignore lets a path into the build: the last line that matches it or a folder above decides."""
    allowed = True
    above = [str(Path(*Path(path).parts[:depth])) for depth in range(1, len(Path(path).parts) + 1)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not pattern.startswith("#") and any(matches(pattern, one) for one in above):
            allowed = line.startswith("!")
    return allowed


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern of .dockerignore means just this path; a * stops at slashes, **/ does not."""
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(Path(path).name, pattern.removeprefix("**/"))
    return "/" not in path and fnmatch.fnmatchcase(path, pattern)


def copied() -> list[str]:
    """What the Dockerfile copies from the tree; [t] at the end of a name: it need not be there."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [name.replace("[t]", "t") for line in lines for name in line.split()]


def test_what_is_copied_is_there_and_let_in() -> None:
    assert {"setup.py", "pyproject.toml", "operator"} <= set(copied())
    for name in copied():
        assert (ROOT / name).exists(), name
        assert let_in(name), f"{name} is kept out by .dockerignore"


def test_nothing_else_is_let_in() -> None:
    assert let_in("operator/luban/adapters/apache_httpd/slot_names.c")
    assert let_in("operator/luban/__init__.py")
    for name in (
        ".git",
        "tests",
        "app",
        "demo-output",
        "a.kubeconfig",
        "operator/luban/adapters/apache_httpd/_slot_names.x.so",
        "operator/luban/__pycache__/x.pyc",
        "operator/x.egg-info/PKG-INFO",
    ):
        assert not let_in(name), name


def test_every_file_that_the_package_is_built_from_is_copied() -> None:
    sources = re.findall(r'"([\w/]+\.c)"', (ROOT / "setup.py").read_text())
    assert sources
    assert all(any(source.startswith(f"{name}/") for name in copied()) for source in sources)
