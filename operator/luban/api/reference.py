"""Pages of docs/ that are generated: api.md from the custom resource definitions, reasons.md from conditions and reasons.

python -m luban.api.reference [--check] docs/api.md docs/reasons.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from luban.api.crd import KINDS, definition
from luban.api.reasons_page import reasons

HEAD = """# API reference: luban.cloud/v1alpha1

Generated from the models by `make crds`; do not edit. `kubectl explain` shows the same texts.

A duration is one or more numbers, each with a unit, together at most 32 characters: `250ms`, `15s`, `1.5h`, `1h30m`. The units
are `ms`, `s`, `m` and `h`; there is no sign, no day, and no number without a unit; at most six digits after a point. An amount
of bytes is a Kubernetes quantity in any of its forms: `2147483648`, `"512Mi"`, `"1.5G"`, `"1e9"`, `"2147483648000m"`. Bounds,
which are included, stand with each field, and below each table in the words in which `kubectl apply` refuses what is beyond them.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_kind(definition(kind)) for kind in KINDS)])


def _kind(crd: dict[str, Any]) -> str:
    names = crd["spec"]["names"]
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [f"## {names['kind']} (`{', '.join(names['shortNames'])}`)", "", schema.get("description", ""), ""]
    for part in ("spec", "status"):
        lines += [f"### {part}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(*row) for row in _fields(part, schema["properties"][part])]
        lines += ["", *_rules(schema["properties"][part])]
    return "\n".join(lines)


def _fields(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below `schema`, parents before children."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, field
        yield from _fields(here, field)
        if "items" in field:
            yield from _fields(f"{here}[]", field["items"])


def _row(path: str, field: dict[str, Any]) -> str:
    # An object's default is the sum of its fields' defaults, which stand in their own rows.
    default = (
        "" if "default" not in field or isinstance(field["default"], dict) else f"`{json.dumps(field['default'])}`"
    )
    words = str(field.get("description", "")).replace("|", "\\|").replace("\n", " ")
    return f"| `{path}` | {_type(field)} | {default} | {words} |"


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " \\| ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "integer" and "maximum" in field:
        return f"integer, {field['minimum']} to {field['maximum']}"
    return str(field.get("type", "amount of bytes" if "x-kubernetes-int-or-string" in field else "any"))


def _rules(schema: dict[str, Any]) -> list[str]:
    messages = sorted(set(_messages(schema)))
    return ["Refused with these words:", "", *(f"* {message}" for message in messages), ""] if messages else []


def _messages(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
        for value in schema.values():
            yield from _messages(value)


PAGES: Mapping[str, Callable[[], str]] = {"api.md": reference, "reasons.md": reasons}


def keep(pages: Mapping[str, Callable[[], str]], arguments: Sequence[str]) -> int:
    """Write pages, or with --check say which are not up to date; returns the exit code.

    `pages`: what makes each, by the name of its file. `arguments`: paths, and perhaps --check.
    """
    check, stale = "--check" in arguments, False
    for path in (Path(argument) for argument in arguments if argument != "--check"):
        text = pages[path.name]()
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.stderr.write(f"{path} is not what the code says: run `make crds`\n")
            stale = True
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(keep(PAGES, sys.argv[1:]))
