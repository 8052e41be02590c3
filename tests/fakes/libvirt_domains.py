"""Stand-ins for libvirt's domains and networks, and a directory over them."""

from __future__ import annotations

import threading
import uuid as uuids
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import libvirt

from luban.adapters.libvirt_hosts.directory import Directory
from luban.adapters.libvirt_hosts.session import Session
from luban.core.model import ClusterRef, DomainRecord
from luban.ports import HostRef
from luban.render.domain_mark import Mark, mark_element

LOCAL = HostRef("host-b", "qemu:///system")
CLUSTER = ClusterRef("shop", "luban", "uid")
LEASE = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT


def failure(code: int, text: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError(text)
    error.err = (code, libvirt.VIR_FROM_QEMU, text, 2, None, None, None, -1, -1)
    error.args = (text,)
    return error


class StandInDomain:
    """A running domain."""

    def __init__(self, mark: Mark | None, agent: Any = None, *, mac: str = "", network: str = "default") -> None:
        self.uuid = str(uuids.uuid4())
        self.mark = mark
        self.mac = mac or f"06:00:00:{self.uuid[0:2]}:{self.uuid[2:4]}:{self.uuid[4:6]}"
        self.network = network
        self.agent = agent
        """Address that its guest agent tells; None: there is no agent."""
        self.lease = ""
        """Where the network's leases cannot be had: its own."""
        self.standing = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
        self.disk_errors: Any = {}
        self.memory = 512 * 1024
        """KiB."""
        self.asked: list[int] = []
        self.read = 0
        self.pressed = 0
        self.on_press: Callable[[], None] = lambda: None

    def UUIDString(self) -> str:
        return self.uuid

    def name(self) -> str:
        return "a-name"

    def isActive(self) -> int:
        return 1

    def maxMemory(self) -> int:
        return self.memory

    def state(self) -> list[int]:
        return list(self.standing)

    def metadata(self, _kind: int, _namespace: str, _flags: int) -> str:
        self.read += 1
        if self.mark is None:
            raise failure(libvirt.VIR_ERR_NO_DOMAIN_METADATA, "metadata not found")
        return ET.tostring(mark_element(self.mark), encoding="unicode")

    def XMLDesc(self, _flags: int) -> str:
        source = f"<source network='{self.network}'/>" if self.network else "<source bridge='br0'/>"
        kind = "network" if self.network else "bridge"
        return (
            f"<domain><devices><interface type='{kind}'><mac address='{self.mac.upper()}'/>{source}</interface>"
            "<interface type='bridge'><mac address='06:ff:ff:ff:ff:ff'/></interface></devices></domain>"
        )

    def agentSetResponseTimeout(self, _seconds: int) -> None:
        pass

    def diskErrors(self) -> dict[str, int]:
        if isinstance(self.disk_errors, Exception):
            raise self.disk_errors
        errors: dict[str, int] = self.disk_errors
        return errors

    def shutdownFlags(self, _flags: int) -> None:
        self.pressed += 1
        self.on_press()

    def shutdown(self) -> None:
        self.shutdownFlags(0)

    def interfaceAddresses(self, source: int) -> Any:
        self.asked.append(source)
        address = self.lease if source == LEASE else self.agent
        if source == AGENT and address is None:
            raise failure(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "not connected")
        addrs = [{"addr": address, "prefix": 24, "type": 0}] if address else None
        return {"eth0": {"hwaddr": self.mac, "addrs": addrs}}


class StandInNetwork:
    """A libvirt network with a DHCP server."""

    def __init__(self) -> None:
        self.leases: list[dict[str, Any]] = []
        self.fails: Exception | None = None
        self.active = 1
        self.asked = 0

    def isActive(self) -> int:
        return self.active

    def DHCPLeases(self) -> list[dict[str, Any]]:
        self.asked += 1
        if self.fails:
            raise self.fails
        return self.leases

    def give(self, domain: StandInDomain, address: str, expires: int = 100) -> None:
        """A lease; the server's list only grows, until `take_back`."""
        self.leases.append(
            {"mac": domain.mac, "ipaddr": address, "prefix": 24, "type": 0, "expirytime": expires, "iface": "virbr0"}
        )

    def take_back(self, domain: StandInDomain) -> None:
        self.leases = [lease for lease in self.leases if lease["mac"] != domain.mac]


class StandInConnection:
    """A connection with these domains and the network `default`."""

    def __init__(self, *domains: StandInDomain) -> None:
        self.domains = {domain.uuid: domain for domain in domains}
        self.network = StandInNetwork()
        self.silent = False
        """Whether it does not say what it has."""

    def getAllDomainStats(self, stats: int, flags: int) -> list[Any]:
        assert stats == libvirt.VIR_DOMAIN_STATS_STATE
        assert flags == libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        return [
            (domain, {"state.state": domain.standing[0], "state.reason": domain.standing[1]})
            for domain in self.domains.values()
        ]

    def getInfo(self) -> list[Any]:
        if self.silent:
            raise failure(libvirt.VIR_ERR_INTERNAL_ERROR, "no")
        return ["x86_64", 2048, 2, 2000, 1, 1, 2, 1]

    def lookupByUUIDString(self, uuid: str) -> StandInDomain:
        return self.domains[uuid]

    def networkLookupByName(self, name: str) -> StandInNetwork:
        if name != "default":
            raise failure(libvirt.VIR_ERR_NO_NETWORK, "no network")
        return self.network


class Scene:
    """A directory over stand-in domains, with a clock that the test moves."""

    def __init__(self, *domains: StandInDomain) -> None:
        self.now = 1000.0
        self.connection = StandInConnection(*domains)
        self.network = self.connection.network
        self.session = Session(LOCAL, self.connection, threading.Event())
        self.directory = Directory("host-b", clock=lambda: self.now)

    def read(self, cluster: ClusterRef = CLUSTER) -> dict[str, DomainRecord]:
        return {
            uuid: it.record
            for uuid, it in self.directory.read(self.session).domains.items()
            if it.owner.covers(cluster)
        }

    def addresses(self, *domains: StandInDomain) -> list[str]:
        """Their addresses, after a round of questions: what is known now, and no later than that."""
        self.read()
        self.ask()
        found = self.read()
        return [found[domain.uuid].address for domain in domains]

    def ask(self) -> int:
        questions = self.directory.questions()
        for question in questions:
            question.job(self.session)
        return len(questions)


def marked(address: str = "", cluster: ClusterRef = CLUSTER) -> Mark:
    return Mark(cluster, "luban-x7", "default", "web.qcow2", address)
