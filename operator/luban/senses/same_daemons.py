"""Which URIs turn out to lead to one libvirt daemon, however they are written.

That their texts say the same is seen without asking (normal_form). An address and a name, or two names, of one machine
are known by what is there: the same domains of ours in the same states, again and again. One that is being migrated
runs in one of two places alone; and of one domain alone nothing is concluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog

from luban.api.libvirt_uri import normal_form

log = structlog.get_logger(__name__)

FEWEST = 2
"""So many domains must be the same."""
SURE = 3
"""Looks, one after the other, after which it is believed that two URIs lead to one daemon, or do not."""
Pair = frozenset[str]
"""Two URIs."""
Domains = frozenset[tuple[str, str]]
"""uuid and state of each."""


@dataclass
class SameDaemons:
    """Fed with what is seen at each URI."""

    turn: int = 0
    """How often anything turned out."""
    _seen: dict[str, Domains] = field(default_factory=dict)
    """By URI, as normal_form writes it, unless it does not answer now: the domains that were there last."""
    _fresh: set[tuple[str, str]] = field(default_factory=set)
    """A URI, and another at which somebody looked since the two were compared."""
    _same: set[Pair] = field(default_factory=set)
    """What turned out."""
    _doubts: Counter[Pair] = field(default_factory=Counter)
    """Looks, one after the other, that speak against what is held of a pair."""

    def take(self, uri: str, domains: Collection[tuple[str, str]]) -> None:
        """Domains of ours were seen at a URI, each in its state."""
        this, seen = normal_form(uri), frozenset(domains)
        self._seen[this] = seen
        for other, others in self._seen.items():
            if other == this:
                continue
            self._fresh.add((other, this))
            if max(len(seen), len(others)) >= FEWEST:
                self._compare(this, other, alike=seen == others)

    def forget(self, uri: str) -> None:
        """It does not answer, or nobody looks there any more."""
        self._seen.pop(normal_form(uri), None)
        self._fresh = {pair for pair in self._fresh if normal_form(uri) not in pair}

    def identity(self, uri: str) -> str:
        """The same for all URIs of one daemon."""
        this = normal_form(uri)
        return min({this}.union(*(pair for pair in self._same if this in pair)))

    def _compare(self, this: str, other: str, *, alike: bool) -> None:
        """One daemon that is asked at two URIs in turn may have changed in between: a single look decides nothing. And
        what one says again and again while nothing is heard of the other proves nothing."""
        pair = frozenset({this, other})
        if alike == (pair in self._same):
            self._doubts.pop(pair, None)
            return
        if (this, other) not in self._fresh:
            return
        self._fresh -= {(this, other), (other, this)}
        self._doubts[pair] += 1
        if self._doubts[pair] >= SURE:
            self._same.symmetric_difference_update({pair})
            self._doubts.pop(pair)
            self.turn += 1
            log.info("hosts turn out to be one daemon" if alike else "hosts are two daemons", uris=sorted(pair))
