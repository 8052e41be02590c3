"""The rtnetlink socket: a dump of all links, and a subscription to their events.

Plain sockets of the standard library: an event reaches us milliseconds earlier than through a library that decodes all
of it, and nothing stands between the socket and the event loop that could hold messages back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable

import structlog

from luban.adapters.kernel_bonds.wire import (
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_DELLINK,
    RTM_NEWLINK,
    Link,
    Message,
    dump_request,
    error_number,
    messages,
)
from luban.errors import TemporaryError

log = structlog.get_logger(__name__)

RTMGRP_LINK = 1
ANSWER_SECONDS = 2
"""The kernel answers a dump at once; it may wait for a lock that a driver holds."""
DUMP_ATTEMPTS = 3
REOPEN_SECONDS = 1.0
"""Between two attempts to subscribe to events, at least."""
_DATAGRAM = 1 << 18
_EVENT_BUFFER = 1 << 20
"""Bytes of events that the kernel keeps for us, as far as its net.core.rmem_max allows."""
_MOST_DATAGRAMS = 256
"""Events that are taken before others of the program get their turn."""


class LinkDump:
    """Asks for all links; one thread at a time."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequence = 0

    def links(self) -> list[Link]:
        """All links of the network namespace. Raises TemporaryError if the kernel does not tell."""
        try:
            for _ in range(DUMP_ATTEMPTS):
                found, consistent = self._dump()
                if consistent:
                    return found
        except OSError as error:
            self.close()
            raise TemporaryError("NetlinkFailed", f"no list of links from netlink: {error}") from error
        raise TemporaryError("NetlinkBusy", "links change so fast that netlink gives no consistent list")

    def close(self) -> None:
        """Close the socket; the next dump opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _dump(self) -> tuple[list[Link], bool]:
        """Links, and whether the list did not change meanwhile."""
        if self._socket is None:
            self._socket = _open(0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", ANSWER_SECONDS, 0))
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        self._socket.send(dump_request(self._sequence))
        found: list[Link] = []
        consistent = True
        while True:
            for message in messages(_receive(self._socket)):
                if message.sequence != self._sequence:
                    continue
                # The last message may be the one that has the mark.
                consistent = consistent and not message.flags & NLM_F_DUMP_INTR
                if message.type in (NLMSG_DONE, NLMSG_ERROR):
                    if number := error_number(message):
                        raise OSError(number, os.strerror(number))
                    return found, consistent
                if message.type == RTM_NEWLINK and message.link is not None:
                    found.append(message.link)


class LinkEvents:
    """Calls `wake` for each batch of events that matters, in the event loop's thread."""

    def __init__(self, wake: Callable[[str], None], relevant: Callable[[], frozenset[int]]) -> None:
        self._wake = wake
        self._relevant = relevant
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._ended = False
        self._opened_at = 0.0
        self._open()

    def close(self) -> None:
        """End the subscription."""
        self._ended = True
        self._shut()

    def repair(self) -> None:
        """Subscribe again if an error ended it, and wake with reason `reopened`: what happened meanwhile is unknown."""
        if self._socket is not None or self._ended or self._loop.time() - self._opened_at < REOPEN_SECONDS:
            return
        try:
            self._open()
        except OSError as error:
            log.warning("no events from netlink", error=str(error))
            return
        self._wake("reopened")

    def _open(self) -> None:
        self._opened_at = self._loop.time()
        opened = _open(RTMGRP_LINK)
        opened.setblocking(False)
        self._loop.add_reader(opened, self._ready)
        self._socket = opened

    def _shut(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _ready(self) -> None:
        if self._socket is None:
            return
        reason = ""
        try:
            for _ in range(_MOST_DATAGRAMS):
                if concerns(messages(_receive(self._socket)), self._relevant()):
                    reason = reason or "link"
        except BlockingIOError:
            pass
        except OSError as error:
            # ENOBUFS: events came faster than we took them, and some are lost. What is so now is read anew anyway.
            log.warning("netlink events were lost", error=str(error))
            reason = "overrun"
            if error.errno != errno.ENOBUFS:
                self._shut()
        if reason:
            self._wake(reason)


def concerns(received: Iterable[Message], relevant: frozenset[int]) -> bool:
    """Whether any message is about a bond or a port: now, or as far as was known before (`relevant`)."""
    return any(
        link.bond is not None or link.port is not None or link.index in relevant
        for message in received
        if message.type in (RTM_NEWLINK, RTM_DELLINK) and (link := message.link) is not None
    )


def _open(groups: int) -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _EVENT_BUFFER)
        opened.bind((0, groups))
    except OSError:
        opened.close()
        raise
    return opened


def _receive(from_: socket.socket) -> bytes:
    """A datagram of the kernel's. Raises OSError; EMSGSIZE if it does not fit."""
    data, _, flags, address = from_.recvmsg(_DATAGRAM)
    if flags & socket.MSG_TRUNC:
        raise OSError(errno.EMSGSIZE, "netlink message too long")
    # Port 0 is the kernel; other programs may send to us too.
    return data if isinstance(address, tuple) and address[0] == 0 else b""
