"""The LubanHost's status from a judgement. Pure. What a host can show is bounded, however odd the host."""

from __future__ import annotations

from collections.abc import Sequence

from luban import __version__
from luban.api.common import Condition
from luban.api.host import (
    LONGEST_NAME,
    BondPortStatus,
    BondStatus,
    BondSummary,
    LubanHostSpec,
    LubanHostStatus,
)
from luban.core.bonds.host import BondExpectation, HostJudgement
from luban.core.bonds.model import ACTIVE_BACKUP, BondSettings, Judgement, PortJudgement, PortReading, is_good
from luban.core.times import rfc3339
from luban.node_agent.limits import legible, shown_bonds, shown_ports

CONDITION = "BondHealthy"
PORTS_OMITTED = "PortsOmitted"
BONDS_OMITTED = "BondsOmitted"


def expectation_of(spec: LubanHostSpec) -> BondExpectation:
    """What a spec means for the verdicts."""
    return BondExpectation(
        bond=spec.bond,
        expected_ports={item.bond: item.ports for item in spec.expected_ports},
        settings=BondSettings(
            hold_seconds=spec.hold.seconds,
            flapping_window_seconds=spec.flapping.window.seconds,
            flapping_downs=spec.flapping.downs,
        ),
    )


def status_of(judgement: HostJudgement, before: LubanHostStatus | None, generation: int, now: float) -> LubanHostStatus:
    """The status without the time of the report. `before` is the last one: its condition may go on."""
    shown = shown_bonds(judgement)
    return LubanHostStatus(
        observed_generation=generation,
        agent_version=_name(__version__),
        boot_id=judgement.memory.boot or None,
        bond=_summary(judgement),
        bonds=tuple(_bond(bond) for bond in shown),
        notes=(BONDS_OMITTED,) if len(shown) < len(judgement.bonds) else (),
        conditions=(_condition(judgement, before, generation, now),),
    )


def verdicts_of(status: LubanHostStatus) -> Sequence[object]:
    """What is too important to wait for the next write's turn. Which bond counts is not: it follows a route's flaps."""
    return [
        status.bond and status.bond.verdict,
        *((bond.name, bond.verdict) for bond in status.bonds),
    ]


def _summary(judgement: HostJudgement) -> BondSummary:
    bond = judgement.primary
    if bond is None:
        return BondSummary(name="", verdict=judgement.verdict, active=0, total=0, ports="0/0")
    return BondSummary(
        name=_name(bond.reading.name),
        verdict=bond.verdict,
        chosen_by=judgement.chosen_by,
        mode=bond.reading.mode,
        active=bond.active,
        total=bond.total,
        ports=f"{bond.active}/{bond.total}",
        speed=_speed(bond),
        since=rfc3339(bond.since),
    )


def _speed(bond: Judgement) -> int | None:
    """Mb/s of the ports that carry traffic; None if one's is not known, or there is none."""
    usable = {port.name for port in bond.ports if port.usable}
    if bond.reading.mode == ACTIVE_BACKUP:
        usable &= {bond.reading.active_slave or ""}
    speeds = [port.speed_mbps for port in bond.reading.ports if port.name in usable]
    known = [speed for speed in speeds if speed is not None]
    return sum(known) if known and len(known) == len(speeds) else None


def _condition(judgement: HostJudgement, before: LubanHostStatus | None, generation: int, now: float) -> Condition:
    verdict, bond = judgement.verdict, judgement.primary
    status = "Unknown" if verdict in ("Unknown", "None") else str(is_good(verdict))
    nothing = judgement.trouble or "the node has no bond"
    message = f"{bond.reading.name}: {bond.message}" if bond else nothing
    old = next((one for one in before.conditions if one.type == CONDITION), None) if before else None
    return Condition(
        type=CONDITION,
        status=status,
        reason="NoBond" if verdict == "None" else verdict,
        message=legible(message),
        last_transition_time=old.last_transition_time if old and old.status == status else rfc3339(now),
        observed_generation=generation,
    )


def _bond(bond: Judgement) -> BondStatus:
    reading = bond.reading
    ports = shown_ports(bond)
    return BondStatus(
        name=_name(reading.name),
        if_index=bond.memory.index,
        verdict=bond.verdict,
        reasons=bond.reasons,
        message=legible(bond.message),
        notes=(*bond.notes, *([PORTS_OMITTED] if len(ports) < len(reading.ports) else [])),
        since=rfc3339(bond.since),
        mode=reading.mode,
        mii_status=reading.mii,
        miimon=reading.miimon,
        arp_interval=reading.arp_interval,
        min_links=reading.min_links,
        lacp_rate=reading.lacp_rate if reading.is_lacp else None,
        active_slave=_name(reading.active_slave) if reading.active_slave is not None else None,
        aggregator=reading.aggregator,
        partner_mac=reading.partner_mac,
        active=bond.active,
        total=bond.total,
        ports=tuple(_port(port, judged) for port, judged in ports),
        gone_since=_time(reading.gone_since),
    )


def _port(port: PortReading, judged: PortJudgement) -> BondPortStatus:
    return BondPortStatus(
        name=_name(port.name),
        if_index=port.index,
        usable=judged.usable,
        message=legible(judged.trouble),
        admin_up=port.admin_up,
        carrier=port.carrier,
        state=port.state,
        mii_status=port.mii,
        speed=port.speed_mbps,
        duplex=port.duplex,
        link_failures=port.link_failures,
        carrier_downs=port.carrier_downs,
        aggregator=port.aggregator,
        actor_state=_hexadecimal(port.actor_state),
        partner_state=_hexadecimal(port.partner_state),
        actor_churn=port.churn_actor,
        partner_churn=port.churn_partner,
        partner_mac=port.partner_mac,
        gone_since=_time(port.gone_since),
    )


def _hexadecimal(bits: int | None) -> str | None:
    return None if bits is None else f"{bits:#04x}"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def _name(text: str) -> str:
    return legible(text, LONGEST_NAME)
