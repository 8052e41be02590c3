"""Every condition and every reason that the operator's code names is written down, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest

from luban.api import reasons
from luban.api.cluster_status import LubanClusterStatus
from luban.api.conditions import CONDITIONS, ConditionName, Status
from luban.api.host import BondVerdict
from luban.core.model import ConditionState
from luban.runtime.events import WARNING_WHEN

SOURCE = Path(__file__).resolve().parents[3] / "operator" / "luban"
CATALOGUE = {"api/conditions.py", "api/reasons.py"}
WORD = re.compile(r"[A-Z][a-z]+[A-Za-z]*")
OTHERS = {"True", "False", "BondHealthy", "BondsOmitted", "LubanCluster", "LubanVM"}
"""Statuses, names of kinds, and what a LubanHost tells."""
FAILURES = {reason for table in reasons.FAILURES.values() for reason in table}
ERRORS = {
    *(
        "PermanentError",
        "TemporaryError",
        "HostUnreachable",
        "ForeignDomain",
        "NotFound",
        "Conflict",
        "UnreadableObject",
    ),
    *("ConfigurationRefused", "UnavailableError", "LubanError"),
}


def documented() -> set[str]:
    """All reasons of the catalogue."""
    tables = (reasons.DECISIONS, reasons.VMS, reasons.CHANGES, reasons.EVENTS, reasons.PLACEMENTS, reasons.TIER)
    of_conditions = {reason for kind in CONDITIONS.values() for table in kind.reasons.values() for reason in table}
    return of_conditions | {reason for table in tables for reason in table} | FAILURES


def modules(folder: str) -> Iterator[tuple[str, ast.Module]]:
    """Parsed files below a folder of the operator; bonds have words of their own (docs/bonds.md)."""
    for path in sorted((SOURCE / folder).rglob("*.py")):
        where = path.relative_to(SOURCE)
        if "bonds" not in where.parts and str(where) not in CATALOGUE:
            yield str(where), ast.parse(path.read_text())


def words(tree: ast.Module) -> Iterator[str]:
    """CamelCase literals that may be reasons: no docstrings, no keys, no parts of longer texts."""
    passed_over: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Dict):
            parts = [*node.keys]
        elif isinstance(node, ast.JoinedStr):
            parts = [*node.values]
        elif isinstance(node, ast.Expr):
            parts = [node.value]
        passed_over |= {id(part) for part in parts}
        if id(node) not in passed_over and (word := camel_case(node)):
            yield word


def camel_case(node: ast.AST) -> str:
    """The word that a literal is; empty: it is none."""
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return str(node.value) if is_text and WORD.fullmatch(node.value) else ""


def literals() -> set[str]:
    """Words of the API and of the model: phases, verdicts, states, types of Events."""
    return {
        word
        for folder in ("api", "core", "runtime")
        for _, tree in modules(folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "Literal"
        for word in (it.value for it in ast.walk(node.slice) if isinstance(it, ast.Constant))
        if isinstance(word, str)
    }


@pytest.mark.parametrize("folder", ["core", "runtime"])
def test_every_reason_is_written_down(folder: str) -> None:
    known = documented() | literals() | set(CONDITIONS) | OTHERS
    strange = {word: where for where, tree in modules(folder) for word in words(tree) if word not in known}
    assert strange == {}, "write it down in api/conditions.py or api/reasons.py"


def failures_of(tree: ast.Module) -> Iterator[str]:
    """Reasons that errors are made with, and that libvirt's are translated to."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        place = 1 if name == "Translation" else 0 if name in ERRORS else None
        if place is not None and len(node.args) > place and (word := camel_case(node.args[place])):
            yield word


def test_every_failure_is_written_down() -> None:
    found = {reason: where for where, tree in modules("") for reason in failures_of(tree)}
    assert len(found) > 20
    assert {reason: where for reason, where in found.items() if reason not in FAILURES} == {}


def test_nothing_is_written_down_that_is_not_there() -> None:
    texts = {word for _, tree in modules("") for word in words(tree)} | set(get_args(BondVerdict))
    assert {reason for reason in documented() if WORD.fullmatch(reason)} - texts == set()


def states(tree: ast.Module) -> Iterator[tuple[str, Status, str]]:
    """Type, status and reason of conditions that are made of literals."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == ConditionState.__name__:
            values = [it.value if isinstance(it, ast.Constant) else ... for it in node.args[:3]]
            if len(values) == 3 and ... not in values:
                type_, status, reason = values
                yield str(type_), "Unknown" if status is None else "True" if status else "False", str(reason)


def test_reasons_stand_under_their_condition_and_status() -> None:
    found = [state for folder in ("core", "runtime") for _, tree in modules(folder) for state in states(tree)]
    assert len(found) > 15
    for type_, status, reason in found:
        table: Mapping[str, str] = CONDITIONS[type_].reasons.get(status, {})  # type: ignore[index]
        assert reason in table, (type_, status, reason)


def test_conditions_are_listed_once_and_everywhere() -> None:
    assert tuple(CONDITIONS) == get_args(ConditionName)
    assert LubanClusterStatus.model_fields["conditions"].description == f"{', '.join(CONDITIONS)}."
    assert WARNING_WHEN.keys() == CONDITIONS.keys()


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_says_what_is_good_and_warns_of_nothing_good(name: ConditionName) -> None:
    kind = CONDITIONS[name]
    assert kind.good in kind.reasons
    assert kind.warning != kind.good
    assert set(kind.reasons) | set(kind.further) >= {"True", "False"}


def test_texts_are_sentences() -> None:
    tables = [reasons.DECISIONS, reasons.VMS, reasons.CHANGES, reasons.EVENTS, *reasons.FAILURES.values()]
    for kind in CONDITIONS.values():
        tables += kind.reasons.values()
        assert kind.meaning.endswith(".")
    for table in tables:
        for reason, meaning in table.items():
            assert re.fullmatch(r"\S.*\.", meaning), reason
            assert "|" not in meaning, reason


def test_the_readme_names_every_condition() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    assert [name for name in CONDITIONS if name not in readme] == []
