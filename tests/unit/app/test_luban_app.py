"""The web service's frame: probes, sessions, metrics, load, logs, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from click.testing import CliRunner
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from luban_app import logs, server
from luban_app.frame.clock import SystemClock
from luban_app.frame.identity import vm_name
from luban_app.frame.middleware import Frame
from luban_app.frame.routes import Extension, create_app
from luban_app.frame.sessions import COOKIE, SessionWindow, is_session, new_session

VM = "vm-7"
APP = Path(__file__).parents[3] / "app"


class FakeClock:
    """Time that passes only where a handler lets it pass."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self.burnt: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    async def burn(self, seconds: float) -> None:
        self.burnt.append(seconds)
        self.time += seconds


async def breaks(_request: Request) -> PlainTextResponse:
    raise RuntimeError("broken on purpose")


async def named(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["name"])


EXTRA = [Route("/breaks", breaks), Mount("/things", routes=[Route("/{name}", named)])]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def app(clock: FakeClock) -> Frame:
    return create_app(VM, clock=clock, extension=Extension(routes=EXTRA), experiments=True)


def client_of(app: Frame) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://vm")


@pytest.fixture
async def client(app: Frame) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def metric(client: httpx.AsyncClient, name: str) -> float | None:
    """The value of a series, named as Prometheus prints it."""
    text = (await client.get("/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("HEAD", "/healthz", 200),
        ("OPTIONS", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("OPTIONS", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/work?seconds=1", 200),
        ("GET", "/work?seconds=many", 400),
        ("GET", "/nothing-here", 404),
        ("POST", "/healthz", 405),
        ("GET", "/breaks", 500),
    ],
)
async def test_every_response_names_the_vm(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.headers.get_list("X-Luban-VM") == [VM]


async def exchange(app: Frame, method: str, path: str, **headers: str) -> tuple[list[dict[str, Any]], int]:
    """One request as the server would pass it on: the messages sent, and how often the body was asked for."""
    sent: list[dict[str, Any]] = []
    reads = 0

    async def receive() -> dict[str, Any]:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append({**message, "reads before": reads})

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return sent, reads


async def test_the_question_about_the_whole_server_is_answered(app: Frame) -> None:
    sent, _ = await exchange(app, "OPTIONS", "*")
    assert sent[0]["status"] == 200
    assert (b"allow", b"GET, HEAD, OPTIONS") in sent[0]["headers"]
    assert (b"x-luban-vm", VM.encode()) in sent[0]["headers"]


async def test_a_balancer_that_waits_for_100_continue_gets_it_before_the_handler_runs(
    app: Frame, clock: FakeClock
) -> None:
    # uvicorn sends the interim response when the body is first read.
    sent, reads = await exchange(app, "GET", "/work", Expect="100-Continue")
    assert sent[0]["status"] == 200
    assert sent[0]["reads before"] == reads == 1
    assert clock.slept == [0.5]


async def test_a_body_is_not_asked_for_ahead_of_its_handler(app: Frame) -> None:
    _, reads = await exchange(app, "POST", "/work", Expect="100-continue")
    assert reads == 0
    _, reads = await exchange(app, "GET", "/work", **{"Expect": "100-continue", "Content-Length": "5"})
    assert reads == 0
    _, reads = await exchange(app, "GET", "/work")
    assert reads == 0


async def test_readiness_tells_what_is_missing(clock: FakeClock) -> None:
    async def fine() -> None:
        return

    async def unreachable() -> None:
        raise ConnectionError("the database does not answer")

    app = create_app(VM, clock=clock, extension=Extension(checks={"cache": fine, "database": unreachable}))
    async with client_of(app) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json() == {"ready": False, "failed": {"database": "the database does not answer"}}
        assert (await client.get("/healthz")).status_code == 200


async def test_work_takes_the_time_that_it_was_asked_to(client: httpx.AsyncClient, clock: FakeClock) -> None:
    response = await client.get("/work", params={"seconds": "2", "cpu": "0.5"})
    assert response.json() == {"vm": VM, "seconds": 2.0, "cpu": 0.5}
    assert (clock.burnt, clock.slept) == ([0.5], [1.5])


async def test_work_never_waits_for_a_negative_time(client: httpx.AsyncClient, clock: FakeClock) -> None:
    await client.get("/work", params={"seconds": "0", "cpu": "3"})
    assert (clock.burnt, clock.slept) == ([3.0], [0.0])


@pytest.mark.parametrize("value", ["", "many", "-0.1", "60.1", "nan", "inf", "1e9"])
async def test_work_refuses_other_times_and_names_the_field(
    client: httpx.AsyncClient, clock: FakeClock, value: str
) -> None:
    response = await client.get("/work", params={"seconds": value})
    assert response.status_code == 400
    assert response.json()["field"] == "seconds"
    assert "0 to 60" in response.json()["error"]
    assert clock.slept == []


async def test_work_bounds_processor_time_more_tightly(client: httpx.AsyncClient) -> None:
    response = await client.get("/work", params={"cpu": "5.1"})
    assert response.status_code == 400
    assert response.json()["field"] == "cpu"


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_without_experiments_work_is_as_unknown_as_any_path(clock: FakeClock, method: str) -> None:
    async with client_of(create_app(VM, clock=clock)) as client:
        unknown = await client.request(method, "/nothing-here")
        refused = await client.request(method, "/work?seconds=3&cpu=3")
        assert (refused.status_code, refused.content) == (unknown.status_code, unknown.content)
        assert refused.status_code == 404
        assert (clock.burnt, clock.slept) == ([], [])
        counted = f'luban_app_requests_total{{method="{method}",route="other",status="404"}}'
        assert await metric(client, counted) == 2


async def test_the_page_names_the_vm_and_starts_a_session(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert VM in response.text
    name, *attributes = response.headers["set-cookie"].split("; ")
    assert is_session(name.removeprefix(f"{COOKIE}="))
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(attributes)


async def test_a_visitor_keeps_the_session(client: httpx.AsyncClient) -> None:
    await client.get("/")
    assert "set-cookie" not in (await client.get("/")).headers


@pytest.mark.parametrize("forged", ["", "short", "x" * 23, "x" * 21 + "!"])
async def test_a_malformed_session_is_replaced_and_never_counted(client: httpx.AsyncClient, forged: str) -> None:
    response = await client.get("/", headers={"Cookie": f"{COOKIE}={forged}"})
    assert COOKIE in response.headers["set-cookie"]
    client.cookies.clear()
    assert await metric(client, "luban_app_active_sessions") == 0


async def test_active_sessions_are_those_of_the_last_minute(app: Frame, clock: FakeClock) -> None:
    async with client_of(app) as early, client_of(app) as late, client_of(app) as prometheus:
        await early.get("/")
        await early.get("/work?seconds=0")
        clock.time += 30
        await late.get("/")
        await late.get("/work?seconds=0")
        assert await metric(prometheus, "luban_app_active_sessions") == 2
        clock.time += 30
        assert await metric(prometheus, "luban_app_active_sessions") == 1
        clock.time += 30
        assert await metric(prometheus, "luban_app_active_sessions") == 0


def test_the_window_forgets_the_one_unseen_for_longest_beyond_its_limit(clock: FakeClock) -> None:
    window = SessionWindow(clock.now, limit=2)
    for session in ("a", "b", "a", "c"):
        window.seen(session)
    assert window.active() == 2
    clock.time += 59
    window.seen("a")
    clock.time += 1
    assert window.active() == 1, "only a was seen less than a minute ago; b made room for c"


def test_sessions_differ() -> None:
    assert len({new_session() for _ in range(1000)}) == 1000


async def test_requests_are_counted_by_route_not_by_path(client: httpx.AsyncClient) -> None:
    for path in ("/things/one", "/things/two", "/never", "/nowhere"):
        await client.get(path)
    await client.request("BREW", "/healthz")
    count = 'luban_app_requests_total{{method="{}",route="{}",status="{}"}}'
    assert await metric(client, count.format("GET", "/things/{name}", 200)) == 2
    assert await metric(client, count.format("GET", "other", 404)) == 2
    assert await metric(client, count.format("other", "/healthz", 405)) == 1


async def test_latency_is_measured_on_the_service_clock(client: httpx.AsyncClient) -> None:
    await client.get("/work?seconds=2")
    assert await metric(client, 'luban_app_request_seconds_bucket{le="1.0",route="/work"}') == 0
    assert await metric(client, 'luban_app_request_seconds_bucket{le="2.5",route="/work"}') == 1
    assert await metric(client, 'luban_app_request_seconds_sum{route="/work"}') == 2
    assert await metric(client, "luban_app_requests_in_flight") == 1, "the one that asks"


async def test_a_broken_handler_is_counted_as_a_failure(client: httpx.AsyncClient) -> None:
    await client.get("/breaks")
    count = 'luban_app_requests_total{method="GET",route="/breaks",status="500"}'
    assert await metric(client, count) == 1


async def test_burning_uses_the_processor_as_long_as_asked() -> None:
    used = SystemClock()
    before = time.process_time()
    await used.burn(0.05)
    assert time.process_time() - before >= 0.05


def test_the_name_comes_from_the_environment() -> None:
    assert vm_name({"LUBAN_VM": "vm-1.host-b"}) == "vm-1.host-b"
    assert vm_name({}) != ""


@pytest.mark.parametrize("name", ["-vm", "vm-", "a b", "a\r\nX-Evil: 1", "x" * 64, "é"])
def test_a_name_that_could_not_be_a_header_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="LUBAN_VM"):
        vm_name({"LUBAN_VM": name})


@pytest.fixture
def _own_logs() -> Iterator[None]:
    """The test session's logging comes back after a test that sets up the program's."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_own_logs")
def test_logs_are_one_json_object_a_line_with_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(VM)
    logs.get("test").warning("slow", seconds=3)
    logging.getLogger("uvicorn.error").info("up", extra={"color_message": "\x1b[1mup"})
    ours, theirs = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (ours["event"], ours["seconds"], ours["level"], ours["vm"]) == ("slow", 3, "warning", VM)
    assert (theirs["event"], theirs["level"], theirs["vm"]) == ("up", "info", VM)
    assert "color_message" not in theirs


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[server.Service]:
    """What the program would serve, instead of doing so."""
    services: list[server.Service] = []
    monkeypatch.setattr(server, "serve", lambda _host, _port, service, **_: services.append(service))
    return services


@pytest.mark.parametrize("option", ["experiments", "secure_cookie"])
@pytest.mark.parametrize(
    ("value", "on"),
    [(None, False), ("", False), ("0", False), ("false", False), ("1", True), ("true", True), ("on", True)],
)
def test_a_switch_is_off_unless_its_variable_says_otherwise(
    served: list[server.Service], option: str, value: str | None, on: bool
) -> None:
    done = CliRunner().invoke(server.main, [], env={f"LUBAN_{option.upper()}": value})
    assert (done.exit_code, done.output) == (0, "")
    assert [getattr(service, option) for service in served] == [on]


def test_experiments_are_an_option_too(served: list[server.Service]) -> None:
    CliRunner().invoke(server.main, ["--experiments"], env={"LUBAN_EXPERIMENTS": None})
    assert [service.experiments for service in served] == [True]


@pytest.mark.parametrize("value", ["perhaps", "2", "1 please"])
def test_a_variable_that_is_neither_is_refused(served: list[server.Service], value: str) -> None:
    done = CliRunner().invoke(server.main, [], env={"LUBAN_EXPERIMENTS": value})
    assert done.exit_code == 2
    assert "--experiments" in done.output
    assert f"{value!r} is not a valid boolean" in done.output
    assert served == []


def program(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "luban_app", *arguments],
        cwd=APP,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_sigterm_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    with program("--port", "0", "--data-dir", str(tmp_path), LUBAN_VM=VM, LUBAN_EXPERIMENTS="1") as process:
        try:
            assert process.stdout is not None
            first = json.loads(next(process.stdout))
            assert (first["level"], "/work" in first["event"]) == ("warning", True)
            port = next(int(found[1]) for line in process.stdout if (found := re.search(r"http://\S+:(\d+)", line)))
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(b"GET /work?seconds=0.4 HTTP/1.1\r\nHost: vm\r\nExpect: 100-continue\r\n\r\n")
                # The interim response proves that the request has been taken up.
                assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
                process.send_signal(signal.SIGTERM)
                answer = b"".join(iter(lambda: connection.recv(1000), b""))
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b'{"vm":"vm-7","seconds":0.4,"cpu":0.0}')
            assert {json.loads(line)["vm"] for line in process.stdout} == {VM}
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def fetched(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: vm\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(1000), b"")).decode()


def test_the_log_says_why_there_is_no_database_and_strangers_do_not_learn_it() -> None:
    address = "postgresql://ana:hunter2@127.0.0.1:1/house"
    with program("--port", "0", LUBAN_VM=VM, DATABASE_URL=address) as process:
        try:
            assert process.stdout is not None
            lines: list[dict[str, Any]] = []

            def line(wanted: str) -> dict[str, Any]:
                for text in process.stdout or ():
                    lines.append(json.loads(text))
                    if wanted in lines[-1]["event"]:
                        return lines[-1]
                raise AssertionError(lines)

            started = line("running on")
            port = int(re.findall(r"http://\S+:(\d+)", started["event"])[0])
            assert "port 1 failed: Connection refused" in line("not usable yet")["reason"]
            public = fetched(port, "/readyz") + fetched(port, "/records")
            assert public.startswith("HTTP/1.1 503 ")
            assert "OperationalError" in public or "a moment ago" in public
            assert "Connection refused" not in public
            assert line("no database")["path"] == "/records"
            assert "hunter2" not in public + json.dumps(lines)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("folder", "why"),
    [("/proc/house", "No such file or directory"), ("/proc", "No such file or directory"), ("{}/file/x", "Not a dir")],
)
def test_a_data_folder_that_cannot_be_made_ends_the_program_at_once(tmp_path: Path, folder: str, why: str) -> None:
    (tmp_path / "file").write_text("")
    folder = folder.format(tmp_path)
    with program("--port", "0", "--data-dir", folder, LUBAN_VM=VM, DATABASE_URL="") as refused:
        said, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert said.startswith(f"Error: --data-dir {folder}: {why}")


def test_a_data_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    before = os.umask(0o022)
    try:
        assert server._made(folder) == folder
        assert server._made(folder) == folder
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {
        "folder": 0o700,
        "luban.sqlite": 0o600,
    }


def test_the_program_explains_itself_and_its_errors() -> None:
    with program("--help") as helped:
        said, _ = helped.communicate(timeout=60)
    assert helped.returncode == 0
    assert "--port" in said
    assert "8080" in said
    with program("--port", "0", LUBAN_VM="not a name") as refused:
        said, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "LUBAN_VM" in said
    assert "Traceback" not in said
