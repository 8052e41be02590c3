"""A storage pool that fills up under a running VM: what libvirt and QEMU make of it, seen through the adapter."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hosts import KvmHost, KvmHosts
from lab.image.build import DISK, FILES, INITRD, KERNEL, ensure_image
from lab.paths import LAB_USER, Layout
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterRef, DomainRecord, Machine
from luban.ports import HostRef

# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounts a small file system"),
]

BASE = 68
CLUSTER = ClusterRef("shop", "luban")
PATIENCE = 180.0
"""Generous: a guest in software emulation has to boot."""
POLL = 0.1
FILL = "#!/bin/sh\n(sleep 1; dd if=/dev/urandom of=/root/fill bs=1M count=64; sync) &\n"


@pytest.fixture
def small_host() -> Iterator[KvmHost]:
    """A host whose pool has room for the base image's links and for 16 MiB."""
    image = ensure_image()
    with tempfile.TemporaryDirectory(prefix="luban-") as folder:
        state = Path(folder)
        state.chmod(0o755)  # The daemon's own user passes through.
        hosts = KvmHosts(Layout(base=BASE, state=state))
        host = hosts.host("host-b")
        host.start()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(host.images)], check=False)
        try:
            if mounted.returncode != 0:
                pytest.skip("cannot mount here")
            shutil.chown(host.images, LAB_USER, LAB_USER)
            for name in FILES:
                (host.images / name).symlink_to(image / name)
            host.ensure_pool()
            yield host
        finally:
            host.shut_down()
            subprocess.run(["umount", "--lazy", str(host.images)], check=False)
            hosts.destroy()


def machine() -> Machine:
    """A VM that writes more than the pool can take."""
    template = {
        "image": {"volume": DISK, "size": "1Gi"},
        "network": {"type": "User"},
        "domain": {
            "memory": {"max": "384Mi"},
            "kernelBoot": {"kernelVolume": KERNEL, "initrdVolume": INITRD, "kernelArgs": "console=ttyS0 acpi=noirq"},
        },
    }
    return Machine(
        uuid=str(uuids.uuid4()),
        name="luban-x7",
        cluster=CLUSTER,
        template=VMTemplateSpec.model_validate(template),
        forward_address=f"127.0.{BASE + 1}.2",
        user_data=FILL,
    )


async def test_a_vm_on_a_full_pool_is_paused_says_so_and_can_be_removed(small_host: KvmHost) -> None:
    host, vm = HostRef("host-b", small_host.uri), machine()
    hypervisor = LibvirtHypervisor(HypervisorSettings(min_free_bytes=1, call=PATIENCE, user_networking=True))

    async def look() -> DomainRecord:
        return (await hypervisor.inventory(host)).domains[vm.uuid].record

    await hypervisor.ensure_running(host, vm)
    seen = [await look()]
    async with asyncio.timeout(PATIENCE):
        while (now := await look()).reason != "IOErrorNoSpace":
            if now != seen[-1]:
                seen.append(now)
            await asyncio.sleep(POLL)
    assert {record.state for record in seen if record.reason == "IOError"} <= {"Paused"}
    assert (now.state, now.address) == ("Paused", vm.forward_address)
    assert not await hypervisor.shutdown(host, vm.uuid)
    await hypervisor.remove(host, vm.uuid, "default")
    assert (await hypervisor.inventory(host)).domains == {}
    assert {path.name for path in small_host.images.iterdir()} == set(FILES)
    await hypervisor.close()
