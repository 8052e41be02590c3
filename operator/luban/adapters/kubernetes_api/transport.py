"""How a request reaches the API server: credentials, deadline, retries; answers as plain dicts."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from luban.adapters.kubernetes_api.calls import Call
from luban.adapters.kubernetes_api.errors import LIBRARY_ERRORS, UnavailableError, from_answer, from_exception
from luban.adapters.kubernetes_api.streams import documents
from luban.api import names
from luban.errors import NotLeader, PermanentError, TemporaryError

DEADLINE = 10.0
"""Seconds for a call with all its retries."""
CONNECT_TIMEOUT = 3.0
"""Seconds for one attempt to connect, so that a lost packet leaves time for another attempt."""
ATTEMPTS = 4
BACKOFF = 0.2
"""Seconds: the first wait is random below this, each further one below twice the one before."""
LONGEST_WAIT = 2.0
"""Seconds between two attempts at most, whatever the API server asks for."""
_POD_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Transport:
    """Sends calls. One connection pool, to be closed after use."""

    def __init__(
        self,
        api: ApiClient,
        *,
        deadline: float = DEADLINE,
        backoff: float = BACKOFF,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._api = api
        self._may_write = may_write
        self._api.user_agent = names.FIELD_MANAGER
        self._deadline = deadline
        self._backoff = wait_random_exponential(multiplier=backoff, max=LONGEST_WAIT)

    async def send(self, call: Call) -> dict[str, Any]:
        """Send a call and return the answer's object. Raises a LubanError for everything but 2xx, after `deadline` too.

        Nothing is written, nor written again, while another operator may be the one that acts: raises NotLeader.
        Idempotent calls are sent again after connection errors, 429 and 5xx; others never, for nobody knows whether
        a lost request was carried out.
        """
        try:
            async with asyncio.timeout(self._deadline):
                return await self._send_again(call) if call.idempotent else await self._send_once(call)
        except TimeoutError as error:
            raise TemporaryError("Timeout", f"{call}: not done within {self._deadline:g} s") from error

    @asynccontextmanager
    async def watch(self, call: Call, *, silence: float) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Open a watch; gives its events until the API server ends it.

        Raises a LubanError if it cannot be opened, breaks, or says nothing for `silence` seconds.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        try:
            response = await self._open(call, timeout)
            try:
                if response.status >= 300:
                    content = await response.read()
                    raise from_answer(call, response.status, content.decode(errors="replace"), response.headers)
                yield documents(response)
            finally:
                _cut(response)
        except LIBRARY_ERRORS as error:
            raise from_exception(call, error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def _send_again(self, call: Call) -> dict[str, Any]:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=self._wait,
            retry=retry_if_exception_type(UnavailableError),
            reraise=True,
        )
        return await retrying(self._send_once, call)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: what the API server asks for, or a growing random time."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, UnavailableError) else 0.0
        return min(max(asked, self._backoff(state)), LONGEST_WAIT)

    async def _send_once(self, call: Call) -> dict[str, Any]:
        if call.writes and not self._may_write():
            raise NotLeader("NotLeader", f"{call}: not sent, another operator may be the one that acts")
        try:
            status, text, headers = await self._exchange(call)
            answer = json.loads(text) if status < 300 else {}
        except TimeoutError as error:
            raise UnavailableError(
                "APIServerUnreachable", f"{call}: no connection within {CONNECT_TIMEOUT:g} s"
            ) from error
        except LIBRARY_ERRORS as error:
            raise from_exception(call, error) from error
        if status >= 300:
            raise from_answer(call, status, text, headers)
        return dict(answer)

    async def _exchange(self, call: Call) -> tuple[int, str, Any]:
        """Status, text and headers of the answer."""
        response = await self._open(call, aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT))
        content = await response.read()
        return response.status, content.decode(errors="replace"), response.headers

    async def _open(self, call: Call, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """Send the request; the body of the answer is not read yet.

        This is below the client's generated methods: those parse answers into objects, and we want what was sent.
        """
        method, url, headers, body, _ = await self._api.param_serialize(
            call.method,
            call.path,
            path_params={"namespace": call.namespace, "name": call.name},
            query_params=list(call.query.items()),
            header_params={"Accept": "application/json", "Content-Type": call.content_type},
            body=call.body,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(method, url, headers, body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response


def _cut(response: aiohttp.ClientResponse) -> None:
    """End a connection in the middle of an answer that has no end. A farewell by TLS would outlive the loop."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def open_transport(
    kubeconfig: str | None,
    context: str | None,
    *,
    deadline: float = DEADLINE,
    may_write: Callable[[], bool] = lambda: True,
    connections: int | None = None,
) -> Transport:
    """Read credentials; nothing is sent yet. `connections`: at most so many at a time; None: the client's own limit.

    `kubeconfig` is a path. None: $KUBECONFIG, else inside a Pod its ServiceAccount, else ~/.kube/config.
    Raises PermanentError InvalidKubeconfig.
    """
    if _means_pod(kubeconfig, context):
        configuration = _from_pod()
    else:
        configuration = await _from_file(kubeconfig_path(kubeconfig), context)
    if connections is not None:
        configuration.connection_pool_maxsize = connections
    return Transport(ApiClient(configuration), deadline=deadline, may_write=may_write)


def pod_namespace(kubeconfig: str | None, context: str | None) -> str | None:
    """The Pod's own namespace, where its ServiceAccount would be used; None: it would not."""
    return _POD_TOKEN.with_name("namespace").read_text().strip() if _means_pod(kubeconfig, context) else None


def _means_pod(kubeconfig: str | None, context: str | None) -> bool:
    return kubeconfig is None and "KUBECONFIG" not in os.environ and context is None and _in_pod()


def _in_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and _POD_TOKEN.exists()


def _from_pod() -> Configuration:
    configuration = Configuration()
    kubernetes_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    return configuration


def kubeconfig_path(kubeconfig: str | None) -> str:
    """Where the kubeconfig is: as given, or as kubectl looks for it. May be a list, as $KUBECONFIG.

    Raises PermanentError InvalidKubeconfig if no file is there.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(Path(part).expanduser().exists() for part in path.split(os.pathsep) if part):
        raise PermanentError("InvalidKubeconfig", f"{path} is not there: give the path of a kubeconfig")
    return path


async def _from_file(path: str, context: str | None) -> Configuration:
    configuration = Configuration()
    try:
        await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=path, context=context, client_configuration=configuration, persist_config=False
        )
    # The library takes a kubeconfig apart without checking it first: a broken one raises nearly anything.
    except (*LIBRARY_ERRORS, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise PermanentError("InvalidKubeconfig", f"{path} cannot be used as a kubeconfig: {error}") from error
    return configuration
