"""Which balancers a cluster has, by what its status told last, and what the operator makes for them."""

from __future__ import annotations

from luban.api.cluster import LubanCluster
from luban.api.names import ANNOTATION_OBJECTS, balancer_name, ordinal_of
from luban.core.balancers import BalancerObjects
from luban.core.model import ClusterRef
from luban.errors import PermanentError
from luban.ports import Cluster
from luban.render.balancer_objects import AgentProgram, Body, balancer_objects, objects_name
from luban.runtime.remains import Gone, Remains


def tier_size(cluster: LubanCluster) -> int:
    """How many balancers there should be, as was decided last."""
    tier = cluster.status.tier
    return tier.desired if tier is not None and tier.desired else cluster.spec.balancer.replicas.min


def balancers_of(cluster: LubanCluster) -> list[str]:
    """Names of the balancers that there should be, and of those that are left of more: as the status told last."""
    name, prefix = cluster.metadata.name, balancer_name(cluster.metadata.name, 0)[:-1]
    told = (ordinal_of(it.name) for it in cluster.status.balancers if it.name.startswith(prefix))
    return [balancer_name(name, it) for it in sorted({*range(tier_size(cluster)), *told})]


def objects_of(cluster: LubanCluster, replicas: int, program: AgentProgram) -> tuple[Body, ...]:
    """What the operator makes for the cluster's balancers."""
    metadata = cluster.metadata
    return balancer_objects(metadata.namespace, metadata.name, cluster.spec.balancer, replicas, program)


async def look_at_objects(
    api: Cluster, cluster: LubanCluster, ref: ClusterRef, program: AgentProgram | None, written: str
) -> BalancerObjects | None:
    """What there is of the balancers' Pods, and what there should be. `written`: version that this process wrote last;
    what it has never written may lack anything but the StatefulSet."""
    if program is None or isinstance(cluster, Gone | Remains):
        return None
    wanted = objects_of(cluster, 1, program)[-1]["metadata"]["annotations"][ANNOTATION_OBJECTS]
    try:
        found = await api.read_balancer_set(ref, objects_name(ref.name))
    except PermanentError:
        # A missing right must not keep the VMs waiting: who tries to make them is refused, too, and tells it.
        found = None
    if found is None or written != wanted:
        return BalancerObjects(wanted)
    annotations = found["metadata"].get("annotations") or {}
    return BalancerObjects(wanted, annotations.get(ANNOTATION_OBJECTS, ""), int(found["spec"].get("replicas", 1)))
