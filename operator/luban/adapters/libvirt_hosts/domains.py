"""libvirt domains: reading them in bulk, and what is done to one. Blocking; each function is a job of a lane."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import libvirt

from luban.adapters.libvirt_hosts.addresses import AddressBook, ask_agent, ask_lease
from luban.adapters.libvirt_hosts.errors import (
    REFUSED,
    START_FAILED,
    attempt,
    doing,
    find,
    first_supported,
    foreign_domain,
    network_not_found,
)
from luban.adapters.libvirt_hosts.session import Session
from luban.api.names import METADATA_NAMESPACE
from luban.core.model import ClusterRef, DomainRecord, DomainState
from luban.render.domain_mark import Mark, parse_mark

LEASE_SECONDS = 1.0
"""Time in one bulk read after which no further lease is asked for; the rest follow in the next read."""

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
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


def domain_state(state: int, reason: int) -> DomainState:
    """Our state for libvirt's. A QEMU process that died leaves a domain that is off because it crashed."""
    if state == libvirt.VIR_DOMAIN_SHUTOFF and reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED:
        return "Crashed"
    return _STATES.get(state, "Running")


def read_mark(domain: libvirt.virDomain) -> Mark | None:
    """Our mark on a domain; None: not ours."""
    xml = find(domain.metadata, libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_NAMESPACE, 0)
    return parse_mark(xml) if xml is not None else None


def require_ours(session: Session, domain: libvirt.virDomain) -> Mark:
    """The mark of a domain. Raises ForeignDomain if it has none: a uuid alone does not make it ours."""
    mark = read_mark(domain)
    if mark is None:
        raise foreign_domain(session.host, domain.name(), "has the uuid of a LubanVM, but not Luban's metadata,")
    return mark


class Directory:
    """What was learned about a host's domains and does not change: whose they are, and their addresses.

    libvirt's bulk call returns states only; the metadata of a domain is read once, when its uuid is first seen.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.addresses = AddressBook()
        self.clock = clock
        self._marks: dict[str, Mark | None] = {}

    def read(self, session: Session, cluster: ClusterRef) -> dict[str, DomainRecord]:
        """All domains of the cluster on the host, by uuid."""
        rows = _bulk(session.connection)
        session.proceed()
        self._forget_all_but(rows)
        enough_at = self.clock() + LEASE_SECONDS
        found: dict[str, DomainRecord] = {}
        for uuid, (domain, state) in rows.items():
            mark = self._mark_of(uuid, domain)
            if mark is not None and mark.covers(cluster):
                address = mark.address or self._observed_address(uuid, domain, state, enough_at)
                found[uuid] = DomainRecord(uuid, domain.name(), state, address)
        return found

    def ask_agent(self, session: Session, uuid: str) -> None:
        """Ask one domain's guest agent for its address."""
        self.addresses.agent(uuid, "", self.clock())  # Asked, even if no answer ever comes.
        domain = session.domain(uuid)
        if domain is not None:
            self.addresses.agent(uuid, ask_agent(domain, uuid), self.clock())

    def _mark_of(self, uuid: str, domain: libvirt.virDomain) -> Mark | None:
        if uuid in self._marks:
            return self._marks[uuid]
        mark = read_mark(domain)
        if mark is not None or find(domain.isActive) is not None:
            # Not remembered if it went away just now: a later domain with this uuid is looked at afresh.
            self._marks[uuid] = mark
        return mark

    def _forget_all_but(self, rows: dict[str, tuple[libvirt.virDomain, DomainState]]) -> None:
        for uuid in self._marks.keys() - rows.keys():
            self._marks.pop(uuid, None)
        self.addresses.keep_only([uuid for uuid, (_, state) in rows.items() if state == "Running"])

    def _observed_address(self, uuid: str, domain: libvirt.virDomain, state: DomainState, enough_at: float) -> str:
        now = self.clock()
        if state == "Running" and now < enough_at and self.addresses.lease_due(uuid, now):
            self.addresses.lease(uuid, ask_lease(domain, uuid), now)
        return self.addresses.known(uuid)


def _bulk(connection: libvirt.virConnect) -> dict[str, tuple[libvirt.virDomain, DomainState]]:
    """All domains with their states, in one call. NOWAIT: never wait for a domain that is busy with a job."""
    rows: list[tuple[Any, dict[str, int]]] = connection.getAllDomainStats(
        libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    )
    return {
        domain.UUIDString(): (
            domain,
            domain_state(values.get("state.state", libvirt.VIR_DOMAIN_NOSTATE), values.get("state.reason", 0)),
        )
        for domain, values in rows
    }


def is_active(domain: libvirt.virDomain) -> bool:
    """Whether a domain has a running (or paused) process; False if it is gone."""
    return find(domain.isActive) == 1


def define(session: Session, xml: str, name: str) -> libvirt.virDomain:
    """Define a domain or redefine it. Raises DomainRefused with libvirt's message."""
    with doing(session.host, f"define domain {name!r}", REFUSED):
        return session.connection.defineXML(xml)


def start(session: Session, domain: libvirt.virDomain) -> None:
    """Start a domain. Raises StartFailed or DomainRefused with libvirt's message; no error if it runs."""
    with doing(session.host, f"start domain {domain.name()!r}", START_FAILED):
        try:
            domain.create()
        except libvirt.libvirtError:
            if not is_active(domain):
                raise


def _unless_off(domain: libvirt.virDomain, call: Callable[[], object]) -> None:
    """Do something to a running domain; that it went off by itself meanwhile is no error."""
    if not is_active(domain):
        return
    try:
        call()
    except libvirt.libvirtError:
        if is_active(domain):
            raise


def shutdown(session: Session, uuid: str) -> None:
    """Press the power button of one of our domains."""
    domain = session.domain(uuid)
    if domain is None:
        return
    require_ours(session, domain)
    acpi = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
    _unless_off(domain, lambda: first_supported(lambda: domain.shutdownFlags(acpi), domain.shutdown))


def destroy(session: Session, uuid: str) -> Mark | None:
    """Pull the plug of one of our domains. Returns its mark; None: there is no such domain."""
    domain = session.domain(uuid)
    if domain is None:
        return None
    mark = require_ours(session, domain)
    _unless_off(domain, domain.destroy)
    return mark


def undefine(domain: libvirt.virDomain) -> None:
    """Forget a domain that is off, with all that libvirt keeps for it."""
    first_supported(
        lambda: find(domain.undefineFlags, _UNDEFINE),
        lambda: find(domain.undefineFlags, libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE),
        lambda: find(domain.undefine),
    )


def require_name_is_free(session: Session, name: str) -> None:
    """Raises ForeignDomain if a domain (with another uuid than ours) has the name."""
    domain = find(session.connection.lookupByName, name)
    if domain is not None:
        raise foreign_domain(session.host, name, f"exists with uuid {domain.UUIDString()}")


def require_network(session: Session, name: str) -> None:
    """Raises NetworkNotFound if a libvirt network is missing or stopped."""
    network = find(session.connection.networkLookupByName, name)
    if network is None or not attempt(network.isActive):
        raise network_not_found(session.host, name, inactive=network is not None)
