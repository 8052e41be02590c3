"""The balancer agents' reports over HTTP: what an agent writes at /v1/report and how the operator reads it.

Whoever may write a Lease says where an agent is asked, and whoever answers there says what it likes. So only addresses
where agents can be are asked, and a report is believed as far as it is well-formed and about the right balancer. What
else is met there is told in the log alone: in a status it would tell users what the operator can reach.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, get_args
from urllib.parse import urlsplit

import aiohttp
import structlog

from luban.adapters.bounded_http import BoundedConnector
from luban.adapters.report_lines import lines
from luban.api.names import AGENT_REALM, FEED_TYPE
from luban.core.model import BalancerReport, ClusterRef, MemberReport, MemberState

log = structlog.get_logger(__name__)

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")

REPORT_PATH = "/v1/report"
DEADLINE_SECONDS = 2.0
SILENCE_SECONDS = 2.0
"""An agent that is followed and says nothing for so long is away: it gives a sign of life every second."""
FOLLOW_SECONDS = 30.0
"""So long an agent is followed; then it is asked anew, and sees anew who asks."""
SHORTEST_LIMIT, BYTES_PER_MEMBER, LONGEST_REPORT = 16 << 10, 512, 4 << 20
"""Bytes: so long a report may be in any case, so much longer for each member, and never longer than the last."""
LONG_REPORT = 64 << 10
"""Bytes; a longer one is not taken apart in the event loop."""
LONGEST_MESSAGE, LONGEST_VERSION, LONGEST_NODE = 1024, 64, 253
"""Characters: an agent's words are copied into the cluster's status."""
MOST_COUNTED = 2**53
"""The largest count that is believed."""
MOST_LOGGED = 1_000
"""So many balancers that do not report are remembered, so that each is told of once."""
CONNECTIONS, CONNECTIONS_PER_AGENT = 10_000, 3

NO_REPORT = "gives no report about this balancer; the operator's log says more"
"""What a status says of an endpoint, whatever is there."""

UNKNOWN_TOKEN = 401
REFUSED = "the agent does not take the operator's token"
_SHOWN_NONE = "there is none; the operator's log says why, and the agent's option --open-reports is another way"
_REFUSALS: Mapping[int, str] = {
    UNKNOWN_TOKEN: "its API server does not know it (401): operator and agent must have the same Kubernetes cluster",
    403: "it answers somebody else (403): start it with --operator and the operator's ServiceAccount",
    503: "its API server does not say whether it is good (503): the agent's log says why and what to do",
}
"""What the status of an agent's refusal means. What else it says is not copied."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def report_json(report: BalancerReport, cluster: ClusterRef) -> dict[str, Any]:
    """The report of one of a cluster's balancers as it goes over the wire."""
    return {
        "namespace": cluster.namespace,
        "cluster": cluster.name,
        "name": report.name,
        "ready": report.ready,
        "applied": report.applied,
        "message": report.message,
        "users": report.users,
        "node": report.node,
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
                "answers": member.answers,
                "answerSeconds": member.answer_seconds,
            }
            for member in report.members
        ],
    }


def parse_report(page: bytes) -> tuple[ClusterRef, BalancerReport]:
    """Read a report back, and whose it is; fields that a newer agent adds are passed over.

    Raises ValueError for anything that `report_json` would not have written.
    """
    try:
        data = json.loads(page)
        members = tuple(_member(entry) for entry in data["members"])
        report = BalancerReport(
            name=_name(data["name"]),
            reachable=True,
            ready=_truth(data["ready"]),
            applied=_words(data["applied"], LONGEST_VERSION),
            message=_words(data["message"], LONGEST_MESSAGE),
            members=members,
            users=None if data.get("users") is None else _count(data["users"]),
            # Older agents do not say.
            node=_words(data.get("node", ""), LONGEST_NODE),
        )
        cluster = ClusterRef(_name(data["namespace"]), _name(data["cluster"]))
    except KeyError as error:
        raise ValueError(f"the report has no field {error}") from error
    # Nested too deep, an array in the place of an object, and the like.
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a report: {error}") from error
    if len({member.name for member in members}) < len(members):
        raise ValueError("the report names a member twice")
    return cluster, report


def _member(data: Mapping[str, Any]) -> MemberReport:
    state = data["state"]
    if state not in get_args(MemberState):
        raise ValueError(f"unknown state {state!r}")
    return MemberReport(
        name=_name(data["name"]),
        state=state,
        address=str(ipaddress.ip_address(_words(data["address"], LONGEST_VERSION))),
        port=_count(data["port"], 65535),
        healthy=_truth(data["healthy"]),
        in_flight=_count(data["inFlight"]),
        sessions=_count(data["sessions"]),
        drained=_truth(data["drained"]),
        served=_count(data["served"]),
        # An earlier agent does not tell.
        answers=_count(data.get("answers", 0)),
        answer_seconds=_seconds(data.get("answerSeconds", 0)),
    )


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name")
    return value


def _words(value: object, longest: int) -> str:
    """Text that can be shown and stored, cut to its limit."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return "".join(it if it.isprintable() else " " for it in value[:longest])


def _count(value: object, highest: int = MOST_COUNTED) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError(f"{value!r} is not a number from 0 to {highest}")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_COUNTED:
        raise ValueError(f"{value!r} is not a number of seconds")
    return float(value)


def _truth(value: object) -> bool:
    """A JSON boolean: "false" must not pass for true, for a VM may be stopped on the strength of it."""
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def report_url(endpoint: str, networks: Sequence[IPNetwork] = ()) -> str:
    """Where to ask the agent of an endpoint. Raises ValueError if it is none, or not where an agent may be.

    `networks`: where agents may be. Empty: anywhere but on loopback, link-local, multicast and reserved addresses,
    where clouds answer questions about themselves (metadata), and where IPv6 carries IPv4.
    """
    try:
        parts = urlsplit(endpoint)
        address, port = ipaddress.ip_address(parts.hostname or ""), parts.port
    except ValueError as error:
        raise ValueError(f"the endpoint must be http://<IP address>:<port>: {error}") from error
    host = f"[{address}]" if address.version == 6 else str(address)
    # Whatever else it holds would be sent, or left out, without anybody having looked at it.
    if endpoint.rstrip("/") != f"http://{host}:{port}" or not port or "%" in host:
        raise ValueError("the endpoint must be http://<IP address>:<port> and nothing else")
    _require_allowed(address, networks)
    return f"http://{host}:{port}{REPORT_PATH}"


_KINDS = ("loopback", "link_local", "multicast", "unspecified", "reserved")
_NO_AGENTS: Mapping[IPNetwork, str] = {
    ipaddress.ip_network(network): words
    for network, words in {
        # Amazon's services for its machines, and those of Google, Alibaba, Oracle (with all of 192.0.0.0/24) and Azure.
        "fd00:ec2::/32": "metadata",
        "fd20:ce::/32": "metadata",
        "100.100.100.200/32": "metadata",
        "192.0.0.0/24": "metadata",
        "168.63.129.16/32": "metadata",
        "0.0.0.0/8": "reserved",
        # 6to4 and Teredo: any IPv4 address can be meant. NAT64 (64:ff9b::/96, 64:ff9b:1::/48) is reserved.
        "2002::/16": "translated",
        "2001::/32": "translated",
    }.items()
}
"""Networks that the library knows no word for."""


def _require_allowed(address: IPAddress, networks: Sequence[IPNetwork]) -> None:
    if networks:
        if not any(address in network for network in networks):
            names = ", ".join(map(str, networks))
            raise ValueError(f"{address} is not in {names}, where --agent-network says that agents are")
        return
    # ::ffff:169.254.169.254 is 169.254.169.254.
    meant = getattr(address, "ipv4_mapped", None) or address
    kinds = [kind.replace("_", "-") for kind in _KINDS if getattr(meant, f"is_{kind}")]
    kinds += [words for network, words in _NO_AGENTS.items() if meant in network]
    if kinds:
        raise ValueError(f"{address} is a {kinds[0]} address: if agents are there, say so with --agent-network")


class Credentials(Protocol):
    """Says to agents who asks."""

    async def token(self, cluster: ClusterRef) -> str:
        """What a cluster's agents are shown; empty: there is nothing now."""

    def refused(self, cluster: ClusterRef) -> None:
        """What they were shown is good no more: get another, though not at once again and again."""

    async def close(self) -> None:
        """Get no more."""


class AgentRefuses(ValueError):
    """An agent that does not take us for the operator."""


class HttpBalancers:
    """Asks agents; stands behind luban.ports.Balancers.

    `deadline`: seconds for an answer. `networks`: see `report_url`. `credentials`: closed along with it; None: agents
    that answer anybody.
    """

    def __init__(
        self,
        deadline: float = DEADLINE_SECONDS,
        *,
        networks: Sequence[IPNetwork] = (),
        credentials: Credentials | None = None,
    ) -> None:
        self._deadline = deadline
        self._networks = tuple(networks)
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None
        self._logged: dict[tuple[ClusterRef, str], str] = {}
        """By cluster and balancer: what the log says of it."""

    async def report(self, cluster: ClusterRef, name: str, endpoint: str, *, members: int) -> BalancerReport:
        """Ask the agent at `endpoint`. One that does not answer, or answers for another, is not reachable."""

        async def ask(url: str) -> BalancerReport:
            async with self._answer(cluster, url) as answer:
                return await _whole(answer, cluster, name, _limit(members))

        return await self._tried(cluster, name, endpoint, ask)

    async def follow(
        self,
        cluster: ClusterRef,
        name: str,
        endpoint: str,
        *,
        members: int,
        heard: Callable[[BalancerReport | None], None],
    ) -> BalancerReport | None:
        """Hear of each change for a while. An agent of an earlier version answers once."""

        async def listen(url: str) -> BalancerReport | None:
            async with self._answer(cluster, f"{url}?follow={FOLLOW_SECONDS:g}", self._patience) as answer:
                if answer.content_type != FEED_TYPE:
                    return await _whole(answer, cluster, name, _limit(members))
                async for line in lines(answer.content, _limit(members), self._deadline):
                    heard(await _read(line, cluster, name) if line else None)
                return None

        return await self._tried(cluster, name, endpoint, listen)

    async def _tried(
        self, cluster: ClusterRef, name: str, endpoint: str, attempt: Callable[[str], Awaitable[T]]
    ) -> T | BalancerReport:
        """What comes of an attempt; a report that says so if it fails."""
        told = NO_REPORT
        try:
            url = report_url(endpoint, self._networks)
        except ValueError as error:
            self._log(cluster, name, endpoint, str(error))
            return _silent(name, endpoint, str(error))
        try:
            found = await attempt(url)
        except TimeoutError:
            why = f"no answer within {self._deadline:g} s"
        except (aiohttp.ClientError, OSError) as error:
            why = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
        except AgentRefuses as error:
            why = told = str(error)
        except ValueError as error:
            why = str(error)
        else:
            self._logged.pop((cluster, name), None)
            return found
        self._log(cluster, name, endpoint, why)
        return _silent(name, endpoint, told)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._credentials is not None:
            await self._credentials.close()
            self._credentials = None

    def _log(self, cluster: ClusterRef, name: str, endpoint: str, why: str) -> None:
        """Say what is met there, once as long as it is the same."""
        words = _words(f"agent at {endpoint}: {why}", LONGEST_MESSAGE)
        if self._logged.get((cluster, name)) != words:
            if len(self._logged) >= MOST_LOGGED:
                self._logged.clear()
            self._logged[cluster, name] = words
            log.warning("balancer does not report", cluster=str(cluster), balancer=name, error=words)

    @asynccontextmanager
    async def _answer(
        self, cluster: ClusterRef, url: str, timeout: aiohttp.ClientTimeout | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that may be read. Raises AgentRefuses, and ValueError if it is none."""
        token = await self._credentials.token(cluster) if self._credentials is not None else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        within = timeout or aiohttp.ClientTimeout(total=self._deadline)
        async with self._client().get(url, allow_redirects=False, headers=headers, timeout=within) as answer:
            if answer.status in _REFUSALS and answer.headers.get("WWW-Authenticate") == AGENT_REALM:
                if answer.status == UNKNOWN_TOKEN and self._credentials is not None:
                    self._credentials.refused(cluster)
                raise AgentRefuses(f"{REFUSED}: {_REFUSALS[answer.status] if token else _SHOWN_NONE}")
            if answer.status != 200:
                raise ValueError(f"answered {answer.status}")
            yield answer

    @property
    def _patience(self) -> aiohttp.ClientTimeout:
        """Of one who listens: for each word, not for all of them together."""
        return aiohttp.ClientTimeout(connect=self._deadline, sock_connect=self._deadline, sock_read=SILENCE_SECONDS)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=BoundedConnector(LONGEST_REPORT, limit=CONNECTIONS, limit_per_host=CONNECTIONS_PER_AGENT),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
            )
        return self._session


async def _whole(answer: aiohttp.ClientResponse, cluster: ClusterRef, name: str, limit: int) -> BalancerReport:
    """The report that an answer is. Raises ValueError if it is none, or longer than `limit` bytes."""
    page = bytearray()
    async for chunk in answer.content.iter_any():
        page += chunk
        if len(page) > limit:
            raise ValueError(f"its report is longer than {limit} bytes")
    return await _read(bytes(page), cluster, name)


async def _read(page: bytes, cluster: ClusterRef, name: str) -> BalancerReport:
    """The report of this balancer. Raises ValueError if it is none, or another one's."""
    whose, found = parse_report(page) if len(page) < LONG_REPORT else await asyncio.to_thread(parse_report, page)
    if (whose.namespace, whose.name, found.name) != (cluster.namespace, cluster.name, name):
        raise ValueError(f"it is the agent of {whose.namespace}/{found.name}")
    return found


def _silent(name: str, endpoint: str, why: str) -> BalancerReport:
    return BalancerReport(name, reachable=False, message=_words(f"agent at {endpoint}: {why}", LONGEST_MESSAGE))


def _limit(members: int) -> int:
    """Bytes that the report of a balancer with so many members may have."""
    return min(SHORTEST_LIMIT + BYTES_PER_MEMBER * members, LONGEST_REPORT)
