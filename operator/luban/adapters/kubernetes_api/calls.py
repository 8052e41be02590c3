"""Requests to the API server as values: which verb on which resource, and what goes along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from luban.api import names

Verb = Literal["get", "list", "create", "patch", "delete"]
"""As RBAC names them."""

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_METHODS = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}


@dataclass(frozen=True)
class Resource:
    """A resource, or a subresource of one."""

    group: str
    """Empty: the core group."""
    version: str
    plural: str
    subresource: str = ""

    @property
    def status(self) -> Resource:
        """Its /status."""
        return replace(self, subresource="status")

    @property
    def with_subresource(self) -> str:
        """As RBAC names it, for example lubanvms/status."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural

    def __str__(self) -> str:
        return f"{self.with_subresource}.{self.group}" if self.group else self.with_subresource


CLUSTERS = Resource(names.GROUP, names.VERSION, names.CLUSTERS)
VMS = Resource(names.GROUP, names.VERSION, names.VMS)
HOSTS = Resource(names.GROUP, names.VERSION, names.HOSTS)
CONFIG_MAPS = Resource("", "v1", "configmaps")
NAMESPACES = Resource("", "v1", "namespaces")
SECRETS = Resource("", "v1", "secrets")
EVENTS = Resource("", "v1", "events")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets")
OBJECTS: Mapping[str, Resource] = {
    "ServiceAccount": Resource("", "v1", "serviceaccounts"),
    "Service": Resource("", "v1", "services"),
    "Role": Resource("rbac.authorization.k8s.io", "v1", "roles"),
    "RoleBinding": Resource("rbac.authorization.k8s.io", "v1", "rolebindings"),
    "PodDisruptionBudget": Resource("policy", "v1", "poddisruptionbudgets"),
    "StatefulSet": STATEFUL_SETS,
}
"""By kind: what the operator makes for a cluster's balancers."""
LEASES = Resource("coordination.k8s.io", "v1", "leases")


@dataclass(frozen=True)
class Call:
    """One request. `namespace` is empty for resources of the whole cluster, `name` for list and create."""

    verb: Verb
    resource: Resource
    namespace: str
    name: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | Sequence[Any] | None = None
    content_type: str = "application/json"
    may_lag: bool = False
    """Whether what a watch knows will do: own writes included, those of others a little later."""

    @property
    def method(self) -> str:
        """HTTP method."""
        return _METHODS[self.verb]

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.verb not in ("get", "list")

    @property
    def idempotent(self) -> bool:
        """Whether it may be sent again without knowing what became of it. Our patches all are: they set, not add."""
        return self.verb != "create"

    @property
    def path(self) -> str:
        """Path with the places {namespace} and {name}, which the client fills in and quotes."""
        resource = self.resource
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        parts = [root, "namespaces/{namespace}", resource.plural] if self.namespace else [root, resource.plural]
        if self.name:
            parts.append("{name}")
        if resource.subresource:
            parts.append(resource.subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        if not self.namespace:
            return f"{self.verb} {self.resource} {self.name}".rstrip()
        where = f"{self.namespace}/{self.name}" if self.name else f"in namespace {self.namespace}"
        return f"{self.verb} {self.resource} {where}"
