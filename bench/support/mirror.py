"""Objects of one kind as the API server has them, kept up to date by a watch: to be looked at often, without asking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import OpenApiException

WATCH_SECONDS = 3600.0
RETRY_SECONDS = 0.5
OK = 200
CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})
Listen = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Told of each change, by ADDED, MODIFIED or DELETED, and the object."""


async def nobody(_event: str, _object: dict[str, Any]) -> None:
    """Is told of nothing."""


class Mirror:
    """Follows them from `run` on, until that is cancelled."""

    def __init__(self, watch: Callable[..., Awaitable[Any]], where: tuple[str, ...], listen: Listen) -> None:
        """`watch`: a list function of the client that returns the answer unread. `where`: its arguments."""
        self.objects: dict[str, dict[str, Any]] = {}
        """By name."""
        self._watch = watch
        self._where = where
        self._listen = listen

    async def run(self) -> None:
        """A watch that ends, or is refused while there is no such kind yet, begins anew with all that there is."""
        while True:
            with suppress(OpenApiException, aiohttp.ClientError, TimeoutError):
                answer = await self._watch(*self._where, watch=True, _request_timeout=WATCH_SECONDS)
                self.objects.clear()
                try:
                    if answer.status == OK:
                        await self._follow(answer.content)
                finally:
                    answer.close()
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, lines: aiohttp.StreamReader) -> None:
        """Take in what changes, until the watch ends."""
        while line := await lines.readline():
            event = json.loads(line)
            if event.get("type") not in CHANGES:
                return
            changed = event["object"]
            if event["type"] == "DELETED":
                self.objects.pop(changed["metadata"]["name"], None)
            else:
                self.objects[changed["metadata"]["name"]] = changed
            await self._listen(event["type"], changed)
