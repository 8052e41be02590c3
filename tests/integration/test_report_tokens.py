"""Who gets the report of a real agent: tokens and their checks by a real API server, with the rights of the base."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from lab.controlplane import ControlPlane
from luban.adapters.balancers_http import REPORT_PATH, HttpBalancers
from luban.adapters.kubernetes_api.tokens import connect_own_tokens, connect_token_reviews
from luban.api.names import agent_audience, balancer_name
from luban.core.model import BalancerReport, ClusterRef
from luban.errors import PermanentError
from tests.fakes.httpd_harness import HTTPD, background, free_port, httpd_folder, until

# The first test may have to build kube-apiserver: minutes on two cores, once for each machine.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

NAMESPACE = "luban-system"
CLUSTER = ClusterRef(NAMESPACE, "luban")
AUDIENCE = agent_audience(CLUSTER.namespace, CLUSTER.name)
OPERATOR = f"system:serviceaccount:{NAMESPACE}:luban-operator"


class Agent:
    """A process of its own, with the ServiceAccount of manifests/base."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.port = free_port(HTTPD)
        self.endpoint = f"http://{HTTPD}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        kubeconfig = self.plane.layout.state / "reporting-agent.kubeconfig"
        self.plane.service_account_kubeconfig(NAMESPACE, "luban-balancer", kubeconfig)
        options = {
            "cluster": CLUSTER.name,
            "namespace": NAMESPACE,
            "state-dir": self.folder / "state",
            "report-address": HTTPD,
            "report-port": self.port,
            "manager-port": free_port(HTTPD),
            "kubeconfig": kubeconfig,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = background(self.folder / "agent.log", [sys.executable, "-m", "luban.balancer_agent", *words])

        async def lives() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "agent.log").read_text()
            try:
                return (await self.get("/healthz"))[0] == 200
            except aiohttp.ClientError:
                return False

        await until(lives, "the agent's answer", 30.0)

    async def get(self, path: str, token: str = "") -> tuple[int, str]:
        """Status and body."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession(self.endpoint) as session, session.get(path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait)


@pytest.fixture
async def agent(luban_base: ControlPlane) -> AsyncIterator[Agent]:
    """An agent that answers."""
    with httpd_folder() as folder:
        agent = Agent(luban_base, folder)
        try:
            await agent.start()
            yield agent
        finally:
            await agent.stop()
            name = balancer_name(CLUSTER.name, 0)
            luban_base.kubectl("delete", "lease", name, "--namespace", NAMESPACE, "--ignore-not-found")


@pytest.fixture
def token_of(luban_base: ControlPlane) -> Callable[..., str]:
    """Makes tokens, as administrator."""

    def make(account: str, *more: str, audience: str = AUDIENCE) -> str:
        options = [f"--namespace={NAMESPACE}", *([f"--audience={audience}"] if audience else []), *more]
        return luban_base.kubectl("create", "token", account, *options).strip()

    return make


async def asked(agent: Agent, kubeconfig: Path) -> BalancerReport:
    """What an operator with this kubeconfig gets."""
    credentials = await connect_own_tokens(str(kubeconfig))
    balancers = HttpBalancers(networks=[ipaddress.ip_network(f"{HTTPD}/32")], credentials=credentials)
    try:
        return await balancers.report(CLUSTER, balancer_name(CLUSTER.name, 0), agent.endpoint, members=16)
    finally:
        await balancers.close()


async def test_the_operator_is_answered(agent: Agent, operator_kubeconfig: Path) -> None:
    report = await asked(agent, operator_kubeconfig)
    assert report.reachable, report.message


async def test_others_are_not(agent: Agent, token_of: Callable[..., str]) -> None:
    operators, others = token_of("luban-operator"), token_of("luban-balancer")
    assert (await agent.get(REPORT_PATH, operators))[0] == 200
    assert (await agent.get(REPORT_PATH))[0] == 401
    elsewhere = agent_audience("team-b", CLUSTER.name)
    assert (await agent.get(REPORT_PATH, token_of("luban-operator", audience=elsewhere)))[0] == 401, (
        "of another cluster"
    )
    assert (await agent.get(REPORT_PATH, token_of("luban-operator", audience="")))[0] == 401, "the API server's own"
    assert (await agent.get(REPORT_PATH, operators[:-8] + "AAAAAAAA"))[0] == 401, "a forged signature"
    status, words = await agent.get(REPORT_PATH, others)
    assert status == 403
    assert OPERATOR in words
    _, metrics = await agent.get("/metrics")
    assert 'luban_balancer_report_refusals_total{status="401"} 4.0' in metrics
    assert 'luban_balancer_report_refusals_total{status="403"} 1.0' in metrics


async def test_the_operators_token_opens_reports_and_nothing_else(
    luban_base: ControlPlane, operator_kubeconfig: Path
) -> None:
    credentials = await connect_own_tokens(str(operator_kubeconfig))
    token = await credentials.token(CLUSTER)
    await credentials.close()
    kubectl = [str(luban_base.binaries.kubectl), f"--server={luban_base.url}", "--insecure-skip-tls-verify"]
    command = [*kubectl, f"--token={token}", f"--cache-dir={operator_kubeconfig.with_suffix('.cache')}", "get", "lvm"]
    environment = {"KUBECONFIG": "/dev/null"}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "logged in" in done.stderr or "Unauthorized" in done.stderr


async def test_another_operator_hears_that_it_is_not_the_one(
    agent: Agent, luban_base: ControlPlane, tmp_path: Path
) -> None:
    """It may make tokens, for itself: the agent was told of somebody else."""
    luban_base.kubectl("create", "serviceaccount", "pretender", "-n", NAMESPACE)
    rights = ["--verb=create", "--resource=serviceaccounts/token", "--resource-name=pretender"]
    luban_base.kubectl("create", "role", "pretender", "-n", NAMESPACE, *rights)
    subject = f"--serviceaccount={NAMESPACE}:pretender"
    luban_base.kubectl("create", "rolebinding", "pretender", "-n", NAMESPACE, "--role=pretender", subject)
    try:
        path = tmp_path / "pretender.kubeconfig"
        luban_base.service_account_kubeconfig(NAMESPACE, "pretender", path)
        report = await asked(agent, path)
        assert not report.reachable
        assert "the agent does not take the operator's token: it answers somebody else (403)" in report.message
    finally:
        for kind in ("rolebinding", "role", "serviceaccount"):
            luban_base.kubectl("delete", kind, "pretender", "-n", NAMESPACE)


async def test_an_operator_without_the_right_shows_none_and_says_which_right(
    agent: Agent, luban_base: ControlPlane, tmp_path: Path
) -> None:
    path = tmp_path / "other.kubeconfig"
    luban_base.service_account_kubeconfig(NAMESPACE, "luban-balancer", path)
    with capture_logs() as logs:
        report = await asked(agent, path)
    assert "the agent does not take the operator's token: there is none" in report.message
    assert any('"create" on "serviceaccounts/token"' in it["error"] for it in logs)


async def test_an_administrator_is_no_service_account(agent: Agent, luban_base: ControlPlane) -> None:
    with capture_logs() as logs:
        report = await asked(agent, luban_base.layout.admin_kubeconfig)
    assert not report.reachable
    assert any("no ServiceAccount" in it["error"] for it in logs)


async def test_while_the_api_server_is_away_the_operator_is_answered_and_new_tokens_wait(
    agent: Agent, luban_base: ControlPlane, token_of: Callable[..., str]
) -> None:
    known, fresh = token_of("luban-operator"), token_of("luban-operator", "--duration=2h")
    assert (await agent.get(REPORT_PATH, known))[0] == 200
    await asyncio.to_thread(luban_base.api_server.stop)
    try:
        assert (await agent.get(REPORT_PATH, known))[0] == 200
        assert (await agent.get(REPORT_PATH, fresh))[0] == 503
        assert (await agent.get(REPORT_PATH))[0] == 401
    finally:
        await asyncio.to_thread(luban_base.restart_api_server)

    async def answered() -> bool:
        return (await agent.get(REPORT_PATH, fresh))[0] == 200

    await until(answered, "the new token taken")


async def test_who_may_not_ask_for_reviews_is_told_the_right(
    luban_base: ControlPlane, operator_kubeconfig: Path
) -> None:
    """Where an administrator took the right away."""
    binding = json.loads(luban_base.kubectl("get", "clusterrolebinding", "luban-balancer", "-o", "json"))
    luban_base.kubectl("delete", "clusterrolebinding", "luban-balancer")
    reviews = await connect_token_reviews(AUDIENCE, str(operator_kubeconfig))
    said: list[str] = []

    async def refused() -> bool:
        try:
            await reviews.user("abc")
        except PermanentError as error:
            said.append(str(error))
        return bool(said)

    try:
        await until(refused, "the right known to be gone")
        assert 'grant the verb "create" on "tokenreviews"' in said[0]
    finally:
        await reviews.close()
        kept = {"name": binding["metadata"]["name"], "labels": binding["metadata"].get("labels", {})}
        luban_base.kubectl("apply", "-f", "-", stdin=json.dumps({**binding, "metadata": kept}))
