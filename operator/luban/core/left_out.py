"""What is there and does not count: hosts that may not be used or that others fill, LubanVMs that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why nothing may be made or started on a host. What runs there goes on."""

    reason: str
    message: str
    """With the remedy."""

    @property
    def in_short(self) -> str:
        """The same in the words of a placement."""
        return f"it may not be used ({self.reason})"


@dataclass(frozen=True)
class HostRoom:
    """What a host has left for a cluster, by the limits that an administrator sets over all clusters."""

    free: int
    """How many more VMs of the cluster's template."""
    late: frozenset[str] = frozenset()
    """uids of LubanVMs, of any cluster, that were never started and came too late."""
    message: str = ""
    """Why it takes no more, and who has it."""


@dataclass(frozen=True)
class UnreadableVM:
    """A LubanVM that this version cannot read: only what every object says of itself is known."""

    name: str
    uid: str
    deleted: bool
    """Somebody deleted it."""
    has_finalizer: bool
    message: str
    """What cannot be read."""
