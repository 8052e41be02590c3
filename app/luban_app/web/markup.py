"""Texts as HTML: escaped always, and on English pages with what is Chinese marked so that it is read as Chinese."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup, escape

from luban_app.catalogue import Language
from luban_app.web.language import Translator

_HAN = r"[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_BETWEEN = r"[\u3000-\u3004\u3008-\u3020\u302a-\u303f\uff00-\uffef·]"
"""Chinese punctuation, which shares no character with _HAN: a text is read once, however long it is."""
_RUN = re.compile(f"({_HAN}(?:{_BETWEEN}*{_HAN})*)")
_CHINESE = Markup('<span lang="zh-TW">{}</span>')


def mark(text: str, spoken: Language) -> Markup:
    """`text` for a page in `spoken`; what is markup already stays as it is. Not for attributes, titles and options.

    A screen reader picks its voice by `lang`: an English one spells out or skips Chinese characters.
    """
    if spoken == "zh-TW" or isinstance(text, Markup) or text.isascii():
        return escape(text)
    # Of a split by a group, the pieces between matches and the matches take turns.
    pieces = enumerate(_RUN.split(text))
    return Markup("").join(_CHINESE.format(piece) if index % 2 else escape(piece) for index, piece in pieces)


@dataclass(frozen=True)
class Words:
    """The words of the pages as templates write them: `t(key)` in text, `t.plain(key)` where no tags may stand.

    What fills a placeholder is plain: the whole is marked.
    """

    plain: Translator

    def __call__(self, key: str, **values: object) -> Markup:
        """The text for `key`."""
        return mark(self.plain(key, **values), self.plain.language)

    def count(self, key: str, number: int, **values: object) -> Markup:
        """The text for `number` things."""
        return mark(self.plain.count(key, number, **values), self.plain.language)
