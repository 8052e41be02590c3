"""What a visitor does: fills in forms, reads numbers, looks at pages with a critical eye."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page, Request, Response, expect

from luban_app.catalogue import Catalogue, Language, Part, catalogue
from luban_app.web.language import Translator

SCREENSHOTS = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
UPDATE = os.environ.get("LUBAN_UPDATE_SCREENSHOTS") == "1"
SHOWN_HEIGHTS = {390: 1700, 1280: 1500}
"""Of a long page only the beginning is kept, in CSS pixels."""
_COLOURS = 48
SERIOUS = {"serious", "critical"}
TOUCH_PIXELS = 44
"""Least height of what is pressed, in CSS pixels (WCAG 2.5.5). Links within a sentence are let off, as there."""

_UNMARKED = r"""() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const around = node.parentElement;
    if (/\p{Script=Han}/u.test(node.data) && !around.closest("option, textarea, title, script")
        && !around.closest("[lang]").getAttribute("lang").startsWith("zh")) found.push(node.data.trim());
  }
  return found;
}"""
"""Chinese text that a screen reader would read with an English voice."""

_TORN = """() => [...document.querySelectorAll("body *")].filter(one => {
  const words = [...one.childNodes].filter(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
  return words.length && one.querySelector(":scope > span[lang]")
    && ["flex", "grid"].includes(getComputedStyle(one).display.replace("inline-", ""));
}).map(one => one.textContent.trim().slice(0, 60))"""
"""Text with Chinese marked in it that is laid out as boxes: the spaces between them are lost."""

_SMALL = """least => {
  const pressed = "button, .button, summary, select, textarea, label.card, .chip, .choose label, nav a, footer a, "
    + ".errors a, .list a, .links a, input:not([type=radio], [type=checkbox], [type=hidden])";
  return [...document.querySelectorAll(pressed)]
    .filter(one => !one.matches(".default") && one.checkVisibility())
    .filter(one => Math.min(one.offsetHeight, one.offsetWidth) < least - 0.5)
    .map(one => `${one.tagName} ${one.textContent.trim().slice(0, 40)}: ${one.offsetWidth} x ${one.offsetHeight}`);
}"""


@cache
def indicators() -> Catalogue:
    """The catalogue; read once."""
    return catalogue()


@cache
def _axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@dataclass
class Visit:
    """One visitor with a window of a certain width who reads one language."""

    page: Page
    server: str
    language: Language
    width: int
    faults: list[str] = field(default_factory=list)
    """What the console complained of and what was fetched from elsewhere."""

    def __post_init__(self) -> None:
        """Listen to the console and to requests."""
        self.page.on("console", lambda message: self._said(message.type, message.text))
        self.page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def _said(self, kind: str, text: str) -> None:
        # Chromium reports each answer of 4xx as an error of its own; `_answered` looks at those.
        if kind == "error" and "Failed to load resource" not in text:
            self.faults.append(f"console: {text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.server, "data:")):
            self.faults.append(f"request to another host: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 500 or (response.status >= 400 and "/static/" in response.url):
            self.faults.append(f"{response.status}: {response.url}")

    @property
    def t(self) -> Translator:
        """The words of this visitor's language."""
        return Translator(self.language)

    def go(self, address: str) -> None:
        """Open a page."""
        self.page.goto(address)

    def press(self, key: str, **values: object) -> None:
        """Click the button or link that says `key`."""
        name = self.t(key, **values)
        self.page.get_by_role("button", name=name, exact=True).or_(
            self.page.get_by_role("link", name=name, exact=True)
        ).first.click()

    def fieldset(self, indicator: str) -> Locator:
        """The group of radio cards of one indicator, found by what its legend says."""
        found = indicators().indicator(indicator)
        assert found is not None
        return self.page.get_by_role("radiogroup", name=found.names.get(self.language), exact=True)

    def answer(self, part: Part, answers: Mapping[str, str]) -> None:
        """Choose the cards of one part by their labels."""
        for indicator in part.indicators:
            if option := indicator.option(answers.get(indicator.id, "")):
                group = self.page.locator(f"fieldset[id='{indicator.id}']")
                group.get_by_text(option.label.get(self.language), exact=True).click()

    def keep(self, name: str, answers: Mapping[str, str]) -> str:
        """A record of this visitor's, made without the form; its id."""
        made = self.page.request.post("/api/v1/records", data={"name": name, "answers": dict(answers)})
        assert made.status == 201, made.text()
        record: str = made.json()["id"]
        return record

    def evaluate(self, name: str, address: str, answers: Mapping[str, str]) -> None:
        """Fill in the whole form, from the first page to the result."""
        self.go("/")
        self.press("home.start")
        self.page.get_by_label(self.t("field.name"), exact=True).fill(name)
        self.page.locator("#address").fill(address)
        for part in indicators().parts:
            self.press("form.next-to", name=part.names.get(self.language))
            expect(self.page).to_have_url(f"{self.server}/evaluate/{part.id}")
            self.answer(part, answers)
        self.press("form.finish")
        expect(self.page.get_by_role("heading", level=1)).to_have_text(name)

    def score(self, part: str) -> str:
        """The number on a dial, as it is read."""
        return self.page.locator(f".dial[data-part='{part}'] text.value").text_content() or ""

    def check(self, name: str, *, keep: bool = True) -> None:
        """Nothing serious for axe-core, nothing too wide or too small, all Chinese marked, nothing on the console."""
        if keep:
            self._keep(name)
        # A form that was sent just now may leave no document for a moment.
        self.page.wait_for_load_state("domcontentloaded")
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name}: {wide} pixels wider than the window"
        found = {
            "small": self.page.evaluate(_SMALL, TOUCH_PIXELS),
            "unmarked": self.page.evaluate(_UNMARKED),
            "torn": self.page.evaluate(_TORN),
            "axe": self.violations(),
            "faults": self.faults,
        }
        assert not any(found.values()), f"{name}: {found}"

    def violations(self) -> list[str]:
        """What axe-core finds serious or critical."""
        self.page.evaluate(_axe())
        found: dict[str, Any] = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            json.dumps([rule["id"], rule["help"], [node["html"][:200] for node in rule["nodes"]][:3]])
            for rule in found["violations"]
            if rule["impact"] in SERIOUS
        ]

    def _keep(self, name: str) -> None:
        """A small picture of the page, if pictures are to be made anew."""
        if not UPDATE:
            return
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        height = min(self.page.evaluate("document.documentElement.scrollHeight"), SHOWN_HEIGHTS[self.width])
        before = self.page.viewport_size
        # A window as high as the picture: what sticks to the window's edge is where it belongs.
        self.page.set_viewport_size({"width": self.width, "height": height})
        picture = Image.open(io.BytesIO(self.page.screenshot(animations="disabled")))
        if before:
            self.page.set_viewport_size(before)
        small = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        small.save(SCREENSHOTS / f"{name}-{self.width}-{self.language}.png", optimize=True)
