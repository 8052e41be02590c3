"""Durations and amounts: what may be written, what it means, and that no field goes without bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from luban.api import LubanClusterSpec, LubanHostSpec, LubanVMSpec
from luban.api.common import REMEDY, RULE, WRITTEN, Model
from luban.api.units import LONGEST, Between, Duration, Quantity, Written

Short = Annotated[Duration, Duration.between("1s", "24h")]
Memory = Annotated[Quantity, Quantity.between("16Mi", "4Pi")]
SHORT: TypeAdapter[Duration] = TypeAdapter(Short)
MEMORY: TypeAdapter[Quantity] = TypeAdapter(Memory)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15),
        ("5m", 300),
        ("1h30m", 5400),
        ("30m1h", 5400),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("0s", 0),
        ("0.5h", 1800),
    ],
)
def test_durations_that_are_good(text: str, seconds: float) -> None:
    assert Duration.of(text).seconds == seconds


@pytest.mark.parametrize(
    "text", ["", "15", "0", "1d", "5 m", "-5s", "+5s", "s", "1h 30m", "1us", "1ns", ".5s", "5.s", "1s\n"]
)
def test_durations_that_are_written_wrong(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as"):
        Duration.of(text)


@pytest.mark.parametrize("text", ["1e3s", "99999999h", "111111111111ms", "0.0000001s", "١s"])
def test_numbers_that_durations_do_not_have(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as"):
        Duration.of(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("512Mi", 512 << 20),
        ("1.5Gi", 3 << 29),
        ("1Ei", 1 << 60),
        ("1Pi", 1 << 50),
        ("1024", 1024),
        ("20G", 20 * 10**9),
        ("1e9", 10**9),
        ("1E9", 10**9),
        ("1E", 10**18),
        (".5k", 500),
        ("1.k", 1000),
        ("+1k", 1000),
        ("100m", 1),
        ("1500m", 2),
        ("1e-3", 1),
    ],
)
def test_amounts_in_all_forms_of_kubernetes(text: str, amount: int) -> None:
    assert Quantity.of(text).bytes == amount


@pytest.mark.parametrize(
    "text", ["", "Gi", "1GB", "1gi", "1K", "-1Gi", "1,5Gi", "1 Gi", "1e", "1e1.5", "0x10", "1e100", "1_000", "1Gi\n"]
)
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="must be an amount of bytes such as"):
        Quantity.of(text)


def test_an_amount_may_be_a_whole_number() -> None:
    assert MEMORY.validate_python(2147483648).bytes == 2**31
    for other in (True, 2.5e9, None, -1, 2**70, 10**5000):
        with pytest.raises(ValidationError):
            MEMORY.validate_python(other)


@pytest.mark.parametrize("text", ["1s", "24h", "86400000ms", "23h60m", "1000ms", "0.5h"])
def test_bounds_are_included(text: str) -> None:
    assert SHORT.validate_python(text) == text


@pytest.mark.parametrize("text", ["999ms", "0.999999s", "24h1ms", "86400.000001s", "48h", "0s"])
def test_beyond_the_bounds_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValidationError, match=r"must be a duration from 1s to 24h, such as 10s, 1m30s or 0\.5h"):
        SHORT.validate_python(text)


@pytest.mark.parametrize("text", ["0", "1", "100m", "15.9Mi", "4.000000001Pi", "999999999999999999999999Ti"])
def test_memory_that_cannot_work_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValidationError, match="must be an amount of bytes from 16Mi to 4Pi, such as 512Mi"):
        MEMORY.validate_python(text)


def test_the_schema_says_the_same() -> None:
    assert TypeAdapter(Short).json_schema() == {
        "type": "string",
        "pattern": Duration.pattern,
        "maxLength": LONGEST,
        RULE: Duration.rule("1s", "24h"),
        REMEDY: "must be a duration from 1s to 24h, such as 10s, 1m30s or 0.5h",
        WRITTEN: "a duration from 1s to 24h, such as 10s, 1m30s or 0.5h",
    }
    assert TypeAdapter(Memory).json_schema()["x-kubernetes-int-or-string"] is True


@given(st.from_regex(Duration.pattern, fullmatch=True).filter(lambda text: len(text) <= LONGEST))
def test_whatever_the_pattern_allows_is_a_duration(text: str) -> None:
    """What CEL's duration() takes: 64 bits of nanoseconds at most."""
    assert 0 <= Duration.of(text).exact < 2**63


@given(st.from_regex(Quantity.pattern, fullmatch=True).filter(lambda text: len(text) <= LONGEST))
def test_whatever_the_pattern_allows_is_an_amount(text: str) -> None:
    amount = Quantity.of(text)
    assert 0 <= Fraction(amount.exact, 10**9) <= amount.bytes


def bounded(model: type[Model]) -> Iterator[tuple[str, Any, Between]]:
    """Fields with a unit in a model and in those below it: name, default, bounds."""
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Model):
                yield from bounded(kind)
        has_unit = isinstance(field.annotation, type) and issubclass(field.annotation, Written)
        if has_unit and not field.is_required():
            (bounds,) = (it for it in field.metadata if isinstance(it, Between))
            yield f"{model.__name__}.{name}", field.default, bounds


@pytest.mark.parametrize("model", [LubanClusterSpec, LubanHostSpec, LubanVMSpec])
def test_every_default_lies_within_its_bounds(model: type[Model]) -> None:
    found = list(bounded(model))
    assert found
    for name, default, bounds in found:
        assert bounds.check(bounds.kind.of(default)) == default, name
        assert re.match(r"must be an? .* from \S+ to \S+, such as ", bounds.remedy)
