"""What all kinds share: the base model, durations, quantities, CEL rules, conditions."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
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


class _PatternString(str):
    """A string that must match `pattern`; subclasses give it a meaning."""

    __slots__ = ()
    pattern: str = ""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(pattern=cls.pattern))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": cls.pattern}


class Duration(_PatternString):
    """A span of time as Kubernetes writes it: "15s", "5m", "1h30m", "250ms"."""

    pattern = _DURATION

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(self))


class Quantity(_PatternString):
    """An amount of memory or disk as Kubernetes writes it: "512Mi", "2Gi"."""

    pattern = _QUANTITY

    @property
    def bytes(self) -> int:
        """Amount in bytes."""
        match = _QUANTITY_PARTS.match(self)
        if match is None:
            raise ValueError(f"not a quantity: {self}")
        return int(float(match[1]) * _QUANTITY_UNITS[match[2]])


class Model(BaseModel):
    """Base of all API models: frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )

    def wire(self) -> dict[str, Any]:
        """The object as it goes to the API server: camelCase, unset optionals left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(Model):
    """Base of what the operator writes: unknown fields are ignored, so that an older operator can read a newer status."""

    model_config = ConfigDict(extra="ignore")


def rules(*pairs: tuple[str, str]) -> ConfigDict:
    """Model configuration with CEL rules: pairs of (expression over `self`, message that says what to change)."""
    return ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]
        }
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
