"""The paper's example as people meet it: two flats on one campus, filled in, read, found and compared."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import expect

from luban_app.house.samples import SAMPLES
from luban_app.web.render import signed
from tests.browser.browser import Visit, indicators

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


def letters(visit: Visit) -> dict[str, str]:
    """Which number of the comparison is which flat: number -> letter."""
    rows = visit.page.locator(".homes li").all()
    names = {f"Flat {letter} of <b>mine</b>": letter for letter in FLATS}
    return {row.locator(".label").inner_text(): names[row.get_by_role("link").inner_text()] for row in rows}


def chart(visit: Visit, part: str) -> dict[str, str]:
    """Number -> score, as the rows of a chart are read: what stands at the same height. Its bar is as long."""
    rows = visit.page.locator(f"figure[data-part='{part}'] svg").evaluate(
        """svg => [...svg.querySelectorAll("rect.bar")].map(bar => {
          const middle = one => one.getBoundingClientRect().y + one.getBoundingClientRect().height / 2;
          const beside = kind => [...svg.querySelectorAll(kind)].find(one => Math.abs(middle(one) - middle(bar)) < 8);
          const share = bar.getAttribute("width") / svg.querySelector("rect.track").getAttribute("width");
          return [beside("text.label").textContent, beside("text.value").textContent, 100 * share];
        })"""
    )
    assert all(abs(float(score) - length) < 0.1 for _, score, length in rows), rows
    return {label: score for label, score, _ in rows}


def differing(visit: Visit, name: str) -> dict[str, str]:
    """Number -> answer, as a row of the table of differences has them under its heads."""
    indicator = indicators().indicator(name)
    assert indicator is not None
    head = visit.page.get_by_role("rowheader", name=indicator.names.get(visit.language), exact=True)
    table = visit.page.get_by_role("table").filter(has=head)
    labels = table.locator("thead .label").all_inner_texts()
    cells = table.get_by_role("row").filter(has=head).get_by_role("cell").all_inner_texts()
    return dict(zip(labels, cells, strict=True))


def answer_of(visit: Visit, letter: str, name: str) -> str:
    """A flat's answer as the table shows it: the score, then the words."""
    indicator = indicators().indicator(name)
    option = indicator.option(FLATS[letter].answers[name]) if indicator else None
    assert option is not None
    return f"{signed(option.score)} {option.label.get(visit.language)}"


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

    homes = letters(visit)
    assert sorted(homes.values()) == sorted(FLATS)
    for part in SCORES["A"]:
        assert chart(visit, part) == {label: SCORES[letter][part] for label, letter in homes.items()}, part
    expect(page.locator("figure[data-part='outside']")).to_contain_text(t("compare.equal"))
    # 23 inside and two of the building; all 23 rooms' answers differ.
    expect(page.locator("table.differing tbody tr")).to_have_count(25)
    for name in ("piercing-hall", "missing-corners"):
        assert differing(visit, name) == {label: answer_of(visit, letter, name) for label, letter in homes.items()}
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
