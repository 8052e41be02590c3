"""Writes cpio archives in the "newc" form, the one that Linux unpacks as its initial RAM disk.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux sources.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

_TRAILER = "TRAILER!!!"


@dataclass
class Archive:
    """An archive being filled; every entry belongs to root and has the time 0, so equal input gives equal bytes."""

    _data: bytearray = field(default_factory=bytearray)
    _entries: int = 0

    def folder(self, name: str) -> None:
        """Add a folder (parents first)."""
        self._add(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes, *, executable: bool = False) -> None:
        """Add a file."""
        self._add(name, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a character device node."""
        self._add(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def finish(self) -> bytes:
        """The archive's bytes."""
        self._add(_TRAILER, 0)
        return bytes(self._data)

    def _add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._entries += 1
        path = name.encode() + b"\0"
        links, nobody, time = 1, 0, 0
        fields = (self._entries, mode, nobody, nobody, links, time, len(content), 0, 0, *device, len(path), 0)
        self._data += b"070701" + b"".join(b"%08x" % number for number in fields) + path
        self._pad()
        self._data += content
        self._pad()

    def _pad(self) -> None:
        self._data += b"\0" * (-len(self._data) % 4)
