"""Chinese words on English pages: marked for the voice that reads them, and never a way in for markup."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape

from luban_app.frame.routes import create_app
from luban_app.house import assembly
from luban_app.house.assembly import Settings
from luban_app.store.engine import sqlite_url
from luban_app.web.language import Translator
from luban_app.web.markup import Words, mark

HAN = re.compile("[\u3400-\u9fff]")
HOSTILE = """煞<script>alert("刀")</script>'缺角' </span><span lang=x onclick=煞> &amp; {煞}"""
PAGES = (
    "/",
    "/evaluate/home",
    "/records",
    "/ruler?cm=88",
    "/ruler?cm=無",
    "/glossary",
    "/about",
    "/api",
    "/records/campus-flat-a",
    "/compare?id=campus-flat-a&id=campus-flat-b",
    "/compare?id=campus-flat-a",
    "/no/such/page",
)
VOID = {"meta", "link", "input", "br"}
NO_TAGS = {"title", "option", "textarea"}


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("plain & simple", "plain &amp; simple"),
        ("a blade (壁刀)", 'a blade (<span lang="zh-TW">壁刀</span>)'),
        ("刀 and 煞", '<span lang="zh-TW">刀</span> and <span lang="zh-TW">煞</span>'),
        ("says 「氣乘風則散，界水則止」: qi", 'says 「<span lang="zh-TW">氣乘風則散，界水則止</span>」: qi'),
        ("ext 𠮷", 'ext <span lang="zh-TW">𠮷</span>'),
        ("", ""),
    ],
)
def test_runs_of_chinese_are_marked(text: str, marked: str) -> None:
    assert mark(text, "en") == marked
    assert mark(text, "zh-TW") == escape(text)


def test_hostile_text_stays_text() -> None:
    marked = mark(HOSTILE, "en")
    assert set(re.findall("<[^>]*>", marked)) == {'<span lang="zh-TW">', "</span>"}
    assert "&lt;script&gt;alert(&#34;" in marked
    assert Markup(marked).striptags() == " ".join(HOSTILE.split())
    words = Words(Translator("en"))
    assert "<script" not in words("home.resume", name=HOSTILE)
    assert words.plain("home.resume", name=HOSTILE).endswith(HOSTILE)


@given(st.text(alphabet="煞刀、「」々 <>&\"'/aspan=\n"))
def test_only_the_marks_are_markup(text: str) -> None:
    bare = re.sub(r'<span lang="zh-TW">([^<]*)</span>', r"\1", mark(text, "en"))
    assert "<" not in bare
    assert unescape(bare) == text


def test_markup_is_not_escaped_twice() -> None:
    assert mark(mark(HOSTILE, "en"), "en") == mark(HOSTILE, "en")


class _Reader(HTMLParser):
    """Collects Chinese that no lang covers, and tags where none may stand."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.open and self.open[-1][0] in NO_TAGS:
            self.faults.append(f"<{tag}> in <{self.open[-1][0]}>")
        self.faults += [f"{tag} {name}={value}" for name, value in attrs if value and "<span" in value]
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("lang")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if '<span lang="zh-TW">' in data:
            self.faults.append(f"escaped twice: {data}")
        spoken = next((lang for _, lang in reversed(self.open) if lang), None)
        if HAN.search(data) and spoken != "zh-TW" and self.open[-1][0] not in NO_TAGS:
            self.faults.append(data)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    made = assembly.build("vm-1", Settings(sqlite_url(tmp_path)))
    await made.store.prepare()
    transport = httpx.ASGITransport(app=create_app("vm-1", extension=made.extension))
    async with httpx.AsyncClient(transport=transport, base_url="http://vm", headers={"Accept-Language": "en"}) as one:
        yield one
    await made.store.close()


@pytest.mark.parametrize("address", PAGES)
async def test_no_chinese_without_its_language_on_an_english_page(client: httpx.AsyncClient, address: str) -> None:
    reader = _Reader()
    page = (await client.get(address)).text
    reader.feed(page)
    assert reader.faults == []
    assert HAN.search(page), "the switch of languages at least"
