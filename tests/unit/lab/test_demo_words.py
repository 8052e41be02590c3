"""What the demo says before, after, and when it is interrupted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from lab.datacentre import DataCentre
from lab.demo import __main__ as demo
from lab.demo.view import View
from lab.process import LabError


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of a lab that does nothing."""
    made: list[str] = []
    monkeypatch.setenv("LUBAN_LAB_DIR", str(tmp_path / "labs"))
    monkeypatch.setattr(DataCentre, "up", lambda _self: made.append("up"))
    monkeypatch.setattr(DataCentre, "destroy", lambda _self: made.append("destroy"))
    return made


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    said = io.StringIO()
    monkeypatch.setattr(demo, "console", Console(file=said, highlight=False))
    result = CliRunner().invoke(demo.main, ["--base", "40", *arguments])
    result.said = said.getvalue()  # type: ignore[attr-defined]
    return result


def said(result: Result) -> list[str]:
    return str(result.said).splitlines()  # type: ignore[attr-defined]


def told(kept: bool) -> Any:
    async def tell(*_: object) -> bool:
        return kept

    return tell


@pytest.mark.parametrize("kept", [True, False])
def test_it_says_first_what_it_shows_how_long_and_that_ctrl_c_is_safe(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr(demo, "tell", told(kept))
    result = run(monkeypatch)
    (first,) = said(result)
    assert "2.5 to 4 minutes" in first
    assert "Ctrl-C is safe" in first
    assert (result.exit_code, calls) == (0 if kept else 1, ["destroy", "up", "destroy"])


@pytest.mark.parametrize("keep", [True, False])
def test_ctrl_c_cleans_up_and_is_one_sentence(calls: list[str], monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    monkeypatch.setattr(DataCentre, "up", interrupt)
    result = run(monkeypatch, *(["--keep"] if keep else []))
    assert result.exit_code == 130
    assert "Aborted" not in result.output
    what = "what was up stays up" if keep else "everything is stopped and removed"
    assert said(result)[1:] == [f"interrupted: {what}"]
    assert calls == ["destroy"] * (1 if keep else 2)


def test_ctrl_c_while_it_cleans_up_says_who_removes_the_rest(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "show", lambda *_: 0)
    monkeypatch.setattr(DataCentre, "destroy", interrupt)
    result = run(monkeypatch)
    assert result.exit_code == 130
    assert said(result)[1:] == ["interrupted while cleaning up: `make clean` removes the rest"]


def test_it_cleans_up_after_a_failure_and_after_a_fault(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: DataCentre) -> None:
        raise LabError("no etcd")

    monkeypatch.setattr(DataCentre, "up", fails)
    result = run(monkeypatch)
    assert (result.exit_code, said(result)[1:]) == (1, ["error no etcd"])
    monkeypatch.setattr(demo, "show", lambda *_: 1 / 0)
    assert isinstance(run(monkeypatch).exception, ZeroDivisionError)
    assert calls == ["destroy"] * 3


def test_lines_without_a_terminal_have_a_legend() -> None:
    out = io.StringIO()
    view: Any = object.__new__(View)
    view.console = Console(file=out)
    view.print_legend()
    assert "each VM with its phase and its sessions  |  the last decision" in out.getvalue()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
