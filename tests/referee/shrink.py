"""The shortest story that still breaks a rule in the same way: delta debugging over its events, times and spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

from tests.referee.bridge import LubanClusterSpec
from tests.referee.drive import Maker, play
from tests.referee.bridge import WatchedOperator
from tests.referee.story import BadStory, Story
from tests.referee.wishes import legal

ROUND_PAUSES = (0.0, 1.0, 5.0, 20.0, 60.0, 120.0, 300.0, 600.0)
MOST_TRIES = 600


def shortest(story: Story, name: str, *, make: Maker = WatchedOperator) -> Story:
    """A story with the violation `name` from which nothing can be left out; `story` itself has it."""
    tries = 0

    def shows(candidate: Story) -> bool:
        nonlocal tries
        tries += 1
        try:
            return tries <= MOST_TRIES and play(candidate, make=make, stop_at=name).of(name) is not None
        except BadStory:
            return False

    while (shorter := _shorter(story, shows)) != story:
        story = shorter
    return story


def _shorter(story: Story, shows: Callable[[Story], bool]) -> Story:
    """One round of all that can be tried."""
    story = _fewer_events(story, shows)
    for variants in (_plain, _shorter_pauses, _simpler_specs):
        story = _first_that_shows(story, variants, shows)
    return story


def _fewer_events(story: Story, shows: Callable[[Story], bool]) -> Story:
    """Leave out halves, quarters, ... of the events, then single ones."""
    size = max(1, len(story.happenings) // 2)
    while True:
        start = 0
        while start < len(story.happenings):
            candidate = story.without(start, size)
            if shows(candidate):
                story = candidate
            else:
                start += size
        if size == 1:
            return story
        size = size // 2


def _first_that_shows(
    story: Story, variants: Callable[[Story], Iterator[Story]], shows: Callable[[Story], bool]
) -> Story:
    """Take simplifications as long as one still shows it."""
    found = True
    while found:
        found = False
        for candidate in variants(story):
            if candidate != story and shows(candidate):
                story, found = candidate, True
                break
    return story


def _plain(story: Story) -> Iterator[Story]:
    if story.dice is not None:
        yield replace(story, dice=None)
    if story.ending != "heals":
        yield replace(story, ending="heals")
    for load in (0, 100):
        if story.load > load:
            yield replace(story, load=load)
            break


def _shorter_pauses(story: Story) -> Iterator[Story]:
    for index, event in enumerate(story.happenings):
        for pause in ROUND_PAUSES:
            if pause < event.pause:
                changed = replace(event, pause=pause)
                yield replace(story, happenings=(*story.happenings[:index], changed, *story.happenings[index + 1 :]))


def _simpler_specs(story: Story) -> Iterator[Story]:
    """Leave out single fields of the spec, and hosts."""
    for path in _paths(story.spec):
        spec = deepcopy(story.spec)
        _leave_out(spec, path)
        if _is_legal(spec):
            yield replace(story, spec=spec)


def _paths(spec: dict[str, Any]) -> list[tuple[str | int, ...]]:
    """What can be left out, the bigger parts first."""
    hosts = spec["hosts"]
    listed: list[tuple[str | int, ...]] = [("hosts", index) for index in reversed(range(len(hosts)))]
    listed += [(key,) for key in spec if key not in ("hosts", "template")]
    listed += [("scaling", key) for key in spec.get("scaling", ())]
    listed += [("template", "spec", key) for key in spec["template"]["spec"] if key != "image"]
    return listed + [("hosts", index, key) for index in range(len(hosts)) for key in ("vms", "forwardRange") if key in hosts[index]]


def _leave_out(spec: Any, path: tuple[str | int, ...]) -> None:
    for step in path[:-1]:
        spec = spec[step]
    del spec[path[-1]]


def _is_legal(spec: dict[str, Any]) -> bool:
    try:
        return legal(LubanClusterSpec.model_validate(spec))
    except ValueError:
        return False
