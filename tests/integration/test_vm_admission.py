"""Only the operator makes and writes LubanVMs: the admission policy on a real API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from lab.controlplane import ControlPlane
from lab.process import wait_until
from luban.api import names

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
OWNER = {"apiVersion": names.API_VERSION, "kind": "LubanCluster", "name": "luban", "uid": "mine"}


def vm(name: str = "luban-a", **metadata: Any) -> str:
    """A LubanVM."""
    spec = {
        "clusterName": "luban",
        "host": "payroll",
        "hostURI": "qemu+tls://payroll-host/system",
        "template": {"image": {"volume": "web.qcow2"}},
    }
    body = {"apiVersion": names.API_VERSION, "kind": "LubanVM", "metadata": {"name": name, **metadata}, "spec": spec}
    return json.dumps(body)


@pytest.fixture(scope="module")
def kubectl(luban_base: ControlPlane) -> Kubectl:
    """kubectl as a cluster administrator, who has every right that RBAC gives."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(luban_base.binaries.kubectl), f"--kubeconfig={luban_base.layout.admin_kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)

    def in_force() -> bool:
        return run("create", "--dry-run=server", "-f", "-", stdin=vm()).returncode != 0

    # The API server takes a moment to learn of a new policy.
    wait_until(in_force, what="the admission policy in force", timeout=30)
    return run


@pytest.fixture
def made(luban_base: ControlPlane, namespace: str) -> str:
    """A namespace in which the operator made the LubanVM luban-a."""
    where = ("-n", namespace, "--as=system:serviceaccount:luban-system:luban-operator", "--as-group=system:masters")
    body = vm(finalizers=[names.FINALIZER_VM], ownerReferences=[OWNER])
    luban_base.kubectl(*where, "create", "-f", "-", stdin=body)
    status = ("--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Ready"}}')
    luban_base.kubectl(*where, "patch", "lvm", "luban-a", *status)
    return namespace


def test_nobody_else_makes_one(kubectl: Kubectl, namespace: str) -> None:
    for command in (("create", "-f", "-"), ("apply", "--server-side", "-f", "-")):
        refused = kubectl("-n", namespace, *command, stdin=vm())
        assert refused.returncode != 0
        assert "only the operator makes LubanVMs" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--subresource=status", "-p", '{"status":{"phase":"Failed"}}'), "only the operator writes the status"),
        (("--subresource=status", "-p", '{"status":{"address":"10.96.0.1"}}'), "only the operator writes the status"),
        (("-p", '{"spec":{"placement":"mine"}}'), "only the operator writes the spec"),
        (("-p", json.dumps({"metadata": {"ownerReferences": [{**OWNER, "uid": "other"}]}})), "only the operator gives"),
    ],
)
def test_nobody_else_writes_one(kubectl: Kubectl, made: str, arguments: tuple[str, ...], words: str) -> None:
    refused = kubectl("-n", made, "patch", "lvm", "luban-a", "--type=merge", *arguments)
    assert refused.returncode != 0
    assert words in refused.stderr


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"note": "x"}},
        {"annotations": {"note": "x"}},
        {"finalizers": []},
        {"ownerReferences": []},
        {"ownerReferences": [{**OWNER, "blockOwnerDeletion": False}]},
    ],
)
def test_what_a_person_or_the_garbage_collector_may_change(
    kubectl: Kubectl, made: str, metadata: dict[str, Any]
) -> None:
    taken = kubectl("-n", made, "patch", "lvm", "luban-a", "--type=merge", "-p", json.dumps({"metadata": metadata}))
    assert taken.returncode == 0, taken.stderr


def test_a_person_may_delete_one(kubectl: Kubectl, made: str) -> None:
    assert kubectl("-n", made, "delete", "lvm", "luban-a", "--wait=false").returncode == 0
    released = kubectl("-n", made, "patch", "lvm", "luban-a", "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
    assert released.returncode == 0, released.stderr
    assert kubectl("-n", made, "get", "lvm", "luban-a").returncode != 0
