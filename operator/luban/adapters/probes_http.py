"""HTTP probes and metric scrapes of VMs behind the Probes port.

What answers is a guest, and a guest may be anybody's: whatever it sends costs the operator little and always the same.
"""

from __future__ import annotations

import ipaddress
import math
import re
from contextlib import AbstractAsyncContextManager

import aiohttp
import structlog

from luban.adapters.bounded_http import BoundedConnector

log = structlog.get_logger(__name__)

MAX_METRICS_BYTES = 1_000_000
"""Bytes of a metrics page; a longer one is not read, and a part of one would be a wrong number."""
LONGEST_LINE = 8_192
"""Bytes of a sample. All else on the page may be as long as it likes: it is passed over."""
MOST_SAMPLES = 1_000
"""Samples of one metric on a page."""
MOST_SESSIONS = 2**31 - 1
"""The largest number that is believed."""
CONNECTIONS = 1_000
"""At the same time, to all VMs; and to one VM: a probe, a scrape, and one of each that a slow VM still holds."""
CONNECTIONS_PER_VM = 4

_SAMPLE = rb"""
    [ \t]*+ %s [ \t]*+
    (?: \{ (?: [^"}] | "(?: [^"\\] | \\. )*+" )*+ \} [ \t]*+ )?+
    (?P<value> [^ \t\r{]++ )
    (?: [ \t]++ -?[0-9]++ )?+ [ \t\r]*+
"""
"""A line of Prometheus' text format: name, labels, value, time. Every part is possessive: nothing is tried twice."""
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


class HttpProbes:
    """Requests to VMs over plain HTTP, each on a connection of its own as a client's first request would be."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ready(self, address: str, port: int, path: str, timeout: float) -> bool:
        """GET; True for 200..399 within `timeout` seconds. Redirects are not followed. Never raises."""
        try:
            async with self._get(address, port, path, timeout) as answer:
                return 200 <= answer.status < 400
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.debug("probe failed", address=address, port=port, error=repr(error))
            return False

    async def gauge(self, address: str, port: int, path: str, metric: str, timeout: float) -> int | None:
        """Sum of a metric's samples, rounded up; None: no answer, no such metric, or a value that none can be.

        Redirects are not followed, and nothing is unpacked. Never raises.
        """
        try:
            async with self._get(address, port, path, timeout) as answer:
                if answer.status != 200 or answer.headers.get("Content-Encoding", "identity") != "identity":
                    return None
                samples = MetricReader(metric)
                async for chunk in answer.content.iter_any():
                    samples.feed(chunk)
                return samples.total()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.debug("metrics not read", address=address, port=port, error=repr(error))
            return None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _get(
        self, address: str, port: int, path: str, timeout: float
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Raises ValueError for an address that is a name: only addresses are ever asked."""
        bare = ipaddress.ip_address(address)
        host = f"[{bare}]" if bare.version == 6 else str(bare)
        return self._client().get(
            f"http://{host}:{port}{path}", timeout=aiohttp.ClientTimeout(total=timeout), allow_redirects=False
        )

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=BoundedConnector(
                    MAX_METRICS_BYTES, limit=CONNECTIONS, limit_per_host=CONNECTIONS_PER_VM, force_close=True
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
            )
        return self._session


class MetricReader:
    """Adds up one metric's samples while its page arrives. Holds one line at most, and looks at every byte once.

    `feed` and `total` raise ValueError once the page says what cannot be: it is too long, or a sample is malformed,
    negative, too large or not a number.
    """

    def __init__(self, metric: str) -> None:
        name = re.escape(metric.encode())
        self._begins = re.compile(rb"\n[ \t]*+" + name + rb"(?=[ \t{])")
        self._sample = re.compile(_SAMPLE % name, re.VERBOSE | re.DOTALL)
        self._line = bytearray()
        """The last line, which has not ended yet."""
        self._passing = False
        """The last line is too long to be a sample of ours: its rest is passed over."""
        self._read = 0
        self._values: list[float] = []

    def feed(self, chunk: bytes) -> None:
        """Take the next part of the page."""
        self._read += len(chunk)
        if self._read > MAX_METRICS_BYTES:
            raise ValueError(f"the page is longer than {MAX_METRICS_BYTES} bytes")
        lines, newline, rest = chunk.rpartition(b"\n")
        if newline:
            self._scan(lines.partition(b"\n")[2] if self._passing else bytes(self._line) + lines)
            self._line.clear()
            self._passing = False
        if not self._passing:
            self._line += rest
            self._bound_line()

    def total(self) -> int | None:
        """The sum, rounded up; None: there is no such metric."""
        self._scan(bytes(self._line))
        if not self._values:
            return None
        total = math.fsum(self._values)
        if total > MOST_SESSIONS:
            raise ValueError(f"the samples add up to {total}")
        return math.ceil(total)

    def _bound_line(self) -> None:
        if len(self._line) <= LONGEST_LINE:
            return
        if self._begins.match(b"\n" + self._line):
            raise ValueError(f"a sample is longer than {LONGEST_LINE} bytes")
        self._passing = True
        self._line.clear()

    def _scan(self, lines: bytes) -> None:
        """Read the samples among whole lines."""
        lines = b"\n" + lines + b"\n"
        for found in self._begins.finditer(lines):
            begin = found.start() + 1
            self._take(lines[begin : lines.index(b"\n", begin)])

    def _take(self, line: bytes) -> None:
        sample = self._sample.fullmatch(line) if len(line) <= LONGEST_LINE else None
        text = sample["value"].decode(errors="replace") if sample else ""
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not 0 <= value <= MOST_SESSIONS:
            raise ValueError(f"not a number of sessions: {line[:100]!r}")
        self._values.append(value)
        if len(self._values) > MOST_SAMPLES:
            raise ValueError(f"more than {MOST_SAMPLES} samples")
