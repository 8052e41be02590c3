"""Every phase is in or out of each group, on purpose: whoever adds one is asked here."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from luban.api.vm import LubanVMStatus, Phase
from luban.core import phases

EXPECTED: dict[str, dict[Phase, bool]] = {
    "STARTING": {
        "Pending": True,
        "Provisioning": True,
        "Booting": True,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": True,
        "Resuming": True,
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
    "UNSTARTED": {
        "Pending": True,
        "Provisioning": True,
        "Booting": False,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": False,
        "Resuming": False,
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
    "NEVER_SERVED": {
        "Pending": True,
        "Provisioning": True,
        "Booting": True,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": True,
        "Resuming": True,
        "Stopping": False,
        "Failed": True,
        "Lost": False,
    },
    "PAST_DRAINING": {
        "Pending": False,
        "Provisioning": False,
        "Booting": False,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": False,
        "Resuming": False,
        "Stopping": True,
        "Failed": False,
        "Lost": True,
    },
    "PROBED": {
        "Pending": False,
        "Provisioning": False,
        "Booting": True,
        "Ready": True,
        "Paused": True,
        "Draining": False,
        "Warm": False,
        "Resuming": True,
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
    "AWAITED": {
        "Pending": False,
        "Provisioning": False,
        "Booting": True,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": False,
        "Resuming": True,
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
    "SEEN_ON_HOST": {
        "Pending": True,
        "Provisioning": True,
        "Booting": True,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": False,
        "Resuming": True,
        "Stopping": True,
        "Failed": False,
        "Lost": False,
    },
    "BECOMES_READY": {
        "Pending": False,
        "Provisioning": False,
        "Booting": True,
        "Ready": False,
        "Paused": True,
        "Draining": False,
        "Warm": False,
        "Resuming": True,
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
    "NO_USE": {
        "Pending": False,
        "Provisioning": False,
        "Booting": False,
        "Ready": False,
        "Paused": True,
        "Draining": False,
        "Warm": False,
        "Resuming": False,
        "Stopping": False,
        "Failed": True,
        "Lost": False,
    },
    "IN_VAIN": {
        "Pending": False,
        "Provisioning": False,
        "Booting": False,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": False,
        "Resuming": False,
        "Stopping": False,
        "Failed": True,
        "Lost": True,
    },
    "HOLDS_NOTHING": {
        "Pending": False,
        "Provisioning": False,
        "Booting": False,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Warm": False,
        "Resuming": False,
        "Stopping": False,
        "Failed": False,
        "Lost": True,
    },
    "FIT": {
        "Pending": False,
        "Provisioning": False,
        "Booting": False,
        "Ready": True,
        "Paused": False,
        "Draining": False,
        "Warm": True,
        "Resuming": False,
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
    "TAKEABLE": {
        "Pending": True,
        "Provisioning": True,
        "Booting": True,
        "Ready": True,
        "Paused": False,
        "Draining": True,
        "Warm": True,
        "Resuming": True,
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
}


def test_every_group_is_asked_for() -> None:
    assert EXPECTED.keys() == phases.GROUPS.keys()


@pytest.mark.parametrize("group", EXPECTED)
def test_every_phase_is_in_or_out(group: str) -> None:
    assert EXPECTED[group].keys() == set(get_args(Phase)), "say of the new phase whether it belongs here"
    assert phases.GROUPS[group] == {phase for phase, inside in EXPECTED[group].items() if inside}


def _asks_for_phases(node: ast.AST) -> bool:
    """Whether this is `x in (phase, phase)`."""
    if not (isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn)):
        return False
    listed = node.comparators[0]
    parts = listed.elts if isinstance(listed, ast.Tuple | ast.Set | ast.List) else []
    words = [part.value for part in parts if isinstance(part, ast.Constant) and part.value in get_args(Phase)]
    return len(words) > 1


def test_no_list_of_phases_stands_elsewhere() -> None:
    """Nobody would be asked for it: it belongs in a group of phases.py."""
    package = Path(phases.__file__).parents[1]
    files = [file for folder in ("core", "runtime") for file in (package / folder).rglob("*.py")]
    found = [
        f"{file.name}:{node.lineno}"
        for file in files
        if file.name != "phases.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Compare) and _asks_for_phases(node)
    ]
    assert found == []


def test_every_phase_is_described() -> None:
    described = LubanVMStatus.model_fields["phase"].description or ""
    assert [phase for phase in get_args(Phase) if f"{phase}:" not in described] == []
