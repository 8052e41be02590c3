"""What the API server takes, the operator can use: values of every field, nasty ones and random ones.

The judge is a real API server. Whatever it accepts must be parsed, rendered, published and made a LubanVM of; whatever
it refuses, it must refuse in words, not by a rule that cannot be evaluated.
"""

from __future__ import annotations

import copy
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from lab.controlplane import ControlPlane
from luban.api import LubanCluster, LubanHost, LubanVM, names
from luban.api.cluster import LubanClusterSpec
from luban.api.crd import KINDS, definition
from luban.api.libvirt_host import LibvirtHost
from luban.api.units import Duration, Quantity
from luban.core.host_room import limits_of, room_of
from luban.core.left_out import HostRoom
from luban.core.model import ClusterRef, CreateVM, Machine, Member
from luban.core.schedules import in_force
from luban.core.usable_hosts import Applicant, outside, usable_hosts
from luban.render.balancer import parse_balancer_json, settings_of
from luban.render.balancer_objects import AgentProgram, balancer_objects
from luban.render.domain_xml import HostFacts, domain_xml
from luban.render.volume_xml import overlay_xml
from luban.runtime.publication import publication
from luban.runtime.records import vm_body
from luban.senses.host_registry import HostRegistry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

Body = dict[str, Any]
Schema = dict[str, Any]
Place = tuple[str | int, ...]
UUID = "0b7e1f0c-6d1e-4e0a-9d3e-000000000001"
YEAR_SECONDS = 366 * 86400
NASTY: dict[str, list[Any]] = yaml.safe_load((Path(__file__).parent / "nasty_values.yaml").read_text())
LONG = ["a" * length for length in (40, 41, 63, 64, 254, 300)]
STRINGS = [*NASTY["strings"], *LONG, f"/{LONG[-1]}", f"{LONG[-1]}/a", f"a/{LONG[-1]}"]
MANY = {f"key-{number}": "x" for number in range(40)}
LABELS = [*({key: "x"} for key in STRINGS), *({"app": value} for value in STRINGS), MANY, *NASTY["others"]]
CLUSTER = f"""
apiVersion: {names.API_VERSION}
kind: LubanCluster
metadata: {{name: luban}}
spec:
  hosts:
  - {{name: host-b, uri: qemu+tls://host-b/system, forwardRange: 127.0.17.0/24}}
  - {{name: host-c, uri: qemu+tls://host-c/system, forwardRange: 127.0.18.0/24}}
  template:
    metadata: {{labels: {{app: luban}}}}
    spec:
      domain: {{kernelBoot: {{kernelVolume: vmlinuz}}}}
      image: {{volume: web.qcow2}}
      network: {{type: User}}
      cloudInit: {{userDataSecretRef: {{name: luban-userdata}}}}
  replicas: 2
  pool: {{size: 1, balloon: {{min: 256Mi}}}}
  scaling:
    rules: [{{metric: Average, weights: {{cpu: 1}}, max: 70}}]
    target: {{metric: Average, weights: {{cpu: 1}}}}
    perVM: {{network: 125M, requests: 100}}
    schedules: [{{name: morning, cron: 30 8 * * MON-FRI, duration: 2h, minVMs: 3}}]
  balancer: {{template: {{tolerations: [{{key: dedicated}}]}}}}
"""
"""All fields without a default; the API server fills in the others."""
HOST = f"""
apiVersion: {names.API_VERSION}
kind: LubanHost
metadata: {{name: node-b}}
spec:
  expectedPorts: [{{bond: bond0, ports: 2}}]
  libvirt:
    quotas: [{{namespace: team-a, vms: {{max: 3}}, memory: {{max: 8Gi}}}}]
    uri: qemu+tls://host-b/system
    vms: {{max: 20}}
    memory: {{max: 64Gi}}
    pools: [default]
    networks: [br0]
    cidr: 127.0.0.0/8
    orphans: Remove
    namespaces: [default]
"""


def openapi(kind: str) -> Schema:
    """Schema of a kind's spec."""
    found = next(it for it in KINDS if it.name == kind)
    schema = definition(found)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return cast(Schema, schema["properties"]["spec"])


def leaves(schema: Schema, path: Place = ("spec",)) -> Iterator[tuple[Place, Schema]]:
    """Every field that is no object with fields of its own; of lists the first item."""
    if "properties" in schema:
        for name, child in schema["properties"].items():
            yield from leaves(child, (*path, name))
    elif "items" in schema:
        yield from leaves(schema["items"], (*path, 0))
    else:
        yield path, schema


def nasty(schema: Schema) -> list[Any]:
    """What to try for a field: everything for its type, some of everything else."""
    if "additionalProperties" in schema:
        return LABELS
    return [*_of_its_type(schema), *NASTY["others"]]


def _of_its_type(schema: Schema) -> list[Any]:
    if "x-kubernetes-int-or-string" in schema:
        return NASTY["amounts"]
    if schema["type"] == "integer":
        return NASTY["numbers"]
    if schema["type"] == "string" and "enum" not in schema:
        return NASTY["durations"] if schema.get("pattern") == Duration.pattern else STRINGS
    return []


def replaced(body: Body, path: Place, value: Any) -> Body:
    """The body with one field set to something else."""
    made = copy.deepcopy(body)
    *parents, last = path
    target: Any = made
    for part in parents:
        target = target[part]
    target[last] = value
    return made


@dataclass
class Server:
    """Asks the API server what it thinks of an object, without storing it."""

    api: client.CustomObjectsApi
    as_operator: client.CustomObjectsApi
    """With the name of the operator's ServiceAccount, which alone may make LubanVMs."""

    def judged(self, body: Body) -> tuple[list[str], Body]:
        """Why it is refused, in the API server's words, or the object as it would be stored."""
        options = {"dry_run": "All", "field_validation": "Strict"}
        try:
            if body["kind"] == "LubanHost":
                made = self.api.create_cluster_custom_object(names.GROUP, names.VERSION, names.HOSTS, body, **options)
            else:
                ours = body["kind"] == "LubanVM"
                plural = names.VMS if ours else names.CLUSTERS
                made = (self.as_operator if ours else self.api).create_namespaced_custom_object(
                    names.GROUP, names.VERSION, "default", plural, body, **options
                )
        except ApiException as error:
            answer = json.loads(str(error.body))
            causes = answer.get("details", {}).get("causes", [])
            return [str(cause["message"]) for cause in causes] or [str(answer["message"])], {}
        return [], cast(Body, made)


def in_full(server: Server, text: str) -> Body:
    """An object in which every field is given: each can be replaced by something else."""
    body: Body = yaml.safe_load(text)
    refusal, stored = server.judged(body)
    assert refusal == []
    return {**body, "spec": stored["spec"]}


@pytest.fixture(scope="module")
def server(luban_api: ControlPlane) -> Iterator[Server]:
    """The real one."""
    apis = [config.new_client_from_config(str(luban_api.layout.admin_kubeconfig)) for _ in range(2)]
    apis[1].set_default_header("Impersonate-User", "system:serviceaccount:luban-system:luban-operator")
    apis[1].set_default_header("Impersonate-Group", "system:masters")
    yield Server(*map(client.CustomObjectsApi, apis))
    for api in apis:
        api.close()
        api.rest_client.pool_manager.clear()


@pytest.fixture(scope="module")
def cluster(server: Server) -> Body:
    """A good cluster."""
    return in_full(server, CLUSTER)


@pytest.fixture(scope="module")
def host(server: Server) -> Body:
    """A good LubanHost."""
    return in_full(server, HOST)


def located(cluster: LubanCluster) -> LubanCluster:
    """The cluster with the URI of each host, those that it leaves out registered."""
    known = {
        host.name: LibvirtHost(uri=f"qemu+tls://{host.name}.example/system")
        for host in cluster.spec.hosts
        if not host.uri
    }
    hosts = usable_hosts(cluster.spec, known, Applicant("default"))
    assert {it.reason for it in hosts.refusals.values()} <= {"HostListedTwice"}
    return cluster.model_copy(update={"spec": hosts.fill(cluster.spec)})


def use(server: Server, stored: Body) -> None:
    """Do with a cluster all that the operator does with what its user wrote. Raises for what it cannot use."""
    cluster = located(LubanCluster.parse(stored))
    settings_ = settings_of(cluster.metadata.name, cluster.spec)
    parse_balancer_json(
        publication(settings_, [Member("luban-a", "127.0.17.2", cluster.spec.template.spec.port, "Enabled")])[
            "balancer.json"
        ]
    )
    check_units(cluster.spec)
    in_force(cluster.spec, 1_800_000_000.0)
    balancer_objects("default", "luban", cluster.spec.balancer, 1, AgentProgram("luban-cloud", names.OPERATOR_USER))
    host = cluster.spec.hosts[0]
    address = host.forward_range.removesuffix("0/24") + "2" if host.forward_range else ""
    body = vm_body(cluster, CreateVM("luban-a", host.name, host.uri, address, "BelowDesired"))
    body["metadata"] |= {"uid": UUID, "namespace": "default", "ownerReferences": []}
    assert server.judged(body)[0] == []
    template = LubanVM.parse(body).spec.template
    machine = Machine(UUID, "luban-a", ClusterRef("default", "luban"), template, address, "#cloud-config")
    facts = HostFacts(
        kvm=True,
        overlay_path="/overlay",
        seed_path="/seed",
        kernel_path="/kernel",
        initrd_path="/initrd" if template.domain.kernel_boot and template.domain.kernel_boot.initrd_volume else "",
    )
    ET.fromstring(domain_xml(machine, facts))
    assert 0 < template.domain.memory.max.bytes < 2**63
    overlay_xml("overlay", capacity=template.image.size.bytes, base_path="/base", base_format="qcow2")


def use_host(stored: Body) -> None:
    """Do with a LubanHost all that the operator does with what is written there. Raises for what it cannot use."""
    host, registry = LubanHost.model_validate(stored), HostRegistry()
    check_units(host.spec)
    assert registry.take(stored) == (host.spec.libvirt is not None)
    name = host.metadata.name
    for network in ({"type": "User"}, {"type": "Bridge", "source": "br0"}):
        spec = LubanClusterSpec.model_validate(
            {
                "hosts": [{"name": name, "forwardRange": "127.0.17.0/24"}],
                "template": {"spec": {"image": {"volume": "web.qcow2"}, "network": network}},
            }
        )
        refusal = registry.usable(spec, Applicant("default")).refusals.get(name)
        assert refusal is None or refusal.reason != "HostUnreadable"
    if (libvirt := registry.libvirt(name)) is not None:
        assert isinstance(
            room_of(ClusterRef("default", "luban"), (), limits_of(libvirt, 2**34, 2**30), 2**30), HostRoom
        )
    for address in ("10.1.2.3", "127.0.17.2", "", "nonsense"):
        outside(address, registry.cidr(name))


def check_units(value: Any) -> None:
    """Durations and amounts anywhere below stay within what any code can bear."""
    if isinstance(value, Duration):
        assert 0 <= value.seconds <= YEAR_SECONDS
    elif isinstance(value, Quantity):
        assert 0 <= value.bytes < 2**63
    elif isinstance(value, tuple):
        for item in value:
            check_units(item)
    elif hasattr(value, "__pydantic_fields__"):
        for name in type(value).model_fields:
            check_units(getattr(value, name))


def agree(server: Server, body: Body, use_it: Callable[[Body], object]) -> bool:
    """Whether it is accepted. Raises unless what is accepted can be used and what is refused is refused in words."""
    refusal, stored = server.judged(body)
    if not refusal:
        use_it(stored)
        return True
    # A whole number with a fraction of .0 is none to CEL; kubectl never sends one.
    assert any("evaluating rule" not in words or "invalid data, expected" in words for words in refusal), refusal
    return False


def failures(
    server: Server, body: Body, path: Place, schema: Schema, use_it: Callable[[Body], object]
) -> Iterator[str]:
    """What is wrong with each nasty value of one field."""
    for value in nasty(schema):
        try:
            agree(server, replaced(body, path, value), use_it)
        except Exception as error:  # noqa: BLE001 - whatever the operator would stumble over
            yield f"{'.'.join(map(str, path))} = {value!r}: {error!r}"[:400]


CLUSTER_LEAVES = list(leaves(openapi("LubanCluster")))
HOST_LEAVES = list(leaves(openapi("LubanHost")))


def test_every_field_is_tried(cluster: Body, host: Body) -> None:
    """A new field without a default must be given above."""
    for body, found in ((cluster, CLUSTER_LEAVES), (host, HOST_LEAVES)):
        for path, _ in found:
            value: Any = body
            for part in path:
                value = value[part]


def test_the_full_objects_are_good(server: Server, cluster: Body, host: Body) -> None:
    assert agree(server, cluster, lambda stored: use(server, stored))
    assert agree(server, host, use_host)


@pytest.mark.parametrize(
    ("path", "schema"), CLUSTER_LEAVES, ids=[".".join(map(str, path)) for path, _ in CLUSTER_LEAVES]
)
def test_whatever_a_cluster_may_say_can_be_used(server: Server, cluster: Body, path: Place, schema: Schema) -> None:
    assert not list(failures(server, cluster, path, schema, lambda stored: use(server, stored)))


@pytest.mark.parametrize(("path", "schema"), HOST_LEAVES, ids=[".".join(map(str, path)) for path, _ in HOST_LEAVES])
def test_whatever_a_host_may_say_can_be_used(server: Server, host: Body, path: Place, schema: Schema) -> None:
    assert not list(failures(server, host, path, schema, use_host))


def test_whatever_a_cluster_may_be_called_can_be_used(server: Server, cluster: Body) -> None:
    for name in STRINGS:
        agree(server, replaced(cluster, ("metadata", "name"), name), lambda stored: use(server, stored))


def drawn(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that the schema of a field allows; its rules may still refuse them."""
    if "x-kubernetes-int-or-string" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True) | st.integers(2**20, 2**52)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True, alphabet=st.characters(codec="utf-8"))
    if "properties" in schema:
        required = schema.get("required", [])
        fields = {name: drawn(child) for name, child in schema["properties"].items()}
        optional = {name: fields.pop(name) for name in list(fields) if name not in required}
        return st.fixed_dictionaries(fields, optional=optional)
    if "additionalProperties" in schema:
        return st.dictionaries(
            st.from_regex(r"[a-zA-Z0-9./_-]{1,70}", fullmatch=True), drawn(schema["additionalProperties"]), max_size=3
        )
    if "items" in schema:
        return st.lists(drawn(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
    if schema["type"] == "integer":
        return st.integers(schema["minimum"], schema["maximum"])
    return st.booleans() if schema["type"] == "boolean" else st.text(max_size=schema["maxLength"])


def test_whatever_a_host_may_be_called_can_be_used(server: Server, host: Body) -> None:
    for name in (*STRINGS, "node-b.example"):
        agree(server, replaced(host, ("metadata", "name"), name), use_host)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_host_is_accepted_with_can_be_used(server: Server, host: Body, data: st.DataObject) -> None:
    body = host
    for path, schema in data.draw(st.lists(st.sampled_from(HOST_LEAVES), min_size=1, max_size=6)):
        body = replaced(body, path, data.draw(drawn(schema)))
    agree(server, body, use_host)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_accepted_can_be_used(server: Server, cluster: Body, data: st.DataObject) -> None:
    """A few fields of a good cluster at a time are drawn from the schema, so that many get past its rules."""
    body = cluster
    for path, schema in data.draw(st.lists(st.sampled_from(CLUSTER_LEAVES), min_size=1, max_size=6)):
        body = replaced(body, path, data.draw(drawn(schema)))
    agree(server, body, lambda stored: use(server, stored))
