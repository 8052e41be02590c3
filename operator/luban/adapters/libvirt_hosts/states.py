"""libvirt's domain states, and why a domain is in one. https://libvirt.org/html/libvirt-libvirt-domain.html"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import libvirt

from luban.core.model import DomainState

NO_SPACE = "IOErrorNoSpace"
"""Reason of a domain that is paused because a disk could not be written: its storage pool is full."""
IO_ERROR = "IOError"

_STATES: dict[int, DomainState] = {
    # No driver that we use reports NOSTATE for a domain that is off.
    libvirt.VIR_DOMAIN_NOSTATE: "Running",
    libvirt.VIR_DOMAIN_RUNNING: "Running",
    libvirt.VIR_DOMAIN_BLOCKED: "Running",
    libvirt.VIR_DOMAIN_PAUSED: "Paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "Paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "ShuttingDown",
    libvirt.VIR_DOMAIN_SHUTOFF: "Off",
    libvirt.VIR_DOMAIN_CRASHED: "Crashed",
}
# By number, as libvirt counts them; zero is always unknown. Written out, as older libraries know fewer of the names.
_REASONS = {
    libvirt.VIR_DOMAIN_RUNNING: (
        "Unknown", "Booted", "Migrated", "Restored", "FromSnapshot", "Unpaused", "MigrationCanceled", "SaveCanceled",
        "Wakeup", "Crashed", "Postcopy", "PostcopyFailed",
    ),
    libvirt.VIR_DOMAIN_PAUSED: (
        "Unknown", "User", "Migration", "Save", "Dump", IO_ERROR, "Watchdog", "FromSnapshot", "ShuttingDown",
        "Snapshot", "Crashed", "StartingUp", "Postcopy", "PostcopyFailed", "APIError",
    ),
    libvirt.VIR_DOMAIN_SHUTDOWN: ("Unknown", "User"),
    libvirt.VIR_DOMAIN_SHUTOFF: (
        "Unknown", "ShutdownByGuest", "Destroyed", "Crashed", "Migrated", "Saved", "Failed", "FromSnapshot", "Daemon",
    ),
    libvirt.VIR_DOMAIN_CRASHED: ("Unknown", "Panicked"),
    libvirt.VIR_DOMAIN_PMSUSPENDED: ("PMSuspended",),
}  # fmt: skip


class Standing(NamedTuple):
    """How a domain stands."""

    state: DomainState
    reason: str
    """Why, in CamelCase; Unknown: libvirt does not tell, or in a number that is new."""


@cache
def standing(state: int, reason: int) -> Standing:
    """Ours for libvirt's numbers. A QEMU process that died leaves a domain that is off because it crashed."""
    names = _REASONS.get(state, ())
    why = names[reason] if 0 <= reason < len(names) else "Unknown"
    if state == libvirt.VIR_DOMAIN_SHUTOFF and reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED:
        return Standing("Crashed", why)
    return Standing(_STATES.get(state, "Running"), why)
