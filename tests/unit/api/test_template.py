"""Which changes of a template make another machine."""

from __future__ import annotations

from typing import Any

import pytest

from luban.api.template import IN_PLACE_FIELDS, VMTemplateSpec, in_place, rolls_out

TEMPLATE = VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}})
OTHER = object()
FIELDS = sorted(VMTemplateSpec.model_fields)


def changed(name: str) -> VMTemplateSpec:
    """The template with one field that is different."""
    update: dict[str, Any] = {name: OTHER}
    return TEMPLATE.model_copy(update=update)


def test_a_template_that_stays_rolls_nothing_out() -> None:
    assert not rolls_out(TEMPLATE, TEMPLATE.model_copy(deep=True))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_either_holds_at_once_or_rolls_out(name: str) -> None:
    """A field that nobody thinks of rolls out: it never does nothing."""
    holds_at_once = getattr(in_place(TEMPLATE, changed(name)), name) is OTHER
    assert rolls_out(TEMPLATE, changed(name)) != holds_at_once
    assert holds_at_once == (name in IN_PLACE_FIELDS)


def test_fields_that_hold_at_once_exist() -> None:
    assert set(FIELDS) >= IN_PLACE_FIELDS
