"""A LubanCluster whose spec cannot be read and that is to be deleted: what can be known of it.

Whatever was made for it says itself where it is, so that the deletion needs no spec: LubanVMs name their host and their
pool, and the balancer's ConfigMap has its settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from luban.api.cluster import LubanCluster, LubanClusterSpec
from luban.api.cluster_status import LubanClusterStatus
from luban.api.common import ObjectMeta
from luban.api.reading import read_leniently
from luban.render.balancer import settings_of
from luban.runtime.records import awaits_us, owner_of

_ANY_HOST = [{"name": "none", "uri": "test:///default"}]
_ANY_TEMPLATE = {"spec": {"image": {"volume": "none"}}}


class Remains(LubanCluster):
    """A LubanCluster of which nothing is to be made any more. Its spec holds what could be read, else defaults."""


class Gone(Remains):
    """A LubanCluster that is no more, of which LubanVMs are left: somebody took its finalizer off."""


def gone_owner_of(body: Mapping[str, Any], now: str) -> Gone:
    """The LubanCluster that a LubanVM was of. `now` (RFC 3339) stands for when it went."""
    metadata = ObjectMeta(
        name=str(body["spec"]["clusterName"]),
        namespace=str(body["metadata"]["namespace"]),
        uid=owner_of(body),
        deletion_timestamp=now,
    )
    spec = LubanClusterSpec.model_validate({"hosts": _ANY_HOST, "template": _ANY_TEMPLATE})
    return Gone.model_construct(
        metadata=metadata, spec=spec.model_copy(update={"hosts": ()}), status=LubanClusterStatus()
    )


def is_left_of(body: Mapping[str, Any], cluster: ObjectMeta) -> bool:
    """Whether a LubanVM is left of a cluster that is no more. Without an owner, only what is to be deleted is."""
    return owner_of(body) == cluster.uid and (bool(cluster.uid) or awaits_us(body))


def remains_of(body: Mapping[str, Any]) -> Remains:
    """What is known of a LubanCluster whatever its spec says. Never raises for an object that the API server keeps."""
    status, _ = read_leniently(LubanClusterStatus, body.get("status"))
    return Remains.model_construct(
        metadata=ObjectMeta.model_validate(body["metadata"]), spec=_readable_spec(body), status=status
    )


def deletion_policy_of(body: Mapping[str, Any]) -> str:
    """spec.deletionPolicy, whatever else the spec says. What is not understood must not destroy anything: Orphan."""
    spec = body.get("spec")
    policy = spec.get("deletionPolicy", "Delete") if isinstance(spec, dict) else "Delete"
    return "Delete" if policy == "Delete" else "Orphan"


def _readable_spec(body: Mapping[str, Any]) -> LubanClusterSpec:
    """The parts of the spec that can be read; without hosts, if those cannot."""
    name = ObjectMeta.model_validate(body["metadata"]).name
    for candidate, hosts_known in _candidates(body.get("spec")):
        try:
            spec, _ = read_leniently(LubanClusterSpec, candidate)
            settings_of(name, spec)
        except ValueError:
            continue
        known = {} if hosts_known else {"hosts": ()}
        return spec.model_copy(update={**known, "deletion_policy": deletion_policy_of(body)})
    raise AssertionError("the last candidate is made here, and good")


def _candidates(spec: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    """Less and less of a spec, and whether its hosts are in it."""
    given: dict[str, Any] = dict(spec) if isinstance(spec, dict) else {}
    for template in ({}, {"template": _ANY_TEMPLATE}):
        for kept in (given, {key: given[key] for key in given if key in ("hosts", "template")}):
            yield {**kept, **template}, True
            yield {**kept, **template, "hosts": _ANY_HOST}, False
    yield {"hosts": _ANY_HOST, "template": _ANY_TEMPLATE}, False
