"""Reads small files of /proc and /sys below configurable roots. What cannot be read is None, never an error."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from luban.adapters.kernel_bonds.device_names import is_device_name

LIMIT = 1 << 20
"""Bytes of a file that are read at most."""
_FASTEST = 10_000_000
"""Mb/s. Drivers that do not know a speed say -1, 0 or 4294967295."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAC = re.compile("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def read(path: Path, limit: int = LIMIT) -> bytes | None:
    """Content of a file; None if it is not there or the kernel refuses (EINVAL of a device that is down)."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError):
        return None


def names_in(folder: Path) -> list[bytes]:
    """Names in a folder; none if it cannot be listed."""
    try:
        return sorted(os.fsencode(name) for name in os.listdir(folder))  # noqa: PTH208 (names as bytes)
    except (OSError, ValueError):
        return []


class SysNet:
    """/sys/class/net below a root. No name that Linux would not take as a device's becomes part of a path."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "class" / "net"

    def text(self, device: bytes, *parts: str) -> str | None:
        """A device's file without white space around it; None: no data."""
        if not is_device_name(device):
            return None
        data = read(self._folder.joinpath(os.fsdecode(device), *parts), 4096)
        return None if data is None else data.decode("utf-8", errors="replace").strip()

    def number(self, device: bytes, *parts: str) -> int | None:
        """A device's file as a number, such as 17 or 0x1003; None: no data, or less than 0."""
        return unsigned(self.text(device, *parts))

    def words(self, device: bytes, *parts: str) -> list[bytes] | None:
        """Names of devices in a device's file."""
        if not is_device_name(device):
            return None
        data = read(self._folder.joinpath(os.fsdecode(device), *parts))
        return None if data is None else names_of(data)

    def bonds(self) -> list[bytes] | None:
        """Names of the bonds; None: the bonding driver does not say."""
        data = read(self._folder / "bonding_masters")
        return None if data is None else names_of(data)

    def uppers(self, device: bytes) -> list[bytes]:
        """Devices that stand directly on this one (links upper_*)."""
        if not is_device_name(device):
            return []
        names = names_in(self._folder / os.fsdecode(device))
        uppers = (name.removeprefix(b"upper_") for name in names if name.startswith(b"upper_"))
        return [name for name in uppers if is_device_name(name)]

    def index(self, device: bytes) -> int | None:
        """The kernel's number of the device."""
        return self.number(device, "ifindex") or None

    def speed(self, device: bytes) -> int | None:
        """Mb/s."""
        return speed_of(self.number(device, "speed"))

    def duplex(self, device: bytes) -> str | None:
        """full or half."""
        text = self.text(device, "duplex")
        return text if text in ("full", "half") else None


def boot_id(proc: Path) -> str:
    """Which start of the kernel this is, as a UUID; empty: not known."""
    text = (read(proc / "sys" / "kernel" / "random" / "boot_id", 64) or b"").decode("ascii", errors="replace").strip()
    return text if _UUID.fullmatch(text) else ""


def names_of(data: bytes) -> list[bytes]:
    """The device names in a list."""
    return [word for word in data.split() if is_device_name(word)]


def unsigned(text: str | None) -> int | None:
    """A decimal or 0x number; None for anything else and for more than 32 bits, which no figure of the kernel's has."""
    digits, base = (text or "").strip(), 10
    if digits[:2].lower() == "0x":
        digits, base = digits[2:], 16
    if not digits.isascii() or not digits.isalnum() or len(digits) > 20:
        return None
    try:
        number = int(digits, base)
    except ValueError:
        return None
    return number if number <= 0xFFFFFFFF else None


def speed_of(number: int | None) -> int | None:
    """Mb/s, if it is a speed."""
    return number if number is not None and 0 < number <= _FASTEST else None


def mac_of(text: str | None) -> str | None:
    """An address such as 52:54:00:00:00:03, if it is one."""
    return text.lower() if text is not None and _MAC.fullmatch(text) else None


def default_devices(proc: Path) -> list[bytes]:
    """Devices of the default routes, IPv4 before IPv6, by metric; from /proc/net/route and ipv6_route."""
    return list(dict.fromkeys([*_routes_v4(proc), *_routes_v6(proc)]))


_RTF_UP = 0x1
_RTF_REJECT = 0x200


def _routes_v4(proc: Path) -> list[bytes]:
    """Lines: device, destination, gateway, flags, 2 counters, metric, mask, ..."""
    found: list[tuple[int, bytes]] = []
    for fields in _lines(proc / "net" / "route"):
        if len(fields) >= 8 and fields[1] == fields[7] == b"00000000":
            _add(found, fields[0], flags=fields[3], metric=fields[6], base=10)
    return [device for _, device in sorted(found)]


def _routes_v6(proc: Path) -> list[bytes]:
    """Lines: destination, its length, source, its length, next hop, metric, 2 counters, flags, device."""
    found: list[tuple[int, bytes]] = []
    for fields in _lines(proc / "net" / "ipv6_route"):
        if len(fields) >= 10 and fields[0].strip(b"0") == b"" and fields[1] == b"00":
            _add(found, fields[9], flags=fields[8], metric=fields[5], base=16)
    return [device for _, device in sorted(found)]


def _lines(path: Path) -> Sequence[list[bytes]]:
    # The tables stand in the order of destinations, so the default routes come first however long they are.
    return [line.split() for line in (read(path, 1 << 16) or b"").splitlines()]


def _add(found: list[tuple[int, bytes]], device: bytes, *, flags: bytes, metric: bytes, base: int) -> None:
    try:
        bits, weight = int(flags, 16), int(metric, base)
    except ValueError:
        return
    if bits & _RTF_UP and not bits & _RTF_REJECT and is_device_name(device):
        found.append((weight, device))
