"""spec.pool of a LubanCluster: VMs that were ready once, and wait to be let serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from luban.api.common import Model
from luban.api.units import Quantity


class Balloon(Model):
    """Memory of a VM in the pool."""

    min: Annotated[Quantity, Quantity.between("16Mi", "4Pi")] | None = None
    """Memory that it keeps while it waits: before it is suspended its guest is asked to give back the rest, and gets it all
    when it is taken. Above the template's memory.max, or unset: all of it. What the guest does not give back stays its."""


class Pool(Model):
    """VMs that wait, ready, where the next ones would be made."""

    size: int = Field(default=0, ge=0, le=100)
    """How many wait. They count against hosts[].vms.max, not against scaling.maxVMs; of two or more not all are on one
    host, if another has room."""
    state: Literal["Paused"] = "Paused"
    """How they wait. Paused: suspended, with their memory; to go on takes milliseconds."""
    balloon: Balloon = Balloon()
    """Memory that they keep meanwhile."""
