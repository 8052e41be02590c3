"""The ordered rules: which verdicts a reading deserves, and what to say about it. First match first.

Sources: IEEE 802.1AX (port states, churn), the kernel's Documentation/networking/bonding.rst (min_links, miimon,
arp_interval), if_link.h. A rule matches only what is known for certain; what is not known ends in Unknown.

Recovering comes last: it is the verdict while every port is usable and one's link came back a moment ago. A port that
still waits, for its updelay or for LACP, is not usable, so its bond is Degraded, with Recovering among the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luban.api.host import BondVerdict
from luban.core.bonds.model import (
    ACTIVE_BACKUP,
    AGGREGATING,
    DEFAULTED,
    EXPIRED,
    FLOWING,
    IN_SYNC,
    NO_PARTNER,
    BondReading,
    BondSettings,
    PortJudgement,
    PortReading,
)

NAMED_PORTS = 4
"""Ports that a message tells about; it counts the others."""
SILENT_PATH = "SilentPathUnverified"
"""Note: only LACP and ARP probes notice a path that stays up and carries nothing."""


@dataclass(frozen=True)
class History:
    """What the rules need to know about the past."""

    mismatch_lasts: bool = False
    """Ports have been in different aggregators for long enough to believe it."""
    flaps: tuple[tuple[str, int], ...] = ()
    """Ports that flap, each with how often its carrier went within the window."""
    recovering: tuple[str, ...] = ()
    """Ports whose carrier came back a moment ago."""


@dataclass(frozen=True)
class Match:
    """A rule that matches."""

    verdict: BondVerdict
    message: str


@dataclass(frozen=True)
class _Case:
    """A reading with what follows from it at once."""

    bond: BondReading
    ports: tuple[PortJudgement, ...]
    total: int
    history: History
    settings: BondSettings

    def count(self, usable: bool | None) -> int:
        """Ports that are usable, are not, or may be (None)."""
        return sum(port.usable is usable for port in self.ports)

    @property
    def tally(self) -> str:
        """How much is left, as the end of a sentence."""
        words = "can carry traffic" if self.bond.mode == ACTIVE_BACKUP else "carry traffic"
        maybe = f" for certain, of {self.count(None)} nothing is known" if self.count(None) else ""
        return f"{self.count(True)} of {self.total} ports {words}{maybe}"

    @property
    def troubles(self) -> str:
        """What is wrong with which port."""
        return listed([f"{port.name}: {port.trouble}" for port in self.ports if port.trouble])

    def told(self, text: str) -> str:
        """`text` and how much is left."""
        return f"{text}, {self.tally}" if text else self.tally


def listed(items: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = len(items) - NAMED_PORTS
    return "; ".join([*items[:NAMED_PORTS], *([f"and {more} more"] if more > 0 else [])])


def port_judgement(port: PortReading, bond: BondReading) -> PortJudgement:
    """Whether a port can carry traffic. What is bad for certain outweighs what is not known."""
    if port.gone_since is not None:
        where = f"a port of {port.gone_to} now" if port.gone_to else "not a port of the bond any more"
        return PortJudgement(port.name, False, where)
    checks = [*_link_checks(port, bond), *(_lacp_checks(port, bond) if bond.is_lacp else ())]
    for good, text in checks:
        if good is False:
            return PortJudgement(port.name, False, text)
    if missing := [text for good, text in checks if good is None]:
        return PortJudgement(port.name, None, "no data: " + ", ".join(missing))
    return PortJudgement(port.name, True, "")


def linked(port: PortReading) -> bool:
    """Whether the link is up as far as is known: a port without a link cannot be blamed for a silent partner."""
    return port.admin_up is not False and port.carrier is not False and port.mii in ("up", None)


def is_defaulted(port: PortReading) -> bool:
    """Whether the port has no LACP partner, for certain."""
    return bool((port.actor_state or 0) & DEFAULTED) or port.partner_state == 0


def is_individual(port: PortReading) -> bool:
    """Whether LACP lets the port carry traffic, and one of its ends does not let it be bundled with others."""
    ends = [bits for bits in (port.actor_state, port.partner_state) if bits is not None]
    flows = all(bits & FLOWING == FLOWING and not bits & (EXPIRED | DEFAULTED) for bits in ends)
    return flows and any(not bits & AGGREGATING for bits in ends)


def _link_checks(port: PortReading, bond: BondReading) -> Iterator[tuple[bool | None, str]]:
    """Each with whether it is good (None: no data), and what to say if it is not."""
    yield port.admin_up, "flags" if port.admin_up is None else "administratively down"
    yield port.carrier, "carrier" if port.carrier is None else "no carrier"
    if port.mii is None:
        yield None, "MII status"
    else:
        yield port.mii == "up", f"MII {port.mii}"
    if bond.mode is None:
        yield None, "mode of the bond"


def _lacp_checks(port: PortReading, bond: BondReading) -> Iterator[tuple[bool | None, str]]:
    yield from _lacp_state_checks(port)
    if port.aggregator is None or bond.aggregator is None:
        yield None, "aggregator"
    else:
        same = port.aggregator == bond.aggregator
        yield same, f"in aggregator {port.aggregator}, the active one is {bond.aggregator}"
    if port.state is None:
        yield None, "state"
    else:
        yield port.state == "active", f"not chosen by LACP (state {port.state})"


def _lacp_state_checks(port: PortReading) -> Iterator[tuple[bool | None, str]]:
    actor, partner, alone = port.actor_state, port.partner_state, _why_alone(port)
    if actor is None:
        yield None, "LACP actor state"
    else:
        yield not actor & EXPIRED, f"LACP partner does not answer (actor EXPIRED {actor:#04x})"
        yield not actor & DEFAULTED, f"{alone} (actor DEFAULTED {actor:#04x})"
        yield actor & FLOWING == FLOWING, f"LACP is not in step yet (actor {actor:#04x})"
    if partner is None:
        yield None, "LACP partner state"
    else:
        yield partner != 0, f"{alone} (partner state 0)"
        yield not partner & (EXPIRED | DEFAULTED), f"LACP partner does not hear us (partner {partner:#04x})"
        yield partner & FLOWING == FLOWING, f"LACP partner is not in step yet (partner {partner:#04x})"


def _why_alone(port: PortReading) -> str:
    """Why a port has no LACP partner: the kernel speaks no LACP on a port that is not full duplex."""
    return "half duplex, LACP needs full duplex" if port.duplex == "half" else "no LACP partner"


def is_fallback(port: PortReading, bond: BondReading) -> bool:
    """Whether the bond lets this one port carry traffic although nobody speaks LACP at its other end.

    The kernel enables the port of the best aggregator then, with actor state 0x4f: defaulted, but in sync.
    """
    return (
        bond.is_lacp
        and linked(port)
        and port.mii == "up"
        and port.state == "active"
        and bool(port.actor_state and port.actor_state & IN_SYNC and not port.actor_state & EXPIRED)
        and is_defaulted(port)
        and port.aggregator is not None
        and port.aggregator == bond.aggregator
    )


def mismatch(bond: BondReading) -> tuple[PortReading, ...]:
    """LACP ports with a link and a real partner, if they are in different aggregators; else none."""
    real = tuple(
        port
        for port in bond.ports
        if linked(port)
        and port.carrier
        and port.partner_state
        and port.actor_state is not None
        and not port.actor_state & DEFAULTED
        and port.aggregator is not None
    )
    return real if bond.is_lacp and len({port.aggregator for port in real}) > 1 else ()


def matches(
    bond: BondReading, ports: tuple[PortJudgement, ...], total: int, history: History, settings: BondSettings
) -> tuple[Match, ...]:
    """Every rule that matches, the most important first; Healthy alone if none does."""
    case = _Case(bond, ports, total, history, settings)
    found = tuple(_matches(case))
    return found or (Match("Healthy", case.tally),)


def notes(bond: BondReading) -> tuple[str, ...]:
    """What is worth knowing and changes no verdict."""
    checked = bond.mode is None or bond.is_lacp or bool(bond.arp_interval)
    return () if checked or not bond.exists else (SILENT_PATH,)


def _matches(case: _Case) -> Iterator[Match]:
    bond = case.bond
    if not bond.exists:
        yield Match("Down", "there is no such bond on this host" + (" any more" if bond.gone_since is not None else ""))
        return
    yield from _down(case)
    if bond.is_lacp:
        if _too_few_links(case):
            yield Match("MinLinksNotMet", case.told(_min_links(bond)))
        yield from _lacp(case)
    if case.count(True) + case.count(None) < case.total:
        yield Match("Degraded", case.told(case.troubles or _absent(case)))
    if case.history.flaps:
        window = f"within {case.settings.flapping_window_seconds:g} s"
        flaps = [f"{port}: carrier lost {count} times {window}" for port, count in case.history.flaps]
        yield Match("Flapping", case.told(listed(flaps)))
    yield from _monitoring(case)
    # No data is never good: it comes before Recovering.
    missing = _missing(case)
    if missing and not _may_be_down(case):
        yield Match("Unknown", case.told(missing))
    back = [port.name for port in bond.ports if port.mii == "going-back" or port.name in case.history.recovering]
    if back:
        yield Match("Recovering", case.told(listed([f"{name}: link is coming back" for name in back])))


def _too_few_links(case: _Case) -> bool:
    """Whether LACP lacks the links that it must have: min_links means nothing in the other modes."""
    return bool(case.bond.is_lacp and case.bond.min_links) and (
        case.count(True) + case.count(None) < (case.bond.min_links or 0)
    )


def _min_links(bond: BondReading) -> str:
    return f"{bond.min_links} links are the minimum (min_links)"


def _down(case: _Case) -> Iterator[Match]:
    """Down for certain; or Unknown, if down is possible: that weighs more than any impairment."""
    bond = case.bond
    if bond.admin_up is False:
        yield Match("Down", case.told("the bond is administratively down"))
    elif bond.ports_known and all(port.gone_since is not None for port in bond.ports):
        yield Match("Down", "the bond has no ports")
    elif bond.carrier is False:
        yield Match("Down", case.told(_no_carrier(case)))
    elif _may_be_down(case):
        yield Match("Unknown", case.told(_missing(case) or case.troubles))
    elif not case.count(True) and not _fallbacks(case):
        yield Match("Down", case.told(case.troubles))
    elif bond.mode == ACTIVE_BACKUP and all(port.state == "backup" for port in bond.ports if port.gone_since is None):
        yield Match("Down", case.told("no port is the active one"))


def _no_carrier(case: _Case) -> str:
    """Why the bond has no carrier: the kernel also takes it away from a bond of good ports that are too few."""
    if case.count(True) and _too_few_links(case):
        text = f"the kernel keeps the bond down, {_min_links(case.bond)}"
        return f"{text} ({case.troubles})" if case.troubles else text
    return case.troubles or "the bond has no carrier"


def _may_be_down(case: _Case) -> bool:
    """Whether no port is known to carry traffic, but one may that we know too little about."""
    if case.count(True) or _fallbacks(case):
        return False
    return bool(case.count(None)) or not case.bond.ports_known


def _fallbacks(case: _Case) -> list[str]:
    return [port.name for port in case.bond.ports if is_fallback(port, case.bond)]


def _lacp(case: _Case) -> Iterator[Match]:
    bond = case.bond
    lost = [port for port in bond.ports if linked(port) and is_defaulted(port)]
    single = [port for port in bond.ports if linked(port) and is_individual(port)]
    if lost or single or bond.partner_mac == NO_PARTNER:
        yield Match("NoPartner", case.told(_no_partner(case, lost, single)))
    expired = [port for port in bond.ports if port.mii == "up" and (port.actor_state or 0) & EXPIRED]
    if expired:
        texts = [
            f"{port.name}: LACP partner does not answer (actor EXPIRED {port.actor_state:#04x})" for port in expired
        ]
        yield Match("LACPTimeout", case.told(listed(texts)))
    if case.history.mismatch_lasts and (split := mismatch(bond)):
        yield _mismatch(case, split)
    churned = [port.name for port in bond.ports if "churned" in (port.churn_actor, port.churn_partner)]
    if churned:
        # The kernel says so after a minute without agreement: no need for a clock of our own.
        texts = [f"{name}: LACP has not reached agreement for a minute (churned)" for name in churned]
        yield Match("Churned", case.told(listed(texts)))


def _no_partner(case: _Case, lost: Sequence[PortReading], single: Sequence[PortReading]) -> str:
    texts = [
        *(f"{port.name}: {_why_alone(port)} ({_states(port)})" for port in lost),
        *(f"{port.name}: no LACP partner that aggregates ({_states(port)})" for port in single),
    ]
    text = listed(texts) or f"no LACP partner (partner MAC {NO_PARTNER})"
    fallback = _fallbacks(case)
    return f"{text}; {fallback[0]} alone lets traffic through, unaggregated" if fallback else text


def _states(port: PortReading) -> str:
    known = (("actor", port.actor_state), ("partner", port.partner_state))
    return ", ".join(f"{side} {bits:#04x}" for side, bits in known if bits is not None)


def _mismatch(case: _Case, split: Sequence[PortReading]) -> Match:
    """The same partner with ports that differ in speed or duplex, or ports that lead to different partners.

    Without privileges the kernel does not show each port's partner: then a difference in speed decides.
    """
    partners = {port.partner_mac for port in split if port.partner_mac}
    speeds = {port.speed_mbps for port in split if port.speed_mbps is not None}
    duplexes = {port.duplex for port in split if port.duplex is not None}
    if len(partners) < 2 and (len(speeds) > 1 or len(duplexes) > 1):
        texts = [f"{port.name}: {port.speed_mbps} Mb/s {port.duplex} duplex" for port in split]
        return Match("SpeedMismatch", case.told(f"LACP does not aggregate unlike ports ({listed(texts)})"))
    texts = [f"{port.name}: aggregator {port.aggregator}" for port in split]
    return Match("AggregatorMismatch", case.told(f"ports lead to different LACP partners ({listed(texts)})"))


def _absent(case: _Case) -> str:
    return f"{case.total} ports are expected, the bond has {len(case.bond.ports)}"


def _monitoring(case: _Case) -> Iterator[Match]:
    if case.bond.miimon == 0 and case.bond.arp_interval == 0:
        yield Match(
            "MonitoringDisabled",
            case.told("neither miimon nor arp_interval is set, so the bond does not watch its links"),
        )


def _missing(case: _Case) -> str:
    """What would have to be known to call the bond healthy; empty: all is."""
    bond = case.bond
    facts = (
        ("the list of ports", bond.ports_known),
        ("the mode", bond.mode is not None),
        ("the carrier", bond.carrier is not None),
        ("whether links are monitored", _monitoring_known(bond)),
    )
    texts = [f"{port.name}: {port.trouble}" for port in case.ports if port.usable is None]
    lacking = [name for name, known in facts if not known]
    if lacking:
        texts.append(f"{bond.name}: no data about {', '.join(lacking)}")
    return listed(texts)


def _monitoring_known(bond: BondReading) -> bool:
    if bond.miimon or bond.arp_interval:
        return True
    return bond.miimon is not None and bond.arp_interval is not None
