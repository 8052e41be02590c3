"""Reading domains: states, marks, addresses, and whether KVM is to be believed in. Stand-ins for libvirt's objects."""

from __future__ import annotations

import threading
import uuid as uuids
from pathlib import Path
from typing import Any

import libvirt
import pytest

from luban.adapters.libvirt_hosts import storage
from luban.adapters.libvirt_hosts.addresses import AGENT_RETRY, LEASE_RETRY, REFRESH, AddressBook, usable_address
from luban.adapters.libvirt_hosts.capabilities import Abilities, read_abilities
from luban.adapters.libvirt_hosts.domains import Directory, domain_state
from luban.adapters.libvirt_hosts.session import Session
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterRef, DomainRecord, Machine
from luban.ports import HostRef
from luban.render.domain_mark import Mark, mark_element
from luban.render.domain_xml import mac_address

LOCAL, REMOTE = HostRef("host-b", "qemu:///system"), HostRef("host-b", "qemu+tls://host-b/system")
CLUSTER = ClusterRef("shop", "luban", "uid")
LEASE = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT


@pytest.mark.parametrize(
    ("state", "reason", "ours"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, "Running"),
        (libvirt.VIR_DOMAIN_BLOCKED, 0, "Running"),
        (libvirt.VIR_DOMAIN_NOSTATE, 0, "Running"),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, "Paused"),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, "Paused"),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, "ShuttingDown"),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, "Off"),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, "Off"),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, "Crashed"),
        (libvirt.VIR_DOMAIN_CRASHED, 0, "Crashed"),
        (99, 0, "Running"),
    ],
)
def test_states(state: int, reason: int, ours: str) -> None:
    assert domain_state(state, reason) == ours


class StandInDomain:
    """A running domain."""

    def __init__(self, mark: Mark | None, interfaces: dict[int, Any] | None = None) -> None:
        self.uuid = str(uuids.uuid4())
        self.mark = mark
        self.mac = mac_address(self.uuid)
        self.addresses: dict[int, str] = interfaces or {}
        self.state = libvirt.VIR_DOMAIN_RUNNING
        self.asked: list[int] = []
        self.read = 0

    def UUIDString(self) -> str:
        return self.uuid

    def name(self) -> str:
        return "a-name"

    def isActive(self) -> int:
        return 1

    def metadata(self, _kind: int, _namespace: str, _flags: int) -> str:
        import xml.etree.ElementTree as ET

        self.read += 1
        if self.mark is None:
            error = libvirt.libvirtError("metadata not found")
            error.err = (libvirt.VIR_ERR_NO_DOMAIN_METADATA, 20, "metadata not found", 2, None, None, None, -1, -1)
            raise error
        return ET.tostring(mark_element(self.mark), encoding="unicode")

    def agentSetResponseTimeout(self, _seconds: int) -> None:
        pass

    def interfaceAddresses(self, source: int) -> Any:
        self.asked.append(source)
        if source not in self.addresses:
            return {}
        return {"eth0": {"hwaddr": self.mac, "addrs": [{"addr": self.addresses[source], "prefix": 24, "type": 0}]}}


class StandInConnection:
    """A connection with these domains."""

    def __init__(self, *domains: StandInDomain) -> None:
        self.domains = {domain.uuid: domain for domain in domains}

    def getAllDomainStats(self, stats: int, flags: int) -> list[Any]:
        assert stats == libvirt.VIR_DOMAIN_STATS_STATE
        assert flags == libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        return [(domain, {"state.state": domain.state, "state.reason": 0}) for domain in self.domains.values()]

    def lookupByUUIDString(self, uuid: str) -> StandInDomain:
        return self.domains[uuid]


class Scene:
    """A directory over stand-in domains, with a clock that the test moves."""

    def __init__(self, *domains: StandInDomain) -> None:
        self.now = 1000.0
        self.connection = StandInConnection(*domains)
        self.session = Session(LOCAL, self.connection, threading.Event())
        self.directory = Directory(clock=lambda: self.now)

    def read(self, cluster: ClusterRef = CLUSTER) -> dict[str, DomainRecord]:
        return self.directory.read(self.session, cluster)

    def ask_agents(self) -> list[str]:
        due = self.directory.addresses.agents_due(self.now)
        for uuid in due:
            self.directory.ask_agent(self.session, uuid)
        return due


def marked(address: str = "", cluster: ClusterRef = CLUSTER) -> Mark:
    return Mark(cluster, "luban-x7", "default", "web.qcow2", address)


def test_metadata_is_read_once_for_each_uuid() -> None:
    ours, theirs, foreign = (
        StandInDomain(marked()),
        StandInDomain(marked(cluster=ClusterRef("else", "other"))),
        StandInDomain(None),
    )
    scene = Scene(ours, theirs, foreign)
    for _ in range(3):
        assert set(scene.read()) == {ours.uuid}
        assert set(scene.read(ClusterRef("else", "other"))) == {theirs.uuid}
    assert [domain.read for domain in (ours, theirs, foreign)] == [1, 1, 1]


def test_a_uuid_that_comes_back_is_read_anew() -> None:
    domain = StandInDomain(None)
    scene = Scene(domain)
    assert scene.read() == {}
    scene.connection.domains.clear()
    assert scene.read() == {}
    domain.mark = marked()
    scene.connection.domains[domain.uuid] = domain
    assert set(scene.read()) == {domain.uuid}


def test_a_planned_address_is_never_asked_for() -> None:
    domain = StandInDomain(marked("127.0.17.2"), {LEASE: "192.0.2.1"})
    scene = Scene(domain)
    assert scene.read()[domain.uuid].address == "127.0.17.2"
    assert domain.asked == []


def test_a_lease_is_asked_for_until_it_is_there_and_then_rarely() -> None:
    domain = StandInDomain(marked())
    scene = Scene(domain)
    scene.read()
    scene.read()
    assert domain.asked == [LEASE]
    domain.addresses[LEASE] = "192.168.122.9"
    scene.now += LEASE_RETRY
    assert scene.read()[domain.uuid].address == "192.168.122.9"
    scene.now += REFRESH - 0.1
    scene.read()
    assert domain.asked == [LEASE, LEASE]
    assert scene.ask_agents() == []


def test_the_agent_is_asked_where_there_is_no_lease_and_not_often() -> None:
    domain = StandInDomain(marked())
    scene = Scene(domain)
    assert scene.ask_agents() == []
    scene.read()
    assert scene.ask_agents() == [domain.uuid]
    scene.now += AGENT_RETRY - 0.1
    scene.read()
    assert scene.ask_agents() == []
    domain.addresses[AGENT] = "10.1.2.3"
    scene.now += 0.1
    assert scene.ask_agents() == [domain.uuid]
    assert scene.read()[domain.uuid].address == "10.1.2.3"
    scene.now += AGENT_RETRY
    scene.read()
    assert scene.ask_agents() == []


def test_a_stopped_domain_has_no_address_and_gets_a_new_one() -> None:
    domain = StandInDomain(marked(), {LEASE: "192.168.122.9"})
    scene = Scene(domain)
    assert scene.read()[domain.uuid].address == "192.168.122.9"
    domain.state = libvirt.VIR_DOMAIN_SHUTOFF
    assert scene.read()[domain.uuid].address == ""
    domain.state, domain.addresses[LEASE] = libvirt.VIR_DOMAIN_RUNNING, "192.168.122.10"
    assert scene.read()[domain.uuid].address == "192.168.122.10"


def test_an_answer_about_a_forgotten_domain_is_dropped() -> None:
    book = AddressBook()
    book.agent("gone", "10.1.2.3", 0.0)
    assert book.known("gone") == ""


MAC = "52:54:00:11:22:33"


@pytest.mark.parametrize(
    ("interfaces", "address"),
    [
        (None, ""),
        ({}, ""),
        ({"lo": {"hwaddr": "00:00:00:00:00:00", "addrs": [{"addr": "127.0.0.1", "type": 0}]}}, ""),
        ({"docker0": {"hwaddr": "02:42:00:00:00:01", "addrs": [{"addr": "172.17.0.1", "type": 0}]}}, ""),
        ({"eth0": {"hwaddr": MAC, "addrs": None}}, ""),
        ({"eth0": {"hwaddr": MAC, "addrs": [{"addr": "169.254.3.4", "type": 0}]}}, ""),
        ({"eth0": {"hwaddr": MAC, "addrs": [{"addr": "fe80::1%eth0", "type": 1}]}}, ""),
        (
            {
                "eth0": {
                    "hwaddr": MAC.upper(),
                    "addrs": [{"addr": "fd00::1", "type": 1}, {"addr": "10.0.0.5", "type": 0}],
                }
            },
            "10.0.0.5",
        ),
        ({"tun0": {"hwaddr": None, "addrs": [{"addr": "10.8.0.1", "type": 0}]}}, ""),
    ],
)
def test_only_the_address_of_our_own_nic_counts(interfaces: Any, address: str) -> None:
    assert usable_address(interfaces, MAC) == address


# ---- abilities -------------------------------------------------------------------------------------------------


def capabilities(*types: str, features: tuple[str, ...] = ()) -> str:
    domains = "".join(f"<domain type='{type_}'/>" for type_ in types)
    listed = "".join(f"<feature name='{feature}'/>" for feature in features)
    return (
        f"<capabilities><host><cpu><arch>x86_64</arch><model>EPYC</model>{listed}</cpu></host>"
        f"<guest><os_type>hvm</os_type><arch name='x86_64'>{domains}</arch></guest></capabilities>"
    )


class StandInHost:
    """A connection that knows its capabilities only."""

    def __init__(self, xml: str, expanded: tuple[str, ...] | None = None, kind: str = "QEMU") -> None:
        self.xml, self.expanded, self.kind = xml, expanded, kind

    def getCapabilities(self) -> str:
        return self.xml

    def getType(self) -> str:
        return self.kind

    def baselineCPU(self, _cpus: list[str], flags: int) -> str:
        assert flags == libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
        if self.expanded is None:
            raise libvirt.libvirtError("not supported")
        return "<cpu>" + "".join(f"<feature name='{name}'/>" for name in self.expanded) + "</cpu>"


def abilities(host: HostRef, connection: StandInHost, cpuinfo: Path) -> Abilities:
    return read_abilities(Session(host, connection, threading.Event()), cpuinfo)


@pytest.mark.parametrize(
    ("flags", "offered", "kvm"),
    [
        ("fpu vmx sse", ("qemu", "kvm"), True),
        ("fpu svm sse", ("qemu", "kvm"), True),
        ("fpu sse", ("qemu", "kvm"), False),  # /dev/kvm is there, the CPU cannot: libvirt offers it all the same.
        ("fpu vmx sse", ("qemu",), False),  # The CPU can, but the daemon may not open /dev/kvm.
    ],
)
def test_a_local_host_needs_both_cpu_and_daemon(
    flags: str, offered: tuple[str, ...], *, kvm: bool, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert abilities(LOCAL, StandInHost(capabilities(*offered)), cpuinfo) == Abilities(kvm, "qemu")


@pytest.mark.parametrize(
    ("listed", "expanded", "kvm"),
    [
        (("vmx",), None, True),
        ((), ("svm",), True),  # Implied by the model.
        ((), ("sse",), False),
        ((), None, False),
    ],
)
def test_a_remote_hosts_own_word_counts(
    listed: tuple[str, ...], expanded: tuple[str, ...] | None, *, kvm: bool, tmp_path: Path
) -> None:
    here = tmp_path / "cpuinfo"
    here.write_text("flags : vmx")
    connection = StandInHost(capabilities("qemu", "kvm", features=listed), expanded)
    assert abilities(REMOTE, connection, here).kvm == kvm


def test_libvirts_test_driver_has_a_type_of_its_own(tmp_path: Path) -> None:
    host = StandInHost(capabilities("test"), kind="TEST")
    assert abilities(LOCAL, host, tmp_path / "missing") == Abilities(kvm=False, emulation="test")


# ---- storage ---------------------------------------------------------------------------------------------------


def test_volume_names_are_the_machines() -> None:
    template = VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}})
    machine = Machine("6f4a1f5e-9f0b-4f6e-8c3d-0123456789ab", "luban-x7", CLUSTER, template)
    assert storage.overlay_name(machine.uuid) == machine.overlay_volume
    assert storage.seed_name(machine.uuid) == machine.seed_volume


def test_the_seed_is_an_iso_that_cloud_init_recognises() -> None:
    image = storage.seed_image({"meta-data": b"instance-id: x\n", "user-data": b"#cloud-config\n" * 1000})
    assert image[32769:32774] == b"CD001"
    assert image[32808:32814] == b"cidata"
    assert len(image) % 2048 == 0
    for name in ("meta-data", "user-data"):
        assert name.encode() in image, "Rock Ridge name"
        assert name.encode("utf-16-be") in image, "Joliet name"
    assert b"#cloud-config\n" * 1000 in image
