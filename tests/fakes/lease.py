"""ports.LeaseStore in memory: one Lease, and the ways to it, each of which can be cut."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from luban.errors import Conflict, TemporaryError
from luban.ports import LeaseRecord, LeaseStore


@dataclass
class FakeLease:
    """The object in the API server."""

    record: LeaseRecord | None = None
    writes: list[tuple[str, str]] = field(default_factory=list)
    """Kind of write, and by whom it is held then."""

    def store(self) -> LeaseWay:
        """A way to it, for one operator."""
        return LeaseWay(self)


@dataclass
class LeaseWay:
    """What one operator sees of the Lease. `cut`: its API server does not answer. `slow`: seconds to an answer."""

    lease: FakeLease
    cut: bool = False
    slow: float = 0.0

    async def read(self) -> LeaseRecord | None:
        """See LeaseStore."""
        await self._reach()
        return self.lease.record

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        """See LeaseStore."""
        await self._reach()
        if self.lease.record is not None:
            raise Conflict("AlreadyExists", "the Lease exists")
        return self._write("create", replace(record, version="0"))

    async def take(self, record: LeaseRecord) -> LeaseRecord:
        """See LeaseStore."""
        await self._reach()
        return self._write("take", self._checked(record))

    async def renew(self, record: LeaseRecord) -> LeaseRecord:
        """See LeaseStore."""
        await self._reach()
        return self._write("renew", self._checked(record))

    async def close(self) -> None:
        """See LeaseStore."""

    async def _reach(self) -> None:
        await asyncio.sleep(self.slow)
        if self.cut:
            raise TemporaryError("APIServerUnreachable", "no answer")

    def _checked(self, record: LeaseRecord) -> LeaseRecord:
        if self.lease.record is None or self.lease.record.version != record.version:
            raise Conflict("Conflict", "the Lease has been modified")
        return record

    def _write(self, kind: str, record: LeaseRecord) -> LeaseRecord:
        self.lease.record = replace(record, version=str(int(record.version) + 1))
        self.lease.writes.append((kind, record.holder))
        return self.lease.record


_: type[LeaseStore] = LeaseWay
