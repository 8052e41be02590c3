"""Which changes of a template make another machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from luban.api.template import IN_PLACE_FIELDS, VMTemplateSpec, in_place, rolls_out
from luban.api.units import Duration

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


def template(**changes: Any) -> VMTemplateSpec:
    return VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}} | changes)


def memory(amount: str | int) -> VMTemplateSpec:
    return template(domain={"memory": {"max": amount}})


def disk(amount: str | int) -> VMTemplateSpec:
    return template(image={"volume": "web.qcow2", "size": amount})


@pytest.mark.parametrize("make", [memory, disk])
def test_another_spelling_of_an_amount_rolls_nothing_out(make: Callable[[str | int], VMTemplateSpec]) -> None:
    for same in ("1024Mi", "1073741824", 1073741824, "1048576Ki", "1.0Gi", "1073741824000m"):
        assert not rolls_out(make("1Gi"), make(same)), same
    for other in ("1G", "1025Mi", 1073741825):
        assert rolls_out(make("1Gi"), make(other)), other


def test_the_source_of_a_network_that_has_none_rolls_nothing_out() -> None:
    def network(kind: str, source: str) -> VMTemplateSpec:
        return template(network={"type": kind, "source": source})

    assert not rolls_out(network("User", "default"), network("User", ""))
    assert rolls_out(network("User", "default"), network("Network", "default"))
    assert rolls_out(network("Network", "default"), network("Network", "other"))


def test_what_is_set_for_the_first_time_rolls_out() -> None:
    assert rolls_out(template(), template(cloudInit={"userDataSecretRef": {"name": "web"}}))
    assert rolls_out(template(), template(domain={"kernelBoot": {"kernelVolume": "vmlinuz"}}))
    assert not rolls_out(template(), template(domain={"cpu": {"cores": 1}}))


def test_vms_of_the_same_machine_share_the_template_of_the_spec() -> None:
    old = TEMPLATE.model_copy(deep=True, update={"startup_timeout": Duration("7m")})
    assert in_place(old, TEMPLATE) is TEMPLATE
    other = old.model_copy(update={"port": 9090})
    assert in_place(other, TEMPLATE) == TEMPLATE.model_copy(update={"port": 9090})
