"""Objects that another version wrote: a status never makes a spec unreadable, one fault leaves the rest as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from luban.api import LubanCluster, LubanVM
from luban.api.common import Model
from luban.api.reading import Place, faults, read_leniently
from luban.api.template import rolls_out
from luban.errors import UnreadableObject

NOW = "2026-01-31T12:00:00Z"
SPEC: dict[str, Any] = {
    "hosts": [{"name": "host-b", "uri": "qemu+tls://host-b/system"}],
    "template": {"spec": {"image": {"volume": "web.qcow2"}}},
}
STATUS: dict[str, Any] = {
    "observedGeneration": 3,
    "phase": "Ready",
    "replicas": 2,
    "selector": "luban.cloud/cluster=luban",
    "vms": {"desired": 2, "serving": 2},
    "hosts": [
        {"name": "host-b", "reachable": True, "vms": 2, "bond": {"name": "bond0", "verdict": "Healthy"}},
        {"name": "host-c", "reachable": False, "message": "no answer"},
    ],
    "balancers": [{"name": "luban-balancer-0", "ready": True, "members": 2}],
    "sessions": 151,
    "decision": {
        "at": NOW,
        "verdict": "Hold",
        "reason": "Stabilizing",
        "message": "waits",
        "inputs": [{"vm": "luban-a", "sessions": 100, "percent": 100}, {"vm": "luban-b"}],
        "eligibleAt": NOW,
    },
    "placement": {"host": "host-b", "reason": "FewestVMs", "message": "fewest"},
    "lastScaleTime": NOW,
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "AllServing", "lastTransitionTime": NOW},
        {"type": "AtMaximum", "status": "False", "reason": "BelowMaximum", "lastTransitionTime": NOW},
    ],
}
VM_SPEC: dict[str, Any] = {
    "clusterName": "luban",
    "host": "host-b",
    "hostURI": "qemu+tls://host-b/system",
    "address": "127.0.17.2",
    "template": {
        "image": {"volume": "web.qcow2"},
        "network": {"type": "Bridge", "source": "br0"},
        "port": 80,
        "startupTimeout": "5m",
    },
}
TRANSITIONS = [{"phase": phase, "at": NOW} for phase in ("Provisioning", "Booting", "Ready")]


def cluster(status: Any) -> LubanCluster:
    """A cluster with this status."""
    return LubanCluster.parse({"metadata": {"name": "luban"}, "spec": SPEC, "status": status})


def vm(spec: Any = None, status: Any = None) -> LubanVM:
    """A VM with this spec and status."""
    return LubanVM.parse({"metadata": {"name": "luban-a"}, "spec": spec or VM_SPEC, "status": status or {}})


def places(data: Any, above: Place = ()) -> Iterator[Place]:
    """Every element below `data`."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, item in items:
        yield (*above, step)
        yield from places(item, (*above, step))


def at(data: Any, place: Place) -> Any:
    """The element there."""
    for step in place:
        data = data[step]
    return data


def replaced(data: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """The data with something else there."""
    made = copy.deepcopy(data)
    at(made, place[:-1])[place[-1]] = value
    return made


def without_defaults(model: BaseModel) -> dict[str, Any]:
    """What was given."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def test_a_status_that_is_good_is_read_as_it_is() -> None:
    read = cluster(STATUS)
    assert without_defaults(read.status) == STATUS
    assert read.left_out == ()


anything = st.sampled_from(["Expand", "", 7, -1, 1.5, True, None, [], {}, ["x"], {"x": 1}, [None]])


@given(st.lists(st.tuples(st.sampled_from(list(places(STATUS))), anything), max_size=4))
def test_no_status_keeps_the_spec_from_being_read(changes: list[tuple[Place, Any]]) -> None:
    status = STATUS
    for place, value in changes:
        try:
            status = replaced(status, place, value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    assert cluster(status).spec == cluster(STATUS).spec


@pytest.mark.parametrize("status", [None, "x", [], 7, {"phase": None}, {"conditions": "x"}])
def test_a_status_of_another_form_is_left_out(status: Any) -> None:
    assert cluster(status).status.wire().keys() <= cluster({}).status.wire().keys()


@pytest.mark.parametrize(
    ("place", "value", "lost"),
    [
        (("phase",), "Hibernating", ("phase",)),
        (("decision", "verdict"), "Expand", ("decision",)),
        (("decision", "eligibleAt"), "soon", ("decision", "eligibleAt")),
        (("decision", "inputs", 0, "sessions"), "many", ("decision", "inputs", 0, "sessions")),
        (("placement", "reason"), "Warmest", ("placement",)),
        (("lastScaleTime",), "2026-13-01", ("lastScaleTime",)),
        (("lastScaleTime",), "2026-01-31T12:00:00", ("lastScaleTime",)),
        (("hosts", 0, "bond", "verdict"), "Splendid", ("hosts", 0, "bond")),
        (("conditions", 0, "status"), "Perhaps", ("conditions", 0)),
        (("vms", "serving"), "all", ("vms", "serving")),
    ],
)
def test_only_what_a_newer_word_makes_unreadable_is_left_out(place: Place, value: Any, lost: Place) -> None:
    read = cluster(replaced(STATUS, place, value))
    wanted = copy.deepcopy(STATUS)
    del at(wanted, lost[:-1])[lost[-1]]
    assert without_defaults(read.status) == wanted
    assert read.left_out[0].startswith(".".join(map(str, place)))


def test_several_items_of_a_list_are_left_out_each_for_itself() -> None:
    conditions = [{"type": str(number), "status": "Perhaps" if number % 2 else "True"} for number in range(6)]
    for condition in conditions[:4]:
        condition |= {"reason": "X", "lastTransitionTime": NOW}
    assert [it.type for it in cluster({"conditions": conditions}).status.conditions] == ["0", "2"]


def test_fields_of_a_newer_version_are_passed_over() -> None:
    spec = {**SPEC, "pool": {"size": 1}}
    read = LubanCluster.parse({"metadata": {"name": "luban", "x": 1}, "spec": spec, "status": {**STATUS, "warm": 1}})
    assert without_defaults(read.status) == STATUS
    assert vm({**VM_SPEC, "task": "Pool"}, {"pausedBy": "us"}).left_out == ()


def test_a_spec_with_a_newer_word_is_refused() -> None:
    spec = {**SPEC, "scaling": {"policy": "Clairvoyance"}}
    with pytest.raises(ValidationError, match="policy"):
        LubanCluster.parse({"metadata": {"name": "luban"}, "spec": spec, "status": STATUS})


# LubanVMs


def test_a_vm_in_a_newer_phase_is_in_the_last_one_that_is_known() -> None:
    transitions = [*TRANSITIONS, {"phase": "Frozen", "at": NOW}]
    read = vm(status={"phase": "Frozen", "address": "127.0.17.2", "transitions": transitions})
    assert (read.status.phase, read.status.address) == ("Ready", "127.0.17.2")
    assert [it.phase for it in read.status.transitions] == ["Provisioning", "Booting", "Ready"]
    assert len(read.left_out) == 2


def test_a_vm_in_a_newer_phase_without_a_past_is_pending() -> None:
    assert vm(status={"phase": "Frozen"}).status.phase == "Pending"


def test_times_that_are_none_are_left_out() -> None:
    transitions = [*TRANSITIONS, {"phase": "Draining", "at": "yesterday"}]
    assert len(vm(status={"phase": "Draining", "transitions": transitions}).status.transitions) == 3


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("template", "startupTimeout"), "99999999h"),
        (("template", "network", "type"), "Macvtap"),
        (("template", "port"), "http"),
        (("address",), "999.1.1.1"),
    ],
)
def test_what_cannot_be_read_of_a_template_counts_as_not_written(place: Place, value: Any) -> None:
    read = vm(replaced(VM_SPEC, place, value))
    wanted = copy.deepcopy(VM_SPEC)
    del at(wanted, place[:-1])[place[-1]]
    assert read.spec.wire() == vm(wanted).spec.wire()
    assert read.left_out[0].startswith(f"spec.{place[0]}")


def test_such_a_vm_makes_way_for_another() -> None:
    newer = vm(replaced(VM_SPEC, ("template", "port"), "http"))
    assert rolls_out(newer.spec.template, vm().spec.template)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("host",), "Host_B"),
        (("hostURI",), None),
        (("clusterName",), 7),
        (("template",), "x"),
        (("template", "image"), {}),
    ],
)
def test_a_vm_that_does_not_say_where_it_is_cannot_be_read(place: Place, value: Any) -> None:
    with pytest.raises(UnreadableObject, match="LubanVM luban-a cannot be read: spec") as caught:
        vm(replaced(VM_SPEC, place, value))
    assert caught.value.reason == "VMUnreadable"


# The rule itself


class Item(Model):
    """An item."""

    name: str
    """Needed."""
    size: int = 0
    """Not needed."""


class Box(Model):
    """Items."""

    items: tuple[Item, ...] = ()
    """Any number."""


def test_items_keep_their_order_and_their_own_faults() -> None:
    data = {"items": [{"name": 1}, {"name": "b", "size": "x"}, {"size": 1}, {"name": "d", "size": 4}, 7]}
    box, left_out = read_leniently(Box, data)
    assert box == Box(items=(Item(name="b"), Item(name="d", size=4)))
    assert [words.partition(":")[0] for words in left_out] == [
        "items.0.name",
        "items.1.size",
        "items.2.name",
        "items.4",
    ]
    assert data["items"][0] == {"name": 1}, "the data stays as it was"


def test_what_cannot_be_done_without_raises() -> None:
    with pytest.raises(ValidationError):
        read_leniently(Item, {"name": 7})


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (
            ("hosts", 0, "uri"),
            "http://host-b/",
            "spec.hosts.0.uri: must be a libvirt URI such as qemu+tls://host-b/system",
        ),
        (("hosts", 0, "forwardRange"), "10.0.0.0/24", "spec.hosts.0.forwardRange: must be a /24 of loopback addresses"),
        (("scaling",), {"interval": "48h"}, "spec.scaling.interval: must be a duration from 1s to 24h"),
        (("scaling",), {"maxVMs": 1001}, "spec.scaling.maxVMs: Input should be less than or equal to 1000"),
    ],
)
def test_faults_are_told_in_the_words_of_the_schema(place: Place, value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LubanCluster.parse({"metadata": {"name": "luban"}, "spec": replaced(SPEC, place, value)})
    assert next(iter(faults(LubanCluster, caught.value))).startswith(words)
