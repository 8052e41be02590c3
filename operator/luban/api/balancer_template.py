"""spec.balancer.template: how the balancers' Pods are made, and the Service in front of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from luban.api.common import LABEL_KEY, LABEL_VALUE, Model, remedy, rules
from luban.api.template import LabelKey, LabelValue
from luban.api.units import Quantity

_CPU = r"^$|^[1-9][0-9]{0,3}(\.[0-9]{1,3})?$|^0\.[0-9]{1,3}$|^[1-9][0-9]{0,6}m$"
Text = Annotated[str, StringConstraints(max_length=1024)]
Bytes = Annotated[Quantity, Quantity.between("16Mi", "1Ti")]


class PodRequests(Model):
    """What a balancer's Pod is given for certain."""

    cpu: str = Field(
        default="100m",
        pattern=_CPU,
        max_length=16,
        json_schema_extra=remedy("must be processors such as 2, 0.5 or 250m"),
    )
    """Processors. Empty: none are set aside."""
    memory: Bytes = Quantity("128Mi")
    """Memory."""


class PodLimits(Model):
    """What a balancer's Pod may take at most."""

    cpu: str = Field(
        default="", pattern=_CPU, max_length=16, json_schema_extra=remedy("must be processors such as 2, 0.5 or 250m")
    )
    """Processors. Empty: any number."""
    memory: Bytes = Quantity("2Gi")
    """Memory: clients can make httpd use 1.6 GiB with the default balancer.limits, and more with larger ones."""


class PodResources(Model):
    """What a balancer's Pod may use."""

    requests: PodRequests = PodRequests()
    """What it is given for certain."""
    limits: PodLimits = PodLimits()
    """What it may take at most."""


class Toleration(Model):
    """A taint of nodes that does not keep a balancer's Pod off, as in a Pod."""

    model_config = rules(
        (
            "self.key != '' || self.operator == 'Exists'",
            "tolerations[].key must not be empty, unless operator is Exists",
        ),
        (
            "self.operator != 'Exists' || self.value == ''",
            "tolerations[].value must be empty with operator Exists, which looks at no value",
        ),
    )

    key: str = Field(
        default="",
        pattern=rf"^$|{LABEL_KEY}",
        max_length=253,
        json_schema_extra=remedy("must be the key of a taint such as dedicated, or empty"),
    )
    """Key of the taint. Empty: any, with operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the value counts."""
    value: str = Field(
        default="",
        pattern=LABEL_VALUE,
        max_length=63,
        json_schema_extra=remedy("must be the value of a taint, or empty"),
    )
    """Value of the taint, with operator Equal."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint. Empty: any."""


class FrontService(Model):
    """The Service that clients connect to; it has the LubanCluster's name, and port 80."""

    model_config = rules(
        (
            "self.annotations.all(key, !key.matches('^([-a-z0-9.]+[.])?luban[.]cloud/'))",
            "balancer.template.service.annotations must not have keys below luban.cloud/: the operator sets those itself",
        ),
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """As of any Service."""
    annotations: dict[LabelKey, Text] = Field(default={}, max_length=32)
    """Annotations of the Service: what the cloud's load balancer is told, for example."""


class BalancerTemplate(Model):
    """How the balancers' Pods are made, and the Service in front of them: where the operator makes them."""

    resources: PodResources = PodResources()
    """What each Pod may use."""
    node_selector: dict[LabelKey, LabelValue] = Field(default={}, max_length=32)
    """Labels of the nodes that Pods may run on."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=32)
    """Taints of nodes that do not keep Pods off."""
    service: FrontService = FrontService()
    """What clients connect to."""
