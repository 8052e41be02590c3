"""What is done to one libvirt domain. Blocking; each function is a job of a lane, or a step of one."""

from __future__ import annotations

from collections.abc import Callable

import libvirt

from luban.adapters.libvirt_hosts.errors import (
    REFUSED,
    START_FAILED,
    address_taken,
    attempt,
    doing,
    find,
    first_supported,
    foreign_domain,
    network_not_found,
    taken_forward,
)
from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.states import standing
from luban.api.names import METADATA_NAMESPACE
from luban.render.domain_mark import Mark, parse_mark

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


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


def is_active(domain: libvirt.virDomain) -> bool:
    """Whether a domain has a running (or paused) process; False if it is gone."""
    return find(domain.isActive) == 1


def define(session: Session, xml: str, name: str) -> libvirt.virDomain:
    """Define a domain or redefine it. Raises DomainRefused with libvirt's message."""
    with doing(session.host, f"define domain {name!r}", REFUSED):
        return session.connection.defineXML(xml)


def start(session: Session, domain: libvirt.virDomain) -> None:
    """Start a domain; no error if it runs.

    Raises StartFailed or DomainRefused with libvirt's message, AddressTaken if its forward cannot be had.
    """
    with doing(session.host, f"start domain {domain.name()!r}", START_FAILED):
        try:
            domain.create()
        except libvirt.libvirtError as error:
            if is_active(domain):
                return
            if address := taken_forward(error):
                raise address_taken(session.host, domain.name(), address, error) from error
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


def _hears(domain: libvirt.virDomain) -> bool:
    """Whether a domain's guest runs, and so can hear the power button."""
    found = find(domain.state)
    return found is not None and standing(*found).state == "Running"


def shutdown(session: Session, uuid: str) -> bool:
    """Press the power button of one of our domains. False: its guest cannot hear it."""
    domain = session.domain(uuid)
    if domain is None:
        return False
    require_ours(session, domain)
    if not _hears(domain):
        return False
    acpi = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
    try:
        first_supported(lambda: domain.shutdownFlags(acpi), domain.shutdown)
    except libvirt.libvirtError:
        if _hears(domain):
            raise
        return False
    return True


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
