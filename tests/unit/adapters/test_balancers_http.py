"""Agents that answer as they like, and endpoints that point where no agent is: none of it may harm the operator."""

from __future__ import annotations

import gzip
import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from luban.adapters.balancers_http import (
    LONGEST_MESSAGE,
    LONGEST_REPORT,
    NO_REPORT,
    REFUSED,
    REPORT_PATH,
    SHORTEST_LIMIT,
    HttpBalancers,
    parse_report,
    report_json,
    report_url,
)
from luban.api.names import AGENT_REALM
from luban.core.model import BalancerReport, ClusterRef, MemberReport

CLUSTER = ClusterRef("default", "shop")
NAME = "shop-balancer-0"
MEMBER = MemberReport("shop-a", "Enabled", "192.0.2.11", 8080, True, 3, 40, False, 1234, 1200, 6.25)
REPORT = BalancerReport(NAME, True, True, "0123456789abcdef", "", (MEMBER,), 35)
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def silent(endpoint: str) -> str:
    """What is told of an agent that gives no report of ours."""
    return f"agent at {endpoint}: {NO_REPORT}"


def wire(**changes: Any) -> dict[str, Any]:
    """A report with some fields changed."""
    return {**report_json(REPORT, CLUSTER), **changes}


def with_member(**changes: Any) -> dict[str, Any]:
    """A report with some fields of its member changed."""
    report = wire()
    return {**report, "members": [{**report["members"][0], **changes}]}


BAD: dict[str, Any] = {
    "nested lists": "[" * 5000,
    "nested objects": '{"a":' * 5000,
    "a list": [],
    "a number": 1,
    "members are a number": wire(members=1),
    "members are text": wire(members="abc"),
    "members are an object": wire(members={"a": 1}),
    "a member is a list": wire(members=[[]]),
    "a member twice": wire(members=report_json(REPORT, CLUSTER)["members"] * 2),
    "no namespace": {key: value for key, value in wire().items() if key != "namespace"},
    "another namespace": wire(namespace="team-b"),
    "another cluster": wire(cluster="shop-2"),
    "another name": wire(name="shop-balancer-1"),
    "name is a list": wire(name=["shop-balancer-0"]),
    "message is an object": wire(message={}),
    "infinite": json.dumps(with_member(inFlight=float("inf"))),
    "not a number": json.dumps(with_member(sessions=float("nan"))),
    "negative": with_member(inFlight=-1),
    "huge": with_member(served=2**64),
    "beyond Python's digits": json.dumps(wire()).replace("1234", "9" * 5000),
    "a fraction": with_member(sessions=1.5),
    "a bool for a number": with_member(sessions=True),
    "port": with_member(port=70000),
    "negative seconds": with_member(answerSeconds=-0.5),
    "endless seconds": json.dumps(with_member(answerSeconds=float("inf"))),
    "no seconds": json.dumps(with_member(answerSeconds=float("nan"))),
    "a bool for seconds": with_member(answerSeconds=True),
    "users are a list": wire(users=[1]),
    "a name with a slash": with_member(name="../x"),
    "a name beyond bounds": with_member(name="a" * 300),
    "address is a name": with_member(address="evil.example"),
    "drained is text": with_member(drained="true"),
}


class Agent:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.body: bytes = b""
        self.more: dict[str, Any] = {}
        self.asked: list[str] = []
        self.shown: list[str | None] = []

    async def handle(self, request: web.Request) -> web.Response:
        """Any request."""
        self.asked.append(request.path_qs)
        self.shown.append(request.headers.get("Authorization"))
        return web.Response(body=self.body, **self.more)

    def says(self, data: Any) -> None:
        """An object, or text as it is."""
        self.body = (data if isinstance(data, str) else json.dumps(data)).encode()


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
async def endpoint(agent: Agent) -> AsyncIterator[str]:
    """Where the agent is."""
    app = web.Application()
    app.router.add_get("/{path:.*}", agent.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
async def ask(endpoint: str) -> AsyncIterator[Callable[..., Any]]:
    """Ask the agent."""
    balancers = HttpBalancers(networks=[LOOPBACK])

    async def report(where: str = endpoint, members: int = 16) -> BalancerReport:
        return await balancers.report(CLUSTER, NAME, where, members=members)

    yield report
    await balancers.close()


async def test_a_good_report(agent: Agent, ask: Callable[..., Any]) -> None:
    agent.says(wire())
    assert await ask() == REPORT


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_report_is_none(agent: Agent, ask: Callable[..., Any], endpoint: str, what: str) -> None:
    agent.says(BAD[what])
    report = await ask()
    assert (report.name, report.reachable, report.members) == (NAME, False, ())
    assert report.message == silent(endpoint)


async def test_the_log_says_once_what_is_met_there(agent: Agent, ask: Callable[..., Any]) -> None:
    agent.says(BAD["no namespace"])
    with capture_logs() as logs:
        for _ in range(3):
            await ask()
        agent.says(wire())
        await ask()
        agent.says(BAD["no namespace"])
        await ask()
    assert [("no field 'namespace'" in it["error"], it["balancer"]) for it in logs] == [(True, NAME)] * 2


async def test_the_status_says_the_same_whatever_is_there(
    agent: Agent, ask: Callable[..., Any], endpoint: str, unused_tcp_port: int
) -> None:
    """Else whoever may write a Lease, and read a status, has a port scanner."""
    met = {f"http://127.0.0.1:{unused_tcp_port}": "nobody"}
    assert [(await ask(where)).message.removeprefix(f"agent at {where}: ") for where in met] == [NO_REPORT]
    for agent.more in ({"status": 404}, {"status": 500}, {"status": 302, "headers": {"Location": "/"}}, {}):
        for agent.body in (b"", b"SSH-2.0", b"x" * (SHORTEST_LIMIT + 1), json.dumps(wire(namespace="team-b")).encode()):
            assert (await ask()).message == silent(endpoint)


async def test_words_are_cut_and_can_be_stored(agent: Agent, ask: Callable[..., Any]) -> None:
    agent.says(wire(message="\ud800\0\n" + "M" * (SHORTEST_LIMIT // 2)))
    message = (await ask()).message
    assert message.encode()
    assert message.startswith("   MMM")
    assert len(message) == LONGEST_MESSAGE


async def test_a_report_is_as_long_as_its_members_allow(agent: Agent, ask: Callable[..., Any]) -> None:
    members = [{**report_json(REPORT, CLUSTER)["members"][0], "name": f"shop-{number}"} for number in range(2000)]
    agent.says(wire(members=members))
    assert len((await ask(members=2000)).members) == 2000
    report = await ask(members=16)
    assert not report.reachable
    agent.body = b" " * (LONGEST_REPORT + 1)
    with capture_logs() as logs:
        assert not (await ask(members=10**9)).reachable
    assert "longer than" in logs[0]["error"]


async def test_nothing_is_unpacked_or_followed(agent: Agent, ask: Callable[..., Any], endpoint: str) -> None:
    agent.body, agent.more = gzip.compress(json.dumps(wire()).encode()), {"headers": {"Content-Encoding": "gzip"}}
    assert not (await ask()).reachable
    agent.more = {"status": 302, "headers": {"Location": f"{endpoint}/admin"}}
    with capture_logs() as logs:
        assert not (await ask()).reachable
    assert "answered 302" in logs[0]["error"]
    assert agent.asked == [REPORT_PATH] * 2


@pytest.mark.parametrize("tail", ["/rec", "/admin/delete?all=1&x=", "?x=", "#x", "/../x", "//", "/;x"])
async def test_only_the_report_is_asked_for(agent: Agent, ask: Callable[..., Any], endpoint: str, tail: str) -> None:
    agent.says(wire())
    report = await ask(endpoint + tail)
    assert agent.asked == ([REPORT_PATH] if tail == "//" else [])
    assert report.reachable == (tail == "//")


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "nonsense",
        "http://",
        "http://10.0.0.7",
        "http://10.0.0.7:0",
        "http://10.0.0.7:99999",
        "http://10.0.0.7:-1",
        "http://10.0.0.7:9180x",
        "http://10.0.0.7:９180",
        "http://010.0.0.7:9180",
        "http://167772167:9180",
        "http://0x0a000007:9180",
        "http://10.0.0.7:9180@10.0.0.8:9180",
        "http://user@10.0.0.7:9180",
        "http://user:word@10.0.0.7:9180",
        "http://luban-balancer:9180",
        "http://localhost:9180",
        "https://10.0.0.7:9180",
        "ftp://10.0.0.7:9180",
        "file:///etc/passwd",
        "//10.0.0.7:9180",
        "http:10.0.0.7:9180",
        "HTTP://10.0.0.7:9180\r\nHost: x",
        " http://10.0.0.7:9180",
        "http://[fd00::7%25eth0]:9180",
        "http://[fd00::7:9180",
    ],
)
def test_an_endpoint_is_address_and_port_and_nothing_else(endpoint: str) -> None:
    with pytest.raises(ValueError, match="the endpoint must be"):
        report_url(endpoint)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.9.1", "loopback"),
        ("[::1]", "loopback"),
        ("169.254.169.254", "link-local"),
        ("[fe80::1]", "link-local"),
        ("[::ffff:a9fe:a9fe]", "link-local"),
        ("[::ffff:7f00:1]", "loopback"),
        ("224.0.0.1", "multicast"),
        ("[ff02::1]", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("[::]", "unspecified"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("0.0.0.1", "reserved"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("168.63.129.16", "metadata"),
        ("[fd00:ec2::254]", "metadata"),
        ("[fd00:ec2::23]", "metadata"),
        ("[fd20:ce::254]", "metadata"),
        ("[::ffff:6464:64c8]", "metadata"),
        ("[64:ff9b::a9fe:a9fe]", "reserved"),
        ("[64:ff9b:1::a9fe:a9fe]", "reserved"),
        ("[::a9fe:a9fe]", "reserved"),
        ("[2002:a9fe:a9fe::1]", "translated"),
        ("[2002:7f00:1::]", "translated"),
        ("[2001:0:a9fe:a9fe::1]", "translated"),
    ],
)
def test_where_no_agent_can_be_nobody_is_asked(address: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"is a {kind} address: .*--agent-network"):
        report_url(f"http://{address}:9180")


@pytest.mark.parametrize(
    "endpoint", ["http://10.0.0.7:9180", "http://100.64.0.7:9180", "http://[2001:db8::7]:9180", "http://8.8.8.8:9180/"]
)
def test_elsewhere_they_are(endpoint: str) -> None:
    assert report_url(endpoint) == endpoint.rstrip("/") + REPORT_PATH


def test_networks_say_where_agents_are() -> None:
    networks = [ipaddress.ip_network(it) for it in ("10.244.0.0/16", "127.0.0.0/8", "fd00::/64")]
    for inside in ("10.244.1.1", "127.0.0.1", "[fd00::7]"):
        assert report_url(f"http://{inside}:9180", networks)
    for outside in ("10.96.0.1", "192.0.2.1", "169.254.169.254", "[fd01::7]", "[::ffff:a9fe:a9fe]"):
        with pytest.raises(ValueError, match=r"is not in 10.244.0.0/16, 127.0.0.0/8, fd00::/64"):
            report_url(f"http://{outside}:9180", networks)


def test_an_earlier_agent_tells_of_no_users_and_answers() -> None:
    old = {key: value for key, value in wire().items() if key != "users"}
    old["members"] = [{key: value for key, value in old["members"][0].items() if not key.startswith("answer")}]
    _, report = parse_report(json.dumps(old).encode())
    assert report.users is None
    assert report.members[0].answers == 0


def test_a_report_comes_back_as_it_was_made() -> None:
    assert parse_report(json.dumps(wire(fresh=1)).encode()) == (CLUSTER, REPORT)


class Token:
    """Credentials that are always the same."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.closed = False
        self.refusals = 0

    async def token(self, cluster: ClusterRef) -> str:
        """See Credentials."""
        return self._token

    def refused(self, cluster: ClusterRef) -> None:
        """See Credentials."""
        self.refusals += 1

    async def close(self) -> None:
        """See Credentials."""
        self.closed = True


class TestCredentials:
    """What agents are shown, and what is said of those that refuse it."""

    @pytest.mark.parametrize(("token", "shown"), [("abc", "Bearer abc"), ("", None)])
    async def test_agents_are_shown_the_token_that_there_is(
        self, agent: Agent, endpoint: str, token: str, shown: str | None
    ) -> None:
        agent.says(wire())
        credentials = Token(token)
        balancers = HttpBalancers(networks=[LOOPBACK], credentials=credentials)
        assert (await balancers.report(CLUSTER, NAME, endpoint, members=16)) == REPORT
        assert agent.shown == [shown]
        await balancers.close()
        assert credentials.closed

    async def test_an_endpoint_where_no_agent_may_be_is_not_shown_it(self, agent: Agent, endpoint: str) -> None:
        balancers = HttpBalancers(credentials=Token("abc"))
        assert not (await balancers.report(CLUSTER, NAME, endpoint, members=16)).reachable
        assert agent.shown == []
        await balancers.close()

    @pytest.mark.parametrize(
        ("token", "status", "remedy"),
        [
            ("abc", 401, "the same Kubernetes cluster"),
            ("abc", 403, "--operator"),
            ("abc", 503, "the agent's log"),
            ("", 401, "the operator's log"),
        ],
    )
    async def test_a_refusal_is_told_with_its_remedy_and_without_the_agents_words(
        self, agent: Agent, endpoint: str, token: str, status: int, remedy: str
    ) -> None:
        agent.body, agent.more = b"words of its own", {"status": status, "headers": {"WWW-Authenticate": AGENT_REALM}}
        credentials = Token(token)
        balancers = HttpBalancers(networks=[LOOPBACK], credentials=credentials)
        with capture_logs() as logs:
            report = await balancers.report(CLUSTER, NAME, endpoint, members=16)
        await balancers.close()
        assert credentials.refusals == (status == 401), "another token helps with that alone"
        assert (report.reachable, report.members) == (False, ())
        assert report.message.startswith(f"agent at {endpoint}: {REFUSED}: ")
        assert remedy in report.message
        assert "words of its own" not in report.message
        assert "abc" not in report.message + str(logs)

    @pytest.mark.parametrize("status", [401, 403, 503])
    @pytest.mark.parametrize("challenge", ["", "Basic", 'Bearer realm="other"'])
    async def test_of_what_is_no_agent_nothing_is_told(
        self, agent: Agent, ask: Callable[..., Any], endpoint: str, status: int, challenge: str
    ) -> None:
        agent.more = {"status": status, "headers": {"WWW-Authenticate": challenge}}
        assert (await ask()).message == silent(endpoint)

    async def test_a_realm_does_not_make_other_answers_refusals(
        self, agent: Agent, ask: Callable[..., Any], endpoint: str
    ) -> None:
        for agent.more in ({"status": it, "headers": {"WWW-Authenticate": AGENT_REALM}} for it in (404, 418, 500)):
            assert (await ask()).message == silent(endpoint)
