"""Lines of an answer that goes on for a while, as an agent sends them: nobody may send too much, or too little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp

PAUSE_SECONDS = 0.05
"""Between two lines: one that sends without a pause keeps nobody busy."""


async def lines(content: aiohttp.StreamReader, limit: int, deadline: float) -> AsyncIterator[bytes]:
    """Each line as it comes, several empty ones at a time as one. Ends with the answer.

    Raises ValueError for a line longer than `limit` bytes, TimeoutError for one that takes twice `deadline` seconds.
    That nothing comes at all is for the connection to notice.
    """
    begun = spoke = time.monotonic()
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        if max(map(len, (*whole, rest))) > limit:
            raise ValueError(f"its report is longer than {limit} bytes")
        for line in filter(None, whole) if any(whole) else whole[:1]:
            yield line
            if time.monotonic() - spoke < PAUSE_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)
            spoke = time.monotonic()
        if whole:
            begun = time.monotonic()
        elif time.monotonic() - begun > 2 * deadline:
            raise TimeoutError
    if rest:
        raise ValueError("its report ends in the middle")
