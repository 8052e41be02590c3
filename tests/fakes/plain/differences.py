"""What a client or a service sees otherwise through httpd than straight, case by case, with the reason.

docs/http.md tells the same in prose, by the same reasons. A case that is not named here has no difference; one that is
has exactly this one, so that the list cannot rot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.plain.cases import CLOSE, HOST
from tests.fakes.plain.compare import PROXY
from tests.fakes.plain.service import CASE
from tests.fakes.plain.wire import Body


@dataclass(frozen=True)
class Difference:
    """Why something differs, and how."""

    why: str
    """A sentence of docs/http.md."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Values behind the balancer, of all fields that differ."""


def _same(why: str, fields: Mapping[str, Any], *names: str) -> dict[str, Difference]:
    return {name: Difference(why, fields) for name in names}


def _arrives(name: str, *headers: tuple[str, str], host: str = HOST) -> dict[str, Any]:
    """The request's headers as the service gets them."""
    asked = (("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Host", host), ("X-Forwarded-Server", PROXY), CLOSE)
    return {"request headers": (("Host", host), (CASE, name), *headers, *asked)}


def _comes_back(*headers: tuple[str, str]) -> dict[str, Any]:
    """The answer's headers as the client gets them."""
    return {"headers": headers}


ONE = {"body": Body(b"one", 3)}
EMPTY = ("Content-Length", "0")
MALFORMED = "Requests that break RFC 9110, 9112 or 3986 are answered 400."
TARGET = "A target in absolute form, or that of a CONNECT, reaches the service in origin form, its host in Host."
TRAILERS = "Trailers are dropped, in both directions."
TIDIED = "Answers that break RFC 9112 are tidied, or become 502."
OWN = "httpd takes part in what concerns proxies: Max-Forwards, Proxy-Authenticate and Warning."

DIFFERENCES: dict[str, Difference] = {
    **_same(
        MALFORMED,
        {"httpd answers": "400 Bad Request"},
        *(f"target {target}" for target in ("/100%", "/%zz", "/%u1234", "/../x", "/%2e%2e/x", "/a/../../x")),
        "target with a fragment",
        "HTTP/1.1 without host",
        "two hosts",
        "odd host",
        "space in a header's name",
        "space before the colon",
        "bytes in a header's name",
        "control character in a header",
        "space in the path",
        "another transfer coding",
        "bare line feeds",
    ),
    "an unknown expectation": Difference(
        "An expectation other than 100-continue is answered 417.", {"httpd answers": "417 Expectation Failed"}
    ),
    "target * OPTIONS": Difference("OPTIONS * is answered by httpd.", {"httpd answers": "200 OK"}),
    "method TRACE": Difference("TRACE is answered 405.", {"httpd answers": "405 Method Not Allowed"}),
    "method CONNECT": Difference(
        TARGET, {"request line": "CONNECT / HTTP/1.1", **_arrives("method CONNECT", host=f"{HOST}:80")}
    ),
    "absolute form": Difference(TARGET, {"request line": "GET /a%2Fb//c?d HTTP/1.1"}),
    "absolute form of another host": Difference(
        TARGET, {"request line": "GET /x HTTP/1.1", **_arrives("absolute form of another host", host="other.test")}
    ),
    "folded header": Difference("Folded headers are unfolded.", _arrives("folded header", ("X-Folded", "a b"))),
    "request trailers": Difference(TRAILERS, {"request body": Body(b"one", 3)}),
    "response trailers": Difference(TRAILERS, ONE),
    "via and forwards": Difference(
        OWN,
        _arrives("via and forwards", ("Via", "1.1 a"), ("Max-Forwards", "4"), ("Origin", "http://o.test")),
    ),
    "proxy authenticate": Difference(OWN, _comes_back(EMPTY)),
    "warning": Difference(OWN, _comes_back(EMPTY, ("Age", "5"), ("Via", "1.1 inner"), ("Warning", '110 - "old"'))),
    "time of another zone": Difference(
        "Date, Expires and Last-Modified are written anew in the form of RFC 9110; another zone than GMT is lost.",
        _comes_back(EMPTY, ("Last-Modified", "Thu, 01 Jan 1970 01:00:00 GMT")),
    ),
    "HEAD with length 0": Difference("An answer to HEAD loses a Content-Length of 0.", _comes_back()),
    "no reason and no space": Difference(TIDIED, {"status": "HTTP/1.1 200 "}),
    "folded response header": Difference(TIDIED, _comes_back(("X-A", "a b"), ("Content-Length", "2"))),
    "response with length and chunks": Difference(TIDIED, _comes_back()),
    "two lengths": Difference(TIDIED, _comes_back(("Content-Length", "4"))),
    "bare line feeds in a response": Difference(
        TIDIED, {"status": "HTTP/1.1 200 OK", **_comes_back(("Content-Length", "2"))}
    ),
    "bad length": Difference(TIDIED, {"httpd answers": "502 Bad Gateway"}),
    "not HTTP": Difference(TIDIED, {"status": "HTTP/1.1 200 OK", "body": Body(b"SSH-2.0-x\r\n", len("SSH-2.0-x\r\n"))}),
    "no answer": Difference(
        "Where a VM closes the connection without an answer, httpd says 502.", {"httpd answers": "502 Proxy Error"}
    ),
}
