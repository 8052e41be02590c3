"""Which URIs turn out to lead to one libvirt daemon, however they are written.

That their texts say the same is seen without asking (normal_form). An address and a name, or two names, of one machine
are known by what is there: the same domains of ours, again and again. A domain that is being migrated is in two places
only for a while, and beside others that are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog

from luban.api.libvirt_uri import normal_form

log = structlog.get_logger(__name__)

SURE = 3
"""Looks, one after the other, after which it is believed that two URIs lead to one daemon, or do not."""
Pair = frozenset[str]
"""Two URIs."""


@dataclass
class SameDaemons:
    """Fed with what is seen at each URI."""

    turn: int = 0
    """How often anything turned out."""
    _seen: dict[str, frozenset[str]] = field(default_factory=dict)
    """By URI, as normal_form writes it: uuids of the domains that were there last."""
    _same: set[Pair] = field(default_factory=set)
    """What turned out."""
    _doubts: Counter[Pair] = field(default_factory=Counter)
    """Looks, one after the other, that speak against what is held of a pair."""

    def take(self, uri: str, domains: Collection[str]) -> None:
        """Domains of ours were seen at a URI."""
        this, seen = normal_form(uri), frozenset(domains)
        self._seen[this] = seen
        for other, others in self._seen.items():
            # Of two that have none nothing can be told.
            if other != this and (seen or others):
                self._compare(frozenset({this, other}), alike=seen == others)

    def forget(self, uri: str) -> None:
        """Nobody looks there any more. What turned out holds on: what is refused is not looked at."""
        self._seen.pop(normal_form(uri), None)

    def identity(self, uri: str) -> str:
        """The same for all URIs of one daemon."""
        this = normal_form(uri)
        return min({this}.union(*(pair for pair in self._same if this in pair)))

    def _compare(self, pair: Pair, *, alike: bool) -> None:
        """One daemon that is asked at two URIs in turn may have changed in between: a single look decides nothing."""
        if alike == (pair in self._same):
            self._doubts.pop(pair, None)
            return
        self._doubts[pair] += 1
        if self._doubts[pair] >= SURE:
            self._same.symmetric_difference_update({pair})
            self._doubts.pop(pair)
            self.turn += 1
            log.info("hosts turn out to be one daemon" if alike else "hosts are two daemons", uris=sorted(pair))
