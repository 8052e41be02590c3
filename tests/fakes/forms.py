"""What a browser sends along with a form: its hidden fields."""

from __future__ import annotations

from html.parser import HTMLParser


class _Hidden(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("type") == "hidden":
            self.fields[given.get("name") or ""] = given.get("value") or ""


def hidden_of(page: str) -> dict[str, str]:
    """The hidden fields of a page's forms, by name."""
    parser = _Hidden()
    parser.feed(page)
    return parser.fields
