"""libvirt XML: golden files a feature, libvirt's own schema, and no API field that renders to nothing.

`LUBAN_UPDATE_GOLDEN=1 pytest tests/unit/render/test_domain_xml.py` writes the golden files anew; look at the diff.
"""

from __future__ import annotations

import os
import types
import typing
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from luban.api.template import VMTemplateSpec
from luban.api.units import Quantity
from luban.core.model import ClusterRef, Machine
from luban.render.domain_mark import METADATA_TAG, Mark, mark_element, parse_mark
from luban.render.domain_xml import HostFacts, domain_xml, mac_address
from luban.render.seed import seed_documents
from luban.render.volume_xml import overlay_xml, seed_xml
from luban.render.xml_tree import CannotRenderError

GOLDEN = Path(__file__).parents[2] / "fixtures" / "domain_xml"
UPDATE = "LUBAN_UPDATE_GOLDEN" in os.environ
UUID = "6f4a1f5e-9f0b-4f6e-8c3d-0123456789ab"
IMAGE = {"volume": "luban-web.qcow2"}


def spec(address: str = "", **template: Any) -> Machine:
    """A machine of the template with these fields."""
    return Machine(
        uuid=UUID,
        name="luban-x7",
        cluster=ClusterRef("shop", "luban", "0c1f6f0e-3a53-4d57-9a3a-aaaaaaaaaaaa"),
        template=VMTemplateSpec.model_validate({"image": IMAGE, **template}),
        forward_address=address,
    )


def facts(**changes: Any) -> HostFacts:
    """A host without KVM."""
    return replace(HostFacts(kvm=False, overlay_path="/pool/luban-x7.qcow2"), **changes)


KERNEL_BOOT = {"kernelVolume": "vmlinuz", "initrdVolume": "initrd.img", "kernelArgs": "root=/dev/vda quiet"}
FEATURES: dict[str, tuple[Machine, HostFacts]] = {
    "defaults": (spec(), facts()),
    "kvm": (spec(), facts(kvm=True)),
    "software-emulation-wanted": (spec(domain={"virtType": "QEMU"}), facts(kvm=True)),
    "size": (spec(domain={"cpu": {"cores": 4}, "memory": {"max": "3Gi"}}), facts()),
    "cpu-mode": (spec(domain={"cpu": {"model": "host-passthrough"}}), facts(kvm=True)),
    "cpu-model": (spec(domain={"cpu": {"model": "EPYC-Rome"}}), facts(kvm=True)),
    "bridge": (spec(network={"type": "Bridge", "source": "br0"}), facts()),
    "user-network": (spec("127.0.17.2", network={"type": "User"}), facts()),
    "seed": (spec(), facts(seed_path="/pool/luban-x7-seed.iso")),
    "kernel-boot": (
        spec(domain={"kernelBoot": KERNEL_BOOT}),
        facts(kernel_path="/pool/vmlinuz", initrd_path="/pool/initrd.img"),
    ),
    "kernel-boot-without-initrd": (
        spec(domain={"kernelBoot": {"kernelVolume": "vmlinuz"}}),
        facts(kernel_path="/pool/vmlinuz"),
    ),
}
VOLUMES = {
    "volume-overlay": overlay_xml(
        "luban-x7.qcow2", capacity=8 * 1024**3, base_path="/pool/luban-web.qcow2", base_format="qcow2"
    ),
    "volume-seed": seed_xml("luban-x7-seed.iso", size=67584),
}


def compare(name: str, text: str) -> None:
    """Compare with a golden file, or write it."""
    path = GOLDEN / f"{name}.xml"
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} differs: if that is meant, set LUBAN_UPDATE_GOLDEN=1"


@pytest.mark.parametrize("feature", FEATURES)
def test_domain_golden(feature: str) -> None:
    compare(feature, domain_xml(*FEATURES[feature]))


@pytest.mark.parametrize("volume", VOLUMES)
def test_volume_golden(volume: str) -> None:
    compare(volume, VOLUMES[volume])


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == FEATURES.keys() | VOLUMES.keys()


@pytest.fixture(scope="module")
def test_driver() -> Iterator[libvirt.virConnect]:
    """libvirt's test driver: it parses as every driver does, and checks against the schema when asked to."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


def as_test_domain(xml: str) -> str:
    """The same domain with the one type that the test driver has."""
    root = ET.fromstring(xml)
    root.set("type", "test")
    return ET.tostring(root, encoding="unicode")


@pytest.mark.parametrize("feature", FEATURES)
def test_golden_domains_keep_to_the_schema(feature: str, test_driver: libvirt.virConnect) -> None:
    xml = as_test_domain((GOLDEN / f"{feature}.xml").read_text())
    domain = test_driver.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    assert domain.UUIDString() == UUID
    domain.undefine()


def test_the_schema_check_checks(test_driver: libvirt.virConnect) -> None:
    xml = as_test_domain((GOLDEN / "defaults.xml").read_text()).replace("memballoon", "membaloon")
    with pytest.raises(libvirt.libvirtError) as error:
        test_driver.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    assert error.value.get_error_code() == libvirt.VIR_ERR_XML_INVALID_SCHEMA


@pytest.mark.parametrize("volume", VOLUMES)
def test_golden_volumes_can_be_made(volume: str, test_driver: libvirt.virConnect) -> None:
    pool = test_driver.storagePoolLookupByName("default-pool")
    pool.createXML((GOLDEN / f"{volume}.xml").read_text(), 0).delete(0)


# ---- every field of the API reaches the XML ---------------------------------------------------------------

RENDERED_PARTS = ("domain", "image", "network", "cloud_init")
CONCERNS_THE_OPERATOR = {
    "cloud_init.user_data_secret_ref.name": "the operator reads the Secret; its text goes into the seed",
}
EVERYTHING: dict[str, Any] = {
    "domain": {"kernelBoot": KERNEL_BOOT},
    "image": IMAGE,
    "network": {"type": "Network", "source": "default"},
    "cloudInit": {"userDataSecretRef": {"name": "luban-userdata"}},
}


def render_all(template: VMTemplateSpec) -> tuple[str, ...]:
    """All that an adapter would hand to libvirt for a VM of this template, on a host with KVM."""
    boot, image = template.domain.kernel_boot, template.image
    machine = replace(spec("127.0.17.2"), template=template)
    host = facts(
        kvm=True,
        kernel_path=f"/{boot.kernel_volume}" if boot else "",
        initrd_path=f"/{boot.initrd_volume}" if boot and boot.initrd_volume else "",
        seed_path="/seed.iso" if template.cloud_init else "",
    )
    overlay = overlay_xml("o", capacity=image.size.bytes, base_path=f"/{image.volume}", base_format="qcow2")
    return domain_xml(machine, host), overlay


def field_paths(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below a model as dotted path and type; an optional part counts as a field too."""
    for name, field in model.model_fields.items():
        path, kind, optional = f"{prefix}{name}", field.annotation, False
        if isinstance(kind, types.UnionType):
            kind, optional = next(arg for arg in typing.get_args(kind) if arg is not type(None)), True
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if optional:
                yield path, None
            yield from field_paths(kind, f"{path}.")
        else:
            yield path, kind


def other_value(kind: Any, current: Any) -> Any:
    """A value of that type that differs from the current one. None: the part is taken out."""
    if typing.get_origin(kind) is typing.Literal:
        return next(value for value in reversed(typing.get_args(kind)) if value != current)
    if kind is Quantity:
        return Quantity("3Gi")
    if kind is int:
        return current + 1
    return "changed" if kind is str else None


def changed(model: BaseModel, path: str, kind: Any) -> BaseModel:
    """The model with the value at `path` changed."""
    name, _, rest = path.partition(".")
    current = getattr(model, name)
    value = changed(current, rest, kind) if rest else other_value(kind, current)
    return model.model_copy(update={name: value})


RENDERED_FIELDS = [
    (path, kind) for path, kind in field_paths(VMTemplateSpec) if path.partition(".")[0] in RENDERED_PARTS
]


def test_fields_are_found() -> None:
    assert {"domain.cpu.cores", "domain.kernel_boot", "image.size", "cloud_init"} <= dict(RENDERED_FIELDS).keys()
    assert CONCERNS_THE_OPERATOR.keys() <= dict(RENDERED_FIELDS).keys()


@pytest.mark.parametrize(("path", "kind"), RENDERED_FIELDS, ids=[path for path, _ in RENDERED_FIELDS])
def test_no_field_renders_to_nothing(path: str, kind: Any) -> None:
    template = VMTemplateSpec.model_validate(EVERYTHING)
    other = changed(template, path, kind)
    assert other != template
    assert isinstance(other, VMTemplateSpec)
    differs = render_all(other) != render_all(template)
    assert differs == (path not in CONCERNS_THE_OPERATOR)


def test_port_reaches_the_forward() -> None:
    xml = domain_xml(spec("127.0.17.2", network={"type": "User"}, port=9000), facts())
    assert "hostfwd=tcp:127.0.17.2:9000-:9000" in xml


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1,restrict=on", "localhost", "127.0.0.1\n", "::1", "127.1", "0.0.0.0", "192.0.2.1"]
)
def test_a_forward_needs_a_plain_loopback_address(address: str) -> None:
    with pytest.raises(CannotRenderError, match="network type User needs a loopback address"):
        domain_xml(spec(address, network={"type": "User"}), facts())


def test_kvm_is_not_promised_where_there_is_none() -> None:
    with pytest.raises(CannotRenderError, match="virtType KVM"):
        domain_xml(spec(domain={"virtType": "KVM"}), facts(kvm=False))


@pytest.mark.parametrize("args", ["quiet\x00", "a\x1bb", "\ud800"])
def test_control_characters_are_refused(args: str) -> None:
    boot = VMTemplateSpec.model_validate(EVERYTHING).domain.kernel_boot
    assert boot is not None
    template = spec().template
    domain = template.domain.model_copy(update={"kernel_boot": boot.model_copy(update={"kernel_args": args})})
    machine = replace(spec(), template=template.model_copy(update={"domain": domain}))
    with pytest.raises(CannotRenderError, match="control character"):
        domain_xml(machine, facts(kernel_path="/k", initrd_path="/i"))


@given(args=st.text(st.characters(codec="ascii", exclude_categories=["Cc"], include_characters="\t\n"), max_size=40))
def test_markup_in_kernel_arguments_stays_text(args: str) -> None:
    machine = spec(domain={"kernelBoot": {"kernelVolume": "k", "kernelArgs": args}})
    root = ET.fromstring(domain_xml(machine, facts(kernel_path="/k")))
    assert root.findtext("os/cmdline") == f"{args} luban.vm=luban-x7".strip()
    assert [element.tag for element in root.iterfind("os/*")] == ["type", "kernel", "cmdline", "smbios"]


# ---- mark, MAC address, seed -------------------------------------------------------------------------------

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)


@given(
    namespace=names,
    name=names,
    uid=st.uuids().map(str),
    address=st.sampled_from(["", "127.0.17.9"]),
    plane=st.just("") | st.uuids().map(str),
)
def test_mark_is_read_back_through_libvirts_printer(
    namespace: str, name: str, uid: str, address: str, plane: str
) -> None:
    mark = Mark(ClusterRef(namespace, name, uid), name, "default", "web.qcow2", address, plane)
    printed = ET.tostring(mark_element(mark), encoding="unicode")
    without_prefix = printed.replace("luban:vm", "vm")
    assert parse_mark(printed) == mark
    assert parse_mark(without_prefix) == mark


@pytest.mark.parametrize("xml", ["", "<vm/>", "<vm name='x' namespace='y'/>", "<vm"])
def test_what_is_no_mark_is_nobodys(xml: str) -> None:
    assert parse_mark(xml) is None


def test_metadata_of_a_domain_is_the_mark(test_driver: libvirt.virConnect) -> None:
    domain = test_driver.defineXML(as_test_domain(domain_xml(*FEATURES["user-network"])))
    namespace = METADATA_TAG[1:].partition("}")[0]
    mark = parse_mark(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, namespace, 0))
    domain.undefine()
    assert mark == Mark(spec().cluster, "luban-x7", "default", "luban-web.qcow2", "127.0.17.2")


def test_mac_addresses_are_ours_to_give_stable_and_spread() -> None:
    """A unicast address has the lowest bit of its first byte clear, a locally administered one the next bit set."""
    addresses = {mac_address(f"{UUID}{number}") for number in range(20_000)}
    assert mac_address(UUID) == mac_address(UUID)
    assert len(addresses) == 20_000, "24 bits would have given some of them twice"
    firsts = {int(address[:2], 16) for address in addresses}
    assert firsts == {first for first in range(256) if first & 0b11 == 0b10} - {0xFE}, "0xFE is libvirt's own"
    for place in (3, 6, 9, 12, 15):
        assert len({address[place : place + 2] for address in addresses}) == 256


def test_seed_documents() -> None:
    documents = seed_documents(UUID, "luban-x7", "#cloud-config\n{}\n")
    assert documents == {
        "meta-data": f'instance-id: "{UUID}"\nlocal-hostname: "luban-x7"\n'.encode(),
        "user-data": b"#cloud-config\n{}\n",
    }
