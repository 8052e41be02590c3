"""Durations and amounts of bytes: what may be written, what it means, and within which bounds.

The schema says it to machines by a pattern and to people by one CEL rule with a message; the models take exactly the
same. `Between` gives a field its bounds, and no field goes without.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from luban.api.common import REMEDY, RULE, WRITTEN

LONGEST = 32
"""Characters of a duration or of an amount."""
UNBOUNDED = "x-luban-unbounded"
"""Keyword of a field whose bounds are missing; crd.py refuses it."""

_NANOSECONDS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ms|s|m|h)")
_BYTES: dict[str, Fraction] = {
    "": Fraction(1),
    **{suffix: Fraction(f"1e{exponent}") for suffix, exponent in zip("num", (-9, -6, -3), strict=True)},
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", 1)},
}
_QUANTITY_PARTS = re.compile(r"([^A-Za-z]+(?:[eE][-+]?[0-9]+)?)([A-Za-z]*)")


class Written(str):
    """A string that is written in a certain way and stands for a whole number that can be compared."""

    __slots__ = ()
    pattern: ClassVar[str]
    """What may be written, in what RE2, Rust and Python have in common."""
    noun: ClassVar[str]
    examples: ClassVar[str]
    remedy: ClassVar[str]
    """What the value must be, as the end of a sentence about the field."""

    @property
    def exact(self) -> int:
        """What it stands for, in the smallest unit that counts."""
        raise NotImplementedError

    @classmethod
    def rule(cls, least: str, most: str) -> str:
        """CEL: `self` is written as it should be and lies within bounds. It never fails to be evaluated."""
        raise NotImplementedError

    @classmethod
    def between(cls, least: str, most: str) -> Between:
        """Bounds of a field, for its annotation."""
        return Between(cls, least, most)

    @classmethod
    def of(cls, value: str) -> Self:
        """Parse. Raises PydanticCustomError, a ValueError, that says what it must be."""
        if not re.fullmatch(cls.pattern[1:-1], value):
            raise PydanticCustomError("written", "{remedy}", {"remedy": cls.remedy})
        return cls(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.of, core_schema.str_schema(max_length=LONGEST))

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": cls.pattern, "maxLength": LONGEST, UNBOUNDED: True}


class Duration(Written):
    """A span of time as Kubernetes writes it: "15s", "5m", "1h30m", "250ms", "1.5s".

    Of what Go's time.ParseDuration takes: numbers without a sign, each with one of the units ms, s, m and h, in any
    order, with so few digits that no sum of them overflows.
    """

    __slots__ = ()
    pattern = (
        r"^([0-9]{1,11}(\.[0-9]{1,6})?ms|[0-9]{1,8}(\.[0-9]{1,6})?s|[0-9]{1,6}(\.[0-9]{1,6})?m"
        r"|[0-9]{1,5}(\.[0-9]{1,6})?h)+$"
    )
    noun = "a duration"
    examples = "10s, 1m30s or 0.5h"
    remedy = f"must be {noun} such as {examples}"

    @property
    def exact(self) -> int:
        """Length in nanoseconds."""
        return sum(_nanoseconds(*part) for part in _DURATION_PART.findall(self))

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.exact / 10**9

    @classmethod
    def rule(cls, least: str, most: str) -> str:
        """See Written."""
        bounds = f"duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
        return f"self.matches({json.dumps(cls.pattern)}) && {bounds}"


def _nanoseconds(whole: str, fraction: str, unit: str) -> int:
    """Exact: a fraction has at most six digits, and the smallest unit a million nanoseconds."""
    return int(whole + fraction.ljust(6, "0")) * _NANOSECONDS[unit] // 10**6


class Quantity(Written):
    """An amount of bytes in any form that Kubernetes takes: 2147483648, "2Gi", "1.5G", "1e9", "512Mi"."""

    __slots__ = ()
    pattern = r"^\+?([0-9]{1,24}(\.[0-9]{0,9})?|\.[0-9]{1,9})([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$"
    noun = "an amount of bytes"
    examples = "512Mi, 2Gi or 20G"
    remedy = f"must be {noun} such as {examples}"

    @property
    def bytes(self) -> int:
        """Amount in bytes; a part of one counts as one, as in Kubernetes."""
        return -(-self.exact // 10**9)

    @property
    def exact(self) -> int:
        """Amount in billionths of a byte: the finest step that Kubernetes knows, rounded up to."""
        parts = _QUANTITY_PARTS.fullmatch(self)
        if parts is None:
            raise ValueError(f"{self!r} is no amount")
        return math.ceil(Fraction(parts[1]) * _BYTES[parts[2]] * 10**9)

    @classmethod
    def rule(cls, least: str, most: str) -> str:
        """See Written. `self` may be a whole number."""
        text = "string(self)"
        least_rule = f"quantity({text}).compareTo(quantity('{least}')) >= 0"
        most_rule = f"quantity({text}).compareTo(quantity('{most}')) <= 0"
        return f"{text}.matches({json.dumps(cls.pattern)}) && {least_rule} && {most_rule}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            _digits, super().__get_pydantic_core_schema__(source, handler)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        node = super().__get_pydantic_json_schema__(schema, handler)
        del node["type"]
        return {"x-kubernetes-int-or-string": True, **node}


def _digits(value: object) -> object:
    """A whole number as it is written. Others than 64 bits can hold are as wrong to Kubernetes as they are here."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Between:
    """Bounds of a Duration or Quantity, both included, as people are told of them."""

    kind: type[Written]
    least: str
    most: str

    @property
    def written(self) -> str:
        """What the value must be, in words."""
        return f"{self.kind.noun} from {self.least} to {self.most}, such as {self.kind.examples}"

    @property
    def remedy(self) -> str:
        """The same as the end of a sentence about the field."""
        return f"must be {self.written}"

    def check(self, value: Written) -> Written:
        """Raises PydanticCustomError, a ValueError, for a value out of bounds."""
        if not self.kind.of(self.least).exact <= value.exact <= self.kind.of(self.most).exact:
            raise PydanticCustomError("bounds", "{remedy}", {"remedy": self.remedy})
        return value

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        node = handler(schema)
        del node[UNBOUNDED]
        return {**node, RULE: self.kind.rule(self.least, self.most), REMEDY: self.remedy, WRITTEN: self.written}
