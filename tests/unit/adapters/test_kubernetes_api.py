"""The Kubernetes adapter against a server that answers as it is told: errors, retries, deadlines, credentials."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration
from tenacity import RetryCallState

from luban.adapters.kubernetes_api import KubernetesCluster, connect
from luban.adapters.kubernetes_api.calls import CONFIG_MAPS, VMS, Call
from luban.adapters.kubernetes_api.errors import UnavailableError, from_answer
from luban.adapters.kubernetes_api.transport import LONGEST_WAIT, Transport
from luban.api import names
from luban.core.model import ClusterRef
from luban.errors import Conflict, LubanError, NotFound, NotLeader, PermanentError, TemporaryError
from luban.ports import Cluster

REF = ClusterRef("default", "luban", "uid-1")
LIST = Call("list", VMS, "default")
CREATE = Call("create", VMS, "default", body={})
PATCH = Call("patch", CONFIG_MAPS, "default", "luban-balancer-0", body={})

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status_object(code: int, message: str = "no", reason: str = "", **details: Any) -> dict[str, Any]:
    """An error as the API server writes it."""
    return {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


def says(code: int, body: Any) -> Answer:
    """An answer that is always the same."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=code)

    return answer


async def hangs(_request: web.Request) -> web.StreamResponse:
    """No answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """A connection that breaks before an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@dataclass
class Script:
    """A server that gives one answer after the other, the last one again and again."""

    answers: list[Answer] = field(default_factory=lambda: [says(200, {"items": []})])
    seen: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path with query, body."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Give the next answer."""
        text = await request.text()
        self.seen.append((request.method, request.path_qs, json.loads(text) if text else None))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@pytest.fixture
def script() -> Script:
    """What the server answers."""
    return Script()


@pytest.fixture
async def transport(script: Script) -> AsyncIterator[Transport]:
    """A transport to that server that does not wait long."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        found = Transport(
            ApiClient(Configuration(host=str(server.make_url("")).rstrip("/"))), deadline=0.5, backoff=0.0
        )
        yield found
        await found.close()


def test_the_adapter_is_behind_the_port(transport: Transport) -> None:
    cluster: Cluster = KubernetesCluster(transport)
    assert cluster


async def test_a_list_is_one_consistent_read_by_field(script: Script, transport: Transport) -> None:
    await KubernetesCluster(transport).list_vms(REF)
    path = f"/apis/{names.API_VERSION}/namespaces/default/lubanvms?fieldSelector=spec.clusterName%3Dluban"
    assert script.seen == [("GET", path, None)]


async def test_names_cannot_leave_their_place_in_the_path(script: Script, transport: Transport) -> None:
    await transport.send(Call("get", CONFIG_MAPS, "default", "../../../nodes?x=1"))
    assert script.seen[0][1] == "/api/v1/namespaces/default/configmaps/..%2F..%2F..%2Fnodes%3Fx=1"


@pytest.mark.parametrize("failure", [hangs_up, says(503, "starting"), says(429, status_object(429)), says(500, {})])
@pytest.mark.parametrize("call", [LIST, PATCH], ids=str)
async def test_idempotent_calls_are_sent_again(
    script: Script, transport: Transport, call: Call, failure: Answer
) -> None:
    script.answers = [failure, failure, says(200, {"items": ["x"]})]
    assert await transport.send(call) == {"items": ["x"]}
    assert len(script.seen) == 3


async def test_calls_are_not_sent_again_for_ever(script: Script, transport: Transport) -> None:
    script.answers = [says(503, status_object(503, "etcd is away", "ServiceUnavailable"))]
    with pytest.raises(
        UnavailableError, match=r"list lubanvms\.luban\.cloud in namespace default: etcd is away"
    ) as caught:
        await transport.send(LIST)
    assert caught.value.reason == "ServiceUnavailable"
    assert len(script.seen) == 4


@pytest.mark.parametrize("failure", [hangs_up, says(503, {}), says(500, {})])
async def test_a_creation_is_sent_once(script: Script, transport: Transport, failure: Answer) -> None:
    """Whether the first one got through is not known: the next tick looks."""
    script.answers = [failure]
    with pytest.raises(TemporaryError):
        await transport.send(CREATE)
    assert len(script.seen) == 1


async def test_what_is_refused_is_not_sent_again(script: Script, transport: Transport) -> None:
    script.answers = [says(409, status_object(409, "changed", "Conflict"))]
    with pytest.raises(Conflict):
        await transport.send(PATCH)
    assert len(script.seen) == 1


async def test_a_call_has_a_deadline(script: Script, transport: Transport) -> None:
    script.answers = [hangs]
    with pytest.raises(TemporaryError, match=r"not done within 0\.5 s") as caught:
        await transport.send(LIST)
    assert caught.value.reason == "Timeout"


async def test_nobody_listening_is_temporary() -> None:
    transport = Transport(ApiClient(Configuration(host="http://127.0.0.1:9")), backoff=0.0)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9") as caught:
        await transport.send(LIST)
    assert caught.value.reason == "APIServerUnreachable"
    await transport.close()


async def test_an_answer_that_is_no_json_is_temporary(script: Script, transport: Transport) -> None:
    async def page(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>")

    script.answers = [page]
    with pytest.raises(TemporaryError) as caught:
        await transport.send(LIST)
    assert caught.value.reason == "BadAnswer"


ANSWERS: list[tuple[int, Any, type[LubanError], str, str]] = [
    (400, status_object(400, "bad patch", "BadRequest"), PermanentError, "BadRequest", "bad patch"),
    (401, status_object(401, "Unauthorized", "Unauthorized"), TemporaryError, "Unauthorized", "Unauthorized"),
    (404, status_object(404, "not found", "NotFound", name="x"), NotFound, "NotFound", "not found"),
    (404, "404 page not found", PermanentError, "UnknownResource", "kubectl apply -k crds"),
    (409, status_object(409, "exists", "AlreadyExists"), Conflict, "AlreadyExists", "exists"),
    (410, status_object(410, "too old", "Expired"), TemporaryError, "Expired", "too old"),
    (413, "too large", PermanentError, "HTTP413", "too large"),
    (422, status_object(422, "min is above max", "Invalid"), PermanentError, "Invalid", "min is above max"),
    (429, status_object(429, "slow down", "TooManyRequests"), UnavailableError, "TooManyRequests", "slow down"),
    (502, "<html>", UnavailableError, "HTTP502", "<html>"),
    (502, "", UnavailableError, "HTTP502", "HTTP 502"),
    (503, [], UnavailableError, "HTTP503", "in namespace default"),
]


@pytest.mark.parametrize(("code", "body", "kind", "reason", "words"), ANSWERS)
def test_answers_become_our_errors(code: int, body: Any, kind: type[LubanError], reason: str, words: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    error = from_answer(LIST, code, text, {})
    assert type(error) is kind
    assert error.reason == reason
    assert words in error.message
    assert error.message.startswith("list lubanvms.luban.cloud in namespace default: ")


def test_forbidden_names_the_right_that_is_missing() -> None:
    message = 'lubanvms.luban.cloud "x" is forbidden: User "u" cannot patch resource "lubanvms/status" in API group'
    call = Call("patch", VMS.status, "default", "x")
    error = from_answer(call, 403, json.dumps(status_object(403, message, "Forbidden")), {})
    assert isinstance(error, PermanentError)
    assert error.reason == "Forbidden"
    assert 'grant the verb "patch" on "lubanvms/status" in the API group "luban.cloud"' in error.message


def test_forbidden_by_admission_has_its_own_remedy() -> None:
    body = status_object(403, 'configmaps "x" is forbidden: exceeded quota: small', "Forbidden")
    error = from_answer(PATCH, 403, json.dumps(body), {})
    assert "exceeded quota" in error.message
    assert "grant" not in error.message


def test_a_namespace_that_goes_is_told_apart() -> None:
    body = status_object(403, "is being terminated", "Forbidden", causes=[{"reason": "NamespaceTerminating"}])
    assert from_answer(CREATE, 403, json.dumps(body), {}).reason == "NamespaceTerminating"


@pytest.mark.parametrize(("asked", "waited"), [("1", 1.0), ("3600", LONGEST_WAIT), ("soon", 0.0), ("", 0.0)])
def test_the_wait_is_what_the_server_asks_for_within_bounds(asked: str, waited: float, transport: Transport) -> None:
    error = from_answer(LIST, 429, "", {"Retry-After": asked})
    state = SimpleNamespace(outcome=SimpleNamespace(exception=lambda: error), attempt_number=1)
    assert transport._wait(cast(RetryCallState, state)) == waited


async def test_a_finalizer_is_removed_from_the_version_that_was_read(script: Script, transport: Transport) -> None:
    metadata = {"resourceVersion": "7", "finalizers": [names.FINALIZER_VM, "other"]}
    newer = {"resourceVersion": "8", "finalizers": [names.FINALIZER_VM]}
    conflict = says(409, status_object(409, "changed", "Conflict"))
    script.answers = [says(200, {"metadata": metadata}), conflict, says(200, {"metadata": newer}), says(200, {})]
    await KubernetesCluster(transport).release_vm(REF, "luban-a")
    patches = [body["metadata"] for method, _, body in script.seen if method == "PATCH"]
    assert patches == [
        {"resourceVersion": "7", "finalizers": ["other"]},
        {"resourceVersion": "8", "finalizers": []},
    ]


async def test_a_finalizer_that_somebody_always_changes_ends_in_a_conflict(
    script: Script, transport: Transport
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            metadata = {"resourceVersion": "7", "finalizers": [names.FINALIZER_VM]}
            return web.json_response({"metadata": metadata})
        return web.json_response(status_object(409, "changed", "Conflict"), status=409)

    script.answers = [answer]
    with pytest.raises(Conflict):
        await KubernetesCluster(transport).release_vm(REF, "luban-a")
    assert sum(method == "PATCH" for method, *_ in script.seen) == 5


async def test_an_event_again_is_counted_up(script: Script, transport: Transport) -> None:
    script.answers = [says(409, status_object(409, "exists", "AlreadyExists")), says(200, {"count": 4}), says(200, {})]
    await KubernetesCluster(transport).event(
        REF, kind="LubanVM", name="luban-a", uid="u", type_="Normal", reason="Ready", message="serves"
    )
    (_, _, created), _, (method, path, patch) = script.seen
    assert (method, path.rpartition("/")[2]) == ("PATCH", created["metadata"]["name"])
    assert patch == {"lastTimestamp": created["lastTimestamp"], "count": 5, "message": "serves"}
    assert created["reportingComponent"] == "luban.cloud/operator"


# Credentials


def kubeconfig(path: Path, **user: Any) -> Path:
    """A kubeconfig for a server that nobody asks."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(content))
    return path


async def test_a_kubeconfig_can_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", token="t")))
    cluster = await connect()
    await cluster.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is not there"), ("{}", "cannot be used"), ("[1", "cannot be used"), ("", "cannot be used")],
)
async def test_a_broken_kubeconfig_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PermanentError, match=words) as caught:
        await connect(str(path))
    assert caught.value.reason == "InvalidKubeconfig"
    assert str(path) in caught.value.message


async def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", token="t")
    with pytest.raises(PermanentError, match="two") as caught:
        await connect(str(path), "two")
    assert caught.value.reason == "InvalidKubeconfig"


@pytest.mark.parametrize("call", [CREATE, PATCH, Call("delete", VMS, "default", "luban-a")], ids=str)
async def test_nothing_is_written_by_one_who_does_not_lead(script: Script, transport: Transport, call: Call) -> None:
    transport._may_write = lambda: False
    with pytest.raises(NotLeader):
        await transport.send(call)
    assert script.seen == []
    assert await transport.send(LIST) == {"items": []}


async def test_nothing_is_written_again_by_one_who_leads_no_more(script: Script, transport: Transport) -> None:
    leads = iter([True, False])
    transport._may_write = lambda: next(leads)
    script.answers = [says(503, "starting")]
    with pytest.raises(NotLeader):
        await transport.send(PATCH)
    assert len(script.seen) == 1
