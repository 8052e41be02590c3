"""The manifests on a real API server: accepted, idempotent, restricted, and with rights that suffice and no more."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from lab.controlplane import ControlPlane
from lab.process import LabError
from luban.adapters.kubernetes_api.watch import ConfigMapSource, EndpointLease, open_api

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
AGENT = "system:serviceaccount:luban-system:luban-balancer"
NODE_AGENT = "system:serviceaccount:luban-node:luban-node-agent"
OPERATOR = "system:serviceaccount:luban-system:luban-operator"

# The first test may have to build kube-apiserver: minutes on two cores, once for each machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]


def kubectl_as(plane: ControlPlane, user: str, *arguments: str) -> bool:
    """Answer of `kubectl auth can-i` for somebody else."""
    try:
        answer = plane.kubectl("auth", "can-i", *arguments, "--as", user)
    except LabError:
        return False
    return answer.strip() == "yes"


def test_the_base_is_accepted_and_stays_the_same(luban_base: ControlPlane) -> None:
    again = luban_base.kubectl("apply", "-k", str(MANIFESTS / "base"), "--dry-run=server").splitlines()
    assert len(again) >= 18
    assert [line for line in again if not line.endswith(" unchanged (server dry run)")] == []


@pytest.mark.parametrize("name", ["deployment/luban-operator", "statefulset/luban-balancer"])
def test_pods_of_the_base_pass_the_restricted_policy(luban_base: ControlPlane, name: str) -> None:
    """The policy looks at Pods, and without a controller manager there are none: so one is made of the template."""
    owner = json.loads(luban_base.kubectl("get", name, "-n", "luban-system", "-o", "json"))
    template = owner["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "luban-system", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }
    luban_base.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    (container,) = pod["spec"]["containers"]
    container["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(LabError, match="violates PodSecurity"):
        luban_base.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_node_agents_ask_for_the_nodes_network_and_nothing_else(luban_base: ControlPlane) -> None:
    owner = json.loads(luban_base.kubectl("get", "daemonset/luban-node-agent", "-n", "luban-node", "-o", "json"))
    spec = owner["spec"]["template"]["spec"]
    assert spec.pop("hostNetwork") is True
    assert [next(iter(set(volume) - {"name"})) for volume in spec["volumes"]] == ["emptyDir"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "luban-system"},
        "spec": {**spec, "serviceAccountName": "luban-operator", "serviceAccount": "luban-operator"},
    }
    # Without it, the Pod passes the strictest policy.
    luban_base.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_services_select_the_pods_they_are_for(luban_base: ControlPlane) -> None:
    def labels(name: str) -> set[tuple[str, str]]:
        owner = json.loads(luban_base.kubectl("get", name, "-n", "luban-system", "-o", "json"))
        return set(owner["spec"]["template"]["metadata"]["labels"].items())

    pairs = {
        "luban": "statefulset/luban-balancer",
        "luban-balancer": "statefulset/luban-balancer",
        "luban-operator-metrics": "deployment/luban-operator",
    }
    for service, workload in pairs.items():
        body = json.loads(luban_base.kubectl("get", "service", service, "-n", "luban-system", "-o", "json"))
        assert set(body["spec"]["selector"].items()) <= labels(workload), service


def test_manifests_name_no_registry_and_no_machine() -> None:
    for path in [*MANIFESTS.rglob("*.yaml"), ROOT / "kind-config.yaml"]:
        images = re.findall(r"image: (\S+)", path.read_text())
        assert [image for image in images if "/" in image] == [], path


# Rights

MAY = [
    (OPERATOR, "list", "lubanclusters.luban.cloud"),
    (OPERATOR, "watch", "lubanvms.luban.cloud"),
    (OPERATOR, "list", "customresourcedefinitions.apiextensions.k8s.io"),
    (OPERATOR, "watch", "namespaces"),
    (OPERATOR, "patch", "lubanclusters.luban.cloud/status"),
    (OPERATOR, "watch", "configmaps"),
    (OPERATOR, "watch", "leases.coordination.k8s.io"),
    (OPERATOR, "get", "secrets"),
    (OPERATOR, "patch", "configmaps"),
    (OPERATOR, "patch", "statefulsets.apps"),
    (OPERATOR, "watch", "statefulsets.apps"),
    (OPERATOR, "create", "roles.rbac.authorization.k8s.io"),
    (OPERATOR, "create", "services"),
    (AGENT, "watch", "configmaps/luban-balancer-0"),
    (AGENT, "create", "leases.coordination.k8s.io"),
    (AGENT, "patch", "leases.coordination.k8s.io/luban-balancer-0"),
    (OPERATOR, "watch", "lubanhosts.luban.cloud"),
    (NODE_AGENT, "patch", "lubanhosts.luban.cloud/status"),
    (OPERATOR, "create", "serviceaccounts/luban-operator", "--subresource=token"),
    (AGENT, "create", "tokenreviews.authentication.k8s.io"),
]
MAY_NOT = [
    (OPERATOR, "create", "serviceaccounts/luban-balancer", "--subresource=token"),
    (AGENT, "create", "serviceaccounts/luban-balancer", "--subresource=token"),
    (AGENT, "create", "serviceaccounts/luban-operator", "--subresource=token"),
    (AGENT, "create", "subjectaccessreviews.authorization.k8s.io"),
    (OPERATOR, "get", "nodes"),
    (OPERATOR, "list", "secrets"),
    (OPERATOR, "create", "secrets"),
    (OPERATOR, "patch", "secrets"),
    (OPERATOR, "watch", "secrets"),
    (OPERATOR, "update", "configmaps"),
    (OPERATOR, "update", "leases.coordination.k8s.io/luban-balancer-0"),
    (OPERATOR, "create", "pods"),
    (OPERATOR, "delete", "statefulsets.apps"),
    (OPERATOR, "escalate", "roles.rbac.authorization.k8s.io"),
    (OPERATOR, "bind", "roles.rbac.authorization.k8s.io"),
    (OPERATOR, "create", "clusterrolebindings.rbac.authorization.k8s.io"),
    (AGENT, "get", "statefulsets.apps"),
    (OPERATOR, "create", "lubanclusters.luban.cloud"),
    (OPERATOR, "delete", "lubanclusters.luban.cloud"),
    (OPERATOR, "patch", "customresourcedefinitions.apiextensions.k8s.io"),
    (OPERATOR, "patch", "clusterroles.rbac.authorization.k8s.io"),
    (AGENT, "get", "secrets"),
    (AGENT, "list", "configmaps"),
    (AGENT, "get", "configmaps/other"),
    (AGENT, "patch", "configmaps/luban-balancer-0"),
    (AGENT, "patch", "leases.coordination.k8s.io/other"),
    (AGENT, "get", "lubanclusters.luban.cloud"),
    (AGENT, "delete", "leases.coordination.k8s.io"),
    (AGENT, "patch", "leases.coordination.k8s.io/luban-operator"),
    (AGENT, "update", "leases.coordination.k8s.io/luban-operator"),
    (NODE_AGENT, "create", "leases.coordination.k8s.io"),
    (OPERATOR, "patch", "lubanhosts.luban.cloud"),
    (OPERATOR, "patch", "lubanhosts.luban.cloud/status"),
    (NODE_AGENT, "delete", "lubanhosts.luban.cloud"),
    (NODE_AGENT, "get", "lubanclusters.luban.cloud"),
    (NODE_AGENT, "get", "secrets"),
    (NODE_AGENT, "get", "nodes"),
    (NODE_AGENT, "create", "events"),
]


@pytest.mark.parametrize("words", MAY, ids=" ".join)
def test_who_may(luban_base: ControlPlane, words: tuple[str, ...]) -> None:
    assert kubectl_as(luban_base, *words, "-n", "luban-system")


@pytest.mark.parametrize("words", MAY_NOT, ids=" ".join)
def test_who_may_not(luban_base: ControlPlane, words: tuple[str, ...]) -> None:
    assert not kubectl_as(luban_base, *words, "-n", "luban-system")


@pytest.mark.parametrize("kind", ["secrets", "configmaps"])
@pytest.mark.parametrize("verb", ["get", "create", "patch", "update", "delete"])
def test_the_operator_has_no_rights_where_nobody_gave_it_any(luban_base: ControlPlane, kind: str, verb: str) -> None:
    for scope in (("-n", "default"), ("--all-namespaces",)):
        assert not kubectl_as(luban_base, OPERATOR, verb, kind, *scope)


@pytest.mark.parametrize(
    ("policy", "workload", "ports"),
    [
        ("luban-balancer", "statefulset/luban-balancer", {"http", "agent"}),
        ("luban-operator", "deployment/luban-operator", {"metrics"}),
    ],
)
def test_network_policies_are_for_the_pods_and_ports_that_there_are(
    luban_base: ControlPlane, policy: str, workload: str, ports: set[str]
) -> None:
    def found(kind: str) -> dict[str, Any]:
        body = json.loads(luban_base.kubectl("get", kind, "-n", "luban-system", "-o", "json"))
        spec: dict[str, Any] = body["spec"]
        return spec

    spec, template = found(f"networkpolicy/{policy}"), found(workload)["template"]
    assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    named = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
    assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == ports == named
    # httpd alone is open to everybody.
    assert {port["port"] for rule in spec["ingress"] if "from" not in rule for port in rule["ports"]} == ports & {
        "http"
    }


def test_the_balancers_policy_lets_the_operator_in(luban_base: ControlPlane) -> None:
    policy = json.loads(luban_base.kubectl("get", "networkpolicy/luban-balancer", "-n", "luban-system", "-o", "json"))
    operator = json.loads(luban_base.kubectl("get", "deployment/luban-operator", "-n", "luban-system", "-o", "json"))
    place = json.loads(luban_base.kubectl("get", "namespace/luban-system", "-o", "json"))
    (rule,) = (it for it in policy["spec"]["ingress"] if "from" in it)
    (peer,) = (it for it in rule["from"] if "podSelector" in it)
    labels = operator["spec"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert peer["namespaceSelector"]["matchLabels"].items() <= place["metadata"]["labels"].items()


async def test_the_agents_rights_are_enough_for_what_it_does(luban_base: ControlPlane, tmp_path: Path) -> None:
    """Its own code, as its own ServiceAccount: the narrow rights hold only because it selects by name."""
    path = tmp_path / "agent.kubeconfig"
    luban_base.service_account_kubeconfig("luban-system", "luban-balancer", path)
    # The control plane is shared by all tests: another one may have left its own.
    luban_base.kubectl("delete", "configmap", "luban-balancer-0", "-n", "luban-system", "--ignore-not-found")
    luban_base.kubectl(
        "create", "configmap", "luban-balancer-0", "-n", "luban-system", "--from-literal=balancer.json={}"
    )
    api = await open_api(str(path))
    source = ConfigMapSource(api, "luban-system", "luban-balancer-0", watch_seconds=1)
    changes = source.changes()
    assert await anext(changes) == {"balancer.json": "{}"}
    luban_base.kubectl(
        "patch", "configmap", "luban-balancer-0", "-n", "luban-system", "-p", '{"data": {"balancer.json": "[]"}}'
    )
    seen = [await anext(changes), await anext(changes)]
    assert {"balancer.json": "[]"} in seen
    assert isinstance(changes, AsyncGenerator)
    await changes.aclose()
    lease = EndpointLease(api, "luban-system", "luban", 0)
    assert await lease.announce("http://10.0.0.7:9180")
    assert await lease.announce("http://10.0.0.8:9180")
    found = json.loads(luban_base.kubectl("get", "lease", "luban-balancer-0", "-n", "luban-system", "-o", "json"))
    assert found["metadata"]["annotations"]["luban.cloud/agent-endpoint"] == "http://10.0.0.8:9180"
    await api.close()  # type: ignore[no-untyped-call]


def test_the_agent_has_no_rights_in_other_namespaces(luban_base: ControlPlane, namespace: str) -> None:
    assert not kubectl_as(luban_base, AGENT, "get", "configmaps", "-n", namespace)


def test_the_operators_token_is_refused_in_practice_too(luban_base: ControlPlane, operator_kubeconfig: Path) -> None:
    done = subprocess.run(
        [
            luban_base.binaries.kubectl,
            f"--kubeconfig={operator_kubeconfig}",
            f"--cache-dir={operator_kubeconfig.with_suffix('.cache')}",
            "get",
            "nodes",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert OPERATOR in done.stderr
    assert "nodes is forbidden" in done.stderr
