"""What all kinds share: the base model, formats of names, CEL rules, conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from luban.api.conditions import Status

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL = rf"^{_LABEL}$"
DNS_SUBDOMAIN = rf"^{_LABEL}(\.{_LABEL})*$"
"""Names of nodes, Secrets and most other objects."""
LABEL_KEY = rf"^({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
"""A key of a label, but for the 253 characters that its prefix may have."""
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{OCTET}(\.{OCTET}){{3}}"
"""Without anchors, as OCTET."""
URL_PATH = r"^/[A-Za-z0-9._~/?&=%-]*$"
DEVICE_NAME = r"^[^/:\x00-\x20\x7f]+$"
"""A network device's name as people write it: what Linux takes (dev_valid_name) without control characters, which Luban
writes as escapes."""

REMEDY = "x-luban-remedy"
"""Keyword of a field with a pattern: what the value must be. crd.py makes it a CEL rule's message."""
RULE = "x-luban-rule"
"""Keyword beside a remedy: the CEL rule, where it says more than the pattern does."""
WRITTEN = "x-luban-written"
"""Keyword of a field that is written in a way of its own: how, for the end of its description."""


def remedy(text: str) -> dict[str, JsonValue]:
    """json_schema_extra of a field with a pattern. `text` ends a sentence about it: must be such and such."""
    return {REMEDY: text}


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


SET: dict[str, JsonValue] = {"x-kubernetes-list-type": "set"}
"""json_schema_extra of a list of different values, whose order says nothing."""


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


def _check_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("must be a time with its zone, as 2026-01-31T12:00:00Z")
    return text


Time = Annotated[str, AfterValidator(_check_time)]
"""A time of RFC 3339 that is read back. In a status that is read, one that is none is left out."""


class Condition(StatusModel):
    """A Kubernetes condition."""

    type: str
    """Name of the condition."""
    status: Status
    """Whether it holds."""
    reason: str
    """CamelCase reason of the last transition."""
    message: str = ""
    """What is the case, and what to do about it."""
    last_transition_time: str
    """When status last changed (RFC 3339)."""
    observed_generation: int = 0
    """metadata.generation that this was computed from."""
