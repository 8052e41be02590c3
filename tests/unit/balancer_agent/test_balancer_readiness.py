"""When clients are sent to a balancer."""

from __future__ import annotations

import pytest

from luban.adapters.apache_httpd.manager import LiveSlot, SlotState
from luban.balancer_agent.report import why_not_ready


def slots(*flags: str) -> dict[str, LiveSlot]:
    """httpd's slots, each with its letters."""
    return {
        f"s{number:03d}": LiveSlot(SlotState(frozenset(letters), "x", 1), 8080, False, 0)
        for number, letters in enumerate(flags)
    }


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "httpd does not serve"),
        (("D", "D"), "no VM takes requests"),
        (("D", "N"), "no VM takes requests"),
        (("D", ""), ""),
    ],
)
def test_only_with_a_vm_that_takes_requests(flags: tuple[str, ...], why: str) -> None:
    assert why_not_ready(slots(*flags)) == why
