"""docs/papers.md leads to what is there: each file, each function in it, and each field of the resources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luban.api.reference import PAGES

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "papers.md").read_text()
LUBAN = ROOT / "operator" / "luban"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and line.count("|") == 4
]
PLACE = re.compile(r"`([a-z_]+/[A-Za-z_0-9/.-]+)`(?: \(((?:`[A-Za-z_]+`(?:, )?)+)\))?")


def places() -> list[tuple[str, str]]:
    """Files, each with a name that stands in it, or without."""
    found = [(match[1], re.findall(r"`(\w+)`", match[2] or "")) for row in ROWS for match in PLACE.finditer(row[2])]
    return [(path, name) for path, names in found for name in names or [""]]


@pytest.mark.parametrize(("path", "name"), sorted(set(places())))
def test_what_it_names_is_there(path: str, name: str) -> None:
    known = [folder / path for folder in (LUBAN, ROOT) if (folder / path).exists()]
    assert known, f"{path} is not there"
    assert not name or re.search(rf"\b(def|class) {name}\b", known[0].read_text()), f"{name} is not in {path}"


@pytest.mark.parametrize("field", sorted({it for row in ROWS for it in re.findall(r"`([a-zA-Z.\[\]]+)`", row[1])}))
def test_each_field_is_in_the_reference(field: str) -> None:
    last = field.rpartition(".")[2].removesuffix("[]")
    assert re.search(rf"\b{re.escape(last)}\b", PAGES["api.md"]()), f"{field} is no field"


def test_the_rows_are_read() -> None:
    assert len(ROWS) > 30
    assert len(places()) > 30
