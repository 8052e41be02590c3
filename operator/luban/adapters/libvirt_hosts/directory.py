"""What is known of a host's domains: whose they are, how they stand, their addresses. Blocking; jobs of a lane.

libvirt's bulk call returns states only. The metadata of a domain is read once, when its uuid is first seen; addresses
and what ails a disk are asked for apart, and rarely.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import libvirt
import structlog

from luban.adapters.libvirt_hosts.address_sources import ask_agent, ask_lease, read_leases, read_nic
from luban.adapters.libvirt_hosts.addresses import AddressBook, unfit
from luban.adapters.libvirt_hosts.domains import read_mark
from luban.adapters.libvirt_hosts.errors import attempt, find
from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.states import IO_ERROR, NO_SPACE, Standing, standing
from luban.core.model import DomainRecord
from luban.ports import Inventory, MarkedDomain
from luban.render.domain_mark import Mark

log = structlog.get_logger(__name__)

KIBI, MEBI = 2**10, 2**20
ASIDE_SECONDS = 1.0
"""Time in one bulk read after which nothing more is asked about single domains; the rest follow in the next read."""


class _Row(NamedTuple):
    domain: libvirt.virDomain
    standing: Standing

    @property
    def in_memory(self) -> bool:
        """Whether its guest is there, and keeps its address, though it may be paused."""
        return self.standing.state in {"Running", "Paused"}

    @property
    def has_memory(self) -> bool:
        """Whether it takes memory of the host."""
        return self.in_memory or self.standing.state == "ShuttingDown"


@dataclass(frozen=True)
class Question:
    """Something to ask about one domain that may take a while, apart from the bulk read."""

    uuid: str
    what: str
    job: Callable[[Session], None]


class Directory:
    """One host's domains. Made for the threads of several lanes."""

    def __init__(self, host: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.host = host
        self.clock = clock
        self.addresses = AddressBook()
        self.disks = DiskErrors()
        self._marks: dict[str, Mark | None] = {}
        self._memory: dict[str, int] = {}
        """By uuid: bytes that a domain's guest may grow to, for as long as it runs."""
        self._host_memory: tuple[Session | None, int] = None, 0
        """Bytes that the host has, and on which connection it said so."""
        self._complaints: dict[str, str] = {}

    def read(self, session: Session) -> Inventory:
        """All domains on the host with our mark, and how the others burden it."""
        rows = _bulk(session.connection)
        session.proceed()
        self._forget_all_but(rows)
        enough_at = self.clock() + ASIDE_SECONDS
        ours = self._marked(rows)
        self._look_for_addresses(
            session, {uuid: rows[uuid] for uuid, mark in ours.items() if not mark.address}, enough_at
        )
        published = self.addresses.published(self.clock())
        self._complain(published.complaints)
        disks = self.disks.reasons()
        domains = {
            uuid: MarkedDomain(
                mark.cluster,
                DomainRecord(
                    uuid,
                    rows[uuid].domain.name(),
                    rows[uuid].standing.state,
                    mark.address or published.by_uuid.get(uuid, ""),
                    disks.get(uuid) or rows[uuid].standing.reason,
                ),
                self._memory_of(uuid, rows[uuid]),
                mark.pool,
                mark.plane,
            )
            for uuid, mark in ours.items()
        }
        foreign = sum(self._memory_of(uuid, row) for uuid, row in rows.items() if uuid not in ours)
        return Inventory(domains, self._memory_of_host(session), foreign)

    def questions(self) -> list[Question]:
        """What should be asked now, one after the other, without anybody waiting for it."""
        agents = self.addresses.agents_due(self.clock())
        return [
            *(Question(uuid, f"ask the guest agent of {uuid}", partial(self.ask_agent, uuid=uuid)) for uuid in agents),
            *(
                Question(uuid, f"ask for disk errors of {uuid}", partial(self.ask_disks, uuid=uuid))
                for uuid in self.disks.due()
            ),
        ]

    def ask_agent(self, session: Session, uuid: str) -> None:
        """Ask one domain's guest agent for its address."""
        self.addresses.agent(uuid, None, self.clock())  # Asked, even if no answer ever comes.
        domain = session.domain(uuid)
        if domain is not None:
            self.addresses.agent(uuid, ask_agent(domain, self.addresses.mac(uuid)), self.clock())

    def ask_disks(self, session: Session, uuid: str) -> None:
        """Ask what is the matter with the disks of a domain that an I/O error has paused."""
        self.disks.note(uuid, IO_ERROR)
        domain = session.domain(uuid)
        if domain is not None and libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in (attempt(domain.diskErrors) or {}).values():
            self.disks.note(uuid, NO_SPACE)

    def _marked(self, rows: Mapping[str, _Row]) -> dict[str, Mark]:
        marks = {uuid: self._mark_of(uuid, row.domain) for uuid, row in rows.items()}
        return {uuid: mark for uuid, mark in marks.items() if mark is not None}

    def _mark_of(self, uuid: str, domain: libvirt.virDomain) -> Mark | None:
        if uuid in self._marks:
            return self._marks[uuid]
        mark = self._with_fit_address(uuid, read_mark(domain))
        if mark is not None or find(domain.isActive) is not None:
            # Not remembered if it went away just now: a later domain with this uuid is looked at afresh.
            self._marks[uuid] = mark
        return mark

    def _memory_of(self, uuid: str, row: _Row) -> int:
        """It can change while a domain is off, and what could not be read is asked again."""
        if not row.has_memory:
            self._memory.pop(uuid, None)
            return 0
        if not self._memory.get(uuid):
            self._memory[uuid] = KIBI * (attempt(row.domain.maxMemory) or 0)
        return self._memory[uuid]

    def _memory_of_host(self, session: Session) -> int:
        if self._host_memory[0] is not session or not self._host_memory[1]:
            self._host_memory = session, read_memory(session)
        return self._host_memory[1]

    def _forget_all_but(self, rows: Mapping[str, _Row]) -> None:
        for known in (self._marks, self._memory):
            for uuid in known.keys() - rows.keys():
                del known[uuid]
        self.addresses.keep_only({uuid: row.standing.state == "Running" for uuid, row in rows.items() if row.in_memory})
        self.disks.keep_only({uuid for uuid, row in rows.items() if row.standing == ("Paused", IO_ERROR)})

    def _look_for_addresses(self, session: Session, rows: Mapping[str, _Row], enough_at: float) -> None:
        looked = {uuid: row.domain for uuid, row in rows.items() if row.in_memory}
        for uuid in self.addresses.nics_due(looked):
            if self.clock() < enough_at:
                self.addresses.nic(uuid, read_nic(looked[uuid]))
        for network in self.addresses.networks_due(self.clock()):
            self.addresses.leases(network, read_leases(session, network), self.clock())
        for uuid in looked.keys() & self.addresses.leases_due(self.clock()):
            if self.clock() < enough_at:
                self.addresses.lease(uuid, ask_lease(looked[uuid], self.addresses.mac(uuid)), self.clock())

    def _with_fit_address(self, uuid: str, mark: Mark | None) -> Mark | None:
        """A mark's address is the forward of network type User: nothing but a loopback address is one."""
        if mark is None or not mark.address or unfit(mark.address) == "loopback":
            return mark
        self._left_out(uuid, mark, f"{mark.address!r}: not a forward on this machine")
        return replace(mark, address="")

    def _complain(self, complaints: Mapping[str, str]) -> None:
        """Log what was left out, once for each new complaint."""
        for uuid, why in complaints.items():
            if self._complaints.get(uuid) != why:
                self._left_out(uuid, self._marks.get(uuid), why)
        self._complaints = dict(complaints)

    def _left_out(self, uuid: str, mark: Mark | None, why: str) -> None:
        names = {"cluster": str(mark.cluster), "vm": mark.vm} if mark else {}
        log.warning("address left out", host=self.host, domain=uuid, why=why, **names)


class DiskErrors:
    """What ails the disks of domains that an I/O error has paused. Locked, as several lanes use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}

    def keep_only(self, uuids: set[str]) -> None:
        """These are paused by an I/O error now, and no others."""
        with self._lock:
            self._reasons = {uuid: self._reasons.get(uuid, "") for uuid in uuids}

    def due(self) -> list[str]:
        """Of whom it was not asked yet."""
        with self._lock:
            return [uuid for uuid, reason in self._reasons.items() if not reason]

    def note(self, uuid: str, reason: str) -> None:
        """What was found out, unless the domain goes on meanwhile."""
        with self._lock:
            if uuid in self._reasons:
                self._reasons[uuid] = reason

    def reasons(self) -> Mapping[str, str]:
        """By uuid: why a domain is paused, as far as its disks tell; empty: nothing is known of them."""
        with self._lock:
            return dict(self._reasons)


def read_memory(session: Session) -> int:
    """Bytes that the host has; 0: it does not say."""
    info: list[Any] | None = attempt(session.connection.getInfo)
    return MEBI * int(info[1]) if info is not None else 0


def _bulk(connection: libvirt.virConnect) -> dict[str, _Row]:
    """All domains and how they stand, in one call. NOWAIT: never wait for a domain that is busy with a job."""
    rows: list[tuple[Any, dict[str, int]]] = connection.getAllDomainStats(
        libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    )
    return {
        domain.UUIDString(): _Row(
            domain, standing(values.get("state.state", libvirt.VIR_DOMAIN_NOSTATE), values.get("state.reason", 0))
        )
        for domain, values in rows
    }
