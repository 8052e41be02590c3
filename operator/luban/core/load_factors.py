"""Load factors of balancer members: Luban cloud [L], Fig. 3, lines 19-21."""

from __future__ import annotations

import math
from collections.abc import Mapping

CHANGE_THRESHOLD = 10
"""A factor is worth a change of the balancer only when one of them moved by so much."""
FULL = 100


def adaptive_factors(sessions: Mapping[str, int | None], maximum: int, current: Mapping[str, int]) -> dict[str, int]:
    """Factor 1..100 of each VM: max(1, round(100 r_j / max r)), r_j = max(0, 1 - A_j / S_max).

    Halves are rounded up. A VM whose sessions are unknown keeps its current factor (100 if it has none). The current
    factors are returned unchanged while none would move by CHANGE_THRESHOLD or more.
    """
    free = {name: max(0.0, 1 - count / maximum) for name, count in sessions.items() if count is not None}
    most = max(free.values(), default=0.0)
    wanted = {
        name: max(1, math.floor(FULL * free[name] / most + 0.5))
        if name in free and most > 0
        else current.get(name, FULL)
        for name in sessions
    }
    moved = any(abs(factor - current.get(name, -FULL)) >= CHANGE_THRESHOLD for name, factor in wanted.items())
    return wanted if moved else {name: current.get(name, FULL) for name in sessions}
