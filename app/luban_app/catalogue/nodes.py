"""Reading YAML with marks: every fault is noted with its file and line, and reading goes on to find the next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from luban_app.catalogue.model import LANGUAGES, Text

_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX_ID = 40
_INTEGER = re.compile(r"[+-]?[0-9]{1,6}")


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong with the catalogue, and where; `line` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class CatalogueError(ValueError):
    """The catalogue cannot be used; `faults` are all that were found, by file and line."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        super().__init__("\n".join(map(str, self.faults)))


Fields = Mapping[str, yaml.Node]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser where PyYAML has it: three times as fast, and the service reads its catalogue at every start."""


@dataclass
class Reader:
    """Turns the nodes of one file into values. A value that is faulty reads as None (or empty) and is noted."""

    file: str
    faults: list[Fault] = field(default_factory=list)

    def fault(self, node: yaml.Node, message: str) -> None:
        """Note that `message` is wrong with what stands at `node`."""
        self.faults.append(Fault(self.file, node.start_mark.line + 1, message))

    def compose(self, text: str) -> yaml.Node | None:
        """The root node of a document, or None if it is no YAML or empty."""
        try:
            root: yaml.Node | None = yaml.compose(text, Loader=LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            self.faults.append(Fault(self.file, line, f"not YAML: {error.problem}"))
            return None
        except yaml.YAMLError as error:
            self.faults.append(Fault(self.file, 1, f"not YAML: {error}"))
            return None
        if root is None:
            self.faults.append(Fault(self.file, 1, "empty"))
        return root

    def fields(self, node: yaml.Node, what: str, required: set[str], optional: frozenset[str] = frozenset()) -> Fields:
        """The values of a mapping by key. Unknown, repeated and missing keys are faults."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{what}: expected a mapping")
            return {}
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "(not text)"
            if key in found:
                self.fault(key_node, f"{what}: key {key!r} stands twice")
            elif key not in required | optional:
                self.fault(key_node, f"{what}: unknown key {key!r}")
            else:
                found[key] = value
        for key in sorted(required - found.keys()):
            self.fault(node, f"{what}: {key!r} is missing")
        return found

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """The entries of a list; empty if it is missing."""
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, f"{what}: expected a list")
            return []
        return list(node.value)

    def string(self, node: yaml.Node | None, what: str, limit: int) -> str | None:
        """Text on one line of 1 to `limit` characters."""
        if node is None:
            return None
        # `en: Yes` is a boolean in YAML: it must be quoted, not guessed.
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            self.fault(node, f"{what}: expected text (quote it if it looks like a number or yes or no)")
            return None
        value = " ".join(node.value.split())
        if not value:
            self.fault(node, f"{what}: is empty")
            return None
        if len(value) > limit:
            self.fault(node, f"{what}: {len(value)} characters, at most {limit} are allowed")
            return None
        return value

    def identifier(self, node: yaml.Node | None, what: str) -> str | None:
        """A kebab-case id: it stands in addresses and stored records."""
        value = self.string(node, what, _MAX_ID)
        if node is not None and value is not None and not _ID.fullmatch(value):
            self.fault(node, f"{what}: {value!r} is not lower-case words joined by '-'")
            return None
        return value

    def integer(self, node: yaml.Node | None, what: str, low: int, high: int) -> int | None:
        """A whole number from `low` to `high`."""
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or node.style or not _INTEGER.fullmatch(node.value):
            self.fault(node, f"{what}: expected a whole number")
            return None
        value = int(node.value)
        if not low <= value <= high:
            self.fault(node, f"{what}: {value} is not in {low}..{high}")
            return None
        return value

    def text(self, node: yaml.Node | None, what: str, limit: int) -> Text | None:
        """The same words in all languages, each of 1 to `limit` characters."""
        if node is None:
            return None
        found = self.fields(node, what, set(LANGUAGES))
        zh_tw = self.string(found.get("zh-TW"), f"{what}.zh-TW", limit)
        en = self.string(found.get("en"), f"{what}.en", limit)
        return Text(zh_tw, en) if zh_tw is not None and en is not None else None
