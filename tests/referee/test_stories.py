"""Stories: made from seeds, printed and parsed, and played from the command line."""

from __future__ import annotations

from collections import Counter

import pytest
from click.testing import CliRunner

from tests.referee.__main__ import main
from tests.referee.bridge import LubanClusterSpec
from tests.referee.drive import play
from tests.referee.events import KINDS
from tests.referee.known import DEFAULTS, spec, story
from tests.referee.stories import story_of
from tests.referee.story import BadStory, Happening, Story
from tests.referee.wishes import legal

QUIET = story(0, spec(DEFAULTS, minVMs=2, maxVMs=2), (60, "load-is", 0))


def test_a_seed_always_makes_the_same_story() -> None:
    """What is found is found again."""
    assert story_of(7) == story_of(7)
    assert story_of(7) != story_of(8)
    assert play(story_of(7)).log == play(story_of(7)).log


def test_a_story_is_read_as_it_was_printed() -> None:
    """In a single line of JSON."""
    for seed in range(50):
        printed = story_of(seed).to_json()
        assert Story.from_json(printed) == story_of(seed)
        assert "\n" not in printed


def test_stories_hold_every_kind_of_event() -> None:
    """And each begins with a spec that the API server would take."""
    made = [story_of(seed) for seed in range(1500)]
    seen = Counter(event.kind for one in made for event in one.happenings)
    assert set(seen) == set(KINDS)
    assert all(legal(LubanClusterSpec.model_validate(one.spec)) for one in made)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a story"),
        ('{"spec": {}, "happenings": [[1]]}', "not a story"),
        ('{"spec": {}, "surprise": 1}', "surprise"),
        ("/nowhere/story.json", "cannot read /nowhere/story.json"),
        ('{"spec": {"hosts": []}}', "its spec is refused"),
    ],
)
def test_a_bad_story_is_refused_with_the_reason(text: str, words: str) -> None:
    """No traceback."""
    result = CliRunner().invoke(main, ["--story", text])
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_an_event_that_does_not_exist_is_named() -> None:
    """With those that do."""
    odd = Story(QUIET.spec, (Happening(1.0, "host-explodes"),))
    with pytest.raises(BadStory, match=r"host-explodes.*host-hangs"):
        play(odd)
    with pytest.raises(BadStory, match="host-hangs"):
        play(Story(QUIET.spec, (Happening(1.0, "host-hangs"),)))


def test_the_command_plays_one_story() -> None:
    """From JSON."""
    result = CliRunner().invoke(main, ["--story", QUIET.to_json(), "--whole-log"])
    assert result.exit_code == 0, result.output
    assert "0 violations" in result.output
    assert "CreateVM" in result.output
