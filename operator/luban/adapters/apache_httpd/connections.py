"""Connections of this network namespace to given addresses, counted by the kernel (netlink sock_diag).

This is the drain signal. httpd's own `busy` numbers are not: a graceful restart zeroes them, they drift under load,
and a killed child leaves them high for ever.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Collection, Iterator

from luban.errors import TemporaryError

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_DUMP_REQUEST = 0x301
"""NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH"""
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_REQUEST = struct.Struct("=BBBxI48x")
"""struct inet_diag_req_v2: family, protocol, extensions, states; the socket identity stays empty."""
_ANSWER = struct.Struct("=BBxx2xH16x16s28xI")
"""struct inet_diag_msg: family, state, destination port, destination, inode."""
_OPEN = (1, 2)
"""TCP_ESTABLISHED and TCP_SYN_SENT: a connection that is just being opened carries a request too."""
_HALF_CLOSED = (4, 5)
"""TCP_FIN_WAIT1 and TCP_FIN_WAIT2. The other side may still send, as to a WebSocket whose client has only ended its own
side; but only if a program holds the socket: of one that it has closed in full these states are what remains, for up to
a minute, and its inode is 0. Not CLOSE_WAIT: the other side has sent all that it will."""
_STATES = sum(1 << state for state in _OPEN + _HALF_CLOSED)
_PATIENCE_SECONDS = 2.0
_BUFFER_BYTES = 1 << 18

Endpoint = tuple[str, int]
"""IP address and port."""


def open_connections(targets: Collection[Endpoint]) -> Counter[Endpoint]:
    """Number of open connections from here to each of `targets`; those without any are missing.

    Takes about a millisecond for a thousand connections. Raises TemporaryError if the kernel does not answer.
    """
    wanted = {(_packed(address), port): (address, port) for address, port in targets}
    counts: Counter[Endpoint] = Counter()
    if not wanted:
        return counts
    for family in {len(packed) for packed, _ in wanted}:
        for found in _dump(socket.AF_INET if family == 4 else socket.AF_INET6, family):
            if found in wanted:
                counts[wanted[found]] += 1
    return counts


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _dump(family: socket.AddressFamily, length: int) -> Iterator[tuple[bytes, int]]:
    """Destination (packed address, port) of every TCP connection of a family on which something may come."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(_PATIENCE_SECONDS)
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _STATES)
            netlink.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _DUMP_REQUEST, 1, 0) + body)
            yield from _answers(netlink, length)
    except OSError as error:
        raise TemporaryError("SocketsUnknown", f"the kernel does not list connections: {error}") from error


def _answers(netlink: socket.socket, length: int) -> Iterator[tuple[bytes, int]]:
    while True:
        data = netlink.recv(_BUFFER_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            size, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise OSError("netlink refused the request")
            _, state, port, destination, inode = _ANSWER.unpack_from(data, offset + _HEADER.size)
            if state in _OPEN or inode:
                yield destination[:length], socket.ntohs(port)
            # Messages are aligned to four bytes.
            offset += (size + 3) & ~3
