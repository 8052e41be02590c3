"""Reading what another version of Luban wrote: whatever cannot be read is left out, and told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Read = TypeVar("Read", bound=BaseModel)
Place = tuple[int | str, ...]


def read_leniently(model: type[Read], data: Any) -> tuple[Read, tuple[str, ...]]:
    """A model of `data` without what is wrong in it, and what that was: the field and why.

    What is left out counts as not written; an item of a list that lacks something goes as a whole. Raises
    ValidationError if what the model cannot be without is wrong itself.
    """
    rest = copy.deepcopy(data) if isinstance(data, dict) else {}
    left_out: tuple[str, ...] = ()
    while True:
        try:
            return model.model_validate(rest), left_out
        except ValidationError as error:
            places = {_place(rest, fault["loc"]) for fault in error.errors()}
            if () in places:
                raise
            # All faults are found at once: later ones only follow from what was left out for them.
            left_out = left_out or tuple(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors())
            _remove(rest, places)


def _place(data: Any, place: Place) -> Place:
    """What to leave out for a fault at `place`: the element there, or, if it is missing, the one that lacks it."""
    while not _exists(data, place):
        place = place[:-1]
    return place


def _exists(data: Any, place: Place) -> bool:
    try:
        for step in place:
            data = data[step]
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _remove(data: Any, places: set[Place]) -> None:
    """Remove elements, the last of a list first, so that the others keep their numbers."""
    outermost = [place for place in places if not any(inside in places for inside in _above(place))]
    for *parents, last in sorted(outermost, key=_order, reverse=True):
        holder = data
        for step in parents:
            holder = holder[step]
        del holder[last]


def _above(place: Place) -> Iterator[Place]:
    return (place[:length] for length in range(1, len(place)))


def _order(place: Place) -> list[tuple[int, str]]:
    return [(step, "") if isinstance(step, int) else (0, step) for step in place]
