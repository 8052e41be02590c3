"""What a LubanCluster needs in front of its VMs, as Kubernetes objects: Pods of httpd with an agent, what the agents
may do, the Services, and how many Pods may be away at once. All bear the cluster's label, and nothing else is theirs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luban.api import names
from luban.api.balancer import MOST_BALANCERS, Balancer
from luban.api.balancer_template import PodLimits, PodRequests, PodResources, Toleration

Body = dict[str, Any]

APP = "luban-balancer"
AGENT_PORT = 9180
STOP_MARGIN_SECONDS = 20
"""httpd must end, and the agent after it, before the kubelet ends them."""
LEAVE_SECONDS = 5
"""A Pod goes on serving for so long after it was told to end: nobody sends it new connections then."""
LONGEST_STOP_SECONDS = 3600
"""What the agent takes for --stop-seconds."""
USER = 10001
"""Of the image."""


@dataclass(frozen=True)
class AgentProgram:
    """What runs in the Pods."""

    image: str
    operator: str
    """User whose token opens the agents' reports."""


def objects_name(cluster: str) -> str:
    """Name of all objects but the Service that clients connect to: the Pods get their balancers' names by it."""
    return f"{cluster}-balancer"


def balancer_objects(
    namespace: str, cluster: str, balancer: Balancer, replicas: int, program: AgentProgram
) -> tuple[Body, ...]:
    """All of them, in the order in which they are made. The StatefulSet is the last: what bears its annotation is
    complete."""
    before = (
        _service_account(),
        _role(cluster),
        _role_binding(namespace, cluster),
        _headless(cluster, balancer),
        _front(cluster, balancer),
        _disruption_budget(cluster),
    )
    bodies = [_complete(body, namespace, cluster) for body in (*before, _stateful_set(cluster, balancer, program))]
    bodies[-1]["metadata"]["annotations"] = {names.ANNOTATION_OBJECTS: version_of(bodies)}
    bodies[-1]["spec"]["replicas"] = replicas
    return tuple(bodies)


def version_of(bodies: Sequence[Mapping[str, Any]]) -> str:
    """A short hash of objects."""
    return hashlib.blake2b(json.dumps(bodies, sort_keys=True).encode(), digest_size=8).hexdigest()


def _labels(cluster: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": APP, names.LABEL_CLUSTER: cluster}


def _complete(body: Body, namespace: str, cluster: str) -> Body:
    metadata = {"name": objects_name(cluster), "namespace": namespace, **body.get("metadata", {})}
    return {
        **body,
        "metadata": {**metadata, "labels": {**_labels(cluster), "app.kubernetes.io/part-of": "luban-cloud"}},
    }


def _service_account() -> Body:
    return {"apiVersion": "v1", "kind": "ServiceAccount"}


def _role(cluster: str) -> Body:
    """An agent follows its ConfigMap and writes its Lease; RBAC does not see the name of what is created."""
    own = [names.balancer_name(cluster, index) for index in range(MOST_BALANCERS)]
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": own, "verbs": ["get", "list", "watch"]},
            {**lease, "resourceNames": own, "verbs": ["get", "patch"]},
            {**lease, "verbs": ["create"]},
        ],
    }


def _role_binding(namespace: str, cluster: str) -> Body:
    name = objects_name(cluster)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }


def _headless(cluster: str, balancer: Balancer) -> Body:
    """Gives the Pods their names; the operator asks each agent by itself."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _labels(cluster),
            "ports": [_port("http", balancer.listen.port), _port("agent", AGENT_PORT)],
        },
    }


def _front(cluster: str, balancer: Balancer) -> Body:
    """What clients connect to. A client whose session is bound to a VM stays with the balancer that knows it."""
    service = balancer.template.service
    bound = bool(balancer.sticky_cookie) and balancer.attachment.mode != "Single"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": cluster, "annotations": dict(service.annotations)},
        "spec": {
            "type": service.type,
            "selector": _labels(cluster),
            "sessionAffinity": "ClientIP" if bound else "None",
            "ports": [_port("http", 80)],
        },
    }


def _port(name: str, port: int) -> Body:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}


def _disruption_budget(cluster: str) -> Body:
    """A single one may be moved all the same: a node must be able to be emptied."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(cluster)}},
    }


def _stateful_set(cluster: str, balancer: Balancer, program: AgentProgram) -> Body:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "spec": {
            "serviceName": objects_name(cluster),
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": _labels(cluster)},
            "template": {"metadata": {"labels": _labels(cluster)}, "spec": _pod(cluster, balancer, program)},
        },
    }


def _pod(cluster: str, balancer: Balancer, program: AgentProgram) -> Body:
    template, stop = balancer.template, stop_seconds(balancer)
    return {
        "serviceAccountName": objects_name(cluster),
        "terminationGracePeriodSeconds": LEAVE_SECONDS + stop + STOP_MARGIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_elsewhere(cluster)]}},
        "nodeSelector": dict(template.node_selector),
        "tolerations": [_toleration(it) for it in template.tolerations],
        "containers": [_container(balancer, program, stop)],
        # httpd's configuration, hosts file, pid file and logs.
        "volumes": [_scratch("state", "512Mi"), _scratch("tmp", "64Mi")],
    }


def stop_seconds(balancer: Balancer) -> int:
    """So long requests in flight may take when a balancer is told to end: as long as when a VM is."""
    return max(1, min(LONGEST_STOP_SECONDS, math.ceil(balancer.drain.timeout.seconds)))


def _elsewhere(cluster: str) -> Body:
    """Each balancer on another node, as far as there are nodes."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": _labels(cluster)}}
    return {"weight": 100, "podAffinityTerm": term}


def _toleration(it: Toleration) -> Body:
    return {key: value for key, value in it.wire().items() if value != ""}


def _scratch(name: str, size: str) -> Body:
    return {"name": name, "emptyDir": {"sizeLimit": size}}


def _container(balancer: Balancer, program: AgentProgram, stop: int) -> Body:
    return {
        "name": "balancer",
        "image": program.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["luban", "balancer-agent"],
        "env": _environment(program, stop),
        "ports": [
            {"name": "http", "containerPort": balancer.listen.port, "protocol": "TCP"},
            {"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"},
        ],
        # /healthz: the agent looks at httpd regularly. /readyz: httpd serves, with a VM; no traffic before.
        "startupProbe": _probe("/healthz", 1, 1, failureThreshold=60),
        "livenessProbe": _probe("/healthz", 10, 5),
        "readinessProbe": _probe("/readyz", 2, 2),
        # The Services learn of a Pod's end while it is told: whoever still comes is served.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LEAVE_SECONDS)]}}},
        "resources": _resources(balancer.template.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "state", "mountPath": "/run/luban"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _environment(program: AgentProgram, stop: int) -> list[Body]:
    given = {
        # A folder of the agent's own: it must be the owner, and that of a volume's root is root.
        "STATE_DIR": "/run/luban/state",
        "OPERATOR": program.operator,
        "STOP_SECONDS": str(stop),
    }
    asked = {"NAME": "metadata.name", "NAMESPACE": "metadata.namespace", "NODE": "spec.nodeName"}
    return [
        *(_field(f"LUBAN_BALANCER_AGENT_{name}", path) for name, path in asked.items()),
        _field("POD_IP", "status.podIP"),
        *({"name": f"LUBAN_BALANCER_AGENT_{name}", "value": value} for name, value in given.items()),
    ]


def _field(name: str, path: str) -> Body:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(path: str, period: int, timeout: int, **more: int) -> Body:
    return {"httpGet": {"path": path, "port": "agent"}, "periodSeconds": period, "timeoutSeconds": timeout, **more}


def _resources(resources: PodResources) -> Body:
    return {"requests": _amounts(resources.requests), "limits": _amounts(resources.limits)}


def _amounts(amounts: PodRequests | PodLimits) -> dict[str, str]:
    return {key: str(value) for key, value in amounts.wire().items() if value != ""}
