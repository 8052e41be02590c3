"""Pages of docs/ that are generated."""

from __future__ import annotations

from pathlib import Path

import pytest

from luban.api.reference import PAGES, keep

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run: make crds"


def test_stale_and_missing_pages_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one.md", tmp_path / "two.md"
    pages = {"one.md": lambda: "1\n", "two.md": lambda: "2\n"}
    assert keep(pages, ["--check", str(one), str(two)]) == 1
    assert keep(pages, [str(one), str(two)]) == 0
    assert keep(pages, ["--check", str(one), str(two)]) == 0
    two.write_text("3\n")
    capsys.readouterr()
    assert keep(pages, ["--check", str(one), str(two)]) == 1
    assert capsys.readouterr().err == f"{two} is not what the code says: run `make crds`\n"


def test_bounds_stand_in_the_reference() -> None:
    page = PAGES["api.md"]()
    assert "| `spec.scaling.maxVMs` | integer, 1 to 1000 | `6` |" in page
    assert "* interval must be a duration from 1s to 24h" in page
