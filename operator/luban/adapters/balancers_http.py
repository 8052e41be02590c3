"""The balancer agents' reports over HTTP: what an agent writes at /v1/report and how the operator reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import aiohttp
import structlog

from luban.core.model import BalancerReport, MemberReport, MemberState

log = structlog.get_logger(__name__)

REPORT_PATH = "/v1/report"
DEADLINE_SECONDS = 2.0
LONGEST_REPORT = 8 << 20
"""Bytes; a longer one is not read."""


def report_json(report: BalancerReport) -> dict[str, Any]:
    """A report as it goes over the wire."""
    return {
        "name": report.name,
        "ready": report.ready,
        "applied": report.applied,
        "message": report.message,
        "members": [
            {
                "name": member.name,
                "state": member.state,
                "address": member.address,
                "port": member.port,
                "healthy": member.healthy,
                "inFlight": member.in_flight,
                "sessions": member.sessions,
                "drained": member.drained,
                "served": member.served,
            }
            for member in report.members
        ],
    }


def parse_report(data: Mapping[str, Any]) -> BalancerReport:
    """Read a report back; fields that a newer agent adds are ignored. Raises ValueError, KeyError, TypeError."""
    return BalancerReport(
        name=str(data["name"]),
        reachable=True,
        ready=_truth(data["ready"]),
        applied=str(data["applied"]),
        message=str(data["message"]),
        members=tuple(_member(entry) for entry in data["members"]),
    )


def _member(data: Mapping[str, Any]) -> MemberReport:
    state = data["state"]
    if state not in get_args(MemberState):
        raise ValueError(f"unknown state {state!r}")
    return MemberReport(
        name=str(data["name"]),
        state=state,
        address=str(data["address"]),
        port=int(data["port"]),
        healthy=_truth(data["healthy"]),
        in_flight=int(data["inFlight"]),
        sessions=int(data["sessions"]),
        drained=_truth(data["drained"]),
        served=int(data["served"]),
    )


def _truth(value: object) -> bool:
    """A JSON boolean: "false" must not pass for true, for a VM may be stopped on the strength of it."""
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


class HttpBalancers:
    """Asks agents; stands behind luban.ports.Balancers."""

    def __init__(self, deadline: float = DEADLINE_SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=deadline)
        self._session: aiohttp.ClientSession | None = None

    async def report(self, name: str, endpoint: str) -> BalancerReport:
        """Ask the agent at `endpoint`. One that does not answer, or answers for another, is not reachable."""
        try:
            found = parse_report(await self._fetch(endpoint.rstrip("/") + REPORT_PATH))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
            log.debug("balancer does not report", balancer=name, endpoint=endpoint, error=repr(error))
            return BalancerReport(name, reachable=False, message=f"{endpoint} does not report: {error!r}")
        if found.name != name:
            return BalancerReport(name, reachable=False, message=f"{endpoint} is the agent of {found.name}")
        return found

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _fetch(self, url: str) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"answered {answer.status}")
            page = bytearray()
            async for chunk in answer.content.iter_any():
                page += chunk
                if len(page) > LONGEST_REPORT:
                    raise ValueError("answer is too long")
            return json.loads(page)
