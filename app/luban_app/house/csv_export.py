"""Records as a table for a spreadsheet: RFC 4180, in UTF-8 with a byte order mark, which Excel needs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from luban_app.catalogue.model import Catalogue, Language, Text
from luban_app.house.records import Record

MEDIA_TYPE = "text/csv; charset=utf-8"
FILE_NAME = "luban.csv"
BYTE_ORDER_MARK = "\ufeff"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A cell that begins so would be calculated by the spreadsheet, and could call programs or fetch addresses."""

_HEADS = (
    Text("名稱", "Name"),
    Text("地址", "Address"),
    Text("備註", "Notes"),
    Text("外部環境分數", "Outside score"),
    Text("建築外觀分數", "Building score"),
    Text("建築內部分數", "Inside score"),
    Text("總分", "Total score"),
    Text("建立時間 (UTC)", "Created (UTC)"),
    Text("更新時間 (UTC)", "Updated (UTC)"),
)


def table(catalogue: Catalogue, records: Iterable[Record], language: Language) -> bytes:
    """One row a record: texts, scores rounded to one decimal, times, then the answer to each indicator."""
    out = io.StringIO(newline="")
    out.write(BYTE_ORDER_MARK)
    writer = csv.writer(out, lineterminator="\r\n")
    heads = [head.get(language) for head in _HEADS]
    writer.writerow(map(cell, [*heads, *(indicator.names.get(language) for indicator in catalogue.indicators)]))
    for record in records:
        writer.writerow(map(cell, _row(catalogue, record, language)))
    return out.getvalue().encode()


def cell(text: str) -> str:
    """`text` as a spreadsheet shows it and never calculates it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _row(catalogue: Catalogue, record: Record, language: Language) -> Iterator[str]:
    yield from (record.home.name, record.home.address, record.home.notes)
    scores = record.scores
    for value in (scores.outside, scores.building, scores.inside, scores.total):
        yield "" if value is None else f"{value:.1f}"
    for when in (record.created, record.updated):
        yield when.strftime("%Y-%m-%d %H:%M:%S")
    for indicator in catalogue.indicators:
        option = indicator.option(record.answers.get(indicator.id, ""))
        yield "" if option is None else option.label.get(language)
