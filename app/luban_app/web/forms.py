"""The evaluation form: its steps, what each of them keeps, and where to go from one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from luban_app.catalogue import Catalogue, Language, Part
from luban_app.house.records import ADDRESS_LENGTH, NAME_LENGTH, NOTES_LENGTH, Draft, Home
from luban_app.house.service import House, InputError
from luban_app.web.language import Translator

HOME = "home"
"""The step before the parts: name, address and notes."""
START = f"/evaluate/{HOME}"
DRAFT_FIELD = "draft"
"""Hidden in every page of the form: which form it belongs to."""
NEW_FIELD = "new"
"""Hidden in the first page of a form that is to begin."""
WAS_FIELD = "was"
"""Hidden in every page of the form: what it showed, so that only what was changed in it is taken from it."""
LANGUAGE = "lang-"
"""How a button says that it switches the language: the step is saved before."""
LATER = "later"
_TEXTS = ("name", "address", "notes")
_DRAFT = re.compile(r"[A-Za-z0-9_-]{0,40}")


@dataclass(frozen=True)
class Problem:
    """What is wrong, for people; `field` is the id of the element to go to, empty if it is no single one."""

    field: str
    message: str
    address: str = ""
    """Where to go instead; empty: there is no such place."""


@dataclass(frozen=True)
class Field:
    """A text field of the first step."""

    id: str
    value: str
    length: int
    required: bool = False
    long: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Step:
    """One step as the progress bar shows it; `asked` is 0 in the first."""

    id: str
    name: str
    answered: int = 0
    asked: int = 0
    home: str = ""


def order(catalogue: Catalogue) -> tuple[str, ...]:
    """The steps' ids, first to last."""
    return (HOME, *(part.id for part in catalogue.parts))


def address(step: str) -> str:
    """Where a step is."""
    return f"/evaluate/{step}"


def part_of(catalogue: Catalogue, step: str) -> Part | None:
    """The part that a step is about, None for the first or for no step."""
    return next((part for part in catalogue.parts if part.id == step), None)


def progress(catalogue: Catalogue, draft: Draft, language: Language) -> list[Step]:
    """All steps, with how far each is."""
    first = Step(HOME, Translator(language)("form.home"), home=draft.home.name)
    return [first, *(_part_step(part, draft, language) for part in catalogue.parts)]


def _part_step(part: Part, draft: Draft, language: Language) -> Step:
    answered = sum(1 for indicator in part.indicators if indicator.id in draft.answers)
    return Step(part.id, part.names.get(language), answered, len(part.indicators))


def next_step(catalogue: Catalogue, step: str) -> str | None:
    """The step after `step`, None after the last."""
    steps = order(catalogue)
    at = steps.index(step) + 1
    return steps[at] if at < len(steps) else None


def previous_step(catalogue: Catalogue, step: str) -> str:
    """The step before `step`; the first is its own."""
    steps = order(catalogue)
    return steps[max(steps.index(step) - 1, 0)]


def leads_to(catalogue: Catalogue, step: str, go: str) -> str:
    """The step that a button leads to: its own for those that leave it as it is; a value that no button has: the next.

    The last step leads to itself: what comes after it is no step.
    """
    if go == LATER or go.startswith(LANGUAGE):
        return step
    if go == "back":
        return previous_step(catalogue, step)
    return go if go in order(catalogue) else next_step(catalogue, step) or step


def resume_at(catalogue: Catalogue, draft: Draft | None) -> str:
    """Where a form goes on: where it was left."""
    if draft is None or not draft.home.name:
        return HOME
    return draft.step if draft.step in order(catalogue) else catalogue.parts[0].id


def fields(given: Mapping[str, str], problems: Mapping[str, str]) -> list[Field]:
    """The text fields of the first step with what was typed and what is wrong with it."""
    kinds = (
        Field("name", "", NAME_LENGTH, required=True),
        Field("address", "", ADDRESS_LENGTH),
        Field("notes", "", NOTES_LENGTH, long=True),
    )
    return [replace(kind, value=given.get(kind.id, ""), problem=problems.get(kind.id, "")) for kind in kinds]


def home_of(home: Home) -> dict[str, str]:
    """What is in the fields of the first step."""
    return {"name": home.name, "address": home.address, "notes": home.notes}


def read_home(house: House, given: Mapping[str, str], *, complete: bool) -> Home | dict[str, InputError]:
    """The home that was typed in, or all faults by field; it needs a name only if `complete`."""
    name, address_, notes = (given.get(field, "") for field in _TEXTS)
    faults = {}
    # Each field alone: people want to see all that is wrong at once.
    for one in ((name, "", ""), ("", address_, ""), ("", "", notes)):
        try:
            house.draft_home(*one)
        except InputError as error:
            faults[error.field] = error
    if faults:
        return faults
    try:
        return (house.home if complete else house.draft_home)(name, address_, notes)
    except InputError as error:
        return {error.field: error}


def read_part(house: House, part: Part, given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, InputError]]:
    """The good answers to one part and the faults by indicator. Answers to other parts are not looked at."""
    found: dict[str, str] = {}
    faults = {}
    for indicator in part.indicators:
        try:
            found |= house.answers({indicator.id: given.get(indicator.id, "")})
        except InputError as error:
            faults[indicator.id] = error
    return found, faults


def draft_of(given: Mapping[str, str]) -> str | None:
    """Which form a page that was sent belongs to; None: no page of ours sends that."""
    sent = given.get(DRAFT_FIELD, "")
    return sent if _DRAFT.fullmatch(sent) else None


def was_home(home: Home) -> str:
    """What the first step shows: a short hash of each text."""
    return " ".join(
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] for text in home_of(home).values()
    )


def was_answers(part: Part, answers: Mapping[str, str]) -> str:
    """What a part's step shows: indicator:option for each that is answered."""
    return " ".join(f"{it.id}:{answers[it.id]}" for it in part.indicators if it.id in answers)


def changed_texts(given: Mapping[str, str], home: Home) -> dict[str, str]:
    """The texts of `home` that are not what its page showed; all, if it does not say what that was."""
    shown, now = (text.split() for text in (given.get(WAS_FIELD, ""), was_home(home)))
    if len(shown) != len(now):
        return home_of(home)
    pairs = zip(home_of(home).items(), shown, now, strict=True)
    return {name: text for (name, text), before, after in pairs if before != after}


def changed_indicators(given: Mapping[str, str], part: Part, wrong: Collection[str]) -> set[str]:
    """The indicators whose answers are not what the page showed, without those with a wrong one.

    All, if the page does not say what it showed.
    """
    theirs = {indicator.id for indicator in part.indicators} - set(wrong)
    if WAS_FIELD not in given:
        return theirs
    shown = dict(pair.split(":", 1) for pair in given[WAS_FIELD].split() if ":" in pair)
    return {indicator for indicator in theirs if given.get(indicator, "") != shown.get(indicator, "")}
