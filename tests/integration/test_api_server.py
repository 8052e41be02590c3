"""The CRDs on a real API server: what it accepts, what it refuses and in which words, what people see."""

from __future__ import annotations

import copy
import json
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.controlplane import ControlPlane
from lab.process import LabError
from luban.adapters.kubernetes_api import connect
from luban.adapters.kubernetes_api.calls import Call, Resource
from luban.adapters.kubernetes_api.transport import open_transport
from luban.api import LubanCluster, LubanClusterSpec, LubanHost, names
from luban.core.model import ClusterRef
from luban.errors import PermanentError, TemporaryError

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
SAMPLES = sorted((MANIFESTS / "samples").glob("*.yaml"))
HOST_URIS = {
    "${HOST_B_URI}": "qemu+unix:///session?socket=/run/b",
    "${HOST_C_URI}": "qemu+unix:///session?socket=/run/c",
}

# The first test may have to build kube-apiserver: minutes on two cores, once for each machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

Body = dict[str, Any]
AS_OPERATOR = ("--as=system:serviceaccount:luban-system:luban-operator", "--as-group=system:masters")
"""Only the operator makes LubanVMs, where manifests/base is applied; the group has the rights where it is not."""


def good(name: str = "luban") -> Body:
    """Two hosts with user-mode networking: every rule has something to look at."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "LubanCluster",
        "metadata": {"name": name},
        "spec": {
            "hosts": [
                {"name": "host-b", "uri": "qemu+tls://host-b/system", "forwardRange": "127.0.17.0/24"},
                {"name": "host-c", "uri": "qemu+tls://host-c/system", "forwardRange": "127.0.18.0/24"},
            ],
            "template": {"spec": {"image": {"volume": "web.qcow2"}, "network": {"type": "User"}}},
        },
    }


def changed(path: str, value: Any) -> Body:
    """The good cluster with one field set; a value of None takes it out."""
    body = good()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target: Any = body
    for part in parents:
        target = target[part] if isinstance(part, int) else target.setdefault(part, {})
    if value is None:
        del target[last]
    else:
        target[last] = value
    return body


def refusal(plane: ControlPlane, body: Body) -> str:
    """What kubectl says when it applies an object that is refused."""
    with pytest.raises(LabError) as caught:
        plane.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
    return str(caught.value)


def sample(path: Path) -> str:
    """A sample as the lab applies it."""
    return reduce(lambda text, item: text.replace(*item), HOST_URIS.items(), path.read_text())


# What is accepted


def test_the_good_cluster_is_good(luban_api: ControlPlane) -> None:
    luban_api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(good()))


def test_every_default_is_filled_in(luban_api: ControlPlane) -> None:
    """The API server and the models must agree, or the simulator would run another cluster than the operator."""
    body = yaml.safe_load(sample(MANIFESTS / "samples" / "minimal.yaml"))
    text = luban_api.kubectl("apply", "--dry-run=server", "-f", "-", "-o", "json", stdin=json.dumps(body))
    assert json.loads(text)["spec"] == LubanClusterSpec.model_validate(body["spec"]).wire()


def test_defaults_are_filled_in_beside_what_is_given(luban_api: ControlPlane) -> None:
    body = changed("spec.scaling.behavior.scaleDown.step", 2)
    text = luban_api.kubectl("apply", "--dry-run=server", "-f", "-", "-o", "json", stdin=json.dumps(body))
    down = json.loads(text)["spec"]["scaling"]["behavior"]["scaleDown"]
    assert down == {"step": 2, "stabilizationWindow": "5m", "cooldown": "0s"}
    assert json.loads(text)["spec"] == LubanClusterSpec.model_validate(body["spec"]).wire()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_are_good(luban_api: ControlPlane, path: Path) -> None:
    text = luban_api.kubectl("apply", "--dry-run=server", "-f", "-", "-o", "json", stdin=sample(path))
    found = json.loads(text)
    for body in found.get("items", [found]):
        {"LubanCluster": LubanCluster, "LubanHost": LubanHost}[body["kind"]].parse(body)


def test_a_full_load_of_hosts_is_within_the_cost_limit(luban_api: ControlPlane) -> None:
    """64 hosts under the rule that compares each with each: the most that the schema allows."""
    body = good()
    body["spec"]["hosts"] = [
        {
            "name": f"host-{number}",
            "uri": f"qemu+tls://{'.'.join(['h' * 60] * 3)}-{number}/system",
            "forwardRange": f"127.1.{number}.0/24",
        }
        for number in range(64)
    ]
    body["spec"]["scaling"] = {"minVMs": 64, "maxVMs": 192}
    luban_api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(body))


def test_hosts_may_leave_their_uri_to_lubanhosts(luban_api: ControlPlane) -> None:
    body = good()
    for host in body["spec"]["hosts"]:
        del host["uri"]
    luban_api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(body))


def test_a_uri_can_come_and_go_and_never_be_another(luban_api: ControlPlane, namespace: str) -> None:
    def give(uri: str | None) -> None:
        change = [{"op": "remove" if uri is None else "add", "path": "/spec/hosts/0/uri", "value": uri}]
        luban_api.kubectl("patch", "lc", "luban", "-n", namespace, "--type=json", "-p", json.dumps(change))

    luban_api.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(good()))
    for uri in (None, "qemu+tls://host-b/system", "", "qemu+tls://host-b/system"):
        give(uri)
    with pytest.raises(LabError, match="of a host cannot be changed, its VMs would be lost"):
        give("qemu+tls://host-x/system")


# What is refused, and in which words

OVERLAY = "luban-13b9436a-cc98-4689-8d88-d1a7c651bfa3.qcow2"
SEED = "luban-13b9436a-cc98-4689-8d88-d1a7c651bfa3-seed.iso"
PEAK = {"name": "peak", "cron": "30 8 * * MON-FRI", "duration": "2h", "minVMs": 3}
REFUSED: list[tuple[str, Any, str]] = [
    ("spec.scaling.interval", "0s", "interval must be a duration from 1s to 24h, such as 10s, 1m30s or 0.5h"),
    ("spec.scaling.interval", "25h", "interval must be a duration from 1s to 24h"),
    ("spec.scaling.behavior.scaleDown.stabilizationWindow", "99999999h", "must be a duration from 0s to 8784h"),
    ("spec.scaling.behavior.scaleUp.cooldown", "-1s", "cooldown must be a duration from 0s to 8784h"),
    ("spec.template.spec.startupTimeout", "1d", "startupTimeout must be a duration from 1s to 24h"),
    ("spec.scaling.maxVMs", 1001, "spec.scaling.maxVMs in body should be less than or equal to 1000"),
    ("spec.hosts.1.uri", "qemu+tls://host-b/system", "hosts[].uri must differ from host to host"),
    ("spec.hosts.1.uri", "http://host-c/", "must be a libvirt URI such as qemu+tls://host-b/system"),
    (
        "spec.hosts.1.uri",
        "qemu+ssh://root@host-c/system?socket=/x%27%3Btouch%20pwned%3B%27",
        "and socket without a host",
    ),
    ("spec.hosts.1.uri", "qemu+tls://host-c/system?no_verify=0&no_verify=1", "must be a libvirt URI"),
    ("spec.hosts.1.nodeName", "host-b", "hosts[].nodeName must differ from host to host"),
    ("spec.bondPolicy", "Maybe", "supported values"),
    ("spec.hosts", None, "spec.hosts: Required value"),
    ("spec.hosts", [], "spec.hosts in body should have at least 1 items"),
    ("spec.template.spec.image", None, "spec.template.spec.image: Required value"),
    ("spec.template.spec.image.volume", "../web.qcow2", "volume must be letters, digits, dots"),
    ("spec.template.spec.image.volume", OVERLAY, "image.volume must not be the disk or the seed of a VM"),
    ("spec.template.spec.image.volume", OVERLAY.upper(), "image.volume must not be the disk or the seed of a VM"),
    ("spec.template.spec.domain.kernelBoot", {"kernelVolume": SEED}, "kernelBoot.kernelVolume must not be"),
    (
        "spec.template.spec.domain.kernelBoot",
        {"kernelVolume": "vmlinuz", "initrdVolume": SEED},
        "kernelBoot.initrdVolume must not be",
    ),
    ("spec.template.spec.image.size", "lots", "size must be an amount of bytes from 1Mi to 2Pi"),
    ("spec.template.spec.domain.memory.max", "2 GB", "max must be an amount of bytes from 16Mi to 4Pi, such as 512Mi"),
    ("spec.template.spec.domain.memory.max", "0", "max must be an amount of bytes from 16Mi to 4Pi"),
    ("spec.template.spec.domain.memory.max", 1, "max must be an amount of bytes from 16Mi to 4Pi"),
    ("spec.template.spec.domain.memory.max", "999999999999999999999999Ti", "max must be an amount of bytes from 16Mi"),
    ("spec.template.spec.domain.kernelBoot", {"kernelVolume": "k", "kernelArgs": "a\u0000b"}, "printable ASCII"),
    ("spec.template.spec.cloudInit", {"userDataSecretRef": {"name": "../x"}}, "name must be the name of a Secret"),
    ("spec.template.spec.domain.virtType", "VMware", 'supported values: "Auto", "KVM", "QEMU"'),
    ("spec.template.spec.network.type", "Bridge", "network.source must name the host's bridge, for example br0"),
    ("spec.template.spec.network", {"type": "Network", "source": ""}, "network.source must name"),
    ("spec.template.spec.network", {"type": "Bridge", "source": "a" * 16}, "must have at most 15 characters"),
    ("spec.template.metadata.labels", {"luban.cloud/cluster": "x"}, "must not have keys below luban.cloud/"),
    ("spec.template.metadata.labels", {"x.luban.cloud/cluster": "x"}, "must not have keys below luban.cloud/"),
    (
        "spec.template.metadata.labels",
        {"example.test/team/web": "blue"},
        "labels must have keys such as app or example.com",
    ),
    (
        "spec.template.metadata.labels",
        {"app": "a b"},
        "must be at most 63 letters, digits, hyphens, dots and underscores",
    ),
    ("spec.template.spec.readinessProbe.httpGet.path", "healthz", "path must be a URL path such as /healthz"),
    ("spec.template.spec.port", 99999, "spec.template.spec.port in body should be less than or equal to 65535"),
    ("spec.scaling", {"minVMs": 5, "maxVMs": 3}, "lower minVMs or raise maxVMs"),
    ("spec.scaling.minVMs", 7, "raise hosts[].vms.max or lower scaling.minVMs"),
    ("spec.scaling", {"minVMs": 1, "maxVMs": 1}, "lower hosts[].vms.min or raise scaling.maxVMs"),
    ("spec.scaling.interval", "15", "interval must be a duration from 1s to 24h"),
    ("spec.scaling.policy", "Guess", 'supported values: "Sessions", "Rules", "Target", "Manual"'),
    ("spec.scaling.policy", "Rules", "policy Rules needs scaling.rules: give at least one"),
    ("spec.scaling.rules", [{"metric": "CPU", "max": 20, "min": 20}], "rules[].min must be below scaling.rules[].max"),
    ("spec.scaling.rules", [{"metric": "Average", "max": 70}], "weights go with metric Average, and with no other"),
    ("spec.scaling.rules", [{"metric": "CPU", "max": 70, "weights": {"cpu": 1}}], "weights go with metric Average"),
    ("spec.scaling.target", {"metric": "Average", "weights": {}}, "weights must not all be 0"),
    ("spec.scaling.rules", [{"metric": "Network", "max": 70}], "metric Network needs scaling.perVM.network"),
    ("spec.scaling.target", {"metric": "Requests"}, "metric Requests needs scaling.perVM.requests"),
    (
        "spec.scaling.target",
        {"metric": "Average", "weights": {"requests": 1}},
        "metric Requests needs scaling.perVM.requests",
    ),
    ("spec.scaling.schedules", [{**PEAK, "minVMs": 9}], "schedules[].minVMs must not be above scaling.maxVMs"),
    ("spec.scaling", {"schedules": [{**PEAK, "minVMs": 7}], "maxVMs": 9}, "add up to less than scaling.schedules[]"),
    ("spec.scaling.schedules", [{**PEAK, "cron": "@daily"}], "cron must be a cron expression of five fields"),
    ("spec.scaling.schedules", [{**PEAK, "cron": "61 8 * * *"}], "cron must be a cron expression of five fields"),
    ("spec.scaling.schedules", [{**PEAK, "timeZone": "+08:00"}], "timeZone must be a time zone of the IANA database"),
    ("spec.scaling.schedules", [{**PEAK, "duration": "5s"}], "duration must be a duration from 1m to 8784h"),
    ("spec.scaling.schedules", [PEAK, PEAK], "Duplicate value"),
    ("spec.scaling.sessions", {"lowerPercent": 60}, "lowerPercent must be below scaling.sessions.upperPercent"),
    ("spec.hosts.0.vms", {"min": 4}, "hosts[].vms.min must not be above hosts[].vms.max"),
    ("spec.hosts.1.name", "host-b", 'Duplicate value: {"name":"host-b"}'),
    ("spec.hosts.1.name", "Host_C", "name must be lower-case letters, digits and hyphens"),
    ("spec.hosts.0.uri", "host-b", "uri must be a libvirt URI such as qemu+tls://host-b/system"),
    ("spec.hosts.0.forwardRange", None, "network type User needs hosts[].forwardRange on every host"),
    ("spec.hosts.0.forwardRange", "127.0.18.0/24", "hosts[].forwardRange must differ from host to host"),
    ("spec.hosts.0.forwardRange", "127.0.300.0/24", "forwardRange must be a /24 of loopback addresses"),
    ("spec.hosts.0.forwardRange", "10.0.0.0/24", "forwardRange must be a /24 of loopback addresses"),
    ("spec.balancer.listen.address", "everywhere", "address must be an address of one machine such as 192.0.2.10"),
    ("spec.balancer.timeout", "48h", "timeout must be a duration from 1s to 24h"),
    ("spec.balancer.drain.timeout", "99999999h", "timeout must be a duration from 0s to 24h"),
    ("spec.balancer.stickyCookie", "a b", "stickyCookie must be letters, digits, hyphens and underscores"),
    (
        "spec.balancer.replicas",
        {"min": 1, "max": 2},
        "replicas.max above 1 needs balancer.attachment.mode Cross or Slice",
    ),
    ("spec.balancer.replicas", {"min": 2}, "balancer.replicas.min must not be above balancer.replicas.max"),
    ("spec.balancer.attachment", {"mode": "Cross"}, "balancer.attachment.p must not be above balancer.replicas.max"),
    ("spec.balancer.attachment", {"dMax": 2}, "no room for scaling.maxVMs VMs with p balancers each"),
    (
        "spec.balancer",
        {"replicas": {"max": 3}, "attachment": {"mode": "Cross", "p": 2, "dMax": 3}},
        "raise dMax or replicas.max, or lower p or maxVMs",
    ),
    ("spec.balancer.template", {"resources": {"requests": {"cpu": "much"}}}, "cpu must be processors such as 2"),
    ("spec.balancer.template.service", {"type": "ExternalName"}, 'supported values: "ClusterIP"'),
    (
        "spec.balancer.template.service",
        {"annotations": {"luban.cloud/x": "y"}},
        "must not have keys below luban.cloud/",
    ),
    ("spec.balancer.template.tolerations", [{"value": "x"}], "must not be empty, unless operator is Exists"),
    (
        "spec.balancer.template.tolerations",
        [{"operator": "Exists", "value": "x"}],
        "must be empty with operator Exists",
    ),
    ("spec.balancer.template.tolerations", [{"key": "a b"}], "key must be the key of a taint"),
    ("spec.deletionPolicy", "Keep", 'supported values: "Delete", "Orphan"'),
    ("spec.scaling.minVM", 3, 'unknown field "spec.scaling.minVM"'),
    ("spec.balancer.stikyCookie", "x", 'unknown field "spec.balancer.stikyCookie"'),
    ("metadata.name", "a" * 41, "metadata.name must have at most 40 characters and no dot"),
    ("metadata.name", "luban.web", "metadata.name must have at most 40 characters and no dot"),
]


@pytest.mark.parametrize(
    ("path", "value", "words"), REFUSED, ids=[f"{number}-{path}" for number, (path, *_) in enumerate(REFUSED)]
)
def test_a_bad_spec_is_refused_in_words_that_help(luban_api: ControlPlane, path: str, value: Any, words: str) -> None:
    assert words in refusal(luban_api, changed(path, value))


def vm(name: str) -> Body:
    """A LubanVM as the operator makes it."""
    spec = {
        "clusterName": "luban",
        "host": "host-b",
        "hostURI": "test:///default",
        "template": {"image": {"volume": "web.qcow2"}},
    }
    return {"apiVersion": names.API_VERSION, "kind": "LubanVM", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    "balancer",
    [
        {},
        {"stickyCookie": "LUBAN"},
        {"replicas": {"min": 2, "max": 3}, "attachment": {"mode": "Cross", "dMax": 50}},
        {"replicas": {"max": 3}, "attachment": {"mode": "Slice", "dMax": 10}},
        {"template": {"nodeSelector": {"zone": "edge"}, "tolerations": [{"operator": "Exists"}]}},
    ],
)
def test_balancers_are_taken(luban_api: ControlPlane, balancer: Body) -> None:
    body = changed("spec.balancer", balancer)
    luban_api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(body))


@pytest.mark.parametrize("amount", [2147483648, "1e9", "1E9", "1Pi", "1.5Gi", "2147483648000m", "+1Gi"])
def test_amounts_are_taken_in_all_forms_of_kubernetes(luban_api: ControlPlane, amount: Any) -> None:
    body = changed("spec.template.spec.domain.memory.max", amount)
    luban_api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(body))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clusterName", "other"),
        ("host", "host-c"),
        ("hostURI", "qemu+tls://host-c/system"),
        ("address", "127.0.17.9"),
        ("template", {"port": 81}),
    ],
)
def test_what_a_vm_is_cannot_be_changed(luban_api: ControlPlane, namespace: str, field: str, value: Any) -> None:
    created = json.loads(
        luban_api.kubectl(
            "create", "-n", namespace, "-f", "-", "-o", "json", *AS_OPERATOR, stdin=json.dumps(vm("luban-a"))
        )
    )
    labelled = copy.deepcopy(created)
    labelled["metadata"]["labels"] = {"note": "x"}
    labelled["spec"]["placement"] = "what is no part of its identity"
    luban_api.kubectl("replace", "-n", namespace, "-f", "-", *AS_OPERATOR, stdin=json.dumps(labelled))
    patch = json.dumps({"spec": {field: value}})
    with pytest.raises(LabError, match="to replace this one alone, delete the LubanVM"):
        luban_api.kubectl("patch", "lvm", "luban-a", "-n", namespace, "--type=merge", "-p", patch, *AS_OPERATOR)


# What people see


def test_explain_has_the_descriptions(luban_api: ControlPlane) -> None:
    text = luban_api.kubectl("explain", "lubancluster.spec.scaling.sessions")
    words = " ".join(text.split())
    assert "Sessions that one VM can serve: 100 % (S_max)." in words
    assert "lowerQuorum" in words
    assert "2 as the paper's figure, 1 as its prose." in words


def with_status(plane: ControlPlane, namespace: str, kind: str, body: Body, status: Body) -> None:
    """Create an object and give it a status."""
    plane.kubectl("create", "-n", namespace, "-f", "-", *AS_OPERATOR, stdin=json.dumps(body))
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    plane.kubectl("patch", kind, body["metadata"]["name"], "-n", namespace, *patch, *AS_OPERATOR)


def test_columns_of_clusters(luban_api: ControlPlane, namespace: str) -> None:
    status = {
        "summary": "2/3",
        "vms": {"warm": 1},
        "balancerSummary": "1/1",
        "bondSummary": "1/2",
        "sessions": 151,
        "phase": "Progressing",
        "decision": {"at": "now", "verdict": "ScaleUp", "reason": "AllAboveUpper", "message": "all are busy"},
    }
    with_status(luban_api, namespace, "lc", good(), status)
    header, row = luban_api.kubectl("get", "lc", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "VMS", "WARM", "BALANCERS", "BONDS", "SESSIONS", "VERDICT", "AGE"]
    assert row.split()[:7] == ["luban", "2/3", "1", "1/1", "1/2", "151", "ScaleUp"]
    header, row = luban_api.kubectl("get", "lubanclusters", "-n", namespace, "-o", "wide").splitlines()
    assert header.split()[7:] == ["PHASE", "AGE"]
    assert row.split()[7] == "Progressing"


def test_columns_of_vms(luban_api: ControlPlane, namespace: str) -> None:
    status = {"phase": "Ready", "address": "127.0.17.2", "balancerSummary": "luban-balancer-0"}
    with_status(luban_api, namespace, "lvm", vm("luban-a"), status)
    header, row = luban_api.kubectl("get", "lvm", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "CLUSTER", "HOST", "PHASE", "ADDRESS", "BALANCERS", "AGE"]
    assert row.split()[:6] == ["luban-a", "luban", "host-b", "Ready", "127.0.17.2", "luban-balancer-0"]


def test_all_kinds_are_in_the_category(luban_api: ControlPlane, namespace: str) -> None:
    host = {"apiVersion": names.API_VERSION, "kind": "LubanHost", "metadata": {"name": "in-the-category"}}
    made = (good(), vm("luban-a"), host)
    for body in made:
        luban_api.kubectl("create", "-n", namespace, "-f", "-", *AS_OPERATOR, stdin=json.dumps(body))
    listed = set(luban_api.kubectl("get", "luban", "-n", namespace, "-o", "name").split())
    luban_api.kubectl("delete", "lh", "in-the-category")
    assert {
        "lubancluster.luban.cloud/luban",
        "lubanvm.luban.cloud/luban-a",
        "lubanhost.luban.cloud/in-the-category",
    } <= listed


def test_scale_sets_the_replicas(luban_api: ControlPlane, namespace: str) -> None:
    selector = f"{names.LABEL_CLUSTER}=luban"
    with_status(luban_api, namespace, "lc", good(), {"replicas": 2, "selector": selector})
    luban_api.kubectl("scale", "lc", "luban", "-n", namespace, "--replicas=4")
    body = json.loads(luban_api.kubectl("get", "lc", "luban", "-n", namespace, "-o", "json"))
    assert body["spec"]["replicas"] == 4
    path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.CLUSTERS}/luban/scale"
    scale = json.loads(luban_api.kubectl("get", "--raw", path))
    assert scale["spec"] == {"replicas": 4}
    assert scale["status"] == {"replicas": 2, "selector": selector}


# Trouble


async def test_the_adapter_survives_a_restart_of_the_api_server(
    luban_base: ControlPlane, operator_kubeconfig: Path, namespace: str
) -> None:
    """One connection pool through the whole outage: temporary errors while it lasts, then all is as before."""
    ref = ClusterRef(namespace, "luban")
    cluster = await connect(str(operator_kubeconfig))
    body = {**vm("luban-a"), "metadata": {"name": "luban-a", "labels": {names.LABEL_CLUSTER: "luban"}}}
    await cluster.create_vm(ref, body)
    luban_base.api_server.stop()
    try:
        with pytest.raises(TemporaryError) as caught:
            await cluster.list_vms(ref)
        assert caught.value.reason == "APIServerUnreachable"
    finally:
        luban_base.restart_api_server()
    assert [item["metadata"]["name"] for item in await cluster.list_vms(ref)] == ["luban-a"]
    await cluster.close()


async def test_a_missing_right_is_named_with_its_remedy(
    luban_base: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    luban_base.kubectl("create", "serviceaccount", "stranger", "-n", namespace)
    path = tmp_path / "stranger.kubeconfig"
    luban_base.service_account_kubeconfig(namespace, "stranger", path)
    cluster = await connect(str(path))
    with pytest.raises(PermanentError, match="kubectl apply -k manifests/base") as caught:
        await cluster.patch_vm_status(ClusterRef(namespace, "luban"), "luban-a", {"phase": "Ready"})
    assert caught.value.reason == "Forbidden"
    assert 'grant the verb "patch" on "lubanvms/status"' in caught.value.message
    await cluster.close()


async def test_missing_crds_are_named_with_their_remedy(control_plane: ControlPlane) -> None:
    transport = await open_transport(str(control_plane.layout.admin_kubeconfig), None)
    unknown = Resource("nothing.example", "v1", "things")
    with pytest.raises(PermanentError, match="kubectl apply -k crds") as caught:
        await transport.send(Call("list", unknown, "default"))
    assert caught.value.reason == "UnknownResource"
    await transport.close()
