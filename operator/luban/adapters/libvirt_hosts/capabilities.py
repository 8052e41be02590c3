"""Whether a host can really use KVM.

libvirt's domain capabilities say yes to KVM wherever /dev/kvm exists, also on machines whose CPU has no hardware
virtualisation. So both must agree: the daemon offers KVM (it can open /dev/kvm), and the CPU has vmx or svm.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import libvirt

from luban.adapters.libvirt_hosts.errors import attempt
from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.uri import is_local

CPU_FLAGS = frozenset({"vmx", "svm"})
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Abilities:
    """What a host can do."""

    kvm: bool
    emulation: str
    """libvirt's domain type for software emulation there."""


def read_abilities(session: Session, cpuinfo: Path = CPUINFO) -> Abilities:
    """Ask the daemon. The first time in a daemon's life this takes seconds: it tries out every QEMU it has."""
    capabilities = ET.fromstring(session.connection.getCapabilities())  # noqa: S314 - printed by libvirt
    offered = {domain.get("type") for domain in capabilities.iterfind("guest/arch[@name='x86_64']/domain")}
    kvm = "kvm" in offered and _cpu_has_it(session, capabilities, cpuinfo)
    emulation = "test" if session.connection.getType() == "TEST" else "qemu"
    return Abilities(kvm=kvm, emulation=emulation)


def _cpu_has_it(session: Session, capabilities: ET.Element, cpuinfo: Path) -> bool:
    if is_local(session.host) and cpuinfo.exists():
        return not CPU_FLAGS.isdisjoint(cpuinfo.read_text().split())
    return not CPU_FLAGS.isdisjoint(_cpu_features(session.connection, capabilities))


def _cpu_features(connection: libvirt.virConnect, capabilities: ET.Element) -> set[str]:
    """Features of the host's CPU, those that its model stands for included: AMD's models imply svm."""
    cpu = capabilities.find("host/cpu")
    if cpu is None:
        return set()
    flags = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
    expanded = attempt(connection.baselineCPU, [ET.tostring(cpu, encoding="unicode")], flags)
    trees = [cpu] if expanded is None else [cpu, ET.fromstring(expanded)]  # noqa: S314 - printed by libvirt
    return {feature.get("name", "") for tree in trees for feature in tree.iterfind("feature")}
