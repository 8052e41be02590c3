"""Deadlines, abandoned threads, backoff, reconnecting, events: LibvirtHypervisor over stand-in connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import libvirt
import pytest

from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.adapters.libvirt_hosts.lane import MAX_STUCK, Backoff, Lane, Pace
from luban.adapters.libvirt_hosts.session import Connector, Keepalive, Session
from luban.adapters.libvirt_hosts.undo import Undo
from luban.api.template import VMTemplateSpec
from luban.core.model import ClusterRef, Machine
from luban.errors import HostUnreachable, PermanentError
from luban.ports import HostRef

# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)

CLUSTER = ClusterRef("shop", "luban")
SLOW, QUICK = HostRef("host-b", "qemu+tls://host-b/system"), HostRef("host-c", "qemu+tls://host-c/system")
DEADLINE = 0.05
PATIENCE = 10.0
AT_ONCE = Pace(first_retry=0.0, last_retry=0.0)


class StandIn:
    """A connection without domains; its bulk call waits while `hung` is set."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.alive = 1
        self.closed = threading.Event()
        self.on_close: Callable[..., None] | None = None
        self.on_lifecycle: Callable[..., None] | None = None

    def isAlive(self) -> int:
        return self.alive

    def setKeepAlive(self, interval: int, count: int) -> None:
        self.daemon.keepalive = (interval, count)

    def domainEventRegisterAny(self, _domain: None, _kind: int, callback: Any, _opaque: None) -> int:
        self.on_lifecycle = callback
        self.daemon.listened_to.set()
        return 1

    def domainEventDeregisterAny(self, _number: int) -> None:
        self.on_lifecycle = None

    def registerCloseCallback(self, callback: Any, _opaque: None) -> None:
        self.on_close = callback

    def unregisterCloseCallback(self) -> None:
        self.on_close = None

    def getAllDomainStats(self, _stats: int, _flags: int) -> list[Any]:
        self.daemon.asked.set()
        assert self.daemon.answers.wait(PATIENCE)
        return []

    def close(self) -> None:
        self.closed.set()


class Daemon:
    """What stands at the other end of a URI."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        self.listened_to = threading.Event()
        self.refuses = False
        self.connections: list[StandIn] = []
        self.keepalive: tuple[int, int] | None = None

    def connect(self) -> StandIn:
        if self.refuses:
            error = libvirt.libvirtError("virConnectOpen() failed")
            error.err = (
                libvirt.VIR_ERR_SYSTEM_ERROR,
                libvirt.VIR_FROM_RPC,
                "Connection refused",
                2,
                None,
                None,
                None,
                111,
                -1,
            )
            raise error
        self.connections.append(StandIn(self))
        return self.connections[-1]


class Daemons(dict[str, Daemon]):
    """By URI."""

    def open(self, uri: str) -> StandIn:
        return self[uri].connect()


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
    slow = asyncio.create_task(hypervisor.list_domains(SLOW, CLUSTER))
    await asyncio.to_thread(daemons[SLOW.uri].asked.wait, PATIENCE)
    assert await hypervisor.list_domains(QUICK, CLUSTER) == {}
    with pytest.raises(HostUnreachable) as error:
        await slow
    assert asyncio.get_running_loop().time() - began < PATIENCE / 2
    assert "read domains: no answer within 0.05 s" in error.value.message
    assert await hypervisor.list_domains(QUICK, CLUSTER) == {}


async def test_a_fresh_connection_replaces_the_stuck_one(hypervisor: LibvirtHypervisor, daemons: Daemons) -> None:
    daemon = daemons[SLOW.uri]
    daemon.answers.clear()
    with pytest.raises(HostUnreachable):
        await hypervisor.list_domains(SLOW, CLUSTER)
    stuck = daemon.connections[0]
    assert not stuck.closed.is_set()
    daemon.answers.set()
    assert await hypervisor.list_domains(SLOW, CLUSTER) == {}
    assert len(daemon.connections) == 2
    assert await asyncio.to_thread(stuck.closed.wait, PATIENCE), "the stuck thread closes its connection when it can"


async def test_a_cancelled_call_does_not_block_the_next(hypervisor: LibvirtHypervisor, daemons: Daemons) -> None:
    daemon = daemons[SLOW.uri]
    daemon.answers.clear()
    call = asyncio.create_task(hypervisor.list_domains(SLOW, CLUSTER))
    await asyncio.to_thread(daemon.asked.wait, PATIENCE)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    daemon.answers.set()
    assert await hypervisor.list_domains(SLOW, CLUSTER) == {}


async def test_a_lost_connection_is_opened_again_and_listened_to(
    hypervisor: LibvirtHypervisor, daemons: Daemons
) -> None:
    daemon, heard = daemons[SLOW.uri], asyncio.Queue[str]()
    hypervisor.watch(SLOW, heard.put_nowait)
    await hypervisor.list_domains(SLOW, CLUSTER)
    first = daemon.connections[0]
    assert first.on_close is not None
    first.alive = 0
    await asyncio.to_thread(first.on_close, first, 1, None)
    async with asyncio.timeout(PATIENCE):
        assert await heard.get() == ""
    await hypervisor.list_domains(SLOW, CLUSTER)
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
        await hypervisor.list_domains(SLOW, CLUSTER)
    daemons[SLOW.uri].refuses = False
    with pytest.raises(HostUnreachable) as second:
        await hypervisor.list_domains(SLOW, CLUSTER)
    assert first.value.message == second.value.message
    assert daemons[SLOW.uri].connections == []
    await hypervisor.close()


async def test_closing_ends_threads_and_connections(daemons: Daemons) -> None:
    before = set(threading.enumerate())
    hypervisor = LibvirtHypervisor(opener=daemons.open)
    await asyncio.gather(*(hypervisor.list_domains(host, CLUSTER) for host in (SLOW, QUICK)))
    assert sum(thread.name.startswith("libvirt-host") for thread in threading.enumerate()) == 2
    await hypervisor.close()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith("libvirt") for name in left)
    assert all(connection.closed.is_set() for daemon in daemons.values() for connection in daemon.connections)


# ---- jobs that come back to life -----------------------------------------------------------------------------


async def test_an_abandoned_job_neither_goes_on_nor_takes_back_what_it_made(daemons: Daemons) -> None:
    lane = Lane(Connector(SLOW, daemons.open, Keepalive()), AT_ONCE)
    go_on, ended = threading.Event(), threading.Event()
    done: list[str] = []

    def job(session: Session) -> None:
        try:
            with Undo("host-b") as undo:
                undo.add("overlay", lambda: done.append("undone"))
                go_on.wait(PATIENCE)
                session.proceed()
                done.append("went on")
        finally:
            ended.set()

    with pytest.raises(HostUnreachable):
        await lane.call(job, "make domain", DEADLINE)
    go_on.set()
    assert await asyncio.to_thread(ended.wait, PATIENCE)
    assert done == []
    await lane.close()


def test_a_failed_job_takes_back_the_latest_first_and_goes_on_after_a_failure() -> None:
    done: list[str] = []

    def fail() -> None:
        raise libvirt.libvirtError("cannot")

    undo = Undo("host-b")
    undo.add("overlay", lambda: done.append("overlay"))
    undo.add("seed", fail)
    undo.add("domain", lambda: done.append("domain"))
    with pytest.raises(ValueError, match="boom"), undo:
        raise ValueError("boom")
    assert done == ["domain", "overlay"]


def test_a_job_that_succeeds_keeps_what_it_made() -> None:
    done: list[str] = []
    with Undo("host-b") as undo:
        undo.add("overlay", lambda: done.append("overlay"))
    assert done == []


# ---- backoff ---------------------------------------------------------------------------------------------------


def blocked(backoff: Backoff, now: float) -> bool:
    """Whether no attempt may be made."""
    try:
        backoff.check(now)
    except HostUnreachable:
        return True
    return False


def test_backoff_doubles_up_to_its_limit_and_ends_with_success() -> None:
    backoff = Backoff(Pace(first_retry=1.0, last_retry=4.0))
    assert not blocked(backoff, 0.0)
    for pause in (1.0, 2.0, 4.0, 4.0):
        backoff.failed(100.0, "refused", stuck=0)
        assert blocked(backoff, 100.0 + pause - 0.01)
        assert not blocked(backoff, 100.0 + pause)
    backoff.succeeded()
    assert not blocked(backoff, 100.0)
    backoff.failed(200.0, "refused", stuck=0)
    assert not blocked(backoff, 201.0)


def test_a_host_that_swallows_threads_is_tried_rarely() -> None:
    backoff = Backoff(Pace())
    backoff.failed(0.0, "no answer", stuck=MAX_STUCK)
    assert blocked(backoff, 599.0)
    assert not blocked(backoff, 600.0)


async def test_a_host_that_left_every_spec_is_let_go(daemons: Daemons) -> None:
    hypervisor = LibvirtHypervisor(HypervisorSettings(idle=0.0, pace=AT_ONCE), opener=daemons.open)
    leave = hypervisor.watch(SLOW, lambda _uuid: None)
    hypervisor.watch(QUICK, lambda _uuid: None)
    for host in (SLOW, QUICK):
        await hypervisor.list_domains(host, CLUSTER)
    leave()
    (left,), (kept,) = daemons[SLOW.uri].connections, daemons[QUICK.uri].connections
    assert await asyncio.to_thread(left.closed.wait, PATIENCE)
    assert await hypervisor.list_domains(SLOW, CLUSTER) == {}, "it can be asked again"
    assert not kept.closed.is_set()
    await hypervisor.close()


async def test_a_host_that_is_still_asked_keeps_its_connections(daemons: Daemons) -> None:
    """Its last VMs must be cleaned up after it left the spec."""
    hypervisor = LibvirtHypervisor(HypervisorSettings(idle=3600.0, pace=AT_ONCE), opener=daemons.open)
    leave = hypervisor.watch(SLOW, lambda _uuid: None)
    await hypervisor.list_domains(SLOW, CLUSTER)
    leave()
    await hypervisor.list_domains(SLOW, CLUSTER)
    assert len(daemons[SLOW.uri].connections) == 1
    assert not daemons[SLOW.uri].connections[0].closed.is_set()
    await hypervisor.close()


# ---- what whoever runs the operator must allow -----------------------------------------------------------------


def user_machine() -> Machine:
    template = VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}, "network": {"type": "User"}})
    return Machine("6f4a1f5e-9f0b-4f6e-8c3d-0123456789ab", "luban-x7", CLUSTER, template, "127.0.17.2")


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
        await strict.list_domains(host, CLUSTER)
    assert error.value.reason == "InsecureHost"
    assert daemon.connections == []
    settings = HypervisorSettings(pace=AT_ONCE, allow_insecure=True)
    lenient = LibvirtHypervisor(settings, opener=lambda _uri: daemon.connect())
    assert await lenient.list_domains(host, CLUSTER) == {}
    await strict.close()
    await lenient.close()
