"""The Luban ruler: its 32 divisions, its boundaries, its suggestions, and what it refuses."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from luban_app.house.ruler import (
    DEFAULT_LENGTH_CM,
    LENGTH_NOTE,
    VARIANT_LENGTHS_CM,
    MeasureError,
    Reading,
    Span,
    parse_cm,
    read,
)
from luban_app.house.ruler_signs import CHARACTERS

# The signs and their order are those of the list at https://lubanchi.cn/html/109.html (a ruler of 42.9 cm, simplified
# characters). The numbers come from no table: they are worked out by hand from the length. A character has 42.9 / 8 =
# 5.3625 cm and a division 42.9 / 32 = 1.340625 cm. The k-th division begins at k * 1.340625 cm (third column); the
# fourth is the first whole millimetre in it, in cm.
TABLE = [
    ("財", "財德", "0", "0.1"),
    ("財", "寶庫", "1.340625", "1.4"),
    ("財", "六合", "2.68125", "2.7"),
    ("財", "迎福", "4.021875", "4.1"),
    ("病", "退財", "5.3625", "5.4"),
    ("病", "公事", "6.703125", "6.8"),
    ("病", "牢執", "8.04375", "8.1"),
    ("病", "孤寡", "9.384375", "9.4"),
    ("離", "長庫", "10.725", "10.8"),
    ("離", "劫財", "12.065625", "12.1"),
    ("離", "官鬼", "13.40625", "13.5"),
    ("離", "失脫", "14.746875", "14.8"),
    ("義", "添丁", "16.0875", "16.1"),
    ("義", "益利", "17.428125", "17.5"),
    ("義", "貴子", "18.76875", "18.8"),
    ("義", "大吉", "20.109375", "20.2"),
    ("官", "順科", "21.45", "21.5"),
    ("官", "橫財", "22.790625", "22.8"),
    ("官", "進益", "24.13125", "24.2"),
    ("官", "富貴", "25.471875", "25.5"),
    ("劫", "死別", "26.8125", "26.9"),
    ("劫", "退口", "28.153125", "28.2"),
    ("劫", "離鄉", "29.49375", "29.5"),
    ("劫", "財失", "30.834375", "30.9"),
    ("害", "災至", "32.175", "32.2"),
    ("害", "死絕", "33.515625", "33.6"),
    ("害", "病臨", "34.85625", "34.9"),
    ("害", "口舌", "36.196875", "36.2"),
    ("本", "財至", "37.5375", "37.6"),
    ("本", "登科", "38.878125", "38.9"),
    ("本", "進寶", "40.21875", "40.3"),
    ("本", "興旺", "41.559375", "41.6"),
]

MM = Decimal("0.1")
TINY = Decimal("0.000001")

measures = st.decimals(min_value="0.0001", max_value=10_000, places=4)
lengths = st.sampled_from(VARIANT_LENGTHS_CM)


def signs(reading: Reading) -> tuple[str, str]:
    return reading.character.name, reading.division.name


# --- the table ---


def test_the_ruler_has_eight_characters_of_four_divisions() -> None:
    assert "".join(character.name for character in CHARACTERS) == "財病離義官劫害本"
    assert "".join(character.name for character in CHARACTERS if character.auspicious) == "財義官本"
    assert [(character.name, division.name) for character in CHARACTERS for division in character.divisions] == [
        (character, division) for character, division, _, _ in TABLE
    ]


def test_every_sign_is_explained_in_both_languages() -> None:
    for character in CHARACTERS:
        assert character.pinyin.isascii()
        assert character.english.isascii()
        for text in (character.meaning, *(division.gloss for division in character.divisions)):
            assert text.zh_tw.encode("cp950")
            assert text.en.replace("吉", "").isascii()
    assert "38.8" in LENGTH_NOTE.zh_tw
    assert "38.8" in LENGTH_NOTE.en


@pytest.mark.parametrize(("character", "division", "start", "first_mm"), TABLE)
def test_boundaries_worked_out_by_hand_hold_to_the_millimetre(
    character: str, division: str, start: str, first_mm: str
) -> None:
    here = read(Decimal(first_mm))
    assert signs(here) == (character, division)
    assert here.division_span.start == Fraction(start)
    assert here.within == Fraction(first_mm) - Fraction(start)
    if start != "0":
        assert signs(read(Decimal(first_mm) - MM)) != (character, division)


@pytest.mark.parametrize("turns", [0, 1, 7])
def test_a_boundary_belongs_to_what_begins_there(turns: int) -> None:
    offset = turns * DEFAULT_LENGTH_CM
    for (character, division, start, _), (previous, before, _, _) in zip(TABLE[1:], TABLE, strict=False):
        assert signs(read(offset + Decimal(start))) == (character, division)
        assert signs(read(offset + Decimal(start) - TINY)) == (previous, before)


def test_a_whole_ruler_begins_again() -> None:
    assert signs(read(Decimal("42.9"))) == ("財", "財德")
    assert read(Decimal("42.9")).turn == 1
    assert read(Decimal("42.9")).position == 0
    assert signs(read(Decimal("42.8"))) == ("本", "興旺")
    assert read(Decimal("42.8")).turn == 0


# Where divisions begin on a ruler of 46.08 cm, copied from the table of that ruler at
# http://www.360doc.com/document/24/1220/20/1992026_1142480159.shtml (simplified there). Read as far as 離鄉: the copy
# at hand ends there. It gives two decimals, which are exact: 46.08 / 32 = 1.44.
PUBLISHED_46_08 = [
    ("財德", "0.00"), ("寶庫", "1.44"), ("六合", "2.88"), ("迎福", "4.32"),
    ("退財", "5.76"), ("公事", "7.20"), ("牢執", "8.64"), ("孤寡", "10.08"),
    ("長庫", "11.52"), ("劫財", "12.96"), ("官鬼", "14.40"), ("失脫", "15.84"),
    ("添丁", "17.28"), ("益利", "18.72"), ("貴子", "20.16"), ("大吉", "21.60"),
    ("順科", "23.04"), ("橫財", "24.48"), ("進益", "25.92"), ("富貴", "27.36"),
    ("死別", "28.80"), ("退口", "30.24"), ("離鄉", "31.68"),
]  # fmt: skip


@pytest.mark.parametrize(("division", "start"), PUBLISHED_46_08)
def test_the_longest_variant_follows_a_published_table(division: str, start: str) -> None:
    length = Decimal("46.08")
    assert read(Decimal(start) + TINY, length).division.name == division
    assert read(Decimal(start) + TINY, length).division_span.start == Fraction(start)
    if start != "0.00":
        assert read(Decimal(start), length).division.name == division
        assert read(Decimal(start) - Decimal("0.01"), length).division.name != division


def test_a_reading_tells_where_the_measure_lies() -> None:
    # 88 cm is 2 rulers (85.8) and 2.2 cm: in 財, between 1.340625 (寶庫) and 2.68125.
    here = read(88)
    assert signs(here) == ("財", "寶庫")
    assert (here.cm, here.length, here.turn) == (Fraction(88), Fraction("42.9"), 2)
    assert here.position == Fraction("2.2")
    assert here.within == Fraction("0.859375")
    assert here.span == Span(Fraction("85.8"), Fraction("91.1625"))
    assert here.division_span == Span(Fraction("87.140625"), Fraction("88.48125"))
    assert here.auspicious


# --- suggestions ---


def test_an_auspicious_measure_is_its_own_suggestion() -> None:
    (own,) = read(88).suggestions
    assert own.character.name == "財"
    assert own.span == Span(Fraction("85.8"), Fraction("91.1625"))
    assert str(own.nearest_cm) == "88.0"


@pytest.mark.parametrize(
    ("cm", "lower", "higher"),
    [
        # 病 (5.3625 to 10.725) lies above 財, and 離 follows before 義 begins at 16.0875.
        ("7", ("財", "0", "5.3625", "5.3"), ("義", "16.0875", "21.45", "16.1")),
        ("12", ("財", "0", "5.3625", "5.3"), ("義", "16.0875", "21.45", "16.1")),
        # 劫 and 害 (26.8125 to 37.5375) lie between 官 and 本.
        ("30", ("官", "21.45", "26.8125", "26.8"), ("本", "37.5375", "42.9", "37.6")),
        # 210 cm is 4 rulers (171.6) and 38.4 cm; 205 cm leaves 33.4 cm, which is 害.
        ("205", ("官", "193.05", "198.4125", "198.4"), ("本", "209.1375", "214.5", "209.2")),
    ],
)
def test_an_inauspicious_measure_has_one_to_either_side(
    cm: str, lower: tuple[str, str, str, str], higher: tuple[str, str, str, str]
) -> None:
    found = read(Decimal(cm))
    assert not found.auspicious
    assert [(near.character.name, near.span, str(near.nearest_cm)) for near in found.suggestions] == [
        (name, Span(Fraction(start), Fraction(end)), nearest) for name, start, end, nearest in (lower, higher)
    ]


@pytest.mark.parametrize(
    ("cm", "nearest"),
    # Rounding must not leave the range (財 ends at 5.3625), nor come out at 0, which is no measure.
    [("5.36", "5.3"), ("5.34", "5.3"), ("0.01", "0.1"), ("0.1", "0.1"), ("16.09", "16.1"), ("42.86", "42.8")],
)
def test_the_nearest_millimetre_stays_in_the_range(cm: str, nearest: str) -> None:
    (own,) = read(Decimal(cm)).suggestions
    assert str(own.nearest_cm) == nearest


@given(measures, lengths)
@example(Decimal("0.0001"), DEFAULT_LENGTH_CM)
@example(Decimal(10_000), DEFAULT_LENGTH_CM)
def test_suggestions_are_auspicious_and_the_nearest_there_are(cm: Decimal, length: Decimal) -> None:
    found = read(cm, length)
    for near in found.suggestions:
        again = read(near.nearest_cm, length) if near.nearest_cm <= 10_000 else None
        assert near.character.auspicious
        assert Fraction(near.nearest_cm) in near.span
        assert near.nearest_cm > 0
        assert near.nearest_cm == near.nearest_cm.quantize(MM)
        if again is not None:
            assert (again.character, again.span) == (near.character, near.span)
    if found.auspicious:
        (own,) = found.suggestions
        assert own.span == found.span
        assert abs(own.nearest_cm - cm) <= MM
    else:
        lower, higher = found.suggestions
        # No auspicious millimetre is nearer on either side.
        assert lower.nearest_cm < cm < higher.nearest_cm
        assert not read(lower.nearest_cm + MM, length).auspicious
        if higher.nearest_cm - MM <= 10_000:
            assert not read(higher.nearest_cm - MM, length).auspicious


# --- what holds for all measures ---


@given(measures, lengths, st.integers(1, 20))
def test_the_ruler_is_periodic(cm: Decimal, length: Decimal, turns: int) -> None:
    shifted = cm % length + turns * length
    here, there = read(cm % length or length, length), read(shifted, length)
    assert signs(here) == signs(there)
    assert (here.position, here.within) == (there.position, there.within)
    assert there.turn == turns


@given(measures, lengths)
def test_a_measure_lies_in_its_own_ranges(cm: Decimal, length: Decimal) -> None:
    found = read(cm, length)
    assert found.cm in found.span
    assert found.cm in found.division_span
    assert found.span.start <= found.division_span.start
    assert found.division_span.end <= found.span.end
    assert found.turn * found.length + found.position == found.cm
    assert found.division in found.character.divisions
    assert found.auspicious == (found.character.name in "財義官本")


@given(measures)
def test_decimals_and_fractions_read_alike(cm: Decimal) -> None:
    assert read(cm) == read(Fraction(cm), Fraction("42.9"))


def test_a_span_holds_exact_measures_only() -> None:
    assert Fraction(1) in Span(Fraction(1), Fraction(2))
    assert Fraction(2) not in Span(Fraction(1), Fraction(2))
    assert 1.5 not in Span(Fraction(1), Fraction(2))


# --- what is refused ---


@pytest.mark.parametrize(
    ("cm", "problem"),
    [
        (Decimal(0), "must be more than 0"),
        (0, "must be more than 0"),
        (Decimal("-0.1"), "must be from 0 to 10000 cm"),
        (Fraction(-1, 3), "must be from 0 to 10000 cm"),
        (Decimal("10000.0001"), "must be from 0 to 10000 cm"),
        (Decimal("1e999999"), "must be from 0 to 10000 cm"),
        (Decimal("1e-999999"), "has more than 30 decimals"),
        (Decimal("NaN"), "must be a finite number"),
        (Decimal("sNaN"), "must be a finite number"),
        (Decimal("Infinity"), "must be a finite number"),
        (88.5, "must be a Decimal, a Fraction or an int"),
        (True, "must be a Decimal, a Fraction or an int"),
        ("88", "must be a Decimal, a Fraction or an int"),
    ],
)
def test_measures_that_cannot_be_read_are_refused(cm: Decimal, problem: str) -> None:
    with pytest.raises(MeasureError) as caught:
        read(cm)
    assert caught.value.field == "cm"
    assert str(caught.value) == f"cm: {problem}"


@pytest.mark.parametrize("length", [Decimal("29.9"), Decimal("60.1"), Decimal("NaN"), Decimal(0)])
def test_lengths_that_no_ruler_has_are_refused(length: Decimal) -> None:
    with pytest.raises(MeasureError) as caught:
        read(Decimal(88), length)
    assert caught.value.field == "length_cm"


@pytest.mark.parametrize(
    ("text", "cm"),
    [
        ("88.5", "88.5"),
        (" 210 ", "210"),
        ("８８．５", "88.5"),
        ("０.1", "0.1"),
        ("10000", "10000"),
        ("88,5", "88.5"),
        ("８８，５", "88.5"),
        ("88,25", "88.25"),
        ("88.5cm", "88.5"),
        ("88.5 CM", "88.5"),
        ("88,5 ㎝", "88.5"),
        ("88.5公分", "88.5"),
        ("88 公分 ", "88"),
        ("88厘米", "88"),
        ("-1", "-1"),
        ("\N{MINUS SIGN}0.5 cm", "-0.5"),
        ("9" * 40, "9" * 40),
    ],
)
def test_typed_measures_are_understood(text: str, cm: str) -> None:
    assert parse_cm(text) == Decimal(cm)


@pytest.mark.parametrize(
    "text",
    ["", " ", "many", "+1", "1e3", "nan", "inf", ".5", "5.", "1_0", "8 8", "٣", "1" * 61, "0x10", "--1", "- 1", "-",
     "1,234", "1,5,5", "1.5,5", "88 mm", "88 cm cm", "cm", "8.8 公尺", "cm 88"],
)  # fmt: skip
def test_other_text_is_refused_and_the_field_named(text: str) -> None:
    with pytest.raises(MeasureError, match="a number of centimetres") as caught:
        parse_cm(text, "width")
    assert caught.value.field == "width"


@given(st.text(max_size=60))
def test_whatever_is_typed_is_a_measure_or_a_measure_error(text: str) -> None:
    try:
        found = parse_cm(text)
    except MeasureError:
        return
    assert found.is_finite()
