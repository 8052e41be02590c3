"""LubanHost: a node's network bonds. Its status is written by the agent on that node; the spec is the user's.

The words for modes and link states are those of the Linux bonding driver, port states those of IEEE 802.1AX.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from luban.api.common import Condition, Duration, Model, ObjectMeta, StatusModel, map_list, remedy

BondVerdict = Literal[
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
    "Down",
    "Unknown",
    "None",
]
BondMode = Literal["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"]
Mii = Literal["up", "going-down", "down", "going-back"]
PortState = Literal["active", "backup"]
Churn = Literal["monitoring", "churned", "none"]

MAX_BONDS = 16
"""Bonds that a status tells about."""
MAX_PORTS = 32
"""Ports of one bond that a status tells about."""
DEVICE_NAME = r"^[^/:\s\x00]+$"
"""What Linux takes as a device's name (dev_valid_name), escapes for odd characters included."""
_DEVICE_LENGTH = 64
"""15 bytes, each of which may be written as an escape of four characters."""
_device_remedy = remedy("must be the name of a bond as `ip link` shows it, without spaces, slashes and colons")


class ExpectedPorts(Model):
    """How many ports a bond should have. The kernel keeps no trace of a port that was taken out."""

    bond: str = Field(pattern=DEVICE_NAME, min_length=1, max_length=_DEVICE_LENGTH, json_schema_extra=_device_remedy)
    """Name of the bond, for example bond0. A bond that is named here and is not there counts as Down."""
    ports: int = Field(ge=1, le=MAX_PORTS)
    """Number of ports that it should have. With fewer usable ones it is Degraded."""


class FlappingLimits(Model):
    """When a link that goes and comes back counts as flapping."""

    window: Duration = Duration("60s")
    """Time that is looked back."""
    downs: int = Field(default=3, ge=1, le=1000)
    """Losses of one port's carrier within the window that make its bond Flapping."""


class LubanHostSpec(Model):
    """What the user says about a node's bonds. May stay empty."""

    bond: str = Field(
        default="",
        pattern=r"^$|^[^/:\s\x00]+$",
        max_length=_DEVICE_LENGTH,
        json_schema_extra=remedy("must be the name of a bond as `ip link` shows it, or empty"),
    )
    """Bond whose health counts for the node. Empty: the one that carries the default route, directly or below a bridge
    or VLAN; if none does, the first by name."""
    expected_ports: tuple[ExpectedPorts, ...] = Field(
        default=(), max_length=MAX_BONDS, json_schema_extra=map_list("bond")
    )
    """Number of ports by bond. Bonds that are not listed should have as many as they have now."""
    hold: Duration = Duration("10s")
    """Time without anything worse after which a better verdict is published. A worse one is published at once."""
    flapping: FlappingLimits = FlappingLimits()
    """When a link that goes and comes back counts as flapping."""


class BondSummary(StatusModel):
    """The bond that counts for the node, in short."""

    name: str
    """Name of the bond; empty: the node has none."""
    verdict: BondVerdict
    """Its health. None: the node has no bond. Unknown: nothing could be read."""
    mode: BondMode | None = None
    """How it uses its ports; unset: unknown."""
    active: int
    """Ports that are usable."""
    total: int
    """Ports that there should be: as many as the spec expects, and at least as many as there are."""
    ports: str
    """active/total, for `kubectl get`."""
    speed: int | None = None
    """Mb/s of all usable ports together, in mode active-backup of the active one; unset: unknown."""
    since: str | None = None
    """When the verdict last changed (RFC 3339)."""


class BondPortStatus(StatusModel):
    """One port of a bond. What the kernel does not tell is left out."""

    name: str
    """Name of the device; bytes that are not readable are written as \\x escapes."""
    usable: bool | None = None
    """Whether it can carry traffic; unset: not enough is known."""
    message: str = ""
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
    duplex: str | None = None
    """full or half."""
    link_failures: int | None = None
    """Failures that the bond's monitoring saw since the port was added."""
    carrier_downs: int | None = None
    """Times that the link went since the device was made."""
    aggregator: int | None = None
    """LACP aggregator that the port is in."""
    actor_state: str | None = None
    """LACP state of our end, bits in hexadecimal: 0x3f and 0x3d are healthy, 0x40 set: no partner, 0x80: expired."""
    partner_state: str | None = None
    """LACP state of the other end as it last told, bits in hexadecimal."""
    actor_churn: Churn | None = None
    """churned: our end did not get in step with the partner for a minute."""
    partner_churn: Churn | None = None
    """churned: the partner did not get in step with us for a minute."""
    partner_mac: str | None = None
    """System of the partner, where the kernel shows it."""


class BondStatus(StatusModel):
    """One bond."""

    name: str
    """Name of the device; bytes that are not readable are written as \\x escapes."""
    verdict: BondVerdict
    """Its health."""
    reasons: tuple[BondVerdict, ...] = ()
    """Every verdict that its present state deserves, the most important first."""
    message: str = ""
    """What is the case: which port, which value, how much is left."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and changes no verdict. SilentPathUnverified: neither LACP nor arp_interval, so a path that
    stays up and carries nothing goes unnoticed. PortsOmitted: it has more ports than are listed."""
    since: str
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
    lacp_rate: str | None = None
    """How often the partner is asked to speak: fast (every second) or slow (every 30 seconds)."""
    active_slave: str | None = None
    """Port in use in mode active-backup."""
    aggregator: int | None = None
    """Active LACP aggregator."""
    partner_mac: str | None = None
    """System of the LACP partner."""
    active: int = 0
    """Ports that are usable."""
    total: int = 0
    """Ports that there should be."""
    ports: tuple[BondPortStatus, ...] = Field(default=(), max_length=MAX_PORTS)
    """Its ports, at most 32."""


class LubanHostStatus(StatusModel):
    """What the agent on the node sees."""

    observed_generation: int = 0
    """metadata.generation of the spec that was judged by."""
    last_report: str | None = None
    """When the agent last wrote (RFC 3339). It writes on every change and once a minute; much older: it is gone, and
    nothing else here can be relied on."""
    agent_version: str = ""
    """Version of the agent."""
    bond: BondSummary | None = None
    """The bond that counts for the node."""
    bonds: tuple[BondStatus, ...] = Field(default=(), max_length=MAX_BONDS)
    """All bonds by name, at most 16."""
    notes: tuple[str, ...] = ()
    """What is worth knowing. BondsOmitted: there are more bonds than are listed."""
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=map_list("type"))
    """BondHealthy."""


class LubanHost(Model):
    """A node and the health of its network bonds. The node's agent makes it, under the node's name."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    metadata: ObjectMeta
    """Kubernetes' object metadata."""
    spec: LubanHostSpec = LubanHostSpec()
    """What the user says about the node's bonds. May stay empty."""
    status: LubanHostStatus = LubanHostStatus()
    """What the agent on the node sees."""

    @classmethod
    def parse(cls, body: Any) -> LubanHost:
        """Parse an object of the API server. Raises pydantic.ValidationError on a bad spec."""
        return cls.model_validate(body)
