"""What answers in place of guests and of balancers: one HTTP server on the VMs' addresses and on those of the agents.

The test driver's domains run nothing, so this answers for them; and an agent says that httpd has taken on whatever its
ConfigMap asks for. It counts what it is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from aiohttp import web

from luban.adapters.balancers_http import REPORT_PATH, report_json
from luban.api.names import FEED_TYPE
from luban.core.model import BalancerReport, ClusterRef, MemberReport
from luban.render.balancer import BalancerDocument

Endpoint = tuple[str, int]
BACKLOG = 16
LOOK_SECONDS = 0.25
SIGN_SECONDS = 1.0


def report_of(cluster: ClusterRef, name: str, document: BalancerDocument) -> bytes:
    """The report of an httpd that has taken a document on, and that nobody uses."""
    members = tuple(
        MemberReport(
            name=member.name,
            state=member.state,
            address=member.address,
            port=member.port,
            healthy=True,
            in_flight=0,
            sessions=0,
            drained=member.state != "Enabled",
            served=0,
        )
        for member in document.members
    )
    report = BalancerReport(name=name, reachable=True, ready=True, applied=document.version, members=members)
    return json.dumps(report_json(report, cluster)).encode()


class Guests:
    """The server."""

    def __init__(self) -> None:
        self.probes = 0
        """Requests to VMs since the beginning."""
        self.asked = 0
        """Requests for reports."""
        self.reports: dict[Endpoint, bytes] = {}
        """What the agent at an endpoint says; it answers 503 before."""
        self._http = web.Server(self._answer, access_log=None)
        self._listening: set[Endpoint] = set()
        self._servers: list[asyncio.Server] = []

    async def listen(self, endpoints: Iterable[Endpoint]) -> None:
        """Answer there, too. The wildcard address is no way: this machine's loopback network has other users."""
        loop = asyncio.get_running_loop()
        for endpoint in set(endpoints) - self._listening:
            self._servers.append(await loop.create_server(self._http, *endpoint, backlog=BACKLOG))
            self._listening.add(endpoint)

    async def close(self) -> None:
        """Answer no more."""
        for server in self._servers:
            server.close()
        await self._http.shutdown(1.0)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != REPORT_PATH:
            self.probes += 1
            return web.Response()
        self.asked += 1
        report, seconds = self._report(request), float(request.query.get("follow", "0"))
        if report is None:
            return web.Response(status=503)
        if not seconds:
            return web.Response(body=report, content_type="application/json")
        return await self._feed(request, seconds)

    def _report(self, request: web.BaseRequest) -> bytes | None:
        transport: Any = request.transport
        return self.reports.get(tuple(transport.get_extra_info("sockname"))) if transport is not None else None

    async def _feed(self, request: web.BaseRequest, seconds: float) -> web.StreamResponse:
        """The report whenever it is another one, and a sign of life each second, as an agent gives them."""
        answer, told = web.StreamResponse(headers={"Content-Type": FEED_TYPE}), None
        with suppress(ConnectionError):
            await answer.prepare(request)
            for number in range(int(seconds / LOOK_SECONDS)):
                report = self._report(request)
                if report is None:
                    break
                if report != told:
                    told = report
                    await answer.write(report + b"\n")
                elif number * LOOK_SECONDS % SIGN_SECONDS == 0:
                    await answer.write(b"\n")
                await asyncio.sleep(LOOK_SECONDS)
            await answer.write_eof()
        return answer
