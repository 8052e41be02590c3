"""Two monotonic clocks, the host's and the guest's, related by round trips."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOOKS = 15
Look = Callable[[], tuple[float, float, float]]
"""Ours before, the guest's, ours after: one round trip, in seconds."""


@dataclass(frozen=True)
class Fit:
    """The guest's clock minus ours at one moment."""

    at: float
    """our clock (s)"""
    offset: float
    """s"""
    error: float
    """at most so far off (s): half of the round trip"""


def best_fit(looks: Sequence[tuple[float, float, float]]) -> Fit:
    """What the quickest round trip says: the guest's stamp belongs to its middle."""
    before, guest, after = min(looks, key=lambda look: look[2] - look[0])
    middle = (before + after) / 2
    return Fit(middle, guest - middle, (after - before) / 2)


class ClockMap:
    """Translates the guest's stamps to our clock.

    The guest calibrates its clock as it boots, on an emulated processor, so the two drift apart: look again near
    whatever is measured. Between two looks it interpolates; outside, the nearest look counts.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self.fits: list[Fit] = []

    def look(self) -> Fit:
        """Compare the clocks now; takes some ten milliseconds."""
        fit = best_fit([self._look() for _ in range(LOOKS)])
        self.fits.append(fit)
        return fit

    def to_host(self, guest: float) -> float:
        """Our clock when the guest's showed `guest` (s). Raises ValueError before the first look."""
        if not self.fits:
            raise ValueError("the clocks were never compared")
        fits = list(self.fits)
        index = bisect.bisect([fit.at + fit.offset for fit in fits], guest)
        if index in (0, len(fits)):
            return guest - fits[min(index, len(fits) - 1)].offset
        left, right = fits[index - 1], fits[index]
        share = (guest - left.at - left.offset) / (right.at + right.offset - left.at - left.offset)
        return guest - (left.offset + share * (right.offset - left.offset))
