"""The routes that /proc/net tells of: of IPv4 the main table alone, and one next hop of each route."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from luban.adapters.kernel_bonds.device_names import is_device_name
from luban.adapters.kernel_bonds.files import read
from luban.adapters.kernel_bonds.routes import LONGEST_PART, Route

_LIMIT = 1 << 20
_RTF_UP = 0x1
_RTF_REJECT = 0x200


def proc_routes(proc: Path) -> list[Route[bytes]]:
    """Routes with short prefixes; from /proc/net/route and ipv6_route."""
    found: list[Route[bytes]] = []
    for name, parse in (("route", _route_v4), ("ipv6_route", _route_v6)):
        for fields in _lines(proc / "net" / name):
            try:
                route = parse(fields)
            except (ValueError, IndexError, OverflowError):
                continue
            if route is not None and route.length <= LONGEST_PART and is_device_name(route.devices[0]):
                found.append(route)
    return found


def _lines(path: Path) -> Iterator[Sequence[bytes]]:
    return (line.split() for line in (read(path, _LIMIT) or b"").splitlines())


def _route_v4(fields: Sequence[bytes]) -> Route[bytes] | None:
    """Device, destination, gateway, flags, 2 counters, metric, mask, ...; addresses in the order of this machine."""
    destination, mask = (int.from_bytes(int(fields[number], 16).to_bytes(4, sys.byteorder), "big") for number in (1, 7))
    return _usable(fields[3], Route(socket.AF_INET, destination, mask.bit_count(), (fields[0],), int(fields[6])))


def _route_v6(fields: Sequence[bytes]) -> Route[bytes] | None:
    """Destination, its length, source, its length, next hop, metric, 2 counters, flags, device."""
    route = Route(socket.AF_INET6, int(fields[0], 16), int(fields[1], 16), (fields[9],), int(fields[5], 16))
    return _usable(fields[8], route)


def _usable(flags: bytes, route: Route[bytes]) -> Route[bytes] | None:
    bits = int(flags, 16)
    return route if bits & _RTF_UP and not bits & _RTF_REJECT else None
