"""Stand-ins for libvirt daemons: what stands at the other end of a URI, and jobs that hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import libvirt

from luban.adapters.libvirt_hosts.backoff import Pace
from luban.adapters.libvirt_hosts.session import Session
from luban.core.model import ClusterRef
from luban.ports import HostRef

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

    def getInfo(self) -> list[Any]:
        return ["x86_64", 2048, 2, 2000, 1, 1, 2, 1]

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


class Door:
    """A job that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered, self.open, self.left = (threading.Event() for _ in range(3))

    def __call__(self, _session: Session) -> None:
        self.entered.set()
        self.open.wait(PATIENCE)
        self.left.set()
