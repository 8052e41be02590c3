"""What a balancer agent needs of the Kubernetes API: one ConfigMap, watched, and one Lease, written.

A ConfigMap volume follows a change after 48-67 s; a watch after milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import yaml
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import OpenApiException
from kubernetes.aio.config import ConfigException

from luban.adapters.kubernetes_api.streams import documents
from luban.api import names
from luban.errors import PermanentError, TemporaryError

log = structlog.get_logger(__name__)

WATCH_SECONDS = 60
"""A watch ends after this time and everything is listed anew, so that a watch that died in silence is noticed."""
CALL_SECONDS = 10.0
SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds between the end of a watch and the next list; doubled as long as it ends in errors."""
_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, OpenApiException, TemporaryError, ValueError, KeyError)
"""Whatever may be raised while a request is sent and its answer taken apart."""
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_CONFIG_MAPS = "/api/v1/namespaces/{namespace}/configmaps"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


async def open_api(kubeconfig: str = "") -> ApiClient:
    """A client with the credentials of a kubeconfig; nothing is sent yet.

    `kubeconfig` is a path. Empty: $KUBECONFIG, else inside a Pod its ServiceAccount, else ~/.kube/config.
    Raises PermanentError InvalidKubeconfig.
    """
    configuration = Configuration()
    try:
        if not kubeconfig and "KUBECONFIG" not in os.environ and _in_pod():
            kubernetes_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig or None, client_configuration=configuration, persist_config=False
            )
    # The library takes a kubeconfig apart without checking it first.
    except (*_ERRORS, ConfigException, yaml.YAMLError, TypeError, AttributeError) as error:
        raise PermanentError("InvalidKubeconfig", f"no usable credentials: {error}") from error
    return ApiClient(configuration)


def _in_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and _TOKEN.exists()


class ConfigMapSource:
    """One ConfigMap, followed through every kind of trouble."""

    def __init__(self, api: ApiClient, namespace: str, name: str, *, watch_seconds: int = WATCH_SECONDS) -> None:
        self._api = api
        self._path = _CONFIG_MAPS.format(namespace=namespace)
        self._name = name
        self._watch_seconds = watch_seconds

    async def changes(self) -> AsyncIterator[Mapping[str, str] | None]:
        """The ConfigMap's data now and after each change, None where it is absent; sometimes the same again.

        Never ends and never raises: while the API server is away, nothing comes.
        """
        pause = SHORTEST_PAUSE
        while True:
            try:
                version, data = await self._list()
                yield data
                async for data in self._watch(version):
                    yield data
                pause = SHORTEST_PAUSE
            except _ERRORS as error:
                # 410 Gone is one of these: the list at the top of the loop is the remedy for all.
                log.warning("ConfigMap not readable, trying again", config_map=self._name, error=str(error))
                pause = min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (spreads agents, hides nothing)

    async def _list(self) -> tuple[str, Mapping[str, str] | None]:
        """The collection's version and the ConfigMap's data."""
        answer = await _call(self._api, "GET", self._path, query=self._scope())
        found = answer["items"]
        return answer["metadata"]["resourceVersion"], (found[0].get("data") or {}) if found else None

    async def _watch(self, version: str) -> AsyncIterator[Mapping[str, str] | None]:
        """Changes after `version`, for at most `watch_seconds`."""
        query = self._scope(watch="true", resourceVersion=version, timeoutSeconds=str(self._watch_seconds))
        response = await _send(self._api, "GET", self._path, query=query, timeout=self._watch_seconds + CALL_SECONDS)
        async with response:
            async for event in documents(response):
                if event["type"] == "ERROR":
                    raise TemporaryError("WatchEnded", str(event["object"].get("message")))
                yield None if event["type"] == "DELETED" else event["object"].get("data") or {}

    def _scope(self, **query: str) -> dict[str, str]:
        return {"fieldSelector": f"metadata.name={self._name}", **query}


class EndpointLease:
    """The Lease on which an agent says where it can be asked."""

    def __init__(self, api: ApiClient, namespace: str, cluster: str, index: int) -> None:
        self._api = api
        self._path = _LEASES.format(namespace=namespace)
        self._name = names.balancer_name(cluster, index)
        self._cluster = cluster

    async def announce(self, endpoint: str) -> bool:
        """Make the Lease name `endpoint`. Writes only what differs; False if the API server did not take it."""
        wanted = {
            "labels": {names.LABEL_CLUSTER: self._cluster},
            "annotations": {names.ANNOTATION_AGENT_ENDPOINT: endpoint},
        }
        try:
            found = await _call(self._api, "GET", f"{self._path}/{self._name}", missing=True)
            if not found:
                body = {"metadata": {"name": self._name, **wanted}}
                await _call(self._api, "POST", self._path, body=body)
            elif not _includes(found["metadata"], wanted):
                await _call(self._api, "PATCH", f"{self._path}/{self._name}", body={"metadata": wanted})
        except _ERRORS as error:
            log.warning("endpoint not announced, trying again later", lease=self._name, error=str(error))
            return False
        return True


def _includes(metadata: Mapping[str, Any], wanted: Mapping[str, Mapping[str, str]]) -> bool:
    return all(part.items() <= (metadata.get(key) or {}).items() for key, part in wanted.items())


async def _call(
    api: ApiClient,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Any = None,
    missing: bool = False,
) -> dict[str, Any]:
    """Send a request and return the object of the answer; with `missing` {} for one that is not there."""
    try:
        response = await _send(api, method, path, query=query or {}, body=body, timeout=CALL_SECONDS)
        async with response:
            return dict(await response.json())
    except _NotFoundError:
        if missing:
            return {}
        raise


async def _send(
    api: ApiClient, method: str, path: str, *, query: Mapping[str, str], body: Any = None, timeout: float
) -> aiohttp.ClientResponse:
    """Send a request; the body of the answer is not read yet. Raises TemporaryError for everything but 2xx.

    This is below the client's generated methods: they check and convert every object, and a watch needs neither.
    """
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    method, url, headers, content, _ = await api.param_serialize(
        method,
        path,
        query_params=list(query.items()),
        header_params={"Accept": "application/json", "Content-Type": kind},
        body=body,
        auth_settings=["BearerToken"],
    )
    answer = await api.call_api(method, url, headers, content, _request_timeout=timeout)
    response: aiohttp.ClientResponse = answer.response
    if response.status >= 300:
        text = (await response.text())[:500]
        response.release()
        error = _NotFoundError if response.status == 404 else TemporaryError
        raise error("APIServerRefused", f"{method} {path}: {response.status} {text}")
    return response


class _NotFoundError(TemporaryError):
    """404."""
