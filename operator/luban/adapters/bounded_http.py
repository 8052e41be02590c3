"""HTTP connections on which the other side can send so much and no more, whatever its answer is made of.

A guest, or whoever writes a Lease, decides what answers. aiohttp bounds one head and one line, not their number:
interim answers (1xx) without end, or a body in chunks of one byte, would keep the event loop busy until the deadline,
for all clusters.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import aiohttp
from aiohttp.client_proto import ResponseHandler

MOST_ANSWERS = 8
"""Heads of one answer, interim ones (1xx) included."""
OVERHEAD_BYTES = 65_536
"""Of heads and of chunks' framing, beside the body; a tenth of the body comes on top."""
SLICE_BYTES = 4_096
"""So much is parsed at once; after each slice it is seen whether it was too much."""


class _BoundedHandler(ResponseHandler):
    """aiohttp's side of a connection; ends it when an answer is out of bounds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, longest: int) -> None:
        super().__init__(loop)
        self._longest = longest
        self._received, self._heads = 0, 0

    def set_response_params(self, **params: object) -> None:
        """Another request on this connection begins."""
        self._received, self._heads = 0, 0
        super().set_response_params(**params)  # type: ignore[arg-type]

    def feed_data(self, data: tuple[aiohttp.http.RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """A head was read."""
        self._heads += 1
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and no more than is allowed."""
        if not data:
            super().data_received(data)
        for start in range(0, len(data), SLICE_BYTES):
            part = data[start : start + SLICE_BYTES]
            self._received += len(part)
            super().data_received(part)
            if self._received > self._longest or self._heads > MOST_ANSWERS:
                self._end()
            if self.transport is None or self.transport.is_closing():
                return

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class BoundedConnector(aiohttp.TCPConnector):
    """aiohttp's connections, each answer bounded to a body of `longest` bytes and what may come around it."""

    def __init__(self, longest: int, *, limit: int, limit_per_host: int, force_close: bool = False) -> None:
        super().__init__(limit=limit, limit_per_host=limit_per_host, force_close=force_close, use_dns_cache=False)
        most = longest + longest // 10 + OVERHEAD_BYTES
        # The one way to give aiohttp a protocol; a test sends what would not end.
        bounded: Callable[..., ResponseHandler] = _BoundedHandler
        self._factory = functools.partial(bounded, loop=self._loop, longest=most)
