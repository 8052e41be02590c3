"""From the kernel's list of links to readings of bonds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from luban.adapters.kernel_bonds.device_names import readable
from luban.adapters.kernel_bonds.wire import Link
from luban.api.host import BondMode, Churn, Mii, PortState
from luban.core.bonds.model import BondReading, PortReading

Speed = tuple[int | None, str | None]
"""Mb/s and duplex."""
_Word = TypeVar("_Word", bound=str)

_MODES: Final[tuple[BondMode, ...]] = (
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
)
"""BOND_MODE_* of if_bonding.h."""
_MII: Final[tuple[Mii, ...]] = ("up", "going-down", "down", "going-back")
"""BOND_LINK_*."""
_STATES: Final[tuple[PortState, ...]] = ("active", "backup")
_CHURN: Final[tuple[Churn, ...]] = ("monitoring", "churned", "none")
_RATES = ("slow", "fast")


def bond_readings(links: Sequence[Link], speed: Callable[[Link], Speed]) -> tuple[BondReading, ...]:
    """The bonds among the links of a host. `speed` is asked for ports only."""
    by_index = {link.index: link for link in links}
    ports: dict[int, list[Link]] = {}
    above: dict[int, list[int]] = {}
    for link in links:
        if link.master is not None:
            # Whatever has a bond as its master is a port, also where an old kernel tells no more about it.
            ports.setdefault(link.master, []).append(link)
            above.setdefault(link.index, []).append(link.master)
        if link.lower is not None:
            above.setdefault(link.lower, []).append(link.index)
    return tuple(
        _bond(link, ports.get(link.index, ()), _stack(link.index, above, by_index), by_index, speed)
        for link in links
        if link.bond is not None
    )


def relevant(links: Sequence[Link]) -> frozenset[int]:
    """Indexes of bonds and ports: events about them matter even if they say nothing about bonding any more."""
    bonds = {link.index for link in links if link.bond is not None}
    return frozenset(link.index for link in links if link.index in bonds or link.master in bonds)


def _stack(index: int, above: Mapping[int, list[int]], by_index: Mapping[int, Link]) -> tuple[str, ...]:
    """Names of the devices on top of one."""
    found: dict[int, None] = {}
    waiting = [index]
    while waiting:
        for upper in above.get(waiting.pop(), ()):
            if upper not in found and upper != index:
                found[upper] = None
                waiting.append(upper)
    return tuple(readable(by_index[upper].name) for upper in found if upper in by_index)


def _bond(
    link: Link,
    ports: Sequence[Link],
    carries: tuple[str, ...],
    by_index: Mapping[int, Link],
    speed: Callable[[Link], Speed],
) -> BondReading:
    numbers = link.bond.numbers if link.bond else {}
    active = by_index.get(numbers.get("active_slave", 0))
    return BondReading(
        name=readable(link.name),
        mode=_word(_MODES, numbers.get("mode")),
        admin_up=link.admin_up,
        carrier=link.carrier,
        # The driver has no other MII status of a bond than its carrier.
        mii=None if link.carrier is None else ("up" if link.carrier else "down"),
        miimon=numbers.get("miimon"),
        arp_interval=numbers.get("arp_interval"),
        min_links=numbers.get("min_links"),
        active_slave=readable(active.name) if active else None,
        aggregator=numbers.get("aggregator"),
        partner_mac=link.bond.partner_mac if link.bond else None,
        lacp_rate=_word(_RATES, numbers.get("lacp_rate")),
        index=link.index,
        ports=tuple(_port(port, speed(port)) for port in sorted(ports, key=lambda one: one.name)),
        carries=carries,
    )


def _port(link: Link, speed: Speed) -> PortReading:
    numbers = link.port or {}
    return PortReading(
        name=readable(link.name),
        admin_up=link.admin_up,
        carrier=link.carrier,
        mii=_word(_MII, numbers.get("mii")),
        state=_word(_STATES, numbers.get("state")),
        speed_mbps=speed[0],
        duplex=speed[1],
        link_failures=numbers.get("link_failures"),
        carrier_downs=link.carrier_downs,
        aggregator=numbers.get("aggregator"),
        actor_state=numbers.get("actor_state"),
        partner_state=numbers.get("partner_state"),
        churn_actor=_word(_CHURN, numbers.get("churn_actor")),
        churn_partner=_word(_CHURN, numbers.get("churn_partner")),
        index=link.index,
    )


def _word(words: Sequence[_Word], number: int | None) -> _Word | None:
    """The word for a number of the kernel; None: no data, or a number of a newer kernel."""
    return words[number] if number is not None and 0 <= number < len(words) else None
