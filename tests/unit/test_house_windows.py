"""The evaluation form in several windows of one browser, and sent twice: nothing is overwritten, nothing vanishes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from luban_app import house_app
from luban_app import store as store_module
from luban_app.application import create_app
from luban_app.catalogue import LANGUAGES, catalogue
from luban_app.house_app import HouseApp, Settings
from luban_app.records import Query
from luban_app.store_engine import sqlite_url
from luban_app.web.language import words
from tests.fakes.forms import hidden_of

HOME = "/evaluate/home"
LAST = f"/evaluate/{catalogue().parts[-1].id}"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[HouseApp]:
    made = house_app.build("vm-1", Settings(sqlite_url(tmp_path)))
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

    async def send(self, address: str, **fields: str) -> httpx.Response:
        return await self._browser.post(address, data={**self.hidden, "go": "next", **fields})

    async def fill(self, address: str, **fields: str) -> str:
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


async def test_a_form_that_finds_the_service_full_is_kept(
    browser: httpx.AsyncClient, made: HouseApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_RECORDS", 0)
    monkeypatch.setattr(store_module, "COUNT_SECONDS", 0.0)
    window = Window(browser)
    await window.fill(HOME, name="Patient")
    answer = await (await window.show(LAST)).send(LAST, damp="dry")
    assert answer.status_code == 503
    assert words()["problem.store-full"]["en"] in answer.text
    sent = await browser.post("/api/v1/records", json={"name": "x", "answers": {}})
    assert (sent.status_code, sent.json()["code"]) == (503, "store-full")
    assert int(sent.headers["retry-after"]) > 3600
    monkeypatch.undo()
    await window.fill(LAST, damp="dry")
    assert await names(made, browser) == ["Patient"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_is_wrong_is_said_in_the_visitors_language(browser: httpx.AsyncClient, language: str) -> None:
    browser.headers["Accept-Language"] = language
    old = Window(browser)
    await old.fill(HOME, name="Home")
    await old.show("/evaluate/outside")
    await Window(browser).fill("/evaluate/discard", sure="yes")
    answer = await old.send("/evaluate/outside")
    assert words()["problem.discarded"][language].split("：")[0].split(":")[0] in answer.text
