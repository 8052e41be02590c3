"""libvirt's event loop goes on after a failure."""

from __future__ import annotations

import threading

import libvirt
import pytest
from structlog.testing import capture_logs

from luban.adapters.libvirt_hosts import events
from luban.adapters.libvirt_hosts.events import EventLoop

PATIENCE = 10.0


class Rounds:
    """In place of libvirt's own loop: the first rounds fail, the next ones last until somebody wakes it."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.turned, self.woken = threading.Event(), threading.Event()

    def run(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.turned.set()
        self.woken.wait(PATIENCE)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    it = Rounds(libvirt.libvirtError("poll failed"), OSError("bad file descriptor"), ValueError("a callback"))
    monkeypatch.setattr(libvirt, "virEventRunDefaultImpl", it.run)
    monkeypatch.setattr(libvirt, "virEventRegisterDefaultImpl", lambda: None)
    monkeypatch.setattr(libvirt, "virEventAddTimeout", lambda *_: 1)
    monkeypatch.setattr(libvirt, "virEventUpdateTimeout", lambda *_: it.woken.set())
    return it


def test_failures_are_logged_and_the_loop_goes_on(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FIRST_PAUSE", 0.0)
    loop = EventLoop()
    with capture_logs() as logs:
        loop.acquire()
        assert rounds.turned.wait(PATIENCE)
    assert [entry["log_level"] for entry in logs] == ["error"] * 3
    loop.release()
    assert not any(thread.name == "libvirt-events" and thread.is_alive() for thread in threading.enumerate())


def test_its_end_does_not_wait_for_a_pause(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FIRST_PAUSE", 3600.0)
    loop = EventLoop()
    loop.acquire()
    loop.release()
    assert not any(thread.name == "libvirt-events" and thread.is_alive() for thread in threading.enumerate())
    loop.acquire()
    loop.release()
