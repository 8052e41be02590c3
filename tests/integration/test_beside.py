"""Groups of tests beside each other: no failure is lost, and none hides another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lab.beside import GROUPS, run_beside
from tests.fakes.httpd_harness import until

pytestmark = pytest.mark.integration
GOOD = "def test_good():\n    pass\n"
BAD = "def test_bad():\n    assert 1 == 2, 'what failed'\n"
LONG = """
import pathlib, time
here = pathlib.Path(__file__).parent

def test_long():
    try:
        (here / "begun").touch()
        time.sleep(60)
    finally:
        print("x" * 10_000_000)
        (here / "ended").touch()
"""
ALONE = ("-p", "no:cacheprovider", "-c", "/dev/null")


def written(folder: Path, **texts: str) -> dict[str, str]:
    """Test files by name, with their paths."""
    paths = {name: folder / f"test_{name}.py" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)
    return {name: str(path) for name, path in paths.items()}


async def test_all_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, one=GOOD, two=GOOD)
    assert await run_beside({"a": [[path["one"]]], "b": [[path["two"]]]}, ALONE) == 0
    said = capsys.readouterr().out
    assert said.count("1 passed") == 2
    assert said.count("passed in") >= 2


async def test_a_failure_fails_all_and_hides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, one=BAD, two=GOOD, three=GOOD)
    assert await run_beside({"a": [[path["one"]], [path["two"]]], "b": [[path["three"]]]}, ALONE) == 1
    said = capsys.readouterr().out
    assert "what failed" in said
    assert "FAILED (pytest ended with 1)" in said
    assert said.count("1 passed") == 2


async def test_what_is_ended_stops_all_that_it_started(tmp_path: Path) -> None:
    """Also one that has much to say at its end."""
    path = written(tmp_path, long=LONG)
    run = asyncio.ensure_future(run_beside({"a": [[path["long"]]]}, ALONE))

    async def begun() -> bool:
        return (tmp_path / "begun").exists()

    await until(begun, "it runs", 60.0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (tmp_path / "ended").exists()


async def test_no_tests_is_a_failure(tmp_path: Path) -> None:
    assert await run_beside({"a": [[str(tmp_path)]]}, ALONE) == 1


def test_each_test_is_in_one_group() -> None:
    runs = [run for group in GROUPS.values() for run in group]
    ignored = {it.removeprefix("--ignore=") for run in runs for it in run if it.startswith("--ignore=")}
    named = {it for run in runs for it in run if not it.startswith("--")} - {"tests"}
    assert named == ignored
    assert all(Path(it).exists() for it in named)
