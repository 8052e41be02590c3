"""Removing a domain: what is kept for a pool that is missing, and what is removed once more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import libvirt
import pytest
from structlog.testing import capture_logs

from luban.adapters.libvirt_hosts import provision
from luban.adapters.libvirt_hosts.hypervisor import HypervisorSettings, LibvirtHypervisor
from luban.adapters.libvirt_hosts.session import Session
from luban.adapters.libvirt_hosts.storage import POOL_PATIENCE, MissingPools
from luban.errors import LubanError, PermanentError, TemporaryError
from luban.render.domain_mark import Mark
from tests.fakes.libvirt_daemons import AT_ONCE, CLUSTER, DEADLINE, PATIENCE, SLOW, Daemon, Daemons, Door
from tests.unit.adapters.test_libvirt_errors import raised

# pytest-asyncio would otherwise have Python 3.11 make a loop that nobody closes, and that is a warning: an error.
asyncio.set_event_loop(None)

UUID = "6f4a1f5e-9f0b-4f6e-8c3d-0123456789ab"


class Volume:
    def __init__(self, pool: Pool, name: str) -> None:
        self._pool, self._name = pool, name

    def delete(self, _flags: int) -> None:
        self._pool.volumes.remove(self._name)


class Pool:
    def __init__(self) -> None:
        self.volumes = {f"luban-{UUID}.qcow2", "web.qcow2"}

    def isActive(self) -> int:
        return 1

    def storageVolLookupByName(self, name: str) -> Volume:
        if name not in self.volumes:
            raise raised(libvirt.VIR_ERR_NO_STORAGE_VOL, "no storage vol")
        return Volume(self, name)


class Domain:
    """One that is off."""

    def __init__(self) -> None:
        self.defined = True

    def name(self) -> str:
        return "luban-x7"

    def undefineFlags(self, _flags: int) -> None:
        self.defined = False


class Host:
    """A connection with one domain and its pool."""

    def __init__(self) -> None:
        self.the_domain, self.the_pool = Domain(), Pool()
        self.pool_is_there = True
        """The one with its disk: no other ever was."""
        self.session = Session(SLOW, self, threading.Event())

    def lookupByUUIDString(self, _uuid: str) -> Domain:
        if not self.the_domain.defined:
            raise raised(libvirt.VIR_ERR_NO_DOMAIN, "no domain")
        return self.the_domain

    def storagePoolLookupByName(self, name: str) -> Pool:
        if name != "default" or not self.pool_is_there:
            raise raised(libvirt.VIR_ERR_NO_STORAGE_POOL, "no storage pool")
        return self.the_pool


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    it = Host()
    mark = Mark(CLUSTER, "luban-x7", "default", "web.qcow2")
    monkeypatch.setattr(provision, "destroy", lambda _session, _uuid: mark if it.the_domain.defined else None)
    return it


def test_a_pool_that_is_missing_for_a_moment_costs_no_disk(host: Host) -> None:
    missing = MissingPools(Clock())
    host.pool_is_there = False
    for _ in range(2):
        with pytest.raises(TemporaryError) as error:
            provision.remove(host.session, UUID, "default", missing)
        assert error.value.reason == "PoolNotFound"
        assert "storage pool 'default' does not exist, in which domain 'luban-x7'" in error.value.message
        assert host.the_domain.defined, "who else would know of the disk?"
    host.pool_is_there = True
    provision.remove(host.session, UUID, "default", missing)
    assert not host.the_domain.defined
    assert host.the_pool.volumes == {"web.qcow2"}


def test_a_pool_that_is_gone_for_good_holds_up_no_removal_for_ever(host: Host) -> None:
    clock = Clock()
    missing = MissingPools(clock)
    host.pool_is_there = False
    with pytest.raises(TemporaryError):
        provision.remove(host.session, UUID, "default", missing)
    clock.seconds = POOL_PATIENCE
    with capture_logs() as logs:
        provision.remove(host.session, UUID, "default", missing)
    assert not host.the_domain.defined
    assert [(it["pool"], it["domain"]) for it in logs] == [("default", UUID)]


def test_the_pool_that_counts_is_the_one_with_the_disk(host: Host) -> None:
    """Of a stray only the template that counts now is known, whose pool may be another."""
    provision.remove(host.session, UUID, "the-templates-new-pool", MissingPools(Clock()))
    assert not host.the_domain.defined
    assert host.the_pool.volumes == {"web.qcow2"}


def test_patience_begins_anew_when_the_pool_was_back(host: Host) -> None:
    clock = Clock()
    missing = MissingPools(clock)
    assert not missing.is_given_up("default")
    missing.is_back("default")
    clock.seconds = POOL_PATIENCE
    assert not missing.is_given_up("default")


def test_without_its_domain_nothing_waits_for_a_pool(host: Host) -> None:
    """The host was made anew, or there never was a domain, for there never was a pool."""
    host.the_domain.defined = host.pool_is_there = False
    with capture_logs() as logs:
        provision.remove(host.session, UUID, "default", MissingPools(Clock()))
    assert [it["pool"] for it in logs] == ["default"]


# ---- once more ---------------------------------------------------------------------------------------------------


async def removed_while_a_job_hangs(
    monkeypatch: pytest.MonkeyPatch, settings: HypervisorSettings, later: Callable[[], None]
) -> LibvirtHypervisor:
    """A removal goes well while another job about the domain hangs; that ends, and `later` is each removal after it."""
    daemons, door, first = Daemons({SLOW.uri: Daemon()}), Door(), True

    def remove(_session: Session, **_: object) -> None:
        nonlocal first
        if not first:
            later()
        first = False

    monkeypatch.setattr(provision, "remove", remove)
    hypervisor = LibvirtHypervisor(settings, opener=daemons.open)
    hypervisor.watch(SLOW, lambda _uuid: None)
    changes = hypervisor._host(SLOW).changes
    with pytest.raises(TemporaryError):
        await changes.call(door, "make domain", DEADLINE, UUID)
    await hypervisor.remove(SLOW, UUID, "default")
    door.open.set()
    return hypervisor


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


SETTINGS = HypervisorSettings(pace=AT_ONCE)


async def test_it_goes_on_until_it_is_done_and_says_what_is_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[LubanError] = [PermanentError("PoolNotFound", "no pool")] * 3 + [TemporaryError("X", "busy")]

    def later() -> None:
        if errors:
            raise errors.pop(0)

    with capture_logs() as logs:
        hypervisor = await removed_while_a_job_hangs(monkeypatch, SETTINGS, later)
        await until(lambda: any(it["event"].startswith("removed again") for it in logs))
    told = [it["error"] for it in logs if it["event"] == "not removed again yet"]
    assert told == ["no pool", "busy"], "once for each"
    assert errors == []
    await hypervisor.close()


async def test_it_ends_with_the_use_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def later() -> None:
        loop.call_soon_threadsafe(tried.set)
        raise PermanentError("PoolNotFound", "no pool")

    with capture_logs() as logs:
        hypervisor = await removed_while_a_job_hangs(monkeypatch, SETTINGS, later)
        await asyncio.wait_for(tried.wait(), PATIENCE)
        let_go = hypervisor._hosts.pop(SLOW)
        told = "not removed again, the host is not used any more"
        await until(lambda: bool(logs) and logs[-1]["event"] == told)
        assert not hypervisor._hosts, "it is not used again for this alone"
    await let_go.close()
    await hypervisor.close()
