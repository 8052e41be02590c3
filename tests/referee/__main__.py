"""`python -m tests.referee`: play many stories and print the shortest for each way of breaking a rule."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import click

from tests.referee.drive import play
from tests.referee.rules import Violation
from tests.referee.shrink import shortest
from tests.referee.stories import story_of
from tests.referee.story import BadStory, Story

LINES_BEFORE = 14
LINES_AFTER = 3
CHUNK = 10


@dataclass
class Tally:
    """How often each way of breaking a rule was seen, and in which story first."""

    stories: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, seed: int, names: list[str]) -> None:
        """Count one story."""
        self.stories += 1
        for name in names:
            self.counts[name] = self.counts.get(name, 0) + 1
            self.first[name] = min(seed, self.first.get(name, seed))


def names_of(seed: int) -> tuple[int, list[str]]:
    """Play the story of a seed: the names of its violations."""
    return seed, [it.name for it in play(story_of(seed)).violations]


@click.command()
@click.option("--stories", default=10_000, show_default=True, type=click.IntRange(1), help="How many stories to play.")
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0), help="Seed of the first; the next follow."
)
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 64), help="How many at the same time.")
@click.option("--story", default="", help="Play this one story alone: JSON as printed here, or a file that holds it.")
@click.option("--keep-length", is_flag=True, help="Print the stories as they came, without looking for shorter ones.")
@click.option("--whole-log", is_flag=True, help="Print all that happened, not only what was around a violation.")
def main(stories: int, seed: int, jobs: int, story: str, keep_length: bool, whole_log: bool) -> None:
    """Play stories of a simulated data centre and judge what the operator does. Exit code 1 if a rule is broken."""
    try:
        if story:
            sys.exit(_play_one(_read(story), whole_log=whole_log))
        tally = _play_all(range(seed, seed + stories), jobs)
    except BadStory as error:
        raise click.ClickException(str(error)) from error
    _report(tally, jobs, shorten=not keep_length, whole_log=whole_log)
    sys.exit(1 if tally.counts else 0)


def _read(text: str) -> Story:
    """A story from JSON, or from a file."""
    if text.lstrip().startswith("{"):
        return Story.from_json(text)
    try:
        return Story.from_json(Path(text).read_text())
    except OSError as error:
        raise BadStory(f"cannot read {text}: {error.strerror}") from error


def _play_one(story: Story, *, whole_log: bool) -> int:
    outcome = play(story)
    click.echo(story.words())
    if whole_log:
        click.echo("\n".join(outcome.log))
    for violation in outcome.violations:
        _show(story, violation, [] if whole_log else outcome.log)
    click.echo(f"{len(outcome.violations)} violations")
    return 1 if outcome.violations else 0


def _play_all(seeds: range, jobs: int) -> Tally:
    tally, begun = Tally(), time.monotonic()
    try:
        for seed, names in _played(seeds, jobs):
            tally.add(seed, names)
            _progress(tally, len(seeds), time.monotonic() - begun)
    except KeyboardInterrupt:
        click.echo("\ninterrupted; what was found so far:", err=True)
    if sys.stderr.isatty():
        click.echo(err=True)
    seconds = time.monotonic() - begun
    click.echo(
        f"{tally.stories} stories from seed {seeds.start} in {seconds:.0f} s: {len(tally.counts)} kinds of violations"
    )
    return tally


def _played(seeds: range, jobs: int) -> Iterator[tuple[int, list[str]]]:
    if jobs == 1:
        yield from map(names_of, seeds)
        return
    with Pool(jobs, _ignore_interrupts) as pool:
        yield from pool.imap_unordered(names_of, seeds, CHUNK)


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that started the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _progress(tally: Tally, total: int, seconds: float) -> None:
    """On a terminal a line that changes; else a line for every tenth."""
    terminal = sys.stderr.isatty()
    if tally.stories % (25 if terminal else max(1, total // 10)) and tally.stories != total:
        return
    left = seconds / tally.stories * (total - tally.stories)
    words = f"{tally.stories}/{total} stories, {len(tally.counts)} kinds of violations, {left:.0f} s left "
    click.echo(f"\r{words}" if terminal else words, err=True, nl=not terminal)


def _report(tally: Tally, jobs: int, *, shorten: bool, whole_log: bool) -> None:
    """Most frequent first."""
    names = sorted(tally.counts, key=lambda name: (-tally.counts[name], name))
    found = [(name, tally.first[name]) for name in names]
    with Pool(jobs, _ignore_interrupts) as pool:
        for (name, seed), story in zip(found, pool.imap(partial(_shortened, shorten=shorten), found), strict=True):
            outcome = play(story, stop_at=name)
            violation = outcome.of(name)
            assert violation is not None
            click.echo(f"\n=== {name}: in {tally.counts[name]} of {tally.stories} stories, first with seed {seed}")
            click.echo(story.words())
            click.echo(f"again: python -m tests.referee --story '{story.to_json()}'")
            _show(story, violation, outcome.log, whole=whole_log)


def _shortened(found: tuple[str, int], *, shorten: bool) -> Story:
    name, seed = found
    return shortest(story_of(seed), name) if shorten else story_of(seed)


def _show(story: Story, violation: Violation, log: list[str], *, whole: bool = False) -> None:
    """The log around a violation, and what was broken."""
    first, last = max(0, violation.line - LINES_BEFORE), violation.line + LINES_AFTER
    for line in log if whole else log[first:last]:
        click.echo(f"    {line}")
    click.echo(f"BROKEN {violation.name} (seed {story.seed}): {violation.message}")


if __name__ == "__main__":
    main()
