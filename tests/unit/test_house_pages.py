"""The pages without a browser: words, escaping, CSRF, whose records are whose, errors in both languages."""

from __future__ import annotations

import re
import string
from collections.abc import AsyncIterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from luban_app import house_app
from luban_app.application import create_app
from luban_app.catalogue import LANGUAGES, catalogue
from luban_app.house_app import HouseApp, Settings
from luban_app.samples import SAMPLES
from luban_app.security import CSRF_FIELD
from luban_app.store_engine import sqlite_url
from luban_app.web.language import words

NASTY = """<script>alert("1")</script>' OR 1=1 -- {{ 7*7 }} &amp;"""
PAGES = ("/", "/evaluate/home", "/records", "/ruler", "/ruler?cm=88", "/glossary", "/about", "/records/campus-flat-a")
WEB = Path(__file__).resolve().parents[2] / "app" / "luban_app" / "web"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[HouseApp]:
    made = house_app.build("vm-1", Settings(sqlite_url(tmp_path)))
    await made.store.prepare()
    yield made
    await made.store.close()


def visitor(made: HouseApp) -> httpx.AsyncClient:
    """Someone who was never here before."""
    app = create_app("vm-1", extension=made.extension)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://vm", headers={"Accept-Language": "en"})


class _Token(HTMLParser):
    """Finds the CSRF token of a page's forms."""

    token = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("name") == CSRF_FIELD:
            self.token = given.get("value") or ""


def token_of(page: httpx.Response) -> str:
    parser = _Token()
    parser.feed(page.text)
    assert parser.token
    return parser.token


async def begin(client: httpx.AsyncClient, name: str) -> None:
    """Give the home a name, as the first step's form does."""
    token = token_of(await client.get("/evaluate/home"))
    answer = await client.post("/evaluate/home", data={CSRF_FIELD: token, "name": name, "go": "next"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/evaluate/outside")


async def evaluate(client: httpx.AsyncClient, name: str, answers: dict[str, str]) -> str:
    """The address of a record made through the form."""
    await begin(client, name)
    location = ""
    for part in catalogue().parts:
        token = token_of(await client.get(f"/evaluate/{part.id}"))
        chosen = {it.id: answers[it.id] for it in part.indicators if it.id in answers}
        answer = await client.post(f"/evaluate/{part.id}", data={CSRF_FIELD: token, "go": "next", **chosen})
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
        for key in re.findall(r"""\bt\(["']([a-z0-9.-]*[a-z0-9-])["']""", path.read_text("utf-8"))
    }
    assert len(used) > 50
    assert used - set(words()) == set()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("address", PAGES)
async def test_every_page_in_both_languages(made: HouseApp, address: str, language: str) -> None:
    async with visitor(made) as client:
        answer = await client.get(address, params=None if "?" in address else {"lang": language})
        answer = await client.get(address, headers={"Accept-Language": language})
    assert answer.status_code == 200
    assert f'<html lang="{language}">' in answer.text
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
