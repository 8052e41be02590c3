"""The house catalogue: that the shipped data hold what is promised, and that faults are named with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luban_app.catalogue import LANGUAGES, Catalogue, CatalogueError, Option, Text, catalogue, read
from luban_app.catalogue.model import SCORE_MAX, SCORE_MIN, WEIGHT_MAX, WEIGHT_MIN

SOURCES = """\
sources:
  - id: folk
    title: {zh-TW: 民間通說, en: Folk usage}
    note: {zh-TW: 民間說法。, en: Commonly said.}
"""

PART = """\
part: PART
names: {zh-TW: 部分, en: A part}
groups:
  - {id: g, names: {zh-TW: 組, en: A group}}
indicators:
  - id: PART-one
    group: g
    names: {zh-TW: 指標, en: An indicator}
    weight: 3
    source: folk
    definition: {zh-TW: 定義。, en: A definition.}
    options:
      - {id: good, score: 3, label: {zh-TW: 好, en: Good}, reason: {zh-TW: 理由。, en: A reason.}}
      - {id: fair, score: 0, label: {zh-TW: 平, en: Fair}, reason: {zh-TW: 理由。, en: A reason.}}
      - {id: bad, score: -3, label: {zh-TW: 差, en: Bad}, reason: {zh-TW: 理由。, en: A reason.}}
    remedy: {zh-TW: 化解。, en: A remedy.}
"""


ONE = "indicator 'inside-one'"
NO_TEXT = "expected text (quote it if it looks like a number or yes or no)"
GOOD = f"{ONE}: option 'good'"


def small() -> dict[str, str]:
    """The smallest catalogue that is whole but for the number of its indicators."""
    parts = {f"{part}.yaml": PART.replace("PART", part) for part in ("outside", "building", "inside")}
    return {"sources.yaml": SOURCES, **parts}


def changed(old: str, new: str, file: str = "inside.yaml", times: int = 1) -> dict[str, str]:
    """The small catalogue with one change."""
    files = small()
    assert old in files[file]
    return {**files, file: files[file].replace(old, new, times)}


def faults(files: dict[str, str], min_indicators: int = 3) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        read(files, min_indicators)
    assert str(caught.value) == "\n".join(map(str, caught.value.faults))
    return [str(fault) for fault in caught.value.faults]


# --- the shipped data ---


def texts(found: Catalogue) -> Iterator[tuple[str, Text]]:
    """All words that a reader may see, with where they stand."""
    for part in found.parts:
        yield part.id, part.names
        yield from ((group.id, group.names) for group in part.groups)
    for source in found.sources.values():
        yield from ((source.id, text) for text in (source.title, source.note, source.author, source.chapter) if text)
    for indicator in found.indicators:
        yield from ((indicator.id, text) for text in (indicator.names, indicator.definition, indicator.remedy))
        for option in indicator.options:
            yield from ((f"{indicator.id}/{option.id}", text) for text in (option.label, option.reason))


def test_it_is_read_once() -> None:
    assert catalogue() is catalogue()


def test_there_are_enough_indicators_in_the_three_parts() -> None:
    found = catalogue()
    assert [part.id for part in found.parts] == ["outside", "building", "inside"]
    assert len(found.indicators) >= 46
    assert all(len(part.indicators) >= 12 for part in found.parts)


def test_ids_are_unique_and_lead_back_to_their_indicators() -> None:
    found = catalogue()
    assert len({indicator.id for indicator in found.indicators}) == len(found.indicators)
    for part in found.parts:
        for group in part.groups:
            assert group.indicators
            for indicator in group.indicators:
                assert (indicator.part, indicator.group) == (part.id, group.id)
                assert found.indicator(indicator.id) is indicator
    assert found.indicator("no-such") is None
    assert found.indicators[0].option("no-such") is None


def test_numbers_are_in_range_and_every_indicator_can_be_answered_without_loss() -> None:
    for indicator in catalogue().indicators:
        scores = [option.score for option in indicator.options]
        assert WEIGHT_MIN <= indicator.weight <= WEIGHT_MAX
        assert 3 <= len(scores) <= 6
        assert all(SCORE_MIN <= score <= SCORE_MAX for score in scores)
        assert max(scores) >= 0, indicator.id
        assert min(scores) < 0, f"{indicator.id} has a remedy for nothing"


def test_every_part_has_good_and_bad_options() -> None:
    for part in catalogue().parts:
        scores = {option.score for indicator in part.indicators for option in indicator.options}
        assert min(scores) <= -4
        assert max(scores) >= 4


# Whoever does not know, or has nothing of the kind, leaves the indicator unanswered: an option would count as a 50.
NO_ANSWER_IDS = {"unknown", "unsure", "not-sure", "not-known", "not-looked-up", "not-applicable", "na", "skip", "other"}
NO_ANSWER_ZH = "不知|不確定|不清楚|未查|未知|未答|不適用|無法判斷|略過|沒有資料|可論|沒有書桌|沒有水"
NO_ANSWER_EN = (
    r"unknown|not (sure|known|certain|looked|applicable|answered)|unsure|(don't|do not) know|does(n't| not) apply"
    r"|\bn/?a\b|nothing (is known|to judge)|\bskip|\bthere is no\b|\bno (water|desk|data)\b"
)


def no_answer(option: Option) -> bool:
    """Whether an option says that there is nothing to say."""
    zh_tw, en = (f"{option.label.get(language)} {option.reason.get(language)}" for language in LANGUAGES)
    return bool(option.id in NO_ANSWER_IDS or re.search(NO_ANSWER_ZH, zh_tw) or re.search(NO_ANSWER_EN, en, re.I))


def test_no_option_means_that_nothing_is_known() -> None:
    found = [f"{one.id}/{option.id}" for one in catalogue().indicators for option in one.options if no_answer(option)]
    assert found == []


@pytest.mark.parametrize("indicator_id", ["sitting-direction", "water-course", "water-quality", "desk"])
def test_where_there_may_be_nothing_to_say_the_definition_tells_people_to_skip(indicator_id: str) -> None:
    indicator = catalogue().indicator(indicator_id)
    assert indicator is not None
    assert "就略過這一項" in indicator.definition.zh_tw
    assert "skip this one" in indicator.definition.en


def test_books_that_nobody_here_has_read_are_not_cited() -> None:
    # The paper's bibliography names them; what they say about an indicator is not known.
    authors = " ".join(source.author.zh_tw for source in catalogue().sources.values() if source.author)
    assert "吳彰裕" not in authors
    source = catalogue().sources["luban-cloud"]
    assert [one.id for one in catalogue().indicators if one.source is source] == ["house-type"]


def test_authorship_that_tradition_only_claims_is_said_to_be_a_claim() -> None:
    for name in ("zangshu", "bazhai"):
        author = catalogue().sources[name].author
        assert author is not None
        assert author.zh_tw.endswith("（傳）")
        assert author.en.startswith("attributed to ")


def sentences(text: str, language: str) -> int:
    marks = r"[。！？]" if language == "zh-TW" else r"[.!?](?=\s|$)"
    return len(re.findall(marks, text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_definitions_are_two_to_four_sentences_and_reasons_are_one(language: str) -> None:
    for indicator in catalogue().indicators:
        assert 2 <= sentences(indicator.definition.get(language), language) <= 4, indicator.id  # type: ignore[arg-type]
        for option in indicator.options:
            assert sentences(option.reason.get(language), language) == 1, f"{indicator.id}/{option.id}"  # type: ignore[arg-type]


def test_the_chinese_is_traditional() -> None:
    # Big5 has no simplified characters: whatever does not fit in it has slipped in from elsewhere.
    for where, text in texts(catalogue()):
        assert text.zh_tw.encode("cp950"), where


def test_the_english_has_no_chinese_punctuation_and_the_chinese_no_english_words() -> None:
    for where, text in texts(catalogue()):
        assert not re.search(r"[，。；：！？（）]", text.en.replace("氣乘風則散，界水則止", "")), where
        assert not re.search(r"[A-Za-z]{4,}", text.zh_tw), where


def test_the_one_quotation_stands_where_it_belongs() -> None:
    quoting = [indicator for indicator in catalogue().indicators if "氣乘風則散" in indicator.definition.zh_tw]
    assert [indicator.source.id for indicator in quoting] == ["zangshu"]


@pytest.mark.parametrize(
    ("indicator_id", "zh_tw", "en"),
    [
        ("flood", "專業技師", "engineer"),
        ("facade", "專業技師", "engineer"),
        ("damp", "專業技師", "engineer"),
        ("kitchen-air", "合格人員", "licensed"),
        ("bath-air", "合格人員", "licensed"),
        ("fire-neighbour", "消防", "fire department"),
        ("slope", "專業技師", "engineer"),
        ("house-type", "建築師", "architect"),
        # Seals that keep noise out keep fumes in.
        ("noise", "瓦斯熱水器", "gas heater"),
        ("hospital", "瓦斯熱水器", "gas heater"),
        ("flyover", "瓦斯熱水器", "gas heater"),
    ],
)
def test_real_hazards_send_people_to_professionals_or_warn(indicator_id: str, zh_tw: str, en: str) -> None:
    indicator = catalogue().indicator(indicator_id)
    assert indicator is not None
    assert zh_tw in indicator.remedy.zh_tw
    assert en in indicator.remedy.en


def test_text_speaks_both_languages_and_no_other() -> None:
    text = Text("門", "door")
    assert [text.get(language) for language in LANGUAGES] == ["門", "door"]
    with pytest.raises(ValueError, match="'de' is not one of zh-TW, en"):
        text.get("de")  # type: ignore[arg-type]


# --- the loader ---


def test_a_small_catalogue_can_be_read() -> None:
    found = read(small(), min_indicators=3)
    (indicator,) = found.parts[0].indicators
    assert indicator.id == "outside-one"
    assert indicator.names == Text("指標", "An indicator")
    assert [option.score for option in indicator.options] == [3, 0, -3]
    assert indicator.source.title.en == "Folk usage"


def test_groups_and_indicators_keep_the_files_order() -> None:
    files = changed("  - {id: g,", "  - {id: f, names: {zh-TW: 組, en: First}}\n  - {id: g,")
    second = (
        files["inside.yaml"]
        .split("indicators:\n")[1]
        .replace("inside-one", "inside-two")
        .replace("group: g", "group: f")
    )
    found = read({**files, "inside.yaml": files["inside.yaml"] + second}, min_indicators=3)
    assert [indicator.id for indicator in found.parts[2].indicators] == ["inside-two", "inside-one"]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("weight: 3", "weight: 0", 9, "indicator 'inside-one': weight: 0 is not in 1..5"),
        ("weight: 3", "weight: 6", 9, "indicator 'inside-one': weight: 6 is not in 1..5"),
        ("weight: 3", "weight: 2.5", 9, "indicator 'inside-one': weight: expected a whole number"),
        ("weight: 3", "weight: '3'", 9, "indicator 'inside-one': weight: expected a whole number"),
        ("weight: 3", "weight: [3]", 9, "indicator 'inside-one': weight: expected a whole number"),
        ("weight: 3\n", "weight: 3\n    wieght: 3\n", 10, "indicator: unknown key 'wieght'"),
        ("weight: 3\n", "weight: 3\n    weight: 4\n", 10, "indicator: key 'weight' stands twice"),
        ("    weight: 3\n", "", 6, "indicator: 'weight' is missing"),
        ("weight: 3\n", "weight: 3\n    ? [a]\n    : b\n", 10, "indicator: unknown key '(not text)'"),
        ("score: -3", "score: -6", 15, "indicator 'inside-one': option 'bad': score: -6 is not in -5..5"),
        ("score: 3", "score: 6", 13, "indicator 'inside-one': option 'good': score: 6 is not in -5..5"),
        ("id: fair", "id: good", 13, "indicator 'inside-one': option 'good' stands 2 times"),
        ("id: fair", "id: Fair", 14, "indicator 'inside-one': option.id: 'Fair' is not lower-case words joined by '-'"),
        ("group: g", "group: h", 7, "indicator 'inside-one': group: 'h' is not known"),
        ("source: folk", "source: hearsay", 10, "indicator 'inside-one': source: 'hearsay' is not known"),
        ("zh-TW: 化解。", "zh-TW: ''", 16, "indicator 'inside-one': remedy.zh-TW: is empty"),
        (", en: A remedy.", "", 16, "indicator 'inside-one': remedy: 'en' is missing"),
        ("en: A remedy.", "en: A remedy., de: Rat", 16, "indicator 'inside-one': remedy: unknown key 'de'"),
        ("{zh-TW: 化解。, en: A remedy.}", "none", 16, "indicator 'inside-one': remedy: expected a mapping"),
        ("en: Good", "en: Yes", 13, f"{GOOD}: label.en: {NO_TEXT}"),
        ("en: An indicator", "en: " + "x" * 61, 8, f"{ONE}: names.en: 61 characters, at most 60 are allowed"),
        ("id: inside-one", "id: outside-one", 6, "indicator 'outside-one': id stands already at outside.yaml:6"),
        ("part: inside", "part: outside", 1, "part: 'outside' in the file of part 'inside'"),
        ("names: {zh-TW: 部分, en: A part}\n", "", 1, "file: 'names' is missing"),
        ("  - {id: g,", "  - {id: g, names: {zh-TW: 組, en: G}}\n  - {id: g,", 5, "group 'g': id stands twice"),
        ("  - {id: g,", "  - {id: f, names: {zh-TW: 組, en: F}}\n  - {id: g,", 4, "group 'f': has no indicators"),
        ("names: {zh-TW: 部分", "names: {zh-TW: [部分", 2, "not YAML: did not find expected ',' or ']'"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_file_and_line(old: str, new: str, line: int, message: str) -> None:
    assert faults(changed(old, new)) == [f"inside.yaml:{line}: {message}"]


def test_too_few_and_too_many_options_are_faults() -> None:
    good = "      - {id: good, score: 3, label: {zh-TW: 好, en: Good}, reason: {zh-TW: 理由。, en: A reason.}}\n"
    assert faults(changed(good, "")) == ["inside.yaml:13: indicator 'inside-one': 2 options, 3 to 6 are needed"]
    more = "".join(good.replace("id: good", f"id: good-{number}") for number in range(5))
    assert faults(changed(good, more)) == ["inside.yaml:13: indicator 'inside-one': 7 options, 3 to 6 are needed"]


def test_an_indicator_needs_an_option_that_is_not_bad() -> None:
    files = changed("score: 3", "score: -1")
    files["inside.yaml"] = files["inside.yaml"].replace("score: 0", "score: -2")
    assert faults(files) == ["inside.yaml:13: indicator 'inside-one': needs a neutral or good option"]


def test_a_part_needs_good_and_bad_options() -> None:
    assert faults(changed("score: -3", "score: 0")) == ["inside.yaml:1: part 'inside': needs both good and bad options"]


def test_all_faults_are_found_in_all_files() -> None:
    files = changed("weight: 3", "weight: 9")
    files["inside.yaml"] = files["inside.yaml"].replace("score: 0", "score: much")
    files["building.yaml"] = files["building.yaml"].replace("group: g", "group: x")
    files["outside.yaml"] = "part: [\n"
    files["sources.yaml"] = files["sources.yaml"].replace("en: Folk usage", "en: ''")
    found = faults(files)
    # Without its title the source is unknown, so whoever names it is at fault as well.
    assert found == [
        "building.yaml:7: indicator 'building-one': group: 'x' is not known",
        "building.yaml:10: indicator 'building-one': source: 'folk' is not known",
        "inside.yaml:9: indicator 'inside-one': weight: 9 is not in 1..5",
        "inside.yaml:10: indicator 'inside-one': source: 'folk' is not known",
        "inside.yaml:14: indicator 'inside-one': option 'fair': score: expected a whole number",
        "outside.yaml:2: not YAML: did not find expected node content",
        "sources.yaml:3: source 'folk': title.en: is empty",
    ]


def test_too_few_indicators_are_a_fault() -> None:
    assert faults(small(), min_indicators=40) == [
        "outside.yaml:1: 3 indicators in all (outside 1, building 1, inside 1), at least 40 are needed"
    ]


def test_a_missing_and_an_empty_file_are_faults() -> None:
    files = small()
    del files["inside.yaml"]
    assert faults(files) == ["inside.yaml:1: file is missing"]
    assert faults({**small(), "inside.yaml": "# nothing\n"}) == ["inside.yaml:1: empty"]
    assert faults({**small(), "inside.yaml": "\x00"})[0].startswith("inside.yaml:1: not YAML")


def test_lists_must_be_lists() -> None:
    files = small()
    head = files["inside.yaml"].split("indicators:")[0]
    assert faults({**files, "inside.yaml": head + "indicators: none\n"}) == [
        "inside.yaml:5: indicators: expected a list"
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("id: folk", "id: Folk", "sources.yaml:2: source.id: 'Folk' is not lower-case words joined by '-'"),
        ("note:", "remark:", "sources.yaml:4: source: unknown key 'remark'"),
        ("    note:", "    year: soon\n    note:", "sources.yaml:4: source 'folk': year: expected a whole number"),
    ],
)
def test_faults_of_sources_are_found(old: str, new: str, fault: str) -> None:
    assert fault in faults(changed(old, new, "sources.yaml"))


def test_a_source_may_not_stand_twice() -> None:
    files = small()
    files["sources.yaml"] += SOURCES.split("\n", 1)[1]
    assert faults(files) == ["sources.yaml:5: source 'folk': id stands twice"]


def test_a_source_that_nothing_cites_is_a_fault() -> None:
    files = small()
    files["sources.yaml"] += SOURCES.split("\n", 1)[1].replace("folk", "hearsay")
    assert faults(files) == ["sources.yaml:5: source 'hearsay': is cited by no indicator"]
    # One citation, in whatever part, is enough.
    files["inside.yaml"] = files["inside.yaml"].replace("source: folk", "source: hearsay")
    assert set(read(files, min_indicators=3).sources) == {"folk", "hearsay"}


@given(st.text(max_size=200))
def test_whatever_stands_in_a_file_faults_are_reported_as_such(text: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        read({**small(), "inside.yaml": text}, min_indicators=3)
    assert all(fault.file == "inside.yaml" and fault.line >= 1 for fault in caught.value.faults)


@given(st.data())
def test_a_damaged_file_is_read_or_refused_but_never_breaks_the_loader(data: st.DataObject) -> None:
    text = small()["inside.yaml"]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    put = data.draw(st.sampled_from(["", " ", "\n", ":", "- ", "*a", "&a ", "!!int ", "{", "1", "<<: "]))
    try:
        found = read({**small(), "inside.yaml": text[:start] + put + text[end:]}, min_indicators=0)
    except CatalogueError as error:
        assert error.faults  # noqa: PT017
    else:
        assert all(part.indicators for part in found.parts)


def test_models_are_values() -> None:
    indicator = catalogue().indicators[0]
    assert replace(indicator) == indicator
    with pytest.raises(AttributeError):
        indicator.weight = 1  # type: ignore[misc]
