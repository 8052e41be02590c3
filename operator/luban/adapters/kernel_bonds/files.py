"""Reads small files of /proc and /sys below configurable roots. What cannot be read is None, never an error."""

from __future__ import annotations

import os
import re
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
