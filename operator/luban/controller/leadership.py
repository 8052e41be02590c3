"""Which of several operators acts: the one that holds a Lease, and only while it is sure that it does.

As client-go does it, with two differences that the library for Python lacks: times are counted on a clock that nobody
sets, and a leader that ends gives the Lease back, so that its successor need not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from luban.errors import Conflict, LubanError
from luban.ports import Clock, LeaseRecord, LeaseStore

log = structlog.get_logger(__name__)

LEASE_SECONDS = 10.0
"""A Lease that nobody has renewed for so long, as seen by one who waits, is free."""
LONGEST_LEASE_SECONDS = 60.0
"""No Lease is waited for longer, whatever it says of itself, nor shorter than ours: whoever wrote it."""
SURE_SECONDS = 7.0
"""A leader begins nothing later than this after it began to renew the last time. What it has under way then may end
after another has begun: a call to the API server takes up to 10 s, one to libvirt up to 30 s. See the decision of
2026-11-27 (leadership by a Lease) for why that does no harm."""
RENEW_SECONDS = 2.0
RETRY_SECONDS = 1.0
"""Between two looks of one who waits, and between two tries to renew."""


class Leader:
    """One operator's part in it. `gone`: whether the process behind an identity is known to have ended."""

    def __init__(
        self, store: LeaseStore, identity: str, clock: Clock, gone: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.identity = identity
        self._store = store
        self._clock = clock
        self._gone = gone
        self._record: LeaseRecord | None = None
        """The Lease as we wrote it, or as we saw it last."""
        self._seen_since = 0.0
        """Since when it has looked like this."""
        self._sure_until = float("-inf")

    def held(self) -> bool:
        """Whether we may act now."""
        return self._clock.monotonic() < self._sure_until

    async def acquire(self, stopped: asyncio.Event) -> bool:
        """Wait until we may act, or until `stopped`; returns whether we may."""
        while not stopped.is_set():
            if await self._tries():
                log.info("leading", identity=self.identity)
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), RETRY_SECONDS)
        return False

    async def keep(self) -> None:
        """Renew the Lease again and again; returns when we may act no more."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            while not await self._tries():
                if not self.held() or self._is_anothers():
                    self._sure_until = float("-inf")
                    log.warning("leading no more", identity=self.identity)
                    return
                await asyncio.sleep(RETRY_SECONDS)

    async def release(self) -> None:
        """Give the Lease back, so that another need not wait. To be called when nothing of ours acts any more."""
        self._sure_until = float("-inf")
        try:
            found = await self._store.read()
            if found is not None and found.holder == self.identity:
                await self._store.renew(replace(found, holder=""))
        except LubanError as error:
            log.warning("Lease not given back, it expires", reason=error.reason, error=error.message)

    def _is_anothers(self) -> bool:
        return self._record is not None and self._record.holder != self.identity

    async def _tries(self) -> bool:
        """Take or renew the Lease, if we may. Returns whether it is ours now."""
        begun = self._clock.monotonic()
        try:
            async with asyncio.timeout(SURE_SECONDS):
                taken = await self._take()
        except Conflict:
            log.info("another one was quicker", identity=self.identity)
            return False
        except (LubanError, TimeoutError) as error:
            log.warning("Lease not reached", identity=self.identity, error=str(error))
            return False
        if taken is None:
            return False
        self._record, self._sure_until = taken, begun + SURE_SECONDS
        return self.held()

    async def _take(self) -> LeaseRecord | None:
        """The Lease with us as its holder; None: it is another's."""
        found = await self._store.read()
        if found is None:
            return await self._store.create(LeaseRecord(self.identity, LEASE_SECONDS))
        if found.holder == self.identity:
            return await self._store.renew(replace(found, duration=LEASE_SECONDS))
        if not self._free(found):
            return None
        return await self._store.take(replace(found, holder=self.identity, duration=LEASE_SECONDS))

    def _free(self, found: LeaseRecord) -> bool:
        """Whether nobody holds it: given back, or its holder is dead, or has not renewed it while we watched."""
        now = self._clock.monotonic()
        if self._record is None or found.version != self._record.version:
            self._record, self._seen_since = found, now
        patience = min(max(found.duration, LEASE_SECONDS), LONGEST_LEASE_SECONDS)
        return not found.holder or self._gone(found.holder) or now - self._seen_since >= patience
