"""The page docs/reasons.md: every condition, and every reason that it or anything else may carry."""

from __future__ import annotations

from collections.abc import Iterator

from luban.api.conditions import CONDITIONS, ConditionType, Status
from luban.api.reasons import CHANGES, DECISIONS, EVENTS, FAILURES, PLACEMENTS, TIER, VMS, Reasons

HEAD = """# Conditions and reasons

Generated from `operator/luban/api/conditions.py` and `reasons.py` by `make crds`; do not edit. A reason is a word for programs;
the message beside it says which VM, host or file it is about, and what to do.
"""
TABLES = (
    ("Decisions", "`status.decision.reason` of a LubanCluster, and the metric `luban_decision`.", DECISIONS),
    ("Placement", "`status.placement.reason` of a LubanCluster.", PLACEMENTS),
    ("Balancers", "`status.tier.reason` of a LubanCluster.", TIER),
    ("VMs", "`status.reason` of a LubanVM, and its Events. A failed VM may carry a failure, see below.", VMS),
    ("Changes", "Why something is done: the operator's log, and the Event `Removing`.", CHANGES),
    ("Events", "Events carry the reason of a condition or of a VM, or one of these.", EVENTS),
)
ORDER: tuple[Status, ...] = ("True", "False", "Unknown")


def reasons() -> str:
    """The whole page."""
    lines = [HEAD, "## Conditions of a LubanCluster", ""]
    for name, kind in CONDITIONS.items():
        lines += [f"### {name}", "", *_condition(kind), ""]
    for heading, text, table in TABLES:
        lines += [f"## {heading}", "", text, "", *_table(table), ""]
    lines += ["## Failures", "", "In conditions, in failed VMs, in logs, and in the metric `luban_tick_errors`.", ""]
    for who, table in FAILURES.items():
        lines += [f"### {who}", "", *_table(table), ""]
    return "\n".join(lines)


def _condition(kind: ConditionType) -> Iterator[str]:
    warning = f"; {kind.warning} is also told as a Warning Event" if kind.warning else ""
    yield f"{kind.meaning} Good: {kind.good}{warning}."
    yield from ("", "| status | reason | meaning |", "|---|---|---|")
    for status in ORDER:
        for reason, meaning in kind.reasons.get(status, {}).items():
            yield f"| {status} | `{reason}` | {meaning} |"
        if status in kind.further:
            yield f"| {status} | others | The reason of {kind.further[status]}. |"


def _table(table: Reasons) -> Iterator[str]:
    yield from ("| reason | meaning |", "|---|---|")
    yield from (f"| `{reason}` | {meaning} |" for reason, meaning in table.items())
