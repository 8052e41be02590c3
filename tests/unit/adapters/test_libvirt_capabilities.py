"""What a host can do, and what its pools hold: whether KVM is to be believed in, names of volumes, seeds."""

from __future__ import annotations

import threading
from pathlib import Path

import libvirt
import pytest

from luban.adapters.libvirt_hosts import storage
from luban.adapters.libvirt_hosts.capabilities import Abilities, read_abilities
from luban.adapters.libvirt_hosts.session import Session
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterRef, Machine
from luban.ports import HostRef

LOCAL, REMOTE = HostRef("host-b", "qemu:///system"), HostRef("host-b", "qemu+tls://host-b/system")
CLUSTER = ClusterRef("shop", "luban", "uid")

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
            error = libvirt.libvirtError("not supported")
            error.err = (libvirt.VIR_ERR_NO_SUPPORT, 0, "not supported", 2, None, None, None, -1, -1)
            raise error
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
