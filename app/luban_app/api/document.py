"""The OpenAPI document, made from the routes' decorations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spectree import SpecTree
from spectree.model_adapter import get_msgspec_model_adapter
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from luban_app.api.models import Problem
from luban_app.api.problems import MEDIA_TYPE

VERSION = "1.0"
"""Of the API; its first number is in all paths."""

_JSON = "application/json"
_FIRST_ERROR = 400

spec = SpecTree(
    "starlette",
    model_adapter=get_msgspec_model_adapter(),
    validation_error_model=Problem,
    naming_strategy=lambda model: str(getattr(model, "__name__", model)),
    nested_naming_strategy=lambda _parent, child: child,
    title="Luban house evaluation",
    version=VERSION,
    description="Scores of a home from what can be seen of it, outside and inside; the Luban ruler; kept records.",
)


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document of `routes`."""
    spec.app = Starlette(routes=list(routes))
    found: dict[str, Any] = spec.spec
    for operation in _operations(found):
        operation.pop("tags", None)
        for status, response in operation["responses"].items():
            content = response.get("content", {})
            if int(status) >= _FIRST_ERROR and _JSON in content:
                content[MEDIA_TYPE] = content.pop(_JSON)
    return found


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()
