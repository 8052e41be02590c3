"""Every phase is in or out of each group, on purpose: whoever adds one is asked here."""

from __future__ import annotations

from typing import get_args

import pytest

from luban.api.vm import Phase
from luban.core import phases

EXPECTED: dict[str, dict[Phase, bool]] = {
    "STARTING": {
        "Pending": True,
        "Provisioning": True,
        "Booting": True,
        "Ready": False,
        "Paused": False,
        "Draining": False,
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
        "Stopping": False,
        "Failed": False,
        "Lost": False,
    },
    "HOLDS_NOTHING": {
        "Pending": False,
        "Provisioning": False,
        "Booting": False,
        "Ready": False,
        "Paused": False,
        "Draining": False,
        "Stopping": False,
        "Failed": False,
        "Lost": True,
    },
}


def test_every_group_is_asked_for() -> None:
    assert EXPECTED.keys() == phases.GROUPS.keys()


@pytest.mark.parametrize("group", EXPECTED)
def test_every_phase_is_in_or_out(group: str) -> None:
    assert EXPECTED[group].keys() == set(get_args(Phase)), "say of the new phase whether it belongs here"
    assert phases.GROUPS[group] == {phase for phase, inside in EXPECTED[group].items() if inside}
