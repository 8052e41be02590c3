"""What a host has, and what its domains may take: read again when it may have changed, or could not be read."""

from __future__ import annotations

import libvirt

from tests.fakes.libvirt_domains import Scene, StandInDomain, marked

GIBI_IN_KIBI = 2**20
OFF = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)


def test_ours_and_others_are_told_apart() -> None:
    ours, foreign = StandInDomain(marked()), StandInDomain(None)
    foreign.memory = 3 * GIBI_IN_KIBI
    scene = Scene(ours, foreign)
    found = scene.directory.read(scene.session)
    assert {uuid: it.memory for uuid, it in found.domains.items()} == {ours.uuid: 512 * 2**20}
    assert (found.memory, found.foreign_memory) == (2 * 2**30, 3 * 2**30)


def test_what_is_off_takes_nothing_and_may_come_back_larger() -> None:
    foreign = StandInDomain(None)
    scene = Scene(foreign)
    scene.directory.read(scene.session)
    foreign.standing = OFF
    assert scene.directory.read(scene.session).foreign_memory == 0
    foreign.standing, foreign.memory = RUNNING, 64 * GIBI_IN_KIBI
    assert scene.directory.read(scene.session).foreign_memory == 64 * 2**30


def test_what_shuts_down_has_its_memory_still() -> None:
    foreign = StandInDomain(None)
    foreign.standing = (libvirt.VIR_DOMAIN_SHUTDOWN, 0)
    scene = Scene(foreign)
    assert scene.directory.read(scene.session).foreign_memory == 512 * 2**20


def test_what_could_not_be_read_is_asked_again() -> None:
    foreign = StandInDomain(None)
    scene = Scene(foreign)
    scene.connection.silent, foreign.memory = True, 0
    found = scene.directory.read(scene.session)
    assert (found.memory, found.foreign_memory) == (0, 0)
    scene.connection.silent, foreign.memory = False, GIBI_IN_KIBI
    found = scene.directory.read(scene.session)
    assert (found.memory, found.foreign_memory) == (2 * 2**30, 2**30)
