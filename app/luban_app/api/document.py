"""The OpenAPI document, made from the routes' decorations, and a page that shows it to people."""

from __future__ import annotations

import html
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


def page(document: Mapping[str, Any]) -> str:
    """The document for people: every operation with its parameters and answers, then the schemas."""
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        "<title>Luban API</title></head><body><main>",
        f"<h1>{html.escape(document['info']['title'])}</h1>",
        '<p>For programs: <a href="/api/openapi.json">openapi.json</a></p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += _operation(path, method, operation)
    lines.append("<h2>Schemas</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n".join([*lines, "</main></body></html>"])


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}</p>"
    if operation["parameters"]:
        yield "<ul>"
        for one in operation["parameters"]:
            yield f"<li><code>{html.escape(one['name'])}</code> ({one['in']}) {html.escape(one['description'])}</li>"
        yield "</ul>"
    if "requestBody" in operation:
        for kind, content in operation["requestBody"]["content"].items():
            yield f"<p>Body: {html.escape(kind)}, {_kind(content['schema'])}</p>"
    yield "<ul>"
    for status, response in operation["responses"].items():
        kinds = ", ".join(_kind(content.get("schema", {})) for content in response.get("content", {}).values())
        yield f"<li>{status} {html.escape(response['description'])} {kinds}</li>"
    yield "</ul>"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>'
    yield f"<p>{html.escape(schema.get('description', ''))}</p><ul>"
    for field, one in schema.get("properties", {}).items():
        needed = ", required" if field in schema.get("required", ()) else ""
        meaning = html.escape(one.get("description", ""))
        yield f"<li><code>{html.escape(field)}</code>: {_kind(one)}{needed}. {meaning}</li>"
    yield "</ul>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a word, linked to where it is explained."""
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(f"<code>{html.escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return html.escape(str(schema.get("type", "any")))
