"""LubanVM: one virtual machine. Written by the operator; a user may delete it, it is drained and replaced."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.alias_generators import to_camel

from luban.api.common import DNS_LABEL, IPV4, Model, ObjectMeta, StatusModel, Time, remedy, rules
from luban.api.reading import faults, read_leniently
from luban.api.template import VMTemplateSpec
from luban.errors import UnreadableObject

Phase = Literal[
    "Pending",
    "Provisioning",
    "Booting",
    "Ready",
    "Paused",
    "Draining",
    "Warm",
    "Resuming",
    "Stopping",
    "Failed",
    "Lost",
]
Role = Literal["Serving", "Warm"]


_IDENTITY = ("clusterName", "host", "hostURI", "address", "template")
"""What makes a LubanVM this one: it stays as it was decided."""


class LubanVMSpec(Model):
    """What was decided when the VM was created. What it is and where it runs never changes; what it is for may."""

    model_config = rules(
        (
            " && ".join(f"self.{name} == oldSelf.{name}" for name in _IDENTITY),
            "what a LubanVM is and where it runs cannot be changed: change the LubanCluster's template, "
            "which replaces its VMs one by one; to replace this one alone, delete the LubanVM",
        )
    )

    cluster_name: str = Field(
        pattern=DNS_LABEL,
        max_length=63,
        json_schema_extra=remedy("must be the name of a LubanCluster in the same namespace"),
    )
    """LubanCluster in the same namespace that the VM belongs to."""
    host: str = Field(
        pattern=DNS_LABEL,
        max_length=63,
        json_schema_extra=remedy("must be the name of one of the LubanCluster's hosts"),
    )
    """Host that the VM is placed on."""
    host_uri: str = Field(alias="hostURI", max_length=512)
    """libvirt URI of that host, so that the VM can be cleaned up after the host left the cluster's spec."""
    address: str = Field(
        default="",
        pattern=rf"^$|^{IPV4}$",
        max_length=15,
        json_schema_extra=remedy("must be an IPv4 address, or empty"),
    )
    """Address given to the VM beforehand (network type User). Empty: observed later."""
    placement: str = Field(default="", max_length=4096)
    """Why it was placed on this host, and why not on each other one."""
    template: VMTemplateSpec
    """The template as it was when the VM was created."""
    role: Role = "Serving"
    """What it is for. Serving: it takes requests, or is to. Warm: it waits in the pool, or is on its way there. The
    operator alone changes it."""


class PhaseTransition(StatusModel):
    """When a phase began."""

    phase: Phase
    """The phase."""
    at: Time
    """When it began (RFC 3339)."""


class LubanVMStatus(StatusModel):
    """What the operator observed."""

    phase: Phase = "Pending"
    """Pending: to be made. Provisioning: overlay and domain are being made. Booting: started, not ready yet.
    Ready: answers its probe. Paused: its domain is paused, so it does not serve. Draining: takes no new requests. Warm: waits in the
    pool. Resuming: taken out of the pool, not ready again yet. Stopping: shutting down. Failed: did not start.
    Lost: stopped by itself."""
    reason: str = ""
    """CamelCase reason of the phase."""
    message: str = ""
    """What is the case, and what to do about it."""
    address: str = ""
    """Address that it serves on."""
    balancers: tuple[str, ...] = ()
    """Balancers that send it new requests."""
    balancer_summary: str = ""
    """The same as words, for `kubectl get`."""
    transitions: tuple[PhaseTransition, ...] = ()
    """When each phase began."""


class LubanVM(Model):
    """One virtual machine of a LubanCluster."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    metadata: ObjectMeta
    """Kubernetes' object metadata."""
    spec: LubanVMSpec
    """What was decided when the VM was created. Only its role changes."""
    status: LubanVMStatus = LubanVMStatus()
    """What the operator observed."""

    _left_out: tuple[str, ...] = PrivateAttr(default=())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Parts of spec and status that this version cannot read, each with the reason."""
        return self._left_out

    @classmethod
    def parse(cls, body: Any) -> LubanVM:
        """Parse an object of the API server, written by this version or another.

        What cannot be read of the status and of the template counts as not written: such a VM is no longer like the
        cluster's template, and so makes way for another in good order. Raises UnreadableObject if it does not say where
        it runs or from which image.
        """
        name = body["metadata"]["name"]
        try:
            spec, of_spec = read_leniently(LubanVMSpec, body.get("spec"))
        except ValidationError as error:
            words = "; ".join(f"spec.{fault}" for fault in faults(LubanVMSpec, error))
            raise UnreadableObject("VMUnreadable", f"LubanVM {name} cannot be read: {words}") from error
        status, of_status = read_leniently(LubanVMStatus, body.get("status"))
        vm = cls.model_validate({**body, "spec": spec, "status": _in_a_known_phase(status, body.get("status"))})
        vm._left_out = (*(f"spec.{words}" for words in of_spec), *(f"status.{words}" for words in of_status))
        return vm


def _in_a_known_phase(status: LubanVMStatus, written: Any) -> LubanVMStatus:
    """The status in the last phase that this version knows, if it is in one that it does not know."""
    if not status.transitions or not isinstance(written, dict) or written.get("phase") == status.phase:
        return status
    return status.model_copy(update={"phase": status.transitions[-1].phase})
