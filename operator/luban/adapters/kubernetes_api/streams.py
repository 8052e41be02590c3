"""A watch's answer: one JSON document a line, of whatever length."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp


async def documents(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Each document as it comes. Raises what the client raises, ValueError for what is no JSON.

    The client's own readline gives up at 128 KiB: a ConfigMap with a few hundred members is longer.
    """
    rest = bytearray()
    async for chunk in response.content.iter_any():
        rest += chunk
        if b"\n" not in chunk:
            continue
        *lines, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in lines:
            if line.strip():
                yield json.loads(line)
