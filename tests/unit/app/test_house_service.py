"""The service behind pages and API: what it takes, what it refuses, and what it makes of it."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from importlib import resources
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from luban_app.catalogue import LANGUAGES, Catalogue, Language, Text, catalogue
from luban_app.house import csv_export, inputs
from luban_app.house.inputs import MESSAGES
from luban_app.house.records import (
    ADDRESS_LENGTH,
    NAME_LENGTH,
    NOTES_LENGTH,
    Draft,
    Home,
    Query,
    Record,
    RecordNotFoundError,
    Scores,
)
from luban_app.house.samples import SAMPLES
from luban_app.house.scoring import version
from luban_app.house.service import House, InputError, sample_records
from luban_app.store.engine import sqlite_url
from luban_app.store.sql_store import SqlStore

ANA, BEN = "a" * 22, "b" * 22
GOOD = {"pylon": "none", "light": "fair"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    store = SqlStore(sqlite_url(tmp_path), sample_records(catalogue()))
    yield House(catalogue(), store)
    await store.close()


def refused(call: object, field: str, code: str) -> InputError:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    assert (caught.value.field, caught.value.code) == (field, code)
    for language in LANGUAGES:
        assert caught.value.message(language)
    return caught.value


# Input.


def test_texts_are_trimmed_and_composed() -> None:
    home = inputs.home("  Cafe\u0301 \t one ", " a\nb ", "\r\n first\r\nsecond\u2028third\tx ")
    assert home == Home("Café   one", "a b", "first\nsecond\nthird\tx")


def test_a_name_is_needed_except_in_a_draft() -> None:
    for name in ("", "   ", "\n\t"):
        refused(lambda name=name: inputs.home(name), "name", "required")
        assert inputs.home(name, "x", draft=True) == Home("", "x")


@pytest.mark.parametrize(
    ("field", "most"), [("name", NAME_LENGTH), ("address", ADDRESS_LENGTH), ("notes", NOTES_LENGTH)]
)
def test_texts_have_a_greatest_length_in_characters(field: str, most: int) -> None:
    for character in ("x", "家", "𠮷"):
        fits = {"name": "n", field: character * most}
        assert getattr(inputs.home(**fits), field) == character * most
        long = {"name": "n", field: character * (most + 1)}
        error = refused(lambda long=long: inputs.home(**long), field, "too-long")
        assert str(most) in error.message("en")
    huge = {"name": "n", field: "x" * 1_000_000}
    assert len(str(refused(lambda: inputs.home(**huge), field, "too-long"))) < 200


@pytest.mark.parametrize("bad", ["\0", "\x1b[31m", "\x7f", "\ud800", "\ufffe", "\x85\x86"])
def test_characters_that_no_database_keeps_are_refused(bad: str) -> None:
    for field in ("name", "address", "notes"):
        given_ = {"name": "n", field: f"a{bad}b"}
        refused(lambda given_=given_: inputs.home(**given_), field, "characters")


@given(st.text(st.characters(codec=None), max_size=300), st.text(max_size=300), st.text(max_size=1200))
def test_any_text_is_taken_or_refused(name: str, address: str, notes: str) -> None:
    home, error = read(name, address, notes)
    if home is not None:
        assert home == inputs.home(home.name, home.address, home.notes)
        assert "\0" not in (home.name + home.address + home.notes).encode().decode()
    if error is not None:
        assert all(error.message(language).encode() for language in LANGUAGES)


# Written as numbers: in the text of a program nobody would see them.
ZERO_WIDTH, JOINER, NON_JOINER = "\u200b", "\u200d", "\u200c"
TURNING = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]


@pytest.mark.parametrize(
    "unseen",
    [
        ZERO_WIDTH,
        ZERO_WIDTH * 20,
        JOINER,
        f" {JOINER}\u3000{NON_JOINER}\n",
        "\ufeff",
        "\u2060\u2063",
        "\u00ad",
        "\u200e\u200f\u061c",
        "\u3164",
        "\uffa0\u115f\u1160",
        "\u2800",
        "\ufe0f",
        "\u0301",
        "\U000e0067\U000e007f",
        *TURNING,
    ],
)
def test_what_nobody_can_see_is_no_name(unseen: str) -> None:
    refused(lambda: inputs.home(unseen), "name", "required")
    assert inputs.home("n", unseen, unseen) == Home("n")
    assert inputs.query(unseen) == Query()


@pytest.mark.parametrize("mark", [*TURNING, ZERO_WIDTH, "\ufeff", "\u200f", "\u00ad"])
def test_marks_that_turn_words_round_or_cannot_be_seen_are_dropped(mark: str) -> None:
    home = inputs.home(f"{mark}El{mark}m{mark}", f"1{mark}2", f"a{mark}\n{mark}b")
    assert home == Home("Elm", "12", "a\nb")
    assert inputs.home(f"Cafe{mark}\u0301").name == "Café"
    assert mark not in inputs.shown(f"a{mark}b")


@pytest.mark.parametrize(
    "name",
    [
        "می\u200cخواهم",
        "क्\u200dष",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "1\ufe0f\u20e3",
        "葛\U000e0100",
        "\ue000",
        "שלום",
        "?",
    ],
)
def test_what_writing_needs_is_kept(name: str) -> None:
    assert inputs.home(f"{JOINER} {name}{NON_JOINER} ").name == name


@given(st.text(st.one_of(st.characters(codec=None), st.characters(categories=["Cf", "Mn", "Zs"])), max_size=80))
@example("\U0001d173\U0001bca0")
def test_a_name_that_is_taken_can_be_seen_and_turns_nothing_round(name: str) -> None:
    home, _ = read(name)
    if home is not None:
        # Private signs and those that this Python does not know yet (Co, Cn) may well be seen: Taiwan has rare names.
        seen = {one for one in home.name if (kind := unicodedata.category(one))[0] in "LNPS" or kind in {"Co", "Cn"}}
        assert seen - set("\u115f\u1160\u2800\u3164\uffa0\U0001d159")
        assert not set(home.name) & set(TURNING)
        assert home.name == home.name.strip()


def read(*texts: str) -> tuple[Home | None, InputError | None]:
    try:
        return inputs.home(*texts), None
    except InputError as error:
        return None, error


def test_empty_answers_mean_not_answered() -> None:
    assert inputs.answers(catalogue(), {"pylon": "none", "light": ""}) == {"pylon": "none"}


def test_unknown_answers_are_named() -> None:
    error = refused(
        lambda: inputs.answers(catalogue(), {"pylon": "none", "nosuch": "x"}), "nosuch", "unknown-indicator"
    )
    assert "nosuch" in error.message("zh-TW")
    error = refused(lambda: inputs.answers(catalogue(), {"pylon": "<b>"}), "pylon", "unknown-option")
    assert "<b>" in error.message("en"), "escaping is for whoever shows it"


def test_a_fault_repeats_only_a_piece_of_what_was_wrong() -> None:
    wrong = "\x1b\ud800" + "{x}%s" * 10_000
    error = refused(lambda: inputs.answers(catalogue(), {wrong: wrong}), inputs.shown(wrong), "unknown-indicator")
    assert len(error.field) < 70
    assert len(error.message("en")) < 200
    error.message("zh-TW").encode()


def test_too_many_answers_are_not_looked_at() -> None:
    many = {f"i{number}": "x" for number in range(10_000)}
    refused(lambda: inputs.answers(catalogue(), many), "answers", "too-many-answers")
    assert len(catalogue().indicators) < inputs.MAX_ANSWERS


def test_a_query_has_defaults() -> None:
    assert inputs.query() == Query()
    assert inputs.query(sort="name") == Query(sort="name", descending=False)
    assert inputs.query(" Elm ", "total", "asc", "3", "50") == Query("Elm", "total", False, 3, 50)


@pytest.mark.parametrize(
    ("given_", "field", "code"),
    [
        ({"search": "x" * 101}, "text", "too-long"),
        ({"search": "\0"}, "text", "characters"),
        ({"sort": "owner"}, "sort", "one-of"),
        ({"sort": "updated; DROP TABLE records"}, "sort", "one-of"),
        ({"order": "up"}, "order", "one-of"),
        ({"page": "0"}, "page", "whole-number"),
        ({"page": "-1"}, "page", "whole-number"),
        ({"page": "1e3"}, "page", "whole-number"),
        ({"page": "９"}, "page", "whole-number"),
        ({"page": "9" * 5000}, "page", "whole-number"),
        ({"size": "101"}, "size", "whole-number"),
        ({"size": "many"}, "size", "whole-number"),
    ],
)
def test_a_query_is_bounded(given_: dict[str, str], field: str, code: str) -> None:
    refused(lambda: inputs.query(**given_), field, code)


@pytest.mark.parametrize(
    ("cm", "length", "field", "code"),
    [
        ("", "", "cm", "required"),
        ("wide", "", "cm", "centimetres"),
        ("0", "", "cm", "centimetres-range"),
        ("10001", "", "cm", "centimetres-range"),
        ("-5", "", "cm", "centimetres-range"),
        ("\N{MINUS SIGN}88,5 cm", "", "cm", "centimetres-range"),
        ("-0", "", "cm", "centimetres-range"),
        ("0.0 公分", "", "cm", "centimetres-range"),
        ("9" * 40, "", "cm", "centimetres-range"),
        ("1,234", "", "cm", "centimetres"),
        ("88 mm", "", "cm", "centimetres"),
        ("1e5", "", "cm", "centimetres"),
        ("nan", "", "cm", "centimetres"),
        ("9" * 100_000, "", "cm", "centimetres"),
        ("88", "x", "length", "centimetres"),
        ("88", "29.9", "length", "length-range"),
        ("88", "60.1", "length", "length-range"),
        ("88", "-43 cm", "length", "length-range"),
    ],
)
async def test_measures_are_bounded(house: House, cm: str, length: str, field: str, code: str) -> None:
    refused(lambda: house.measure(cm, length), field, code)


@pytest.mark.parametrize("cm", ["88.5", "88,5", "88.5cm", "88.5 cm", "88,5 CM", "88.5公分", "８８．５ 公分"])
async def test_a_measure_may_have_a_comma_and_its_unit(house: House, cm: str) -> None:
    read = house.measure(cm, "43,2 cm")
    assert (read.cm, read.length) == (Decimal("88.5"), Decimal("43.2"))


async def test_a_measure_is_read_on_the_rulers_setting_unless_a_length_is_given(house: House) -> None:
    assert house.measure("８８．５").length == Decimal("42.9")
    assert house.measure("88.5", "43.2").length == Decimal("43.2")
    assert replace(house, ruler_length=Decimal("46.08")).measure("88.5", " ").length == Decimal("46.08")


def test_messages_exist_in_both_languages_with_the_same_places() -> None:
    for code, text in MESSAGES.items():
        places = [{part.split("}")[0] for part in words.split("{")[1:]} for words in (text.zh_tw, text.en)]
        assert places[0] == places[1], code


# Keeping.


async def test_a_record_is_kept_with_its_scores(house: House) -> None:
    made = await house.create(ANA, house.home("Flat"), house.answers(GOOD))
    evaluation = house.evaluate(GOOD)
    assert made.scores.total == evaluation.total.value
    assert made.scores.outside == evaluation.part("outside").value
    assert made.scores.building is None
    changed = await house.update(ANA, made.id, house.home("Flat"), {})
    assert changed.scores.total is None
    with pytest.raises(RecordNotFoundError):
        await house.get(BEN, made.id)


async def test_answers_that_the_catalogue_no_longer_knows_do_not_count(house: House) -> None:
    old = GOOD | {"abolished": "yes", "damp": "abolished"}
    assert house.evaluate(old) == house.evaluate(GOOD)
    await house.store.begin_draft(ANA, Draft(Home(""), old, id="d1"))
    draft = await house.draft(ANA)
    assert draft is not None
    assert draft.answers == GOOD
    await house.drop_draft(ANA, "d1")
    assert await house.draft(ANA) is None


async def test_a_record_that_another_catalogue_scored_is_shown_and_listed_by_todays(house: House) -> None:
    today = house.scores(GOOD)
    old = await house.store.create(ANA, house.home("Old"), GOOD, Scores(total=1.0, catalogue="before"))
    assert (await house.get(ANA, old.id)).scores == today
    found = await house.find(ANA, Query(text="old"))
    assert [record.scores for record in found.records] == [today]
    shown = f",{today.total:.1f},"
    assert shown in (await house.export(ANA, "en", Query(text="old"))).decode()
    assert (await house.compare(ANA, [old.id, SAMPLES[0].id])).homes[0].record.scores == today
    assert [await house.rescore(), await house.rescore()] == [old.id, None]
    assert (await house.store.get(ANA, old.id)).scores == today


def test_the_version_of_a_catalogue_changes_with_what_scores_depend_on_and_with_nothing_else() -> None:
    part = catalogue().parts[0]
    group = part.groups[0]
    first = group.indicators[0]

    def with_first(**changes: object) -> Catalogue:
        changed = replace(group, indicators=(replace(first, **changes), *group.indicators[1:]))  # type: ignore[arg-type]
        parts = replace(part, groups=(changed, *part.groups[1:])), *catalogue().parts[1:]
        return replace(catalogue(), parts=parts)

    now = version(catalogue())
    assert re.fullmatch("[0-9a-f]{16}", now)
    assert version(with_first(remedy=Text("另", "Other"))) == now
    assert version(with_first(options=first.options[::-1])) == now
    options = (replace(first.options[0], score=first.options[0].score - 1), *first.options[1:])
    different = [with_first(weight=first.weight % 5 + 1), with_first(options=options), with_first(id="renamed")]
    assert len({now, *map(version, different)}) == 4


# Samples and comparison.


async def test_the_sample_flats_are_equal_outside_and_differ_inside(house: House) -> None:
    compared = await house.compare(ANA, [sample.id for sample in SAMPLES])
    a, b = compared.homes
    assert a.record.scores.outside == b.record.scores.outside is not None
    assert a.record.scores.inside != b.record.scores.inside
    assert {part.part: part.score for part in a.evaluation.parts}["outside"].answered > 0
    assert all(one.indicator.part != "outside" for one in compared.differences)
    assert all(one.options[0] != one.options[1] for one in compared.differences)


async def test_what_only_one_home_answers_is_a_difference(house: House) -> None:
    one = await house.create(ANA, house.home("one"), {"pylon": "none"})
    two = await house.create(ANA, house.home("two"), {})
    compared = await house.compare(ANA, [one.id, two.id])
    (difference,) = compared.differences
    assert difference.indicator.id == "pylon"
    assert difference.options[1] is None


async def test_two_to_six_different_homes_can_be_compared(house: House) -> None:
    made = [(await house.create(ANA, house.home(f"home {number}"), GOOD)).id for number in range(7)]
    for ids in ([], made[:1], made):
        with pytest.raises(InputError) as caught:
            await house.compare(ANA, ids)
        assert caught.value.code == "records-count"
    with pytest.raises(InputError, match="twice"):
        await house.compare(ANA, [made[0], made[0]])
    assert [home.record.id for home in (await house.compare(ANA, made[6:0:-1])).homes] == made[6:0:-1]
    with pytest.raises(RecordNotFoundError):
        await house.compare(BEN, made[:2])


async def test_samples_speak_the_visitors_language(house: House) -> None:
    record = await house.get(ANA, SAMPLES[0].id)
    assert house.localized(record, "zh-TW").home.name == SAMPLES[0].names.zh_tw
    assert house.localized(record, "en").home.name == SAMPLES[0].names.en
    hers = await house.create(ANA, house.home("Mine"), {})
    assert house.localized(hers, "en") is hers


# CSV.


async def rows(house: House, language: Language = "en", query: Query | None = None) -> list[list[str]]:
    content = await house.export(ANA, language, query)
    assert content.startswith(b"\xef\xbb\xbf")
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


async def test_the_table_has_a_row_for_each_record_and_a_column_for_each_indicator(house: House) -> None:
    made = await house.create(ANA, house.home('The "big", one', "", "two\nlines"), GOOD)
    await house.create(BEN, house.home("not hers"), GOOD)
    head, *body = await rows(house)
    assert len(body) == 1 + len(SAMPLES)
    assert {len(row) for row in body} == {len(head)} == {9 + len(catalogue().indicators)}
    mine = dict(zip(head, body[0], strict=True))
    assert (mine["Name"], mine["Notes"]) == ('The "big", one', "two\nlines")
    assert mine["Total score"] == f"{made.scores.total:.1f}"
    assert mine["Building score"] == ""
    assert mine["Created (UTC)"] == made.created.strftime("%Y-%m-%d %H:%M:%S")
    pylon = catalogue().indicator("pylon")
    assert pylon is not None
    assert mine[pylon.names.en] == pylon.options[[one.id for one in pylon.options].index("none")].label.en
    assert body[-1][0] in {sample.names.en for sample in SAMPLES}
    assert (await rows(house, "zh-TW"))[0][0] == "名稱"


async def test_the_table_holds_what_was_searched_on_all_pages(house: House) -> None:
    for number in range(30):
        await house.create(ANA, house.home(f"row {number:02}"), {})
    body = (await rows(house, query=house.query("ROW", "name", "desc", "2", "5")))[1:]
    assert [row[0] for row in body] == [f"row {number:02}" for number in reversed(range(30))]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_is_ever_a_formula(start: str) -> None:
    assert csv_export.cell(f"{start}1+1") == f"'{start}1+1"
    assert csv_export.cell(f"a{start}1") == f"a{start}1"


async def test_formulas_in_a_record_are_only_shown(house: House) -> None:
    attack = '=HYPERLINK("http://evil.example";"click")'
    await house.create(ANA, house.home(attack, "@SUM(1)", "+1\n=2"), {})
    assert (await rows(house))[1][:3] == ["'" + attack, "'@SUM(1)", "'+1\n=2"]


async def test_lines_end_as_the_standard_says(house: House) -> None:
    content = (await house.export(ANA, "en", Query(text="nothing like this"))).decode("utf-8-sig")
    assert content.endswith("\r\n")
    assert content.count("\n") == 1


def test_a_record_of_an_older_catalogue_is_still_a_row() -> None:
    record = replace(sample_records(catalogue())[0].record, answers={"abolished": "x"})
    assert isinstance(record, Record)
    table = csv_export.table(catalogue(), [record], "en").decode("utf-8-sig")
    assert "abolished" not in table


def test_the_parts_have_one_name_everywhere() -> None:
    words = yaml.safe_load(resources.files("luban_app").joinpath("web/translations.yaml").read_text(encoding="utf-8"))
    head = {
        language: csv_export.table(catalogue(), [], language).decode("utf-8-sig").split(",")[3:6]
        for language in LANGUAGES
    }
    for part, zh_tw, en in zip(catalogue().parts, head["zh-TW"], head["en"], strict=True):
        assert words[f"sort.{part.id}"] == {"zh-TW": part.names.zh_tw, "en": part.names.en}
        assert (zh_tw, en) == (f"{part.names.zh_tw}分數", f"{part.names.en} score")
