"""The lab's two KVM hosts and its guest image, together: a real VM boots, answers, survives its daemon, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.hosts import HOST_NAMES, KvmHosts, connection
from lab.image.build import FILES
from lab.paths import Layout
from lab.process import wait_until
from luban.adapters.libvirt_hosts.hypervisor import LibvirtHypervisor
from luban.ports import HostRef, Usage

pytestmark = pytest.mark.integration

libvirt = pytest.importorskip("libvirt")

BASE = 48
VM = "vm-1"
ADDRESS = f"127.0.{BASE + 1}.2"
BOOT_SECONDS = 120.0
"""Generous: it takes 5 s on an idle machine, but the test may share two cores with anything."""

SHUTDOWN_SECONDS = 10.0

VOLUME = """
<volume>
  <name>{name}</name>
  <capacity unit='GiB'>8</capacity>
  <target><format type='qcow2'/></target>
  <backingStore><path>{base}</path><format type='qcow2'/></backingStore>
</volume>
"""

DOMAIN = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <memory unit='MiB'>384</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 acpi=noirq init_on_alloc=0 cryptomgr.notests mitigations=off \
tsc=reliable no_timer_check luban.vm={name}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='maximum'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='virtio'><stats period='1'/></memballoon>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='user,id=net0,hostfwd=tcp:{address}:8080-:8080'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=net0,addr=0x10,romfile='/>
  </qemu:commandline>
</domain>
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[KvmHosts]:
    """Both hosts, in a folder that the lab's user can reach (pytest's own temporary folders it cannot)."""
    state = Path(tempfile.mkdtemp(prefix="luban-"))
    state.chmod(0o755)
    kvm = KvmHosts(Layout(base=BASE, state=state))
    try:
        kvm.up()
        yield kvm
    finally:
        kvm.destroy()
        shutil.rmtree(state)


def define(host: Any, name: str) -> Any:
    """A domain with a fresh overlay on the base image."""
    pool = host.storagePoolLookupByName("default")
    path = {file: pool.storageVolLookupByName(file).path() for file in FILES}
    disk = pool.createXML(VOLUME.format(name=f"{name}.qcow2", base=path["luban-web.qcow2"]))
    return host.defineXML(
        DOMAIN.format(
            name=name,
            kernel=path["vmlinuz"],
            initrd=path["initrd.img"],
            disk=disk.path(),
            address=ADDRESS,
        )
    )


def health(path: str = "/healthz") -> tuple[int, str | None] | None:
    """Status and VM name of a page, or None if nothing answers within half a second."""
    connection = http.client.HTTPConnection(ADDRESS, 8080, timeout=0.5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return response.status, response.getheader("X-Luban-VM")


@pytest.fixture
def vm(hosts: KvmHosts) -> Iterator[Any]:
    """A running domain on host-b that answers, with its connection; gone afterwards."""
    hosts.start("host-b")
    with connection(hosts.uris()["host-b"]) as host:
        domain = define(host, VM)
        try:
            domain.create()
            wait_until(lambda: health() is not None, what=f"answer of {VM}", timeout=BOOT_SECONDS)
            yield domain
        finally:
            hosts.start("host-b")
            with connection(hosts.uris()["host-b"]) as again:
                remove(again, VM)


def remove(host: Any, name: str) -> None:
    """End and forget a domain and its overlay."""
    domain = host.lookupByName(name)
    # A daemon that is still finding its domains again ends this one, but answers that it does not run.
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()
    wait_until(lambda: not domain.isActive(), what=f"end of {name}", timeout=SHUTDOWN_SECONDS)
    domain.undefine()
    host.storagePoolLookupByName("default").storageVolLookupByName(f"{name}.qcow2").delete()


@pytest.mark.parametrize("name", HOST_NAMES)
def test_each_host_offers_the_image_in_its_default_pool(hosts: KvmHosts, name: str) -> None:
    with connection(hosts.uris()[name]) as host:
        pool = host.storagePoolLookupByName("default")
        assert pool.isActive()
        assert pool.autostart()
        assert {pool.storageVolLookupByName(file).name() for file in FILES} == set(FILES)


def test_a_vm_answers_with_its_name(vm: Any) -> None:
    assert health() == (200, VM)
    assert vm.isActive()
    # Nobody told it of a database: it keeps records itself.
    wait_until(lambda: health("/readyz") == (200, VM), what="readiness", timeout=BOOT_SECONDS)


def test_a_guest_tells_what_it_uses(hosts: KvmHosts, vm: Any) -> None:
    """CPU time goes up, memory is told by its balloon; of a NIC that libvirt does not know nothing is told."""
    first = usage_of(hosts, vm)
    assert (first.vcpus, first.network_bytes) == (1, None)
    seen: list[Usage] = []

    def told() -> bool:
        seen.append(usage_of(hosts, vm))
        return seen[-1].memory is not None and (seen[-1].cpu_seconds or 0.0) > (first.cpu_seconds or 0.0)

    wait_until(told, what="what the guest uses", timeout=BOOT_SECONDS)
    memory = seen[-1].memory
    assert memory is not None
    assert memory.maximum == 384 * 2**20
    assert 0 < memory.used < memory.maximum
    wait_until(
        lambda: usage_of(hosts, vm).memory not in (None, memory), what="the guest's next word", timeout=BOOT_SECONDS
    )


def usage_of(hosts: KvmHosts, vm: Any) -> Usage:
    """What the operator reads of it."""

    async def read() -> Usage:
        hypervisor = LibvirtHypervisor()
        try:
            return (await hypervisor.usage(HostRef("host-b", hosts.uris()["host-b"])))[vm.UUIDString()]
        finally:
            await hypervisor.close()

    return asyncio.run(read())


def test_the_power_button_ends_a_vm_cleanly(vm: Any) -> None:
    vm.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    wait_until(lambda: not vm.isActive(), what="end of the VM", timeout=SHUTDOWN_SECONDS)
    assert vm.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_vm_goes_on_without_its_daemon(hosts: KvmHosts, vm: Any, end: str) -> None:
    host = hosts.host("host-b")
    pids = host.qemu_pids()
    assert len(pids) == 1
    getattr(hosts, end)("host-b")
    assert host.daemon.pid() is None
    assert health() == (200, VM)

    hosts.start("host-b")
    with connection(hosts.uris()["host-b"]) as again:
        assert again.lookupByUUID(vm.UUID()).isActive()
    assert host.qemu_pids() == pids


def test_a_power_cut_ends_daemon_and_vms(hosts: KvmHosts, vm: Any) -> None:
    hosts.cut_power("host-b")
    assert hosts.host("host-b").qemu_pids() == []
    assert health() is None

    hosts.start("host-b")
    with connection(hosts.uris()["host-b"]) as again:
        assert not again.lookupByUUID(vm.UUID()).isActive()


def processes_of(state: Path) -> list[str]:
    """Command lines of living processes that mention the lab's folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(state) in command:
            found.append(command)
    return found


def test_down_leaves_no_process(hosts: KvmHosts, vm: Any) -> None:
    host = hosts.host("host-b")
    assert vm.isActive()
    assert processes_of(host.state)
    daemons = [hosts.host(name).daemon for name in HOST_NAMES]

    started = time.monotonic()
    hosts.down()
    assert time.monotonic() - started < 30
    assert processes_of(host.state) == []
    assert [daemon.pid() for daemon in daemons] == [None, None]
    assert health() is None
