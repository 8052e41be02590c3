"""What is measured of one VM, beside its sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """One VM over the time between two looks. None: not known, be it that there were no two looks yet, that it was
    started anew between them, or that they are too long ago."""

    cpu: float | None = None
    """Percent of its vCPUs' time. QEMU's own work counts, so it may be a little above 100."""
    memory: float | None = None
    """Percent of the most that the guest may have, in use as the guest tells it."""
    network: float | None = None
    """Bytes per second, received and sent together."""
    requests: float | None = None
    """Requests per second that balancers sent to it."""
    response: float | None = None
    """Mean seconds from a request to the first byte of its answer; also None where nothing was answered."""
    since: float = -math.inf
    """When the look before the last was, on the clock that nobody sets: what is told began then at the earliest."""


NO_FIGURES = Figures()


def since_ready(figures: Mapping[str, Figures], ready: Mapping[str, float]) -> dict[str, Figures]:
    """Figures of VMs since they were ready: what a VM used to boot says nothing of its load.

    `ready`: by VM, since when it is. One that is not is left out.
    """
    return {name: it for name, it in figures.items() if name in ready and it.since >= ready[name]}
