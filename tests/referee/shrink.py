"""The shortest story that still breaks a rule in the same way: delta debugging over its events, times and spec."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

from tests.referee.bridge import LubanClusterSpec, WatchedOperator
from tests.referee.drive import Maker, play
from tests.referee.story import BadStory, Story
from tests.referee.wishes import legal

ROUND_PAUSES = (0.0, 1.0, 5.0, 20.0, 60.0, 120.0, 300.0, 600.0)
MOST_TRIES = 400

Shows = Callable[[Story], bool]


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


def _shorter(story: Story, shows: Shows) -> Story:
    """One round of all that can be tried."""
    for step in (_fewer_events, _plainer, _simpler_spec, _shorter_pauses):
        story = step(story, shows)
    return story


def _fewer_events(story: Story, shows: Shows) -> Story:
    """Leave out halves, quarters, ... of the events, then single ones."""
    size = max(1, len(story.happenings) // 2)
    while size:
        start = 0
        while start < len(story.happenings):
            candidate = story.without(start, size)
            if shows(candidate):
                story = candidate
            else:
                start += size
        size //= 2
    return story


def _plainer(story: Story, shows: Shows) -> Story:
    """Actions in the plan's order, an ordinary ending, less load."""
    plain: tuple[dict[str, Any], ...] = ({"dice": None}, {"ending": "heals"}, {"load": 0}, {"load": 100})
    for fields in plain:
        candidate = replace(story, **fields)
        if candidate != story and candidate.load <= story.load and shows(candidate):
            story = candidate
    return story


def _shorter_pauses(story: Story, shows: Shows) -> Story:
    """The shortest of some round times before each event."""
    for index, event in enumerate(story.happenings):
        for pause in ROUND_PAUSES:
            events = (*story.happenings[:index], replace(event, pause=pause), *story.happenings[index + 1 :])
            if pause >= event.pause or shows(candidate := replace(story, happenings=events)):
                story = story if pause >= event.pause else candidate
                break
    return story


def _simpler_spec(story: Story, shows: Shows) -> Story:
    """Leave out hosts, and single fields."""
    for path in _paths(story.spec):
        spec = _without(story.spec, path)
        if spec is not None and shows(replace(story, spec=spec)):
            story = replace(story, spec=spec)
    return story


def _paths(spec: dict[str, Any]) -> list[tuple[str | int, ...]]:
    """What can be left out, the bigger parts first."""
    hosts = spec["hosts"]
    listed: list[tuple[str | int, ...]] = [("hosts", index) for index in reversed(range(len(hosts)))]
    listed += [(key,) for key in spec if key not in ("hosts", "template")]
    listed += [("scaling", key) for key in spec.get("scaling", ())]
    listed += [("template", "spec", key) for key in spec["template"]["spec"] if key != "image"]
    return listed + [
        ("hosts", index, key) for index in range(len(hosts)) for key in ("vms", "forwardRange") if key in hosts[index]
    ]


def _without(spec: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any] | None:
    """A copy without what is at the path; None: it is gone already, or the API server would not take the rest."""
    copied = deepcopy(spec)
    part: Any = copied
    try:
        for step in path[:-1]:
            part = part[step]
        del part[path[-1]]
        return copied if legal(LubanClusterSpec.model_validate(copied)) else None
    except (KeyError, IndexError, ValueError):
        return None
