"""What docs/monitoring.md and manifests/monitoring tell Prometheus is so: names, labels, ports, verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from luban.api.balancer import Balancer
from luban.api.conditions import CONDITIONS
from luban.api.host import BondVerdict
from luban.api.names import OPERATOR_USER
from luban.cli.metrics_page import metrics
from luban.core.placement import SOUND
from luban.render.balancer_objects import AgentProgram, balancer_objects
from luban.runtime.metrics import VM_STATES

ROOT = Path(__file__).resolve().parents[3]
MONITORING = ROOT / "manifests" / "monitoring"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
_ROW = re.compile(r"^\| `(\w+)` \| \w+ \| ([^|]*) \|", re.MULTILINE)
_SELECTOR = re.compile(r"(luban_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
Selector = tuple[str, dict[str, tuple[str, str]]]


def labels_of(page: str) -> Mapping[str, set[str]]:
    """Labels of each metric, of all programs that have it."""
    found: dict[str, set[str]] = {}
    for name, labels in _ROW.findall(page):
        found.setdefault(name, set()).update(filter(None, labels.split(", ")))
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def selectors() -> Iterator[Selector]:
    for rule in rules():
        for name, matchers in _SELECTOR.findall(rule["expr"]):
            yield name, {label: (how, value) for label, how, value in _MATCHER.findall(matchers)}


def job() -> dict[str, Any]:
    (found,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    return dict(found)


def ports() -> Iterator[tuple[str, str, str, int]]:
    """Namespace and label of each workload that there is, name and number of each of its ports."""
    for it in workloads():
        pod = it.get("spec", {}).get("template", {}) if isinstance(it.get("spec"), dict) else {}
        for container in pod.get("spec", {}).get("containers", []):
            label = pod["metadata"]["labels"]["app.kubernetes.io/name"]
            for port in container["ports"]:
                yield it["metadata"]["namespace"], label, port["name"], port["containerPort"]


def workloads() -> Iterator[dict[str, Any]]:
    """Objects of the base, and those that the operator makes for a LubanCluster."""
    for path in (ROOT / "manifests" / "base").glob("*.yaml"):
        yield from filter(None, yaml.safe_load_all(path.read_text()))
    yield from balancer_objects("luban-system", "luban", Balancer(), 1, AgentProgram("luban-cloud", OPERATOR_USER))


def test_every_metric_and_label_of_an_alert_exists() -> None:
    known = labels_of(metrics())
    for name, matchers in selectors():
        assert name in known, name
        assert matchers.keys() <= known[name], name
    assert set(re.findall(r"luban_\w+", PAGE)) <= known.keys()


def test_every_value_that_an_alert_looks_for_exists() -> None:
    values = {"type": set(CONDITIONS), "status": {"True", "False", "Unknown"}, "state": set(VM_STATES)}
    for _, matchers in selectors():
        for label in matchers.keys() & values.keys():
            assert matchers[label][1] in values[label]


def test_every_bond_that_is_known_and_not_sound_is_an_alert() -> None:
    (matcher,) = (matchers["verdict"] for name, matchers in selectors() if name == "luban_host_bond")
    how, pattern = matcher
    assert how == "!~"
    assert {it for it in get_args(BondVerdict) if re.fullmatch(pattern, it)} == SOUND | {"Unknown"}


def test_the_page_lists_all_alerts_and_no_others() -> None:
    assert re.findall(r"^\| `(Luban\w+)` \|", PAGE, re.MULTILINE) == [rule["alert"] for rule in rules()]


def test_one_port_of_each_program_is_scraped_wherever_it_runs() -> None:
    (keep,) = (it for it in job()["relabel_configs"] if it.get("action") == "keep")
    assert [it.removeprefix("__meta_kubernetes_pod_") for it in keep["source_labels"]] == [
        "label_app_kubernetes_io_name",
        "container_port_name",
    ]
    kept = {
        (space, label, number)
        for space, label, name, number in ports()
        if re.fullmatch(keep["regex"], f"{label};{name}")
    }
    assert kept == {
        ("luban-system", "luban-operator", 8081),
        ("luban-system", "luban-balancer", 9180),
        ("luban-node", "luban-node-agent", 9182),
    }
    (found,) = job()["kubernetes_sd_configs"]
    assert (found["role"], set(found["namespaces"]["names"])) == ("pod", {space for space, _, _ in kept})
    assert re.fullmatch(keep["regex"], "shop-balancer;agent"), "of another LubanCluster"


@pytest.mark.parametrize(("space", "label", "name", "number"), sorted(ports()))
def test_the_page_names_the_ports_of_the_base(space: str, label: str, name: str, number: int) -> None:
    row = next(line for line in PAGE.splitlines() if f"`{label}`, namespace `{space}`" in line)
    assert name == "http" or row.endswith(f"| {number} | `{name}` |")


def test_what_prometheus_adds_hides_no_label_of_a_metric() -> None:
    added = {it["target_label"] for it in job()["relabel_configs"] if "target_label" in it}
    used = {label for labels in labels_of(metrics()).values() for label in labels}
    assert added & used == {"cluster"}, "only balancer agents' Pods have that label"
    agents = labels_of(metrics().partition("## Balancer agent")[2].partition("## Node agent")[0])
    assert not any("cluster" in labels for labels in agents.values())
