"""What is read of a host's bonds, and what is concluded from it.

Every fact that a kernel may hide is Optional: None is no data, never zero, and never counts as good. Names are as
the adapter made them readable. States of LACP ports are those of IEEE 802.1AX; numbers and words follow the kernel's
bonding documentation and the uapi headers if_link.h and if_bonding.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from luban.api.host import BondMode, BondVerdict, Churn, Mii, PortState

LACP: BondMode = "802.3ad"
ACTIVE_BACKUP: BondMode = "active-backup"
NO_PARTNER = "00:00:00:00:00:00"

DEFAULTED = 0x40
"""LACP port state: the partner's facts are made up, for none was heard."""
EXPIRED = 0x80
"""LACP port state: the partner has not been heard for three periods."""
FLOWING = 0x38
"""LACP port state: in sync, collecting and distributing: all that it takes to carry traffic."""
AGGREGATING = 0x04
"""LACP port state: may be bundled with others. Without it the link is an individual one, which carries traffic too."""
IN_SYNC = 0x08
"""LACP port state: the port is in the aggregator that it should be in."""


@dataclass(frozen=True)
class PortReading:
    """One port (slave) of a bond."""

    name: str
    admin_up: bool | None = None
    """IFF_UP. A port that was set down keeps its carrier."""
    carrier: bool | None = None
    mii: Mii | None = None
    """What the bond's own monitoring thinks of the link."""
    state: PortState | None = None
    """active or backup. In balance-rr and balance-xor a dead port stays active."""
    speed_mbps: int | None = None
    duplex: str | None = None
    link_failures: int | None = None
    """Failures that the bond's monitoring saw."""
    carrier_downs: int | None = None
    """Times that the carrier went, also between two readings."""
    aggregator: int | None = None
    actor_state: int | None = None
    """Bits of our own LACP port state."""
    partner_state: int | None = None
    """Bits of the partner's, as it last told."""
    churn_actor: Churn | None = None
    churn_partner: Churn | None = None
    partner_mac: str | None = None
    """Partner's system; only where the kernel shows it (with privileges)."""
    index: int | None = None
    """The kernel's number of the device. It stays when the device is renamed, and no other has it before a reboot."""
    gone_since: float | None = None
    """Set: it was a port of the bond and is none any more, since then (seconds since the epoch)."""
    gone_to: str = ""
    """The bond that it is a port of now."""


@dataclass(frozen=True)
class BondReading:
    """One bond."""

    name: str
    mode: BondMode | None = None
    admin_up: bool | None = None
    carrier: bool | None = None
    mii: Mii | None = None
    miimon: int | None = None
    """Milliseconds between looks at the links; 0: off."""
    arp_interval: int | None = None
    """Milliseconds between ARP probes; 0: off."""
    min_links: int | None = None
    active_slave: str | None = None
    aggregator: int | None = None
    """Active aggregator; None also while there is none."""
    partner_mac: str | None = None
    """Partner's system of the active aggregator."""
    lacp_rate: str | None = None
    """fast (1 s) or slow (30 s)."""
    ports: tuple[PortReading, ...] = ()
    ports_known: bool = True
    """False: there may be more ports than are listed."""
    exists: bool = True
    """False: the spec names the bond, or it was there before, and the kernel does not have it."""
    gone_since: float | None = None
    """Set: it was there until then (seconds since the epoch)."""
    index: int | None = None
    """The kernel's number of the device, as for ports."""
    carries: tuple[str, ...] = ()
    """Devices on top of it: bridges that it is a port of, its VLANs, and theirs."""

    @property
    def is_lacp(self) -> bool:
        """Whether ports are chosen by LACP."""
        return self.mode == LACP


@dataclass(frozen=True)
class HostReading:
    """All bonds of a host."""

    at: float
    """Seconds since the epoch."""
    bonds: tuple[BondReading, ...] = ()
    default_devices: tuple[str, ...] = ()
    """Devices of the default routes, the preferred one first."""
    trouble: str = ""
    """Why nothing could be read; empty: it could."""
    boot: str = ""
    """Which start of the kernel this is (boot_id): indexes and counters are of it; empty: not known."""


@dataclass(frozen=True)
class BondSettings:
    """How readings are judged."""

    hold_seconds: float = 10.0
    """A better verdict is published after so long without a worse one."""
    flapping_window_seconds: float = 60.0
    flapping_downs: int = 3
    """Losses of a port's carrier within the window that count as flapping."""


@dataclass(frozen=True)
class Counted:
    """A counter's value at a time."""

    at: float
    count: int


@dataclass(frozen=True)
class Gone:
    """When something was missed first."""

    at: float
    """From when on its absence counts: seconds of the clock that readings are judged by, which is never set."""
    since: float
    """When that was, to show: seconds since the epoch."""


@dataclass(frozen=True)
class PortMemory:
    """What is remembered of a port."""

    carrier: bool | None = None
    carrier_up_at: float | None = None
    """When the carrier came back, as far as that was seen."""
    counter: str = ""
    """Which counter `downs` holds: the kernels that lack the one have the other."""
    downs: tuple[Counted, ...] = ()
    gone: Gone | None = None
    """Set: it is not a port of the bond any more."""
    index: int | None = None


@dataclass(frozen=True)
class Sighting:
    """A verdict that was found."""

    last: float
    message: str
    keep: float = 0.0
    """Seconds that it counts at least, if that is longer than the hold."""


@dataclass(frozen=True)
class BondMemory:
    """What is remembered of a bond. Times are those of a clock that is never set, but for `since`."""

    published: BondVerdict | None = None
    since: float = 0.0
    """Seconds since the epoch."""
    seen: Mapping[BondVerdict, Sighting] = field(default_factory=dict)
    mismatch_since: float | None = None
    ports: Mapping[str, PortMemory] = field(default_factory=dict)
    """By the names that they have now, or had when they were ports."""
    index: int | None = None


@dataclass(frozen=True)
class PortJudgement:
    """One port."""

    name: str
    usable: bool | None
    """Whether it can carry traffic; None: no data that would tell."""
    trouble: str
    """Why it is not, or may not be, usable; empty: it is."""


@dataclass(frozen=True)
class Judgement:
    """One bond."""

    reading: BondReading
    """With the ports that are gone."""
    verdict: BondVerdict
    """To publish."""
    found: BondVerdict
    """As the reading alone has it; better than `verdict` while that is held."""
    reasons: tuple[BondVerdict, ...]
    """Every rule that matches the reading, the most important first."""
    message: str
    notes: tuple[str, ...]
    active: int
    """Ports that are usable."""
    total: int
    """Ports that there should be: as many as the spec expects, and at least as many as there are. Where the spec says
    nothing, those count that went away within the last hour and have not been replaced since."""
    since: float
    """Seconds since the epoch at which `verdict` was first published."""
    ports: tuple[PortJudgement, ...]
    memory: BondMemory

    @property
    def held(self) -> bool:
        """Whether the reading is better than what is published."""
        return self.verdict != self.found


SEVERITY: tuple[BondVerdict, ...] = get_args(BondVerdict)
"""From the best to the worst."""

_GOOD = ("Healthy", "Recovering")


def rank(verdict: BondVerdict) -> int:
    """What a host is worth to placement: Healthy and Recovering 3, impaired 2, Unknown 1, Down 0.

    None counts as 3: a host without a bond has chosen to have none, and preferring others would only move load away
    from hosts that are as good as they ever were.
    """
    if verdict in (*_GOOD, "None"):
        return 3
    return {"Unknown": 1, "Down": 0}.get(verdict, 2)


def is_good(verdict: BondVerdict) -> bool:
    """Whether the bond does all that it should, if only since a moment ago."""
    return verdict in _GOOD
