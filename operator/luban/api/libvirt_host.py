"""spec.libvirt of a LubanHost: where a host is, what may be used there and by whom. An administrator's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from luban.api.common import DNS_LABEL, IPV4, SET, Model, map_list, remedy
from luban.api.libvirt_uri import LibvirtURI
from luban.api.units import Quantity

_name_remedy = remedy("must be letters, digits, dots, hyphens and underscores")
_LIBVIRT_NAME = r"^[A-Za-z0-9_.-]+$"
Pool = Annotated[str, Field(pattern=_LIBVIRT_NAME, max_length=64, json_schema_extra=_name_remedy)]
Network = Annotated[str, Field(pattern=_LIBVIRT_NAME, max_length=64, json_schema_extra=_name_remedy)]
Namespace = Annotated[
    str,
    Field(
        pattern=DNS_LABEL,
        max_length=63,
        json_schema_extra=remedy("must be the name of a namespace: lower-case letters, digits and hyphens"),
    ),
]


Orphans = Literal["Keep", "Remove"]


class HostVMLimit(Model):
    """How many VMs of all LubanClusters together."""

    max: int | None = Field(default=None, ge=1, le=10_000)
    """VMs of all LubanClusters together that the host runs at most, those on their way out included. A LubanCluster's own
    hosts[].vms.max holds as well. Lowered, it stops none that runs. Unset: no limit."""


class HostMemoryLimit(Model):
    """How much memory for VMs of all LubanClusters together."""

    max: Annotated[Quantity, Quantity.between("16Mi", "4Pi")] | None = None
    """Memory that the VMs of all LubanClusters together may grow to at most (template.spec.domain.memory.max). Unset: what
    the host has, less reserve and less what running domains have that are not Luban's."""
    reserve: Annotated[Quantity, Quantity.between("0", "4Pi")] = Quantity("1Gi")
    """Memory that the host keeps for itself. It counts where max is unset."""


class QuotaMemoryLimit(Model):
    """How much memory for VMs of one namespace."""

    max: Annotated[Quantity, Quantity.between("16Mi", "4Pi")] | None = None
    """Memory that the namespace's VMs may grow to at most on this host. Unset: no limit of its own."""


class HostQuota(Model):
    """What the LubanClusters of one namespace may take of the host."""

    namespace: Namespace
    """Which namespace. One without a quota has the host's limits alone."""
    vms: HostVMLimit = HostVMLimit()
    """VMs of the namespace."""
    memory: QuotaMemoryLimit = QuotaMemoryLimit()
    """Memory of the namespace's VMs."""


class LibvirtHost(Model):
    """Where the host is, what may be used there, and by whom."""

    uri: LibvirtURI
    """libvirt connection URI, for example qemu+tls://host-b/system. LubanClusters that name this host need none of their own.
    VMs stay where they were made: a LubanCluster with VMs at another URI leaves them alone and makes none here, until the
    URI is back or its entry is cordoned."""
    vms: HostVMLimit = HostVMLimit()
    """VMs of all LubanClusters together."""
    memory: HostMemoryLimit = HostMemoryLimit()
    """Memory of the VMs of all LubanClusters together."""
    pools: tuple[Pool, ...] = Field(default=(), max_length=64, json_schema_extra=SET)
    """Storage pools that LubanClusters may use (template.spec.image.pool). Empty: all."""
    networks: tuple[Network, ...] = Field(default=(), max_length=64, json_schema_extra=SET)
    """Bridges and libvirt networks that LubanClusters may use (template.spec.network.source). Empty: all. If any is given,
    network type User is not to be had: it has no name."""
    cidr: str = Field(
        default="",
        pattern=rf"^$|^{IPV4}/(3[0-2]|[12]?[0-9])$",
        max_length=18,
        json_schema_extra=remedy("must be an IPv4 network such as 10.20.0.0/16, or empty"),
    )
    """Network of the VMs' addresses. One outside of it counts as not known, whoever tells it: it is neither probed nor
    proxied to, and the LubanVM says so. Empty: any address."""
    namespaces: tuple[Namespace, ...] = Field(default=(), max_length=256, json_schema_extra=SET)
    """Namespaces whose LubanClusters may use the host. Empty: all. Where one is taken out, its VMs run on and are left alone,
    and nothing new is made or started."""
    orphans: Orphans = "Keep"
    """What becomes of domains that this control plane made, of LubanClusters that are no more, and of VMs' volumes in pools
    that are named here or by a LubanCluster on the host, without a LubanVM and unused. Keep: they are told of. Remove: they
    are removed once they were there for an hour. Remove says that no other control plane's Luban uses these pools."""
    quotas: tuple[HostQuota, ...] = Field(default=(), max_length=64, json_schema_extra=map_list("namespace"))
    """Limits of single namespaces, within those of the host."""
