"""docs/metrics.md names every metric with its labels."""

from __future__ import annotations

from pathlib import Path

from luban.cli.metrics_page import metrics

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


def test_the_committed_page_is_up_to_date() -> None:
    assert PAGE.read_text() == metrics(), "run: make crds"


def test_metrics_of_all_three_programs_with_their_labels() -> None:
    rows = metrics().splitlines()
    for row in (
        "| `luban_cluster_condition` | gauge | namespace, cluster, type, status | 1: the condition has this status |",
        "| `luban_balancer_httpd_workers` | gauge | state | Worker threads of httpd |",
        "| `luban_bond_verdict` | gauge | bond, verdict | 1 for the bond's verdict |",
        "| `luban_bond_host_verdict` | gauge | verdict | 1 for the verdict of the bond that counts |",
    ):
        assert row in rows
