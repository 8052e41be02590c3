"""Bonds from /sys/class/net and /proc/net/bonding alone: the way round a kernel or a sandbox without netlink.

Files are those of Documentation/ABI/testing/sysfs-class-net and of the bonding driver (bonding.rst).
"""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from luban.adapters.kernel_bonds import procfs
from luban.adapters.kernel_bonds.device_names import is_device_name, readable
from luban.adapters.kernel_bonds.files import SysNet, mac_of, names_in, read, unsigned
from luban.adapters.kernel_bonds.wire import IFF_UP
from luban.api.host import BondMode, PortState
from luban.core.bonds.model import BondReading, PortReading

_Reading = TypeVar("_Reading", BondReading, PortReading)
_LONGEST_STACK = 64
"""Devices on top of a bond that are looked at."""


def bond_names(proc: Path, sysnet: SysNet) -> list[bytes]:
    """Names of all bonds."""
    listed = sysnet.bonds()
    if listed is None:
        listed = [name for name in names_in(proc / "net" / "bonding") if is_device_name(name)]
    return listed


def read_bond(name: bytes, proc: Path, sysnet: SysNet) -> BondReading:
    """One bond: what sysfs says, and what only /proc does."""
    base = _from_sysfs(name, sysnet)
    data = read(proc / "net" / "bonding" / os.fsdecode(name)) if is_device_name(name) else None
    return base if data is None else fill(base, procfs.parse(base.name, data))


def fill(base: BondReading, other: BondReading) -> BondReading:
    """`base`, and where it has no data that of `other`. Ports only of `other` are added if base may lack some."""
    others = {port.name: port for port in other.ports}
    ports = [_fill(port, others.pop(port.name, port)) for port in base.ports]
    if not base.ports_known:
        ports += others.values()
    return replace(_fill(base, other), ports=tuple(ports))


def _fill(base: _Reading, other: _Reading) -> _Reading:
    lacking = [item.name for item in fields(base) if getattr(base, item.name) is None]
    changes: dict[str, Any] = {name: getattr(other, name) for name in lacking}
    return replace(base, **changes)


def _from_sysfs(name: bytes, sysnet: SysNet) -> BondReading:
    ports = sysnet.words(name, "bonding", "slaves")
    mii = procfs.MII.get(sysnet.text(name, "bonding", "mii_status") or "")
    lacp_rate = _word(sysnet.text(name, "bonding", "lacp_rate"))
    active = sysnet.words(name, "bonding", "active_slave")
    return BondReading(
        name=readable(name),
        mode=_mode(_word(sysnet.text(name, "bonding", "mode"))),
        admin_up=_admin_up(name, sysnet),
        carrier=_flag(sysnet.text(name, "carrier")),
        mii=mii,
        miimon=sysnet.number(name, "bonding", "miimon"),
        arp_interval=sysnet.number(name, "bonding", "arp_interval"),
        min_links=sysnet.number(name, "bonding", "min_links"),
        active_slave=readable(active[0]) if active else None,
        aggregator=sysnet.number(name, "bonding", "ad_aggregator"),
        partner_mac=mac_of(sysnet.text(name, "bonding", "ad_partner_mac")),
        lacp_rate=lacp_rate if lacp_rate in ("fast", "slow") else None,
        ports=tuple(_port(port, sysnet) for port in dict.fromkeys(ports or ())),
        ports_known=ports is not None,
        index=sysnet.index(name),
        carries=tuple(readable(upper) for upper in _stack(name, sysnet)),
    )


def _port(name: bytes, sysnet: SysNet) -> PortReading:
    state = sysnet.text(name, "bonding_slave", "state")
    return PortReading(
        name=readable(name),
        admin_up=_admin_up(name, sysnet),
        carrier=_flag(sysnet.text(name, "carrier")),
        mii=procfs.MII.get(sysnet.text(name, "bonding_slave", "mii_status") or ""),
        state=state if state in get_args(PortState) else None,  # type: ignore[arg-type]
        speed_mbps=sysnet.speed(name),
        duplex=sysnet.duplex(name),
        link_failures=sysnet.number(name, "bonding_slave", "link_failure_count"),
        carrier_downs=sysnet.number(name, "carrier_down_count"),
        aggregator=sysnet.number(name, "bonding_slave", "ad_aggregator_id"),
        actor_state=_bits(sysnet.number(name, "bonding_slave", "ad_actor_oper_port_state")),
        partner_state=_bits(sysnet.number(name, "bonding_slave", "ad_partner_oper_port_state")),
        index=sysnet.index(name),
    )


def _stack(name: bytes, sysnet: SysNet) -> list[bytes]:
    """Devices on top of `name`, directly or not."""
    found: dict[bytes, None] = {}
    waiting = [name]
    while waiting and len(found) < _LONGEST_STACK:
        for upper in sysnet.uppers(waiting.pop()):
            if upper not in found:
                found[upper] = None
                waiting.append(upper)
    return list(found)


def _admin_up(name: bytes, sysnet: SysNet) -> bool | None:
    flags = unsigned(sysnet.text(name, "flags"))
    return None if flags is None else bool(flags & IFF_UP)


def _bits(number: int | None) -> int | None:
    """The eight bits of an LACP port state."""
    return number if number is not None and number <= 0xFF else None


def _flag(text: str | None) -> bool | None:
    return {"0": False, "1": True}.get(text or "")


def _word(text: str | None) -> str:
    """The word of an option such as "802.3ad 4"."""
    return (text or "").partition(" ")[0]


def _mode(word: str) -> BondMode | None:
    return word if word in get_args(BondMode) else None  # type: ignore[return-value]
