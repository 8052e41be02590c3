"""The node agents' admission policy on a real API server: an agent writes its own node's LubanHost and nothing else."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.controlplane import ControlPlane

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def nodes(luban_base: ControlPlane) -> tuple[str, str]:
    """Two nodes."""
    names = ("rack-1", "rack-2")
    for name in names:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        luban_base.kubectl("apply", "-f", "-", stdin=json.dumps(node))
    return names


@pytest.fixture(scope="module")
def kubectl_with(luban_base: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Kubectl]:
    """kubectl with a kubeconfig."""

    def bound(config: Path) -> Kubectl:
        def kubectl(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
            cache = tmp_path_factory.getbasetemp() / "kubectl-cache"
            command = [str(luban_base.binaries.kubectl), f"--kubeconfig={config}", f"--cache-dir={cache}", *arguments]
            return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)

        return kubectl

    return bound


@pytest.fixture(scope="module")
def agent(
    luban_base: ControlPlane,
    nodes: tuple[str, str],
    kubectl_with: Callable[[Path], Kubectl],
    tmp_path_factory: pytest.TempPathFactory,
) -> Kubectl:
    """kubectl as the agent of the first node, with a token that is bound to it."""
    path = tmp_path_factory.mktemp("agent") / "kubeconfig"
    luban_base.service_account_kubeconfig("luban-node", "luban-node-agent", path, node=nodes[0])
    return kubectl_with(path)


def manifest(name: str, **spec: object) -> str:
    """A LubanHost."""
    body = {"apiVersion": "luban.cloud/v1alpha1", "kind": "LubanHost", "metadata": {"name": name}}
    return json.dumps(body | ({"spec": spec} if spec else {}))


def apply(kubectl: Kubectl, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Server-side apply, as the agent writes."""
    return kubectl("apply", "--server-side", "--field-manager=luban-node-agent", "-f", "-", *options, stdin=body)


def report(name: str, verdict: str = "Healthy") -> str:
    """A LubanHost with a status."""
    bond = {"name": "bond0", "verdict": verdict, "active": 2, "total": 2, "ports": "2/2"}
    body = json.loads(manifest(name)) | {"status": {"lastReport": "2026-11-22T05:00:00Z", "bond": bond}}
    return json.dumps(body)


def test_an_agent_makes_and_writes_its_own(luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str]) -> None:
    for _ in range(2):
        made = apply(agent, manifest(nodes[0]))
        assert made.returncode == 0, made.stderr
    written = apply(agent, report(nodes[0], "Degraded"), "--subresource=status")
    assert written.returncode == 0, written.stderr
    found = json.loads(luban_base.kubectl("get", "lh", nodes[0], "-o", "json"))
    assert found["status"]["bond"]["verdict"] == "Degraded"
    row = luban_base.kubectl("get", "lh", nodes[0], "--no-headers").split()
    assert row[:2] == [nodes[0], "Degraded"]


def test_not_another_nodes(luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str]) -> None:
    mine, other = nodes
    refused = apply(agent, manifest(other))
    assert refused.returncode != 0
    words = f"the agent of node {mine} may write the LubanHost {mine} alone, not {other}"
    assert words in refused.stderr
    # Not when it exists already either, neither as a whole nor its status.
    luban_base.kubectl("apply", "-f", "-", stdin=manifest(other))
    labelled = json.loads(manifest(other))
    labelled["metadata"]["labels"] = {"mine": "now"}
    assert words in apply(agent, json.dumps(labelled)).stderr
    refused = apply(agent, report(other), "--subresource=status")
    assert words in refused.stderr
    assert "status" not in json.loads(luban_base.kubectl("get", "lh", other, "-o", "json"))


def test_not_the_spec_which_is_an_administrators(
    luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str]
) -> None:
    apply(agent, manifest(nodes[0]))
    refused = apply(agent, manifest(nodes[0], bond="bond7"), "--force-conflicts")
    assert "the spec of a LubanHost is an administrator's" in refused.stderr
    luban_base.kubectl("patch", "lh", nodes[0], "--type=merge", "-p", '{"spec": {"bond": "bond1"}}')
    # What the user wrote is no obstacle to the agent's reports.
    written = apply(agent, report(nodes[0]), "--subresource=status")
    assert written.returncode == 0, written.stderr
    assert json.loads(luban_base.kubectl("get", "lh", nodes[0], "-o", "json"))["spec"]["bond"] == "bond1"


def test_not_where_the_host_is_nor_who_may_use_it(
    luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str]
) -> None:
    """What an administrator registered stands through the agent's reports, and the agent cannot change it."""
    apply(agent, manifest(nodes[0]))
    libvirt = {"uri": "qemu+tls://host-b/system", "namespaces": ["team-a"], "cidr": "10.20.0.0/16"}
    luban_base.kubectl("patch", "lh", nodes[0], "--type=merge", "-p", json.dumps({"spec": {"libvirt": libvirt}}))
    for change in ({**libvirt, "namespaces": ["team-b"]}, {**libvirt, "uri": "qemu+tls://stranger/system"}):
        refused = apply(agent, manifest(nodes[0], libvirt=change), "--force-conflicts")
        assert "the spec of a LubanHost is an administrator's" in refused.stderr
    written = apply(agent, report(nodes[0]), "--subresource=status")
    assert written.returncode == 0, written.stderr
    found = json.loads(luban_base.kubectl("get", "lh", nodes[0], "-o", "json"))["spec"]["libvirt"]
    assert {name: found[name] for name in libvirt} == libvirt


@pytest.mark.parametrize(
    "spec",
    [
        {"bond": "bond7"},
        {"hold": "1h"},
        {"flapping": {"downs": 1000}},
        {"expectedPorts": [{"bond": "bond0", "ports": 1}]},
        {"libvirt": {"uri": "qemu+tls://stranger/system"}},
    ],
)
def test_not_a_new_one_with_a_spec(
    luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str], spec: dict[str, object]
) -> None:
    luban_base.kubectl("delete", "lh", nodes[0], "--ignore-not-found")
    refused = apply(agent, manifest(nodes[0], **spec))
    assert "the spec of a LubanHost is an administrator's" in refused.stderr


OWNER = {"apiVersion": "v1", "kind": "Node", "name": "rack-1", "uid": "1"}


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"a": "b"}},
        {"annotations": {"a": "b"}},
        {"finalizers": ["luban.cloud/never"]},
        {"ownerReferences": [OWNER]},
    ],
)
def test_not_its_metadata(
    luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str], metadata: dict[str, object], exists: bool
) -> None:
    luban_base.kubectl("delete", "lh", nodes[0], "--ignore-not-found")
    if exists:
        luban_base.kubectl("apply", "-f", "-", stdin=manifest(nodes[0]))
    body = json.loads(manifest(nodes[0]))
    body["metadata"] |= metadata
    refused = apply(agent, json.dumps(body))
    assert "a node agent may not change the metadata of a LubanHost" in refused.stderr


def test_what_the_user_put_there_is_no_obstacle(
    luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str]
) -> None:
    luban_base.kubectl("apply", "-f", "-", stdin=manifest(nodes[0]))
    luban_base.kubectl("label", "lh", nodes[0], "rack=1", "--overwrite")
    for written in (apply(agent, manifest(nodes[0])), apply(agent, report(nodes[0]), "--subresource=status")):
        assert written.returncode == 0, written.stderr


def test_it_may_not_delete_even_if_a_role_says_so(
    luban_base: ControlPlane, agent: Kubectl, nodes: tuple[str, str]
) -> None:
    luban_base.kubectl("apply", "-f", "-", stdin=manifest(nodes[0]))
    luban_base.kubectl("create", "clusterrole", "too-much", "--verb=delete", "--resource=lubanhosts.luban.cloud")
    account = "--serviceaccount=luban-node:luban-node-agent"
    luban_base.kubectl("create", "clusterrolebinding", "too-much", "--clusterrole=too-much", account)
    try:
        refused = agent("delete", "lh", nodes[0])
        assert "a node agent may not delete a LubanHost" in refused.stderr
    finally:
        luban_base.kubectl("delete", "clusterrolebinding,clusterrole", "too-much")


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "lh", "rack-1"),
        ("get", "lubanclusters", "-A"),
        ("get", "secrets", "-A"),
        ("get", "configmaps", "-n", "luban-system"),
        ("get", "nodes"),
        ("create", "configmap", "x", "-n", "luban-node"),
    ],
)
def test_nothing_else(agent: Kubectl, arguments: tuple[str, ...]) -> None:
    refused = agent(*arguments)
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr.lower()


def test_a_token_that_names_no_node_writes_nothing(
    luban_base: ControlPlane, nodes: tuple[str, str], kubectl_with: Callable[[Path], Kubectl], tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    luban_base.service_account_kubeconfig("luban-node", "luban-node-agent", path)
    refused = apply(kubectl_with(path), manifest(nodes[0]))
    assert "the token of this node agent is bound to no node" in refused.stderr


def test_a_pods_token_names_the_pods_node(
    luban_base: ControlPlane, nodes: tuple[str, str], kubectl_with: Callable[[Path], Kubectl], tmp_path: Path
) -> None:
    """What a DaemonSet's Pod gets: the node comes from the Pod, which the scheduler bound."""
    owner = json.loads(luban_base.kubectl("get", "daemonset/luban-node-agent", "-n", "luban-node", "-o", "json"))
    name = f"agent-{next(_numbers)}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "luban-node"},
        "spec": {**owner["spec"]["template"]["spec"], "nodeName": nodes[1]},
    }
    luban_base.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    token = luban_base.kubectl(
        *("create", "token", "luban-node-agent", "-n", "luban-node"),
        *("--bound-object-kind=Pod", f"--bound-object-name={name}"),
    ).strip()
    path = tmp_path / "kubeconfig"
    luban_base.service_account_kubeconfig("luban-node", "luban-node-agent", path)
    kubectl = kubectl_with(path)
    assert apply(kubectl, report(nodes[0]), f"--token={token}").returncode != 0
    accepted = apply(kubectl, manifest(nodes[1]), f"--token={token}")
    assert accepted.returncode == 0, accepted.stderr
    luban_base.kubectl("delete", "pod", name, "-n", "luban-node", "--grace-period=0", "--force")


def test_others_are_not_held_back_by_it(luban_base: ControlPlane) -> None:
    luban_base.kubectl("apply", "-f", "-", stdin=manifest("rack-9", bond="bond0"))
    luban_base.kubectl("delete", "lh", "rack-9")
