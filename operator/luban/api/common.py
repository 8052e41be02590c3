"""What all kinds share: the base model, durations, quantities, CEL rules, conditions."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$"
_QUANTITY_PARTS = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?$")
_QUANTITY_UNITS = {
    None: 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
URL_PATH = r"^/[A-Za-z0-9._~/?&=%-]*$"
DEVICE_NAME = r"^[^/:\s\x00-\x1f\x7f]+$"
"""A network device's name as people write it: what Linux takes (dev_valid_name) without control characters, which Luban
writes as escapes."""

REMEDY = "x-luban-remedy"
"""Keyword of a field with a pattern: what the value must be. crd.py makes it a CEL rule's message."""


def remedy(text: str) -> dict[str, JsonValue]:
    """json_schema_extra of a field with a pattern. `text` ends a sentence about it: must be such and such."""
    return {REMEDY: text}


class _PatternString(str):
    """A string that must match `pattern`; subclasses give it a meaning."""

    __slots__ = ()
    pattern: str = ""
    remedy: str = ""
    """What the value must be, as the end of a sentence about the field."""
    max_length: int = 32
    """Bounds what the API server expects a CEL rule over it to cost."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=cls.pattern, max_length=cls.max_length)
        return core_schema.no_info_after_validator_function(cls, text)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": cls.pattern, "maxLength": cls.max_length, REMEDY: cls.remedy}


class Duration(_PatternString):
    """A span of time as Kubernetes writes it: "15s", "5m", "1h30m", "250ms"."""

    pattern = _DURATION
    remedy = "must be a duration such as 250ms, 15s, 5m or 1h30m"

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(self))


class Quantity(_PatternString):
    """An amount of memory or disk as Kubernetes writes it: "512Mi", "2Gi"."""

    pattern = _QUANTITY
    remedy = "must be an amount of bytes such as 512Mi, 2Gi or 20G"

    @property
    def bytes(self) -> int:
        """Amount in bytes."""
        match = _QUANTITY_PARTS.match(self)
        if match is None:
            raise ValueError(f"not a quantity: {self}")
        return int(float(match[1]) * _QUANTITY_UNITS[match[2]])


class Model(BaseModel):
    """Base of all API models: frozen, camelCase on the wire.

    Unknown fields are ignored: an operator must be able to read what a newer one stored. `kubectl apply` refuses them.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def wire(self) -> dict[str, Any]:
        """The object as it goes to the API server: camelCase, unset optionals left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(Model):
    """Base of what the operator writes. It ignores unknown fields: an older operator reads newer ones."""

    model_config = ConfigDict(extra="ignore")


def map_list(key: str) -> dict[str, JsonValue]:
    """json_schema_extra of a list whose items are told apart by the field `key`, which is unique in it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def rules(*pairs: tuple[str, str]) -> ConfigDict:
    """Model configuration with CEL rules: pairs of expression over `self` and message (what to change)."""
    return ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}
    )


class ObjectMeta(BaseModel):
    """The part of Kubernetes metadata that Luban reads."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


class Condition(StatusModel):
    """A Kubernetes condition."""

    type: str
    """Name of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """CamelCase reason of the last transition."""
    message: str = ""
    """What is the case, and what to do about it."""
    last_transition_time: str
    """When status last changed (RFC 3339)."""
    observed_generation: int = 0
    """metadata.generation that this was computed from."""
