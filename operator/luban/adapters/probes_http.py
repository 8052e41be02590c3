"""HTTP probes and metric scrapes of VMs behind the Probes port."""

from __future__ import annotations

import math

import aiohttp
import structlog
from prometheus_client.parser import text_string_to_metric_families

log = structlog.get_logger(__name__)

MAX_METRICS_BYTES = 1_000_000
"""A longer metrics page is not read: a VM must not be able to fill the operator's memory."""


class HttpProbes:
    """Requests to VMs over plain HTTP, each on a connection of its own as a client's first request would be."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ready(self, address: str, port: int, path: str, timeout: float) -> bool:
        """GET; True for 200..399 within `timeout` seconds. Redirects are not followed. Never raises."""
        try:
            async with self._client().get(
                _url(address, port, path), timeout=aiohttp.ClientTimeout(total=timeout), allow_redirects=False
            ) as answer:
                return 200 <= answer.status < 400
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.debug("probe failed", address=address, port=port, error=repr(error))
            return False

    async def gauge(self, address: str, port: int, path: str, metric: str, timeout: float) -> int | None:
        """Sum of a metric's samples, rounded up; None: no answer, no such metric, not a page of metrics."""
        try:
            async with self._client().get(
                _url(address, port, path), timeout=aiohttp.ClientTimeout(total=timeout), allow_redirects=False
            ) as answer:
                if answer.status != 200:
                    return None
                page = await _read(answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.debug("metrics not read", address=address, port=port, error=repr(error))
            return None
        return None if page is None else sum_of(page.decode(errors="replace"), metric)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        return self._session


async def _read(answer: aiohttp.ClientResponse) -> bytes | None:
    """The whole page; None: it is longer than MAX_METRICS_BYTES. A part of it would be a wrong number."""
    page = bytearray()
    async for chunk in answer.content.iter_any():
        page += chunk
        if len(page) > MAX_METRICS_BYTES:
            return None
    return bytes(page)


def sum_of(page: str, metric: str) -> int | None:
    """Sum of a metric's samples in Prometheus' text format, rounded up; None: absent, negative or unreadable."""
    try:
        values = [
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == metric
        ]
        total = math.fsum(values)
        return math.ceil(total) if values and total >= 0 else None
    except (ValueError, OverflowError):
        return None


def _url(address: str, port: int, path: str) -> str:
    return f"http://{address}:{port}{path}"
