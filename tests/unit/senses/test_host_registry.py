"""What the operator makes of the spec.libvirt of LubanHosts."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from luban.api.cluster import LubanClusterSpec
from luban.core.usable_hosts import Applicant, HostPolicy
from luban.senses.host_registry import HostRegistry

URI = "qemu+tls://host-b/system"
SPEC = LubanClusterSpec.model_validate(
    {"hosts": [{"name": "host-b"}], "template": {"spec": {"image": {"volume": "web.qcow2"}}}}
)


def body(**libvirt: Any) -> dict[str, Any]:
    spec = {"bond": "bond0", **({"libvirt": {"uri": URI, **libvirt}} if libvirt else {})}
    return {"metadata": {"name": "host-b"}, "spec": spec, "status": {"lastReport": "2026-11-28T00:00:00Z"}}


def reason(registry: HostRegistry, namespace: str = "team-a") -> str:
    """Why the host may not be used; empty: it may."""
    refusals = registry.usable(SPEC, Applicant(namespace)).refusals
    return refusals["host-b"].reason if refusals else ""


def test_only_what_is_new_is_news() -> None:
    registry = HostRegistry()
    assert not registry.take(body())
    assert reason(registry) == "HostNotRegistered"
    assert registry.take(body(cidr="10.20.0.0/16"))
    assert (reason(registry), registry.cidr("host-b"), registry.cidr("host-c")) == ("", "10.20.0.0/16", "")
    later = body(cidr="10.20.0.0/16")
    later["status"]["lastReport"] = "2026-11-28T00:01:00Z"
    later["spec"]["bond"] = "bond1"
    assert not registry.take(later)
    assert registry.take(body(namespaces=["team-b"]))
    assert (reason(registry), reason(registry, "team-b")) == ("NamespaceNotAllowed", "")
    assert registry.take(body())
    assert reason(registry) == "HostNotRegistered"
    assert not registry.drop("host-b")


def test_one_that_is_deleted_is_registered_no_more() -> None:
    registry = HostRegistry()
    registry.take(body(pools=[]))
    assert registry.drop("host-b")
    assert reason(registry) == "HostNotRegistered"


@pytest.mark.parametrize(
    "libvirt",
    [
        {"namespaces": "team-a"},
        {"namespaces": ["team-b", 7]},
        {"cidr": "10.0.0.0/99"},
        {"uri": "qemu+tls://host-b/embed"},
        {"pools": {"default": True}},
    ],
)
def test_a_limit_that_is_not_understood_is_not_none_at_all(libvirt: dict[str, Any]) -> None:
    """Another version may have let it in."""
    registry = HostRegistry()
    registry.take(body(namespaces=["team-a"]))
    with capture_logs() as logs:
        assert registry.take(body(**libvirt))
        assert not registry.take(body(**libvirt))
    assert [(it["host"], it["log_level"]) for it in logs] == [("host-b", "warning")]
    assert next(iter(libvirt)) in logs[0]["why"]
    assert reason(registry) == "HostUnreadable"


@pytest.mark.parametrize("spec", [None, {}, [], "x", {"libvirt": None}])
def test_a_spec_without_it(spec: object) -> None:
    assert not HostRegistry().take({"metadata": {"name": "host-b"}, "spec": spec})


@pytest.mark.parametrize(("policy", "expected"), [("Any", ""), ("Registered", "InlineURIRefused")])
def test_the_policy_is_the_operators(policy: HostPolicy, expected: str) -> None:
    at = SPEC.hosts[0].model_copy(update={"uri": URI})
    refusals = HostRegistry(policy).usable(SPEC.model_copy(update={"hosts": (at,)}), Applicant("team-a")).refusals
    assert "".join(it.reason for it in refusals.values()) == expected
