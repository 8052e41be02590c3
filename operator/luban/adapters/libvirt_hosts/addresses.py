"""Addresses of a host's domains: asked for rarely, remembered, never in the way of the bulk call."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import libvirt

from luban.adapters.libvirt_hosts.errors import attempt
from luban.render.domain_xml import mac_address

LEASE_RETRY = 1.0
"""Seconds between two questions for the DHCP lease of a domain whose address is not known."""
AGENT_RETRY = 5.0
"""Seconds between two questions to the guest agent of such a domain."""
REFRESH = 60.0
"""Seconds between two questions where the address is known: it hardly ever changes."""
AGENT_TIMEOUT = 1
"""Whole seconds that libvirt waits for a guest agent's answer."""

Interfaces = dict[str, dict[str, Any]]
"""As virDomain.interfaceAddresses returns it: by interface name, `hwaddr` and `addrs` (each `addr`, `type`)."""


def usable_address(interfaces: Interfaces | None, mac: str) -> str:
    """The IPv4 address of the interface with that MAC address; empty if there is none.

    Other interfaces are the guest's own business: container bridges, tunnels.
    """
    for interface in (interfaces or {}).values():
        if (interface.get("hwaddr") or "").lower() != mac:
            continue
        for entry in interface.get("addrs") or ():
            address = ipaddress.ip_address(entry["addr"].partition("%")[0])
            if address.version == 4 and not address.is_link_local and not address.is_loopback:
                return str(address)
    return ""


def ask_lease(domain: libvirt.virDomain, uuid: str) -> str:
    """The address that the host's DHCP server gave; empty: none, or not its network."""
    source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
    return usable_address(attempt(domain.interfaceAddresses, source), mac_address(uuid))


def ask_agent(domain: libvirt.virDomain, uuid: str) -> str:
    """The address that the guest agent reports; empty: none, or no agent."""
    attempt(domain.agentSetResponseTimeout, AGENT_TIMEOUT)
    source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
    return usable_address(attempt(domain.interfaceAddresses, source), mac_address(uuid))


@dataclass
class _Entry:
    address: str = ""
    lease_at: float = float("-inf")
    agent_at: float = float("-inf")
    leased: bool = False


class AddressBook:
    """What was learned, and when to ask again. `now` is any clock in seconds that never goes back.

    Locked, because the threads of several lanes use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def known(self, uuid: str) -> str:
        """The address, or an empty string."""
        with self._lock:
            entry = self._entries.get(uuid)
            return entry.address if entry else ""

    def lease_due(self, uuid: str, now: float) -> bool:
        """Whether to ask for the lease of a running domain; the caller then reports through `lease`."""
        with self._lock:
            entry = self._entries.setdefault(uuid, _Entry())
            pause = REFRESH if entry.address else LEASE_RETRY
            return now - entry.lease_at >= pause

    def lease(self, uuid: str, address: str, now: float) -> None:
        """A lease, or an empty string: there is none. What the agent said stays then."""
        with self._lock:
            entry = self._entries.setdefault(uuid, _Entry())
            entry.lease_at, entry.leased = now, bool(address)
            entry.address = address or entry.address

    def agents_due(self, now: float) -> list[str]:
        """Domains that have no lease and whose agent should be asked now."""
        with self._lock:
            return [uuid for uuid, entry in self._entries.items() if self._agent_due(entry, now)]

    def agent(self, uuid: str, address: str, now: float) -> None:
        """What the agent said; an empty string: nothing."""
        with self._lock:
            if entry := self._entries.get(uuid):
                entry.agent_at = now
                entry.address = address or entry.address

    def keep_only(self, uuids: Collection[str]) -> None:
        """Forget all others: gone or not running, they may come back with another address."""
        with self._lock:
            for uuid in self._entries.keys() - set(uuids):
                del self._entries[uuid]

    @staticmethod
    def _agent_due(entry: _Entry, now: float) -> bool:
        asked_for_lease = entry.lease_at > float("-inf")
        pause = REFRESH if entry.address else AGENT_RETRY
        return asked_for_lease and not entry.leased and now - entry.agent_at >= pause
