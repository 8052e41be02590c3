"""The page docs/metrics.md, made from the metrics that the operator and both agents define.

python -m luban.cli.metrics_page [--check] docs/metrics.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric

from luban.api.reference import keep
from luban.balancer_agent.metrics import Metrics as BalancerMetrics
from luban.core.bonds.host import HostJudgement, HostMemory
from luban.core.model import BalancerReport
from luban.node_agent.metrics import Metrics as NodeMetrics
from luban.runtime.metrics import Metrics as OperatorMetrics

HEAD = """# Metrics

Generated from the metrics' definitions by `make crds`; do not edit. Each program serves its own at `/metrics`, the
operator those of its Python process too (`process_*`, `python_*`). Of a histogram there are `_bucket`, `_sum` and
`_count`. [Monitoring](monitoring.md): ports, scraping, alerts.
"""


def metrics() -> str:
    """The whole page."""
    lines = [HEAD]
    for program, registry in (
        ("Operator", _operator()),
        ("Balancer agent", _balancer_agent()),
        ("Node agent", _node_agent()),
    ):
        lines += [f"## {program}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        lines += [*sorted(_rows(registry)), ""]
    return "\n".join(lines)


@dataclass
class _Writes:
    """Reports of a node agent that has written one."""

    writes: int = 1
    failures: int = 0
    last_report: float | None = 0.0


def _operator() -> CollectorRegistry:
    return OperatorMetrics(CollectorRegistry()).registry


def _balancer_agent() -> CollectorRegistry:
    made = BalancerMetrics()
    made.publish(lambda: BalancerReport("luban-balancer-0", reachable=True), dict)
    return made.registry


def _node_agent() -> CollectorRegistry:
    made = NodeMetrics(_Writes())
    made.judgement = HostJudgement((), primary=None, chosen_by=None, trouble="", memory=HostMemory())
    return made.registry


def _rows(registry: CollectorRegistry) -> Iterator[str]:
    # What labels a metric without samples has, the library tells nowhere else.
    for collector in registry._collector_to_names:
        for family in collector.collect():
            yield _row(family, getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ()))


def _row(family: Metric, labels: tuple[str, ...]) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |"


if __name__ == "__main__":
    sys.exit(keep({"metrics.md": metrics}, sys.argv[1:]))
