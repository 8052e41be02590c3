"""LubanCluster: what the user asks for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr
from pydantic.alias_generators import to_camel

from luban.api.balancer import Balancer
from luban.api.cluster_status import LubanClusterStatus
from luban.api.common import (
    DEVICE_NAME,
    DNS_LABEL,
    DNS_SUBDOMAIN,
    OCTET,
    URL_PATH,
    Model,
    ObjectMeta,
    map_list,
    remedy,
    rules,
)
from luban.api.libvirt_uri import LibvirtURIOrNone
from luban.api.measures import PerVM, Rule, Target
from luban.api.pool import Pool
from luban.api.reading import read_leniently
from luban.api.schedule import Schedule
from luban.api.template import VMTemplate
from luban.api.units import Duration

BondPolicy = Literal["Prefer", "Require", "Ignore"]
MOST_VMS = 1000
"""VMs of one cluster: a ConfigMap of 1 MiB holds some 3,200 members, and a plan takes time for each."""
Window = Annotated[Duration, Duration.between("0s", "8784h")]
"""A time to wait, at most 366 days."""


class HostVMs(Model):
    """Limits of one host."""

    model_config = rules(
        (
            "self.min <= self.max",
            "hosts[].vms.min must not be above hosts[].vms.max: lower min or raise max",
        )
    )

    min: int = Field(default=1, ge=0, le=MOST_VMS)
    """VMs that stay on this host when the cluster shrinks."""
    max: int = Field(default=3, ge=1, le=MOST_VMS)
    """VMs that this host runs at most."""


class Host(Model):
    """A KVM host."""

    name: str = Field(
        pattern=DNS_LABEL,
        max_length=63,
        json_schema_extra=remedy("must be lower-case letters, digits and hyphens, such as host-b"),
    )
    """Name of the host, unique in the list. A LubanHost of this name with spec.libvirt says where the host is, and what of
    it may be used by whom."""
    uri: LibvirtURIOrNone = ""
    """libvirt connection URI, for example qemu+tls://host-b/system. Empty: that of the LubanHost of this name
    (spec.libvirt.uri); where both are given they must agree. qemu+tcp and no_verify=1 only if the operator was started
    with --allow-insecure-hosts; with --hosts=Registered, none without such a LubanHost."""
    vms: HostVMs = HostVMs()
    """How many VMs of this cluster the host runs."""
    cordoned: bool = False
    """True: nothing new is placed here, and the VMs that are here move elsewhere one by one."""
    node_name: str = Field(
        default="",
        pattern=rf"^$|{DNS_SUBDOMAIN}",
        max_length=253,
        json_schema_extra=remedy("must be the name of a Kubernetes node such as host-b, or empty"),
    )
    """Kubernetes node whose agent reports this host's bonds (its LubanHost). Empty: the host's name."""
    bond: str = Field(
        default="",
        pattern=rf"^$|{DEVICE_NAME}",
        max_length=64,
        json_schema_extra=remedy("must be the name of a network interface such as bond0, or empty"),
    )
    """Bond that carries the VMs' traffic. Empty: the one that the LubanHost puts first, which carries the default
    route."""
    forward_range: str = Field(
        default="",
        pattern=rf"^$|^127\.{OCTET}\.{OCTET}\.0/24$",
        max_length=18,
        json_schema_extra=remedy("must be a /24 of loopback addresses such as 127.0.17.0/24, or empty"),
    )
    """Only with network type User: loopback range (a /24 below 127.0.0.0/8) whose addresses forward to the
    VMs of this host."""


class Metric(Model):
    """A gauge that each VM publishes in Prometheus' text format."""

    path: str = Field(
        default="/metrics",
        pattern=URL_PATH,
        max_length=256,
        json_schema_extra=remedy("must be a URL path such as /metrics"),
    )
    """Path on the VM's service port. Clients do not get it, the balancer answers 404; but one that is / or has a query is
    not hidden."""
    name: str = Field(
        default="luban_app_active_sessions",
        pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$",
        max_length=128,
        json_schema_extra=remedy("must be the name of a Prometheus metric such as luban_app_active_sessions"),
    )
    """Name of the metric; its samples are added up."""


class Sessions(Model):
    """Thresholds of the Sessions policy (Luban cloud, Fig. 3)."""

    model_config = rules(
        (
            "self.lowerPercent < self.upperPercent",
            "scaling.sessions.lowerPercent must be below scaling.sessions.upperPercent: "
            "lower the one or raise the other",
        )
    )

    max_per_vm: int = Field(default=100, ge=1, le=1_000_000, alias="maxPerVM")
    """Sessions that one VM can serve: 100 % (S_max)."""
    upper_percent: int = Field(default=60, ge=1, le=100)
    """At or above this share a VM counts as exceeding; all of them exceeding adds a VM."""
    lower_percent: int = Field(default=10, ge=0, le=99)
    """At or below this share a VM counts as idle; enough of them idle removes a VM."""
    upper_quorum_percent: int = Field(default=100, ge=1, le=100)
    """Share of the serving VMs that must exceed before a VM is added."""
    lower_quorum: int = Field(default=2, ge=1, le=MOST_VMS)
    """Number of idle VMs before one is removed: 2 as the paper's figure, 1 as its prose."""
    source: Literal["Balancer", "Metric"] = "Balancer"
    """Where sessions are counted. Balancer: sticky sessions, or without a sticky cookie the requests in
    flight, as httpd sees them. Metric: the VM's own gauge."""
    metric: Metric = Metric()
    """The gauge for source Metric."""


class ScaleBehavior(Model):
    """How fast to grow."""

    stabilization_window: Window = Duration("0s")
    """The wish must have held for this long."""
    step: int = Field(default=1, ge=1, le=100)
    """VMs to add or remove at a time."""
    cooldown: Window = Duration("0s")
    """Time after the last scaling in any direction before this one."""


class ScaleDownBehavior(ScaleBehavior):
    """How fast to shrink. A class of its own: its other default must hold too where only `step` is given."""

    stabilization_window: Window = Duration("5m")
    """The wish must have held for this long; policies Rules and Target: the highest number that was right within it
    holds. To never shrink, set scaling.pauseScaleIn."""


class Behavior(Model):
    """How fast to grow and to shrink."""

    scale_up: ScaleBehavior = ScaleBehavior()
    """Growing."""
    scale_down: ScaleDownBehavior = ScaleDownBehavior()
    """Shrinking."""


PolicyName = Literal["Sessions", "Rules", "Target", "Manual"]
Victim = Literal["MostLoaded", "LeastSessions"]


def _needs_capacity(metric: Literal["Network", "Requests"]) -> tuple[str, str]:
    """CEL rule: 100 percent of a metric is given where the metric is used."""
    field = metric.lower()
    uses = f"(it.metric == '{metric}' || (has(it.weights) && it.weights.{field} > 0))"
    used = f"self.rules.exists(it, {uses}) || [self.target].exists(it, {uses})"
    return (
        f"has(self.perVM.{field}) || !({used})",
        f"metric {metric} needs scaling.perVM.{field}: what one VM can do, which is 100 percent",
    )


class Scaling(Model):
    """When to add and when to remove VMs."""

    model_config = rules(
        (
            "self.minVMs <= self.maxVMs",
            "scaling.minVMs must not be above scaling.maxVMs: lower minVMs or raise maxVMs",
        ),
        (
            "self.policy != 'Rules' || self.rules.size() > 0",
            "policy Rules needs scaling.rules: give at least one, such as {metric: CPU, max: 70, min: 20}",
        ),
        (
            "self.schedules.all(it, it.minVMs <= self.maxVMs)",
            "scaling.schedules[].minVMs must not be above scaling.maxVMs: lower the one or raise the other",
        ),
        _needs_capacity("Network"),
        _needs_capacity("Requests"),
    )

    min_vms: int = Field(default=2, ge=1, le=MOST_VMS, alias="minVMs")
    """VMs that always run."""
    max_vms: int = Field(default=6, ge=1, le=MOST_VMS, alias="maxVMs")
    """VMs that run at most: no more than 1000 in one cluster."""
    interval: Annotated[Duration, Duration.between("1s", "24h")] = Duration("15s")
    """Time between two looks at the load (the paper polls every 5m)."""
    policy: PolicyName = "Sessions"
    """Sessions: by session thresholds. Rules: by the first of several bands that is left. Target: as many as keep a metric
    at a value. Manual: spec.replicas, so `kubectl scale` decides."""
    sessions: Sessions = Sessions()
    """Thresholds of the Sessions policy."""
    rules: tuple[Rule, ...] = Field(default=(), max_length=16)
    """Policy Rules: the first whose metric is outside its band decides: above max a VM is added, below min one is removed."""
    safe_shrink: bool = True
    """Policy Rules. True: a VM is removed only if no metric is above its max, and none would be with the same load on
    fewer VMs; a rule that may not remove one lets those after it decide. False: as in the ELBaaS paper."""
    victim: Victim = "MostLoaded"
    """Policy Rules: who leaves. MostLoaded: the VM that is furthest towards the max of a rule, as in the ELBaaS paper, for
    the others serve better. LeastSessions: as with the other policies."""
    target: Target = Target()
    """What the Target policy aims at."""
    per_vm: PerVM = Field(default=PerVM(), alias="perVM")
    """What one VM can do, for the metrics that need it."""
    schedules: tuple[Schedule, ...] = Field(default=(), max_length=16, json_schema_extra=map_list("name"))
    """Times at which more VMs run than minVMs, whatever the policy is, such as an hour before tickets are sold."""
    behavior: Behavior = Behavior()
    """Windows, steps and cooldowns."""
    pause_scale_in: bool = False
    """True: nothing is removed because of low load; decisions are still shown."""


_NO_URI = "!has(h.uri) || h.uri == ''"
"""CEL: the host `h` says nothing of where it is."""
_SPEC_RULES = rules(
    (
        "self.hosts.map(h, h.vms.max).sum() >= self.scaling.minVMs",
        "hosts[].vms.max add up to less than scaling.minVMs: raise hosts[].vms.max or lower scaling.minVMs",
    ),
    (
        "self.scaling.schedules.all(it, it.minVMs <= self.hosts.map(h, h.vms.max).sum())",
        "hosts[].vms.max add up to less than scaling.schedules[].minVMs: raise the one or lower the other",
    ),
    (
        "self.hosts.map(h, h.vms.min).sum() <= self.scaling.maxVMs",
        "hosts[].vms.min add up to more than scaling.maxVMs: lower hosts[].vms.min or raise scaling.maxVMs",
    ),
    (
        "self.template.spec.network.type != 'User' || self.hosts.all(h, h.forwardRange != '')",
        "network type User needs hosts[].forwardRange on every host, for example 127.0.17.0/24",
    ),
    (
        "self.template.spec.network.type != 'User' || "
        "self.hosts.all(h, self.hosts.exists_one(g, g.forwardRange == h.forwardRange))",
        "hosts[].forwardRange must differ from host to host: "
        "give each its own /24, for example 127.0.17.0/24 and 127.0.18.0/24",
    ),
    (
        f"self.hosts.all(h, {_NO_URI} || self.hosts.exists_one(g, has(g.uri) && g.uri == h.uri))",
        "hosts[].uri must differ from host to host: two entries for one libvirt daemon would count its room twice",
    ),
    (
        "self.hosts.all(h, self.hosts.exists_one(g, "
        "(has(g.nodeName) && g.nodeName != '' ? g.nodeName : g.name) == "
        "(has(h.nodeName) && h.nodeName != '' ? h.nodeName : h.name)))",
        "hosts[].nodeName must differ from host to host, and from the names of hosts without one",
    ),
    (
        "self.balancer.attachment.dMax * self.balancer.replicas.max >= "
        "(self.balancer.attachment.mode == 'Cross' ? self.balancer.attachment.p : 1) * self.scaling.maxVMs",
        "balancer.attachment.dMax times balancer.replicas.max has no room for scaling.maxVMs VMs with p balancers each "
        "(one each unless mode is Cross): raise dMax or replicas.max, or lower p or maxVMs",
    ),
    (
        f"self.hosts.all(h, {_NO_URI} || oldSelf.hosts.all(o, "
        "o.name != h.name || !has(o.uri) || o.uri == '' || o.uri == h.uri))",
        "hosts[].uri of a host cannot be changed, its VMs would be lost: add the new URI under another name, "
        "cordon the old host, and remove it when it is empty",
    ),
)


class LubanClusterSpec(Model):
    """What the user asks for."""

    model_config = _SPEC_RULES

    hosts: tuple[Host, ...] = Field(
        min_length=1,
        max_length=64,
        json_schema_extra=map_list("name"),
    )
    """KVM hosts, the preferred one first: ties in placement go to the earlier host."""
    template: VMTemplate
    """What each VM looks like."""
    replicas: int | None = Field(default=None, ge=0, le=MOST_VMS)
    """Wanted VMs under policy Manual, kept between minVMs and maxVMs; written by `kubectl scale`."""
    scaling: Scaling = Scaling()
    """When to add and when to remove VMs."""
    pool: Pool = Pool()
    """VMs that wait, ready, to be let serve when more are needed."""
    balancer: Balancer = Balancer()
    """The balancer in front."""
    bond_policy: BondPolicy = "Prefer"
    """How the health of the hosts' bonds counts when a VM is placed. Prefer: sound before impaired before unknown, never
    Down. Require: Healthy only. Ignore: not at all."""
    paused: bool = False
    """True: decisions are computed and shown, nothing is changed."""
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"
    """What happens to VMs and ConfigMaps when the cluster is deleted. Delete: drained and removed.
    Orphan: left running; a LubanCluster of the same name takes those over that it would make the same on the same hosts."""


_NAME_RULES = rules(
    (
        "self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')",
        "metadata.name must have at most 40 characters and no dot: VMs, balancers and labels take it over",
    )
)


class LubanCluster(Model):
    """A web service in KVM virtual machines behind Apache httpd."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel) | _NAME_RULES

    metadata: ObjectMeta
    """Kubernetes' object metadata."""
    spec: LubanClusterSpec
    """What the user asks for."""
    status: LubanClusterStatus = LubanClusterStatus()
    """What the operator answers."""

    _left_out: tuple[str, ...] = PrivateAttr(default=())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parts of the status that this version cannot read, each with the reason."""
        return self._left_out

    @classmethod
    def parse(cls, body: Any) -> LubanCluster:
        """Parse an object of the API server. Raises pydantic.ValidationError on a bad spec, never because of the status."""
        status, left_out = read_leniently(LubanClusterStatus, body.get("status"))
        cluster = cls.model_validate({**body, "status": status})
        cluster._left_out = left_out
        return cluster
