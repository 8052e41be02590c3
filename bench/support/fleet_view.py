"""How far a fleet is, as the API server has it; and guests and balancers that take on at once what is written there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client import ApiClient, CoreV1Api, CustomObjectsApi

from bench.support.fleet_objects import Size, agent_of, cluster_name
from bench.support.guests import Guests, report_of
from bench.support.mirror import Listen, Mirror, nobody
from lab.datacentre import NAMESPACE
from lab.paths import Layout
from luban.api import names
from luban.core.model import ClusterRef
from luban.render.balancer import parse_balancer_json

DOCUMENT = "balancer.json"


@dataclass(frozen=True)
class Look:
    """All objects at one moment."""

    vms: list[dict[str, Any]]
    clusters: list[dict[str, Any]]

    def phases(self) -> Counter[str]:
        """LubanVMs by phase."""
        return Counter(vm.get("status", {}).get("phase", "Pending") for vm in self.vms)

    def unready(self) -> list[dict[str, Any]]:
        """LubanClusters that do not say Ready."""
        return [it for it in self.clusters if it.get("status", {}).get("phase") != "Ready"]

    def is_ready(self, size: Size) -> bool:
        """Whether all are there, and nothing is missing."""
        return self.phases() == {"Ready": size.all_vms} and len(self.clusters) == size.clusters and not self.unready()

    def complete(self, size: Size) -> int:
        """Clusters all of whose VMs are Ready."""
        ready = Counter(vm["spec"]["clusterName"] for vm in self.vms if vm.get("status", {}).get("phase") == "Ready")
        return sum(count == size.vms for count in ready.values())

    def serves(self, size: Size, without: str = "") -> bool:
        """Whether all VMs are Ready, and none has the uid `without`."""
        return self.phases() == {"Ready": size.all_vms} and all(vm["metadata"]["uid"] != without for vm in self.vms)

    def words(self) -> str:
        """The same for people."""
        return f"VMs: {dict(self.phases())}, clusters not ready: {len(self.unready())}"

    def why(self) -> str:
        """What the first cluster that is not ready says."""
        return "; ".join(self._complaints()) or "everything is ready, but the operator goes on writing"

    def _complaints(self) -> Iterator[str]:
        for cluster in self.unready()[:1]:
            status = cluster.get("status", {})
            yield f"{cluster['metadata']['name']}: {status.get('phase', 'no status')}"
            for condition in status.get("conditions", []):
                if condition["status"] != "True" and condition.get("message"):
                    yield f"{condition['type']}={condition['status']}: {condition['message']}"


class View:
    """Follows LubanClusters, LubanVMs and ConfigMaps."""

    def __init__(self, layout: Layout, size: Size, guests: Guests, client: ApiClient, listen: Listen) -> None:
        """`listen`: told of each change of a LubanVM."""
        self._guests = guests
        self._listen = listen
        self._agents = {
            names.balancer_name(cluster_name(it), 0): (cluster_name(it), agent_of(layout, it))
            for it in range(size.clusters)
        }
        ours, theirs = CustomObjectsApi(client), CoreV1Api(client)
        watch = ours.list_namespaced_custom_object_without_preload_content
        kinds = names.GROUP, names.VERSION, NAMESPACE
        self._vms = Mirror(watch, (*kinds, names.VMS), self._boot)
        self._clusters = Mirror(watch, (*kinds, names.CLUSTERS), nobody)
        maps = theirs.list_namespaced_config_map_without_preload_content
        self._maps = Mirror(maps, (NAMESPACE,), self._take_on)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """To be run, all at once."""
        return self._vms, self._clusters, self._maps

    def look(self) -> Look:
        """As it is now."""
        return Look(list(self._vms.objects.values()), list(self._clusters.objects.values()))

    async def _boot(self, event: str, vm: dict[str, Any]) -> None:
        """A guest answers as soon as its address is planned: its domain alone decides when it is asked."""
        await self._guests.listen([(vm["spec"]["address"], vm["spec"]["template"]["port"])])
        await self._listen(event, vm)

    async def _take_on(self, _event: str, config_map: dict[str, Any]) -> None:
        """The balancer does what its ConfigMap says."""
        name, text = config_map["metadata"]["name"], (config_map.get("data") or {}).get(DOCUMENT)
        if name in self._agents and text:
            cluster, endpoint = self._agents[name]
            report = report_of(ClusterRef(NAMESPACE, cluster), name, parse_balancer_json(text))
            self._guests.reports[endpoint] = report
