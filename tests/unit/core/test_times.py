"""Two clocks, and times as Kubernetes writes them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luban.core.times import Now, rfc3339, seconds_of


def test_whole_seconds() -> None:
    assert rfc3339(1_700_000_000.75) == "2023-11-14T22:13:20Z"
    assert seconds_of("2023-11-14T22:13:20.750000Z") == 1_700_000_000.75


@given(st.floats(allow_nan=False, allow_infinity=True))
def test_every_number_can_be_written(seconds: float) -> None:
    """A window without an end is no fault of the tick that shows when it ends."""
    assert seconds_of(rfc3339(seconds)) <= seconds_of("9999-12-31T23:59:59Z")


def test_a_written_time_is_never_in_the_future() -> None:
    """The clock was set back since it was written."""
    now = Now(wall=1000.0, monotonic=50.0)
    assert now.monotonic_of(990.0) == 40.0
    assert now.monotonic_of(5000.0) == 50.0
    assert now.wall_of(60.0) == 1010.0
