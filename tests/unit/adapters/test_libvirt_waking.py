"""A domain that rests and goes on again: what is asked of libvirt, and that it waits for nothing that is being made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import libvirt
import pytest

from luban.adapters.libvirt_hosts import hypervisor as hypervisor_module
from luban.adapters.libvirt_hosts import provision, waking
from luban.adapters.libvirt_hosts.capabilities import Abilities
from luban.adapters.libvirt_hosts.hypervisor import CHANGES, HypervisorSettings, LibvirtHypervisor
from luban.adapters.libvirt_hosts.session import Session
from luban.api.template import VMTemplateSpec
from luban.core.model import Machine
from luban.errors import HostUnreachable, PermanentError, TemporaryError
from tests.fakes.libvirt_daemons import AT_ONCE, CLUSTER, PATIENCE, QUICK, Daemon, Daemons
from tests.fakes.libvirt_domains import LOCAL, StandInConnection, StandInDomain, failure, marked

# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)
TEMPLATE = VMTemplateSpec.model_validate({"image": {"volume": "web.qcow2"}})
MACHINE = Machine("6f4a1f5e-9f0b-4f6e-8c3d-0123456789ab", "luban-x7", CLUSTER, TEMPLATE)


class Sleeper(StandInDomain):
    """A domain that notes what it is told."""

    def __init__(self, agent: Exception | None = None) -> None:
        super().__init__(marked())
        self.trouble = agent
        self.told: list[Any] = []
        self.active = 1

    def isActive(self) -> int:
        return self.active

    def suspend(self) -> None:
        self.told.append("suspend")
        self.standing = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)

    def resume(self) -> None:
        self.told.append("resume")
        self.standing = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED)

    def setMemoryFlags(self, kibi: int, flags: int) -> None:
        self.told.append((kibi, flags))

    def setTime(self, time: dict[str, int], _flags: int) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.told.append(time)


def session_with(domain: StandInDomain) -> Session:
    return Session(LOCAL, StandInConnection(domain), threading.Event())


def test_each_is_asked_for_once() -> None:
    domain = Sleeper()
    session = session_with(domain)
    for _ in range(2):
        waking.suspend(session, domain.uuid)
    for _ in range(2):
        waking.resume(session, domain.uuid)
    assert domain.told == ["suspend", "resume"]


def test_what_something_else_paused_is_not_suspended_besides() -> None:
    domain = Sleeper()
    domain.standing = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
    waking.suspend(session_with(domain), domain.uuid)
    assert domain.told == []


def test_memory_of_the_guest_that_runs() -> None:
    domain = Sleeper()
    waking.set_memory(session_with(domain), domain.uuid, 256 * 2**20)
    assert domain.told == [(256 * 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)]


def test_the_time_of_day() -> None:
    domain = Sleeper()
    assert waking.set_time(session_with(domain), domain.uuid, 1_800_000_000.25)
    assert domain.told == [{"seconds": 1_800_000_000, "nseconds": 250_000_000}]


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_INTERNAL_ERROR])
def test_nobody_there_to_be_told(code: int) -> None:
    domain = Sleeper(failure(code, "guest agent is not connected"))
    assert not waking.set_time(session_with(domain), domain.uuid, 1_800_000_000.0)


def test_a_lost_connection_is_no_missing_agent() -> None:
    lost = failure(libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed")
    lost.err = (lost.err[0], libvirt.VIR_FROM_RPC, *lost.err[2:])
    domain = Sleeper(lost)
    with pytest.raises(HostUnreachable):
        waking.set_time(session_with(domain), domain.uuid, 1_800_000_000.0)


@pytest.mark.parametrize("job", [waking.suspend, waking.resume])
def test_what_is_off(job: Any) -> None:
    domain = Sleeper()
    domain.active = 0
    with pytest.raises(PermanentError) as error:
        job(session_with(domain), domain.uuid)
    assert error.value.reason == "DomainMissing"


@pytest.fixture
async def hypervisor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LibvirtHypervisor]:
    abilities = Abilities(kvm=False, emulation="qemu")
    monkeypatch.setattr(hypervisor_module, "read_abilities", lambda _session: abilities)
    daemons = Daemons({QUICK.uri: Daemon()})
    it = LibvirtHypervisor(HypervisorSettings(pace=AT_ONCE, clock=0.05), opener=daemons.open)
    yield it
    await it.close()


async def test_it_waits_for_nothing_that_is_being_made(
    hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, begun, woken = threading.Event(), threading.Semaphore(0), []

    def make(_session: Session, **_: Any) -> None:
        begun.release()
        made.wait(PATIENCE)

    monkeypatch.setattr(provision, "ensure_running", make)
    monkeypatch.setattr(waking, "resume", lambda _session, uuid: woken.append(uuid))
    makings = [
        asyncio.create_task(hypervisor.ensure_running(QUICK, replace(MACHINE, uuid=f"uuid-{number}")))
        for number in range(CHANGES)
    ]
    for _ in makings:
        assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
    await hypervisor.resume(QUICK, "warm")
    assert woken == ["warm"]
    assert not any(making.done() for making in makings)
    made.set()
    await asyncio.gather(*makings)


async def test_an_agent_that_does_not_answer_in_time_is_none(
    hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(waking, "set_time", lambda _session, uuid, now: answers.wait(PATIENCE))
    assert not await hypervisor.set_time(QUICK, "warm", 1_800_000_000.0)
    answers.set()


async def test_a_refusal_is_told(hypervisor: LibvirtHypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_session: Session, uuid: str) -> None:
        raise TemporaryError("LibvirtError", f"{uuid} does not go on")

    monkeypatch.setattr(waking, "resume", refuse)
    with pytest.raises(TemporaryError):
        await hypervisor.resume(QUICK, "warm")
