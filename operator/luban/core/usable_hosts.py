"""Which hosts of a spec a cluster may use, and where they are.

An administrator's LubanHost says where a host is and who may use what of it; a spec names it. A host that may not be
used stays in the spec, for its VMs and its limits count as before; but it has no URI there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from luban.api.cluster import Host, LubanClusterSpec
from luban.api.libvirt_host import LibvirtHost
from luban.api.libvirt_uri import normal_form
from luban.api.template import VMTemplateSpec
from luban.core.left_out import Refusal

HostPolicy = Literal["Any", "Registered"]
"""Any: a spec may say itself where a host is. Registered: only if a LubanHost says the same."""

FEW = 5
"""Names of a list that a message tells."""


@dataclass(frozen=True)
class Unreadable:
    """A LubanHost whose spec.libvirt this version cannot read."""

    why: str


Registered = Mapping[str, LibvirtHost | Unreadable]
"""LubanHosts with spec.libvirt, by name."""


@dataclass(frozen=True)
class Applicant:
    """Who wants to use hosts, and where its VMs are."""

    namespace: str
    in_use: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By host: URIs where the cluster has VMs."""


@dataclass(frozen=True)
class UsableHosts:
    """A spec's hosts, sorted."""

    uris: Mapping[str, str]
    """Those that may be used: name to URI."""
    refusals: Mapping[str, Refusal]
    """Why each of the others may not."""
    twins: Mapping[str, str] = field(default_factory=dict)
    """Of these, those that turned out to be the same daemon as another entry, with their URIs: they are looked at all
    the same, for they may turn out to be another one."""

    def fill(self, spec: LubanClusterSpec) -> LubanClusterSpec:
        """The spec with the URI of every host that may be used, and with none for the others."""
        hosts = tuple(_at(host, self.uris.get(host.name, "")) for host in spec.hosts)
        return spec if hosts == spec.hosts else spec.model_copy(update={"hosts": hosts})


def usable_hosts(
    spec: LubanClusterSpec,
    registered: Registered,
    applicant: Applicant,
    policy: HostPolicy = "Any",
    identity: Callable[[str], str] = normal_form,
) -> UsableHosts:
    """Which hosts of the spec may be used. Of two entries for one daemon the first one may.

    `identity`: the same for all URIs that are known to lead to one daemon.
    """
    uris: dict[str, str] = {}
    refusals: dict[str, Refusal] = {}
    entries: dict[str, str] = {}
    texts: set[str] = set()
    twins: dict[str, str] = {}
    for host in spec.hosts:
        known = registered.get(host.name)
        uri = _uri_of(host, known, applicant)
        first = entries.setdefault(identity(uri), host.name) if uri else host.name
        refusal = next(_objections(host, spec.template.spec, known, applicant, policy), None)
        if refusal is None and first != host.name:
            refusal = _twice(host, first)
            if normal_form(uri) not in texts:
                twins[host.name] = uri
        texts.add(normal_form(uri))
        if refusal is None:
            uris[host.name] = uri
        else:
            refusals[host.name] = refusal
    return UsableHosts(uris, refusals, twins)


def _at(host: Host, uri: str) -> Host:
    return host if host.uri == uri else host.model_copy(update={"uri": uri})


def _uri_of(host: Host, known: LibvirtHost | Unreadable | None, applicant: Applicant) -> str:
    """Where the host is, written as its VMs' LubanVMs have it if that is the same; empty: nobody says it."""
    uri = host.uri or (known.uri if isinstance(known, LibvirtHost) else "")
    same = (it for it in sorted(applicant.in_use.get(host.name, ())) if normal_form(it) == normal_form(uri))
    return next(same, uri)


def _objections(
    host: Host,
    template: VMTemplateSpec,
    known: LibvirtHost | Unreadable | None,
    applicant: Applicant,
    policy: HostPolicy,
) -> Iterator[Refusal]:
    """Why the host may not be used. Who may not use it at all learns that first, and is told nothing else of it."""
    if isinstance(known, Unreadable):
        yield Refusal("HostUnreadable", f"spec.libvirt of LubanHost {host.name} cannot be read: {known.why}")
    elif known is None:
        yield from _unregistered(host, policy)
    else:
        yield from _not_for_all(host, known, applicant)
        yield from _not_for_this(host, template, known)
    yield from _moved(host, _uri_of(host, known, applicant), applicant)


def _unregistered(host: Host, policy: HostPolicy) -> Iterator[Refusal]:
    missing = f"there is no LubanHost {host.name} with spec.libvirt"
    if not host.uri:
        remedy = "an administrator has to make it" + (", or give hosts[].uri" if policy == "Any" else "")
        yield Refusal("HostNotRegistered", f"{missing}: {remedy}")
    elif policy == "Registered":
        why = f"{missing}, and the operator takes no others (--hosts=Registered)"
        yield Refusal("InlineURIRefused", f"{why}: an administrator has to make it, with this host's URI")


def _not_for_all(host: Host, known: LibvirtHost, applicant: Applicant) -> Iterator[Refusal]:
    if known.namespaces and applicant.namespace not in known.namespaces:
        yield Refusal(
            "NamespaceNotAllowed",
            f"LubanHost {host.name} is not for namespace {applicant.namespace}: take another host, or have an "
            "administrator add the namespace to its spec.libvirt.namespaces",
        )
    if host.uri and normal_form(host.uri) != normal_form(known.uri):
        yield Refusal(
            "HostURIDiffers",
            f"hosts[].uri is {host.uri}, but LubanHost {host.name} says {known.uri}: leave hosts[].uri out, or give "
            "the host another name",
        )


def _not_for_this(host: Host, template: VMTemplateSpec, known: LibvirtHost) -> Iterator[Refusal]:
    pool, network = template.image.pool, template.network
    if known.pools and pool not in known.pools:
        yield Refusal(
            "PoolNotAllowed",
            f"LubanHost {host.name} does not offer storage pool {pool}, only {_few(known.pools)}: change "
            "template.spec.image.pool, or have an administrator add it to its spec.libvirt.pools",
        )
    if network.type == "User":
        yield from _no_user_network(host, known)
    elif known.networks and network.source not in known.networks:
        yield Refusal(
            "NetworkNotAllowed",
            f"LubanHost {host.name} does not offer network {network.source}, only {_few(known.networks)}: change "
            "template.spec.network.source, or have an administrator add it to its spec.libvirt.networks",
        )


def _no_user_network(host: Host, known: LibvirtHost) -> Iterator[Refusal]:
    """Network type User has no name, and its addresses are the host entry's own."""
    if known.networks:
        yield Refusal(
            "NetworkNotAllowed",
            f"LubanHost {host.name} offers the networks {_few(known.networks)} alone: change "
            "template.spec.network.type from User to theirs",
        )
    elif known.cidr and host.forward_range and not _network(host.forward_range).subnet_of(_network(known.cidr)):
        yield Refusal(
            "NetworkNotAllowed",
            f"hosts[].forwardRange {host.forward_range} is not within {known.cidr}, the cidr of LubanHost {host.name}: "
            "take another network type, or have an administrator change its spec.libvirt.cidr",
        )


@lru_cache(maxsize=1024)
def _network(cidr: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(cidr, strict=False)


def _moved(host: Host, uri: str, applicant: Applicant) -> Iterator[Refusal]:
    """VMs of the cluster are at another URI: looked for at this one, they would seem to be lost."""
    elsewhere = [it for it in sorted(applicant.in_use.get(host.name, ())) if normal_form(it) != normal_form(uri)]
    if elsewhere:
        yield Refusal(
            "HostURIDiffers",
            f"VMs of this cluster are on {host.name} at {elsewhere[0]}, which is {uri} now: put back the URI, or "
            "cordon the host until they have moved",
        )


def _twice(host: Host, first: str) -> Refusal:
    return Refusal(
        "HostListedTwice",
        f"{host.name} is the same libvirt daemon as {first}, whose room would count twice: take one of the two entries "
        "out of spec.hosts",
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + ", ..." * (len(names) > FEW)


def outside(address: str, cidr: str) -> bool:
    """Whether an address is not in a host's network. `cidr` empty: all are in it."""
    if not cidr or not address:
        return False
    try:
        return ipaddress.IPv4Address(address) not in _network(cidr)
    except ValueError:
        return True
