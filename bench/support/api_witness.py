"""Who asks the API server what, by its own audit log.

The log names the user of each request, which the API server's metrics (apiserver_request_total) do not; and it is
written by the other side, so nothing that the operator sends is missing or counted twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

LOG_MIB = 2000
"""Longer than any log here gets: one that was begun anew in the middle could not be counted."""
LONGEST_LINE = 1 << 16
"""Bytes; at level Metadata a line has one or two thousand."""


@dataclass(frozen=True)
class Request:
    """A request that was answered; a watch, when it has ended."""

    verb: str
    resource: str
    """With its subresource (lubanvms/status); the path where it is about no object."""
    name: str
    code: int

    @property
    def is_write(self) -> bool:
        """Whether it changes something."""
        return self.verb in {"create", "update", "patch", "delete", "deletecollection"}

    @property
    def is_status_write(self) -> bool:
        """Whether it writes an object's status."""
        return self.is_write and self.resource.endswith("/status")

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


class ApiWitness:
    """The requests of one user, but for watches and for one Lease: that by which operators agree on who acts."""

    def __init__(self, folder: Path, user: str, lease: str) -> None:
        self._log = folder / "audit.log"
        self._policy = folder / "audit-policy.yaml"
        self._user = user
        self._lease = lease

    def write_policy(self) -> None:
        """What the API server shall log; it reads that when it is started."""
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": [{"level": "Metadata", "users": [self._user]}, {"level": "None"}],
        }
        self._policy.parent.mkdir(parents=True, exist_ok=True)
        self._policy.write_text(yaml.safe_dump(policy))

    def options(self) -> list[str]:
        """Options of kube-apiserver."""
        return [
            f"--audit-policy-file={self._policy}",
            f"--audit-log-path={self._log}",
            # Written before the answer leaves: nothing is missing at the end of a window.
            "--audit-log-mode=blocking",
            f"--audit-log-maxsize={LOG_MIB}",
        ]

    def position(self) -> int:
        """Where the last whole line of the log ends now: one that is being written may be there in part."""
        if not self._log.exists():
            return 0
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - LONGEST_LINE))
            tail = log.read(LONGEST_LINE)
            return log.tell() - len(tail) + tail.rfind(b"\n") + 1

    def since(self, position: int) -> list[Request]:
        """Requests that were written after a position."""
        return self.between(position, self.position())

    def between(self, begin: int, end: int) -> list[Request]:
        """Requests that were written between two positions."""
        if end == begin:
            return []
        with self._log.open("rb") as log:
            log.seek(begin)
            return list(self.read(log.read(end - begin)))

    def read(self, text: bytes) -> Iterator[Request]:
        """Those in a part of the log."""
        for line in text.splitlines():
            entry = json.loads(line)
            about = entry.get("objectRef", {})
            resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
            request = Request(
                entry["verb"],
                resource or entry["requestURI"].partition("?")[0],
                about.get("name", ""),
                entry.get("responseStatus", {}).get("code", 0),
            )
            if request.verb != "watch" and (resource, request.name) != ("leases", self._lease):
                yield request


def by_kind(requests: list[Request]) -> Counter[str]:
    """How many of each verb and resource."""
    return Counter(str(request) for request in requests)
