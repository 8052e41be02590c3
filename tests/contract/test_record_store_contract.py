"""What records.RecordStore promises, held by SQLite and by a real PostgreSQL."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luban_app.house import records as interface
from luban_app.house.records import (
    Draft,
    DraftConflictError,
    DraftEndedError,
    Home,
    Query,
    Record,
    RecordNotFoundError,
    RecordStore,
    SampleRecord,
    Scores,
    StoreFullError,
    TooManyRecordsError,
    UnnamedDraftError,
)
from luban_app.store import record_statements, sql_store
from luban_app.store.engine import parse_url
from luban_app.store.sql_store import SqlStore
from tests.contract.database_implementations import Database, database, postgres_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.contract

ANA, BEN = "a" * 22, "b" * 22
HOME = Home("Garden flat", "12 Elm Road", "South side\nquiet")
ANSWERS = {"pylon": "none", "light": "fair"}
SCORES = Scores(outside=70.5, building=None, inside=100 / 3, total=51.25)
THEN = datetime(2026, 1, 1, tzinfo=UTC)


def sample(number: int, name: str, also: str = "") -> SampleRecord:
    record = Record(f"sample-{number}", "", Home(name), ANSWERS, Scores(inside=50.0, total=50.0), THEN, THEN)
    return SampleRecord(record, also)


SAMPLES = (sample(1, "範例甲", "Sample flat one"), sample(2, "範例乙", "Sample flat two"))


class Clock:
    """Time that passes one second from one call to the next."""

    def __init__(self) -> None:
        self.time = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


Opener = Callable[..., SqlStore]


@pytest.fixture
async def opened(database: Database) -> AsyncIterator[Opener]:  # noqa: F811
    """Opens stores on the same database, as several VMs do."""
    stores = []

    def another(samples: tuple[SampleRecord, ...] = (), now: Callable[[], datetime] | None = None) -> SqlStore:
        stores.append(SqlStore(database.url, samples, now or Clock()))
        return stores[-1]

    yield another
    for one in stores:
        await one.close()


@pytest.fixture
def store(opened: Opener) -> SqlStore:
    return opened()


async def keep(store: RecordStore, owner: str = ANA, name: str = "Home", **scores: float) -> Record:
    return await store.create(owner, Home(name), ANSWERS, Scores(**scores))


def names(found: interface.Found) -> list[str]:
    return [record.home.name for record in found.records]


def test_the_interface_is_kept(store: SqlStore) -> None:
    kept: RecordStore = store
    assert kept is store


# Records.


async def test_a_record_comes_back_as_it_was_kept(store: SqlStore) -> None:
    made = await store.create(ANA, HOME, ANSWERS, SCORES)
    assert (made.home, made.answers, made.scores, made.owner) == (HOME, ANSWERS, SCORES, ANA)
    assert made.created == made.updated
    assert made.created.utcoffset() == timedelta(0)
    assert await store.get(ANA, made.id) == made


async def test_any_text_is_kept_as_it_is(store: SqlStore) -> None:
    home = Home("𠮷野家 👩‍👩‍👧 '; DROP TABLE records; --", "<script>alert(1)</script>", "%_\\\t\n\u202e{}:x $1 %s")
    made = await store.create(ANA, home, {"a'b\"": "％"}, Scores())
    assert (await store.get(ANA, made.id)).home == home
    assert (await store.get(ANA, made.id)).answers == {"a'b\"": "％"}


async def test_ids_cannot_be_guessed(store: SqlStore) -> None:
    ids = {(await keep(store)).id for _ in range(20)}
    assert len(ids) == 20
    assert all(len(one) >= 16 and one.replace("-", "").replace("_", "").isalnum() for one in ids)


async def test_an_update_replaces_all_but_the_beginning(store: SqlStore) -> None:
    made = await store.create(ANA, HOME, ANSWERS, SCORES)
    changed = await store.update(ANA, made.id, Home("New"), {}, Scores(total=1.0))
    assert changed == await store.get(ANA, made.id)
    assert changed == Record(made.id, ANA, Home("New"), {}, Scores(total=1.0), made.created, changed.updated)
    assert changed.updated > made.updated
    assert names(await store.find(ANA, Query(text="garden"))) == []
    assert names(await store.find(ANA, Query(text="NEW"))) == ["New"]


async def test_a_deleted_record_is_gone(store: SqlStore) -> None:
    made = await keep(store)
    await store.delete(ANA, made.id)
    with pytest.raises(RecordNotFoundError):
        await store.get(ANA, made.id)
    with pytest.raises(RecordNotFoundError):
        await store.delete(ANA, made.id)


@pytest.mark.parametrize("record", ["", "nothing", "a\0b", "%", "' OR 1=1 --", "x" * 5000, "家"])
async def test_what_is_not_there_is_not_found(store: SqlStore, record: str) -> None:
    with pytest.raises(RecordNotFoundError):
        await store.get(ANA, record)
    with pytest.raises(RecordNotFoundError):
        await store.update(ANA, record, HOME, {}, SCORES)
    with pytest.raises(RecordNotFoundError):
        await store.delete(ANA, record)


async def test_nobody_sees_or_changes_somebody_elses(store: SqlStore) -> None:
    hers = await keep(store, ANA)
    for intruder in (BEN, "", ANA.upper()):
        with pytest.raises(RecordNotFoundError):
            await store.get(intruder, hers.id)
        with pytest.raises(RecordNotFoundError):
            await store.update(intruder, hers.id, HOME, {}, SCORES)
        with pytest.raises(RecordNotFoundError):
            await store.delete(intruder, hers.id)
        assert (await store.find(intruder, Query())).total == 0
    assert await store.get(ANA, hers.id) == hers


async def test_an_owner_has_so_many_records_and_no_more(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_statements, "MAX_RECORDS_PER_OWNER", 3)
    kept = [await keep(store) for _ in range(3)]
    with pytest.raises(TooManyRecordsError, match="3"):
        await keep(store)
    await keep(store, BEN)
    await store.delete(ANA, kept[0].id)
    await keep(store)
    assert (await store.find(ANA, Query())).total == 3


# Samples.


async def test_everybody_sees_the_samples_and_nobody_changes_them(opened: Opener) -> None:
    store = opened(SAMPLES)
    for owner in (ANA, BEN):
        assert set(names(await store.find(owner, Query()))) == {"範例甲", "範例乙"}
        assert (await store.get(owner, "sample-1")).sample
    for owner in (ANA, ""):
        with pytest.raises(RecordNotFoundError):
            await store.update(owner, "sample-1", HOME, {}, SCORES)
        with pytest.raises(RecordNotFoundError):
            await store.delete(owner, "sample-1")
    assert (await store.get(ANA, "sample-1")).home.name == "範例甲"


async def test_samples_are_found_by_the_words_of_the_other_language(opened: Opener) -> None:
    store = opened(SAMPLES)
    assert names(await store.find(ANA, Query(text="FLAT two"))) == ["範例乙"]


async def test_the_samples_are_those_of_the_program_that_started_last(opened: Opener) -> None:
    await opened(SAMPLES).check()
    await opened(SAMPLES).check()
    newer = opened((sample(2, "改名"), sample(3, "範例丙")))
    assert set(names(await newer.find(ANA, Query()))) == {"改名", "範例丙"}


# Lists.


async def test_a_search_takes_any_case_and_any_width(store: SqlStore) -> None:
    await store.create(ANA, Home("Café MÜNCHEN", "臺北市大安區", "頂樓ＡＢＣ Straße"), {}, Scores())
    for part in ("café m", "CAFÉ", "münchen", "大安", "abc", "ＡＢＣ", "ａｂｃ", "STRASSE", "樓abc"):
        assert (await store.find(ANA, Query(text=part))).total == 1, part
    for part in ("cafe", "台北", "安大"):
        assert (await store.find(ANA, Query(text=part))).total == 0, part


@pytest.mark.parametrize("wild", ["%", "_", "\\", "100%", "a_c", "\\%", "[a-z]", "*"])
async def test_wildcards_stand_for_themselves(store: SqlStore, wild: str) -> None:
    await keep(store, name="abc 1000")
    await keep(store, name=f"has {wild} in it")
    assert names(await store.find(ANA, Query(text=wild))) == [f"has {wild} in it"]


async def test_each_sort_key_orders_both_ways_with_none_last(store: SqlStore) -> None:
    for key in ("outside", "building", "inside", "total"):
        owner = key * 2
        for name, value in (("low", 1.0), ("none", None), ("high", 99.5), ("zero", 0.0)):
            await store.create(owner, Home(name), {}, replace(Scores(), **{key: value}))
        down = await store.find(owner, Query(sort=key, descending=True))  # type: ignore[arg-type]
        up = await store.find(owner, Query(sort=key, descending=False))  # type: ignore[arg-type]
        assert names(down) == ["high", "low", "zero", "none"]
        assert names(up) == ["zero", "low", "high", "none"]


async def test_names_sort_without_case_and_alike_on_every_database(store: SqlStore) -> None:
    for name in ("beta", "Alpha", "家", "alps", "Ｂat", "10", "9"):
        await keep(store, name=name)
    found = await store.find(ANA, Query(sort="name", descending=False))
    assert names(found) == ["10", "9", "Alpha", "alps", "Ｂat", "beta", "家"]


async def test_the_newest_come_first(store: SqlStore) -> None:
    first = await keep(store, name="first")
    await keep(store, name="second")
    await store.update(ANA, first.id, Home("first again"), {}, Scores())
    assert names(await store.find(ANA, Query())) == ["first again", "second"]


async def test_pages_cover_everything_once_even_among_equals(store: SqlStore) -> None:
    made = {(await keep(store, total=1.0)).id for _ in range(7)}
    pages = [await store.find(ANA, Query(sort="total", page=number, size=3)) for number in (1, 2, 3)]
    assert [len(page.records) for page in pages] == [3, 3, 1]
    assert {(page.total, page.pages) for page in pages} == {(7, 3)}
    assert {record.id for page in pages for record in page.records} == made


async def test_a_page_that_is_no_more_is_the_last_one(store: SqlStore) -> None:
    for _ in range(3):
        await keep(store)
    found = await store.find(ANA, Query(page=99, size=2))
    assert (found.page, found.pages, len(found.records)) == (2, 2, 1)
    empty = await store.find(BEN, Query(page=5))
    assert (empty.page, empty.pages, empty.total, empty.records) == (1, 1, 0, ())


# Drafts.


def judged(answers: Mapping[str, str]) -> Scores:
    """Scores that show which answers they are of."""
    return Scores(total=float(len(answers)), catalogue="v1")


async def test_a_draft_is_kept_for_its_session_until_it_is_dropped(store: SqlStore) -> None:
    assert await store.draft(ANA) is None
    draft = Draft(Home("", "somewhere"), {"pylon": "none"}, "a-record", "d1")
    await store.begin_draft(ANA, draft)
    assert await store.draft(ANA) == draft
    assert await store.draft(BEN) is None
    await store.drop_draft(ANA, "another")
    await store.drop_draft(BEN, "d1")
    assert await store.draft(ANA) == draft
    await store.drop_draft(ANA, "d1")
    await store.drop_draft(ANA, "d1")
    assert await store.draft(ANA) is None


async def test_a_form_grows_part_by_part(store: SqlStore) -> None:
    await store.begin_draft(ANA, Draft(Home("", "12 Elm Road"), id="d1", step="home"))
    await store.save_answers(ANA, "d1", {"pylon", "road"}, {"pylon": "none", "road": "calm"}, "outside")
    await store.save_answers(ANA, "d1", {"light"}, {"light": "fair"}, "inside")
    grown = await store.save_answers(ANA, "d1", {"pylon", "road"}, {"road": "loud"}, "building")
    assert grown == Draft(Home("", "12 Elm Road"), {"road": "loud", "light": "fair"}, "", "d1", "building")
    named = replace(grown, home=Home("Garden flat", "12 Elm Road"), step="outside")
    assert await store.save_home(ANA, "d1", {"name": "Garden flat"}, "outside") == named
    assert await store.draft(ANA) == named


async def test_a_window_with_another_form_changes_nothing(store: SqlStore) -> None:
    await store.begin_draft(ANA, Draft(HOME, id="d1"))
    with pytest.raises(DraftConflictError):
        await store.begin_draft(ANA, Draft(HOME, id="d1"))
    with pytest.raises(DraftConflictError):
        await store.save_home(ANA, "d2", {"name": "other"}, "home")
    with pytest.raises(DraftConflictError):
        await store.save_answers(ANA, "d2", {"pylon"}, {"pylon": "none"}, "outside")
    with pytest.raises(DraftConflictError):
        await store.finish(ANA, "d2", judged)
    with pytest.raises(DraftConflictError):
        await store.finish(BEN, "d1", judged)
    assert await store.draft(ANA) == Draft(HOME, id="d1")
    assert await store.draft(BEN) is None
    assert (await store.find(ANA, Query())).total == 0


async def test_nothing_is_taken_for_a_form_that_is_not_open(store: SqlStore) -> None:
    await store.begin_draft(ANA, Draft(HOME, id="d1"))
    await store.drop_draft(ANA, "d1")
    for draft in ("d1", "d2", ""):
        with pytest.raises(DraftConflictError):
            await store.save_answers(ANA, draft, {"pylon"}, {"pylon": "none"}, "outside")
        with pytest.raises(DraftConflictError):
            await store.save_home(ANA, draft, {"name": "x"}, "home")
    assert await store.draft(ANA) is None


async def test_a_form_takes_anothers_place_only_if_it_is_the_one_that_was_asked_about(store: SqlStore) -> None:
    await store.begin_draft(ANA, Draft(HOME, id="d1"))
    for expected in (None, "", "d0"):
        with pytest.raises(DraftConflictError):
            await store.begin_draft(ANA, Draft(HOME, id="d2"), instead_of=expected)
    await store.begin_draft(ANA, Draft(HOME, id="d2"), instead_of="d1")
    assert await store.draft(ANA) == Draft(HOME, id="d2")
    with pytest.raises(DraftConflictError):
        await store.begin_draft(BEN, Draft(HOME, id="d3"), instead_of="d1")


async def test_a_finished_form_is_a_record_and_says_so(store: SqlStore) -> None:
    await store.begin_draft(ANA, Draft(HOME, ANSWERS, id="d1"))
    made = await store.finish(ANA, "d1", judged)
    assert (made.home, made.answers, made.scores) == (HOME, ANSWERS, judged(ANSWERS))
    assert made == await store.get(ANA, made.id)
    assert await store.draft(ANA) is None
    for again in (
        store.finish(ANA, "d1", judged),
        store.begin_draft(ANA, Draft(HOME, id="d1")),
        store.save_home(ANA, "d1", {"name": "x"}, "home"),
        store.save_answers(ANA, "d1", {"pylon"}, {}, "outside"),
    ):
        with pytest.raises(DraftEndedError) as ended:
            await again
        assert ended.value.record == made
    assert (await store.find(ANA, Query())).total == 1
    with pytest.raises(DraftConflictError):
        await store.finish(BEN, "d1", judged)


async def test_an_edited_record_is_changed_and_made_anew_if_it_is_gone(store: SqlStore) -> None:
    made = await store.create(ANA, HOME, ANSWERS, SCORES)
    await store.begin_draft(ANA, Draft(Home("Changed"), {}, made.id, "d1"))
    changed = await store.finish(ANA, "d1", judged)
    assert (changed.id, changed.home.name, changed.created) == (made.id, "Changed", made.created)
    await store.begin_draft(ANA, Draft(Home("Again"), ANSWERS, made.id, "d2"))
    await store.delete(ANA, made.id)
    anew = await store.finish(ANA, "d2", judged)
    assert anew.id != made.id
    assert names(await store.find(ANA, Query())) == ["Again"]


async def test_nobody_edits_somebody_elses_record_by_a_form(store: SqlStore) -> None:
    hers = await keep(store, ANA)
    await store.begin_draft(BEN, Draft(Home("Mine"), {}, hers.id, "d1"))
    his = await store.finish(BEN, "d1", judged)
    assert his.id != hers.id
    assert await store.get(ANA, hers.id) == hers


async def test_a_form_without_a_name_stays_open(store: SqlStore) -> None:
    await store.begin_draft(ANA, Draft(Home(""), id="d1"))
    with pytest.raises(UnnamedDraftError):
        await store.finish(ANA, "d1", judged)
    assert await store.draft(ANA) == Draft(Home(""), id="d1")


async def test_a_form_that_finds_no_room_stays_open(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_statements, "MAX_RECORDS_PER_OWNER", 1)
    full = await keep(store)
    await store.begin_draft(ANA, Draft(HOME, id="d1"))
    with pytest.raises(TooManyRecordsError):
        await store.finish(ANA, "d1", judged)
    await store.delete(ANA, full.id)
    assert (await store.finish(ANA, "d1", judged)).home == HOME


async def test_a_draft_that_nobody_touched_for_a_month_is_forgotten(opened: Opener) -> None:
    before = datetime(2026, 1, 1, tzinfo=UTC)
    old = opened(now=lambda: before)
    await old.begin_draft(ANA, Draft(HOME, id="d1"))
    later = opened(now=lambda: before + timedelta(days=29))
    await later.begin_draft(BEN, Draft(HOME, id="d2"))
    assert await later.draft(ANA) is not None
    await later.prune()
    assert await later.draft(ANA) is not None
    last = opened(now=lambda: before + timedelta(days=31))
    await last.prune()
    assert await last.draft(ANA) is None
    assert await last.draft(BEN) is not None


async def test_several_windows_at_once_lose_no_answer(opened: Opener) -> None:
    stores = [opened(), opened()]
    await stores[0].begin_draft(ANA, Draft(HOME, id="d1"))
    parts = [f"indicator-{number}" for number in range(12)]
    await asyncio.gather(
        *(
            stores[number % 2].save_answers(ANA, "d1", {part}, {part: "yes"}, "inside")
            for number, part in enumerate(parts)
        )
    )
    draft = await stores[0].draft(ANA)
    assert draft is not None
    assert draft.answers == dict.fromkeys(parts, "yes")


async def test_a_form_that_is_finished_twice_at_once_is_one_record(opened: Opener) -> None:
    stores = [opened(), opened()]
    await stores[0].begin_draft(ANA, Draft(HOME, id="d1"))
    found = await asyncio.gather(*(store.finish(ANA, "d1", judged) for store in stores * 3), return_exceptions=True)
    made = [one for one in found if isinstance(one, Record)]
    assert len(made) == 1
    assert [one.record for one in found if isinstance(one, DraftEndedError)] == made * 5
    assert (await stores[0].find(ANA, Query())).total == 1


async def test_forms_that_begin_at_once_are_one(opened: Opener) -> None:
    stores = [opened(), opened()]
    found = await asyncio.gather(
        *(stores[number % 2].begin_draft(ANA, Draft(HOME, id=f"d{number}")) for number in range(6)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in found) == ["DraftConflictError"] * 5 + ["NoneType"]


# How many there may be, and for how long.


async def test_no_more_than_so_many_of_an_owner_even_at_once(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_statements, "MAX_RECORDS_PER_OWNER", 3)
    stores = [opened(), opened()]
    found = await asyncio.gather(*(keep(stores[number % 2]) for number in range(10)), return_exceptions=True)
    assert [type(one).__name__ for one in found].count("TooManyRecordsError") == 7
    assert (await stores[0].find(ANA, Query())).total == 3


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
async def test_no_more_than_so_many_of_all_owners_together(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(sql_store, "MAX_RECORDS", len(SAMPLES) + 3)
    monkeypatch.setattr(sql_store, "COUNT_SECONDS", seconds)
    store = opened(SAMPLES)
    made = await keep(store, "owner1")
    await keep(store, "owner2")
    await store.begin_draft(ANA, Draft(HOME, id="d1"))
    with pytest.raises(StoreFullError):
        await keep(store, "owner3")
    with pytest.raises(StoreFullError):
        await store.begin_draft(BEN, Draft(HOME, id="d2"))
    assert await store.draft(BEN) is None
    await store.update("owner1", made.id, Home("still works"), {}, Scores())
    await store.begin_draft("owner1", Draft(HOME, {}, made.id, "d3"))
    await store.begin_draft("owner1", Draft(HOME, {}, made.id, "d4"), instead_of="d3")
    assert (await store.finish("owner1", "d4", judged)).id == made.id
    assert (await store.finish(ANA, "d1", judged)).home == HOME
    await store.delete("owner1", made.id)
    monkeypatch.setattr(sql_store, "COUNT_SECONDS", 0.0)
    await keep(store, "owner3")


async def test_what_is_refused_takes_no_room(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_store, "MAX_RECORDS", 5)
    monkeypatch.setattr(record_statements, "MAX_RECORDS_PER_OWNER", 2)
    store = opened()
    for _ in range(2):
        await keep(store)
    for _ in range(10):
        with pytest.raises(TooManyRecordsError):
            await keep(store)
    await store.begin_draft(ANA, Draft(HOME, id="d1"))
    for _ in range(10):
        with pytest.raises(DraftConflictError):
            await store.begin_draft(ANA, Draft(HOME, id="d2"))
    await keep(store, BEN)
    await keep(store, BEN)
    with pytest.raises(StoreFullError):
        await keep(store, "third")


async def test_records_that_nobody_can_reach_any_more_are_forgotten(opened: Opener) -> None:
    before = datetime(2026, 1, 1, tzinfo=UTC)
    old = opened(SAMPLES, now=lambda: before)
    for owner in (ANA, BEN, "changed"):
        await keep(old, owner)
    changed = (await old.find("changed", Query(text="home"))).records[0]
    later = opened(SAMPLES, now=lambda: before + timedelta(days=interface.KEEP_DAYS - 1))
    await later.touch(BEN)
    await later.touch("")
    await later.update("changed", changed.id, HOME, {}, Scores())
    await later.prune()
    assert (await later.find(ANA, Query())).total == len(SAMPLES) + 1
    last = opened(SAMPLES, now=lambda: before + timedelta(days=interface.KEEP_DAYS + 1))
    await last.prune()
    totals = {owner: (await last.find(owner, Query())).total - len(SAMPLES) for owner in (ANA, BEN, "changed")}
    assert totals == {ANA: 0, BEN: 1, "changed": 1}


async def test_a_service_that_runs_for_long_forgets_too(opened: Opener) -> None:
    days = [0]
    store = opened(SAMPLES, now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days[0]))
    await keep(store)
    await store.begin_draft(BEN, Draft(HOME, id="d1"))
    days[0] = interface.KEEP_DAYS + 1
    await store.prune()
    assert (await store.find(ANA, Query())).total == len(SAMPLES)
    assert await store.draft(BEN) is None


async def test_many_windows_that_renew_while_scores_are_made_again(opened: Opener) -> None:
    stores = [opened(), opened()]
    for _ in range(40):
        await keep(stores[0])
    await asyncio.gather(
        *(stores[number % 2].touch(ANA) for number in range(20)),
        *(stores[number % 2].rescore(f"v{number}", judged) for number in range(6)),
    )
    last = await stores[0].rescore("last", judged)
    assert last == max(record.id for record in (await stores[1].find(ANA, Query(size=40))).records)


# When the catalogue has changed.


async def test_scores_by_an_older_catalogue_are_made_again(opened: Opener) -> None:
    store = opened(SAMPLES)
    for number in range(5):
        await store.create(f"owner{number}", HOME, ANSWERS, Scores(total=99.0, catalogue="v0"))
    new = await store.create(ANA, HOME, {}, Scores(total=7.0, catalogue="v1"))
    last: str | None = ""
    batches = []
    while last is not None:
        batches.append(last)
        last = await store.rescore("v1", judged, last, most=2)
    assert batches == sorted(set(batches))
    assert len(batches) == 4
    assert await store.rescore("v1", judged) is None
    for number in range(5):
        record = (await store.find(f"owner{number}", Query(text="garden"))).records[0]
        assert record.scores == judged(ANSWERS)
        assert record.updated == record.created
    assert await store.get(ANA, new.id) == new
    assert (await store.get(ANA, "sample-1")).scores == SAMPLES[0].record.scores


# Shared by several VMs.


async def test_the_secret_is_made_once_whoever_asks_first(opened: Opener) -> None:
    stores = [opened() for _ in range(6)]
    found = await asyncio.gather(*(store.secret() for store in stores))
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert await opened().secret() == found[0]


async def test_what_one_vm_keeps_the_other_finds(opened: Opener) -> None:
    one, other = opened(), opened()
    made = await keep(one, name="shared")
    assert await other.get(ANA, made.id) == made
    await other.delete(ANA, made.id)
    assert (await one.find(ANA, Query())).total == 0


async def test_many_requests_at_once(opened: Opener) -> None:
    stores = [opened(), opened()]
    await asyncio.gather(*(keep(stores[number % 2], f"owner{number % 5}") for number in range(100)))
    totals = [(await stores[0].find(f"owner{number}", Query())).total for number in range(5)]
    assert totals == [20] * 5


def _start(url: str, barrier: Any, results: Any) -> None:
    """What a VM does when it starts; runs in a process of its own."""

    async def run() -> None:
        store = SqlStore(parse_url(url), SAMPLES)
        found = await store.find(ANA, Query())
        results.put((found.total, (await store.secret()).hex()))
        await store.close()

    barrier.wait(60)
    try:
        asyncio.run(run())
    except Exception as error:  # noqa: BLE001 - the test shows it
        results.put(repr(error))


def test_vms_that_start_at_once_migrate_once(database: Database) -> None:  # noqa: F811
    count = 4
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    url = database.url.render_as_string(hide_password=False)
    starting = [context.Process(target=_start, args=(url, barrier, results)) for _ in range(count)]
    for process in starting:
        process.start()
    found = [results.get(timeout=120) for _ in range(count)]
    for process in starting:
        process.join(60)
    assert len(set(found)) == 1, found
    assert found[0][0] == len(SAMPLES)
