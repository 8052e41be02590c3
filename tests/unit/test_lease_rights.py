"""Who may write the Lease that decides which operator acts: the operator alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
FOLDERS = ("base", "tenant")
OPERATORS_LEASE = "luban-operator"


def objects(*kinds: str) -> Iterator[dict[str, Any]]:
    """Objects of some kinds in what is applied."""
    for path in sorted(path for folder in FOLDERS for path in (MANIFESTS / folder).glob("*.yaml")):
        yield from (it for it in yaml.safe_load_all(path.read_text()) if it and it["kind"] in kinds)


def lease_rules(role: dict[str, Any]) -> list[dict[str, Any]]:
    return [it for it in role["rules"] if {"leases", "*"} & set(it["resources"])]


def test_the_lease_is_there_before_anybody_else_can_make_it_and_nobody_holds_it() -> None:
    (lease,) = objects("Lease")
    assert lease["metadata"] == {"name": OPERATORS_LEASE, "namespace": "luban-system"}
    assert "spec" not in lease, "applied again, it would take the Lease from its holder"


def test_nobody_but_the_operator_may_change_it() -> None:
    others = [
        role for role in objects("Role", "ClusterRole") if not role["metadata"]["name"].startswith("luban-operator")
    ]
    assert len(others) >= 2
    for role in others:
        for rule in lease_rules(role):
            names = rule.get("resourceNames", [])
            assert rule["verbs"] == ["create"] or (names and OPERATORS_LEASE not in names), role["metadata"]["name"]


def test_node_agents_have_no_rights_to_leases() -> None:
    (role,) = (it for it in objects("ClusterRole") if it["metadata"]["name"] == "luban-node-agent")
    assert lease_rules(role) == []
