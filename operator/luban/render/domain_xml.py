"""libvirt domain XML: one configurator per device or feature, each adding its part to the same tree.

Pure: all that depends on the host comes in as `HostFacts`. https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from luban.core.model import Machine
from luban.render.domain_mark import Mark, mark_element
from luban.render.xml_tree import CannotRenderError, child, document

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
USER_NETDEV = "luban0"
USER_NIC_SLOT = 0x10
"""Slot on the PCIe root bus for the NIC that libvirt does not know of: libvirt counts up from 1 and keeps 0x1f."""
LOCALLY_ADMINISTERED, MULTICAST = 0x02, 0x01
"""In a MAC address's first byte."""
TAP, NOT_TAP = 0xFE, 0xFA
"""libvirt keeps the former as a first byte for its own side of a NIC, and refuses guests that have it."""
STATS_SECONDS = 10
"""So often a guest tells what memory it uses."""
CPU_MODES = {
    "host-passthrough": "host-passthrough",
    "host-model": "host-model",
    "maximum": "maximum",
    "max": "maximum",
}
ET.register_namespace("qemu", QEMU_NAMESPACE)


@dataclass(frozen=True)
class HostFacts:
    """What only the host can tell."""

    kvm: bool
    """Whether hardware virtualisation can be used."""
    overlay_path: str
    """The VM's own disk (qcow2)."""
    seed_path: str = ""
    """cloud-init seed image. Empty: no seed disk."""
    kernel_path: str = ""
    """Direct kernel boot: the kernel."""
    initrd_path: str = ""
    """Direct kernel boot: the initial RAM disk. Empty: none."""
    emulation: str = "qemu"
    """libvirt's domain type without KVM; its test driver calls it `test`."""
    machine_type: str = "q35"


Configurator = Callable[[ET.Element, Machine, HostFacts], None]


def mac_address(uuid: str) -> str:
    """A unicast, locally administered MAC address, always the same for one uuid.

    46 bits are free (but for one of 64 first bytes): among 10,000 VMs of one segment two share an address with a
    probability below one in a million. Domains that an earlier operator made keep theirs, so whoever wants to know a
    domain's looks into its XML.
    """
    drawn, *rest = hashlib.sha256(uuid.encode()).digest()[:6]
    first = drawn & ~MULTICAST | LOCALLY_ADMINISTERED
    return ":".join(f"{byte:02x}" for byte in (first if first != TAP else NOT_TAP, *rest))


def part(root: ET.Element, tag: str) -> ET.Element:
    """The child of that name, made on first use: several configurators add to `os` and to `devices`."""
    found = root.find(tag)
    return found if found is not None else child(root, tag)


def virt_type(machine: Machine, host: HostFacts) -> str:
    """libvirt's domain type. Raises CannotRenderError if KVM is demanded and cannot be used."""
    wanted = machine.template.domain.virt_type
    if wanted == "KVM" and not host.kvm:
        raise CannotRenderError(
            "virtType KVM, but the host has no usable hardware virtualisation: enable it, or use virtType Auto"
        )
    return "kvm" if host.kvm and wanted != "QEMU" else host.emulation


def configure_type(root: ET.Element, machine: Machine, host: HostFacts) -> None:
    """Hypervisor."""
    root.set("type", virt_type(machine, host))


def configure_identity(root: ET.Element, machine: Machine, _host: HostFacts) -> None:
    """Name, and the uuid that makes defining idempotent."""
    child(root, "name", machine.domain_name)
    child(root, "uuid", machine.uuid)


def configure_metadata(root: ET.Element, machine: Machine, _host: HostFacts) -> None:
    """The mark by which our domains are told from others."""
    template = machine.template
    mark = Mark(
        cluster=machine.cluster,
        vm=machine.name,
        pool=template.image.pool,
        image=template.image.volume,
        address=machine.forward_address if template.network.type == "User" else "",
        plane=machine.plane,
    )
    child(root, "metadata").append(mark_element(mark))


def configure_memory(root: ET.Element, machine: Machine, _host: HostFacts) -> None:
    """Memory, all of it from the start."""
    size = str(machine.template.domain.memory.max.bytes)
    child(root, "memory", size, unit="b")
    child(root, "currentMemory", size, unit="b")


def configure_vcpu(root: ET.Element, machine: Machine, _host: HostFacts) -> None:
    """Number of virtual CPUs."""
    child(root, "vcpu", str(machine.template.domain.cpu.cores))


def configure_cpu(root: ET.Element, machine: Machine, host: HostFacts) -> None:
    """CPU model: a mode of libvirt's, or a named model; cores in one socket."""
    default = "host-model" if virt_type(machine, host) == "kvm" else "maximum"
    model = machine.template.domain.cpu.model or default
    if mode := CPU_MODES.get(model):
        cpu = child(root, "cpu", mode=mode)
    else:
        cpu = child(root, "cpu", mode="custom", match="exact")
        child(cpu, "model", model, fallback="forbid")
    child(cpu, "topology", sockets="1", cores=str(machine.template.domain.cpu.cores), threads="1")


def configure_os(root: ET.Element, machine: Machine, host: HostFacts) -> None:
    """Machine type, and what is booted: the image's boot loader or a kernel given directly."""
    os = part(root, "os")
    child(os, "type", "hvm", arch="x86_64", machine=host.machine_type)
    boot = machine.template.domain.kernel_boot
    if boot is None:
        child(os, "boot", dev="hd")
        return
    if not host.kernel_path or bool(boot.initrd_volume) != bool(host.initrd_path):
        raise CannotRenderError("kernelBoot needs the paths of its kernel and initrd volumes")
    child(os, "kernel", host.kernel_path)
    if host.initrd_path:
        child(os, "initrd", host.initrd_path)
    child(os, "cmdline", f"{boot.kernel_args} luban.vm={machine.name}".strip())


def configure_smbios(root: ET.Element, machine: Machine, _host: HostFacts) -> None:
    """The VM's name as the system's serial number: the guest can read it without a seed or a kernel command line."""
    sysinfo = child(root, "sysinfo", type="smbios")
    system = child(sysinfo, "system")
    child(system, "entry", "Luban Cloud", name="manufacturer")
    child(system, "entry", machine.name, name="serial")
    child(part(root, "os"), "smbios", mode="sysinfo")


def configure_features(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """ACPI, so that the power button works, and the APIC that SMP guests need."""
    features = child(root, "features")
    child(features, "acpi")
    child(features, "apic")


def configure_clock(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """UTC; ticks lost while the host was busy are made up for."""
    clock = child(root, "clock", offset="utc")
    child(clock, "timer", name="rtc", tickpolicy="catchup")
    child(clock, "timer", name="pit", tickpolicy="delay")
    child(clock, "timer", name="hpet", present="no")


def configure_lifecycle(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """A VM that powers off or crashes is off: the operator decides what becomes of it."""
    child(root, "on_poweroff", "destroy")
    child(root, "on_reboot", "restart")
    child(root, "on_crash", "destroy")


def configure_disk(root: ET.Element, _machine: Machine, host: HostFacts) -> None:
    """The VM's own copy-on-write disk; space that the guest frees is given back to the pool."""
    disk = child(part(root, "devices"), "disk", type="file", device="disk")
    child(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    child(disk, "source", file=host.overlay_path)
    child(disk, "target", dev="vda", bus="virtio")


def configure_seed(root: ET.Element, _machine: Machine, host: HostFacts) -> None:
    """cloud-init's seed: a read-only virtio disk, not a CD drive.

    cloud-init finds it by its label on any block device, and Debian's cloud kernel has no driver for the SATA
    controller that a CD drive would sit on.
    """
    if not host.seed_path:
        return
    disk = child(part(root, "devices"), "disk", type="file", device="disk")
    child(disk, "driver", name="qemu", type="raw")
    child(disk, "source", file=host.seed_path)
    child(disk, "target", dev="vdb", bus="virtio")
    child(disk, "readonly")


def configure_nic(root: ET.Element, machine: Machine, _host: HostFacts) -> None:
    """A virtio NIC on a bridge or a libvirt network."""
    network = machine.template.network
    if network.type == "User":
        return
    kind = network.type.lower()
    nic = child(part(root, "devices"), "interface", type=kind)
    child(nic, "mac", address=mac_address(machine.uuid))
    child(nic, "source", **{kind: network.source})
    child(nic, "model", type="virtio")


def configure_user_network(root: ET.Element, machine: Machine, _host: HostFacts) -> None:
    """QEMU's user-mode network with a forward to the service port.

    Goes through to QEMU's command line, where a comma would begin another option: only a parsed address and
    integers come in. No option ROM: nothing boots from this network. The guest reaches the host's own 127.0.0.1
    as 10.0.2.2, which is why this is for one machine.
    """
    if machine.template.network.type != "User":
        return
    forward = f"tcp:{_forward_address(machine)}:{machine.template.port:d}-:{machine.template.port:d}"
    nic = f"netdev={USER_NETDEV},mac={mac_address(machine.uuid)},bus=pcie.0,addr={USER_NIC_SLOT:#x},romfile="
    command_line = child(root, f"{{{QEMU_NAMESPACE}}}commandline")
    for argument in (
        "-netdev",
        f"user,id={USER_NETDEV},hostfwd={forward}",
        "-device",
        f"virtio-net-pci,{nic}",
    ):
        child(command_line, f"{{{QEMU_NAMESPACE}}}arg", value=argument)


def _forward_address(machine: Machine) -> IPv4Address:
    """Of this machine alone: on another address, whoever reaches the machine would reach the VM."""
    complaint = f"network type User needs a loopback address to forward from, not {machine.forward_address!r}"
    try:
        address = IPv4Address(machine.forward_address)
    except ValueError as error:
        raise CannotRenderError(complaint) from error
    if not address.is_loopback:
        raise CannotRenderError(complaint)
    return address


def configure_guest_agent(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """Channel for the QEMU guest agent: it tells the address where no DHCP lease does."""
    channel = child(part(root, "devices"), "channel", type="unix")
    child(channel, "target", type="virtio", name="org.qemu.guest_agent.0")


def configure_balloon(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """Memory balloon, through which the guest also tells what it uses."""
    balloon = child(part(root, "devices"), "memballoon", model="virtio")
    child(balloon, "stats", period=str(STATS_SECONDS))


def configure_rng(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """Entropy, so that key generation does not hold up the boot."""
    rng = child(part(root, "devices"), "rng", model="virtio")
    child(rng, "backend", "/dev/urandom", model="random")


def configure_console(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """Serial console for `virsh console`; there are no graphics."""
    child(part(root, "devices"), "serial", type="pty")
    child(part(root, "devices"), "console", type="pty")


def configure_usb(root: ET.Element, _machine: Machine, _host: HostFacts) -> None:
    """No USB controller: nothing would use it, and probing it takes boot time."""
    child(part(root, "devices"), "controller", type="usb", model="none")


CONFIGURATORS: tuple[Configurator, ...] = (
    configure_type,
    configure_identity,
    configure_metadata,
    configure_memory,
    configure_vcpu,
    configure_os,
    configure_smbios,
    configure_features,
    configure_cpu,
    configure_clock,
    configure_lifecycle,
    configure_disk,
    configure_seed,
    configure_nic,
    configure_user_network,
    configure_guest_agent,
    configure_balloon,
    configure_rng,
    configure_console,
    configure_usb,
)


def domain_xml(machine: Machine, host: HostFacts) -> str:
    """The whole domain. Raises CannotRenderError when the template cannot be had on this host."""
    root = ET.Element("domain")
    for configure in CONFIGURATORS:
        configure(root, machine, host)
    return document(root)
