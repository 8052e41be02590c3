"""The paper's example as people meet it: two flats on one campus, filled in, read, found and compared."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import expect

from luban_app.samples import SAMPLES
from tests.browser.visit import Visit

# By hand, from the catalogue's weights and scores; the score of a part is 50 + 10 * sum(w*s) / sum(w).
#
# Outside, both flats, in the form's order:
#   2*0 + 3*1 + 3*4 + 2*2 + 4*2 + 2*2 + 3*2 + 4*2 + 2*2 + 3*3 + 3*2 + 3*2 - 3*2 - 2*2 + 4*3 + 2*3 + 5*1 + 5*0 + 3*1
#   + 2*2 + 3*2 = 96; weights 63; 50 + 960/63 = 65.238
# Building, A: 4*4 + 2*3 + 2*1 + 3*3 + 4*2 - 4*1 + 0 + 0 + 3*2 + 2*2 + 2*1 + 0 + 0 + 2*3 = 55; weights 38;
#   50 + 550/38 = 64.474
# Building, B: missing corners 4*-3 instead of 4*4 (-28) and the arcade 2*-2 instead of 2*1 (-6): 55 - 34 = 21;
#   50 + 210/38 = 55.526
# Inside, A: 5*4 + 3*2 + 0 - 3*1 + 2*2 + 5*4 + 4*2 + 3*3 + 4*1 + 4*3 + 3*3 + 4*3 + 5*1 + 4*4 + 0 + 3*3 + 2*3 + 2*3
#   + 2*1 + 3*3 + 4*2 + 4*4 + 0 = 178; weights 78; 50 + 1780/78 = 72.821
# Inside, B: -5*3 + 0 - 3*2 - 3*4 - 2*2 - 5*3 - 4*3 + 3*1 - 4*3 + 4*1 + 0 + 4*1 - 5*5 - 4*2 - 2*3 - 3*2 - 2*2 + 0
#   - 2*2 + 0 + 0 + 0 - 4*3 = -130; weights 78; 50 - 1300/78 = 33.333
# Total, weights 63 + 38 + 78 = 179. A: 96 + 55 + 178 = 329, 50 + 3290/179 = 68.380.
#   B: 96 + 21 - 130 = -13, 50 - 130/179 = 49.274
SCORES = {
    "A": {"outside": "65.2", "building": "64.5", "inside": "72.8", "total": "68.4"},
    "B": {"outside": "65.2", "building": "55.5", "inside": "33.3", "total": "49.3"},
}
FLATS = {"A": SAMPLES[0], "B": SAMPLES[1]}


@pytest.fixture
def both(visit: Visit) -> Visit:
    """A visitor who has evaluated both flats."""
    for letter, flat in FLATS.items():
        visit.evaluate(f"Flat {letter} of <b>mine</b>", "興大路 145 號", flat.answers)
        assert {part: visit.score(part) for part in SCORES[letter]} == SCORES[letter]
        # 21 + 14 of 15 + 23 of 59: the direction it faces is left out.
        expect(visit.page.locator(".dial[data-part='total'] figcaption")).to_contain_text("58")
    return visit


def test_a_person_evaluates_finds_and_compares_two_flats(both: Visit) -> None:
    visit, page, t = both, both.page, both.t
    visit.check("result")
    expect(page.locator(".findings.worst li").first).to_contain_text("−25")
    expect(page.locator(".findings.worst li")).to_have_count(3)

    visit.press("nav.records")
    visit.check("records")
    page.get_by_label(t("records.search")).fill("OF <B>MINE")
    visit.press("records.show")
    expect(page.get_by_role("status")).to_have_text(t.count("records.found", 2))
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    for letter, numbers in SCORES.items():
        row = rows.filter(has_text=f"Flat {letter} of <b>mine</b>")
        for number in numbers.values():
            expect(row).to_contain_text(number)
        row.get_by_role("checkbox").check()
    page.locator("[data-compare]").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(t("compare.title"))

    for part in ("outside", "building", "inside", "total"):
        values = page.locator(f"figure[data-part='{part}'] text.value").all_text_contents()
        assert sorted(values) == sorted(SCORES[letter][part] for letter in SCORES), part
    expect(page.locator("figure[data-part='outside']")).to_contain_text(t("compare.equal"))
    # 23 inside and two of the building; all 23 rooms' answers differ.
    expect(page.locator("table.differing tbody tr")).to_have_count(25)
    visit.check("compare")


def test_the_table_for_a_spreadsheet_holds_the_samples(visit: Visit, tmp_path: Path) -> None:
    visit.go("/records")
    with visit.page.expect_download() as downloading:
        visit.press("records.csv")
    target = tmp_path / "records.csv"
    downloading.value.save_as(target)
    rows = list(csv.reader(io.StringIO(target.read_text(encoding="utf-8-sig"))))
    names = {sample.names.get(visit.language) for sample in SAMPLES}
    assert {row[0] for row in rows[1:]} == names
    assert {tuple(row[3:7]) for row in rows[1:]} == {tuple(numbers.values()) for numbers in SCORES.values()}
