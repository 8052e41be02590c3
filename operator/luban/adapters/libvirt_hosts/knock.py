"""A quick look whether a machine is there, before libvirt is let at it.

libvirt's connect waits for TCP as long as the kernel does, which is more than two minutes where packets are dropped,
and takes a thread with it. A connection of our own ends when we say so.
"""

from __future__ import annotations

import socket

from luban.adapters.libvirt_hosts.errors import not_reached
from luban.adapters.libvirt_hosts.uri import tcp_endpoint
from luban.ports import HostRef

SECONDS = 3.0
"""Deadline for a TCP connection to the host, shared out to its addresses: the kernel's second attempt comes after one
second."""


def knock(host: HostRef, seconds: float = SECONDS) -> None:
    """Return if the host's port takes a TCP connection, or libvirt reaches the host in another way.

    Raises NotReached. In steady words, as a dead host makes now this error, now that.
    """
    endpoint = tcp_endpoint(host)
    if endpoint is None:
        return
    try:
        _connect(*endpoint, seconds)
    except socket.gaierror as error:
        raise not_reached(host, f"its name cannot be resolved: {error.strerror}") from error
    except UnicodeError as error:
        # Before it asks anybody, Python encodes the name, and refuses labels that DNS cannot hold.
        raise not_reached(host, f"its name cannot be resolved: {error}") from error
    except ConnectionRefusedError as error:
        raise not_reached(host, f"TCP port {endpoint[1]} is closed: libvirt does not listen there") from error
    except OSError as error:
        raise not_reached(host, f"no answer on TCP port {endpoint[1]}") from error


def _connect(address: str, port: int, seconds: float) -> None:
    """Connect to one of the addresses that a name stands for. Raises OSError."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    failures: list[OSError] = []
    for *_, numeric in found:
        try:
            socket.create_connection((str(numeric[0]), port), timeout=seconds / len(found)).close()
        except OSError as error:
            failures.append(error)
        else:
            return
    raise failures[-1]
