"""Specs that the API server cannot judge: a condition and an Event name the thing and the remedy; nothing stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lab.datacentre import NAMESPACE
from tests.e2e.lab_view import LabView

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
NAME = "broken"


@pytest.fixture
def broken(scene: LabView) -> Iterator[Any]:
    """Creates a second cluster with a faulty spec, and removes it and all that is left of it."""

    def create(change: dict[str, Any]) -> None:
        body = yaml.safe_load(scene.lab.sample())
        body["metadata"] = {"name": NAME}
        body["spec"]["hosts"] = [
            {**host, "forwardRange": f"127.0.{150 + index}.0/24", "vms": {"min": 0, "max": 2}}
            for index, host in enumerate(body["spec"]["hosts"])
        ]
        body["spec"]["scaling"] = {"minVMs": 1, "maxVMs": 2}
        body["spec"]["template"]["spec"].update(failedRetention="10m")
        merge(body["spec"], change)
        scene.lab.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=json.dumps(body))

    yield create
    scene.lab.kubectl("-n", NAMESPACE, "delete", "lubancluster", NAME, "--wait=false", "--ignore-not-found")
    scene.until(
        lambda: not any(it["metadata"]["name"] == NAME for it in scene.get("lubanclusters")["items"]),
        "the faulty cluster is gone",
    )
    scene.until(lambda: scene.consistent(2), "the good cluster is as it was, and nothing of the other is left")


def merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    """Deep merge; lists are replaced."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


CASES = [
    ({"template": {"spec": {"image": {"volume": "nothing.qcow2"}}}}, "ImageNotFound", "nothing.qcow2"),
    ({"template": {"spec": {"image": {"pool": "nowhere"}}}}, "PoolNotFound", "nowhere"),
    ({"template": {"spec": {"cloudInit": {"userDataSecretRef": {"name": "absent"}}}}}, "SecretNotFound", "absent"),
]


@pytest.mark.parametrize(("change", "reason", "word"), CASES, ids=[case[1] for case in CASES])
def test_the_condition_names_it(scene: LabView, broken: Any, change: dict[str, Any], reason: str, word: str) -> None:
    """Condition VMsHealthy and a Warning on the LubanVM."""
    broken(change)
    scene.until(lambda: scene.condition("VMsHealthy", NAME).get("reason") == reason, f"condition {reason}")
    assert word in scene.condition("VMsHealthy", NAME)["message"]
    assert any(word in it["message"] or word in it.get("note", "") for it in scene.events(reason))
    assert len(scene.domains()) == 2
    assert len(scene.volumes()) == 4, "two overlays and two seeds"


def test_unknown_uri(scene: LabView, broken: Any) -> None:
    """A host that is not there: the condition names it; the other host does the work."""
    hosts = yaml.safe_load(scene.lab.sample())["spec"]["hosts"]
    hosts = [
        {**hosts[0], "uri": "qemu+unix:///session?socket=/nonexistent/sock", "vms": {"min": 0, "max": 2}},
        {**hosts[1], "vms": {"min": 0, "max": 2}, "forwardRange": "127.0.151.0/24"},
    ]
    broken({"hosts": hosts})
    scene.until(lambda: scene.condition("HostsReachable", NAME).get("status") == "False", "the condition")
    assert "host-b" in scene.condition("HostsReachable", NAME)["message"]
    scene.until(
        lambda: any(
            vm["spec"]["host"] == "host-c" and vm.get("status", {}).get("phase") in ("Booting", "Ready")
            for vm in scene.vms(NAME)
        ),
        "a VM on the other host",
    )


def test_foreign_domain_is_left_alone(scene: LabView) -> None:
    """A domain that we did not make, on our host: never touched, whatever its name."""
    xml = (
        "<domain type='qemu'><name>luban-foreign</name><memory unit='MiB'>16</memory><os><type>hvm</type></os></domain>"
    )
    import subprocess

    uri = scene.lab.hosts.uris()["host-b"]
    subprocess.run(["virsh", "-q", "-c", uri, "define", "/dev/stdin"], input=xml, text=True, check=True, timeout=30)
    try:
        scene.scale(3)
        scene.until(lambda: scene.status()["vms"]["serving"] == 3, "three serve")
        assert "luban-foreign" in scene.virsh("host-b", "list", "--all", "--name")
        scene.scale(2)
        scene.until(lambda: len(scene.vms()) == 2, "two are left")
        assert "luban-foreign" in scene.virsh("host-b", "list", "--all", "--name")
    finally:
        scene.virsh("host-b", "undefine", "luban-foreign")
