"""The one place where what the API server and its client raise becomes one of our errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import OpenApiException
from kubernetes.aio.config import ConfigException

from luban.adapters.kubernetes_api.calls import CONFIG_MAPS, OBJECTS, SECRETS, Call
from luban.errors import Conflict, LubanError, NotFound, PermanentError, TemporaryError

LIBRARY_ERRORS = (aiohttp.ClientError, OSError, OpenApiException, ConfigException, ValueError)
"""Whatever the client may raise while it sends a request and reads the answer."""
_TEXT_LIMIT = 500


class UnavailableError(TemporaryError):
    """The API server cannot be reached, is overloaded, or failed: the same request may succeed in a moment."""

    def __init__(self, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after
        """Seconds that the API server asks us to wait; 0: it does not say."""


def from_exception(call: Call, error: Exception) -> LubanError:
    """Translate what was raised instead of an answer."""
    text = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        remedy = "put the certificate authority of the API server into the kubeconfig"
        return PermanentError("CertificateRefused", f"{call}: {text}; {remedy}")
    if isinstance(error, ConfigException):
        return PermanentError("NoCredentials", f"{call}: {text}; check the kubeconfig or the ServiceAccount's token")
    if isinstance(error, (aiohttp.ClientError, OSError)):
        return UnavailableError("APIServerUnreachable", f"{call}: {text}")
    return TemporaryError("BadAnswer", f"{call}: {text}")


def from_answer(call: Call, status: int, text: str, headers: Mapping[str, str]) -> LubanError:
    """Translate an answer with a status other than 2xx."""
    body = _status_object(text)
    reason = str(body.get("reason") or f"HTTP{status}")
    message = f"{call}: {body.get('message') or text.strip()[:_TEXT_LIMIT] or f'HTTP {status}'}"
    if status == 429 or status >= 500:
        return UnavailableError(reason, message, _seconds(headers.get("Retry-After", "")))
    if status == 404 and not body:
        # Not an object is missing but the whole resource: without the CRD there is not even a Status in the answer.
        remedy = f"the API server does not know {call.resource}: apply the CRDs (kubectl apply -k crds)"
        return PermanentError("UnknownResource", f"{call}: {remedy}")
    if status == 403:
        return _forbidden(call, body, message)
    return _BY_STATUS.get(status, PermanentError)(reason, message)


_BY_STATUS: Mapping[int, type[LubanError]] = {
    # A ServiceAccount's token is renewed on disk and read again within a minute.
    401: TemporaryError,
    404: NotFound,
    408: TemporaryError,
    409: Conflict,
    410: TemporaryError,
}
"""All others are permanent: 422 quotes the rule of ours that the object breaks, 400 and 413 are mistakes of ours."""


def _forbidden(call: Call, body: Mapping[str, Any], message: str) -> LubanError:
    """403 comes from RBAC, which a person must change, or from admission, which says what it wants itself."""
    causes = [cause.get("reason") for cause in (body.get("details") or {}).get("causes") or ()]
    if "NamespaceTerminating" in causes:
        return PermanentError("NamespaceTerminating", message)
    if " cannot " not in message:
        return PermanentError("Forbidden", message)
    return PermanentError("Forbidden", f"{message}; {_grant(call)}")


def _grant(call: Call) -> str:
    """Who gives the right: rights to some kinds are given namespace by namespace."""
    if call.resource in (CONFIG_MAPS, SECRETS, *OBJECTS.values()) and call.namespace:
        return (
            f"bind the ClusterRole luban-operator-namespace to the operator in namespace {call.namespace} "
            "(manifests/tenant, docs/tenants.md)"
        )
    return (
        f'grant the verb "{call.verb}" on "{call.resource.with_subresource}" in the API group '
        f'"{call.resource.group}" (kubectl apply -k manifests/base grants all that the operator needs)'
    )


def _status_object(text: str) -> Mapping[str, Any]:
    """The Status object of an answer; empty if it holds none, as from a proxy or for an unknown path."""
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) and body.get("kind") == "Status" else {}


def _seconds(header: str) -> float:
    """Value of a Retry-After header; 0 for none and for a date."""
    return float(header) if header.isdigit() else 0.0
