"""What the service does with its database besides answering: prepare it, prune it, score by today's catalogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from structlog.testing import capture_logs

from luban_app.house import assembly
from luban_app.house.assembly import HouseApp, Settings
from luban_app.house.records import Home, Query, Scores, StoreUnavailableError
from luban_app.store.engine import sqlite_url
from luban_app.store.sql_store import SqlStore

ANA = "a" * 22
ANSWERS = {"pylon": "near"}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HouseApp:
    monkeypatch.setattr(assembly, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(assembly, "MAINTENANCE_SECONDS", 0.01)
    return assembly.build("vm-1", Settings(sqlite_url(tmp_path)))


async def old_record(made: HouseApp) -> str:
    """A record that another catalogue scored."""
    record = await made.store.create(ANA, Home("Old"), ANSWERS, Scores(total=99.0, catalogue="before"))
    return record.id


async def scored_by_today(made: HouseApp) -> None:
    """Return when what is kept has today's scores."""
    deadline = time.monotonic() + 20
    while (await made.store.find(ANA, Query(text="old"))).records[0].scores != made.house.scores(ANSWERS):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_records_of_another_catalogue_are_scored_again_at_the_start(made: HouseApp) -> None:
    await old_record(made)
    async with made.lifespan(Starlette()):
        await scored_by_today(made)


async def until(calls: list[object], number: int) -> None:
    """Return after so many calls."""
    deadline = time.monotonic() + 20
    while len(calls) < number:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception, int], list[object]]:
    """Lets a method of the store fail at first; its calls."""

    def fail(method: str, error: Exception, times: int) -> list[object]:
        calls: list[object] = []
        really = getattr(SqlStore, method)

        async def sometimes(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) <= times:
                raise error
            return await really(*arguments)

        monkeypatch.setattr(SqlStore, method, sometimes)
        return calls

    return fail


def levels(logs: Iterable[Mapping[str, Any]]) -> list[str]:
    """How grave what was told of it is."""
    return [line["log_level"] for line in logs if "put in order" in line["event"]]


async def test_scores_wait_for_a_database_that_is_away(
    made: HouseApp, fails: Callable[[str, Exception, int], list[object]]
) -> None:
    await old_record(made)
    fails("rescore", StoreUnavailableError("away"), 2)
    with capture_logs() as logs:
        async with made.lifespan(Starlette()):
            await scored_by_today(made)
    assert levels(logs) == ["warning"] * 2


async def test_other_trouble_is_told_and_what_comes_next_is_done(
    made: HouseApp, fails: Callable[[str, Exception, int], list[object]]
) -> None:
    scoring, pruning = fails("rescore", RuntimeError("broken"), 9), fails("prune", RuntimeError("broken"), 2)
    # Captured: for people at a terminal, structlog draws tracebacks that take seconds.
    with capture_logs() as logs:
        async with made.lifespan(Starlette()):
            await until(pruning, 4)
    assert levels(logs) == ["error"] * 3
    assert len(scoring) == 1


async def test_scores_are_made_again_once_and_what_is_old_is_forgotten_again_and_again(
    made: HouseApp, fails: Callable[[str, Exception, int], list[object]]
) -> None:
    scoring, pruning = fails("rescore", RuntimeError(), 0), fails("prune", RuntimeError(), 0)
    async with made.lifespan(Starlette()):
        await until(pruning, 5)
    assert len(scoring) == 1
