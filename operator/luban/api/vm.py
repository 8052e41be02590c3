"""LubanVM: one virtual machine. Written by the operator; a user may delete it, it is drained and replaced."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from luban.api.common import DNS_LABEL, IPV4, Model, ObjectMeta, StatusModel, remedy, rules
from luban.api.template import VMTemplateSpec

Phase = Literal["Pending", "Provisioning", "Booting", "Ready", "Paused", "Draining", "Stopping", "Failed", "Lost"]


_IDENTITY = ("clusterName", "host", "hostURI", "address", "template")
"""What makes a LubanVM this one: it stays as it was decided."""


class LubanVMSpec(Model):
    """What was decided when the VM was created. What it is and where it runs never changes."""

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


class PhaseTransition(StatusModel):
    """When a phase began."""

    phase: Phase
    """The phase."""
    at: str
    """When it began (RFC 3339)."""


class LubanVMStatus(StatusModel):
    """What the operator observed."""

    phase: Phase = "Pending"
    """Pending: to be made. Provisioning: overlay and domain are being made. Booting: started, not ready yet.
    Ready: answers its probe. Paused: its domain is paused, so it does not serve. Draining: takes no new requests. Stopping: shutting down. Failed: did not start.
    Lost: stopped by itself."""
    reason: str = ""
    """CamelCase reason of the phase."""
    message: str = ""
    """What is the case, and what to do about it."""
    address: str = ""
    """Address that it serves on."""
    balancers: tuple[str, ...] = ()
    """Balancers that send it new requests."""
    transitions: tuple[PhaseTransition, ...] = ()
    """When each phase began."""


class LubanVM(Model):
    """One virtual machine of a LubanCluster."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    metadata: ObjectMeta
    """Kubernetes' object metadata."""
    spec: LubanVMSpec
    """What was decided when the VM was created. Never changes."""
    status: LubanVMStatus = LubanVMStatus()
    """What the operator observed."""

    @classmethod
    def parse(cls, body: Any) -> LubanVM:
        """Parse an object of the API server. Raises pydantic.ValidationError if it is not one of ours."""
        return cls.model_validate(body)
