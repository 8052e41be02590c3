"""`python -m lab.balancers`: what Kubernetes' own controllers and kubelets would do for the balancers, on this machine.

It follows the StatefulSets that the operator makes: for each replica a Pod object, an address of its own, and httpd
with its agent, started with what the Pod's template says. A program that ended is started again; Pods above the number
are ended first and removed then; what belongs to a LubanCluster that is gone is collected.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from lab.binaries import ensure_binaries
from lab.controlplane import ControlPlane
from lab.datacentre import CLUSTER, NAMESPACE, ROOT, luban
from lab.paths import Layout
from lab.process import Daemon, LabError
from luban.api.names import API_VERSION, GROUP, LABEL_CLUSTER, VERSION, balancer_name

log = logging.getLogger("lab.balancers")

POLL_SECONDS = 0.5
FIRST_OCTET, LAST_OCTET = 20, 99
"""Of the addresses of balancers, but for the sample's first one, which has the lab's own."""
NODES = ("host-b", "host-c")
STOP_SECONDS = "5"
"""Shorter than the template says: nobody waits so long for a lab to go down."""
Body = dict[str, Any]


@dataclass(frozen=True)
class Seat:
    """One replica of a StatefulSet."""

    namespace: str
    cluster: str
    index: int

    @property
    def name(self) -> str:
        """Of the Pod, and of the balancer."""
        return balancer_name(self.cluster, self.index)

    def daemon(self, layout: Layout) -> Daemon:
        """The agent, which starts httpd."""
        if (self.namespace, self.cluster, self.index) == (NAMESPACE, CLUSTER, 0):
            return Daemon("balancer-agent", layout.state)
        return Daemon(f"balancer-agent-{self.namespace}-{self.name}", layout.state)


class Runner:
    """Follows the StatefulSets of one lab."""

    def __init__(self, layout: Layout, plane: ControlPlane) -> None:
        self._layout, self._plane = layout, plane
        api = config.new_client_from_config(str(layout.admin_kubeconfig))  # type: ignore[no-untyped-call]
        self._core, self._apps = client.CoreV1Api(api), client.AppsV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._workers = ThreadPoolExecutor(max_workers=16)
        self._ending: set[Seat] = set()

    def follow(self, stopped: threading.Event) -> None:
        """Until `stopped`; the balancers run on."""
        while not stopped.wait(POLL_SECONDS):
            try:
                self._look()
            except (ApiException, LabError, OSError) as error:
                log.warning("not done, trying again: %s", error)

    def _look(self) -> None:
        sets = self._items(self._apps.list_stateful_set_for_all_namespaces)
        alive = {it["metadata"]["uid"] for it in self._clusters()}
        orphaned = [it for it in sets if (owner := _owner(it)) is not None and owner not in alive]
        wanted = {seat: it for it in sets if it not in orphaned for seat in _seats(it)}
        pods: dict[Seat, Body] = {_seat_of(it): it for it in self._items(self._core.list_pod_for_all_namespaces)}
        for seat in pods.keys() - wanted.keys() - self._ending:
            self._ending.add(seat)
            self._workers.submit(self._end, seat)
        for seat, stateful_set in wanted.items():
            if seat not in self._ending:
                self._keep(seat, stateful_set, pods)
        for it in orphaned:
            self._collect(it)

    def _items(self, listing: Any) -> list[Body]:
        """Objects of ours, as on the wire."""
        return list(_raw(listing(label_selector=LABEL_CLUSTER, _preload_content=False))["items"])

    def _clusters(self) -> list[Body]:
        found: Any = self._custom.list_cluster_custom_object(GROUP, VERSION, "lubanclusters")
        return list(found["items"])

    def _keep(self, seat: Seat, owner: Body, pods: dict[Seat, Body]) -> None:
        """Have it run."""
        if seat not in pods:
            pods[seat] = self._make_pod(seat, owner, pods)
        if seat.daemon(self._layout).pid() is None:
            self._start(seat, pods[seat])
            log.info("started: %s/%s on %s", seat.namespace, seat.name, pods[seat]["status"]["podIP"])

    def _make_pod(self, seat: Seat, owner: Body, pods: dict[Seat, Body]) -> Body:
        template = owner["spec"]["template"]
        reference = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": owner["metadata"]["name"]}
        metadata = {
            "name": seat.name,
            "labels": template["metadata"]["labels"],
            "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"], "controller": True}],
        }
        spec = {**template["spec"], "nodeName": NODES[seat.index % len(NODES)]}
        body: Any = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self._core.create_namespaced_pod(seat.namespace, body)
        address = self._free_address(seat, pods)
        patch = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        return _raw(self._core.patch_namespaced_pod_status(seat.name, seat.namespace, patch, _preload_content=False))

    def _free_address(self, seat: Seat, pods: dict[Seat, Body]) -> str:
        if (seat.namespace, seat.cluster, seat.index) == (NAMESPACE, CLUSTER, 0):
            return self._layout.httpd
        taken = {pod["status"].get("podIP") for pod in pods.values()}
        octets = range(FIRST_OCTET, LAST_OCTET + 1)
        free = (it for octet in octets if (it := self._layout.address(octet)) not in taken)
        return next(free)

    def _start(self, seat: Seat, pod: Body) -> None:
        """Start the agent as the container would be."""
        (container,) = pod["spec"]["containers"]
        address, folder = pod["status"]["podIP"], self._layout.state / "balancers" / seat.namespace / seat.name
        kubeconfig = folder / "kubeconfig"
        self._plane.service_account_kubeconfig(seat.namespace, pod["spec"]["serviceAccountName"], kubeconfig)
        environment = {it["name"]: it["value"] if "value" in it else _field(pod, it) for it in container["env"]}
        own = {
            "STATE_DIR": str(folder / "state"),
            "LISTEN_ADDRESS": address,
            "REPORT_ADDRESS": address,
            "ADVERTISE": f"http://{address}:9180",
            "STOP_SECONDS": STOP_SECONDS,
            "KUBECONFIG": str(kubeconfig),
        }
        environment |= {f"LUBAN_BALANCER_AGENT_{name}": value for name, value in own.items()}
        seat.daemon(self._layout).start([*luban(), *container["command"][1:]], env=environment, cwd=ROOT)

    def _end(self, seat: Seat) -> None:
        """As a kubelet does: the program first, then the object."""
        try:
            seat.daemon(self._layout).stop()
            self._core.delete_namespaced_pod(seat.name, seat.namespace, grace_period_seconds=0)
            log.info("ended: %s/%s", seat.namespace, seat.name)
        except (ApiException, OSError) as error:
            log.warning("not ended, trying again: %s/%s: %s", seat.namespace, seat.name, error)
        finally:
            self._ending.discard(seat)

    def _collect(self, owner: Body) -> None:
        """What a garbage collector would: objects whose LubanCluster is gone."""
        namespace, name = owner["metadata"]["namespace"], owner["metadata"]["name"]
        cluster = owner["metadata"]["labels"][LABEL_CLUSTER]
        kinds = "configmaps,leases,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets,statefulsets"
        listed = self._plane.kubectl("-n", namespace, "get", kinds, "-l", f"{LABEL_CLUSTER}={cluster}", "-o", "name")
        self._plane.kubectl("-n", namespace, "delete", *listed.split())
        log.info("collected: %s/%s", namespace, name)


def _raw(response: Any) -> Body:
    """An answer as it came, in the words of the API."""
    found: Body = json.loads(response.data)
    return found


def _owner(body: Body) -> str | None:
    """uid of the LubanCluster that owns it; None: none does."""
    owners = body["metadata"].get("ownerReferences") or []
    return next((it["uid"] for it in owners if (it["apiVersion"], it["kind"]) == (API_VERSION, "LubanCluster")), None)


def _seats(body: Body) -> Iterator[Seat]:
    metadata = body["metadata"]
    for index in range(body["spec"]["replicas"]):
        yield Seat(metadata["namespace"], metadata["labels"][LABEL_CLUSTER], index)


def _seat_of(pod: Body) -> Seat:
    metadata = pod["metadata"]
    return Seat(metadata["namespace"], metadata["labels"][LABEL_CLUSTER], int(metadata["name"].rpartition("-")[2]))


def _field(pod: Body, variable: Body) -> str:
    """What the downward API would say."""
    path = variable["valueFrom"]["fieldRef"]["fieldPath"]
    found: Any = pod
    for part in path.split("."):
        found = found[part]
    return str(found)


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    layout = Layout.from_environment()
    plane = ControlPlane(layout, ensure_binaries(lambda text: log.info("%s", text)))
    Runner(layout, plane).follow(stopped)


if __name__ == "__main__":
    main()
