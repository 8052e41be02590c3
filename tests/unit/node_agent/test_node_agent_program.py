"""The node agent as a program: its options, its endpoints, its requests, and what it does not load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner
from kubernetes.aio.client import ApiClient, Configuration

from luban.adapters.kubernetes_api import KubernetesHosts, connect_hosts
from luban.adapters.kubernetes_api.calls import HOSTS, Call
from luban.adapters.kubernetes_api.transport import Transport
from luban.api import names
from luban.cli.main import main
from luban.errors import PermanentError, TemporaryError
from luban.node_agent import command
from luban.node_agent.agent import AgentOptions, run
from luban.ports import LubanHosts

APPLY = f"fieldManager={names.NODE_AGENT_FIELD_MANAGER}&force=true"
PATH = f"/apis/{names.API_VERSION}/lubanhosts/host-b"
NOT_FOUND = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"}


@pytest.fixture(autouse=True)
def logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program sets up for its logs would hold for all tests that follow."""
    monkeypatch.setattr("luban.cli.main.configure_logging", lambda **_: None)


class Server:
    """An API server with one LubanHost at most."""

    def __init__(self) -> None:
        self.object: dict[str, Any] | None = None
        self.seen: list[tuple[str, str, str]] = []
        self.broken = False

    async def handle(self, request: web.Request) -> web.Response:
        """Server-side apply as far as we use it."""
        text = await request.text()
        self.seen.append((request.method, request.path_qs, request.content_type))
        if self.broken:
            return web.json_response({}, status=503)
        if request.method == "PATCH" and not request.path.endswith("/status"):
            self.object = {"spec": {}, **json.loads(text)}
        if self.object is None:
            return web.json_response(NOT_FOUND, status=404)
        if request.method == "PATCH" and request.path.endswith("/status"):
            self.object = {**self.object, "status": json.loads(text)["status"]}
        return web.json_response(self.object)


@pytest.fixture
def server() -> Server:
    """Empty."""
    return Server()


@pytest.fixture
async def hosts(server: Server) -> AsyncIterator[LubanHosts]:
    """The adapter, connected to it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app, host="127.0.0.1") as listening:
        configuration = Configuration(host=str(listening.make_url("")).rstrip("/"))
        found = KubernetesHosts(Transport(ApiClient(configuration), deadline=0.5, backoff=0.0))
        yield found
        await found.close()


class TestRequests:
    """What goes to the API server."""

    async def test_an_object_that_is_not_there(self, server: Server, hosts: LubanHosts) -> None:
        assert await hosts.read("host-b") is None
        assert [(method, path) for method, path, _ in server.seen] == [("GET", PATH)]

    async def test_the_first_write_makes_the_object(self, server: Server, hosts: LubanHosts) -> None:
        answer = await hosts.write("host-b", {"agentVersion": "1"})
        assert answer["status"] == {"agentVersion": "1"}
        assert answer["spec"] == {}, "the spec is an administrator's: nothing of it is applied"
        assert [(method, path) for method, path, _ in server.seen] == [
            ("PATCH", f"{PATH}/status?{APPLY}"),
            ("PATCH", f"{PATH}?{APPLY}"),
            ("PATCH", f"{PATH}/status?{APPLY}"),
        ]
        assert {kind for *_, kind in server.seen} == {"application/apply-patch+yaml"}

    async def test_later_ones_are_one_request(self, server: Server, hosts: LubanHosts) -> None:
        await hosts.write("host-b", {})
        server.seen.clear()
        await hosts.write("host-b", {"agentVersion": "2"})
        assert len(server.seen) == 1
        assert await hosts.read("host-b") == server.object

    async def test_trouble(self, server: Server, hosts: LubanHosts) -> None:
        server.broken = True
        with pytest.raises(TemporaryError, match=r"lubanhosts/status\.luban\.cloud host-b"):
            await hosts.write("host-b", {})

    def test_calls_about_the_whole_cluster(self) -> None:
        assert str(Call("list", HOSTS, "")) == "list lubanhosts.luban.cloud"
        assert Call("list", HOSTS, "").path == "/apis/luban.cloud/v1alpha1/lubanhosts"

    async def test_no_credentials(self, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match="give the path of a kubeconfig"):
            await connect_hosts(str(tmp_path / "missing"))


class TestCommand:
    """`luban node-agent`."""

    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[AgentOptions]:
        """Options that the program was started with."""
        found: list[AgentOptions] = []

        async def record(options: AgentOptions, _stop: asyncio.Event) -> None:
            found.append(options)

        monkeypatch.setattr(command, "run", record)
        return found

    def test_defaults(self, started: list[AgentOptions]) -> None:
        result = CliRunner().invoke(main, ["node-agent"], env={"NODE_NAME": "host-b"})
        assert result.exit_code == 0, result.output
        assert started == [AgentOptions(node_name="host-b")]

    def test_all(self, started: list[AgentOptions]) -> None:
        options = "--node-name n --proc-root /host/proc --sys-root /host/sys --resync 250ms --no-events --heartbeat 30s"
        result = CliRunner().invoke(main, ["node-agent", *options.split(), "--listen-port", "9999"])
        assert result.exit_code == 0, result.output
        assert started == [
            AgentOptions("n", None, Path("/host/proc"), Path("/host/sys"), 0.25, False, 30.0, "0.0.0.0", 9999)
        ]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--node-name", "n", "--resync", "soon"], "must be a duration"),
            (["--node-name", "n", "--resync", "1ms"], "not within 0.1 to 5 seconds"),
            (["--node-name", "n", "--resync", "6s"], "not within 0.1 to 5 seconds"),
            (["--node-name", "n", "--heartbeat", "2m"], "not within 1 to 60 seconds"),
            ([], "Missing option '--node-name'"),
            (["--node-name", "n", "--kubeconfig", "/missing"], "does not exist"),
        ],
    )
    def test_mistakes(self, arguments: list[str], words: str) -> None:
        result = CliRunner().invoke(main, ["node-agent", *arguments], env={"NODE_NAME": "", "KUBECONFIG": ""})
        assert result.exit_code == 2
        assert words in " ".join(result.output.split())

    def test_errors_are_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object) -> None:
            raise PermanentError("InvalidKubeconfig", "no credentials: give some")

        monkeypatch.setattr(command, "run", fail)
        result = CliRunner().invoke(main, ["node-agent", "--node-name", "n"])
        assert (result.exit_code, result.output) == (1, "Error: no credentials: give some\n")

    async def test_without_credentials_it_does_not_begin(self, tmp_path: Path) -> None:
        options = AgentOptions("n", kubeconfig=str(tmp_path / "missing"), listen_address="127.0.0.1", listen_port=1)
        with pytest.raises(PermanentError, match="kubeconfig"):
            await run(options, asyncio.Event())


def test_it_loads_no_framework_and_no_hypervisor() -> None:
    """The agent runs on every node: what it does not need it must not cost."""
    script = "import sys, luban.node_agent.command; print({'kopf', 'libvirt', 'pyroute2', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
