"""Which VM this process serves in: the name in the `X-Luban-VM` header, in the logs and on the page."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping

VM_VARIABLE = "LUBAN_VM"
"""Environment variable with the VM's name; the guest's init sets it."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def vm_name(environ: Mapping[str, str] | None = None) -> str:
    """The VM's name: `LUBAN_VM`, else the host name.

    Raises ValueError for a name that is not a DNS-like label of 1..63 characters: it goes into a header as it
    is, so it is checked against an allow-list instead of being escaped.
    """
    given = (os.environ if environ is None else environ).get(VM_VARIABLE) or socket.gethostname()
    if not _NAME.fullmatch(given):
        raise ValueError(f"{VM_VARIABLE}: {given!r} is not a name (1..63 letters, digits, '.', '_' or '-')")
    return given
