"""The demo's story, with all its promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.datacentre import NAMESPACE, DataCentre
from lab.demo.__main__ import tell
from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


async def test_fig15(lab: DataCentre, tmp_path: Path) -> None:
    """Grow 2 -> 3 at the peak, shrink in calm, replace a killed VM, lose no request; then delete: nothing is left."""
    scene = LabView(lab)
    lab.kubectl("-n", NAMESPACE, "delete", "lubanclusters", "--all", "--wait=false")
    scene.until(lambda: not scene.get("lubanclusters")["items"], "no cluster is there")
    assert not scene.domains()
    assert not scene.volumes()
    assert await tell(lab, tmp_path)
    assert (tmp_path / "fig15.png").stat().st_size > 10_000
