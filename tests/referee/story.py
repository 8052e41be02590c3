"""A story: a spec and what happens when. Plain data that prints and parses."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

Argument = str | int | float | bool | list[int] | None


class BadStory(ValueError):
    """A story that cannot be played; says what to change."""


@dataclass(frozen=True)
class Happening:
    """One event, so many seconds after the one before it."""

    pause: float
    kind: str
    arguments: tuple[Argument, ...] = ()

    def words(self) -> str:
        """As a line to read."""
        return " ".join([self.kind, *(json.dumps(it) if isinstance(it, str) else str(it) for it in self.arguments)])


@dataclass(frozen=True)
class Story:
    """What is asked for at first, and what happens then."""

    spec: dict[str, Any]
    """The LubanCluster's spec in wire format."""
    happenings: tuple[Happening, ...] = ()
    load: int = 100
    """Active sessions at the beginning."""
    ending: str = "heals"
    """heals: all faults heal; buries: so, but hosts that the user gave up stay dead; deletes: heals, then the cluster
    is deleted."""
    dice: int | None = None
    """Seed of the order in which the actions of a plan are carried out; None: in the plan's."""
    seed: int | None = field(default=None, compare=False)
    """What it was made from."""

    def to_json(self) -> str:
        """One line of JSON."""
        plain = asdict(self)
        plain["happenings"] = [[it.pause, it.kind, *it.arguments] for it in self.happenings]
        return json.dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> Story:
        """Parse what `to_json` gave. Raises BadStory."""
        try:
            plain = json.loads(text)
            listed = tuple(Happening(float(it[0]), str(it[1]), tuple(it[2:])) for it in plain.pop("happenings", ()))
            return cls(happenings=listed, **plain)
        except (ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            raise BadStory(f"not a story: {error}; it must be one JSON object as the referee prints it") from error

    def words(self) -> str:
        """As lines to read."""
        at, lines = 0.0, [f"spec {json.dumps(self.spec)}", f"load {self.load}"]
        for it in self.happenings:
            at += it.pause
            lines.append(f"+{it.pause:g} s (at {_clock(at)}): {it.words()}")
        return "\n".join([*lines, f"ending: {self.ending}, dice {self.dice}"])

    def without(self, start: int, count: int) -> Story:
        """The same without some happenings; what follows comes as late as before."""
        gone = self.happenings[start : start + count]
        rest = list(self.happenings[start + count :])
        if rest:
            rest[0] = replace(rest[0], pause=rest[0].pause + sum(it.pause for it in gone))
        return replace(self, happenings=(*self.happenings[:start], *rest))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
