"""What people and programs send, read into bounded values. Every fault is an InputError that a page can show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import TypeVar, get_args

from luban_app.catalogue.model import Catalogue, Language, Text
from luban_app.house import ruler
from luban_app.house.records import ADDRESS_LENGTH, NAME_LENGTH, NOTES_LENGTH, PAGE_SIZE, Home, Query, SortKey

MAX_PAGE_SIZE = 100
MAX_PAGE = 10_000
MIN_COMPARED = 2
MAX_COMPARED = 6
SEARCH_LENGTH = 100
MAX_ANSWERS = 200
"""More than the catalogue will ever have; looked at before anything else is done with the answers."""
SHOWN = 60
"""How much of a wrong value a message repeats, in characters."""

T = TypeVar("T", bound=str)

SORT_KEYS: tuple[SortKey, ...] = get_args(SortKey)
ORDERS = ("asc", "desc")

MESSAGES: Mapping[str, Text] = MappingProxyType(
    {
        "required": Text("請填寫此欄。", "Please fill this in."),
        "too-long": Text("最多 {most} 個字，這裡有 {length} 個。", "At most {most} characters; this has {length}."),
        "characters": Text("含有無法儲存的字元。", "It has characters that cannot be kept."),
        "unknown-indicator": Text("沒有「{value}」這個項目。", "There is no indicator “{value}”."),
        "unknown-option": Text("沒有「{value}」這個選項。", "There is no option “{value}”."),
        "too-many-answers": Text(
            "答案最多 {most} 個，這裡有 {count} 個。", "At most {most} answers; there are {count}."
        ),
        "one-of": Text("請選擇其中之一：{allowed}。", "It must be one of {allowed}."),
        "whole-number": Text("請填 {least} 到 {most} 的整數。", "It must be a whole number from {least} to {most}."),
        "centimetres": Text("請填公分數，例如 88.5。", "It must be a number of centimetres, such as 88.5."),
        "centimetres-range": Text(
            "請填大於 0、不超過 {most} 的公分數。", "It must be more than 0 and at most {most} cm."
        ),
        "length-range": Text("尺長請填 {least} 到 {most} 公分。", "The ruler's length must be {least} to {most} cm."),
        "records-count": Text("請選 {least} 到 {most} 筆來比較。", "Choose {least} to {most} records to compare."),
        "twice": Text("同一筆選了兩次。", "The same record was chosen twice."),
        "malformed": Text("格式不對：{problem}", "It has the wrong form: {problem}"),
    }
)
"""Message code -> what it means, with places for the values of the InputError."""

# Kept in notes: new line and tab. All other control characters, surrogates and what Unicode never assigns are refused.
_NEVER = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_REFUSED = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NEVER}]")
_LINE_BREAKS = re.compile("\r\n|[\r\u2028\u2029\x85]")
# Dropped: marks that nobody sees. The overrides among them (U+202A to U+202E, U+2066 to U+2069) would turn the words
# round that stand after a name in a list; the rest would make two names look alike. What stays, because writing needs
# it: joiners (Persian, Indic scripts, emoji), the tags of regional flags, and signs that only count as format.
_UNSEEN = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"
    "\U000e0000-\U000e001f\U000e0080-\U000e00ff\U000e01f0-\U000e0fff]"
)
# Letters and symbols by their category, yet blank: the Hangul fillers, the empty Braille cell, a note without a head.
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0\U0001d159")
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Mn", "Me", "Mc", "Zs", "Zl", "Zp"})
# At the ends of a text a joiner joins nothing: it goes like the spaces do.
_ENDS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200c\u200d"
_WHOLE = re.compile(r"[0-9]{1,6}")


class InputError(ValueError):
    """What was sent cannot be used: `field` says where, `code` (a key of MESSAGES) says why."""

    def __init__(self, field: str, code: str, **values: object) -> None:
        self.field = shown(field)
        self.code = code
        self.values: Mapping[str, str] = {name: shown(str(value)) for name, value in values.items()}
        super().__init__(f"{self.field}: {self.message('en')}")

    def message(self, language: Language) -> str:
        """What is wrong, for people; plain text that still has to be escaped."""
        return MESSAGES[self.code].get(language).format(**self.values)


@dataclass(frozen=True)
class Measure:
    """A measure and the ruler to read it on, both in cm and in range."""

    cm: Decimal
    length: Decimal


def shown(text: str) -> str:
    """A piece of a wrong value, fit for any message or log: short, without control characters and surrogates."""
    piece = _UNSEEN.sub("\ufffd", _REFUSED.sub("\ufffd", text[:SHOWN]))
    return piece + ("…" if len(text) > SHOWN else "")


def visible(text: str) -> bool:
    """Whether there is anything in it that people can see. A mark alone, without its letter, is not."""
    return any(one not in _BLANKS and unicodedata.category(one) not in _UNSEEN_CATEGORIES for one in text)


def text(field: str, value: str, most: int, *, lines: bool = False) -> str:
    """`value` trimmed, in Unicode's composed form, without unseen marks; line breaks only if `lines`.

    Empty if nothing in it can be seen. Raises InputError.
    """
    # Looked at before it is worked on: normalizing a long text takes long.
    if len(value) > 4 * most + 4:
        raise InputError(field, "too-long", most=most, length=len(value))
    plain = _LINE_BREAKS.sub("\n", value)
    if not lines:
        plain = re.sub(r"[\n\t]", " ", plain)
    # Before it is composed: a mark between a letter and its accent would keep them apart.
    plain = unicodedata.normalize("NFC", _UNSEEN.sub("", plain)).strip(_ENDS)
    if _REFUSED.search(plain):
        raise InputError(field, "characters")
    if len(plain) > most:
        raise InputError(field, "too-long", most=most, length=len(plain))
    return plain if visible(plain) else ""


def home(name: str, address: str = "", notes: str = "", *, draft: bool = False) -> Home:
    """What people write about a home; only a draft may do without a name. Raises InputError."""
    found = Home(
        text("name", name, NAME_LENGTH),
        text("address", address, ADDRESS_LENGTH),
        text("notes", notes, NOTES_LENGTH, lines=True),
    )
    if not found.name and not draft:
        raise InputError("name", "required")
    return found


def answers(catalogue: Catalogue, given: Mapping[str, str]) -> dict[str, str]:
    """Indicator id -> option id; an empty option means "not answered" and is left out. Raises InputError."""
    if len(given) > MAX_ANSWERS:
        raise InputError("answers", "too-many-answers", most=MAX_ANSWERS, count=len(given))
    found = {}
    for indicator_id, option_id in given.items():
        indicator = catalogue.indicator(indicator_id)
        if indicator is None:
            raise InputError(indicator_id, "unknown-indicator", value=indicator_id)
        if option_id and indicator.option(option_id) is None:
            raise InputError(indicator_id, "unknown-option", value=option_id)
        if option_id:
            found[indicator_id] = option_id
    return found


def query(search: str = "", sort: str = "", order: str = "", page: str = "", size: str = "") -> Query:
    """What to list, from the parameters of a request; an empty one is the default. Raises InputError."""
    key: SortKey = one_of("sort", sort, SORT_KEYS) if sort else "updated"
    return Query(
        text=text("text", search, SEARCH_LENGTH),
        sort=key,
        # Names are read from the first on; of all else the newest and the best come first.
        descending=one_of("order", order, ORDERS) == "desc" if order else key != "name",
        page=whole("page", page, MAX_PAGE) if page else 1,
        size=whole("size", size, MAX_PAGE_SIZE) if size else PAGE_SIZE,
    )


def one_of(field: str, value: str, allowed: tuple[T, ...]) -> T:
    """`value`, which has to be one of `allowed`. Raises InputError."""
    for one in allowed:
        if one == value:
            return one
    raise InputError(field, "one-of", allowed=", ".join(allowed))


def whole(field: str, value: str, most: int) -> int:
    """A whole number from 1 to `most`. Raises InputError."""
    if not _WHOLE.fullmatch(value) or not 1 <= int(value) <= most:
        raise InputError(field, "whole-number", least=1, most=most)
    return int(value)


def measure(cm: str, length: str, default_length: Decimal) -> Measure:
    """A measure as people type it, and the ruler's length if they give one. Raises InputError."""
    return Measure(_centimetres("cm", cm), _centimetres("length", length) if length.strip() else default_length)


def _centimetres(field: str, value: str) -> Decimal:
    try:
        found = ruler.parse_cm(value, field)
    except ruler.MeasureError as error:
        raise InputError(field, "centimetres" if value.strip() else "required") from error
    if field == "cm" and not 0 < found <= ruler.MAX_MEASURE_CM:
        raise InputError(field, "centimetres-range", most=ruler.MAX_MEASURE_CM)
    if field == "length" and not ruler.MIN_LENGTH_CM <= found <= ruler.MAX_LENGTH_CM:
        raise InputError(field, "length-range", least=ruler.MIN_LENGTH_CM, most=ruler.MAX_LENGTH_CM)
    return found
