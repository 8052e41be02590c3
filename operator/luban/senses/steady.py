"""Words that stay: what hangs is described in several ways in turn, and each way would be a write of the status."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SteadyWords:
    """What is told of troubles, by what they are about."""

    _told: dict[str, str] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)

    def choose(self, about: str, words: str) -> str:
        """What to tell: the first words, until others were said twice in a row."""
        told = self._told.setdefault(about, words)
        if words == self._last.get(about):
            told = self._told[about] = words
        self._last[about] = words
        return told

    def keep(self, about: str, words: str) -> str:
        """What is told already, else these words."""
        return self._told.setdefault(about, words)

    def over(self, about: str) -> None:
        """The trouble is over."""
        self._told.pop(about, None)
        self._last.pop(about, None)
