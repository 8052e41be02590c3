"""The pages without a browser: words, escaping, CSRF, whose records are whose, errors in both languages."""

from __future__ import annotations

import re
import string
from collections.abc import AsyncIterator
from html import escape, unescape
from pathlib import Path

import httpx
import pytest

from luban_app.catalogue import LANGUAGES, catalogue
from luban_app.frame.routes import create_app
from luban_app.house import assembly
from luban_app.house.assembly import HouseApp, Settings
from luban_app.house.samples import SAMPLES
from luban_app.security import CSRF_FIELD
from luban_app.store.engine import sqlite_url
from luban_app.web.language import words
from tests.fakes.forms import hidden_of

NASTY = """<script>alert("1")</script>' OR 1=1 -- {{ 7*7 }} &amp;"""
PAGES = (
    "/",
    "/evaluate/home",
    "/records",
    "/ruler",
    "/ruler?cm=88",
    "/glossary",
    "/about",
    "/api",
    "/records/campus-flat-a",
)
WEB = Path(__file__).resolve().parents[3] / "app" / "luban_app" / "web"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[HouseApp]:
    made = assembly.build("vm-1", Settings(sqlite_url(tmp_path)))
    await made.store.prepare()
    yield made
    await made.store.close()


def visitor(made: HouseApp) -> httpx.AsyncClient:
    """Someone who was never here before."""
    app = create_app("vm-1", extension=made.extension)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://vm", headers={"Accept-Language": "en"})


def token_of(page: httpx.Response) -> str:
    return hidden_of(page.text)[CSRF_FIELD]


def prefers(language: str) -> dict[str, str]:
    """What a browser set to `language` sends."""
    return {"Accept-Language": language}


async def begin(client: httpx.AsyncClient, name: str) -> None:
    """Give the home a name, as the first step's form does."""
    hidden = hidden_of((await client.get("/evaluate/home")).text)
    answer = await client.post("/evaluate/home", data={**hidden, "name": name, "go": "next"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/evaluate/outside")


async def evaluate(client: httpx.AsyncClient, name: str, answers: dict[str, str]) -> str:
    """The address of a record made through the form."""
    await begin(client, name)
    location = ""
    for part in catalogue().parts:
        hidden = hidden_of((await client.get(f"/evaluate/{part.id}")).text)
        chosen = {it.id: answers[it.id] for it in part.indicators if it.id in answers}
        answer = await client.post(f"/evaluate/{part.id}", data={**hidden, "go": "next", **chosen})
        assert answer.status_code == 303, answer.text
        location = answer.headers["location"]
    return location


def test_words_are_complete_in_both_languages() -> None:
    for key, texts in words().items():
        assert set(texts) == set(LANGUAGES), key
        assert all(texts.values()), key
        places = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in texts.values()]
        assert places[0] == places[1], key


def test_every_word_that_the_pages_use_is_there() -> None:
    sources = [*WEB.rglob("*.html"), *WEB.rglob("*.py")]
    used = {
        key
        for path in sources
        for key in re.findall(r"""\bt(?:\.plain)?\(["']([a-z0-9.-]*[a-z0-9-])["']""", path.read_text("utf-8"))
    }
    assert len(used) > 50
    assert used - set(words()) == set()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("address", PAGES)
async def test_every_page_in_both_languages(made: HouseApp, address: str, language: str) -> None:
    async with visitor(made) as client:
        # Asked for in the address against what the browser prefers, then remembered by the cookie.
        other = next(one for one in LANGUAGES if one != language)
        asked = await client.get(f"{address}{'&' if '?' in address else '?'}lang={language}", headers=prefers(other))
        remembered = await client.get(address, headers=prefers(other))
    async with visitor(made) as client:
        answer = await client.get(address, headers=prefers(language))
    for one in (asked, remembered, answer):
        assert (one.status_code, one.headers["content-language"]) == (200, language)
        assert f'<html lang="{language}">' in one.text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|\bstyle=|\bon[a-z]+=", answer.text) == [], "inline script or style"
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", answer.text) == [], "another host"


async def test_what_people_write_is_shown_as_they_wrote_it(made: HouseApp) -> None:
    async with visitor(made) as client:
        address = await evaluate(client, NASTY, {"noise": "busy"})
        for page in (
            address,
            "/records",
            f"{address}/delete",
            f"/compare?id={address.split('/')[-1]}&id=campus-flat-a",
        ):
            answer = await client.get(page)
            assert answer.status_code == 200, page
            assert "<script>alert" not in answer.text, page
            assert escape(NASTY, quote=False).replace('"', "&#34;").replace("'", "&#39;") in answer.text, page


async def test_without_the_token_nothing_is_taken(made: HouseApp) -> None:
    async with visitor(made) as client, visitor(made) as other:
        await begin(client, "mine")
        stolen = token_of(await other.get("/evaluate/home"))
        for token in ({}, {CSRF_FIELD: "x"}, {CSRF_FIELD: stolen}):
            answer = await client.post("/evaluate/home", data={"name": "theirs", "go": "next", **token})
            assert answer.status_code == 403
            assert "Traceback" not in answer.text
        assert "mine" in (await client.get("/evaluate/home")).text


async def test_anothers_record_is_not_there(made: HouseApp) -> None:
    async with visitor(made) as owner, visitor(made) as stranger:
        address = await evaluate(owner, "mine", {"noise": "busy"})
        token = token_of(await stranger.get("/evaluate/home"))
        for page in (address, f"{address}/edit", f"{address}/delete"):
            assert (await stranger.get(page)).status_code == 404, page
        assert (await stranger.post(f"{address}/delete", data={CSRF_FIELD: token})).status_code == 404
        assert (await owner.get(address)).status_code == 200


async def test_a_sample_is_nobodys_to_change(made: HouseApp) -> None:
    async with visitor(made) as client:
        token = token_of(await client.get("/evaluate/home"))
        answer = await client.post(f"/records/{SAMPLES[0].id}/delete", data={CSRF_FIELD: token})
        assert answer.status_code in (403, 404)
        assert (await client.get(f"/records/{SAMPLES[0].id}")).status_code == 200


async def test_a_form_that_was_left_is_resumed(made: HouseApp) -> None:
    async with visitor(made) as client:
        await begin(client, "half done")
        assert (await client.get("/evaluate")).headers["location"] == "/evaluate/outside"
        assert "half done" in (await client.get("/")).text


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"name": ""}, 422),
        ({"name": "x" * 1_000}, 422),
        ({"name": "x" * 1_000_000}, 413),
        ({"name": "\x00\ud7ff"}, 422),
    ],
)
async def test_bad_input_is_said_in_the_page(made: HouseApp, data: dict[str, str], status: int) -> None:
    async with visitor(made) as client:
        token = token_of(await client.get("/evaluate/home"))
        answer = await client.post("/evaluate/home", data={CSRF_FIELD: token, "go": "next", **data})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_wrong_answer_is_told_at_its_question_and_in_the_title(made: HouseApp, language: str) -> None:
    async with visitor(made) as client:
        client.headers.update(prefers(language))
        await begin(client, "mine")
        page = await client.get("/evaluate/outside")
        data = {**hidden_of(page.text), "noise": "no such option", "go": "next"}
        answer = await client.post("/evaluate/outside", data=data)
        listed = await client.get("/compare?id=campus-flat-a")
    assert (answer.status_code, listed.status_code) == (422, 422)
    prefix = words()["errors.in-title"][language]
    assert f"<title>{prefix}" not in page.text
    assert f"<title>{prefix}" in answer.text
    assert f"<title>{prefix}" in listed.text
    # aria-invalid is not allowed on a group, which a fieldset is by itself: a radio group may have it.
    wrong = re.findall("<fieldset [^>]*aria-invalid[^>]*>", answer.text)
    assert len(wrong) == 1
    for attribute in ('id="noise"', 'role="radiogroup"', 'aria-invalid="true"', 'aria-describedby="noise-problem"'):
        assert attribute in wrong[0]
    assert words()["problem.option"][language] in answer.text.split('<p class="problem" id="noise-problem">')[1]


async def test_answers_that_are_no_longer_asked_are_named(made: HouseApp) -> None:
    async with visitor(made) as client:
        address = await evaluate(client, "old", {"noise": "busy"})
        assert "no longer asked" not in (await client.get(address)).text
        owner = (await client.get("/records")).request.headers["cookie"].split("luban_session=")[1].split(".")[0]
        record = await made.house.get(owner, address.split("/")[-1])
        for added, said in (
            ({"phlogiston": "much"}, words()["result.unknown.one"]["en"].format(n=1)),
            ({"phlogiston": "much", "piercing-hall": "gone"}, words()["result.unknown.many"]["en"].format(n=2)),
        ):
            # As a record of an older catalogue: the store keeps what it is given.
            await made.store.update(owner, record.id, record.home, {**record.answers, **added}, record.scores)
            assert said in (await client.get(address)).text


async def test_a_wrong_ruler_length_is_not_folded_away(made: HouseApp) -> None:
    """Whichever field it came from: the summary's link leads to the one where it can be put right."""
    async with visitor(made) as client:
        for address in ("/ruler?cm=88&length=5", "/ruler?cm=88&own=5"):
            answer = await client.get(address)
            assert answer.status_code == 422
            assert "<title>Error: " in answer.text
            assert 'href="#length"' in answer.text
            assert re.search(r'<details open>.*id="length"[^>]*aria-invalid="true"', answer.text, re.DOTALL)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_api_is_described_in_the_visitors_language(made: HouseApp, language: str) -> None:
    async with visitor(made) as client:
        document = (await client.get("/api/openapi.json")).json()
        page = (await client.get("/api", headers=prefers(language))).text
    assert 'href="/api/openapi.json"' in page
    told = [value for key, value in words().items() if re.match(r"api\.(get|post|put|delete)\.", key)]
    operations = [(method, path, of) for path, methods in document["paths"].items() for method, of in methods.items()]
    assert {value["en"] for value in told} == {of["summary"] for _, _, of in operations}
    rows = re.findall(r'<tr role="row"><td.*?</tr>', page, re.DOTALL)
    for row, (method, path, of) in zip(rows, operations, strict=True):
        assert f"<code>{method.upper()}</code>" in row
        assert f"<code>{path}</code>" in row
        assert re.findall(r"<code>(\d+)</code>", row) == list(of["responses"])
        assert next(value[language] for value in told if value["en"] == of["summary"]) in unescape(row)
    assert {f'id="{name}"' in page for name in document["components"]["schemas"]} == {True}


async def test_errors_speak_the_visitors_language(made: HouseApp) -> None:
    async with visitor(made) as client:
        for language in LANGUAGES:
            answer = await client.get("/no/such/page", headers={"Accept-Language": language})
            assert answer.status_code == 404
            assert words()["error.404.title"][language] in answer.text


@pytest.mark.parametrize("address", ["//evil.example/x", "/\\evil.example/x", "///evil.example"])
async def test_the_language_switch_stays_here(made: HouseApp, address: str) -> None:
    async with visitor(made) as client:
        answer = await client.get(f"http://vm{address}")
    assert re.findall(r"""href=["'](?://|/\\\\)""", answer.text) == []
