"""Reading domains: how they stand and why, whose they are. Stand-ins for libvirt's objects."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from luban.adapters.libvirt_hosts.domains import shutdown
from luban.adapters.libvirt_hosts.states import standing
from luban.core.model import ClusterRef
from tests.fakes.libvirt_domains import Scene, StandInDomain, failure, marked


@pytest.mark.parametrize(
    ("state", "reason", "ours"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, ("Running", "Booted")),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED, ("Running", "Unpaused")),
        (libvirt.VIR_DOMAIN_BLOCKED, 0, ("Running", "Unknown")),
        (libvirt.VIR_DOMAIN_NOSTATE, 0, ("Running", "Unknown")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, ("Paused", "User")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, ("Paused", "IOError")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG, ("Paused", "Watchdog")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, ("Paused", "Migration")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT, ("Paused", "Snapshot")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED, ("Paused", "Crashed")),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, ("Paused", "StartingUp")),
        (libvirt.VIR_DOMAIN_PAUSED, 99, ("Paused", "Unknown")),
        (libvirt.VIR_DOMAIN_PAUSED, -1, ("Paused", "Unknown")),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, ("Paused", "PMSuspended")),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, ("ShuttingDown", "Unknown")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, ("Off", "ShutdownByGuest")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, ("Off", "Destroyed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED, ("Off", "Saved")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, ("Off", "Failed")),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, ("Crashed", "Crashed")),
        (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED, ("Crashed", "Panicked")),
        (99, 0, ("Running", "Unknown")),
    ],
)
def test_how_a_domain_stands_and_why(state: int, reason: int, ours: tuple[str, str]) -> None:
    assert standing(state, reason) == ours


# ---- whose they are --------------------------------------------------------------------------------------------


def test_metadata_is_read_once_for_each_uuid() -> None:
    ours, theirs, foreign = (
        StandInDomain(marked()),
        StandInDomain(marked(cluster=ClusterRef("else", "other"))),
        StandInDomain(None),
    )
    scene = Scene(ours, theirs, foreign)
    for _ in range(3):
        assert set(scene.read()) == {ours.uuid}
        assert set(scene.read(ClusterRef("else", "other"))) == {theirs.uuid}
    assert [domain.read for domain in (ours, theirs, foreign)] == [1, 1, 1]


def test_a_uuid_that_comes_back_is_read_anew() -> None:
    domain = StandInDomain(None)
    scene = Scene(domain)
    assert scene.read() == {}
    scene.connection.domains.clear()
    assert scene.read() == {}
    domain.mark = marked()
    scene.connection.domains[domain.uuid] = domain
    assert set(scene.read()) == {domain.uuid}


# ---- paused domains --------------------------------------------------------------------------------------------

IO_ERROR = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ({"vda": libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE}, "IOErrorNoSpace"),
        ({"vda": libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC}, "IOError"),
        ({}, "IOError"),
        (failure(libvirt.VIR_ERR_OPERATION_TIMEOUT, "busy"), "IOError"),
    ],
)
def test_an_io_error_is_asked_about_once_and_named(errors: Any, reason: str) -> None:
    domain = StandInDomain(marked("127.0.17.2"))
    scene = Scene(domain)
    domain.standing, domain.disk_errors = IO_ERROR, errors
    record = scene.read()[domain.uuid]
    assert (record.state, record.reason) == ("Paused", "IOError")
    assert scene.ask() == 1
    assert scene.read()[domain.uuid].reason == reason
    assert scene.ask() == 0
    domain.standing = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED)
    assert scene.read()[domain.uuid].reason == "Unpaused"
    domain.standing = IO_ERROR
    assert scene.read()[domain.uuid].reason == "IOError", "what was the matter before counts no more"
    assert scene.ask() == 1


def test_nobody_is_asked_about_the_disks_of_a_domain_that_somebody_paused() -> None:
    domain = StandInDomain(marked("127.0.17.2"))
    scene = Scene(domain)
    domain.standing = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)
    assert scene.read()[domain.uuid].reason == "User"
    assert scene.ask() == 0


@pytest.mark.parametrize(
    "state",
    [
        libvirt.VIR_DOMAIN_PAUSED,
        libvirt.VIR_DOMAIN_PMSUSPENDED,
        libvirt.VIR_DOMAIN_CRASHED,
        libvirt.VIR_DOMAIN_SHUTDOWN,
        libvirt.VIR_DOMAIN_SHUTOFF,
    ],
)
def test_who_does_not_run_does_not_hear_the_power_button(state: int) -> None:
    domain = StandInDomain(marked())
    domain.standing = (state, 0)
    assert not shutdown(Scene(domain).session, domain.uuid)
    assert domain.pressed == 0


def test_a_domain_that_is_paused_just_then_does_not_hear_it_either() -> None:
    domain = StandInDomain(marked())

    def paused() -> None:
        domain.standing = IO_ERROR
        raise failure(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running")

    assert shutdown(Scene(domain).session, domain.uuid)
    domain.on_press = paused
    assert not shutdown(Scene(domain).session, domain.uuid)


def test_that_a_running_domain_cannot_be_shut_down_is_an_error() -> None:
    domain = StandInDomain(marked())

    def busy() -> None:
        raise failure(libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock")

    domain.on_press = busy
    with pytest.raises(libvirt.libvirtError):
        shutdown(Scene(domain).session, domain.uuid)
