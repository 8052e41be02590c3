"""What the service does with its database besides answering: prepare it, prune it, score by today's catalogue."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from structlog.testing import capture_logs

from luban_app import house_app
from luban_app.house_app import HouseApp, Settings
from luban_app.records import Home, Query, Scores, StoreUnavailableError
from luban_app.store import SqlStore
from luban_app.store_engine import sqlite_url

ANA = "a" * 22
ANSWERS = {"pylon": "near"}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HouseApp:
    monkeypatch.setattr(house_app, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(house_app, "TEND_SECONDS", 0.01)
    return house_app.build("vm-1", Settings(sqlite_url(tmp_path)))


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


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), RuntimeError("broken")])
async def test_trouble_is_told_and_does_not_end_it(
    made: HouseApp, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    await old_record(made)
    tried = []
    really = SqlStore.prune

    async def sometimes(store: Any) -> None:
        tried.append(store)
        if len(tried) < 3:
            raise error
        await really(store)

    monkeypatch.setattr(SqlStore, "prune", sometimes)
    # Captured: for people at a terminal, structlog draws tracebacks that take seconds.
    with capture_logs() as logs:
        async with made.lifespan(Starlette()):
            await scored_by_today(made)
    assert [line["log_level"] for line in logs if "put in order" in line["event"]] == [
        "warning" if isinstance(error, StoreUnavailableError) else "error"
    ] * 2
    assert len(tried) >= 3


async def test_it_goes_on_for_as_long_as_the_service_runs(made: HouseApp) -> None:
    async with made.lifespan(Starlette()):
        await old_record(made)
        await scored_by_today(made)
