"""Making and removing one VM on a host: the jobs behind ensure_running and remove. Blocking."""

from __future__ import annotations

from dataclasses import dataclass, replace

import libvirt

from luban.adapters.libvirt_hosts.capabilities import Abilities
from luban.adapters.libvirt_hosts.domains import (
    define,
    destroy,
    is_active,
    require_name_is_free,
    require_network,
    require_ours,
    start,
    undefine,
)
from luban.adapters.libvirt_hosts.errors import refused
from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.storage import BaseImage, MissingPools, Pool, delete_volumes, require_pool
from luban.adapters.libvirt_hosts.undo import Undo
from luban.core.model import Machine
from luban.render.domain_xml import HostFacts, domain_xml
from luban.render.seed import seed_documents
from luban.render.xml_tree import CannotRenderError


@dataclass(frozen=True)
class Precaution:
    """What is looked at before anything is made."""

    min_free_bytes: int
    """Free space of the pool without which nothing is begun."""
    refresh_pool: bool
    """Have the pool counted anew before its free space is judged."""


def ensure_running(session: Session, machine: Machine, abilities: Abilities, precaution: Precaution) -> None:
    """Overlay, seed and domain as far as they are missing, then start. What a failed attempt made is unmade."""
    existing = session.domain(machine.uuid)
    if existing is None:
        require_name_is_free(session, machine.domain_name)
    else:
        require_ours(session, existing)
        if is_active(existing):
            return
    _require_connection(session, machine)
    pool = Pool(session, machine.template.image.pool)
    sources = _sources(pool, machine, precaution)
    with Undo(session.host.name) as undo:
        facts = _make_volumes(session, pool, machine, sources, undo)
        _define_and_start(
            session, machine, replace(facts, kvm=abilities.kvm, emulation=abilities.emulation), existing, undo
        )


def _require_connection(session: Session, machine: Machine) -> None:
    network = machine.template.network
    if network.type == "Network":
        require_network(session, network.source)


@dataclass(frozen=True)
class _Sources:
    """What a VM is made from: paths on the host. Empty: not asked for."""

    base: BaseImage
    kernel: str
    initrd: str


def _sources(pool: Pool, machine: Machine, precaution: Precaution) -> _Sources:
    """Look everything up before anything is made. Raises LubanError for what is missing, or if space is."""
    if precaution.refresh_pool:
        pool.refresh()
    boot = machine.template.domain.kernel_boot
    found = _Sources(
        base=pool.base_image(machine.template.image.volume),
        kernel=pool.path_of(boot.kernel_volume) if boot else "",
        initrd=pool.path_of(boot.initrd_volume) if boot and boot.initrd_volume else "",
    )
    pool.require_space(precaution.min_free_bytes)
    return found


def _make_volumes(session: Session, pool: Pool, machine: Machine, sources: _Sources, undo: Undo) -> HostFacts:
    session.proceed()
    overlay = pool.ensure_overlay(machine.overlay_volume, sources.base, machine.template.image.size.bytes, undo)
    session.proceed()
    return HostFacts(
        kvm=False,
        overlay_path=overlay,
        seed_path=_make_seed(pool, machine, undo),
        kernel_path=sources.kernel,
        initrd_path=sources.initrd,
    )


def _make_seed(pool: Pool, machine: Machine, undo: Undo) -> str:
    if machine.user_data is None:
        return ""
    documents = seed_documents(machine.uuid, machine.name, machine.user_data)
    return pool.make_seed(machine.seed_volume, documents, undo)


def _define_and_start(
    session: Session, machine: Machine, facts: HostFacts, existing: libvirt.virDomain | None, undo: Undo
) -> None:
    xml = _render(session, machine, facts)
    session.proceed()
    domain = define(session, xml, machine.domain_name)
    if existing is None:
        undo.add(f"domain {machine.domain_name}", lambda: undefine(domain))
    session.proceed()
    start(session, domain)


def _render(session: Session, machine: Machine, facts: HostFacts) -> str:
    try:
        return domain_xml(machine, facts)
    except CannotRenderError as error:
        raise refused(session.host, machine.domain_name, str(error)) from error


def remove(session: Session, uuid: str, pool: str, missing: MissingPools) -> None:
    """Destroy and undefine a domain of ours, then delete its volumes, also those of a domain that is gone.

    They are looked for in `pool` and in the pool that the domain itself names. While the latter is missing the domain
    stays, off, so that its disk is not forgotten: see MissingPools. Raises TemporaryError PoolNotFound.
    """
    pools = {pool}
    mark = destroy(session, uuid)
    if mark is not None:
        pools.add(mark.pool)
        session.proceed()
        domain = session.domain(uuid)
        if domain is not None:
            require_pool(session, mark.pool or pool, domain.name(), missing)
            undefine(domain)
    for name in sorted(pools - {""}):
        session.proceed()
        delete_volumes(session, name, uuid)
