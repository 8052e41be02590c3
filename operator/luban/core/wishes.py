"""How many VMs were right lately: when a number falls, the highest within a window holds, as with Kubernetes' HPA."""

from __future__ import annotations

import math
from collections.abc import Sequence

from luban.core.memory import Wish


def noted(wishes: Sequence[Wish], count: int, before: int, now: float) -> tuple[Wish, ...]:
    """The wishes with one more, without those that a later one is above: they decide nothing any more.

    The last one was right until now. `before`: how many are wanted so far. What was right before this process began to
    look is not known: that number.
    """
    known = (*wishes[:-1], Wish(now, wishes[-1].count if wishes else before))
    return (*(it for it in known if it.count > count), Wish(now, count))


def highest(wishes: Sequence[Wish], window: float, now: float) -> int:
    """The highest that was right within the last `window` seconds; the last one always counts."""
    return max(it.count for it in (*(it for it in wishes if it.until + window > now), wishes[-1]))


def below_from(wishes: Sequence[Wish], count: int, window: float) -> float:
    """From when on all within the window are lower than `count`, if the last one stays as it is."""
    return max((it.until + window for it in wishes if it.count >= count), default=-math.inf)
