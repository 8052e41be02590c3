"""One open connection to a libvirt daemon, as the jobs of one worker thread see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from luban.adapters.libvirt_hosts.errors import find, is_supported, not_opened
from luban.adapters.libvirt_hosts.events import Watchers
from luban.adapters.libvirt_hosts.uri import check_uri
from luban.ports import HostRef

T = TypeVar("T")
Opener = Callable[[str], libvirt.virConnect]
"""libvirt.open, or a stand-in in tests. Takes the URI."""
Knock = Callable[[HostRef], None]
"""A quick look whether a host is there at all. Raises HostUnreachable."""


def no_knock(_host: HostRef) -> None:
    """Where nothing is known of how a host is reached."""


class AbandonedError(Exception):
    """Nobody waits for this job any more, and another one may be at work on the same things."""


@dataclass(frozen=True)
class Keepalive:
    """How a connection notices that the other side is gone. `interval` in seconds."""

    interval: int = 5
    count: int = 3
    """Unanswered messages after which the connection is closed, which also ends calls that wait on it."""


class Session:
    """A connection with all that hangs on it. Used by one thread only."""

    def __init__(self, host: HostRef, connection: libvirt.virConnect, abandoned: threading.Event) -> None:
        self.host = host
        self.connection = connection
        self.unsubscribe: Callable[[], None] = lambda: None
        self._abandoned = abandoned
        self._answers: dict[Callable[[Session], Any], Any] = {}

    def proceed(self) -> None:
        """To be called between the steps of a job: raises AbandonedError once its caller has given up.

        A job that hung and comes back to life must not go on: the same work may have been done again, and taken
        back, by others meanwhile.
        """
        if self._abandoned.is_set():
            raise AbandonedError

    def once(self, read: Callable[[Session], T]) -> T:
        """What `read` returns, read once for each connection: a host that was restarted is connected to anew."""
        if read not in self._answers:
            self._answers[read] = read(self)
        answer: T = self._answers[read]
        return answer

    def alive(self) -> bool:
        """Whether the connection still stands, as far as is known here (nothing is sent)."""
        with suppress(libvirt.libvirtError):
            return bool(self.connection.isAlive())
        return False

    def domain(self, uuid: str) -> libvirt.virDomain | None:
        """The domain with that uuid."""
        return find(self.connection.lookupByUUIDString, uuid)

    def close(self) -> None:
        """Give the connection back. A lost one is closed already."""
        self.unsubscribe()
        with suppress(libvirt.libvirtError):
            self.connection.close()


@dataclass(frozen=True)
class Connector:
    """Opens sessions to one host."""

    host: HostRef
    open: Opener
    keepalive: Keepalive
    watchers: Watchers | None = None
    """Told of the events of every connection that is opened; None: not interested."""
    allow_insecure: bool = False
    """Whether to connect where anybody could answer: see check_uri."""
    knock: Knock = no_knock
    """Comes before `open`, which may block for minutes."""

    def connect(self, abandoned: threading.Event) -> Session:
        """Open a connection. Raises HostUnreachable, or PermanentError InvalidURI, InsecureHost.

        Blocks as long as libvirt does.
        """
        check_uri(self.host, allow_insecure=self.allow_insecure)
        self.knock(self.host)
        try:
            session = Session(self.host, self.open(self.host.uri), abandoned)
        except libvirt.libvirtError as error:
            raise not_opened(error, self.host) from error
        try:
            self._prepare(session)
        except libvirt.libvirtError as error:
            session.close()
            raise not_opened(error, self.host) from error
        return session

    def _prepare(self, session: Session) -> None:
        connection = session.connection
        # Drivers that run inside this process have nobody to keep alive.
        is_supported(lambda: connection.setKeepAlive(self.keepalive.interval, self.keepalive.count))
        if self.watchers is not None:
            session.unsubscribe = self.watchers.subscribe(connection)
