"""The rtnetlink socket: dumps of links, routes and rules, and a subscription to the links' events.

Plain sockets of the standard library: an event reaches us milliseconds earlier than through a library that decodes all
of it, and nothing stands between the socket and the event loop that could hold messages back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog

from luban.adapters.kernel_bonds.route_wire import (
    NEXTHOPS_REQUEST,
    ROUTES_REQUEST,
    RTM_GETNEXTHOP,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWNEXTHOP,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RULES_REQUEST,
    nexthop_of,
    route_of,
    rule_of,
    with_devices,
)
from luban.adapters.kernel_bonds.routes import Route, Rule
from luban.adapters.kernel_bonds.wire import (
    LINKS_REQUEST,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    Link,
    Message,
    dump_request,
    error_number,
    link_of,
    messages,
)
from luban.errors import TemporaryError

log = structlog.get_logger(__name__)

RTMGRP_LINK = 1
ANSWER_SECONDS = 2
"""The kernel answers a dump at once; it may wait for a lock that a driver holds."""
DUMP_ATTEMPTS = 3
MOST_MESSAGES = 100_000
"""Of an answer: half a second of processor time, should the host have all the routes of the Internet."""
REOPEN_SECONDS = 1.0
"""Between two attempts to subscribe to events, at least."""
_DATAGRAM = 1 << 18
_EVENT_BUFFER = 1 << 20
"""Bytes of events that the kernel keeps for us, as far as its net.core.rmem_max allows."""
_Thing = TypeVar("_Thing")
_MOST_DATAGRAMS = 256
"""Events that are taken before others of the program get their turn."""


class Dump:
    """Asks the kernel for all that there is of something; one thread at a time."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._sequence = 0

    def links(self) -> list[Link]:
        """All links of the network namespace. Raises TemporaryError if the kernel does not tell."""
        return self._all("links", RTM_GETLINK, LINKS_REQUEST, RTM_NEWLINK, link_of)

    def routes(self) -> list[Route[int]]:
        """What default routes can be made of, in all tables. Raises TemporaryError if the kernel does not tell."""
        found = self._all("routes", RTM_GETROUTE, ROUTES_REQUEST, RTM_NEWROUTE, route_of)
        if all(route.devices or route.nexthop is None for route in found):
            return found
        hops = self._all("next hops", RTM_GETNEXTHOP, NEXTHOPS_REQUEST, RTM_NEWNEXTHOP, nexthop_of)
        by_number = {hop.number: hop for hop in hops}
        return [with_devices(route, by_number) for route in found]

    def rules(self) -> list[Rule]:
        """The rules that lead to tables; none where the kernel has no rules. Raises TemporaryError."""
        return self._all("rules", RTM_GETRULE, RULES_REQUEST, RTM_NEWRULE, rule_of, may_lack=True)

    def close(self) -> None:
        """Close the socket; the next dump opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _all(
        self,
        what: str,
        ask: int,
        request: bytes,
        answer: int,
        decode: Callable[[bytes], _Thing | None],
        *,
        may_lack: bool = False,
    ) -> list[_Thing]:
        """Everything of a kind; none from a kernel that does not know it and `may_lack` it. Raises TemporaryError."""
        try:
            for _ in range(DUMP_ATTEMPTS):
                found: list[_Thing] = []
                if self._dump(ask, request, answer, functools.partial(_add, found, decode)):
                    return found
        except OSError as error:
            if may_lack and error.errno == errno.EOPNOTSUPP:
                return []
            self.close()
            raise TemporaryError("NetlinkFailed", f"no list of {what} from netlink: {error}") from error
        raise TemporaryError("NetlinkBusy", f"{what} change so fast that netlink gives no consistent list")

    def _dump(self, ask: int, request: bytes, answer: int, take: Callable[[bytes], None]) -> bool:
        """Hand over what there is; returns whether it did not change meanwhile."""
        opened = self._opened()
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        opened.send(dump_request(ask, request, self._sequence))
        consistent, most = True, MOST_MESSAGES
        while most > 0:
            for message in messages(_receive(opened)):
                if message.sequence != self._sequence:
                    continue
                most -= 1
                # The last message may be the one that has the mark.
                consistent = consistent and not message.flags & NLM_F_DUMP_INTR
                if message.type in (NLMSG_DONE, NLMSG_ERROR):
                    if number := error_number(message):
                        raise OSError(number, os.strerror(number))
                    return consistent
                if message.type == answer:
                    take(message.payload)
        raise OSError(errno.E2BIG, f"more than {MOST_MESSAGES} messages")

    def _opened(self) -> socket.socket:
        if self._socket is None:
            self._socket = _open(0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", ANSWER_SECONDS, 0))
        return self._socket


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


def _add(found: list[_Thing], decode: Callable[[bytes], _Thing | None], payload: bytes) -> None:
    if (thing := decode(payload)) is not None:
        found.append(thing)


def concerns(received: Iterable[Message], relevant: frozenset[int]) -> bool:
    """Whether any message is about a bond or a port: now, or as far as was known before (`relevant`)."""
    return any(
        link.bond is not None or link.port is not None or link.index in relevant
        for message in received
        if message.type in (RTM_NEWLINK, RTM_DELLINK) and (link := link_of(message.payload)) is not None
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
