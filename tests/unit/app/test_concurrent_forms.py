"""The evaluation form in several windows of one browser, and sent twice: nothing is overwritten, nothing vanishes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from luban_app.catalogue import LANGUAGES, catalogue
from luban_app.frame.routes import create_app
from luban_app.house import assembly
from luban_app.house.assembly import HouseApp, Settings
from luban_app.house.records import Draft, Query
from luban_app.house.records import Home as HomeTexts
from luban_app.store import sql_store
from luban_app.store.engine import sqlite_url
from luban_app.web.language import words
from tests.fakes.forms import hidden_of

HOME = "/evaluate/home"
LAST = f"/evaluate/{catalogue().parts[-1].id}"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[HouseApp]:
    made = assembly.build("vm-1", Settings(sqlite_url(tmp_path)))
    await made.store.prepare()
    yield made
    await made.store.close()


@pytest.fixture
async def browser(made: HouseApp) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app("vm-1", extension=made.extension)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://vm", headers={"Accept-Language": "en"}
    ) as client:
        yield client


class Window:
    """One window: it sends the page that it shows, whatever has happened in the others."""

    def __init__(self, browser: httpx.AsyncClient) -> None:
        self._browser = browser
        self.page = ""
        self.hidden: dict[str, str] = {}

    async def show(self, address: str) -> Window:
        answer = await self._browser.get(address)
        assert answer.status_code == 200, answer.text
        self.page, self.hidden = answer.text, hidden_of(answer.text)
        return self

    async def send(self, address: str, /, **fields: str) -> httpx.Response:
        return await self._browser.post(address, data={**self.hidden, "go": "next", **fields})

    async def fill(self, address: str, /, **fields: str) -> str:
        """Show a page and send it; where it leads."""
        answer = await (await self.show(address)).send(address, **fields)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]


async def a_record(browser: httpx.AsyncClient, name: str, **answers: str) -> str:
    """The address of a record made through the form."""
    window = Window(browser)
    await window.fill(HOME, name=name)
    location = ""
    for part in catalogue().parts:
        mine = {it.id: answers[it.id] for it in part.indicators if it.id in answers}
        location = await window.fill(f"/evaluate/{part.id}", **mine)
    return location


async def names(made: HouseApp, browser: httpx.AsyncClient) -> list[str]:
    owner = browser.cookies["luban_session"].split(".")[0]
    found = await made.house.find(owner, Query(sort="name", descending=False))
    return [record.home.name for record in found.records if not record.sample]


def refused(answer: httpx.Response, key: str, **parts: str) -> None:
    """409, and the page says why and keeps what was typed."""
    assert answer.status_code == 409
    assert f"<title>{words()['errors.in-title']['en']}" in answer.text
    assert words()[key]["en"].format(**parts).split(":")[0] in answer.text


async def test_two_windows_fill_different_parts_of_one_form(browser: httpx.AsyncClient, made: HouseApp) -> None:
    one, other = Window(browser), Window(browser)
    await one.fill(HOME, name="Together")
    await one.show("/evaluate/outside")
    await other.show("/evaluate/inside")
    answers = await asyncio.gather(
        one.send("/evaluate/outside", noise="busy", go="later"), other.send("/evaluate/inside", damp="dry", go="later")
    )
    assert [answer.status_code for answer in answers] == [303, 303]
    owner = browser.cookies["luban_session"].split(".")[0]
    draft = await made.house.draft(owner)
    assert draft is not None
    assert draft.answers == {"noise": "busy", "damp": "dry"}


async def test_a_window_with_an_older_form_overwrites_nothing(browser: httpx.AsyncClient, made: HouseApp) -> None:
    first, second = await a_record(browser, "First", noise="busy"), await a_record(browser, "Second", noise="quiet")
    old = Window(browser)
    await Window(browser).show(first)
    await browser.post(f"{first}/edit", data=hidden_of((await browser.get(first)).text))
    await old.show("/evaluate/outside")
    asked = await browser.post(f"{second}/edit", data=hidden_of((await browser.get(second)).text))
    await browser.post(f"{second}/edit", data={**hidden_of(asked.text), "sure": "yes"})
    answer = await old.send("/evaluate/outside", noise="loud", pylon="none")
    refused(answer, "problem.replaced", name="Second")
    assert 'href="/evaluate"' in answer.text
    assert re.search('name="noise" value="loud" checked', answer.text), "what was chosen is still shown"
    home = await old.send(HOME, name="Overwritten")
    refused(home, "problem.replaced", name="Second")
    assert 'value="Overwritten"' in home.text
    assert (await old.send(LAST)).status_code == 409
    assert await names(made, browser) == ["First", "Second"]


async def test_a_form_that_was_thrown_away_takes_no_answers(browser: httpx.AsyncClient, made: HouseApp) -> None:
    old, other = Window(browser), Window(browser)
    await old.fill(HOME, name="Thrown away")
    await old.show("/evaluate/outside")
    await other.fill("/evaluate/discard", sure="yes")
    answer = await old.send("/evaluate/outside", noise="busy")
    refused(answer, "problem.discarded")
    assert f'href="{HOME}"' in answer.text
    await other.fill(HOME, name="The next")
    refused(await old.send("/evaluate/outside", noise="busy"), "problem.replaced", name="The next")


async def test_what_another_window_began_is_not_thrown_away(browser: httpx.AsyncClient, made: HouseApp) -> None:
    old, other = Window(browser), Window(browser)
    await other.fill(HOME, name="One")
    await old.show("/evaluate/discard")
    await other.fill("/evaluate/discard", sure="yes")
    await other.fill(HOME, name="Two")
    await old.send("/evaluate/discard", sure="yes")
    assert "Two" in (await browser.get("/")).text


@pytest.mark.parametrize("together", [False, True])
async def test_finish_pressed_twice_makes_one_record(
    browser: httpx.AsyncClient, made: HouseApp, together: bool
) -> None:
    window = Window(browser)
    await window.fill(HOME, name="Once")
    await window.show(LAST)
    if together:
        sent = await asyncio.gather(*(window.send(LAST, damp="dry") for _ in range(3)))
    else:
        sent = [await window.send(LAST, damp="dry") for _ in range(3)]
    assert {answer.status_code for answer in sent} == {303}
    assert len({answer.headers["location"] for answer in sent}) == 1
    assert await names(made, browser) == ["Once"]


async def test_the_first_step_sent_twice_begins_one_form(browser: httpx.AsyncClient, made: HouseApp) -> None:
    window = await Window(browser).show(HOME)
    sent = await asyncio.gather(*(window.send(HOME, name="Once") for _ in range(3)))
    assert [answer.headers.get("location") for answer in sent] == ["/evaluate/outside"] * 3


async def test_other_answers_to_a_finished_form_are_refused_and_shown(
    browser: httpx.AsyncClient, made: HouseApp
) -> None:
    old = Window(browser)
    await old.fill(HOME, name="Done")
    await old.show(LAST)
    location = (await old.send(LAST, damp="dry")).headers["location"]
    answer = await old.send(LAST, damp="leaking")
    refused(answer, "problem.ended", name="Done")
    assert f'href="{location}"' in answer.text
    assert re.search('name="damp" value="leaking" checked', answer.text)
    home = await old.send(HOME, name="Renamed")
    refused(home, "problem.ended", name="Done")
    assert (await old.send(HOME, name="Done")).headers["location"] == location
    assert await names(made, browser) == ["Done"]


async def test_two_windows_that_edit_two_records_are_asked_about_what_is_open(browser: httpx.AsyncClient) -> None:
    records = [await a_record(browser, name) for name in ("One", "Two", "Three")]
    await browser.post(f"{records[0]}/edit", data=hidden_of((await browser.get(records[0])).text))
    asked = await Window(browser).show(f"{records[1]}/edit")
    assert "One" in asked.page
    other = await Window(browser).show(f"{records[2]}/edit")
    assert (await other.send(f"{records[2]}/edit", sure="yes")).headers["location"] == HOME
    again = await asked.send(f"{records[1]}/edit", sure="yes")
    assert again.status_code == 200
    assert "Three" in again.text
    assert hidden_of(again.text)["draft"] != asked.hidden["draft"]


@pytest.mark.parametrize("draft", ["<b>", "x" * 41, "\x00", "家"])
async def test_an_id_that_no_page_of_ours_has_is_refused(browser: httpx.AsyncClient, draft: str) -> None:
    window = await Window(browser).show(HOME)
    assert (await window.send(HOME, name="x", draft=draft)).status_code == 400
    await window.fill(HOME, name="mine")
    assert (await window.send("/evaluate/outside", noise="busy", draft=draft)).status_code == 400


async def test_a_full_service_begins_no_form_and_finishes_those_that_are_begun(
    browser: httpx.AsyncClient, made: HouseApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Window(browser)
    await begun.fill(HOME, name="Begun before")
    monkeypatch.setattr(sql_store, "MAX_RECORDS", 0)
    monkeypatch.setattr(sql_store, "COUNT_SECONDS", 0.0)
    assert (await begun.fill(LAST, damp="dry")).startswith("/records/")
    answer = await (await Window(browser).show(HOME)).send(HOME, name="Patient")
    assert answer.status_code == 503
    assert words()["problem.store-full"]["en"] in answer.text
    assert 'value="Patient"' in answer.text
    assert words()["conflict.title"]["en"] in answer.text
    assert int(answer.headers["retry-after"]) > 3600
    sent = await browser.post("/api/v1/records", json={"name": "x", "answers": {}})
    assert (sent.status_code, sent.json()["code"]) == (503, "store-full")
    assert int(sent.headers["retry-after"]) > 3600
    monkeypatch.undo()
    again = await browser.post(HOME, data={**hidden_of(answer.text), "name": "Patient", "go": "next"})
    assert again.headers["location"] == "/evaluate/outside"
    assert await names(made, browser) == ["Begun before"]


async def test_a_full_service_lets_records_be_edited(
    browser: httpx.AsyncClient, made: HouseApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await a_record(browser, "Kept")
    monkeypatch.setattr(sql_store, "MAX_RECORDS", 0)
    answer = await browser.post(f"{record}/edit", data=hidden_of((await browser.get(record)).text))
    assert answer.headers["location"] == HOME
    assert await Window(browser).fill(LAST, damp="dry") == record


async def test_finish_pressed_twice_after_another_window_changed_the_step(browser: httpx.AsyncClient) -> None:
    one, other = Window(browser), Window(browser)
    await one.fill(HOME, name="Once")
    await one.show(LAST)
    await other.fill(LAST, damp="dry", go="later")
    first, second = [await one.send(LAST, desk="side") for _ in range(2)]
    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]


async def test_the_first_page_sent_again_takes_a_text_back(browser: httpx.AsyncClient, made: HouseApp) -> None:
    window = await Window(browser).show(HOME)
    await window.send(HOME, name="Home", address="secret road")
    await window.send(HOME, name="Home", address="")
    assert (await draft_of(made, browser)).home == HomeTexts("Home")


async def draft_of(made: HouseApp, browser: httpx.AsyncClient) -> Draft:
    draft = await made.house.draft(browser.cookies["luban_session"].split(".")[0])
    assert draft is not None
    return draft


async def test_two_windows_on_one_step_keep_what_each_of_them_changed(
    browser: httpx.AsyncClient, made: HouseApp
) -> None:
    one, other = Window(browser), Window(browser)
    await one.fill(HOME, name="Home", address="12 Elm Road")
    await one.fill("/evaluate/outside", pylon="near", noise="busy")
    await one.show("/evaluate/outside")
    await other.show("/evaluate/outside")
    await one.send("/evaluate/outside", pylon="none", noise="busy", temple="facing")
    # This window still shows pylon near and temple open: it changes the noise alone.
    await other.send("/evaluate/outside", pylon="near", noise="quiet")
    assert (await draft_of(made, browser)).answers == {"pylon": "none", "noise": "quiet", "temple": "facing"}
    await one.show(HOME)
    await other.show(HOME)
    await one.send(HOME, name="New name", address="12 Elm Road", notes="")
    await other.send(HOME, name="Home", address="12 Elm Road", notes="two\r\nlines")
    assert (await draft_of(made, browser)).home == HomeTexts("New name", "12 Elm Road", "two\nlines")


async def test_an_answer_is_taken_back_only_by_the_window_that_showed_it(
    browser: httpx.AsyncClient, made: HouseApp
) -> None:
    one, other = Window(browser), Window(browser)
    await one.fill(HOME, name="Home")
    await other.show("/evaluate/outside")
    await one.fill("/evaluate/outside", noise="busy")
    await other.send("/evaluate/outside", noise="")
    assert (await draft_of(made, browser)).answers == {"noise": "busy"}
    await (await other.show("/evaluate/outside")).send("/evaluate/outside", noise="")
    assert (await draft_of(made, browser)).answers == {}


async def test_a_wrong_answer_leaves_the_good_one_before_it(browser: httpx.AsyncClient, made: HouseApp) -> None:
    window = Window(browser)
    await window.fill(HOME, name="Home")
    await window.fill("/evaluate/outside", noise="busy")
    answer = await (await window.show("/evaluate/outside")).send("/evaluate/outside", noise="gone", pylon="near")
    assert answer.status_code == 422
    assert (await draft_of(made, browser)).answers == {"noise": "busy", "pylon": "near"}
    shown = sorted(hidden_of(answer.text)["was"].split())
    assert shown == ["noise:busy", "pylon:near"]


async def test_the_first_page_of_an_ended_edit_begins_nothing(browser: httpx.AsyncClient, made: HouseApp) -> None:
    record = await a_record(browser, "Edited", noise="busy")
    for end in ("discard", "finish"):
        await browser.post(f"{record}/edit", data=hidden_of((await browser.get(record)).text))
        old = await Window(browser).show(HOME)
        assert "new" not in old.hidden
        if end == "discard":
            await Window(browser).fill("/evaluate/discard", sure="yes")
        else:
            await Window(browser).fill(LAST, damp="dry")
        refused(
            await old.send(HOME, name="Edited twice"),
            "problem.discarded" if end == "discard" else "problem.ended",
            name="Edited",
        )
    assert await names(made, browser) == ["Edited"]


async def test_a_form_of_a_program_without_ids_goes_on(browser: httpx.AsyncClient, made: HouseApp) -> None:
    await browser.get(HOME)
    owner = browser.cookies["luban_session"].split(".")[0]
    await made.store.begin_draft(owner, Draft(HomeTexts("Of old"), {"noise": "busy"}))
    window = Window(browser)
    assert await window.fill(HOME, name="Of old") == "/evaluate/outside"
    assert (await window.fill(LAST, damp="dry")).startswith("/records/")
    assert await names(made, browser) == ["Of old"]


@pytest.mark.parametrize(
    ("go", "leads", "resumes"),
    [
        ("later", "/", "building"),
        ("next", "/evaluate/inside", "inside"),
        ("back", "/evaluate/outside", "outside"),
        ("home", "/evaluate/home", "home"),
        ("lang-zh-TW", "/evaluate/building?lang=zh-TW", "building"),
        ("nonsense", "/evaluate/inside", "inside"),
    ],
)
async def test_a_form_goes_on_where_it_was_left(browser: httpx.AsyncClient, go: str, leads: str, resumes: str) -> None:
    window = Window(browser)
    await window.fill(HOME, name="Left")
    await window.fill("/evaluate/outside", noise="busy")
    answer = await (await window.show("/evaluate/building")).send("/evaluate/building", go=go)
    assert answer.headers["location"] == leads
    assert (await browser.get("/evaluate")).headers["location"] == f"/evaluate/{resumes}"


async def test_going_back_after_the_end_leads_to_the_records(browser: httpx.AsyncClient) -> None:
    assert (await browser.get(LAST)).headers["location"] == HOME
    await a_record(browser, "Done")
    assert (await browser.get(LAST)).headers["location"] == "/records"


async def test_the_language_can_be_switched_where_nothing_is_taken(browser: httpx.AsyncClient) -> None:
    old = Window(browser)
    await old.fill(HOME, name="Home")
    await old.show("/evaluate/outside")
    await Window(browser).fill("/evaluate/discard", sure="yes")
    answer = await old.send("/evaluate/outside", noise="loud", go="lang-zh-TW")
    assert (answer.status_code, answer.headers["content-language"]) == (409, "zh-TW")
    assert re.search('name="noise" value="loud" checked', answer.text)
    assert (await browser.get("/")).headers["content-language"] == "zh-TW"


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_is_wrong_is_said_in_the_visitors_language(browser: httpx.AsyncClient, language: str) -> None:
    browser.headers["Accept-Language"] = language
    old = Window(browser)
    await old.fill(HOME, name="Home")
    await old.show("/evaluate/outside")
    await Window(browser).fill("/evaluate/discard", sure="yes")
    answer = await old.send("/evaluate/outside")
    assert words()["problem.discarded"][language].split("：")[0].split(":")[0] in answer.text
