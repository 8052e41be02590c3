"""Who may change what: cookies, CSRF tokens, origins, limits and headers, at a small application behind the guard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from luban_app import security
from luban_app.frame.sessions import COOKIE, is_cookie, is_session, new_session
from luban_app.house.records import StoreUnavailableError
from luban_app.security import CSRF_FIELD, MAX_BODY_BYTES, Guard, Keys

SECRET = b"s" * 32
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def secret() -> bytes:
    return SECRET


async def who(request: Request) -> Response:
    visitor = await security.visitor(request)
    again = await security.visitor(request)
    assert visitor is again
    return JSONResponse({"session": visitor.session, "csrf": visitor.csrf, "fresh": visitor.fresh})


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


async def change(request: Request) -> Response:
    return JSONResponse(await security.form(request))


async def look(request: Request) -> Response:
    return JSONResponse(await security.fields_of(request))


async def program(request: Request) -> Response:
    security.require_same_origin(request)
    security.require_json(request)
    return Response(await security.body_of(request))


async def kept(_request: Request) -> Response:
    return PlainTextResponse("x", headers={"Cache-Control": "public", "Referrer-Policy": "no-referrer"})


def application(guard: Guard) -> Starlette:
    routes = [
        Route("/who", who),
        Route("/plain", plain),
        Route("/kept", kept),
        Route("/change", change, methods=["POST"]),
        Route("/look", look, methods=["POST"]),
        Route("/program", program, methods=["POST", "GET"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(guard.wrap)])


def client_of(guard: Guard, base_url: str = "http://vm") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=application(guard)), base_url=base_url)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(Guard(secret)) as client:
        yield client


# Sessions.


async def test_a_session_begins_with_a_signed_cookie_and_stays(client: httpx.AsyncClient) -> None:
    first = await client.get("/who")
    morsel = SimpleCookie(first.headers["set-cookie"])[COOKIE]
    assert is_cookie(morsel.value)
    assert not is_session(morsel.value)
    assert morsel.value.startswith(first.json()["session"] + ".")
    assert morsel["httponly"] is True
    assert (morsel["samesite"], morsel["path"], morsel["secure"]) == ("Lax", "/", "")
    assert int(morsel["max-age"]) > 30 * 24 * 3600
    second = await client.get("/who")
    assert "set-cookie" not in second.headers
    assert second.json() == first.json() | {"fresh": False}


async def test_a_session_begins_only_where_somebody_asks_for_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/plain")
    assert "set-cookie" not in answer.headers


def forgeries() -> list[str]:
    session = new_session()
    good, other = Keys(SECRET).cookie(session), Keys(b"t" * 32).cookie(session)
    name, _, signature = good.partition(".")
    later = Keys(SECRET, lambda: time.time() + 5).cookie(session).split(".")[1]
    return [
        session,
        other,
        f"{name}.",
        f"{name}.{signature[:-1]}",
        f"{new_session()}.{signature}",
        f"{name}.{'A' * len(signature)}",
        "." + signature,
        "x" * 5000,
        '"' + good,
        good + ".x",
        "é",
        ".".join((name, later, signature.partition(".")[2])),
    ]


@pytest.mark.parametrize("number", range(len(forgeries())))
async def test_a_cookie_that_we_did_not_sign_is_replaced(client: httpx.AsyncClient, number: int) -> None:
    forged = forgeries()[number]
    answer = await client.get("/who", headers={"Cookie": f"{COOKIE}={forged}".encode()})
    assert answer.json()["fresh"]
    assert answer.json()["session"] not in forged
    assert COOKIE in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("base_url", "headers", "always", "secure"),
    [
        ("http://vm", {}, False, False),
        ("https://vm", {}, False, True),
        ("http://vm", {"X-Forwarded-Proto": "https"}, False, True),
        ("http://vm", {"X-Forwarded-Proto": "http"}, False, False),
        ("http://vm", {}, True, True),
    ],
)
async def test_the_cookie_is_secure_where_the_visitor_came_by_https(
    base_url: str, headers: dict[str, str], always: bool, secure: bool
) -> None:
    async with client_of(Guard(secret, always_secure=always), base_url) as client:
        answer = await client.get("/who", headers=headers)
    assert ("; Secure" in answer.headers["set-cookie"]) is secure


async def test_over_https_the_cookie_has_a_name_that_no_plain_page_can_set() -> None:
    async with client_of(Guard(secret), "https://vm") as client:
        planted = Keys(SECRET).cookie(new_session())
        answer = await client.get("/who", headers={"Cookie": f"{COOKIE}={planted}"})
        assert answer.json()["fresh"]
        assert answer.headers["set-cookie"].startswith("__Host-luban_session=")
        again = await client.get("/who", headers={"Cookie": answer.headers["set-cookie"].split(";")[0]})
    assert again.json() == answer.json() | {"fresh": False}


class Days:
    """A clock that is set by the day."""

    def __init__(self) -> None:
        self.day = 20_000.0

    def __call__(self) -> float:
        return self.day * 24 * 3600


async def others_turn() -> None:
    """Let tasks that wait for nothing go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_cookie_is_made_again_while_its_owner_keeps_coming() -> None:
    now, touched = Days(), []

    async def touch(session: str) -> None:
        touched.append(session)

    async with client_of(Guard(secret, now=now, touch=touch)) as client:
        session = (await client.get("/who")).json()["session"]
        for day, made_again in (
            (29, False),
            (2, True),
            (29, False),
            (security.AWAY_DAYS, True),
            (179, True),
            (1, False),
        ):
            now.day += day
            answer = await client.get("/who")
            assert answer.json()["session"] == session
            assert ("set-cookie" in answer.headers) is made_again, now.day
            await others_turn()
        assert touched == [session] * 3
        now.day += 181
        gone = (await client.get("/who")).json()
    assert gone["fresh"]
    assert gone["session"] != session
    assert touched == [session] * 3


@pytest.mark.parametrize("seconds", [0.8, 45, 24 * 3600])
async def test_vms_whose_clocks_differ_know_each_others_visitors(seconds: float) -> None:
    now = Days()
    async with client_of(Guard(secret, now=now)) as client:
        first = (await client.get("/who")).json()
        now.day -= seconds / (24 * 3600)
        second = await client.get("/who")
    assert second.json() == first | {"fresh": False}
    assert "set-cookie" not in second.headers


async def test_nobody_waits_for_a_store_that_is_told_of_a_cookie() -> None:
    now, told, held = Days(), [], asyncio.Event()

    async def touch(session: str) -> None:
        told.append(session)
        await held.wait()
        raise StoreUnavailableError("locked")

    guard = Guard(secret, now=now, touch=touch)
    async with client_of(guard) as one, client_of(guard) as other:
        sessions = [(await client.get("/who")).json()["session"] for client in (one, other)]
        now.day += 31
        assert "set-cookie" in (await one.get("/who")).headers
        # One at a time: the store may be slow for all of them.
        assert "set-cookie" not in (await other.get("/who")).headers
        held.set()
        await others_turn()
        # In trouble, it is left alone for a minute.
        assert "set-cookie" not in (await other.get("/who")).headers
        now.day += 61 / (24 * 3600)
        answer = await other.get("/who")
        assert "set-cookie" in answer.headers
        assert answer.json()["session"] == sessions[1]
        await others_turn()
        assert told == sessions


async def test_vms_with_the_same_secret_know_each_others_visitors(client: httpx.AsyncClient) -> None:
    here = (await client.get("/who")).json()
    async with client_of(Guard(secret)) as other:
        there = (await other.get("/who", headers={"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"})).json()
    assert there == here | {"fresh": False}


async def test_without_the_database_there_is_no_visitor_and_no_cookie() -> None:
    async def lost() -> bytes:
        raise StoreUnavailableError("away")

    async with client_of(Guard(lost)) as client:
        assert (await client.get("/plain")).status_code == 200
        with pytest.raises(StoreUnavailableError):
            await client.get("/who")


# CSRF.


async def token(client: httpx.AsyncClient) -> str:
    return str((await client.get("/who")).json()["csrf"])


async def test_a_form_of_our_own_page_is_taken_without_its_token(client: httpx.AsyncClient) -> None:
    fields = {CSRF_FIELD: await token(client), "name": "家 & garden", "empty": ""}
    answer = await client.post("/change", data=fields)
    assert answer.status_code == 200
    assert answer.json() == {"name": "家 & garden", "empty": ""}


async def test_a_form_without_the_sessions_token_is_refused(client: httpx.AsyncClient) -> None:
    good = await token(client)
    for wrong in ("", "x", good[:-1], good + "x", good.swapcase(), "\udfff".encode("utf-8", "surrogatepass"), "家"):
        assert (await client.post("/change", data={CSRF_FIELD: wrong})).status_code in {400, 403}
    assert (await client.post("/change", data={"name": "x"})).status_code == 403
    async with client_of(Guard(secret)) as other:
        theirs = await token(other)
    assert (await client.post("/change", data={CSRF_FIELD: theirs})).status_code == 403


async def test_a_form_without_a_session_is_refused(client: httpx.AsyncClient) -> None:
    good = await token(client)
    client.cookies.clear()
    assert (await client.post("/change", data={CSRF_FIELD: good})).status_code == 403


@pytest.mark.parametrize("path", ["/change", "/program"])
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://vm"}, True),
        ({"Origin": "http://VM"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://vm.evil.example"}, False),
        ({"Origin": "http://vm:81"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://[vm"}, False),
        ({"Origin": "https://shop.example", "X-Forwarded-Host": "shop.example"}, True),
        ({"Origin": "https://evil.example", "X-Forwarded-Host": "shop.example"}, False),
    ],
)
async def test_a_change_must_come_from_our_own_pages_or_from_a_program(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], allowed: bool
) -> None:
    sent: dict[str, Any] = {"data": {CSRF_FIELD: await token(client)}} if path == "/change" else {"json": {}}
    answer = await client.post(path, headers=headers, **sent)
    assert (answer.status_code == 200) is allowed
    assert allowed or answer.status_code == 403


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("APPLICATION/JSON", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("text/plain; application/json", 415),
        ("", 415),
    ],
)
async def test_a_program_sends_json_and_says_so(client: httpx.AsyncClient, kind: str, status: int) -> None:
    answer = await client.post("/program", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == status


# Limits.


async def test_a_body_may_have_64_kib_and_no_byte_more(client: httpx.AsyncClient) -> None:
    kind = {"Content-Type": "application/json"}
    assert (await client.post("/program", content=b"x" * MAX_BODY_BYTES, headers=kind)).status_code == 200
    assert (await client.post("/program", content=b"x" * (MAX_BODY_BYTES + 1), headers=kind)).status_code == 413


async def test_a_body_without_a_length_is_stopped_where_it_gets_too_long(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b"x" * 8192

    answer = await client.post("/program", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert sent < 12


async def test_a_body_that_announces_too_much_is_not_read(client: httpx.AsyncClient) -> None:
    for length in (str(MAX_BODY_BYTES + 1), "9" * 5000):
        headers = {"Content-Type": "application/json", "Content-Length": length}
        request = client.build_request("POST", "/program", content=b"x", headers=headers)
        assert (await client.send(request)).status_code == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"a=1&b=2", 200),
        (b"&".join(b"f%d=1" % number for number in range(security.MAX_FIELDS)), 200),
        (b"&".join(b"f%d=1" % number for number in range(security.MAX_FIELDS + 1)), 400),
        (b"a=" + b"x" * security.MAX_FIELD_LENGTH, 200),
        (b"a=" + b"x" * (security.MAX_FIELD_LENGTH + 1), 413),
        (b"x" * (security.MAX_FIELD_LENGTH + 1) + b"=1", 413),
        (b"a=%ff", 400),
        (b"a=%ed%a0%80", 400),
        ("a=家".encode(), 400),
        (b"\xff\xfe", 400),
        (b"a=%", 200),
        (b"=&=&==", 200),
        (b"", 200),
    ],
)
async def test_a_form_is_bounded_and_well_formed(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    assert (await client.post("/look", content=body, headers=FORM)).status_code == status


async def test_other_kinds_of_form_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/look", files={"name": b"x"})).status_code == 415
    assert (await client.post("/look", json={})).status_code == 415
    assert (await client.post("/look")).status_code == 415


# Headers.


async def test_every_answer_has_the_headers_that_keep_a_browser_safe(client: httpx.AsyncClient) -> None:
    for path in ("/who", "/plain", "/nothing"):
        headers = (await client.get(path)).headers
        policy = dict(one.strip().split(" ", 1) for one in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


async def test_what_is_one_visitors_alone_is_kept_nowhere(client: httpx.AsyncClient) -> None:
    assert (await client.get("/who")).headers["cache-control"] == "no-store"
    assert "cache-control" not in (await client.get("/plain")).headers


async def test_a_handlers_own_headers_stay(client: httpx.AsyncClient) -> None:
    headers = (await client.get("/kept")).headers
    assert headers.get_list("cache-control") == ["public"]
    assert headers.get_list("referrer-policy") == ["no-referrer"]
