"""The generated CustomResourceDefinitions: structural, complete, in step with the models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from luban.api import LubanClusterSpec, LubanVM
from luban.api.common import Model
from luban.api.crd import KINDS, Kind, SchemaError, definition, drift, main, render, schema, write

ROOT = Path(__file__).resolve().parents[3]
Schema = dict[str, Any]

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)


def openapi(kind: Kind) -> Schema:
    """The schema inside the definition."""
    found: Schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def nodes(path: str, node: Schema) -> Iterator[tuple[str, Schema]]:
    """All nodes of a schema with their paths."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(f"{path}.{name}", child)
    if "items" in node:
        yield from nodes(f"{path}[]", node["items"])
    if "additionalProperties" in node:
        yield from nodes(f"{path}.*", node["additionalProperties"])


def node(kind: Kind, path: str) -> Schema:
    """The node at a path such as .spec.hosts[]."""
    return dict(nodes("", openapi(kind)))[path]


@kinds
def test_every_node_is_structural(kind: Kind) -> None:
    for path, found in nodes("", openapi(kind)):
        assert isinstance(found.get("type"), str) or "x-kubernetes-int-or-string" in found, path
        either = [{"type": "integer"}, {"type": "string"}]
        assert found.get("anyOf") in (None, either), path
        assert not {"$ref", "$defs", "oneOf", "allOf", "const", "title"} & found.keys(), path


@kinds
def test_every_field_is_described(kind: Kind) -> None:
    for path, found in nodes("", openapi(kind)):
        plain_item = path.endswith(("[]", ".*")) and found.get("type") != "object"
        if path != ".metadata" and not plain_item:
            assert found["description"].endswith("."), path
            assert "\n" not in found["description"], path


@kinds
def test_whatever_a_rule_may_look_at_has_a_maximum(kind: Kind) -> None:
    """The API server estimates what rules cost from these, and refuses the CRD where one is missing."""
    bounds = {"string": ("maxLength", "enum"), "array": ("maxItems",)}
    for path, found in nodes(".spec", openapi(kind)["properties"]["spec"]):
        if found.get("type") in bounds:
            assert any(bound in found for bound in bounds[found["type"]]), path
        if found.get("type") == "integer":
            assert {"minimum", "maximum"} <= found.keys(), path
        if "additionalProperties" in found:
            assert "maxProperties" in found, path


@kinds
def test_the_status_has_no_defaults(kind: Kind) -> None:
    for path, found in nodes(".status", openapi(kind)["properties"]["status"]):
        assert "default" not in found, path


@kinds
def test_rules_name_a_field_and_are_sentences_for_people(kind: Kind) -> None:
    for path, found in nodes("", openapi(kind)):
        for rule in found.get("x-kubernetes-validations", []):
            assert " must " in rule["message"] or ": " in rule["message"] or " needs " in rule["message"], path
            assert len(rule["message"]) < 200, path


@kinds
def test_patterns_are_explained(kind: Kind) -> None:
    for path, found in nodes(".spec", openapi(kind)["properties"]["spec"]):
        if "pattern" in found:
            assert "x-kubernetes-validations" in found, path


@kinds
def test_the_committed_files_are_up_to_date(kind: Kind) -> None:
    assert (ROOT / "crds" / kind.file).read_text() == render(kind), "run: python -m luban.api.crd crds/"


def test_the_output_does_not_depend_on_the_run() -> None:
    assert [render(kind) for kind in KINDS] == [render(kind) for kind in KINDS]


def test_optional_fields_are_plain_and_have_no_default() -> None:
    cluster, *_ = KINDS
    replicas = node(cluster, ".spec.replicas")
    assert replicas["type"] == "integer"
    assert replicas.keys() == {"description", "type", "minimum", "maximum"}
    assert node(cluster, ".spec.template.spec.domain.kernelBoot")["type"] == "object"


def test_parents_have_defaults_so_that_their_fields_are_filled_in() -> None:
    cluster, *_ = KINDS
    assert node(cluster, ".spec.balancer.drain")["default"] == {}
    # A node with rules of its own is checked before its fields are filled in.
    assert node(cluster, ".spec.hosts[].vms")["default"] == {"min": 1, "max": 3}
    assert node(cluster, ".spec.balancer")["default"]["replicas"] == {"min": 1, "max": 1}
    assert "default" not in node(cluster, ".spec.template")


def test_hosts_are_told_apart_by_name() -> None:
    cluster, *_ = KINDS
    hosts = node(cluster, ".spec.hosts")
    assert (hosts["x-kubernetes-list-type"], hosts["x-kubernetes-list-map-keys"]) == ("map", ["name"])


def test_names_columns_and_subresources() -> None:
    cluster, vm, host = (definition(kind)["spec"] for kind in KINDS)
    assert [it["names"]["shortNames"] for it in (cluster, vm, host)] == [["lc"], ["lvm"], ["lh"]]
    assert [it["scope"] for it in (cluster, vm, host)] == ["Namespaced", "Namespaced", "Cluster"]
    assert cluster["names"]["categories"] == vm["names"]["categories"] == ["luban"]
    columns = {it["name"]: it.get("priority", 0) for it in cluster["versions"][0]["additionalPrinterColumns"]}
    assert columns == {
        "VMs": 0,
        "Warm": 0,
        "Balancers": 0,
        "Bonds": 0,
        "Sessions": 0,
        "Verdict": 0,
        "Phase": 1,
        "Age": 0,
    }
    host_columns = [it["name"] for it in host["versions"][0]["additionalPrinterColumns"]]
    assert host_columns == ["Bond", "Mode", "Ports", "Speed", "Since", "Reported", "URI", "Age"]
    vm_columns = {it["name"] for it in vm["versions"][0]["additionalPrinterColumns"]}
    assert vm_columns == {"Cluster", "Host", "Phase", "Address", "Balancers", "Age"}
    assert cluster["versions"][0]["subresources"]["scale"]["specReplicasPath"] == ".spec.replicas"
    assert vm["versions"][0]["subresources"] == {"status": {}}


@kinds
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    paths = {path for path, _ in nodes("", openapi(kind))}
    for column in kind.columns:
        assert column.path in paths or column.path.startswith(".metadata."), column
    for path in (kind.scale or {}).values():
        assert path in paths


def test_shrinking_keeps_its_window_where_only_the_step_is_given() -> None:
    """Once one class served both directions, and `scaleDown: {step: 2}` silently made the window 0s."""
    spec = {
        "hosts": [{"name": "host-b", "uri": "test:///default"}],
        "template": {"spec": {"image": {"volume": "web.qcow2"}}},
        "scaling": {"behavior": {"scaleDown": {"step": 2}}},
    }
    assert LubanClusterSpec.model_validate(spec).scaling.behavior.scale_down.stabilization_window == "5m"
    cluster, *_ = KINDS
    assert node(cluster, ".spec.scaling.behavior.scaleDown.stabilizationWindow")["default"] == "5m"


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "crds"
    assert main(["--check", str(folder)]) == 1
    assert "+kind: CustomResourceDefinition" in capsys.readouterr().out
    assert main([str(folder)]) == 0
    assert main(["--check", str(folder)]) == 0
    assert capsys.readouterr().out == ""
    stale = folder / KINDS[0].file
    stale.write_text(stale.read_text().replace("maximum: 65535", "maximum: 65534", 1))
    assert main(["--check", str(folder)]) == 1
    output = capsys.readouterr().out
    assert "-" in output
    assert "maximum: 65534" in output
    assert f"Remedy: python -m luban.api.crd {folder}" in output


def test_the_files_are_yaml_of_the_definitions(tmp_path: Path) -> None:
    write(tmp_path)
    assert drift(tmp_path) == ""
    for kind in KINDS:
        assert yaml.safe_load((tmp_path / kind.file).read_text()) == definition(kind)


# What cannot be generated says so.


class Undescribed(Model):
    """A kind with a field that nobody described."""

    spec: LubanClusterSpec
    """Described."""
    mystery: int = 0


class Choice(Model):
    """A kind with a field of two types."""

    either: int | str = 0
    """A number or a text."""
    status: Literal["on"] = "on"
    """Needed by every kind."""


class Keyword(Model):
    """A kind with a keyword that the generator does not know."""

    even: int = Field(default=0, multiple_of=2)
    """An even number."""
    status: Literal["on"] = "on"
    """Needed by every kind."""


class Inner(Model):
    """A model with a default of its own."""

    size: int = 1
    """A size."""


class OtherDefault(Model):
    """A kind whose default for Inner differs from Inner's."""

    inner: Inner = Inner(size=2)
    """An inner model."""
    status: Inner = Inner()
    """Needed by every kind."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Undescribed, "Undescribed.mystery"),
        (Choice, "either: a structural schema has no alternatives"),
        (Keyword, "even: teach crd.py the keyword multipleOf"),
        (OtherDefault, "inner: its default is not its class's own"),
    ],
)
def test_what_cannot_be_expressed_is_named(model: type[Model], message: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(message)):
        schema(model)


def test_a_vm_needs_no_more_than_its_spec() -> None:
    assert schema(LubanVM)["required"] == ["spec"]


@kinds
def test_patterns_mean_the_same_to_every_engine(kind: Kind) -> None:
    r"""The API server's (RE2) knows \s, \w, \d and \b in ASCII alone, the models' in Unicode: one would take what the
    other refuses."""
    for path, found in nodes(".spec", openapi(kind)["properties"]["spec"]):
        assert not re.search(r"\\[swdb]", found.get("pattern", "").replace(r"\\", ""), re.IGNORECASE), path


def test_a_duration_and_an_amount_say_how_they_are_written() -> None:
    cluster = next(kind for kind in KINDS if kind.plural == "lubanclusters")
    interval = node(cluster, ".spec.scaling.interval")["description"]
    memory = node(cluster, ".spec.template.spec.domain.memory.max")["description"]
    assert interval.endswith("Written as a duration from 1s to 24h, such as 10s, 1m30s or 0.5h.")
    assert memory.endswith("Written as an amount of bytes from 16Mi to 4Pi, such as 512Mi, 2Gi or 20G.")
