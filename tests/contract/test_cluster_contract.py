"""What ports.Cluster promises, held by the fake and by the adapter on a real API server.

The adapter works as the operator's ServiceAccount, so that these tests also show that manifests/base grants enough.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.controlplane import ControlPlane
from luban.adapters.kubernetes_api import KubernetesCluster, connect
from luban.adapters.kubernetes_api.cache import Cache
from luban.adapters.kubernetes_api.calls import Call
from luban.api import LubanCluster, LubanClusterStatus, LubanVM, LubanVMSpec, LubanVMStatus, names
from luban.api.balancer import Balancer
from luban.core.model import ClusterRef
from luban.errors import Conflict, PermanentError
from luban.render.balancer_objects import AgentProgram, balancer_objects
from tests.contract.cluster_implementations import Body, FakeImplementation, Implementation, RealImplementation

pytestmark = [pytest.mark.contract, pytest.mark.timeout(1800)]


@pytest.fixture(
    params=[
        "fake",
        pytest.param("real", marks=pytest.mark.integration),
        pytest.param("watching", marks=pytest.mark.integration),
    ]
)
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Implementation]:
    """Each implementation in turn: the fake, the adapter that asks each time, and the one that follows watches."""
    if request.param == "fake":
        yield FakeImplementation()
        return
    kubeconfig: Path = request.getfixturevalue("operator_kubeconfig")
    plane: ControlPlane = request.getfixturevalue("luban_base")
    namespace: str = request.getfixturevalue("namespace")
    cluster = await connect(str(kubeconfig), follow=() if request.param == "watching" else None)
    if request.param == "watching":
        await until_followed(cluster, ClusterRef(namespace, "luban"))
    yield RealImplementation(cluster, plane, namespace)
    await cluster.close()


async def until_followed(cluster: KubernetesCluster, ref: ClusterRef) -> None:
    """Until nothing that a watch can tell is asked of the API server any more."""
    sent: list[str] = []
    cache = cluster._transport
    assert isinstance(cache, Cache)
    plain = cache._transport.send

    async def counted(call: Call) -> dict[str, Any]:
        sent.append(str(call))
        return await plain(call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache._transport, "send", counted)
        async with asyncio.timeout(30):
            for _ in range(2):
                # Of what is not there a watch says nothing: what is asked for then is asked of the API server.
                await cluster.read_config_map(ref, "none")
                await cluster.balancer_endpoint(ref, "none")
            while True:
                sent.clear()
                await cluster.list_vms(ref)
                if not sent and all(it.current for it in cache._informers.values()):
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
def ref(side: Implementation) -> ClusterRef:
    """A LubanCluster that exists."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "LubanCluster",
        "metadata": {"name": "luban", "namespace": side.namespace},
        "spec": {
            "hosts": [{"name": "host-b", "uri": "test:///default"}],
            "template": {"spec": {"image": {"volume": "web.qcow2"}}},
        },
    }
    return ClusterRef(side.namespace, "luban", side.create(body)["metadata"]["uid"])


def vm_body(ref: ClusterRef, name: str, **metadata: Any) -> Body:
    """A LubanVM with our finalizer; only what has no default."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "LubanVM",
        "metadata": {
            "name": name,
            "labels": {names.LABEL_CLUSTER: ref.name},
            "finalizers": [names.FINALIZER_VM],
            **metadata,
        },
        "spec": {
            "clusterName": ref.name,
            "host": "host-b",
            "hostURI": "test:///default",
            "template": {"image": {"volume": "web.qcow2"}},
        },
    }


def owner_of(ref: ClusterRef) -> Body:
    """The reference that makes an object part of the LubanCluster."""
    owner = {"apiVersion": names.API_VERSION, "kind": "LubanCluster", "name": ref.name, "uid": ref.uid}
    return {**owner, "controller": True}


def found(side: Implementation, kind: str, name: str) -> Body:
    """An object that must be there."""
    body = side.find(kind, name)
    assert body is not None
    return body


async def test_a_control_plane_can_be_told_from_others(side: Implementation) -> None:
    mark = await side.cluster.plane()
    assert mark
    assert await side.cluster.plane() == mark


async def test_a_census_has_all_vms_and_clusters(side: Implementation, ref: ClusterRef) -> None:
    made = [await side.cluster.create_vm(ref, vm_body(ref, name)) for name in ("luban-a", "luban-b")]
    found = await side.cluster.census()
    assert {it["metadata"]["uid"] for it in made} <= found.vms
    assert (ref.namespace, ref.name) in found.clusters
    await side.cluster.delete_vm(ref, "luban-a")
    await side.cluster.release_vm(ref, "luban-a")
    assert made[0]["metadata"]["uid"] not in (await side.cluster.census()).vms


# LubanVMs


async def test_a_created_vm_is_listed_at_once(side: Implementation, ref: ClusterRef) -> None:
    created = await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    created["metadata"].pop("managedFields", None)
    assert [vm["metadata"] | {"managedFields": None} for vm in await side.cluster.list_vms(ref)] == [
        created["metadata"] | {"managedFields": None}
    ]
    vm = LubanVM.parse(created)
    assert vm.metadata.uid
    assert vm.metadata.resource_version
    assert vm.metadata.creation_timestamp
    assert vm.metadata.finalizers == (names.FINALIZER_VM,)
    assert "deletionTimestamp" not in created["metadata"]


async def test_defaults_are_those_of_the_models(side: Implementation, ref: ClusterRef) -> None:
    body = vm_body(ref, "luban-a")
    created = await side.cluster.create_vm(ref, body)
    assert created["spec"] == LubanVMSpec.model_validate(body["spec"]).wire()


async def test_a_status_given_at_creation_is_not_taken(side: Implementation, ref: ClusterRef) -> None:
    created = await side.cluster.create_vm(ref, {**vm_body(ref, "luban-a"), "status": {"phase": "Ready"}})
    assert "status" not in created


async def test_a_taken_name_is_a_conflict(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    with pytest.raises(Conflict, match="already exists") as caught:
        await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    assert caught.value.reason == "AlreadyExists"


async def test_a_refused_vm_names_the_field(side: Implementation, ref: ClusterRef) -> None:
    body = vm_body(ref, "luban-a")
    body["spec"]["template"]["port"] = 99999
    with pytest.raises(PermanentError, match="port") as caught:
        await side.cluster.create_vm(ref, body)
    assert caught.value.reason == "Invalid"
    assert await side.cluster.list_vms(ref) == []


async def test_only_the_clusters_own_vms_are_listed(side: Implementation, ref: ClusterRef) -> None:
    other = ClusterRef(ref.namespace, "other")
    for owner, name in ((ref, "luban-b"), (ref, "luban-a"), (other, "other-a")):
        await side.cluster.create_vm(owner, vm_body(owner, name))
    assert [vm["metadata"]["name"] for vm in await side.cluster.list_vms(ref)] == ["luban-a", "luban-b"]
    assert await side.cluster.list_vms(ClusterRef("no-such-namespace", "luban")) == []


async def test_a_deleted_vm_stays_until_it_is_released(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    await side.cluster.delete_vm(ref, "luban-a")
    (marked,) = await side.cluster.list_vms(ref)
    assert marked["metadata"]["deletionTimestamp"]
    await side.cluster.delete_vm(ref, "luban-a")
    (again,) = await side.cluster.list_vms(ref)
    assert again["metadata"]["deletionTimestamp"] == marked["metadata"]["deletionTimestamp"]
    await side.cluster.release_vm(ref, "luban-a")
    assert await side.cluster.list_vms(ref) == []


async def test_a_vm_without_finalizers_goes_at_once(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a", finalizers=[]))
    await side.cluster.delete_vm(ref, "luban-a")
    assert await side.cluster.list_vms(ref) == []


async def test_release_takes_away_our_finalizer_only(side: Implementation, ref: ClusterRef) -> None:
    finalizers = ["example.com/first", names.FINALIZER_VM, "example.com/last"]
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a", finalizers=finalizers))
    await side.cluster.delete_vm(ref, "luban-a")
    await side.cluster.release_vm(ref, "luban-a")
    await side.cluster.release_vm(ref, "luban-a")
    (vm,) = await side.cluster.list_vms(ref)
    assert vm["metadata"]["finalizers"] == ["example.com/first", "example.com/last"]


async def test_an_orphan_stays_without_finalizer_and_owner(side: Implementation, ref: ClusterRef) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-4000-9000-000000000000"}
    body = vm_body(ref, "luban-a", ownerReferences=[owner_of(ref), other])
    await side.cluster.create_vm(ref, body)
    await side.cluster.orphan_vm(ref, "luban-a")
    await side.cluster.orphan_vm(ref, "luban-a")
    (vm,) = await side.cluster.list_vms(ref)
    assert not vm["metadata"].get("finalizers")
    assert [owner["kind"] for owner in vm["metadata"]["ownerReferences"]] == ["ConfigMap"]
    assert vm["metadata"]["labels"] == body["metadata"]["labels"]


async def test_a_vm_without_an_owner_is_adopted(side: Implementation, ref: ClusterRef) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "00000000-0000-4000-9000-000000000000"}
    marks = {"annotations": {"note": "kept"}, "ownerReferences": [other], "finalizers": ["example.com/first"]}
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a", **marks))
    for _ in range(2):
        await side.cluster.adopt_vm(ref, "luban-a")
    (vm,) = await side.cluster.list_vms(ref)
    assert vm["metadata"]["ownerReferences"] == [other, {**owner_of(ref), "blockOwnerDeletion": True}]
    assert vm["metadata"]["finalizers"] == ["example.com/first", names.FINALIZER_VM]
    assert vm["metadata"]["annotations"] == {"note": "kept", names.ANNOTATION_ADOPTED: "true"}


async def test_what_another_owns_or_is_to_go_is_not_adopted(side: Implementation, ref: ClusterRef) -> None:
    theirs = {**owner_of(ref), "uid": "00000000-0000-4000-9000-000000000000"}
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a", ownerReferences=[theirs]))
    await side.cluster.create_vm(ref, vm_body(ref, "luban-b"))
    await side.cluster.delete_vm(ref, "luban-b")
    for name in ("luban-a", "luban-b", "luban-c"):
        await side.cluster.adopt_vm(ref, name)
    owned, leaving = await side.cluster.list_vms(ref)
    assert owned["metadata"]["ownerReferences"] == [theirs]
    assert not leaving["metadata"].get("ownerReferences")


async def test_what_a_vm_is_for_may_change_and_nothing_else(side: Implementation, ref: ClusterRef) -> None:
    before = await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    assert before["spec"]["role"] == "Serving"
    for role in ("Warm", "Warm", "Serving"):
        await side.cluster.assign_vm(ref, "luban-a", role)
        (vm,) = await side.cluster.list_vms(ref)
        assert vm["spec"] == before["spec"] | {"role": role}


async def test_what_is_gone_is_no_error(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.assign_vm(ref, "luban-a", "Warm")
    await side.cluster.delete_vm(ref, "luban-a")
    await side.cluster.release_vm(ref, "luban-a")
    await side.cluster.orphan_vm(ref, "luban-a")
    await side.cluster.patch_vm_status(ref, "luban-a", LubanVMStatus().wire())
    await side.cluster.delete_config_map(ref, "luban-balancer-0")
    await side.cluster.disown_config_map(ref, "luban-balancer-0")
    await side.cluster.patch_cluster_status(ClusterRef(ref.namespace, "gone"), LubanClusterStatus().wire())


# Status


async def test_a_status_is_replaced_whole(side: Implementation, ref: ClusterRef) -> None:
    created = await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    first = {
        "phase": "Booting",
        "reason": "Started",
        "balancers": ["luban-balancer-0", "luban-balancer-1"],
        "transitions": [{"phase": "Pending", "at": "2026-01-31T12:00:00.250000Z"}],
    }
    await side.cluster.patch_vm_status(ref, "luban-a", first)
    (vm,) = await side.cluster.list_vms(ref)
    assert vm["status"] == first
    await side.cluster.patch_vm_status(ref, "luban-a", {"phase": "Ready", "balancers": ["luban-balancer-1"]})
    (vm,) = await side.cluster.list_vms(ref)
    assert vm["status"] == {"phase": "Ready", "balancers": ["luban-balancer-1"]}
    assert vm["spec"] == created["spec"]
    assert vm["metadata"]["generation"] == created["metadata"]["generation"] == 1


async def test_the_same_status_again_is_no_new_version(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    await side.cluster.patch_vm_status(ref, "luban-a", {"phase": "Ready"})
    (before,) = await side.cluster.list_vms(ref)
    await side.cluster.patch_vm_status(ref, "luban-a", {"phase": "Ready"})
    (after,) = await side.cluster.list_vms(ref)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    await side.cluster.patch_vm_status(ref, "luban-a", {"phase": "Failed"})
    (after,) = await side.cluster.list_vms(ref)
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]


async def test_an_unknown_phase_is_refused(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    with pytest.raises(PermanentError, match="phase") as caught:
        await side.cluster.patch_vm_status(ref, "luban-a", {"phase": "Sleeping"})
    assert caught.value.reason == "Invalid"


async def test_the_clusters_status_comes_back_as_it_was_written(side: Implementation, ref: ClusterRef) -> None:
    status = full_status()
    await side.cluster.patch_cluster_status(ref, status.wire())
    assert LubanCluster.parse(found(side, "LubanCluster", "luban")).status == status
    # Sessions are not known any more: the old number must not stay.
    unknown = status.model_copy(update={"sessions": None, "decision": None})
    await side.cluster.patch_cluster_status(ref, unknown.wire())
    assert LubanCluster.parse(found(side, "LubanCluster", "luban")).status == unknown


async def test_a_status_that_was_made_from_an_older_version_is_a_conflict(
    side: Implementation, ref: ClusterRef
) -> None:
    """One that was paused while another took over must not overwrite what that one wrote."""
    created = await side.cluster.create_vm(ref, vm_body(ref, "luban-a"))
    old = created["metadata"]["resourceVersion"]
    await side.cluster.patch_vm_status(ref, "luban-a", {"phase": "Booting"}, version=old)
    with pytest.raises(Conflict):
        await side.cluster.patch_vm_status(ref, "luban-a", {"phase": "Failed"}, version=old)
    assert [vm["status"] for vm in await side.cluster.list_vms(ref)] == [{"phase": "Booting"}]


async def test_the_clusters_status_too(side: Implementation, ref: ClusterRef) -> None:
    body = await side.cluster.read_cluster(ref)
    assert body is not None
    old = body["metadata"]["resourceVersion"]
    new = await side.cluster.patch_cluster_status(ref, LubanClusterStatus(replicas=1).wire(), version=old)
    assert new != old
    with pytest.raises(Conflict):
        await side.cluster.patch_cluster_status(ref, LubanClusterStatus(replicas=7).wire(), version=old)
    assert await side.cluster.patch_cluster_status(ref, LubanClusterStatus(replicas=2).wire(), version=new)
    assert found(side, "LubanCluster", "luban")["status"]["replicas"] == 2


async def test_a_cluster_is_read_unless_another_has_its_name(side: Implementation, ref: ClusterRef) -> None:
    read = await side.cluster.read_cluster(ref)
    assert read is not None
    assert read["spec"] == found(side, "LubanCluster", "luban")["spec"]
    assert await side.cluster.read_cluster(ClusterRef(ref.namespace, "luban"))
    assert await side.cluster.read_cluster(ClusterRef(ref.namespace, "luban", "another-uid")) is None
    assert await side.cluster.read_cluster(ClusterRef(ref.namespace, "gone")) is None
    assert await side.cluster.patch_cluster_status(ClusterRef(ref.namespace, "gone"), {}, version="1") == ""


def full_status() -> LubanClusterStatus:
    """A status with every field set."""
    at = "2026-01-31T12:00:00.250000Z"
    return LubanClusterStatus.model_validate(
        {
            "observedGeneration": 3,
            "phase": "Degraded",
            "replicas": 3,
            "selector": "luban.cloud/cluster=luban",
            "vms": {"desired": 4, "serving": 3, "starting": 1, "draining": 1, "failed": 1},
            "summary": "3/4",
            "hosts": [{"name": "host-b", "reachable": False, "vms": 2, "message": "no answer"}],
            "balancers": [{"name": "luban-balancer-0", "ready": True, "members": 3, "applied": "7", "message": "fine"}],
            "balancerSummary": "1/1",
            "sessions": 151,
            "decision": {
                "at": at,
                "verdict": "Hold",
                "reason": "NotAllAboveUpper",
                "message": "luban-a is at 41 %",
                "inputs": [{"vm": "luban-a", "sessions": 41, "percent": 41}, {"vm": "luban-b"}],
                "eligibleAt": at,
            },
            "lastScaleTime": at,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "Unknown",
                    "reason": "Asking",
                    "message": "wait",
                    "lastTransitionTime": at,
                    "observedGeneration": 3,
                }
            ],
        }
    )


# ConfigMaps


async def test_a_config_map_is_created_and_replaced(side: Implementation, ref: ClusterRef) -> None:
    assert await side.cluster.read_config_map(ref, "luban-balancer-0") is None
    await side.cluster.apply_config_map(ref, "luban-balancer-0", {"a": "1", "b": "2"}, {"app": "luban"})
    assert await side.cluster.read_config_map(ref, "luban-balancer-0") == {"a": "1", "b": "2"}
    metadata = found(side, "ConfigMap", "luban-balancer-0")["metadata"]
    assert metadata["labels"] == {"app": "luban", names.LABEL_CLUSTER: "luban"}
    assert metadata["ownerReferences"] == [owner_of(ref)]
    await side.cluster.apply_config_map(ref, "luban-balancer-0", {"b": "3"}, {})
    assert await side.cluster.read_config_map(ref, "luban-balancer-0") == {"b": "3"}
    assert found(side, "ConfigMap", "luban-balancer-0")["metadata"]["labels"] == {names.LABEL_CLUSTER: "luban"}


async def test_the_same_config_map_again_is_no_new_version(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.apply_config_map(ref, "luban-balancer-0", {"a": "1"}, {})
    before = found(side, "ConfigMap", "luban-balancer-0")
    await side.cluster.apply_config_map(ref, "luban-balancer-0", {"a": "1"}, {})
    assert found(side, "ConfigMap", "luban-balancer-0") == before


async def test_a_config_map_can_be_left_without_an_owner(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.apply_config_map(ref, "luban-balancer-0", {"a": "1"}, {})
    for _ in range(2):
        await side.cluster.disown_config_map(ref, "luban-balancer-0")
    left = found(side, "ConfigMap", "luban-balancer-0")
    assert not left["metadata"].get("ownerReferences")
    assert left["metadata"]["labels"] == {names.LABEL_CLUSTER: "luban"}
    assert left["data"] == {"a": "1"}
    await side.cluster.apply_config_map(ref, "luban-balancer-0", {"a": "1"}, {})
    assert found(side, "ConfigMap", "luban-balancer-0")["metadata"]["ownerReferences"] == [owner_of(ref)]


async def test_a_config_map_is_deleted(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.apply_config_map(ref, "luban-balancer-0", {"a": "1"}, {})
    await side.cluster.delete_config_map(ref, "luban-balancer-0")
    assert await side.cluster.read_config_map(ref, "luban-balancer-0") is None


async def test_a_config_map_that_is_not_ours_is_left_alone(side: Implementation, ref: ClusterRef) -> None:
    metadata = {"name": "luban-balancer-0", "namespace": side.namespace}
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"theirs": "1"}}
    side.create(theirs)
    with pytest.raises(PermanentError, match=f"{side.namespace}/luban-balancer-0") as caught:
        await side.cluster.apply_config_map(ref, "luban-balancer-0", {"a": "1"}, {})
    assert caught.value.reason == "ForeignConfigMap"
    await side.cluster.delete_config_map(ref, "luban-balancer-0")
    assert await side.cluster.read_config_map(ref, "luban-balancer-0") == {"theirs": "1"}
    assert await side.cluster.read_config_map(ref, "luban-balancer-0", ours=True) is None


async def test_a_config_map_that_somebody_holds_is_not_ours_once_it_is_deleted(
    side: Implementation, ref: ClusterRef
) -> None:
    metadata = {
        "name": "luban-balancer-0",
        "namespace": side.namespace,
        "labels": {names.LABEL_CLUSTER: "luban"},
        "finalizers": ["example.com/backup"],
    }
    side.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}})
    assert await side.cluster.read_config_map(ref, "luban-balancer-0", ours=True) == {"a": "1"}
    for _ in range(2):
        await side.cluster.delete_config_map(ref, "luban-balancer-0")
    assert await side.cluster.read_config_map(ref, "luban-balancer-0", ours=True) is None
    assert await side.cluster.read_config_map(ref, "luban-balancer-0") == {"a": "1"}


# Secrets, Leases, Events


async def test_a_secret_is_read_as_text(side: Implementation, ref: ClusterRef) -> None:
    side.secret("luban-userdata", "userdata", "#cloud-config\nhostname: größe\n")
    assert await side.cluster.read_secret(ref, "luban-userdata", "userdata") == "#cloud-config\nhostname: größe\n"


async def test_a_missing_secret_is_named(side: Implementation, ref: ClusterRef) -> None:
    side.secret("luban-userdata", "userdata", "x")
    with pytest.raises(PermanentError, match=f"{side.namespace}/none") as caught:
        await side.cluster.read_secret(ref, "none", "userdata")
    assert caught.value.reason == "SecretNotFound"
    with pytest.raises(PermanentError, match="has no key other") as caught:
        await side.cluster.read_secret(ref, "luban-userdata", "other")
    assert caught.value.reason == "SecretKeyNotFound"


async def test_an_agents_address_is_in_its_lease(side: Implementation, ref: ClusterRef) -> None:
    assert await side.cluster.balancer_endpoint(ref, "luban-balancer-0") is None
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    silent = {"name": "luban-balancer-0", "namespace": side.namespace}
    side.create({**lease, "metadata": silent})
    assert await side.cluster.balancer_endpoint(ref, "luban-balancer-0") is None
    annotations = {names.ANNOTATION_AGENT_ENDPOINT: "http://10.0.0.7:9180"}
    speaking = {"name": "luban-balancer-1", "namespace": side.namespace, "annotations": annotations}
    side.create({**lease, "metadata": speaking})
    assert await side.cluster.balancer_endpoint(ref, "luban-balancer-1") == "http://10.0.0.7:9180"


async def test_an_event_is_recorded_once(side: Implementation, ref: ClusterRef) -> None:
    async def say(message: str) -> None:
        await side.cluster.event(
            ref, kind="LubanCluster", name="luban", uid=ref.uid, type_="Normal", reason="ScaleUp", message=message
        )

    await say("two became three")
    await say("two became three")
    await say("three became four")
    assert sorted(side.events()) == [
        ("LubanCluster", "luban", "Normal", "ScaleUp", "three became four", 1),
        ("LubanCluster", "luban", "Normal", "ScaleUp", "two became three", 2),
    ]


async def test_a_series_is_one_event_with_a_count_and_the_latest_words(side: Implementation, ref: ClusterRef) -> None:
    for message, times in (("12 MiB left", 1), ("11 MiB left", 4), ("10 MiB left", 8)):
        await side.cluster.event(
            ref,
            kind="LubanVM",
            name="luban-a",
            uid="u",
            type_="Warning",
            reason="StoragePoolFull",
            message=message,
            series="EnsureDomain",
            times=times,
        )
    assert side.events() == [("LubanVM", "luban-a", "Warning", "StoragePoolFull", "10 MiB left", 13)]


async def test_a_long_event_is_cut(side: Implementation, ref: ClusterRef) -> None:
    await side.cluster.event(
        ref, kind="LubanVM", name="luban-a", uid="u", type_="Warning", reason="Failed", message="ä" * 5000
    )
    assert side.events() == [("LubanVM", "luban-a", "Warning", "Failed", "ä" * 1024, 1)]


@pytest.mark.integration
async def test_a_secret_that_is_not_text_is_refused(
    luban_base: ControlPlane, operator_kubeconfig: Path, namespace: str
) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "binary", "namespace": namespace},
        "data": {"userdata": base64.b64encode(b"\xff\xfe").decode()},
    }
    luban_base.kubectl("create", "-f", "-", stdin=json.dumps(secret))
    cluster = await connect(str(operator_kubeconfig))
    with pytest.raises(PermanentError, match="not UTF-8") as caught:
        await cluster.read_secret(ClusterRef(namespace, "luban"), "binary", "userdata")
    assert caught.value.reason == "SecretNotText"
    await cluster.close()


async def test_vms_are_found_by_their_host(side: Implementation, ref: ClusterRef) -> None:
    """Of the operator's namespaces; others may use the same API server."""
    here, there = vm_body(ref, "here"), vm_body(ref, "there")
    there["spec"]["host"] = "host-c"
    for body in (here, there):
        await side.cluster.create_vm(ref, body)
    found = [it["metadata"]["name"] for it in await side.cluster.list_vms_on("host-c") if belongs(it, side)]
    assert found == ["there"]
    await side.cluster.release_vm(ref, "there")
    await side.cluster.delete_vm(ref, "there")
    async with asyncio.timeout(30):
        async for _ in polls():
            if not [it for it in await side.cluster.list_vms_on("host-c") if belongs(it, side)]:
                break


async def polls() -> AsyncIterator[None]:
    """Now, and again each twentieth of a second."""
    while True:
        yield
        await asyncio.sleep(0.05)


def belongs(body: Body, side: Implementation) -> bool:
    return bool(body["metadata"]["namespace"] == side.namespace)


@pytest.mark.parametrize("side", ["fake", pytest.param("watching", marks=pytest.mark.integration)], indirect=True)
async def test_who_follows_vms_is_told_of_those_there_are_and_of_what_becomes_of_them(
    side: Implementation, ref: ClusterRef
) -> None:
    await side.cluster.create_vm(ref, vm_body(ref, "first"))
    told: list[tuple[str, bool, bool]] = []

    def take(body: Body, gone: bool) -> None:
        if belongs(body, side):
            told.append((body["metadata"]["name"], bool(body["metadata"].get("deletionTimestamp")), gone))

    async def until_told(*what: tuple[str, bool, bool]) -> None:
        """Until any of these was told."""
        async with asyncio.timeout(30):
            async for _ in polls():
                if set(told).intersection(what):
                    return

    await side.cluster.follow_vms(take)
    await until_told(("first", False, False))
    await side.cluster.create_vm(ref, vm_body(ref, "second"))
    await until_told(("second", False, False))
    await side.cluster.delete_vm(ref, "first")
    await until_told(("first", True, False))
    await side.cluster.release_vm(ref, "first")
    await until_told(("first", True, True), ("first", False, True))
    await side.cluster.begin_anew()
    told.clear()
    await side.cluster.create_vm(ref, vm_body(ref, "third"))
    assert told == []


# What stands in front of the VMs

OBJECTS = 7
"""So many there are; the last is the StatefulSet."""


def in_namespace(side: Implementation, place: int) -> Body:
    """One of them."""
    program = AgentProgram("luban-cloud", names.OPERATOR_USER)
    bodies = balancer_objects(side.namespace, "luban", Balancer(), 2, program)
    assert len(bodies) == OBJECTS
    return bodies[place]


async def test_objects_of_balancers_are_made_and_owned(side: Implementation, ref: ClusterRef) -> None:
    for place in range(OBJECTS):
        body = in_namespace(side, place)
        await side.cluster.apply_object(ref, body)
        metadata = found(side, body["kind"], body["metadata"]["name"])["metadata"]
        assert metadata["ownerReferences"] == [owner_of(ref)]
        assert metadata["labels"][names.LABEL_CLUSTER] == "luban"
    stateful = await side.cluster.read_balancer_set(ref, "luban-balancer")
    assert stateful is not None
    assert stateful["spec"]["replicas"] == 2
    assert names.ANNOTATION_OBJECTS in stateful["metadata"]["annotations"]


@pytest.mark.parametrize("place", range(OBJECTS))
async def test_an_object_applied_again_stays_the_same(side: Implementation, ref: ClusterRef, place: int) -> None:
    body = in_namespace(side, place)
    # Nobody may bind a Role that is not there.
    for earlier in range(place + 1):
        await side.cluster.apply_object(ref, in_namespace(side, earlier))
    before = found(side, body["kind"], body["metadata"]["name"])["metadata"]["resourceVersion"]
    await side.cluster.apply_object(ref, body)
    assert found(side, body["kind"], body["metadata"]["name"])["metadata"]["resourceVersion"] == before


async def test_an_object_is_changed(side: Implementation, ref: ClusterRef) -> None:
    body = in_namespace(side, OBJECTS - 1)
    await side.cluster.apply_object(ref, body)
    await side.cluster.apply_object(ref, {**body, "spec": {**body["spec"], "replicas": 1}})
    stateful = await side.cluster.read_balancer_set(ref, "luban-balancer")
    assert stateful is not None
    assert stateful["spec"]["replicas"] == 1


async def test_an_object_of_somebody_else_is_left_alone(side: Implementation, ref: ClusterRef) -> None:
    metadata = {"name": "luban-balancer", "namespace": side.namespace}
    side.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    with pytest.raises(PermanentError, match=f"{side.namespace}/luban-balancer") as caught:
        await side.cluster.apply_object(ref, in_namespace(side, 0))
    assert caught.value.reason == "ForeignObject"
    assert "labels" not in found(side, "ServiceAccount", "luban-balancer")["metadata"]


async def test_an_object_is_disowned(side: Implementation, ref: ClusterRef) -> None:
    body = in_namespace(side, 0)
    await side.cluster.apply_object(ref, body)
    for _ in range(2):
        await side.cluster.disown_object(ref, "ServiceAccount", "luban-balancer")
    assert not found(side, "ServiceAccount", "luban-balancer")["metadata"].get("ownerReferences")
    await side.cluster.disown_object(ref, "Role", "luban-balancer")


async def test_the_lease_of_a_balancer_is_deleted_and_no_other(side: Implementation, ref: ClusterRef) -> None:
    for name, labels in (("luban-balancer-0", {names.LABEL_CLUSTER: "luban"}), ("luban-balancer-1", {})):
        metadata = {"name": name, "namespace": side.namespace, "labels": labels}
        side.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
        for _ in range(2):
            await side.cluster.delete_lease(ref, name)
    assert side.find("Lease", "luban-balancer-0") is None
    assert side.find("Lease", "luban-balancer-1") is not None


async def test_a_set_that_is_not_there_or_not_ours(side: Implementation, ref: ClusterRef) -> None:
    assert await side.cluster.read_balancer_set(ref, "luban-balancer") is None
