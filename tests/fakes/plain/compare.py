"""What a service sees and a client gets, compared between two ways: the rules that hold for every proxy come first.

RFC 9110 and 9112 let a proxy, or make it, change what belongs to one connection alone. These rules are applied to what
was seen without the balancer; what then still differs is a difference of this httpd's, and differences.py must name it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.fakes.plain.client import Answer
from tests.fakes.plain.service import Exchange
from tests.fakes.plain.wire import Head, Headers

HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "upgrade"})
FRAMING = frozenset({"content-length", "transfer-encoding"})
ADDED = ("date", "server")
PROXY = "balancer.invalid"
ERROR_PAGE = b"<!DOCTYPE HTML PUBLIC"


@dataclass(frozen=True)
class Way:
    """One way of an exchange: what arrived at the service, and what came back."""

    seen: Exchange | None
    answer: Answer

    @property
    def answered_by_httpd(self) -> str:
        """Status and reason of an answer that is httpd's own. Empty: the answer is the service's."""
        head = self.answer.head
        if head is None or (self.seen is not None and not self.answer.body.data.startswith(ERROR_PAGE)):
            return ""
        return head.start.partition(" ")[2]


def differences(straight: Way, through: Way, client: str) -> dict[str, Any]:
    """Fields that are not as the rules for proxies have it, with their values behind the balancer.

    `client` is the address that the balancer sees. Where httpd answers by itself, that is the only field.
    """
    if own := through.answered_by_httpd:
        return {"httpd answers": own}
    wanted = {**_request(straight.seen, client), **_response(straight.answer, passed=True)}
    got = {**_request(through.seen, ""), **_response(through.answer, passed=False)}
    return {name: got[name] for name in wanted if got[name] != wanted[name]}


def _request(seen: Exchange | None, client: str) -> dict[str, Any]:
    if seen is None:
        return dict.fromkeys(("request line", "request headers", "request body"))
    line, headers = seen.head.start, seen.head.headers
    if client:
        line, headers = _request_line(line), _request_headers(seen.head, client)
    return {"request line": line, "request headers": _unframed(headers), "request body": seen.body}


def _request_line(line: str) -> str:
    """RFC 9112, 2.3: the version is that of the sender, which is the proxy."""
    return f"{line.rpartition(' ')[0]} HTTP/1.1"


def _request_headers(head: Head, client: str) -> Headers:
    """Host first; none of the connection's own; repeated ones in one line (RFC 9110, 5.3); who asked, at the end."""
    own = _connection_names(head) | {"expect"}
    merged: dict[str, tuple[str, str]] = {}
    for name, value in head.headers:
        first, before = merged.get(name.lower(), (name, ""))
        merged[name.lower()] = first, f"{before}, {value}" if name.lower() in merged else value
    host = merged.pop("host", ("Host", PROXY))
    kept = [pair for key, pair in merged.items() if key not in own]
    asked = [("X-Forwarded-For", client), ("X-Forwarded-Server", PROXY)]
    if head.all("host"):
        asked.insert(1, ("X-Forwarded-Host", host[1]))
    return (host, *kept, *asked, ("Connection", "close"))


def _response(answer: Answer, *, passed: bool) -> dict[str, Any]:
    """A 100 Continue is a matter between neighbours; all other interim responses are the service's.

    The own fields for Date and Server come first: a proxy adds them where there are none (RFC 9110, 6.6.1).
    """
    head = answer.head or Head("", ())
    status = head.start
    if passed and status.startswith("HTTP/1.0"):
        status = status.replace("HTTP/1.0", "HTTP/1.1", 1)
    return {
        **{name: head.get(name) for name in ADDED if head.get(name) or not passed},
        "interim": tuple((one.start, one.headers) for one in answer.interim if " 100 " not in one.start),
        "status": status,
        "headers": _response_headers(head),
        "body": answer.body,
    }


def _response_headers(head: Head) -> Headers:
    own = _connection_names(head) | {"transfer-encoding", *ADDED}
    return tuple(pair for pair in head.headers if pair[0].lower() not in own)


def _connection_names(head: Head) -> frozenset[str]:
    """Names of headers that belong to the connection: RFC 9110, 7.6.1."""
    named = (item.strip().lower() for value in head.all("Connection") for item in value.split(","))
    return HOP_BY_HOP | frozenset(named)


def _unframed(headers: Iterable[tuple[str, str]]) -> Headers:
    """Without what says how long the body is: a proxy may put chunks together."""
    return tuple(pair for pair in headers if pair[0].lower() not in FRAMING)
