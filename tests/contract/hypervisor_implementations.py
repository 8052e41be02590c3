"""The sides of the Hypervisor contract: the fake, libvirt's test driver, and QEMU under a real libvirt daemon.

Not every side can do everything: libvirt's test driver has no guests that can fail to start and no uploads, and the
QEMU machines here have an empty disk, so nobody in them obeys the power button. A test names what it needs, and runs
on the sides that have it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import uuid as uuids
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab.hosts import POOL, KvmHost, KvmHosts
from lab.paths import Layout
from luban.adapters.libvirt_hosts.backoff import Pace
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.adapters.libvirt_hosts.session import Keepalive
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterRef, DomainRecord, Machine
from luban.errors import LubanError
from luban.ports import HostRef, Hypervisor
from tests.contract.hypervisor_sides import Implementation
from tests.fakes.hypervisor import FakeHypervisor

CLUSTER = ClusterRef("shop", "luban", "0c1f6f0e-3a53-4d57-9a3a-aaaaaaaaaaaa")
BASE = "luban-web.qcow2"
# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)
PATIENCE = 30.0
"""Seconds in which something that must happen may happen."""
SHORT = 0.5
"""Deadline in seconds where no answer is expected."""
AT_ONCE = Pace(first_retry=0.0, last_retry=0.0)
BASE_OCTET = 64
"""The QEMU machines' forwards are below 127.0.65.0/24."""


class FakeImplementation:
    """The fake."""

    has = frozenset(
        {
            "seed",
            "libvirt-network",
            "observed-address",
            "power-button",
            "start-failure",
            "crash",
            "outage",
            "forward",
            "usage",
        }
    )

    def __init__(self) -> None:
        self.fake = FakeHypervisor()
        self.hypervisor: Hypervisor = self.fake
        self.host = HostRef("host-b", "qemu+tls://host-b/system")
        self.pool = "default"
        self.network = {"type": "Network", "source": "default"}
        self.seeds = True

    def stingy(self, min_free_bytes: int) -> Hypervisor:
        """See Implementation."""
        self.fake.min_free_bytes = min_free_bytes
        return self.fake

    def other_daemon(self, uri: str) -> HostRef:
        """See Implementation."""
        self.fake.disconnect("host-x")
        return HostRef("host-x", uri)

    def domains(self) -> dict[str, str]:
        """See Implementation."""
        return {uuid: domain.name for uuid, domain in self.fake.host("host-b").domains.items()}

    def volumes(self) -> set[str]:
        """See Implementation."""
        return set(self.fake.host("host-b").pools["default"])

    def add_volume(self, name: str, base: str = "") -> None:
        """See Implementation."""
        self.fake.host("host-b").pools["default"].add(name)
        if base:
            self.fake.host("host-b").users[base] = f"volume {name} of pool default"

    def add_user(self, volume: str) -> str:
        """See Implementation."""
        self.fake.host("host-b").users[volume] = "domain somebody"
        return "somebody"

    def run_of(self, uuid: str) -> int:
        """See Implementation."""
        domain = self.fake.domain(uuid)
        assert domain is not None
        return domain.starts

    def add_foreign(self, name: str, uuid: str) -> None:
        """See Implementation."""
        self.fake.add_foreign("host-b", name, uuid)

    def come_up(self, uuid: str) -> None:
        """See Implementation."""
        self.fake.boot(uuid, "192.168.122.23")

    def fail_next_start(self) -> None:
        """The next start fails."""
        self.fake.host("host-b").failures.append(LubanError("StartFailed", "no"))

    def pause(self, uuid: str) -> None:
        """See Implementation."""
        self.fake.pause(uuid)

    async def crash(self, uuid: str) -> None:
        """See Implementation."""
        self.fake.power_off(uuid, "Crashed")

    def impatient(self) -> Hypervisor:
        """See Implementation."""
        return self.fake

    def stop_answering(self) -> None:
        """See Implementation."""
        self.fake.disconnect("host-b")

    def answer_again(self) -> None:
        """See Implementation."""
        self.fake.host("host-b").reachable = True


class SlowPool:
    """Connections through which a new volume appears only when `go_on` is set: a hung file server, say."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.made = (threading.Event() for _ in range(3))

    def open(self, uri: str) -> Any:
        """In place of libvirt.open."""
        return _Instead(libvirt.open(uri), storagePoolLookupByName=self._pool)

    def _pool(self, connection: Any, name: str) -> Any:
        return _Instead(connection.storagePoolLookupByName(name), createXML=self._create)

    def _create(self, pool: Any, xml: str, flags: int) -> Any:
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        volume = pool.createXML(xml, flags)
        self.made.set()
        return volume


class _Instead:
    """An object with some methods replaced by functions of it."""

    def __init__(self, real: Any, **methods: Callable[..., Any]) -> None:
        self._real, self._methods = real, methods

    def __getattr__(self, name: str) -> Any:
        method = self._methods.get(name)
        return getattr(self._real, name) if method is None else partial(method, self._real)


class LibvirtImplementation:
    """The adapter, and a connection of the test's own to the same daemon."""

    kind = "test"
    seeds = False

    def __init__(self, uri: str, pool: str, network: dict[str, str]) -> None:
        self.uri, self.pool, self.network = uri, pool, network
        self.host = HostRef("host-b", uri)
        self.opened: list[LibvirtHypervisor] = []
        self.hypervisor: Hypervisor = self.stingy(1)
        self._connect()
        self.before = set(self.domains())
        if BASE not in self.volumes():
            self.storage.createXML(
                f"<volume><name>{BASE}</name><capacity>1048576</capacity>"
                "<target><format type='qcow2'/></target></volume>",
                0,
            )

    def stingy(self, min_free_bytes: int) -> Hypervisor:
        """See Implementation."""
        return self._open(
            HypervisorSettings(
                min_free_bytes=min_free_bytes,
                pace=AT_ONCE,
                call=PATIENCE,
                read=PATIENCE,
                allow_insecure=True,
                user_networking=True,
            )
        )

    def impatient(self) -> Hypervisor:
        """See Implementation."""
        pace = replace(AT_ONCE, connect=SHORT)
        return self._open(
            HypervisorSettings(call=SHORT, read=SHORT, pace=pace, keepalive=Keepalive(1, 1), user_networking=True)
        )

    def _connect(self) -> None:
        self.own = libvirt.open(self.uri)
        self.storage = self.own.storagePoolLookupByName(self.pool)

    def _open(self, settings: HypervisorSettings) -> Hypervisor:
        self.opened.append(LibvirtHypervisor(settings))
        return self.opened[-1]

    def with_slow_pool(self, slow: SlowPool) -> Hypervisor:
        """The same host, for somebody who does not wait long for a change, while new volumes take a while."""
        settings = HypervisorSettings(min_free_bytes=1, call=SHORT, pace=AT_ONCE, user_networking=True)
        self.opened.append(LibvirtHypervisor(settings, opener=slow.open))
        return self.opened[-1]

    def stop_answering(self) -> None:
        """See Implementation."""
        raise NotImplementedError

    def answer_again(self) -> None:
        """See Implementation."""
        raise NotImplementedError

    def other_daemon(self, uri: str) -> HostRef:
        """See Implementation."""
        return HostRef("host-x", uri)

    def domains(self) -> dict[str, str]:
        """See Implementation."""
        return {domain.UUIDString(): domain.name() for domain in self.own.listAllDomains()}

    def volumes(self) -> set[str]:
        """See Implementation."""
        return {volume.name() for volume in self.storage.listAllVolumes()}

    def run_of(self, uuid: str) -> int:
        """See Implementation."""
        number: int = self.own.lookupByUUIDString(uuid).ID()
        return number

    def add_foreign(self, name: str, uuid: str) -> None:
        """See Implementation."""
        self.own.defineXML(
            f"<domain type='{self.kind}'><name>{name}</name><uuid>{uuid}</uuid>"
            "<memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os></domain>"
        )

    def come_up(self, uuid: str) -> None:
        """See Implementation."""

    def pause(self, uuid: str) -> None:
        """See Implementation."""
        self.own.lookupByUUIDString(uuid).suspend()

    def add_copy(self, name: str, of: str) -> None:
        """Make a copy-on-write overlay of a volume, by hand."""
        self.add_volume(name, of)

    def add_volume(self, name: str, base: str = "") -> None:
        """See Implementation."""
        path = self.storage.storageVolLookupByName(base).path() if base else ""
        backing = f"<backingStore><path>{path}</path><format type='qcow2'/></backingStore>" if base else ""
        self.storage.createXML(
            f"<volume><name>{name}</name><capacity>16777216</capacity><target><format type='qcow2'/></target>"
            f"{backing}</volume>",
            0,
        )

    def add_user(self, volume: str) -> str:
        """See Implementation."""
        path = self.storage.storageVolLookupByName(volume).path()
        self.own.defineXML(
            f"<domain type='{self.kind}'><name>somebody</name><memory unit='MiB'>64</memory>"
            "<os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='disk'>"
            f"<driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"
            "</devices></domain>"
        )
        return "somebody"

    async def crash(self, uuid: str) -> None:
        """See Implementation."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave nothing behind."""
        for hypervisor in self.opened:
            await hypervisor.close()
        for domain in self.own.listAllDomains():
            if domain.UUIDString() not in self.before:
                if domain.isActive():
                    domain.destroy()
                domain.undefine()
        for volume in self.storage.listAllVolumes():
            volume.delete(0)
        self.own.close()


class TestDriverImplementation(LibvirtImplementation):
    """libvirt's test driver in this process: its state lives as long as somebody has a connection to it."""

    __test__ = False
    has = frozenset({"libvirt-network", "observed-address", "power-button", "storage"})

    def __init__(self) -> None:
        super().__init__("test:///default", "default-pool", {"type": "Network", "source": "default"})


class QemuImplementation(LibvirtImplementation):
    """QEMU under a session daemon."""

    kind = "qemu"
    seeds = True
    has = frozenset({"seed", "start-failure", "crash", "outage", "daemon", "storage", "forward", "usage"})

    def __init__(self, daemon: KvmHost) -> None:
        super().__init__(daemon.uri, POOL, {"type": "User", "source": ""})
        self.daemon = daemon

    def impatient_of_usage(self) -> Hypervisor:
        """The same hosts, for somebody who does not wait long for what domains use."""
        return self._open(HypervisorSettings(read=PATIENCE, usage=SHORT, pace=AT_ONCE, user_networking=True))

    def restart(self) -> None:
        """Start the daemon again after its death."""
        self.daemon.daemon.stop()
        self.daemon.start()
        self._connect()

    def stop_answering(self) -> None:
        """See Implementation."""
        self.daemon.daemon.kill(signal.SIGSTOP)

    def answer_again(self) -> None:
        """See Implementation."""
        self.daemon.daemon.kill(signal.SIGCONT)

    async def crash(self, uuid: str) -> None:
        """Kill the QEMU processes of the host."""
        for pid in self.daemon.qemu_pids():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def kvm_host() -> Iterator[KvmHost]:
    """A session daemon with an empty storage pool."""
    with tempfile.TemporaryDirectory(prefix="luban-") as folder:
        state = Path(folder)
        state.chmod(0o755)  # The daemon's own user passes through.
        hosts = KvmHosts(Layout(base=BASE_OCTET, state=state))
        host = hosts.host("host-b")
        try:
            host.start()
            host.ensure_pool()
            yield host
        finally:
            hosts.destroy()


ABLE_TO = {"fake": FakeImplementation.has, "test-driver": TestDriverImplementation.has, "qemu": QemuImplementation.has}
NEEDS: set[str] = set()


def needs(*what: str) -> Callable[[Any], Any]:
    """Run a test on the sides that have all of `what`."""
    NEEDS.update(what)
    able = [name for name, has in ABLE_TO.items() if has.issuperset(what)]
    return pytest.mark.parametrize("daemon", able, indirect=True)


on_all = needs()


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> KvmHost | None:
    """The daemon that the side needs, started only for those that need one."""
    host: KvmHost | None = request.getfixturevalue("kvm_host") if request.param == "qemu" else None
    return host


@pytest.fixture
async def side(request: pytest.FixtureRequest, daemon: KvmHost | None) -> AsyncIterator[Implementation]:
    """The side that a test runs on, from nothing to nothing."""
    if daemon is not None:
        it: Implementation = QemuImplementation(daemon)
    else:
        it = FakeImplementation() if request.node.callspec.params["daemon"] == "fake" else TestDriverImplementation()
    yield it
    if isinstance(it, LibvirtImplementation):
        await it.close()


def machine(side: Implementation, name: str = "luban-x7", address: str = "", **template: Any) -> Machine:
    """A machine that can run on that side."""
    fields = {
        "image": {"pool": side.pool, "volume": BASE, "size": "16Mi"},
        "network": side.network,
        "domain": {"memory": {"max": "64Mi"}},
    }
    return Machine(
        uuid=str(uuids.uuid4()),
        name=name,
        cluster=CLUSTER,
        template=VMTemplateSpec.model_validate(fields | template),
        forward_address=address or ("127.0.65.2" if side.network["type"] == "User" else ""),
    )


async def find(side: Implementation, vm: Machine) -> DomainRecord | None:
    """The machine's domain as the hypervisor lists it."""
    found = (await side.hypervisor.inventory(side.host)).domains.get(vm.uuid)
    assert found is None or found.owner == CLUSTER
    return found.record if found is not None else None


async def until_state(side: Implementation, vm: Machine, state: str, cause: Callable[[], Awaitable[object]]) -> None:
    """Have something happen, and wait for its effect, which an event announces."""
    heard = asyncio.Event()
    leave = side.hypervisor.watch(side.host, lambda _uuid: heard.set())
    await side.hypervisor.inventory(side.host)
    await cause()
    async with asyncio.timeout(PATIENCE):
        while not await state_is(side, vm, state):
            await heard.wait()
            heard.clear()
    leave()


async def state_is(side: Implementation, vm: Machine, state: str) -> bool:
    """Whether the machine's domain is in that state."""
    record = await find(side, vm)
    return record is not None and record.state == state
