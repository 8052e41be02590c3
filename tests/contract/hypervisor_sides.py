"""What a side of the Hypervisor contract has to offer to its tests."""

from __future__ import annotations

from typing import Protocol

from luban.ports import HostRef, Hypervisor


class Implementation(Protocol):
    """One implementation, and what a person could do beside it."""

    hypervisor: Hypervisor
    host: HostRef
    pool: str
    network: dict[str, str]
    seeds: bool
    """Whether it can upload a seed."""

    def stingy(self, min_free_bytes: int) -> Hypervisor:
        """The same hosts, for somebody who wants so much free space in a pool."""

    def other_daemon(self, uri: str) -> HostRef:
        """A host whose daemon is not there."""

    def domains(self) -> dict[str, str]:
        """All domains of the host: name by uuid."""

    def volumes(self) -> set[str]:
        """All volumes of the pool."""

    def add_volume(self, name: str, base: str = "") -> None:
        """Make a volume by hand, a copy-on-write overlay of another one or not."""

    def add_user(self, volume: str) -> str:
        """Define a domain of somebody else's, switched off, with a volume as its disk. Returns its name."""

    def run_of(self, uuid: str) -> int:
        """A number that is another one after each start."""

    def add_foreign(self, name: str, uuid: str) -> None:
        """Make a domain of somebody else's, switched off or not."""

    def come_up(self, uuid: str) -> None:
        """Let a guest boot, if this side's guests need to be told."""

    def pause(self, uuid: str) -> None:
        """Suspend a running domain by hand."""

    async def crash(self, uuid: str) -> None:
        """Make a running domain die."""

    def impatient(self) -> Hypervisor:
        """The same hosts, for somebody who does not wait long for an answer."""

    def stop_answering(self) -> None:
        """Have the daemon hang; its domains go on."""

    def answer_again(self) -> None:
        """Let the daemon go on."""
