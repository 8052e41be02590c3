"""Reading what another version of Luban wrote: whatever cannot be read is left out, and told in the API's own words."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from luban.api.common import REMEDY, Model

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
            left_out = left_out or tuple(faults(model, error))
            _remove(rest, places)


def faults(model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    """What is wrong with the data of a model: each field, and what it must be, in the words of the schema's rules."""
    for fault in error.errors():
        place = fault["loc"]
        remedy = _remedy(model, place) if fault["type"] == "string_pattern_mismatch" else ""
        # pydantic puts these words before what a validator of ours says.
        yield f"{'.'.join(map(str, place))}: {remedy or fault['msg'].removeprefix('Value error, ')}"


def _remedy(model: type[BaseModel] | None, place: Place) -> str:
    """What the field at `place` must be; empty: its pattern says it alone."""
    remedy = ""
    for step in (it for it in place if isinstance(it, str)):
        field = _field(model, step) if model is not None else None
        if field is None:
            return ""
        extra = field.json_schema_extra
        remedy = str(extra.get(REMEDY, "")) if isinstance(extra, dict) else ""
        model = next(models_in(field.annotation), None)
    return remedy


def _field(model: type[BaseModel], wire_name: str) -> FieldInfo | None:
    return next((it for it in model.model_fields.values() if it.alias == wire_name), None)


def models_in(annotation: Any) -> Iterator[type[Model]]:
    """Our models inside an annotation such as `tuple[Host, ...]` or `KernelBoot | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


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
