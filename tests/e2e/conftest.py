"""One lab for all end-to-end tests, and the sample cluster, settled, for each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.datacentre import DataCentre
from lab.paths import Layout
from tests.e2e.lab_view import LabView

BASE = int(os.environ.get("LUBAN_E2E_BASE", "96"))
"""Another one for each run beside others on one machine: a run begins by destroying what the last one left there."""
STATE = Path("/var/tmp/luban-e2e" if os.geteuid() == 0 else f"/var/tmp/luban-e2e-{os.geteuid()}") / f"run-{BASE}"


@pytest.fixture(scope="session")
def lab() -> Iterator[DataCentre]:
    """A whole lab of its own, on addresses of its own."""
    made = DataCentre(Layout(BASE, STATE / str(BASE)), lambda text: print(text, file=sys.stderr))
    made.destroy()
    made.up()
    yield made
    made.destroy()
    shutil.rmtree(STATE, ignore_errors=True)


@pytest.fixture
def scene(lab: DataCentre) -> LabView:
    """The sample cluster with two VMs, under policy Manual, whatever the last test left."""
    it = LabView(lab)
    lab.start_operator()
    lab.apply_sample()
    it.patch({"spec": {"scaling": {"policy": "Manual"}, "replicas": 2, "paused": False}})
    it.until(lambda: it.consistent(2), "two VMs serve")
    return it
