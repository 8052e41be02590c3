"""What policies measure: metrics in percent of what one VM can do, and the settings of policies Rules and Target."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from luban.api.common import Model, rules
from luban.api.units import Quantity

MetricName = Literal["CPU", "Memory", "Network", "Sessions", "Requests", "Average"]
HIGHEST_PERCENT = 1000
"""More than full: sessions and requests may exceed what a VM should have."""
_WEIGHTED = "self.cpu + self.memory + self.network + self.sessions + self.requests"
_MEASURED = (
    "(self.metric == 'Average') == has(self.weights)",
    "weights go with metric Average, and with no other: add them, or remove them",
)


class PerVM(Model):
    """What one VM can do: 100 percent of a metric. CPU and Memory are percent by nature, Sessions of
    sessions.maxPerVM."""

    network: Annotated[Quantity, Quantity.between("1k", "1T")] | None = None
    """Network: bytes per second, received and sent together; 125M is a link of 1 Gbit/s."""
    requests: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests: requests per second."""


class Weights(Model):
    """How much each metric counts in an average."""

    model_config = rules((f"{_WEIGHTED} > 0", "weights must not all be 0: give at least one metric a weight"))

    cpu: int = Field(default=0, ge=0, le=100)
    """Weight of CPU."""
    memory: int = Field(default=0, ge=0, le=100)
    """Weight of Memory."""
    network: int = Field(default=0, ge=0, le=100)
    """Weight of Network."""
    sessions: int = Field(default=0, ge=0, le=100)
    """Weight of Sessions."""
    requests: int = Field(default=0, ge=0, le=100)
    """Weight of Requests."""


class Measure(Model):
    """A metric: the mean over the VMs that carry the load."""

    metric: MetricName
    """CPU: time used by the VM, in percent of its vCPUs. Memory: used in the guest, in percent of its maximum. Network:
    bytes per second, in percent of perVM.network. Sessions: in percent of sessions.maxPerVM. Requests: per second, in
    percent of perVM.requests. Average: of several, by weights."""
    weights: Weights | None = None
    """Metric Average: how much each metric counts. A VM of which one with a weight is unknown is unknown."""


class Rule(Measure):
    """A band for one metric."""

    model_config = rules(
        _MEASURED,
        ("self.min < self.max", "scaling.rules[].min must be below scaling.rules[].max: lower min or raise max"),
    )

    max: int = Field(ge=1, le=HIGHEST_PERCENT)
    """Percent above which VMs are added."""
    min: int = Field(default=0, ge=0, le=HIGHEST_PERCENT)
    """Percent below which VMs are removed; 0: never because of this rule."""


class Target(Measure):
    """What policy Target keeps a metric at: that of Kubernetes' HorizontalPodAutoscaler."""

    model_config = rules(_MEASURED)

    metric: MetricName = "CPU"
    """As in scaling.rules[].metric."""
    percent: int = Field(default=60, ge=1, le=HIGHEST_PERCENT)
    """The mean that is aimed at. Within a tenth of it nothing changes."""
