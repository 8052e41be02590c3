"""Whom libvirt can ask for a domain's address: the DHCP server of its network, or its guest agent. Blocking."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Any

import libvirt

from luban.adapters.libvirt_hosts.addresses import Answer, Lease, Nic, answer_for, usable_address
from luban.adapters.libvirt_hosts.errors import attempt, find
from luban.adapters.libvirt_hosts.session import Session

AGENT_TIMEOUT = 1
"""Whole seconds that libvirt waits for a guest agent's answer."""


def read_nic(domain: libvirt.virDomain) -> Nic | None:
    """The domain's first interface, as it was made: not what our rule for MAC addresses would make of it today."""
    xml = find(domain.XMLDesc, 0)
    interface = ET.fromstring(xml).find("devices/interface") if xml else None  # noqa: S314 - printed by libvirt
    mac = interface.find("mac") if interface is not None else None
    if interface is None or mac is None:
        return None
    source = interface.find("source")
    network = source.get("network", "") if source is not None and interface.get("type") == "network" else ""
    return Nic(mac.get("address", "").lower(), network)


def read_leases(session: Session, network: str) -> Mapping[str, Lease] | None:
    """The leases of a libvirt network's DHCP server by MAC address; None: libvirt cannot tell."""
    found = find(session.connection.networkLookupByName, network)
    if found is None or not attempt(found.isActive):
        return {}
    rows = attempt(found.DHCPLeases)
    return None if rows is None else newest(rows)


def newest(rows: Iterable[Mapping[str, Any]]) -> dict[str, Lease]:
    """Of each MAC address the IPv4 lease that expires last. libvirt writes 0 for one that never does."""
    leases: dict[str, Lease] = {}
    for row in rows:
        if row.get("type") != libvirt.VIR_IP_ADDR_TYPE_IPV4:
            continue
        mac, lease = str(row.get("mac") or "").lower(), _lease(row)
        if mac not in leases or lease.expires > leases[mac].expires:
            leases[mac] = lease
    return leases


def _lease(row: Mapping[str, Any]) -> Lease:
    return Lease(str(row.get("ipaddr") or ""), int(row.get("prefix") or 0), float(row.get("expirytime") or math.inf))


def ask_lease(domain: libvirt.virDomain, mac: str) -> str | None:
    """The address that the host's DHCP server gave to one domain; empty: none; None: libvirt cannot tell."""
    source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
    interfaces = attempt(domain.interfaceAddresses, source)
    return None if interfaces is None else usable_address(interfaces, mac)


def ask_agent(domain: libvirt.virDomain, mac: str) -> Answer | None:
    """What the guest agent says of the interface; None: no answer."""
    attempt(domain.agentSetResponseTimeout, AGENT_TIMEOUT)
    source = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
    interfaces = attempt(domain.interfaceAddresses, source)
    return None if interfaces is None else answer_for(interfaces, mac)
