"""Addresses of a host's domains: what DHCP leases and guest agents say, and what of it can be believed.

A guest says what it likes, and a lease ends without a word. So an address counts only if it can be a member's, only as
long as its source says so, and for one domain alone. Nothing here raises over what a guest says.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

LEASE_RETRY = 1.0
"""Seconds between two looks at a network's DHCP leases while the address of a domain on it is not known."""
LEASE_REFRESH = 5.0
"""Seconds between two such looks otherwise: a lease that has ended is believed for no longer."""
AGENT_RETRY = 5.0
"""Seconds between two questions to the guest agent of a domain whose address is not known."""
REFRESH = 60.0
"""Seconds between two questions about one domain whose address is known: it hardly ever changes."""
STALE = 3 * REFRESH
"""An address that an agent has not repeated for so many seconds goes to whoever claims it, too."""
NEVER = float("-inf")

Interfaces = Mapping[str, Mapping[str, Any]]
"""As virDomain.interfaceAddresses returns it: by interface name, `hwaddr` and `addrs` (`addr`, `prefix`, `type`)."""


@dataclass(frozen=True)
class Nic:
    """A domain's network interface, as its XML describes it."""

    mac: str
    network: str = ""
    """libvirt network whose DHCP server may know its address; empty: a bridge, of which libvirt knows nothing."""


@dataclass(frozen=True)
class Lease:
    """What a DHCP server gave."""

    address: str
    prefix: int = 0
    expires: float = 0.0
    """Of two leases the later one is the newer one."""


@dataclass(frozen=True)
class Answer:
    """What libvirt or an agent says of one interface."""

    address: str = ""
    """The first one that can be a member's; empty: none."""
    complaint: str = ""
    """What was left out, and why."""


@lru_cache(maxsize=4096)
def unfit(address: object, prefix: object = 0) -> str:
    """Why an address cannot be a member's, in words; empty: it can. `prefix`: length of its network's, 0: unknown."""
    try:
        parsed = ipaddress.IPv4Address(address if isinstance(address, str) else "")
    except ValueError:
        return "not an IPv4 address"
    if parsed in _THIS_NETWORK:
        return "unspecified"
    for kind in ("loopback", "link_local", "multicast", "reserved"):
        if getattr(parsed, f"is_{kind}"):
            return kind.replace("_", "-")
    return _unfit_in_network(parsed, prefix)


_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")


def _unfit_in_network(address: ipaddress.IPv4Address, prefix: object) -> str:
    """Networks of 31 and 32 bits have neither a broadcast address nor one of their own."""
    if not isinstance(prefix, int) or not 0 < prefix < 31:
        return ""
    network = ipaddress.IPv4Network((address, prefix), strict=False)
    if address == network.broadcast_address:
        return "broadcast"
    return "its network's own" if address == network.network_address else ""


def answer_for(interfaces: Interfaces | None, mac: str) -> Answer:
    """What is said of the interface with that MAC address.

    Other interfaces are the guest's own business: container bridges, tunnels. So are its IPv6 addresses.
    """
    complaints: list[str] = []
    for address, prefix in _entries(interfaces, mac):
        if not (why := unfit(address, prefix)):
            return Answer(address, "; ".join(complaints))
        if ":" not in address:
            complaints.append(f"{address[:64]!r}: {why}")
    return Answer(complaint="; ".join(complaints[:3]))


def usable_address(interfaces: Interfaces | None, mac: str) -> str:
    """The address of the interface with that MAC address; empty if there is none that can be a member's."""
    return answer_for(interfaces, mac).address


def _entries(interfaces: Interfaces | None, mac: str) -> Iterator[tuple[str, object]]:
    for interface in (interfaces or {}).values():
        if str(interface.get("hwaddr") or "").lower() == mac.lower():
            for entry in interface.get("addrs") or ():
                yield str(entry.get("addr") or ""), entry.get("prefix", 0)


@dataclass
class _Entry:
    """What is known of one domain."""

    running: bool = True
    nic: Nic | None = None
    nic_read: bool = False
    lease: Lease | None = None
    """Asked for by domain, where the network's leases cannot be had."""
    lease_at: float = NEVER
    claim: str = ""
    """What the guest agent says."""
    claimed_at: float = NEVER
    """When it said so first."""
    confirmed_at: float = NEVER
    """When it said so last."""
    agent_at: float = NEVER
    complaint: str = ""
    """What the guest agent said that was left out."""


@dataclass
class _Network:
    looked_at: float = NEVER
    leases: Mapping[str, Lease] | None = None
    """By MAC address; None: libvirt cannot tell."""


@dataclass(frozen=True)
class _Bid:
    """A domain that would have an address."""

    uuid: str
    address: str
    rank: tuple[int, float, str]
    """The highest gets it: the newer lease, then the agent that said so first and still does."""


@dataclass(frozen=True)
class Addresses:
    """What can be published."""

    by_uuid: Mapping[str, str]
    complaints: Mapping[str, str]
    """By uuid: what was left out, and why."""


class AddressBook:
    """What was learned, and when to ask again. `now` is any clock in seconds that never goes back.

    Locked, because the threads of several lanes use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._networks: dict[str, _Network] = {}
        self._published: Addresses | None = None
        """As computed last; None: something has changed since."""
        self._published_at = NEVER

    def keep_only(self, running: Mapping[str, bool]) -> None:
        """Forget all others: gone or off, they may come back with another address. True: it runs; False: paused."""
        with self._lock:
            for uuid in self._entries.keys() - running.keys():
                del self._entries[uuid]
                self._published = None
            for uuid, entry in self._entries.items():
                entry.running = running[uuid]
            used = {entry.nic.network for entry in self._entries.values() if entry.nic}
            self._networks = {name: it for name, it in self._networks.items() if name in used}

    def nics_due(self, uuids: Iterable[str]) -> list[str]:
        """Whose interface has to be read; the caller then reports through `nic`."""
        with self._lock:
            return [uuid for uuid in uuids if uuid not in self._entries or not self._entries[uuid].nic_read]

    def nic(self, uuid: str, nic: Nic | None) -> None:
        """A domain's interface; None: it has none."""
        with self._lock:
            entry = self._entries.setdefault(uuid, _Entry())
            entry.nic, entry.nic_read = nic, True
            self._published = None
            if nic is not None and nic.network:
                self._networks.setdefault(nic.network, _Network())

    def networks_due(self, now: float) -> list[str]:
        """Networks whose leases have to be read; the caller then reports through `leases`."""
        with self._lock:
            due = [name for name, it in self._networks.items() if now - it.looked_at >= LEASE_RETRY]
            waiting = {it.nic.network for it in self._entries.values() if due and it.nic and not self._is_known(it)}
            return [name for name in due if name in waiting or now - self._networks[name].looked_at >= LEASE_REFRESH]

    def leases(self, network: str, leases: Mapping[str, Lease] | None, now: float) -> None:
        """All leases of a network by MAC address; None: libvirt cannot tell, so each domain is asked about."""
        with self._lock:
            if leases != self._networks.get(network, _Network()).leases:
                self._published = None
            self._networks[network] = _Network(now, leases)

    def leases_due(self, now: float) -> list[str]:
        """Whose own lease is to be asked for, as its network's cannot be had; reported through `lease`."""
        with self._lock:
            silent = {name for name, it in self._networks.items() if it.looked_at > NEVER and it.leases is None}
            return [uuid for uuid, entry in self._entries.items() if silent and self._lease_due(entry, silent, now)]

    def lease(self, uuid: str, address: str | None, now: float) -> None:
        """A domain's lease; empty: it has none (any more); None: libvirt cannot tell."""
        with self._lock:
            entry = self._entries.get(uuid)
            if entry is None:
                return
            entry.lease_at = now
            if address is not None and (entry.lease is None or entry.lease.address != address):
                entry.lease = Lease(address, expires=now) if address else None
                self._published = None

    def agents_due(self, now: float) -> list[str]:
        """Running domains without a lease, whose agent should be asked now."""
        with self._lock:
            return [uuid for uuid, entry in self._entries.items() if self._agent_due(entry, now)]

    def agent(self, uuid: str, answer: Answer | None, now: float) -> None:
        """What the agent said; None: it was asked, and nothing came (yet), so what it said before stays."""
        with self._lock:
            entry = self._entries.get(uuid)
            if entry is None:
                return
            entry.agent_at = now
            if answer is None:
                return
            entry.confirmed_at = now
            if answer.address != entry.claim:
                entry.claimed_at = now
            if (answer.address, answer.complaint) != (entry.claim, entry.complaint):
                entry.claim, entry.complaint = answer.address, answer.complaint
                self._published = None

    def mac(self, uuid: str) -> str:
        """MAC address of a domain's interface; empty: not known."""
        with self._lock:
            entry = self._entries.get(uuid)
            return entry.nic.mac if entry and entry.nic else ""

    def published(self, now: float) -> Addresses:
        """Every domain's address as far as it can be published: no address for two."""
        with self._lock:
            # What agents say grows old by itself, which may be noticed a little later.
            if self._published is None or now - self._published_at >= AGENT_RETRY:
                self._published, self._published_at = self._publish(now), now
            return self._published

    def _publish(self, now: float) -> Addresses:
        complaints = {uuid: entry.complaint for uuid, entry in self._entries.items() if entry.complaint}
        leased = {lease.address: mac for it in self._networks.values() for mac, lease in (it.leases or {}).items()}
        best: dict[str, _Bid] = {}
        for uuid, entry in self._entries.items():
            bid = self._bid(uuid, entry, now)
            if bid is None:
                continue
            if why := self._refusal(entry, bid, leased):
                complaints[uuid] = why
                continue
            winner, loser = _compare(best.get(bid.address), bid)
            best[bid.address] = winner
            if loser is not None:
                complaints[loser.uuid] = f"{bid.address}: is that of domain {winner.uuid}"
        return Addresses({bid.uuid: address for address, bid in best.items()}, complaints)

    def _lease_of(self, entry: _Entry) -> Lease | None:
        if entry.nic is None or not entry.nic.network:
            return None
        leases = self._networks[entry.nic.network].leases
        return entry.lease if leases is None else leases.get(entry.nic.mac)

    def _is_known(self, entry: _Entry) -> bool:
        return bool(entry.claim) or self._lease_of(entry) is not None

    def _lease_due(self, entry: _Entry, silent: Collection[str], now: float) -> bool:
        if entry.nic is None or entry.nic.network not in silent:
            return False
        return now - entry.lease_at >= (REFRESH if entry.lease else LEASE_RETRY)

    def _agent_due(self, entry: _Entry, now: float) -> bool:
        if not entry.running or entry.nic is None or self._lease_of(entry) is not None:
            return False
        looked_for_lease = not entry.nic.network or self._networks[entry.nic.network].looked_at > NEVER
        return looked_for_lease and now - entry.agent_at >= (REFRESH if entry.claim else AGENT_RETRY)

    def _bid(self, uuid: str, entry: _Entry, now: float) -> _Bid | None:
        if lease := self._lease_of(entry):
            return _Bid(uuid, lease.address, (2, lease.expires, uuid))
        if entry.claim:
            return _Bid(uuid, entry.claim, (int(now - entry.confirmed_at <= STALE), -entry.claimed_at, uuid))
        return None

    def _refusal(self, entry: _Entry, bid: _Bid, leased: Mapping[str, str]) -> str:
        """Why an address is nobody's; empty: it can be the bidder's."""
        lease = self._lease_of(entry)
        if lease is not None and (why := unfit(lease.address, lease.prefix)):
            return f"{lease.address!r}: {why}"
        owner = leased.get(bid.address)
        if lease is None and owner is not None and entry.nic is not None and owner != entry.nic.mac:
            return f"{bid.address}: the DHCP server gave it to {owner}"
        return ""


def _compare(one: _Bid | None, other: _Bid) -> tuple[_Bid, _Bid | None]:
    """Who gets the address, and who does not."""
    if one is None:
        return other, None
    return (one, other) if one.rank > other.rank else (other, one)
