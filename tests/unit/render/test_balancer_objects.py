"""The objects in front of a cluster's VMs, as golden files.

`LUBAN_UPDATE_GOLDEN=1 pytest tests/unit/render/test_balancer_objects.py` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from luban.api.balancer import MOST_BALANCERS, Balancer
from luban.api.names import ANNOTATION_OBJECTS, LABEL_CLUSTER
from luban.render.balancer_objects import AgentProgram, balancer_objects

GOLDEN = Path(__file__).parents[2] / "fixtures" / "balancer_objects"
PROGRAM = AgentProgram("registry.example/luban-cloud:1.2", "system:serviceaccount:luban-system:luban-operator")
FULL = {
    "listen": {"port": 8443},
    "stickyCookie": "LUBAN",
    "replicas": {"min": 2, "max": 3},
    "attachment": {"mode": "Cross", "p": 2, "dMax": 50},
    "drain": {"timeout": "90s"},
    "template": {
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
        "nodeSelector": {"zone": "edge"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "edge", "effect": "NoSchedule"}],
        "service": {"type": "LoadBalancer", "annotations": {"metallb.io/address-pool": "public"}},
    },
}


def rendered(spec: dict[str, Any], replicas: int = 1, cluster: str = "luban") -> tuple[dict[str, Any], ...]:
    return balancer_objects("team-a", cluster, Balancer.model_validate(spec), replicas, PROGRAM)


@pytest.mark.parametrize(("name", "spec", "replicas"), [("defaults", {}, 1), ("full", FULL, 2)])
def test_as_written_down(name: str, spec: dict[str, Any], replicas: int) -> None:
    text = yaml.safe_dump_all(rendered(spec, replicas), sort_keys=True)
    path = GOLDEN / f"{name}.yaml"
    if "LUBAN_UPDATE_GOLDEN" in os.environ:
        path.write_text(text)
    assert text == path.read_text()


def test_each_bears_the_label_and_is_in_the_namespace() -> None:
    for body in rendered(FULL, 2):
        assert body["metadata"]["labels"][LABEL_CLUSTER] == "luban"
        assert body["metadata"]["namespace"] == "team-a"


def test_clusters_share_nothing() -> None:
    ours = {(it["kind"], it["metadata"]["name"]) for it in rendered({})}
    theirs = {(it["kind"], it["metadata"]["name"]) for it in rendered({}, cluster="other")}
    assert not ours & theirs


def test_an_agent_may_read_its_config_maps_and_write_its_leases_alone() -> None:
    role = next(it for it in rendered({}) if it["kind"] == "Role")
    named = [rule for rule in role["rules"] if "create" not in rule["verbs"]]
    expected = [f"luban-balancer-{index}" for index in range(MOST_BALANCERS)]
    assert all(rule["resourceNames"] == expected for rule in named)
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch", "patch", "create"}


def test_another_number_of_pods_is_the_same_version_and_anything_else_is_not() -> None:
    def version(spec: dict[str, Any], replicas: int) -> str:
        return str(rendered(spec, replicas)[-1]["metadata"]["annotations"][ANNOTATION_OBJECTS])

    assert version({}, 1) == version({}, 3)
    assert version({}, 1) != version({"listen": {"port": 8081}}, 1)
    assert version({}, 1) != version({"template": {"service": {"type": "NodePort"}}}, 1)


def test_requests_in_flight_may_end_before_the_pod_does() -> None:
    pod = rendered({"drain": {"timeout": "5m"}})[-1]["spec"]["template"]["spec"]
    environment = {it["name"]: it.get("value") for it in pod["containers"][0]["env"]}
    assert environment["LUBAN_BALANCER_AGENT_STOP_SECONDS"] == "300"
    assert pod["terminationGracePeriodSeconds"] > 300


def test_a_sticky_client_stays_with_its_balancer() -> None:
    def affinity(spec: dict[str, Any]) -> str:
        return next(it["spec"]["sessionAffinity"] for it in rendered(spec) if it["metadata"]["name"] == "luban")

    assert affinity({}) == "None"
    assert affinity({"stickyCookie": "LUBAN"}) == "None", "there is one"
    assert affinity(FULL) == "ClientIP"
