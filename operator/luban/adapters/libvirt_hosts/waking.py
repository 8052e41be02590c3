"""A domain that rests and goes on again: suspend, resume, its memory, its clock. Blocking jobs of a lane."""

from __future__ import annotations

import libvirt

from luban.adapters.libvirt_hosts.domains import is_active, require_ours
from luban.adapters.libvirt_hosts.errors import CALL_FAILED, doing, domain_missing, find
from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.states import standing

KIBI = 1024


def _active(session: Session, uuid: str, what: str) -> libvirt.virDomain:
    """One of our domains that runs or is paused. Raises DomainMissing."""
    domain = session.domain(uuid)
    if domain is not None:
        require_ours(session, domain)
    if domain is None or not is_active(domain):
        raise domain_missing(session.host, uuid, what)
    return domain


def _state(domain: libvirt.virDomain) -> str:
    found = find(domain.state)
    return standing(*found).state if found is not None else "Off"


def suspend(session: Session, uuid: str) -> None:
    """Stop its processors, unless they stand still."""
    domain = _active(session, uuid, "suspend")
    if _state(domain) != "Running":
        return
    with doing(session.host, f"suspend domain {uuid}", CALL_FAILED):
        domain.suspend()


def resume(session: Session, uuid: str) -> None:
    """Let its processors go on, unless they do."""
    domain = _active(session, uuid, "resume")
    if _state(domain) != "Paused":
        return
    with doing(session.host, f"resume domain {uuid}", CALL_FAILED):
        domain.resume()


def set_memory(session: Session, uuid: str, memory: int) -> None:
    """Tell its balloon how many bytes the guest may have."""
    domain = _active(session, uuid, "set the memory of")
    with doing(session.host, f"set the memory of domain {uuid}", CALL_FAILED):
        domain.setMemoryFlags(memory // KIBI, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def set_time(session: Session, uuid: str, now: float) -> bool:
    """Tell its agent the time. False: there is none, or it does not do it, whatever libvirt calls that."""
    domain = _active(session, uuid, "set the clock of")
    with doing(session.host, f"set the clock of domain {uuid}", CALL_FAILED):
        try:
            domain.setTime({"seconds": int(now), "nseconds": int(now % 1 * 1e9)}, 0)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC:
                raise
            return False
    return True
