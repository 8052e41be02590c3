"""Names of network devices: up to 15 arbitrary bytes without slash, colon, space and NUL (dev_valid_name in Linux)."""

from __future__ import annotations

import re

LONGEST = 15
_FORBIDDEN = re.compile(rb"[/:\s\x00]")


def readable(raw: bytes) -> str:
    """A name for people, JSON and labels: whatever is not printable is written as an escape, backslashes too.

    Different names stay different.
    """
    text = raw.decode("utf-8", errors="surrogateescape")
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return r"\\"
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8"))


def is_device_name(raw: bytes) -> bool:
    """Whether Linux would take it as a name. Nothing else is ever made part of a path."""
    return 0 < len(raw) <= LONGEST and raw not in (b".", b"..") and not _FORBIDDEN.search(raw)
