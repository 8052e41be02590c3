"""The invariants. Each rule's docstring says what it demands and what it excuses; there is one test for each."""

from __future__ import annotations

from tests.referee.rules.base import Rule, Violation
from tests.referee.rules.conduct import Patience, Paused, Reasons, Routes
from tests.referee.rules.ending import ClusterDeletionEnds, Rest, WarmPool, WellInTheEnd
from tests.referee.rules.limits import Maxima, OneAddress, Placement
from tests.referee.rules.removal import Answers, BlindRemoval, HostMinimum, MissingData, TrueCause
from tests.referee.rules.stopping import DeletionEnds, Drained, Grace, NothingLeft

RULES: tuple[type[Rule], ...] = (
    Answers,
    MissingData,
    BlindRemoval,
    TrueCause,
    HostMinimum,
    Drained,
    Grace,
    NothingLeft,
    DeletionEnds,
    Maxima,
    Placement,
    OneAddress,
    Reasons,
    Paused,
    Patience,
    Routes,
    Rest,
    WellInTheEnd,
    WarmPool,
    ClusterDeletionEnds,
)

__all__ = ["RULES", "ClusterDeletionEnds", "Rest", "Rule", "Violation", "WarmPool", "WellInTheEnd"]
