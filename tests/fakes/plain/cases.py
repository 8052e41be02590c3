"""HTTP cases: requests as bytes, and what the service answers.

Each is sent straight to a plain service and through the balancer; tests/integration/test_http_conformance.py compares.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fakes.plain.service import CASE, OK, Play, continuing, plainly, says
from tests.fakes.plain.wire import chunk, message

HOST = "shop.test"
CLOSE = ("Connection", "close")
BOTH = [("Content-Length", "3"), ("Transfer-Encoding", "chunked")]
TEXT = ("Content-Type", "text/plain")


@dataclass(frozen=True)
class Case:
    """One request and the play that answers it."""

    name: str
    request: bytes
    play: Play = plainly
    method: str = "GET"


def request(
    name: str,
    method: str = "GET",
    target: str = "/",
    *headers: tuple[str, str],
    body: bytes | None = None,
    version: str = "1.1",
    host: str = HOST,
) -> bytes:
    """A request of a case. It closes its connection unless headers say otherwise."""
    lines = [("Host", host)] if host else []
    lines += [(CASE, name), *headers]
    if body is not None:
        lines.append(("Content-Length", str(len(body))))
    if not any(key == "Connection" for key, _ in headers):
        lines.append(("Connection", "close"))
    return message(f"{method} {target} HTTP/{version}", lines, body or b"")


def case(
    name: str,
    method: str = "GET",
    target: str = "/",
    *headers: tuple[str, str],
    body: bytes | None = None,
    version: str = "1.1",
    host: str = HOST,
    play: Play = plainly,
) -> Case:
    """A case with a request made by `request`."""
    sent = request(name, method, target, *headers, body=body, version=version, host=host)
    return Case(name, sent, play, method)


def answered(name: str, *pieces: bytes, method: str = "GET", pause: float = 0.0, keep: bool = True) -> Case:
    """A plain request with a certain answer."""
    return case(name, method, play=says(*pieces, pause=pause, keep=keep))


def reply(status: str, *headers: tuple[str, str], body: bytes = b"") -> bytes:
    """An answer with its length."""
    return message(f"HTTP/1.1 {status}", [("Content-Length", str(len(body))), *headers], body)


METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "REPORT", "QUERY", "PURGE"),
    *("get", "X-METHOD", "M-SEARCH", "a!#$%&'*+-.^_`|~0"),
)
TARGETS = (
    *("/", "/a/b.html", "/a%2Fb", "/a%2fb", "/%2F", "/a%3Bb", "/a;b", "/a;v=1/b;w=2", "/a//b", "//", "//a//b//"),
    *("/x/http://example.test/y", "/http:%2F%2Fexample.test", "/a%5Cb", "/a\\b", "/a%20b", "/a+b", "/a%2Bb", "/a%25b"),
    *("/a%252Fb", "/%7Ea/~b", "/%41bc", "/%C3%A4", "/%E4", "/%FF%FE", "/%e4%f6", "/a:b@c", "/a%3Fb", "/a%23b"),
    *("/a%0Ab", "/a%0D%0Ab", "/a%00b", "/a%7Fb", "/.", "/a/.", "/a/./b", "/a/../b", "/a/..", "/a/%2e/b", "/a/%2E%2E/b"),
    *("/a/..%2Fb", "/...", "/.a", "/a/..;/b", "/*", "/a*b(c)!$&',=@", '/"quoted"', "/<a>", "/{b}", "/a|b", "/^", "/`"),
    *("/?", "/??", "/?a", "/?a=b&c=d", "/?a=%2F%3B%00%0A%zz", "/?//http://x/../y", "/?a?b", '/?\\"<>{}|^`'),
    *("/a?b=/../c", "/?!$&'()*+,;=:@/?-._~%20", "/?%C3%A4%E4", "/a/?b/", "/balancer-manager", "/server-status"),
    *("/" + "p" * 7000, "/?" + "q" * 7000, "/" + "d/" * 3000, "/" + "%2F" * 2000),
    *("/.well-known/x", "/cgi-bin/x", "/icons/", "/~user/", "/index.html", "/error/"),
)


def methods() -> Iterator[Case]:
    """Every method, with and without a body."""
    for method in METHODS:
        yield case(f"method {method}", method)
        yield case(f"method {method} with body", method, "/", TEXT, body=b"a=1")
        yield case(f"method {method} with empty body", method, body=b"")
    yield case("method TRACE", "TRACE")
    yield case("method CONNECT", "CONNECT", "shop.test:80")


def targets() -> Iterator[Case]:
    """Every kind of path and query."""
    for number, target in enumerate(TARGETS):
        yield case(f"target {number} {target[:40]}", "GET", target)
    yield case("target with a fragment", "GET", "/?a=b#c")
    yield case("target * OPTIONS", "OPTIONS", "*")
    for target in ("/100%", "/%zz", "/%u1234", "/../x", "/%2e%2e/x", "/a/../../x"):
        yield case(f"target {target}", "GET", target)


def bodies() -> Iterator[Case]:
    """Request bodies by length and in chunks, with and without an expectation, to services of both kinds."""
    chunked = ("Transfer-Encoding", "chunked")
    expect = ("Expect", "100-continue")
    for name, play in (("a service that continues", continuing), ("a service that does not", plainly)):
        for size in (0, 1, 5000, 20_000, 1_000_000):
            body = bytes(range(256)) * (size // 256 + 1)
            yield case(f"{size} bytes to {name}", "POST", body=body[:size], play=play)
            yield case(f"{size} bytes, expecting, to {name}", "POST", "/", expect, body=body[:size], play=play)
        raw = request(f"chunks to {name}", "POST", "/", chunked)
        yield Case(f"chunks to {name}", raw + chunk(b"one") + chunk(b"two" * 9000) + chunk(b""), play, "POST")
    empty = request("no chunks", "POST", "/", chunked)
    yield Case("no chunks", empty + chunk(b""), method="POST")
    extended = request("chunk extensions", "POST", "/", chunked)
    yield Case("chunk extensions", extended + b"3;a=b\r\none\r\n0;c\r\n\r\n", method="POST")
    trailing = request("request trailers", "POST", "/", chunked, ("Trailer", "X-Sum"))
    yield Case("request trailers", trailing + chunk(b"one") + b"0\r\nX-Sum: 5\r\n\r\n", method="POST")
    yield case("body of a GET", "GET", "/", body=b"body")
    yield case("body of a DELETE", "DELETE", "/", body=b"body")
    yield case("an unknown expectation", "POST", "/", ("Expect", "something"), body=b"body")


def versions() -> Iterator[Case]:
    """HTTP/1.0, and hosts."""
    yield case("HTTP/1.0", version="1.0")
    yield case("HTTP/1.0 kept", "GET", "/", ("Connection", "keep-alive"), version="1.0")
    yield case("HTTP/1.0 without host", version="1.0", host="")
    yield case("HTTP/1.0 POST", "POST", version="1.0", body=b"body")
    yield case("host with port", host="shop.test:8080")
    yield case("host in capitals", host="Shop.TEST")
    yield case("host is an address", host="127.0.0.1")
    yield case("host is an IPv6 address", host="[::1]:80")
    yield case("absolute form", "GET", f"http://{HOST}/a%2Fb//c?d")
    yield case("absolute form of another host", "GET", "http://other.test/x")


def request_headers() -> Iterator[Case]:
    """Headers of requests."""
    yield case("a header twice", "GET", "/", ("X-A", "1"), ("X-B", "2"), ("X-A", "3"))
    yield case("cookies", "GET", "/", ("Cookie", "a=1; b=2; $x"))
    yield case("cookies in two headers", "GET", "/", ("Cookie", "a=1"), ("Cookie", "b=2"))
    yield case("empty header", "GET", "/", ("X-Empty", ""))
    yield case("odd names", "GET", "/", ("x-LOWER", "1"), ("X_Under", "2"), ("!#$%&'*+-.^`|~9", "3"))
    yield case("obs-text", "GET", "/", ("X-Obs", "\xe4\xff\x80"))
    yield case("tab and spaces", "GET", "/", ("X-Tab", "a\tb  c"))
    yield case("long header", "GET", "/", ("X-Long", "v" * 8000))
    yield case("90 headers", "GET", "/", *((f"X-{number}", str(number)) for number in range(90)))
    yield case("authorization", "GET", "/", ("Authorization", "Basic YTpi"), ("Proxy-Authorization", "Basic YTpi"))
    yield case(
        "conditions", "GET", "/", ("If-None-Match", '"a"'), ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")
    )
    yield case("range", "GET", "/", ("Range", "bytes=0-0"))
    yield case("accepts", "GET", "/", ("Accept", "*/*"), ("Accept-Encoding", "gzip, br"), ("Accept-Language", "de"))
    yield case("via and forwards", "GET", "/", ("Via", "1.1 a"), ("Max-Forwards", "5"), ("Origin", "http://o.test"))
    yield case(
        "hop by hop",
        "GET",
        "/",
        ("Connection", "close, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "5"),
        ("TE", "trailers"),
    )
    yield Case("host last", message("GET / HTTP/1.1", [(CASE, "host last"), ("X-A", "1"), ("Host", HOST), CLOSE]))
    yield Case("folded header", request("folded header", "GET", "/", ("X-Folded", "a\r\n b")))
    yield case("another upgrade", "GET", "/", ("Connection", "Upgrade"), ("Upgrade", "h2c"))


def malformed() -> Iterator[Case]:
    """Requests that break RFC 9112, and that some services take."""
    yield case("HTTP/1.1 without host", host="")
    yield case("two hosts", "GET", "/", ("Host", "other.test"))
    yield case("odd host", host="a_b!.test")
    yield case("space in a header's name", "GET", "/", ("X A", "1"))
    yield case("space before the colon", "GET", "/", ("X-A ", "1"))
    yield case("bytes in a header's name", "GET", "/", ("X-\xe4", "1"))
    yield case("control character in a header", "GET", "/", ("X-A", "a\x01b"))
    yield case("HTTP/1.9", version="1.9")
    yield case("HTTP/3.0", version="3.0")
    yield case("space in the path", "GET", "/a b")
    yield case("bytes in the path", "GET", "/\xc3\xa4\xe4")
    name = "length and chunks"
    both = request(name, "POST", "/", ("Transfer-Encoding", "chunked"), ("Content-Length", "3"))
    yield Case(name, both + chunk(b"one") + chunk(b""), method="POST")
    yield case("another transfer coding", "POST", "/", ("Transfer-Encoding", "gzip"), body=b"")
    name = "bare line feeds"
    yield Case(name, request(name).replace(b"\r\n", b"\n", 1))
    name = "empty lines before a request"
    yield Case(name, b"\r\n\r\n" + request(name))


def statuses() -> Iterator[Case]:
    """Statuses and what belongs to them."""
    for status in (200, 201, 202, 203, 206, 207, 226, 299, 300, 400, 401, 403, 404, 405, 408, 409, 410, 411, 412, 413):
        yield answered(f"status {status}", reply(f"{status} Reason", TEXT, body=b"body"))
    for status in (414, 415, 416, 417, 418, 421, 422, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505):
        yield answered(f"status {status}", reply(f"{status} Reason", TEXT, body=b"body"))
    for status in (506, 507, 508, 511, 599):
        yield answered(f"status {status}", reply(f"{status} Reason", TEXT, body=b"body"))
    for status in (301, 302, 303, 307, 308):
        where = ("Location", "http://127.0.0.1:8080/a%2Fb//?c=http://x/")
        yield answered(f"redirect {status}", reply(f"{status} Found", where, body=b"there"))
    yield answered("relative redirect", reply("302 Found", ("Location", "../x?y#z")))
    yield answered("no reason", reply("200 "))
    yield answered("own reason", reply("200 All is well, indeed"))
    yield answered("204", message("HTTP/1.1 204 No Content", [("X-A", "1")]))
    yield answered("205", reply("205 Reset Content"))
    entity = [("ETag", '"a"'), ("Cache-Control", "no-cache"), ("Vary", "Accept"), ("X-Own", "1"), ("Set-Cookie", "a=1")]
    yield answered("304", message("HTTP/1.1 304 Not Modified", entity))
    yield answered("503 with Retry-After", reply("503 Busy", ("Retry-After", "7"), body=b"busy"))
    yield answered(
        "401 with a challenge", reply("401 Who", ("WWW-Authenticate", "Basic"), ("WWW-Authenticate", "Digest"))
    )


def response_headers() -> Iterator[Case]:
    """Headers of responses."""
    several = [("Set-Cookie", f"c{number}=1; Path=/") for number in (3, 1, 2)]
    yield answered("cookies set in order", reply("200 OK", *several))
    yield answered("response headers in order", reply("200 OK", ("X-B", "1"), ("X-A", "2"), ("X-B", "3")))
    yield answered("server and date", reply("200 OK", ("Server", "plain/1"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT")))
    yield answered(
        "hop by hop in a response", reply("200 OK", ("Connection", "X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "a"))
    )
    yield answered("response obs-text", reply("200 OK", ("X-Obs", "\xe4\xff")))
    yield answered("response with an empty header", reply("200 OK", ("X-Empty", "")))
    yield answered("response with a long header", reply("200 OK", ("X-Long", "v" * 7000)))
    yield answered("response with 200 headers", reply("200 OK", *((f"X-{n}", str(n)) for n in range(200))))
    yield answered("response types", reply("200 OK", ("Content-Type", "text/html"), ("Content-Disposition", "inline")))
    yield answered("no content type", reply("200 OK", body=b"<html>"))
    yield answered(
        "security headers", reply("200 OK", ("Content-Security-Policy", "default-src"), ("Link", "<a>; rel=b"))
    )
    packed = gzip.compress(b"packed" * 100, mtime=0)
    yield answered("times", reply("200 OK", ("Expires", "0"), ("Last-Modified", "Thu, 01-Jan-70 00:00:00 GMT")))
    yield answered("time of another zone", reply("200 OK", ("Last-Modified", "Thu, 01 Jan 1970 01:00:00 +0100")))
    yield answered("warning", reply("200 OK", ("Warning", '110 - "old"'), ("Age", "5"), ("Via", "1.1 inner")))
    yield answered("proxy authenticate", reply("200 OK", ("Proxy-Authenticate", "Basic"), ("Upgrade", "h2c")))
    yield answered("gzip", reply("200 OK", ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"), body=packed))
    part = reply("206 Partial Content", ("Content-Range", "bytes 0-0/4"), ("Accept-Ranges", "bytes"), body=b"b")
    yield case("range answered", "GET", "/", ("Range", "bytes=0-0"), play=says(part))
    whole = reply("200 OK", ("Accept-Ranges", "bytes"), ("ETag", '"a"'), body=b"body")
    yield case("range not answered", "GET", "/", ("Range", "bytes=0-0"), play=says(whole))
    yield case("condition not answered", "GET", "/", ("If-None-Match", '"a"'), play=says(whole))


def framings() -> Iterator[Case]:
    """Ways to end a response, and to send it."""
    chunked = message("HTTP/1.1 200 OK", [("Transfer-Encoding", "chunked")])
    yield answered("chunks", chunked + chunk(b"one") + chunk(b"two") + chunk(b""))
    yield answered(
        "chunks in small packets", *(bytes([byte]) for byte in chunked + chunk(b"one") + chunk(b"")), pause=0.001
    )
    yield answered("length in small packets", *(bytes([byte]) for byte in OK), pause=0.001)
    yield answered("response trailers", chunked + chunk(b"one") + b"0\r\nX-Sum: 5\r\n\r\n")
    yield answered("until close", message("HTTP/1.1 200 OK", [TEXT], b"body"), keep=False)
    yield answered("HTTP/1.0 until close", message("HTTP/1.0 200 OK", [TEXT], b"body"), keep=False)
    yield answered("HTTP/1.0 with length", message("HTTP/1.0 200 OK", [("Content-Length", "4")], b"body"), keep=False)
    yield answered("empty", reply("200 OK"))
    yield answered("a body of a million bytes", reply("200 OK", body=bytes(range(250)) * 4000))
    yield answered("HEAD with length", message("HTTP/1.1 200 OK", [("Content-Length", "1234")]), method="HEAD")
    yield answered("HEAD with no length", message("HTTP/1.1 200 OK", [("X-A", "1")]), method="HEAD")
    yield answered("HEAD with length 0", message("HTTP/1.1 200 OK", [("Content-Length", "0")]), method="HEAD")
    yield answered("HEAD chunked", chunked, method="HEAD")
    yield answered("early hints", message("HTTP/1.1 103 Early Hints", [("Link", "</a>; rel=preload")]) + OK)
    yield answered("processing", message("HTTP/1.1 102 Processing") + message("HTTP/1.1 102 Processing") + OK)
    yield answered("continue that nobody asked for", b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    yield answered("status 999", reply("999 Beyond", body=b"body"))
    yield answered("status 600", reply("600 Beyond", body=b"body"))
    yield answered("no reason and no space", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok")
    yield answered("folded response header", b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok")
    yield answered("response with length and chunks", message("HTTP/1.1 200 OK", BOTH) + chunk(b"one") + chunk(b""))
    yield answered("two lengths", reply("200 OK", ("Content-Length", "4"), body=b"body"))
    yield answered("bad length", message("HTTP/1.1 200 OK", [("Content-Length", "x")], b"body"), keep=False)
    yield answered("bare line feeds in a response", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok")
    yield answered("cut in its length", message("HTTP/1.1 200 OK", [("Content-Length", "9")], b"body"), keep=False)
    yield answered("cut in its chunks", chunked + chunk(b"one"), keep=False)
    yield answered("no answer", keep=False)
    yield answered("not HTTP", b"SSH-2.0-x\r\n\r\n", keep=False)


def all_cases() -> list[Case]:
    """All of them."""
    groups = (methods, targets, bodies, versions, request_headers, malformed, statuses, response_headers, framings)
    return [one for group in groups for one in group()]
