"""Reads the catalogue's files and checks all of them before the first request is served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

import yaml

from luban_app.catalogue.model import (
    SCORE_MAX,
    SCORE_MIN,
    WEIGHT_MAX,
    WEIGHT_MIN,
    Catalogue,
    Group,
    Indicator,
    Option,
    Part,
    Source,
    Text,
)
from luban_app.catalogue.nodes import CatalogueError, Fault, Reader

SOURCES_FILE = "sources.yaml"
PART_FILES = {"outside": "outside.yaml", "building": "building.yaml", "inside": "inside.yaml"}
"""Part id -> file, in the form's order."""

MIN_INDICATORS = 40
MIN_OPTIONS = 3
MAX_OPTIONS = 6

MAX_NAME = 60
"""Lengths are in characters of either language: a page on a phone has to hold them."""
MAX_LABEL = 120
MAX_REASON = 300
MAX_LONG = 900

_INDICATOR_KEYS = {"id", "group", "names", "definition", "weight", "options", "remedy", "source"}

_Listed = Mapping[str, tuple[Source, yaml.Node]]
"""The sources by id, each with where it stands."""


@cache
def catalogue() -> Catalogue:
    """The catalogue that ships with the package, read once. Raises CatalogueError with all faults found."""
    folder = resources.files(__package__)
    names = [SOURCES_FILE, *PART_FILES.values()]
    return read({name: folder.joinpath(name).read_text(encoding="utf-8") for name in names})


def read(files: Mapping[str, str], min_indicators: int = MIN_INDICATORS) -> Catalogue:
    """The catalogue in `files` (file name -> YAML text): the sources and one file a part.

    Raises CatalogueError with every fault's file and line.
    """
    missing = [name for name in (SOURCES_FILE, *PART_FILES.values()) if name not in files]
    if missing:
        raise CatalogueError([Fault(name, 1, "file is missing") for name in missing])
    reader = Reader(SOURCES_FILE)
    listed = _sources(reader, reader.compose(files[SOURCES_FILE]))
    sources = {source.id: source for source, _ in listed.values()}
    faults = reader.faults
    seen: dict[str, str] = {}
    parts = []
    for part_id, name in PART_FILES.items():
        part_reader = _PartReader(name, part_id, sources, seen)
        parts.append(part_reader.read(files[name]))
        faults += part_reader.faults
    found = Catalogue(tuple(part for part in parts if part is not None), sources)
    if not faults:
        faults += _uncited(listed, found) + _whole(found, min_indicators)
    if faults:
        raise CatalogueError(faults)
    return found


def _whole(found: Catalogue, min_indicators: int) -> list[Fault]:
    """Faults that no single entry has."""
    faults = []
    if len(found.indicators) < min_indicators:
        counts = ", ".join(f"{part.id} {len(part.indicators)}" for part in found.parts)
        message = f"{len(found.indicators)} indicators in all ({counts}), at least {min_indicators} are needed"
        faults.append(Fault(PART_FILES["outside"], 1, message))
    for part in found.parts:
        scores = [option.score for indicator in part.indicators for option in indicator.options]
        if not scores or not min(scores) < 0 < max(scores):
            faults.append(Fault(PART_FILES[part.id], 1, f"part {part.id!r}: needs both good and bad options"))
    return faults


def _uncited(listed: _Listed, found: Catalogue) -> list[Fault]:
    """A source that nothing goes back to would lend the catalogue an authority that it does not have."""
    cited = {indicator.source.id for indicator in found.indicators}
    return [
        Fault(SOURCES_FILE, node.start_mark.line + 1, f"source {source.id!r}: is cited by no indicator")
        for source, node in listed.values()
        if source.id not in cited
    ]


def _sources(reader: Reader, root: yaml.Node | None) -> _Listed:
    if root is None:
        return {}
    found: dict[str, tuple[Source, yaml.Node]] = {}
    for node in reader.items(reader.fields(root, "file", {"sources"}).get("sources"), "sources"):
        source = _source(reader, node)
        if source is not None and source.id in found:
            reader.fault(node, f"source {source.id!r}: id stands twice")
        elif source is not None:
            found[source.id] = (source, node)
    return found


def _source(reader: Reader, node: yaml.Node) -> Source | None:
    fields = reader.fields(node, "source", {"id", "title", "note"}, frozenset({"author", "chapter", "year"}))
    source_id = reader.identifier(fields.get("id"), "source.id")
    what = f"source {source_id!r}" if source_id else "source"
    title = reader.text(fields.get("title"), f"{what}: title", MAX_NAME)
    note = reader.text(fields.get("note"), f"{what}: note", MAX_REASON)
    author = reader.text(fields.get("author"), f"{what}: author", MAX_NAME)
    chapter = reader.text(fields.get("chapter"), f"{what}: chapter", MAX_NAME)
    year = reader.integer(fields.get("year"), f"{what}: year", 1, 9999)
    if source_id is None or title is None or note is None:
        return None
    return Source(source_id, title, note, author, chapter, year)


class _PartReader(Reader):
    """Reads the file of one part. `seen` holds the indicator ids of all files: id -> file and line."""

    def __init__(self, file: str, part: str, sources: Mapping[str, Source], seen: dict[str, str]) -> None:
        super().__init__(file)
        self._part = part
        self._sources = sources
        self._seen = seen

    def read(self, text: str) -> Part | None:
        root = self.compose(text)
        if root is None:
            return None
        fields = self.fields(root, "file", {"part", "names", "groups", "indicators"})
        part_node = fields.get("part")
        part = self.identifier(part_node, "part")
        if part_node is not None and part is not None and part != self._part:
            self.fault(part_node, f"part: {part!r} in the file of part {self._part!r}")
        names = self.text(fields.get("names"), "names", MAX_NAME)
        groups = self._groups(self.items(fields.get("groups"), "groups"))
        indicators = self._indicators(self.items(fields.get("indicators"), "indicators"), groups)
        for group, (node, _) in groups.items():
            if not any(indicator.group == group for indicator in indicators) and not self.faults:
                self.fault(node, f"group {group!r}: has no indicators")
        return None if names is None else Part(self._part, names, _grouped(self._part, groups, indicators))

    def _groups(self, nodes: list[yaml.Node]) -> dict[str, tuple[yaml.Node, Text]]:
        groups: dict[str, tuple[yaml.Node, Text]] = {}
        for node in nodes:
            fields = self.fields(node, "group", {"id", "names"})
            group = self.identifier(fields.get("id"), "group.id")
            names = self.text(fields.get("names"), f"group {group!r}: names", MAX_NAME)
            if group is not None and group in groups:
                self.fault(node, f"group {group!r}: id stands twice")
            elif group is not None and names is not None:
                groups[group] = (node, names)
        return groups

    def _indicators(self, nodes: list[yaml.Node], groups: Iterable[str]) -> list[Indicator]:
        found = (self._indicator(node, frozenset(groups)) for node in nodes)
        return [indicator for indicator in found if indicator is not None]

    def _indicator(self, node: yaml.Node, groups: frozenset[str]) -> Indicator | None:
        fields = self.fields(node, "indicator", _INDICATOR_KEYS)
        indicator = self._new_id(fields.get("id"))
        what = f"indicator {indicator!r}" if indicator else "indicator"
        group = self._one_of(fields.get("group"), f"{what}: group", groups)
        names = self.text(fields.get("names"), f"{what}: names", MAX_NAME)
        definition = self.text(fields.get("definition"), f"{what}: definition", MAX_LONG)
        weight = self.integer(fields.get("weight"), f"{what}: weight", WEIGHT_MIN, WEIGHT_MAX)
        options = self._options(fields.get("options"), what)
        remedy = self.text(fields.get("remedy"), f"{what}: remedy", MAX_LONG)
        source = self._one_of(fields.get("source"), f"{what}: source", self._sources.keys())
        # One test a line: this is how mypy sees that nothing is None.
        if indicator is None or group is None or names is None or definition is None or weight is None:
            return None
        if remedy is None or source is None:
            return None
        return Indicator(
            indicator, self._part, group, names, definition, weight, options, remedy, self._sources[source]
        )

    def _new_id(self, node: yaml.Node | None) -> str | None:
        indicator = self.identifier(node, "indicator.id")
        if node is None or indicator is None:
            return None
        if indicator in self._seen:
            self.fault(node, f"indicator {indicator!r}: id stands already at {self._seen[indicator]}")
        self._seen.setdefault(indicator, f"{self.file}:{node.start_mark.line + 1}")
        return indicator

    def _one_of(self, node: yaml.Node | None, what: str, known: Iterable[str]) -> str | None:
        value = self.identifier(node, what)
        if node is not None and value is not None and value not in known:
            self.fault(node, f"{what}: {value!r} is not known")
            return None
        return value

    def _options(self, node: yaml.Node | None, what: str) -> tuple[Option, ...]:
        nodes = self.items(node, f"{what}: options")
        if node is not None and not MIN_OPTIONS <= len(nodes) <= MAX_OPTIONS:
            self.fault(node, f"{what}: {len(nodes)} options, {MIN_OPTIONS} to {MAX_OPTIONS} are needed")
        read = (self._option(entry, what) for entry in nodes)
        options = tuple(option for option in read if option is not None)
        for option, count in Counter(option.id for option in options).items():
            if count > 1 and node is not None:
                self.fault(node, f"{what}: option {option!r} stands {count} times")
        if node is not None and len(options) == len(nodes) > 0 and all(option.score < 0 for option in options):
            self.fault(node, f"{what}: needs a neutral or good option")
        return options

    def _option(self, node: yaml.Node, what: str) -> Option | None:
        fields = self.fields(node, f"{what}: option", {"id", "label", "score", "reason"})
        option = self.identifier(fields.get("id"), f"{what}: option.id")
        what = f"{what}: option {option!r}" if option else f"{what}: option"
        label = self.text(fields.get("label"), f"{what}: label", MAX_LABEL)
        score = self.integer(fields.get("score"), f"{what}: score", SCORE_MIN, SCORE_MAX)
        reason = self.text(fields.get("reason"), f"{what}: reason", MAX_REASON)
        if option is None or label is None or score is None or reason is None:
            return None
        return Option(option, label, score, reason)


def _grouped(
    part: str, groups: Mapping[str, tuple[yaml.Node, Text]], indicators: Iterable[Indicator]
) -> tuple[Group, ...]:
    """The groups with their indicators, both in the file's order."""
    of_group: dict[str, list[Indicator]] = {group: [] for group in groups}
    for indicator in indicators:
        of_group[indicator.group].append(indicator)
    return tuple(Group(group, part, names, tuple(of_group[group])) for group, (_, names) in groups.items())
