"""Making and removing one VM on a host: the jobs behind ensure_running and remove. Blocking."""

from __future__ import annotations

from dataclasses import dataclass

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
from luban.adapters.libvirt_hosts.storage import Pool, delete_volumes
from luban.adapters.libvirt_hosts.undo import Undo
from luban.ports import Machine
from luban.render.domain_xml import DomainSpec, HostFacts, domain_xml
from luban.render.seed import seed_documents
from luban.render.xml_tree import CannotRenderError


@dataclass(frozen=True)
class Order:
    """A VM to be made."""

    machine: Machine
    abilities: Abilities
    min_free_bytes: int
    """Free space without which nothing is begun."""
    refresh_pool: bool
    """Have the pool counted anew before its free space is judged."""


def ensure_running(session: Session, order: Order) -> None:
    """Overlay, seed and domain as far as they are missing, then start. What a failed attempt made is unmade."""
    machine = order.machine
    existing = session.domain(machine.uuid)
    if existing is None:
        require_name_is_free(session, machine.domain_name)
    else:
        require_ours(session, existing)
        if is_active(existing):
            return
    _require_connection(session, machine)
    pool = Pool(session, machine.template.image.pool)
    if order.refresh_pool:
        pool.refresh()
    with Undo(session.host.name) as undo:
        facts = _make_volumes(session, pool, order, undo)
        _define_and_start(session, machine, facts, existing, undo)


def _require_connection(session: Session, machine: Machine) -> None:
    network = machine.template.network
    if network.type == "Network":
        require_network(session, network.source)


def _make_volumes(session: Session, pool: Pool, order: Order, undo: Undo) -> HostFacts:
    machine = order.machine
    image = machine.template.image
    base = pool.base_image(image.volume)
    boot = machine.template.domain.kernel_boot
    kernel = pool.path_of(boot.kernel_volume) if boot else ""
    initrd = pool.path_of(boot.initrd_volume) if boot and boot.initrd_volume else ""
    pool.require_space(order.min_free_bytes)
    session.proceed()
    overlay = pool.ensure_overlay(machine.overlay_volume, base, image.size.bytes, undo)
    session.proceed()
    return HostFacts(
        kvm=order.abilities.kvm,
        emulation=order.abilities.emulation,
        overlay_path=overlay,
        seed_path=_make_seed(pool, machine, undo),
        kernel_path=kernel,
        initrd_path=initrd,
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
    spec = DomainSpec(
        uuid=machine.uuid,
        name=machine.domain_name,
        vm=machine.name,
        cluster=machine.cluster,
        template=machine.template,
        forward_address=machine.forward_address,
    )
    try:
        return domain_xml(spec, facts)
    except CannotRenderError as error:
        raise refused(session.host, machine.domain_name, str(error)) from error


def remove(session: Session, uuid: str, pool: str) -> None:
    """Destroy and undefine a domain of ours, then delete its volumes, also those of a domain that is gone.

    They are looked for in `pool` and in the pool that the domain itself names.
    """
    pools = {pool}
    mark = destroy(session, uuid)
    if mark is not None:
        pools.add(mark.pool)
        session.proceed()
        domain = session.domain(uuid)
        if domain is not None:
            undefine(domain)
    for name in sorted(pools - {""}):
        session.proceed()
        delete_volumes(session, name, uuid)
