"""Where the hosts are and who may use them: spec.libvirt of the LubanHosts, as one operator has heard it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import ValidationError

from luban.api.cluster import LubanClusterSpec
from luban.api.libvirt_host import LibvirtHost
from luban.api.libvirt_uri import normal_form
from luban.api.reading import faults
from luban.core.usable_hosts import Applicant, HostPolicy, Unreadable, UsableHosts, usable_hosts

log = structlog.get_logger(__name__)

LONGEST_FAULT = 500
"""Characters of the words about a LubanHost that cannot be read."""


@dataclass
class HostRegistry:
    """The LubanHosts with spec.libvirt, fed from a watch."""

    policy: HostPolicy = "Any"
    turn: int = 0
    """How often anything changed."""
    _known: dict[str, LibvirtHost | Unreadable] = field(default_factory=dict)
    """By name."""

    def take(self, body: Mapping[str, Any]) -> bool:
        """A LubanHost was read or changed. Returns whether it says something new of where it is and who may use it."""
        name = body["metadata"]["name"]
        before, found = self._known.get(name), _libvirt_of(body)
        if found == before:
            return False
        self.turn += 1
        if found is None:
            self._known.pop(name)
        else:
            self._known[name] = found
        if isinstance(found, Unreadable):
            log.warning("spec.libvirt of a LubanHost cannot be read: nothing is made there", host=name, why=found.why)
        return True

    def drop(self, name: str) -> bool:
        """A LubanHost is gone. Returns whether it said where it is."""
        self.turn += name in self._known
        return self._known.pop(name, None) is not None

    def usable(
        self, spec: LubanClusterSpec, applicant: Applicant, identity: Callable[[str], str] = normal_form
    ) -> UsableHosts:
        """Which hosts of a spec may be used, by what is known now. `identity`: see usable_hosts."""
        return usable_hosts(spec, self._known, applicant, self.policy, identity)

    def libvirt(self, host: str) -> LibvirtHost | None:
        """What is said of a host; None: nothing that can be read."""
        known = self._known.get(host)
        return known if isinstance(known, LibvirtHost) else None

    def registered(self) -> Mapping[str, LibvirtHost]:
        """All hosts of which anything is said that can be read, by name."""
        return {name: known for name, known in self._known.items() if isinstance(known, LibvirtHost)}

    def cidr(self, host: str) -> str:
        """Network of the addresses of a host's VMs; empty: any."""
        known = self.libvirt(host)
        return known.cidr if known is not None else ""


def _libvirt_of(body: Mapping[str, Any]) -> LibvirtHost | Unreadable | None:
    """What is said, read strictly: a limit that is not understood must not become none at all."""
    spec = body.get("spec")
    said = spec.get("libvirt") if isinstance(spec, Mapping) else None
    if said is None:
        return None
    try:
        return LibvirtHost.model_validate(said)
    except ValidationError as error:
        return Unreadable("; ".join(faults(LibvirtHost, error))[:LONGEST_FAULT])
