"""`kubectl luban explain` says what decided, and what is amiss."""

from __future__ import annotations

from typing import Any

from luban.api.cluster import LubanCluster
from luban.api.vm import LubanVM
from luban.cli.explain import explain, explain_objects
from tests.fakes.simulator import TEMPLATE, make_spec

AT = "2026-11-22T05:00:00Z"


def cluster(spec: dict[str, Any] | None = None, /, **status: Any) -> LubanCluster:
    body = {
        "metadata": {"name": "luban", "namespace": "shop", "generation": 3},
        "spec": make_spec(**(spec or {})).wire(),
        "status": {
            "observedGeneration": 3,
            "phase": "Ready",
            "vms": {"desired": 2, "serving": 2},
            "decision": {
                "at": AT,
                "verdict": "Hold",
                "reason": "NotAllAboveUpper",
                "message": "luban-x7 is at 41 %, all must be at or above 60 %",
                "inputs": [{"vm": "luban-x7", "sessions": 41, "percent": 41}, {"vm": "luban-y8"}],
            },
            "placement": {
                "host": "host-c",
                "reason": "BetterBond",
                "message": "host-c; not host-b: its bond is Degraded",
            },
            "hosts": [
                {
                    "name": "host-b",
                    "reachable": True,
                    "bond": {
                        "name": "bond0",
                        "verdict": "Degraded",
                        "mode": "802.3ad",
                        "active": 1,
                        "total": 2,
                        "since": AT,
                        "message": "eth2 has no carrier",
                    },
                },
                {"name": "host-c", "reachable": True},
            ],
            **status,
        },
    }
    return LubanCluster.parse(body)


def vm(name: str, placement: str = "", *, deleted: str = "") -> LubanVM:
    spec = {
        "clusterName": "luban",
        "host": "host-c",
        "hostURI": "qemu+tls://host-c/system",
        "template": TEMPLATE.wire(),
        "placement": placement,
    }
    metadata = {"name": name, **({"deletionTimestamp": deleted} if deleted else {})}
    return LubanVM.parse({"metadata": metadata, "spec": spec, "status": {"phase": "Ready", "reason": "Answers"}})


def test_all_of_it() -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "AllServing", "lastTransitionTime": AT},
        {"type": "AtMaximum", "status": "False", "reason": "BelowMaximum", "lastTransitionTime": AT},
        {
            "type": "BondsHealthy",
            "status": "False",
            "reason": "Degraded",
            "message": "host-b: eth2 has no carrier",
            "lastTransitionTime": AT,
        },
    ]
    why = "host-c; not host-b: its bond is Degraded"
    assert explain(cluster(conditions=conditions), [vm("luban-y8"), vm("luban-x7", why)]) == (
        "LubanCluster shop/luban: Ready, 2 of 2 VMs answering, 0 starting, 0 leaving, 0 paused, 0 failed\n"
        f"Decision    Hold (NotAllAboveUpper) since {AT}: luban-x7 is at 41 %, all must be at or above 60 %"
        " (the load is looked at every 15s)\n"
        "              luban-x7: 41 sessions, 41 %\n"
        "              luban-y8: sessions unknown\n"
        "Next VM     the bond decides (bondPolicy Prefer): host-c; not host-b: its bond is Degraded\n"
        f"Bonds       host-b: Degraded, since {AT}: bond0 802.3ad, 1 of 2 ports carry traffic; eth2 has no carrier\n"
        f"VMs         luban-x7 on host-c: Ready (Answers); placed: {why}\n"
        "            luban-y8 on host-c: Ready (Answers)\n"
        "Amiss       BondsHealthy is False (Degraded): host-b: eth2 has no carrier"
    )


def test_a_cluster_that_nobody_looked_at_yet() -> None:
    fresh = cluster(observedGeneration=0, phase="Pending", decision=None, placement=None, hosts=[])
    assert explain(fresh, []).splitlines() == [
        "LubanCluster shop/luban: Pending, 2 of 2 VMs answering, 0 starting, 0 leaving, 0 paused, 0 failed",
        "Outdated    the operator has not looked at the latest spec yet: is it running?",
        "Decision    none yet",
    ]


def test_what_changes_and_why() -> None:
    hosts = [
        {"name": "host-b", "uri": "qemu+tls://host-b/system"},
        {"name": "host-c", "uri": "qemu+tls://host-c/system"},
    ]
    for spec, why in (
        ({"hosts": [hosts[0], {**hosts[1], "cordoned": True}]}, "host-c is cordoned"),
        ({"hosts": hosts[:1]}, "host-c left spec.hosts"),
    ):
        text = explain(cluster(spec), [vm("luban-x7")])
        assert f"Changes     luban-x7 is to be replaced: {why}" in text
    older = vm("luban-x7")
    template = older.spec.template.model_copy(update={"port": 1})
    older = older.model_copy(update={"spec": older.spec.model_copy(update={"template": template})})
    assert "luban-x7 is to be replaced: spec.template is another" in explain(cluster(), [older])
    leaving = vm("luban-x7", deleted=AT)
    text = explain(cluster({"paused": True}), [leaving])
    assert "Changes     luban-x7 was asked to leave; spec.paused is set, so it stays until that is taken back" in text
    assert "luban-x7 on host-c: Ready (Answers), asked to leave" in text
    assert "Changes" not in explain(cluster(), [vm("luban-x7")])


def test_a_wish_that_waits() -> None:
    decision = {"at": AT, "verdict": "Hold", "reason": "CoolingDown", "message": "waiting", "eligibleAt": AT}
    assert f"to be carried out at {AT} at the earliest" in explain(cluster(decision=decision), [])


def test_a_spec_that_this_version_cannot_read() -> None:
    condition = {"type": "SpecValid", "status": "False", "reason": "SpecRefused", "message": "hosts: too\x1b[2Jmany"}
    body = {"metadata": {"name": "luban"}, "spec": {"hosts": "none"}, "status": {"conditions": [condition]}}
    heading, *_, last = explain_objects(body, []).splitlines()
    assert heading.startswith("LubanCluster luban cannot be read by this version")
    assert last == "Conditions  SpecValid is False (SpecRefused): hosts: too?[2Jmany"


def test_a_vm_that_this_version_cannot_read_is_passed_over() -> None:
    """The condition VMsHealthy tells of it, which is among what is amiss."""
    bodies = [
        {"metadata": {"name": "luban-x7"}, "spec": vm("luban-x7").spec.wire()},
        {"metadata": {"name": "luban-y8"}, "spec": {"host": "host-c"}},
    ]
    text = explain_objects(cluster().model_dump(mode="json", by_alias=True), bodies)
    assert "luban-x7 on host-c" in text
    assert "luban-y8 on" not in text


def test_metrics_of_a_decision() -> None:
    decision = {
        "at": AT,
        "verdict": "Hold",
        "reason": "LoadUnknown",
        "message": "Memory of luban-y8 is unknown",
        "metrics": [
            {"name": "CPU", "value": 41.5, "unknown": 0},
            {"name": "Memory", "value": 70.0, "unknown": 2},
            {"name": "Requests", "unknown": 1},
        ],
    }
    lines = [line.strip() for line in explain(cluster(decision=decision), []).splitlines()]
    assert "CPU: 41.5 %" in lines
    assert "Memory: 70.0 %, not known of 2" in lines
    assert "Requests: unknown, not known of 1" in lines


def test_several_balancers_and_why_there_are_so_many() -> None:
    told = explain(
        cluster(
            tier={"desired": 2, "reason": "BalancersPerVM", "message": "each VM has 2 balancers"},
            balancers=[
                {"name": "luban-balancer-0", "ready": True, "members": 3},
                {"name": "luban-balancer-1", "ready": False, "members": 0},
            ],
        ),
        [],
    )
    assert "2 wanted (BalancersPerVM): each VM has 2 balancers" in told
    assert "luban-balancer-1: not ready, 0 VMs" in told
