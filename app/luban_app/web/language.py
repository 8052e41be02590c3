"""Which language a visitor reads, and the words of the pages in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from starlette.requests import Request

from luban_app.catalogue import LANGUAGES, Language

DEFAULT: Language = "zh-TW"
PARAMETER = "lang"
COOKIE = "luban_lang"
COOKIE_SECONDS = 365 * 24 * 3600

_WORDS = Path(__file__).with_name("translations.yaml")
_MAX_ACCEPT = 500
"""Characters of Accept-Language that are looked at: browsers send far fewer."""


def known(value: str | None) -> Language | None:
    """`value` as a language that the pages speak, or None."""
    return next((language for language in LANGUAGES if language == value), None)


def negotiate(request: Request) -> Language:
    """The visitor's language: what the address asks for, else what was chosen before, else what the browser prefers."""
    return (
        asked_for(request)
        or known(request.cookies.get(COOKIE))
        or _accepted(request.headers.get("accept-language", ""))
        or DEFAULT
    )


def prefer(request: Request, chosen: str) -> None:
    """Answer this request in the language `chosen`, if it is one: a button asked for it."""
    request.state.luban_language = known(chosen)


def asked_for(request: Request) -> Language | None:
    """The language that this very request asks for, by a button or in its address."""
    pressed: Language | None = getattr(request.state, "luban_language", None)
    return pressed or known(request.query_params.get(PARAMETER))


def other(language: Language) -> Language:
    """The language that the switch offers."""
    return "en" if language == "zh-TW" else "zh-TW"


def _accepted(header: str) -> Language | None:
    """The language of ours that an Accept-Language header ranks highest; any Chinese is answered in zh-TW."""
    best: tuple[float, Language] | None = None
    for item in header[:_MAX_ACCEPT].split(","):
        tag, _, parameters = item.strip().partition(";")
        language = _of_tag(tag)
        quality = _quality(parameters)
        if language and quality > 0 and (best is None or quality > best[0]):
            best = quality, language
    return best[1] if best else None


def _of_tag(tag: str) -> Language | None:
    primary = tag.strip().lower().partition("-")[0]
    return {"zh": DEFAULT, "en": LANGUAGES[1]}.get(primary)


def _quality(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


@cache
def words() -> Mapping[str, Mapping[Language, str]]:
    """All words of the pages: key -> language -> text. Read once."""
    data: dict[str, dict[Language, str]] = yaml.safe_load(_WORDS.read_text(encoding="utf-8"))
    return data


@dataclass(frozen=True)
class Translator:
    """The words of one language; called with a key and what goes into its placeholders."""

    language: Language

    def __call__(self, key: str, **values: object) -> str:
        """The text for `key`. Raises KeyError for a key or a placeholder that is missing."""
        text = words()[key][self.language]
        return text.format(**values) if values else text

    def count(self, key: str, number: int, **values: object) -> str:
        """The text for `number` things: `key.one` for exactly one, else `key.many`; `n` is the number."""
        form = "one" if number == 1 else "many"
        return self(f"{key}.{form}", n=number, **values)
