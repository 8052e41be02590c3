"""The guest with bonds has what its node agent imports: a module that is missing there is found out in minutes only."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lab.bonds.image import LIBRARIES
from tests.conftest import ROOT

pytestmark = pytest.mark.integration
IMPORTED = "import sys, luban.node_agent.command; print(*{name.partition('.')[0] for name in sys.modules})"


def with_requirements(names: set[str]) -> set[str]:
    """Distributions and all that they need on this machine, but for extras."""
    found: set[str] = set()
    waiting = {canonicalize_name(name) for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        needed = [Requirement(text) for text in requires(name) or ()]
        waiting |= {
            canonicalize_name(it.name) for it in needed if it.marker is None or it.marker.evaluate({"extra": ""})
        } - found
    return found


def test_the_guest_has_what_its_agent_imports() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    done = subprocess.run([sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True, check=True)
    distributions = packages_distributions()
    imported = {canonicalize_name(it) for name in done.stdout.split() for it in distributions.get(name, ())}
    # What else is imported is done without where it is missing: rich by structlog, for one.
    needed = imported & with_requirements({"luban-cloud"}) - {"luban-cloud"}
    assert len(needed) > len(LIBRARIES) / 2
    assert needed - with_requirements(set(LIBRARIES)) == set()
