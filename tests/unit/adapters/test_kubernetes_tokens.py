"""Tokens for balancer agents: the operator's own one through its life, and what an agent makes of TokenReview."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from luban.adapters.kubernetes_api.calls import Call
from luban.adapters.kubernetes_api.tokens import (
    LIFETIME_SECONDS,
    RETRY_SECONDS,
    WAIT_SECONDS,
    Account,
    OwnToken,
    OwnTokens,
    TokenReviews,
)
from luban.adapters.kubernetes_api.transport import Transport
from luban.api.names import agent_audience
from luban.core.model import ClusterRef
from luban.errors import PermanentError, TemporaryError

pytestmark = pytest.mark.looptime

AUDIENCE = agent_audience("shop", "luban")
USER = "system:serviceaccount:luban-system:luban-operator"


class ApiServer:
    """A transport whose API server gives token-1, token-2, ..., or does as `trouble` says."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.user = USER
        self.lifetime: Any = LIFETIME_SECONDS
        self.review: dict[str, Any] = {}
        self.trouble: Exception | None = None
        self.hangs = self.closed = False
        self.made = 0

    async def send(self, call: Call) -> dict[str, Any]:
        """See Transport."""
        self.calls.append(call)
        if self.hangs:
            await asyncio.Event().wait()
        if self.trouble is not None:
            raise self.trouble
        if call.resource.plural == "selfsubjectreviews":
            return {"status": {"userInfo": {"username": self.user}}}
        if call.resource.plural == "tokenreviews":
            return {"status": self.review}
        self.made += 1
        return {"spec": {"expirationSeconds": self.lifetime}, "status": {"token": f"token-{self.made}"}}

    async def close(self) -> None:
        """See Transport."""
        self.closed = True


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def own(server: ApiServer) -> OwnToken:
    """The operator's token, not asked for yet."""
    transport = cast(Transport, server)
    return OwnToken(transport, lambda: asyncio.get_running_loop().time(), AUDIENCE, Account(transport))


async def settled(own: OwnToken) -> str:
    """The token once the renewal that it may have begun is over."""
    await own.token()
    await asyncio.sleep(0.01)
    return await own.token()


async def test_it_is_of_our_own_account_and_for_agents_alone(server: ApiServer, own: OwnToken) -> None:
    assert await own.token() == "token-1"
    who, what = server.calls
    assert who.path == "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    assert what.path == "/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    assert (what.namespace, what.name) == ("luban-system", "luban-operator")
    assert cast(dict[str, Any], what.body)["spec"] == {"audiences": [AUDIENCE], "expirationSeconds": LIFETIME_SECONDS}


async def test_each_clusters_agents_get_one_that_opens_no_others(server: ApiServer) -> None:
    """Whoever may write a Lease has the operator show its token wherever the Lease says."""
    tokens = OwnTokens(cast(Transport, server), lambda: asyncio.get_running_loop().time())
    clusters = [ClusterRef("shop", "luban"), ClusterRef("team-b", "luban"), ClusterRef("shop", "other", "uid")]
    found = await asyncio.gather(*(tokens.token(it) for it in clusters))
    assert len(set(found)) == 3
    assert await tokens.token(ClusterRef("shop", "luban", "another-uid")) == found[0]
    bodies = [cast(dict[str, Any], call.body) for call in server.calls if call.resource.subresource == "token"]
    assert [it["spec"]["audiences"] for it in bodies] == [[agent_audience(it.namespace, it.name)] for it in clusters]
    assert sum(call.resource.plural == "selfsubjectreviews" for call in server.calls) == 1
    await asyncio.sleep(2 * LIFETIME_SECONDS)
    await tokens.token(ClusterRef("new", "luban"))
    assert len(tokens._tokens) == 1, "those that nobody asks for are forgotten"
    await tokens.close()
    assert server.closed


async def test_one_that_agents_call_bad_is_made_anew_but_not_again_and_again(server: ApiServer) -> None:
    """The key that signs tokens was replaced, or the ServiceAccount made anew."""
    tokens, cluster = (
        OwnTokens(cast(Transport, server), lambda: asyncio.get_running_loop().time()),
        ClusterRef("a", "b"),
    )
    assert await tokens.token(cluster) == "token-1"
    await asyncio.sleep(2 * RETRY_SECONDS)
    for _ in range(5):
        tokens.refused(cluster)
        await tokens.token(cluster)
        await asyncio.sleep(0.1)
    assert (await tokens.token(cluster), server.made) == ("token-2", 2)
    await tokens.close()


async def test_reports_asked_at_the_same_time_make_one_request(server: ApiServer, own: OwnToken) -> None:
    assert set(await asyncio.gather(*(own.token() for _ in range(20)))) == {"token-1"}
    assert server.made == 1


async def test_another_is_there_long_before_its_end_and_nobody_waits_for_it(server: ApiServer, own: OwnToken) -> None:
    await own.token()
    await asyncio.sleep(LIFETIME_SECONDS / 2 - 1)
    assert (await settled(own), server.made) == ("token-1", 1)
    await asyncio.sleep(2)
    server.hangs = True
    begun = asyncio.get_running_loop().time()
    assert await own.token() == "token-1"
    assert asyncio.get_running_loop().time() == begun
    await own.close()


async def test_the_new_one_is_used_once_it_is_there(own: OwnToken) -> None:
    await own.token()
    await asyncio.sleep(LIFETIME_SECONDS / 2 + 1)
    assert await settled(own) == "token-2"


async def test_the_old_one_is_used_while_the_api_server_is_away_but_not_beyond_its_end(
    server: ApiServer, own: OwnToken
) -> None:
    await own.token()
    server.trouble = TemporaryError("APIServerUnreachable", "no route")
    await asyncio.sleep(LIFETIME_SECONDS - 1)
    assert await settled(own) == "token-1"
    await asyncio.sleep(2)
    assert await settled(own) == ""
    server.trouble = None
    await asyncio.sleep(RETRY_SECONDS)
    assert await settled(own) == "token-2"


async def test_trouble_is_told_once_and_another_attempt_is_not_made_at_once(server: ApiServer, own: OwnToken) -> None:
    server.trouble = PermanentError("Forbidden", 'grant the verb "create" on "serviceaccounts/token"')
    with capture_logs() as logs:
        for _ in range(3 * int(RETRY_SECONDS)):
            assert await own.token() == ""
            await asyncio.sleep(1)
    assert len(server.calls) == 3
    assert ['"serviceaccounts/token"' in it["error"] for it in logs] == [True]


async def test_an_operator_that_is_no_service_account_has_none_and_says_once_what_that_means(
    server: ApiServer, own: OwnToken
) -> None:
    server.user = "kubernetes-admin"
    with capture_logs() as logs:
        for _ in range(5):
            assert await own.token() == ""
            await asyncio.sleep(100)
    assert len(server.calls) == 1
    (told,) = logs
    assert "'kubernetes-admin'" in told["error"]
    assert "--open-reports" in told["error"]


async def test_an_api_server_that_hangs_holds_reports_up_for_a_moment_only(server: ApiServer, own: OwnToken) -> None:
    server.hangs = True
    begun = asyncio.get_running_loop().time()
    assert await own.token() == ""
    assert asyncio.get_running_loop().time() - begun == pytest.approx(WAIT_SECONDS)
    await own.close()


async def test_what_counts_is_the_time_that_the_api_server_gives(server: ApiServer, own: OwnToken) -> None:
    server.lifetime = 600
    await own.token()
    await asyncio.sleep(301)
    assert await settled(own) == "token-2"


@pytest.mark.parametrize("lifetime", [None, 0, -1, "3600", True])
async def test_a_token_of_unknown_lifetime_is_none_and_is_not_told(
    server: ApiServer, own: OwnToken, lifetime: Any
) -> None:
    server.lifetime = lifetime
    with capture_logs() as logs:
        assert await own.token() == ""
    assert len(logs) == 1
    assert "token-1" not in str(logs)


GOOD = {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": USER}}


async def test_a_review_names_token_and_audience(server: ApiServer) -> None:
    server.review = GOOD
    assert await TokenReviews(cast(Transport, server), AUDIENCE).user("abc") == USER
    (call,) = server.calls
    assert call.path == "/apis/authentication.k8s.io/v1/tokenreviews"
    assert cast(dict[str, Any], call.body)["spec"] == {"token": "abc", "audiences": [AUDIENCE]}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False, "error": "expired"},
        {**GOOD, "authenticated": "true"},
        {**GOOD, "audiences": []},
        {**GOOD, "audiences": None},
        {**GOOD, "audiences": ["https://kubernetes.default.svc"]},
        {key: value for key, value in GOOD.items() if key != "audiences"},
    ],
)
async def test_what_is_not_vouched_for_is_nobodys(server: ApiServer, status: dict[str, Any]) -> None:
    server.review = status
    assert await TokenReviews(cast(Transport, server), AUDIENCE).user("abc") == ""


@pytest.mark.parametrize("user", [{}, None, {"username": ""}, {"username": 5}])
async def test_a_good_token_of_nobody_is_a_bad_answer(server: ApiServer, user: Any) -> None:
    server.review = {**GOOD, "user": user}
    with pytest.raises(TemporaryError, match="username"):
        await TokenReviews(cast(Transport, server), AUDIENCE).user("abc")
