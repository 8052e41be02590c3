"""Quantification: the formula by hand, what stands out, and what must hold whatever is answered."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban_app.catalogue import Catalogue, Group, Indicator, Option, Part, Source, Text, catalogue
from luban_app.house.samples import SAMPLES
from luban_app.house.scoring import (
    AnswerError,
    Finding,
    Score,
    UnknownIndicatorError,
    UnknownOptionError,
    evaluate,
)

WORDS = Text("字", "words")
SOURCE = Source("folk", WORDS, WORDS)


def indicator(id_: str, part: str, weight: int, *scores: int) -> Indicator:
    """An indicator whose options are named after their scores."""
    options = tuple(Option(str(score), WORDS, score, WORDS) for score in scores)
    return Indicator(id_, part, "g", WORDS, WORDS, weight, options, WORDS, SOURCE)


def part(id_: str, *indicators: Indicator) -> Part:
    return Part(id_, WORDS, (Group("g", id_, WORDS, indicators),))


SMALL = Catalogue(
    (
        part("outside", indicator("road", "outside", 5, 5, 0, -5), indicator("water", "outside", 2, 3, 0, -4)),
        part("inside", indicator("bed", "inside", 4, 4, 0, -5), indicator("stove", "inside", 5, 4, -4)),
    )
)


# --- the formula ---


def test_the_formula_by_hand() -> None:
    result = evaluate(SMALL, {"road": "-5", "water": "3", "bed": "4"})
    # The outside is 50 and ten times (5 * -5 + 2 * 3) / (5 + 2), or 50 - 190 / 7.
    assert result.part("outside") == Score(50 - 190 / 7, answered=2, asked=2)
    # Inside: 50 + 10 * (4 * 4) / 4 = 90, with one of two answered.
    assert result.part("inside") == Score(90.0, answered=1, asked=2)
    assert result.part("inside").share == 0.5
    # Total, over the answers and not over the parts: 50 + 10 * (-25 + 6 + 16) / (5 + 2 + 4) = 50 - 30 / 11.
    assert result.total.value == pytest.approx(50 - 30 / 11)
    assert result.total.share == 0.75


def test_nothing_answered_is_no_score() -> None:
    result = evaluate(SMALL, {})
    assert [part.score for part in result.parts] == [Score(None, 0, 2), Score(None, 0, 2)]
    assert result.total == Score(None, 0, 4)
    assert result.total.share == 0
    assert (result.worst, result.best) == ((), ())


def test_a_part_without_answers_has_no_score_beside_one_that_has() -> None:
    result = evaluate(SMALL, {"bed": "0"})
    assert result.part("outside").value is None
    assert result.part("inside").value == result.total.value == 50


def test_the_ends_of_the_scale() -> None:
    assert evaluate(SMALL, {"road": "5"}).total.value == 100
    assert evaluate(SMALL, {"road": "-5"}).total.value == 0


def test_scores_beyond_the_scale_are_clamped() -> None:
    wild = Catalogue((part("outside", indicator("road", "outside", 1, 9, -9)),))
    assert evaluate(wild, {"road": "9"}).total.value == 100
    assert evaluate(wild, {"road": "-9"}).total.value == 0


def test_an_unknown_part_is_an_error_and_nothing_asked_is_no_share() -> None:
    with pytest.raises(KeyError):
        evaluate(SMALL, {}).part("garden")
    assert Score(None, 0, 0).share == 0


# --- what stands out ---


def names(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.indicator.id for finding in findings]


def test_worst_are_negative_only_and_best_are_positive_only() -> None:
    result = evaluate(SMALL, {"road": "0", "water": "-4", "bed": "4"})
    assert names(result.worst) == ["water"]
    assert names(result.best) == ["bed"]
    assert result.worst[0].indicator.remedy is WORDS
    assert (result.worst[0].option.score, result.worst[0].contribution) == (-4, -8)


def test_they_are_ordered_by_weight_times_score_then_by_the_catalogue() -> None:
    # road -25, water -8, bed -20, stove -20: bed stands before stove in the catalogue; water is one too many.
    bad = evaluate(SMALL, {"stove": "-4", "water": "-4", "bed": "-5", "road": "-5"})
    assert names(bad.worst) == ["road", "bed", "stove"]
    # road +25, water +6, bed +16, stove +20.
    good = evaluate(SMALL, {"water": "3", "stove": "4", "bed": "4", "road": "5"})
    assert names(good.best) == ["road", "stove", "bed"]


# --- unknown answers ---


def test_an_unknown_indicator_is_named() -> None:
    with pytest.raises(UnknownIndicatorError, match=r"^roof: no such indicator$") as caught:
        evaluate(SMALL, {"roof": "0", "road": "0"})
    assert (caught.value.field, caught.value.value) == ("roof", "0")
    assert isinstance(caught.value, AnswerError)


def test_an_unknown_option_is_named_with_its_field() -> None:
    with pytest.raises(UnknownOptionError, match=r"^road: no such option: '7'$") as caught:
        evaluate(SMALL, {"road": "7"})
    assert caught.value.field == "road"


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(UnknownIndicatorError) as caught:
        evaluate(SMALL, {"x" * 10_000: "0"})
    assert len(str(caught.value)) < 100
    assert len(caught.value.field) == 10_000


# --- the paper's two flats ---


def test_two_flats_on_one_campus_differ_inside_and_not_outside() -> None:
    """The paper's example (section 4.2): same kind of flat, same campus, other rooms.

    By hand, the sums of weight * score over the catalogue's order:

    outside, both: house-type 2*0, backing 3*1, bright-hall 3*4, dragon-tiger 2*2, gathering-wind 4*2, slope 2*2,
      temple 3*2, burial-ground 4*2, hospital 2*2, derelict 3*3, pylon 3*2, fire 3*2, noise 3*-2, pole-at-door 2*-2,
      water-course 4*3, water-quality 2*3, flood 5*1, road-rush 5*0, road-curve 3*1, dead-end 2*2, flyover 3*2
      = 96 of weight 63: 50 + 960/63 = 65.24
    building (15 indicators, weight 40, of which sitting-direction with weight 2 is not answered):
      A: missing-corners 4*4, proportion 2*3, ground-floor 2*1, height 3*3, sky-cut 4*2, wall-blade 4*-1, corner 0,
      glare 0, main-entrance 3*2, ramp 2*2, shared-spaces 2*1, facade 0, pipes 0, trees 2*3
      = 55 of weight 38: 50 + 550/38 = 64.47
      B: as A, but missing-corners 4*-3 and ground-floor 2*-2 = 55 - 28 - 6 = 21: 50 + 210/38 = 55.53
    inside, 23 indicators of weight 78:
      A: 20 + 6 + 0 - 3 + 4 + 20 + 8 + 9 + 4 + 12 + 9 + 12 + 5 + 16 + 0 + 9 + 6 + 6 + 2 + 9 + 8 + 16 + 0
      = 178: 50 + 1780/78 = 72.82
      B: -15 + 0 - 6 - 12 - 4 - 15 - 12 + 3 - 12 + 4 + 0 + 4 - 25 - 8 - 6 - 6 - 4 + 0 - 4 + 0 + 0 + 0 - 12
      = -130: 50 - 1300/78 = 33.33
    total, weight 179: A 96 + 55 + 178 = 329: 50 + 3290/179 = 68.38; B 96 + 21 - 130 = -13: 50 - 130/179 = 49.27
    """
    a, b = (evaluate(catalogue(), sample.answers) for sample in SAMPLES)
    assert a.part("outside") == b.part("outside")
    assert a.part("outside").value == pytest.approx(50 + 960 / 63)
    assert a.part("building").value == pytest.approx(50 + 550 / 38)
    assert b.part("building").value == pytest.approx(50 + 210 / 38)
    assert a.part("inside").value == pytest.approx(50 + 1780 / 78)
    assert b.part("inside").value == pytest.approx(50 - 1300 / 78)
    assert a.total.value == pytest.approx(50 + 3290 / 179)
    assert b.total.value == pytest.approx(50 - 130 / 179)
    assert (a.total.answered, a.total.asked) == (58, 59)
    # B: beam -25, then piercing hall and toilet -15 each, in the catalogue's order.
    assert names(b.worst) == ["beam-over-bed", "piercing-hall", "toilet-centre"]
    # A: piercing hall and toilet +20 each; missing corners, bed's head and airing have +16, the first of them counts.
    assert names(a.best) == ["piercing-hall", "toilet-centre", "missing-corners"]


def test_the_samples_are_of_one_kind_and_differ_in_the_flat_alone() -> None:
    a, b = (sample.answers for sample in SAMPLES)
    assert a.keys() == b.keys()
    assert a["house-type"] == b["house-type"] == "walk-up"
    differing = {key for key in a if a[key] != b[key]}
    parts = {key: found.part for key in differing if (found := catalogue().indicator(key))}
    assert {key for key, part_id in parts.items() if part_id != "inside"} == {"missing-corners", "ground-floor"}
    assert "outside" not in parts.values()


def test_the_samples_say_what_they_are_in_both_languages() -> None:
    assert len({sample.id for sample in SAMPLES}) == 2
    for sample in SAMPLES:
        assert "範例" in sample.names.zh_tw
        assert "sample" in sample.names.en
        assert "非真實住宅" in sample.notes.zh_tw
        assert "no real home" in sample.notes.en


# --- what holds whatever is answered ---


@st.composite
def answers(draw: st.DrawFn) -> dict[str, str]:
    """Answers to some of the shipped catalogue."""
    chosen = draw(st.lists(st.sampled_from(catalogue().indicators), unique_by=lambda found: found.id))
    return {found.id: draw(st.sampled_from(found.options)).id for found in chosen}


@given(answers())
def test_scores_are_from_0_to_100_and_there_is_one_exactly_if_something_is_answered(given_: dict[str, str]) -> None:
    result = evaluate(catalogue(), given_)
    for score in (*(part.score for part in result.parts), result.total):
        assert (score.value is None) == (score.answered == 0)
        assert score.value is None or 0 <= score.value <= 100
        assert 0 <= score.share <= 1
    assert sum(part.score.answered for part in result.parts) == result.total.answered == len(given_)


@given(answers(), st.randoms(use_true_random=False))
def test_the_order_of_the_answers_does_not_matter(given_: dict[str, str], chance: random.Random) -> None:
    items = list(given_.items())
    chance.shuffle(items)
    assert evaluate(catalogue(), dict(items)) == evaluate(catalogue(), given_)


@given(answers(), st.data())
def test_a_better_option_never_lowers_a_score(given_: dict[str, str], data: st.DataObject) -> None:
    changed = data.draw(st.sampled_from(catalogue().indicators))
    worse, better = sorted(
        data.draw(st.lists(st.sampled_from(changed.options), min_size=2, max_size=2)), key=lambda option: option.score
    )
    low = evaluate(catalogue(), {**given_, changed.id: worse.id})
    high = evaluate(catalogue(), {**given_, changed.id: better.id})
    for part_id in (part.id for part in catalogue().parts):
        before, after = low.part(part_id).value, high.part(part_id).value
        assert (before is None and after is None) or (before is not None and after is not None and before <= after)
    assert low.total.value is not None
    assert high.total.value is not None
    assert low.total.value <= high.total.value


@given(answers())
def test_the_value_is_the_formula_exactly_computed(given_: dict[str, str]) -> None:
    pairs = []
    for key, value in given_.items():
        found = catalogue().indicator(key)
        option = found.option(value) if found else None
        assert found is not None
        assert option is not None
        pairs.append((found.weight, option.score))
    if pairs:
        exact = 50 + 10 * Fraction(sum(w * s for w, s in pairs), sum(w for w, _ in pairs))
        assert evaluate(catalogue(), given_).total.value == float(exact)


@given(answers())
def test_what_stands_out_is_sorted_and_has_the_right_sign(given_: dict[str, str]) -> None:
    result = evaluate(catalogue(), given_)
    worst = [finding.contribution for finding in result.worst]
    best = [finding.contribution for finding in result.best]
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert len(worst) <= 3
    assert len(best) <= 3
    assert all(value < 0 for value in worst)
    assert all(value > 0 for value in best)
