"""The operator before the referee: stories by chance, and those that once broke a rule; `make referee` plays more."""

from __future__ import annotations

import pytest

from tests.referee.drive import Outcome, play
from tests.referee.known import KNOWN
from tests.referee.stories import story_of
from tests.referee.story import Story

STORIES = 300
CHUNK = 15


def complaint(outcome: Outcome) -> str:
    """What was broken, and how to see it again."""
    words = "\n".join(f"{it.name} at {it.at:.0f} s: {it.message}" for it in outcome.violations)
    return f"{words}\n{outcome.story.words()}\npython -m tests.referee --story '{outcome.story.to_json()}'"


@pytest.mark.parametrize("first", range(1, STORIES + 1, CHUNK))
def test_stories_by_chance_break_no_rule(first: int) -> None:
    """The same seeds in every run. `python -m tests.referee --seed N --stories 1` shortens what breaks a rule."""
    broken = [it for it in (play(story_of(seed)) for seed in range(first, first + CHUNK)) if it.violations]
    assert not broken, "\n\n".join(f"seed {it.story.seed}: {complaint(it)}" for it in broken)


@pytest.mark.parametrize("story", KNOWN.values(), ids=KNOWN.keys())
def test_stories_that_broke_a_rule_once_do_so_no_more(story: Story) -> None:
    """Found by chance, or told by others, and mended."""
    outcome = play(story)
    assert not outcome.violations, complaint(outcome)
