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
class Left:
    """What is left of one limit; below zero where it was lowered."""

    places: int
    """VMs."""
    memory: int
    """Bytes."""


@dataclass(frozen=True)
class HostRoom:
    """What a host has left for a cluster, by the limits that an administrator sets over all clusters."""

    left: tuple[Left, ...] = ()
    """Of each limit that counts for the cluster."""
    need: int = 0
    """Bytes that its next VM may grow to."""
    late: frozenset[str] = frozenset()
    """uids of LubanVMs, of any cluster, that were never started and came too late."""
    message: str = ""
    """Why it takes no more, and who has it."""

    def fits_after(self, arrived: int = 0, returned: int = 0, returned_memory: int = 0) -> bool:
        """Whether one more VM fits once others like it arrived, and VMs of so many bytes together are gone."""
        return all(
            it.places + returned > arrived and it.memory + returned_memory >= (arrived + 1) * self.need
            for it in self.left
        )


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
