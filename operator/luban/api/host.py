"""LubanHost: a host, and the health of its network bonds. Its spec is an administrator's: by what the bonds are judged,
and where libvirt is, what may be used there and by whom. Its status is written by the agent on that node.

The words for modes and link states are those of the Linux bonding driver, port states those of IEEE 802.1AX.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, PrivateAttr
from pydantic.alias_generators import to_camel

from luban.api.common import (
    DEVICE_NAME,
    Condition,
    Model,
    ObjectMeta,
    StatusModel,
    map_list,
    remedy,
    rules,
)
from luban.api.libvirt_host import LibvirtHost
from luban.api.reading import read_leniently
from luban.api.units import Duration

BondVerdict = Literal[
    "None",
    "Healthy",
    "Recovering",
    "MonitoringDisabled",
    "Flapping",
    "Degraded",
    "Churned",
    "SpeedMismatch",
    "AggregatorMismatch",
    "LACPTimeout",
    "NoPartner",
    "MinLinksNotMet",
    "Unknown",
    "Down",
]
"""From the best to the worst: this order decides which one is published."""
BondMode = Literal["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"]
Mii = Literal["up", "going-down", "down", "going-back"]
PortState = Literal["active", "backup"]
Churn = Literal["monitoring", "churned", "none"]

MAX_BONDS = 16
"""Bonds that a status tells about."""
MAX_PORTS = 32
"""Ports of one bond that a status tells about."""
LONGEST_MESSAGE = 1024
"""Characters of a message in a status: one host must not make its object too large to be written."""
LONGEST_NAME = 64
"""Of a device: 15 bytes, each of which may be written as an escape of four characters."""
Message = Annotated[str, Field(max_length=LONGEST_MESSAGE)]
Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Word = Annotated[str, Field(max_length=8)]
Address = Annotated[str, Field(max_length=32)]
Notes = Annotated[tuple[Name, ...], Field(max_length=8)]
ChosenBy = Literal["Spec", "DefaultRoute", "Worst"]
_device_remedy = remedy("must be the name of a bond as `ip link` shows it, without spaces, slashes and colons")


class ExpectedPorts(Model):
    """How many ports a bond should have. The kernel keeps no trace of a port that was taken out."""

    bond: str = Field(pattern=DEVICE_NAME, min_length=1, max_length=LONGEST_NAME, json_schema_extra=_device_remedy)
    """Name of the bond, for example bond0. A bond that is named here and is not there counts as Down."""
    ports: int = Field(ge=1, le=MAX_PORTS)
    """Number of ports that it should have. With fewer usable ones it is Degraded."""


class FlappingLimits(Model):
    """When a link that goes and comes back counts as flapping."""

    window: Annotated[Duration, Duration.between("1s", "1h")] = Duration("60s")
    """Time that is looked back, from 1s to 1h."""
    downs: int = Field(default=3, ge=1, le=1000)
    """Losses of one port's carrier within the window that make its bond Flapping."""


class LubanHostSpec(Model):
    """What an administrator says about a host. May stay empty. A change counts within ten seconds."""

    bond: str = Field(
        default="",
        pattern=rf"^$|{DEVICE_NAME}",
        max_length=LONGEST_NAME,
        json_schema_extra=remedy("must be the name of a bond as `ip link` shows it, or empty"),
    )
    """Bond whose health counts for the node. Empty: the one that carries the default route, directly or below a bridge
    or VLAN, over any of its next hops, also when it lost the route, until another one has carried it for as long as hold
    says; if none ever did, the one whose health is worst. Routes that lead everywhere together, such as 0.0.0.0/1 and
    128.0.0.0/1, are a default route too, and so are those of a table that a rule (ip rule) leads to. Naming another bond
    forgets the ones that are gone."""
    expected_ports: tuple[ExpectedPorts, ...] = Field(
        default=(), max_length=MAX_BONDS, json_schema_extra=map_list("bond")
    )
    """Number of ports by bond. Bonds that are not listed should have as many as they had at one time within the last hour:
    a port that is renamed stays the same, and a new one takes the place of one that went."""
    hold: Annotated[Duration, Duration.between("0s", "1h")] = Duration("10s")
    """Time without anything worse after which a better verdict is published, from 0s to 1h. A worse one is published at
    once."""
    flapping: FlappingLimits = FlappingLimits()
    """When a link that goes and comes back counts as flapping."""
    libvirt: LibvirtHost | None = None
    """The host as LubanClusters may use it, each by a hosts[] entry of this LubanHost's name. Unset: only its bonds are told
    of here."""


class BondSummary(StatusModel):
    """The bond that counts for the node, in short."""

    name: Name
    """Name of the bond; empty: the node has none."""
    verdict: BondVerdict
    """Its health. None: the node has no bond and had none for an hour. Unknown: nothing could be read."""
    chosen_by: ChosenBy | None = None
    """Why this one. Spec: spec.bond names it. DefaultRoute: it carries the default route, or did last. Worst: no bond was
    ever seen to carry the route, so the one in the worst state counts; unset: there is no bond."""
    mode: BondMode | None = None
    """How it uses its ports; unset: unknown."""
    active: int
    """Ports that are usable."""
    total: int
    """Ports that there should be: as many as the spec expects, and at least as many as there are. Where the spec says
    nothing, those count that went away within the last hour and have not been replaced since."""
    ports: Name
    """active/total, for `kubectl get`."""
    speed: int | None = None
    """Mb/s of all usable ports together, in mode active-backup of the active one; unset: unknown."""
    since: Name | None = None
    """When the verdict last changed (RFC 3339)."""


class BondPortStatus(StatusModel):
    """One port of a bond. What the kernel does not tell is left out."""

    name: Name
    """Name of the device; bytes that are not readable are written as \\x escapes. One that is gone and whose name another
    port has now is told by its index too, as in `eth1 (ifindex 4)`."""
    if_index: int | None = None
    """Number that the kernel knows the device by, whatever its name (ip -o link)."""
    usable: bool | None = None
    """Whether it can carry traffic; unset: not enough is known."""
    message: Message = ""
    """Why it is not usable, or what is not known."""
    admin_up: bool | None = None
    """Whether it is set up (IFF_UP)."""
    carrier: bool | None = None
    """Whether there is a link."""
    state: PortState | None = None
    """Whether the bond uses it (active) or keeps it in reserve (backup)."""
    mii_status: Mii | None = None
    """What the bond's monitoring thinks of the link."""
    speed: int | None = None
    """Mb/s."""
    duplex: Word | None = None
    """full or half."""
    link_failures: int | None = None
    """Failures that the bond's monitoring saw since the port was added."""
    carrier_downs: int | None = None
    """Times that the link went since the device was made."""
    aggregator: int | None = None
    """LACP aggregator that the port is in."""
    actor_state: Word | None = None
    """LACP state of our end, bits in hexadecimal: 0x3f and 0x3d are healthy, 0x40 set: no partner, 0x80: expired."""
    partner_state: Word | None = None
    """LACP state of the other end as it last told, bits in hexadecimal."""
    actor_churn: Churn | None = None
    """churned: our end did not get in step with the partner for a minute."""
    partner_churn: Churn | None = None
    """churned: the partner did not get in step with us for a minute."""
    partner_mac: Address | None = None
    """System of the partner, where the kernel shows it."""
    gone_since: Name | None = None
    """Set: it is not a port of the bond any more, since then (RFC 3339). It counts as missing for an hour, unless another
    port comes in its place, spec.expectedPorts says how many ports there should be, or the LubanHost is deleted, which
    starts afresh."""


class BondStatus(StatusModel):
    """One bond."""

    name: Name
    """Name of the device; bytes that are not readable are written as \\x escapes."""
    if_index: int | None = None
    """Number that the kernel knows the device by, whatever its name (ip -o link)."""
    verdict: BondVerdict
    """Its health."""
    reasons: tuple[BondVerdict, ...] = Field(default=(), max_length=16)
    """Every verdict that its present state deserves, the most important first."""
    message: Message = ""
    """What is the case: which port, which value, how much is left."""
    notes: Notes = ()
    """What is worth knowing and changes no verdict. SilentPathUnverified: neither LACP nor arp_interval, so a path that
    stays up and carries nothing goes unnoticed. PortsOmitted: it has more ports than are listed."""
    since: Name
    """When the verdict last changed (RFC 3339)."""
    mode: BondMode | None = None
    """How it uses its ports."""
    mii_status: Mii | None = None
    """up while any port has a link."""
    miimon: int | None = None
    """Milliseconds between looks at the links; 0: off."""
    arp_interval: int | None = None
    """Milliseconds between ARP probes; 0: off."""
    min_links: int | None = None
    """Ports that LACP must have for the bond to be up."""
    lacp_rate: Word | None = None
    """How often the partner is asked to speak: fast (every second) or slow (every 30 seconds)."""
    active_slave: Name | None = None
    """Port in use in mode active-backup."""
    aggregator: int | None = None
    """Active LACP aggregator."""
    partner_mac: Address | None = None
    """System of the LACP partner."""
    active: int = 0
    """Ports that are usable."""
    total: int = 0
    """Ports that there should be, as in status.bond."""
    ports: tuple[BondPortStatus, ...] = Field(default=(), max_length=MAX_PORTS)
    """Its ports, at most 32: if there are more, those that are not usable come before the others."""
    gone_since: Name | None = None
    """Set: it is not there any more, since then (RFC 3339). It counts as Down for an hour, unless a new bond takes over its
    ports, spec.bond names another bond, or the LubanHost is deleted, which starts afresh."""


class LubanHostStatus(StatusModel):
    """What the agent on the node sees."""

    observed_generation: int = 0
    """metadata.generation of the spec that was judged by."""
    last_report: Name | None = None
    """When the agent last wrote (RFC 3339). It writes on every change and once a minute; much older: it is gone, and
    nothing else here can be relied on."""
    agent_version: Name = ""
    """Version of the agent."""
    boot_id: Name | None = None
    """Which start of the node's kernel this is about (boot_id): ifIndex and counters mean nothing beyond it."""
    bond: BondSummary | None = None
    """The bond that counts for the node."""
    bonds: tuple[BondStatus, ...] = Field(default=(), max_length=MAX_BONDS)
    """All bonds by name, at most 16: if there are more, the one that counts and the worst come before the others."""
    notes: Notes = ()
    """What is worth knowing. BondsOmitted: there are more bonds than are listed."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=8, json_schema_extra=map_list("type"))
    """BondHealthy."""


_NAME_RULES = rules(
    (
        "!has(self.spec) || !has(self.spec.libvirt) || "
        "(self.metadata.name.size() <= 63 && !self.metadata.name.contains('.'))",
        "metadata.name must have at most 63 characters and no dot where spec.libvirt is given, as LubanClusters' "
        "hosts[].name is the same: take a short name, and let hosts[].nodeName name the node",
    )
)


class LubanHost(Model):
    """A host and the health of its network bonds. The agent on a node makes the one of the node's name; an administrator
    says in its spec, or in that of one of his own, where libvirt is and who may use it."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel) | _NAME_RULES

    metadata: ObjectMeta
    """Kubernetes' object metadata."""
    spec: LubanHostSpec = LubanHostSpec()
    """What an administrator says about the host. May stay empty."""
    status: LubanHostStatus = LubanHostStatus()
    """What the agent on the node sees."""

    _left_out: tuple[str, ...] = PrivateAttr(default=())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parts of spec and status that this version cannot read, each with the reason."""
        return self._left_out

    @classmethod
    def parse(cls, body: Any) -> LubanHost:
        """Parse an object of the API server, written by this version or another. Raises pydantic.ValidationError only
        without metadata."""
        spec, of_spec = read_leniently(LubanHostSpec, body.get("spec"))
        status, of_status = read_host_status(body.get("status"))
        host = cls.model_validate({**body, "spec": spec, "status": status})
        host._left_out = (*(f"spec.{words}" for words in of_spec), *(f"status.{words}" for words in of_status))
        return host


def read_host_status(status: Any) -> tuple[LubanHostStatus, tuple[str, ...]]:
    """A status that another version may have written, and what was left out of it: see read_leniently.

    A bond whose verdict is none that is known here is Unknown.
    """
    status = copy.deepcopy(status) if isinstance(status, dict) else {}
    unknown = _name_unknown_verdicts(status)
    read, left_out = read_leniently(LubanHostStatus, status)
    return read, (*unknown, *left_out)


def _name_unknown_verdicts(status: Any) -> list[str]:
    """Put Unknown in the place of each verdict that is none of ours; what was there."""
    if not isinstance(status, dict):
        return []
    bonds = status.get("bonds")
    places = {"bond": status.get("bond")}
    places |= {f"bonds.{number}": bond for number, bond in enumerate(bonds if isinstance(bonds, list) else ())}
    told = []
    for place, bond in places.items():
        if isinstance(bond, dict) and bond.get("verdict") not in get_args(BondVerdict):
            told.append(f"{place}.verdict: {bond.get('verdict')!r} is not known here, and counts as Unknown")
            bond["verdict"] = "Unknown"
    return told
