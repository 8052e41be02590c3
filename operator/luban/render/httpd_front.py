"""The virtual host that clients talk to: what of a request and its answer is passed on, and how."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from luban.render.balancer import BalancerSettings
from luban.render.hidden_path import hidden_path

BALANCER = "vms"
"""Name of the balancer inside httpd: balancer://vms."""

_FORWARDED = ("For", "Host", "Port", "Prefix", "Proto", "Scheme", "Server", "Ssl", "User")
_CLAIMS = (
    "Forwarded",
    *(f"X-Forwarded-{what}" for what in _FORWARDED),
    "X-Real-IP",
)
"""Headers by which proxies tell services about clients. From clients themselves they are claims."""


def front_lines(settings: BalancerSettings, key: str = "", request_log: str = "") -> list[str]:
    """Lines of the virtual host. With a key sessions are signed, with the path of a log requests are written there."""
    return [
        "ServerName balancer.invalid",
        # VMs must see the name that the client asked for, not the slot's.
        "ProxyPreserveHost On",
        "RequestHeader unset Proxy early",
        # What a client says of itself; mod_proxy then adds For, Host and Server as they are.
        *(f"RequestHeader unset {name} early" for name in _spellings(_CLAIMS)),
        *_sticky(settings.sticky_cookie, key),
        *(_request_log(request_log) if request_log else []),
        *_as_sent(settings),
        *hidden_path(settings.metrics_path),
        # ^/ and no path behind the balancer: with ProxyPass / several slashes at the beginning would become one.
        f'ProxyPassMatch "^/" balancer://{BALANCER} nocanon mapping=encoded',
    ]


def _as_sent(settings: BalancerSettings) -> list[str]:
    """What keeps httpd from changing or refusing what the service would take; docs/http.md has what remains."""
    return [
        "MergeSlashes Off",
        # The service decides how much it takes.
        "LimitRequestBody 0",
        # The service's whole answer to a Range that it does not know stays whole.
        "MaxRanges none",
        # A service that never says 100 Continue gets the body all the same: httpd says it.
        f"Proxy100Continue {'On' if settings.expect_continue == 'Forward' else 'Off'}",
        # The service hears of a request as soon as its head is there, not when 16 kB of its body are.
        "SetEnv proxy-prefetch-nonblocking 1",
    ]


def _spellings(names: Iterable[str]) -> Iterator[str]:
    """Header names, also with the underscores that CGI and WSGI servers take for hyphens."""
    for name in names:
        first, *rest = name.split("-")
        for joints in itertools.product("-_", repeat=len(rest)):
            yield first + "".join(map("".join, zip(joints, rest, strict=True)))


def sticky_session(cookie: str) -> str:
    """Parameter of the balancer that binds clients by a cookie, behind a space. Empty for no cookie.

    What stands behind the bar is a parameter of URLs that would bind them too, and go before the cookie; no URL has one
    whose name is a space.
    """
    return f' "stickysession={cookie}| "' if cookie else ""


def _sticky(cookie: str, key: str) -> list[str]:
    """Set the cookie whenever the member that answers is not the one that the client's cookie names.

    With a key the cookie is signed, and set anew also where it is not one of ours: see docs/decisions.
    """
    if not cookie:
        return []
    signature, condition = ("", "env=BALANCER_ROUTE_CHANGED")
    if key:
        signature = "~%{LUBAN_SIGNATURE}e"
        condition = "\"expr=-n reqenv('BALANCER_ROUTE_CHANGED') || -z reqenv('LUBAN_SESSION')\""
    return [
        *(_signatures(cookie, key) if key else []),
        f'Header add Set-Cookie "{cookie}=%{{UNIQUE_ID}}e{signature}.%{{BALANCER_WORKER_ROUTE}}e; Path=/; HttpOnly; '
        f'SameSite=Lax" {condition}',
    ]


def _signatures(cookie: str, key: str) -> list[str]:
    """Note the signature of a cookie that may be set, and the session of the one that came, if its signature is right.

    What is signed has letters, digits, @, - and _ alone, so that nobody can continue it without the key.
    """
    value = f"m#(?:^|[;, ]){cookie}=([A-Za-z0-9@_-]+)~([0-9a-f]{{40}})\\.#"
    return [
        # Within a Location they are looked at late enough for mod_unique_id to have spoken.
        '<Location "/">',
        f"    SetEnvIfExpr \"sha1('{key}' . reqenv('UNIQUE_ID')) =~ m#^(.+)$#\" LUBAN_SIGNATURE=$1",
        f"    SetEnvIfExpr \"req_novary('Cookie') =~ {value} && sha1('{key}' . $1) == $2\" LUBAN_SESSION=$1",
        "</Location>",
    ]


def _request_log(path: str) -> list[str]:
    """A line for each request: second, member that answered, member of the cookie, session, client, and microseconds to
    the first byte of the answer. What there is not is a hyphen.

    It is written when the request has ended, and says when that was: a WebSocket may have begun hours before. How long
    all of an answer takes says more of the client and of what it reads than of the service.
    """
    members = "%{BALANCER_WORKER_ROUTE}e %{BALANCER_SESSION_ROUTE}e"
    return [
        "LogIOTrackTTFB On",
        f'LogFormat "%{{end:sec}}t {members} %{{LUBAN_SESSION}}e %a %^FB" luban_request',
        f'CustomLog "{path}" luban_request',
    ]
