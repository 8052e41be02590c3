"""Why httpd cannot listen where it shall, and what to change."""

from __future__ import annotations

import errno
import os
import re
import socket

from luban.adapters.apache_httpd.connections import Endpoint
from luban.errors import ConfigurationRefused

PORT_TAKEN = "AH00072"
"""httpd's number for an address that it cannot listen at."""
_REMEDIES = {
    errno.EADDRINUSE: "choose another balancer.listen.port, or stop what listens there",
    errno.EADDRNOTAVAIL: "balancer.listen.address must be an address of the machine that httpd is on, or empty for all",
    errno.EACCES: "httpd may not listen at ports below 1024 here: choose another balancer.listen.port, from 1024 on",
}
_OF_HTTPD = re.compile(rf"\((\d+)\)[^\n]*{PORT_TAKEN}")
"""httpd's own words, which begin with the system's error number."""


def try_listen(address: str, port: int) -> None:
    """Raises ConfigurationRefused, with the remedy, if nobody can listen there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((address, port))
    except OSError as error:
        raise cannot_listen((address, port), error) from error


def cannot_listen(where: Endpoint, error: OSError) -> ConfigurationRefused:
    """Our error for the system's."""
    address, port = where
    host = f"[{address}]" if ":" in address else address or "*"
    number = error.errno or 0
    why = os.strerror(number) if number > 0 else str(error)
    return ConfigurationRefused("CannotListen", f"httpd cannot listen at {host}:{port}: {why}{_remedy(number)}")


def with_remedy(words: str) -> str:
    """httpd's last words, and what to change if they say that it cannot listen."""
    found = _OF_HTTPD.search(words)
    return f"{words}{_remedy(int(found[1]))}" if found else words


def _remedy(number: int) -> str:
    return f": {_REMEDIES[number]}" if number in _REMEDIES else ""
