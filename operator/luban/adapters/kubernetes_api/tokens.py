"""Tokens for balancer agents: how the operator gets one that says who it is, and how an agent has one checked.

The audience keeps it from being good for anything else: the API server takes no token that was made for another one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import structlog

from luban.adapters.kubernetes_api.calls import Call, Resource
from luban.adapters.kubernetes_api.transport import Transport, open_transport
from luban.api.names import agent_audience
from luban.core.model import ClusterRef
from luban.errors import LubanError, TemporaryError

log = structlog.get_logger(__name__)

LIFETIME_SECONDS = 6 * 3600
"""Asked for. So long, at least half of it, are agents asked while the API server is away; and each cluster's token
costs the API server a request in half of it."""
RETRY_SECONDS = 10.0
"""Between two attempts to get a token."""
WAIT_SECONDS = 1.0
"""A report is held up for so long when there is no token yet."""
DEADLINE_SECONDS = 5.0
REVIEW_SECONDS = 1.5
"""For an answer of TokenReview: the operator waits two seconds for a report."""
REVIEW_CONNECTIONS = 4

_GROUP = "authentication.k8s.io"
SELF = Resource(_GROUP, "v1", "selfsubjectreviews")
TOKEN_REVIEWS = Resource(_GROUP, "v1", "tokenreviews")
ACCOUNT_TOKENS = Resource("", "v1", "serviceaccounts", "token")
_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
NO_ACCOUNT = "its kubeconfig must be one of a ServiceAccount, or agents need --open-reports"


async def connect_own_tokens(kubeconfig: str | None = None) -> OwnTokens:
    """Prepare to get tokens for our own ServiceAccount; nothing is sent yet. To be closed after use.

    `kubeconfig`: as of `connect`. Raises PermanentError InvalidKubeconfig.
    """
    transport = await open_transport(kubeconfig, None, deadline=DEADLINE_SECONDS, connections=1)
    return OwnTokens(transport, asyncio.get_running_loop().time)


class OwnTokens:
    """Tokens of our own ServiceAccount, one for each cluster's agents. `clock`: seconds, of any beginning."""

    def __init__(self, transport: Transport, clock: Callable[[], float]) -> None:
        self._transport, self._clock = transport, clock
        self._account = Account(transport)
        self._tokens: dict[str, OwnToken] = {}
        """By audience."""

    async def token(self, cluster: ClusterRef) -> str:
        """What the cluster's agents are shown; empty: there is nothing now, and the log says why."""
        audience = agent_audience(cluster.namespace, cluster.name)
        if audience not in self._tokens:
            # Those of clusters that are gone end by themselves.
            self._tokens = {name: token for name, token in self._tokens.items() if not token.over}
            self._tokens[audience] = OwnToken(self._transport, self._clock, audience, self._account)
        return await self._tokens[audience].token()

    def refused(self, cluster: ClusterRef) -> None:
        """Agents call the token bad: the ServiceAccount, or the key that signs for it, is another one now."""
        if (token := self._tokens.get(agent_audience(cluster.namespace, cluster.name))) is not None:
            token.refused()

    async def close(self) -> None:
        """Ask for no more, and close all connections."""
        await asyncio.gather(*(token.close() for token in self._tokens.values()))
        await self._transport.close()


class Account:
    """Which ServiceAccount we are."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._asking = asyncio.Lock()
        self._user = ""

    async def name(self) -> tuple[str, str] | None:
        """Its namespace and name; None: we are none. Raises LubanError if the API server does not say."""
        match = _ACCOUNT.fullmatch(await self.user())
        return (match[1], match[2]) if match else None

    async def user(self) -> str:
        """Who we are. Raises LubanError if the API server does not say."""
        async with self._asking:
            if not self._user:
                answer = await self._transport.send(Call("create", SELF, "", body=_body(SELF, "SelfSubjectReview", {})))
                self._user = _text(answer, "status", "userInfo", "username")
        return self._user


class OwnToken:
    """A token for one audience, made anew when half of its time is over. `clock`: seconds, of any beginning."""

    def __init__(self, transport: Transport, clock: Callable[[], float], audience: str, account: Account) -> None:
        self._transport = transport
        self._clock = clock
        self._audience = audience
        self._account = account
        self._token = ""
        self._due = self._end = self._asked = float("-inf")
        """When to ask for another, and when this one is good no more."""
        self._renewal: asyncio.Task[None] | None = None
        self._logged = ""

    async def token(self) -> str:
        """The token; empty: there is none now, and the log says why. Waits for the first one alone, and not long."""
        renewing = self._renewal is not None and not self._renewal.done()
        if not renewing and self._clock() >= self._due:
            self._renewal = asyncio.create_task(self._renew())
        if self._clock() >= self._end and self._renewal is not None:
            await asyncio.wait([self._renewal], timeout=WAIT_SECONDS)
        return self._token if self._clock() < self._end else ""

    async def close(self) -> None:
        """Ask for no more."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    def refused(self) -> None:
        """Ask for another as soon as one may be asked for again."""
        self._due = min(self._due, self._asked + RETRY_SECONDS)

    @property
    def over(self) -> bool:
        """Whether it is good no more, and nobody asks for another."""
        return self._clock() >= self._end and (self._renewal is None or self._renewal.done())

    async def _renew(self) -> None:
        """Get another token; the one that there is stays until its end if there is none to be had."""
        begun = self._clock()
        self._asked, self._due = begun, begun + RETRY_SECONDS
        try:
            account = await self._account.name()
            if account is None:
                self._tell(
                    f"the operator is {await self._account.user()!r}, no ServiceAccount, and can get none: {NO_ACCOUNT}"
                )
                self._due = float("inf")
                return
            token, lifetime = await self._request(*account)
        except LubanError as error:
            self._tell(error.message)
            return
        self._token, self._end, self._due = token, begun + lifetime, begun + lifetime / 2
        self._logged = ""

    async def _request(self, namespace: str, name: str) -> tuple[str, float]:
        """A new token, and for how many seconds it is good. Counted from our request on, no clock but ours matters."""
        spec = {"audiences": [self._audience], "expirationSeconds": LIFETIME_SECONDS}
        body = _body(ACCOUNT_TOKENS, "TokenRequest", spec)
        answer = await self._transport.send(Call("create", ACCOUNT_TOKENS, namespace, name, body=body))
        # An API server may be told to give shorter ones (--service-account-max-token-expiration); then it says so.
        lifetime = (answer.get("spec") or {}).get("expirationSeconds")
        if type(lifetime) is not int or lifetime <= 0:
            raise TemporaryError("BadAnswer", f"TokenRequest: for how long the token is good is not told: {lifetime!r}")
        return _text(answer, "status", "token"), float(lifetime)

    def _tell(self, why: str) -> None:
        if why != self._logged:
            self._logged = why
            log.warning("no token for balancer agents: those that ask for one refuse to report", error=why)


async def connect_token_reviews(audience: str, kubeconfig: str | None = None) -> TokenReviews:
    """Prepare to have tokens for an audience checked; nothing is sent yet. To be closed after use.

    `kubeconfig`: as of `connect`. Raises PermanentError InvalidKubeconfig.
    """
    deadline, connections = REVIEW_SECONDS, REVIEW_CONNECTIONS
    return TokenReviews(await open_transport(kubeconfig, None, deadline=deadline, connections=connections), audience)


class TokenReviews:
    """Asks the API server whose tokens are."""

    def __init__(self, transport: Transport, audience: str) -> None:
        self._transport, self._audience = transport, audience

    async def user(self, token: str) -> str:
        """Whose token it is; empty: it is not good, or not for the audience.

        Raises a LubanError if the API server does not say.
        """
        body = _body(TOKEN_REVIEWS, "TokenReview", {"token": token, "audiences": [self._audience]})
        answer = await self._transport.send(Call("create", TOKEN_REVIEWS, "", body=body))
        status = answer.get("status") or {}
        # One that knows nothing of audiences returns none: the token may then be good for anything.
        if status.get("authenticated") is not True or self._audience not in (status.get("audiences") or ()):
            return ""
        return _text(answer, "status", "user", "username")

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()


def _body(resource: Resource, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    # A token is asked for at an object of the core group, and is none of it itself.
    return {"apiVersion": f"{_GROUP}/{resource.version}", "kind": kind, "spec": spec}


def _text(answer: Any, *path: str) -> str:
    """A text in an answer. Raises TemporaryError BadAnswer if it is not there; the answer stays out, as tokens do."""
    found = answer
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str) or not found:
        raise TemporaryError("BadAnswer", f"the API server's answer has no {'.'.join(path)}")
    return found
