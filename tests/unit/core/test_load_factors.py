"""Load factors: [L] Fig. 3, lines 19-21."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luban.core.load_factors import CHANGE_THRESHOLD, FULL, adaptive_factors

NAMES = st.sampled_from(["a", "b", "c", "d"])
SESSIONS = st.dictionaries(NAMES, st.none() | st.integers(0, 300))
CURRENT = st.dictionaries(NAMES, st.integers(1, 100))


def test_the_freest_gets_all_others_their_part() -> None:
    """r = 0.9, 0.45, 0.3 of 100 sessions."""
    assert adaptive_factors({"a": 10, "b": 55, "c": 70}, 100, {}) == {"a": 100, "b": 50, "c": 33}


def test_an_overloaded_vm_keeps_one() -> None:
    assert adaptive_factors({"a": 0, "b": 100, "c": 250}, 100, {}) == {"a": 100, "b": 1, "c": 1}


def test_nobody_is_free() -> None:
    """Nothing to tell them apart by: what they have stays."""
    assert adaptive_factors({"a": 100, "b": 120}, 100, {"a": 7}) == {"a": 7, "b": 100}


def test_small_moves_are_not_worth_a_change() -> None:
    current = {"a": 100, "b": 50}
    assert adaptive_factors({"a": 0, "b": 59}, 100, current) == current
    assert adaptive_factors({"a": 0, "b": 60}, 100, current) == {"a": 100, "b": 40}


def test_one_big_move_brings_the_small_ones_along() -> None:
    current = {"a": 100, "b": 50, "c": 50}
    assert adaptive_factors({"a": 0, "b": 55, "c": 70}, 100, current) == {"a": 100, "b": 45, "c": 30}


def test_unknown_sessions_keep_their_factor() -> None:
    assert adaptive_factors({"a": 0, "b": None, "c": None}, 100, {"b": 40}) == {"a": 100, "b": 40, "c": 100}


def test_a_new_vm_gets_its_share_at_once() -> None:
    assert adaptive_factors({"a": 50, "b": 0}, 100, {"a": 100}) == {"a": 50, "b": 100}
    assert adaptive_factors({"a": 0, "b": 5}, 100, {"a": 100}) == {"a": 100, "b": 95}


def test_nobody() -> None:
    assert adaptive_factors({}, 100, {"gone": 3}) == {}


@given(SESSIONS, CURRENT)
def test_always_within_bounds_and_at_rest_after_one_change(
    sessions: dict[str, int | None], current: dict[str, int]
) -> None:
    """With the same loads the second look finds nothing to change."""
    factors = adaptive_factors(sessions, 100, current)
    assert set(factors) == set(sessions)
    assert all(1 <= factor <= FULL for factor in factors.values())
    assert adaptive_factors(sessions, 100, factors) == factors


@given(SESSIONS, CURRENT)
def test_a_change_is_worth_it(sessions: dict[str, int | None], current: dict[str, int]) -> None:
    """Either nothing changes for those that are known, or someone is new or moves by CHANGE_THRESHOLD."""
    factors = adaptive_factors(sessions, 100, current)
    known = {name: current.get(name) for name in sessions}
    moved = [abs(factors[name] - old) for name, old in known.items() if old is not None]
    assert factors == known or None in known.values() or max(moved) >= CHANGE_THRESHOLD
