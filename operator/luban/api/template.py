"""The VM template: what one virtual machine of a cluster looks like. Names follow KubeVirt's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from luban.api.common import DNS_SUBDOMAIN, LABEL_KEY, LABEL_VALUE, URL_PATH, Model, remedy, rules
from luban.api.names import VM_VOLUME
from luban.api.units import Duration, Quantity, Written

_NAME_REMEDY = remedy("must be letters, digits, dots, hyphens and underscores")


def _no_vms_volume(field: str) -> str:
    """CEL: the field names nothing that was made for a VM."""
    return f"!self.{field}.matches('{VM_VOLUME}')"


class CPU(Model):
    """Virtual processors."""

    cores: int = Field(default=1, ge=1, le=128)
    """Number of virtual CPUs."""
    model: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$", max_length=64, json_schema_extra=_NAME_REMEDY)
    """libvirt CPU model or mode (host-passthrough, host-model, max, qemu64, ...). Empty: host-model under
    KVM, max under QEMU."""


class Memory(Model):
    """Memory of a VM."""

    max: Annotated[Quantity, Quantity.between("16Mi", "4Pi")] = Quantity("1Gi")
    """Memory that the guest sees at most, from 16Mi, below which nothing boots, to 4Pi, which is all that a processor
    can address."""


class KernelBoot(Model):
    """Direct kernel boot: a kernel from volumes of the image's pool instead of the image's boot loader."""

    model_config = rules(
        (
            _no_vms_volume("kernelVolume"),
            "kernelBoot.kernelVolume must not be the disk or the seed of a VM (luban-<uid>...): name another volume",
        ),
        (
            f"!has(self.initrdVolume) || {_no_vms_volume('initrdVolume')}",
            "kernelBoot.initrdVolume must not be the disk or the seed of a VM (luban-<uid>...): name another volume",
        ),
    )

    kernel_volume: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=128, json_schema_extra=_NAME_REMEDY)
    """Volume that holds the kernel image."""
    initrd_volume: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$", max_length=128, json_schema_extra=_NAME_REMEDY)
    """Volume that holds the initial RAM disk. Empty: none."""
    kernel_args: str = Field(
        default="",
        pattern=r"^[\t\n -~]*$",
        max_length=1024,
        json_schema_extra=remedy("must be printable ASCII characters"),
    )
    """Kernel command line. `luban.vm=<name>` is appended."""


class Domain(Model):
    """The machine itself."""

    cpu: CPU = CPU()
    """Virtual processors."""
    memory: Memory = Memory()
    """Memory."""
    virt_type: Literal["Auto", "KVM", "QEMU"] = "Auto"
    """KVM: hardware virtualisation. QEMU: software emulation. Auto: KVM where the CPU has it, else QEMU."""
    kernel_boot: KernelBoot | None = None
    """Direct kernel boot. Unset: boot from the image."""


class Image(Model):
    """The base image. Each VM gets a copy-on-write overlay of it."""

    model_config = rules(
        (
            _no_vms_volume("volume"),
            "image.volume must not be the disk or the seed of a VM (luban-<uid>...): name another volume",
        ),
    )

    pool: str = Field(default="default", pattern=r"^[A-Za-z0-9_.-]+$", max_length=64, json_schema_extra=_NAME_REMEDY)
    """libvirt storage pool, the same name on every host; the overlays are made there too."""
    volume: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=128, json_schema_extra=_NAME_REMEDY)
    """Volume of the pool that holds the base image (qcow2)."""
    size: Annotated[Quantity, Quantity.between("1Mi", "2Pi")] = Quantity("8Gi")
    """Size of each VM's disk; at least the base image's, at most 2Pi, which is all that a qcow2 image holds."""


class Network(Model):
    """How a VM is connected."""

    model_config = rules(
        (
            "self.type == 'User' || self.source != ''",
            "network.source must name the host's bridge (type Bridge) or libvirt network (type Network)",
        ),
        (
            "self.type != 'Bridge' || self.source != 'default'",
            "network.source must name the host's bridge, for example br0, when network.type is Bridge",
        ),
        (
            "self.type != 'Bridge' || self.source.size() <= 15",
            "network.source must have at most 15 characters when network.type is Bridge: no device has a longer name",
        ),
    )

    type: Literal["Bridge", "Network", "User"] = "Network"
    """Bridge: a bridge device of the host; the QEMU guest agent must run in the image, as nobody else tells the VM's address.
    Network: a libvirt network, whose DHCP server tells it (or the guest agent, if the network has none). User: QEMU user-mode networking with a
    forward from a loopback address (one machine, laptop or lab: the operator must run on it, with --user-networking)."""
    source: str = Field(default="default", pattern=r"^[A-Za-z0-9_.-]*$", max_length=64, json_schema_extra=_NAME_REMEDY)
    """Name of the bridge or of the libvirt network; not used by type User."""


class SecretRef(Model):
    """Names a Secret in the cluster's namespace."""

    name: str = Field(
        pattern=DNS_SUBDOMAIN,
        max_length=253,
        json_schema_extra=remedy("must be the name of a Secret: lower-case letters, digits, hyphens and dots"),
    )
    """Name of the Secret."""


class CloudInit(Model):
    """cloud-init by a NoCloud seed disk."""

    user_data_secret_ref: SecretRef
    """Secret whose key `userdata` is the user-data document."""


class HTTPGet(Model):
    """An HTTP GET probe."""

    path: str = Field(
        default="/healthz",
        pattern=URL_PATH,
        max_length=256,
        json_schema_extra=remedy("must be a URL path such as /healthz"),
    )
    """Path to request; an answer of 200 to 399 is a success."""


class ReadinessProbe(Model):
    """How to tell that a VM serves."""

    http_get: HTTPGet = HTTPGet()
    """HTTP GET against the VM's address and port."""
    period_seconds: int = Field(default=2, ge=1, le=60)
    """Seconds between two probes, by the operator and by the health checks beside httpd."""
    timeout_seconds: int = Field(default=2, ge=1, le=60)
    """Seconds after which a probe without an answer has failed."""


class VMTemplateSpec(Model):
    """Everything that makes two VMs of a cluster alike."""

    domain: Domain = Domain()
    """CPU, memory and boot."""
    image: Image
    """Base image."""
    network: Network = Network()
    """Network connection."""
    cloud_init: CloudInit | None = None
    """cloud-init seed. Unset: none."""
    port: int = Field(default=8080, ge=1, le=65535)
    """TCP port of the web service inside the VM."""
    readiness_probe: ReadinessProbe = ReadinessProbe()
    """How to tell that a VM serves."""
    startup_timeout: Annotated[Duration, Duration.between("1s", "24h")] = Duration("5m")
    """A VM that is not ready so long after its start has failed."""
    failed_retention: Annotated[Duration, Duration.between("0s", "8784h")] = Duration("1m")
    """A failed VM is kept so long for inspection, at most 366 days, then replaced, on another host if possible."""
    termination_grace_period_seconds: int = Field(default=30, ge=0, le=3600)
    """Seconds between the ACPI power button and a hard stop."""


IN_PLACE_FIELDS = frozenset(
    {"readiness_probe", "startup_timeout", "failed_retention", "termination_grace_period_seconds"}
)
"""Fields of a template that make no other machine: they hold for existing VMs as soon as the spec changes. A change of any
other field rolls out."""


MACHINE_FIELDS = tuple(name for name in VMTemplateSpec.model_fields if name not in IN_PLACE_FIELDS)
"""All others."""


def rolls_out(old: VMTemplateSpec, new: VMTemplateSpec) -> bool:
    """Whether a VM of the old template must be replaced by one of the new: not for 1024Mi instead of 1Gi."""
    return any(_differ(getattr(old, name), getattr(new, name)) for name in MACHINE_FIELDS)


def _differ(old: Any, new: Any) -> bool:
    """What is written alike means the same: that is known at once, and mostly so."""
    return old is not new and old != new and _meaning(old) != _meaning(new)


def _meaning(value: Any) -> Any:
    """What a part of a template makes of a machine, however it is written."""
    if isinstance(value, Written):
        return value.exact
    if isinstance(value, Network) and value.type == "User":
        return value.type
    if isinstance(value, BaseModel):
        return {name: _meaning(getattr(value, name)) for name in type(value).model_fields}
    return value


def in_place(old: VMTemplateSpec, new: VMTemplateSpec) -> VMTemplateSpec:
    """The old template with what holds for existing VMs at once: mostly the new one, which all VMs share then."""
    if all(getattr(old, name) == getattr(new, name) for name in MACHINE_FIELDS):
        return new
    return old.model_copy(update={name: getattr(new, name) for name in IN_PLACE_FIELDS})


LabelKey = Annotated[
    str,
    Field(
        pattern=LABEL_KEY,
        max_length=253,
        json_schema_extra=remedy(
            "must have keys such as app or example.com/team: a prefix or none, "
            "and a name of at most 63 letters, digits, hyphens, dots and underscores"
        ),
    ),
]
LabelValue = Annotated[
    str,
    Field(
        pattern=LABEL_VALUE,
        max_length=63,
        json_schema_extra=remedy("must be at most 63 letters, digits, hyphens, dots and underscores, or empty"),
    ),
]


class TemplateMeta(Model):
    """Metadata for the LubanVMs."""

    model_config = rules(
        (
            "self.labels.all(key, !key.matches('^([-a-z0-9.]+[.])?luban[.]cloud/'))",
            "template.metadata.labels must not have keys below luban.cloud/: the operator sets those itself",
        ),
    )

    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=32)
    """Labels that every LubanVM of the cluster carries."""


class VMTemplate(Model):
    """A VM template with its metadata."""

    metadata: TemplateMeta = TemplateMeta()
    """Labels for the LubanVMs."""
    spec: VMTemplateSpec
    """The VM."""
