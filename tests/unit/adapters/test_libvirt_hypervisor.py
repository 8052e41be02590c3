"""Deadlines, reconnecting, events, what the operator allows: LibvirtHypervisor over stand-in connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from luban.adapters.libvirt_hosts import hypervisor as hypervisor_module
from luban.adapters.libvirt_hosts import provision
from luban.adapters.libvirt_hosts.backoff import MAX_STUCK, Pace
from luban.adapters.libvirt_hosts.capabilities import Abilities
from luban.adapters.libvirt_hosts.directory import Directory, Question
from luban.adapters.libvirt_hosts.errors import not_reached
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.adapters.libvirt_hosts.session import Session
from luban.api.template import VMTemplateSpec
from luban.core.model import Machine
from luban.errors import HostUnreachable, PermanentError
from luban.ports import HostRef
from tests.fakes.libvirt_daemons import (
    AT_ONCE,
    CLUSTER,
    DEADLINE,
    PATIENCE,
    QUICK,
    SLOW,
    Daemon,
    Daemons,
    Door,
    StandIn,
)

# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)


def network_machine() -> Machine:
    template = VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}})
    return Machine("6f4a1f5e-9f0b-4f6e-8c3d-0123456789ab", "luban-x7", CLUSTER, template)


@pytest.fixture
def daemons() -> Daemons:
    return Daemons({SLOW.uri: Daemon(), QUICK.uri: Daemon()})


@pytest.fixture
async def hypervisor(daemons: Daemons) -> AsyncIterator[LibvirtHypervisor]:
    it = LibvirtHypervisor(HypervisorSettings(read=DEADLINE, pace=AT_ONCE), opener=daemons.open)
    yield it
    for daemon in daemons.values():
        daemon.answers.set()
    await it.close()


async def test_a_hung_host_is_unreachable_within_the_deadline_and_delays_nobody_else(
    hypervisor: LibvirtHypervisor, daemons: Daemons
) -> None:
    daemons[SLOW.uri].answers.clear()
    began = asyncio.get_running_loop().time()
    slow = asyncio.create_task(hypervisor.inventory(SLOW))
    await asyncio.to_thread(daemons[SLOW.uri].asked.wait, PATIENCE)
    assert (await hypervisor.inventory(QUICK)).domains == {}
    with pytest.raises(HostUnreachable) as error:
        await slow
    assert asyncio.get_running_loop().time() - began < PATIENCE / 2
    assert "read domains: no answer within 0.05 s" in error.value.message
    assert (await hypervisor.inventory(QUICK)).domains == {}


async def test_a_fresh_connection_replaces_the_stuck_one(hypervisor: LibvirtHypervisor, daemons: Daemons) -> None:
    daemon = daemons[SLOW.uri]
    daemon.answers.clear()
    with pytest.raises(HostUnreachable):
        await hypervisor.inventory(SLOW)
    stuck = daemon.connections[0]
    assert not stuck.closed.is_set()
    daemon.answers.set()
    assert (await hypervisor.inventory(SLOW)).domains == {}
    assert len(daemon.connections) == 2
    assert await asyncio.to_thread(stuck.closed.wait, PATIENCE), "the stuck thread closes its connection when it can"


async def test_a_cancelled_call_does_not_block_the_next(hypervisor: LibvirtHypervisor, daemons: Daemons) -> None:
    daemon = daemons[SLOW.uri]
    daemon.answers.clear()
    call = asyncio.create_task(hypervisor.inventory(SLOW))
    await asyncio.to_thread(daemon.asked.wait, PATIENCE)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    daemon.answers.set()
    assert (await hypervisor.inventory(SLOW)).domains == {}


async def test_a_lost_connection_is_opened_again_and_listened_to(
    hypervisor: LibvirtHypervisor, daemons: Daemons
) -> None:
    daemon, heard = daemons[SLOW.uri], asyncio.Queue[str]()
    hypervisor.watch(SLOW, heard.put_nowait)
    await hypervisor.inventory(SLOW)
    first = daemon.connections[0]
    assert first.on_close is not None
    first.alive = 0
    await asyncio.to_thread(first.on_close, first, 1, None)
    async with asyncio.timeout(PATIENCE):
        assert await heard.get() == ""
    await hypervisor.inventory(SLOW)
    second = daemon.connections[1]
    assert first.closed.is_set()
    assert first.on_lifecycle is None
    assert second.on_lifecycle is not None
    assert second.on_close is not None


async def test_watching_connects_by_itself(hypervisor: LibvirtHypervisor, daemons: Daemons) -> None:
    hypervisor.watch(SLOW, lambda _uuid: None)
    assert await asyncio.to_thread(daemons[SLOW.uri].listened_to.wait, PATIENCE)
    assert daemons[SLOW.uri].keepalive == (5, 3)


async def test_after_a_failure_nothing_is_tried_for_a_while(daemons: Daemons) -> None:
    hypervisor = LibvirtHypervisor(
        HypervisorSettings(pace=Pace(first_retry=3600.0, last_retry=3600.0)), opener=daemons.open
    )
    daemons[SLOW.uri].refuses = True
    with pytest.raises(HostUnreachable) as first:
        await hypervisor.inventory(SLOW)
    daemons[SLOW.uri].refuses = False
    with pytest.raises(HostUnreachable) as second:
        await hypervisor.inventory(SLOW)
    assert first.value.message == second.value.message
    assert daemons[SLOW.uri].connections == []
    await hypervisor.close()


async def test_closing_ends_threads_and_connections(daemons: Daemons) -> None:
    before = set(threading.enumerate())
    hypervisor = LibvirtHypervisor(opener=daemons.open)
    await asyncio.gather(*(hypervisor.inventory(host) for host in (SLOW, QUICK)))
    assert sum(thread.name.startswith("libvirt-host") for thread in threading.enumerate()) == 2
    await hypervisor.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith("libvirt") for name in left)
    assert all(connection.closed.is_set() for daemon in daemons.values() for connection in daemon.connections)


async def test_a_lane_whose_threads_hang_tries_again_as_soon_as_one_ends(daemons: Daemons) -> None:
    attempts: list[threading.Event] = []

    def open_(uri: str) -> StandIn:
        if len(attempts) < MAX_STUCK:
            attempts.append(threading.Event())
            attempts[-1].wait(PATIENCE)
        return daemons.open(uri)

    pace = Pace(connect=DEADLINE, first_retry=0.0, last_retry=0.0)
    hypervisor = LibvirtHypervisor(HypervisorSettings(pace=pace), opener=open_)
    for _ in range(MAX_STUCK + 5):
        with pytest.raises(HostUnreachable, match="connect: no answer within"):
            await hypervisor.inventory(SLOW)
    assert len(attempts) == MAX_STUCK, "no further thread is risked"
    attempts[0].set()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                found = await hypervisor.inventory(SLOW)
            except HostUnreachable:
                await asyncio.sleep(0)
            else:
                break
    assert found.domains == {}
    for attempt in attempts:
        attempt.set()
    await hypervisor.close()


async def test_a_machine_that_does_not_take_a_connection_costs_no_thread(daemons: Daemons) -> None:
    dead = True

    def knock(host: HostRef) -> None:
        if dead:
            raise not_reached(host, "no answer on TCP port 16514")

    hypervisor = LibvirtHypervisor(HypervisorSettings(pace=AT_ONCE), opener=daemons.open, knock=knock)
    before = threading.active_count()
    for _ in range(3 * MAX_STUCK):
        with pytest.raises(HostUnreachable, match="no answer on TCP port 16514"):
            await hypervisor.inventory(SLOW)
    async with asyncio.timeout(PATIENCE):
        while True:
            # The one at work stays; others may take a while to end on a busy machine.
            if threading.active_count() <= before + 1:
                break
            await asyncio.sleep(0)
    assert daemons[SLOW.uri].connections == []
    dead = False
    assert (await hypervisor.inventory(SLOW)).domains == {}
    await hypervisor.close()


async def test_a_guest_agent_that_hangs_does_not_silence_the_others(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypervisor = LibvirtHypervisor(HypervisorSettings(agent=DEADLINE, pace=AT_ONCE), opener=daemons.open)
    door, asked = Door(), threading.Event()
    questions = [
        Question("hung", "ask the guest agent of hung", door),
        Question("fine", "ask the guest agent of fine", lambda _session: asked.set()),
    ]
    monkeypatch.setattr(Directory, "questions", lambda _self: questions)
    await hypervisor.inventory(SLOW)
    assert await asyncio.to_thread(asked.wait, PATIENCE)
    door.open.set()
    await hypervisor.close()


# ---- what a host can do ----------------------------------------------------------------------------------------


async def test_what_a_host_can_do_is_asked_once_for_each_connection(
    daemons: Daemons, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvm, asked, made = False, 0, list[bool]()

    def read(_session: Session) -> Abilities:
        nonlocal asked
        asked += 1
        return Abilities(kvm=kvm, emulation="qemu")

    def ensure(_session: Session, *, abilities: Abilities, **_others: Any) -> None:
        made.append(abilities.kvm)

    monkeypatch.setattr(hypervisor_module, "read_abilities", read)
    monkeypatch.setattr(provision, "ensure_running", ensure)
    hypervisor = LibvirtHypervisor(HypervisorSettings(pace=AT_ONCE), opener=daemons.open)
    for _ in range(2):
        await hypervisor.ensure_running(SLOW, network_machine())
    assert asked == 1
    # The host is restarted, with virtualisation switched on now.
    kvm = True
    for connection in daemons[SLOW.uri].connections:
        connection.alive = 0
    await hypervisor.ensure_running(SLOW, network_machine())
    assert made == [False, False, True]
    await hypervisor.close()


async def test_a_host_that_left_every_spec_is_let_go(daemons: Daemons) -> None:
    hypervisor = LibvirtHypervisor(HypervisorSettings(idle=0.0, pace=AT_ONCE), opener=daemons.open)
    leave = hypervisor.watch(SLOW, lambda _uuid: None)
    hypervisor.watch(QUICK, lambda _uuid: None)
    for host in (SLOW, QUICK):
        await hypervisor.inventory(host)
    leave()
    (left,), (kept,) = daemons[SLOW.uri].connections, daemons[QUICK.uri].connections
    assert await asyncio.to_thread(left.closed.wait, PATIENCE)
    assert (await hypervisor.inventory(SLOW)).domains == {}, "it can be asked again"
    assert not kept.closed.is_set()
    await hypervisor.close()


async def test_a_host_that_is_still_asked_keeps_its_connections(daemons: Daemons) -> None:
    """Its last VMs must be cleaned up after it left the spec."""
    hypervisor = LibvirtHypervisor(HypervisorSettings(idle=3600.0, pace=AT_ONCE), opener=daemons.open)
    leave = hypervisor.watch(SLOW, lambda _uuid: None)
    await hypervisor.inventory(SLOW)
    leave()
    await hypervisor.inventory(SLOW)
    assert len(daemons[SLOW.uri].connections) == 1
    assert not daemons[SLOW.uri].connections[0].closed.is_set()
    await hypervisor.close()


# ---- what whoever runs the operator must allow -----------------------------------------------------------------


def user_machine() -> Machine:
    template = VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}, "network": {"type": "User"}})
    return replace(network_machine(), template=template, forward_address="127.0.17.2")


@pytest.mark.parametrize(
    ("uri", "allowed", "why"),
    [
        ("qemu:///session", False, "the operator does not allow it"),
        ("qemu+tls://host-b/system", False, "the operator does not allow it"),
        ("qemu+tls://host-b/system", True, "not this one"),
        ("qemu+ssh://127.0.0.1/system", True, "not this one"),
    ],
)
async def test_user_networking_is_for_this_machine_with_the_operators_consent(
    uri: str, why: str, *, allowed: bool
) -> None:
    opened: list[str] = []
    hypervisor = LibvirtHypervisor(HypervisorSettings(user_networking=allowed), opener=opened.append)
    with pytest.raises(PermanentError) as error:
        await hypervisor.ensure_running(HostRef("host-b", uri), user_machine())
    assert error.value.reason == "UserNetworkRefused"
    assert why in error.value.message
    assert "template.spec.network.type" in error.value.message
    assert "--user-networking" in error.value.message
    assert opened == []
    await hypervisor.close()


async def test_an_insecure_host_is_connected_to_with_the_operators_consent_alone() -> None:
    host, daemon = HostRef("host-b", "qemu+tcp://host-b/system"), Daemon()
    strict = LibvirtHypervisor(HypervisorSettings(pace=AT_ONCE), opener=lambda _uri: daemon.connect())
    with pytest.raises(PermanentError) as error:
        await strict.inventory(host)
    assert error.value.reason == "InsecureHost"
    assert daemon.connections == []
    settings = HypervisorSettings(pace=AT_ONCE, allow_insecure=True)
    lenient = LibvirtHypervisor(settings, opener=lambda _uri: daemon.connect())
    assert (await lenient.inventory(host)).domains == {}
    await strict.close()
    await lenient.close()
