"""Random moments are decided as when the digests were written: what makes a plan faster decides nothing anew.

`LUBAN_UPDATE_GOLDEN=1 pytest tests/unit/core/test_same_decisions.py` writes the digests anew: after a change that means
to decide something else, and only then.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from luban.core.model import Plan
from luban.core.plan import plan
from tests.fakes.random_worlds import TEMPLATES, moment_of
from tests.fakes.simulator import CLUSTER

DIGESTS = Path(__file__).parents[2] / "fixtures" / "decisions" / "digests.txt"
"""One line for each block of moments: its first seed, then a digest for each."""
UPDATE = "LUBAN_UPDATE_GOLDEN" in os.environ
BLOCK = 25
SMALL, MANY = 60, 300
"""VMs of a moment: up to so many, or exactly so many."""
SEEDS = {SMALL: range(3000), MANY: range(10_000, 10_050)}
BLOCKS = [
    (most, seeds[start : start + BLOCK]) for most, seeds in SEEDS.items() for start in range(0, len(seeds), BLOCK)
]
WORDS = frozenset({"message", "placement"})
"""Fields in which a decision is told in words: those may change."""
YOUNGER = {"wishes": (), "metrics": (), "tier": None, "role": "Serving"}
"""Fields that came after the digests: while they say what was so before they are left out, so that what is decided as
before has the digest that it had."""
SCALARS = (str, float, int, bool, type(None))


def write_out(value: Any, out: Callable[[str], None]) -> None:
    """Write a value out with all that is in it; sets and mappings have no order."""
    if isinstance(value, SCALARS):
        out(repr(value))
    elif is_dataclass(value):
        out(type(value).__name__)
        for name in _names(type(value)):
            if name not in YOUNGER or getattr(value, name) != YOUNGER[name]:
                write_out(getattr(value, name), out)
    elif isinstance(value, BaseModel):
        out(_words(value))
    elif isinstance(value, dict):
        for key in sorted(value):
            out(f"{key}:")
            write_out(value[key], out)
        out("}")
    else:
        for one in sorted(value) if isinstance(value, frozenset) else value:
            write_out(one, out)
        out("]")


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name not in WORDS or field.type != "str")


KNOWN_TEMPLATES = {id(template): repr(template) for kind in TEMPLATES.values() for template in kind}


def _words(value: BaseModel) -> str:
    known = KNOWN_TEMPLATES.get(id(value))
    if known:
        return known
    written = repr(value.model_copy(update=dict.fromkeys(WORDS & type(value).model_fields.keys(), "")))
    for name, empty in YOUNGER.items():
        written = written.replace(f" {name}={empty!r},", "")
    return written


def digest_of(made: Plan) -> str:
    """All that a plan decides, in eight digits."""
    parts: list[str] = []
    write_out(made, parts.append)
    return hashlib.blake2b("|".join(parts).encode(), digest_size=4).hexdigest()


def decided(most: int, seed: int) -> str:
    """Digest of the plan for a moment."""
    it = moment_of(seed, most)
    return digest_of(plan(it.spec, CLUSTER, it.observation, it.memory, it.now, deleting=it.deleting))


def recorded() -> dict[int, list[str]]:
    """Digests by the first seed of their block."""
    lines = (line.split() for line in DIGESTS.read_text().splitlines())
    return {int(first): digests for first, *digests in lines}


@pytest.fixture(scope="module")
def digests() -> dict[int, list[str]]:
    """What was written down; written anew if asked for."""
    if UPDATE:
        lines = (f"{seeds[0]} {' '.join(decided(most, seed) for seed in seeds)}\n" for most, seeds in BLOCKS)
        DIGESTS.write_text("".join(lines))
    return recorded()


@pytest.mark.parametrize(("most", "seeds"), BLOCKS, ids=lambda it: str(it[0]) if isinstance(it, range) else "")
def test_decided_as_before(most: int, seeds: range, digests: dict[int, list[str]]) -> None:
    """If this fails for a change that means to decide the same, it does not; `moment_of` shows where."""
    found = {seed: decided(most, seed) for seed in seeds}
    assert found == dict(zip(seeds, digests[seeds[0]], strict=True))


def test_a_digest_tells_plans_apart() -> None:
    """Those of neighbours differ, and the same moment gives the same again."""
    found = [decided(SMALL, seed) for seed in (*SEEDS[SMALL][:20], 0)]
    assert len(set(found)) == 20
    assert found[0] == found[-1]
