"""Taking over what an earlier LubanCluster of the same name left running (deletionPolicy Orphan)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from luban.core.model import ClusterRef
from luban.errors import LubanError, NotLeader
from luban.ports import Ports

log = structlog.get_logger(__name__)

FIRST_SECONDS, LONGEST_SECONDS = 5.0, 300.0
"""After a failure so long is waited, then twice as long each time."""


@dataclass
class Adopter:
    """Adopts LubanVMs, so that they serve on."""

    ports: Ports
    _waits: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By LubanVM that could not be adopted: when it is tried again, and how long the wait was."""

    async def adopt(self, cluster: ClusterRef, orphans: Sequence[str]) -> bool:
        """Take them over; returns whether any was. One that cannot be had is left: its cluster cannot wait for it.

        Raises NotLeader.
        """
        now = self.ports.clock.monotonic()
        due = [name for name in orphans if now >= self._waits.get(name, (now, 0.0))[0]]
        return any([await self._one(cluster, name, now) for name in due])

    async def _one(self, cluster: ClusterRef, name: str, now: float) -> bool:
        try:
            await self.ports.cluster.adopt_vm(cluster, name)
        except NotLeader:
            raise
        except LubanError as error:
            log.warning("LubanVM not adopted", cluster=str(cluster), vm=name, reason=error.reason, error=error.message)
            wait = min(LONGEST_SECONDS, max(FIRST_SECONDS, 2 * self._waits.get(name, (0.0, 0.0))[1]))
            self._waits[name] = now + wait, wait
            return False
        log.info("LubanVM adopted", cluster=str(cluster), vm=name)
        self._waits.pop(name, None)
        return True
