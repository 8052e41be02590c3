"""kopf's side: LubanClusters, and which handler hands them to the manager."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import kopf

from luban.api import names
from luban.controller.manager import Manager

DELETION_RETRY_SECONDS = 10.0
"""A deletion that was broken off goes on after so long, if this operator still acts then."""
WATCH_SECONDS = 240, 360
"""A watch ends after a time between these, and begins anew; the API server takes whole seconds alone."""
REFUSED_SPEC_SECONDS = 5.0
"""A spec that cannot be read is looked at again after so long."""


class NoProgress(kopf.AnnotationsProgressStorage):
    """How far a handler is, is not written on the object: whatever was half done is taken up from observation.

    Each such write would change the LubanCluster under our status, and the time that it names is of a clock that may be
    set back. Annotations of earlier versions are removed, and kopf may still touch an object to hear of it again.
    """

    def fetch(self, **_: Any) -> None:
        """Nothing was begun."""

    def store(self, **_: Any) -> None:
        """See above."""


def plain(body: Any) -> dict[str, Any]:
    """A kopf body as a plain dict that does not change under us."""
    copied: dict[str, Any] = json.loads(json.dumps(dict(body)))
    return copied


def build_registry(manager: Manager) -> kopf.OperatorRegistry:
    """A registry with all handlers; kopf's global one stays empty, so that tests can have several operators."""
    registry = kopf.OperatorRegistry()
    _configure(registry)
    _on_clusters(registry, manager)
    return registry


def _configure(registry: kopf.OperatorRegistry) -> None:
    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        # Events about our objects are made in runtime/events.py, on transitions only.
        settings.posting.enabled = False
        settings.persistence.finalizer = names.FINALIZER_CLUSTER
        settings.persistence.progress_storage = NoProgress(prefix="kopf.luban.cloud")
        settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.luban.cloud")
        # All begin with a list of everything: not at the same time in all operators.
        settings.watching.server_timeout = random.randint(*WATCH_SECONDS)  # noqa: S311 (hides nothing)
        settings.watching.connect_timeout = 10
        settings.watching.reconnect_backoff = 1
        settings.networking.error_backoffs = [0.2, 0.5, 1, 2, 5]

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


async def _reconcile(manager: Manager, body: kopf.Body, stopped: asyncio.Event) -> bool:
    """Tick until `stopped` or the end; returns whether the cluster is gone. kopf comes back for an unreadable spec."""
    try:
        return await manager.reconcile(plain(body), stopped)
    except ValueError as error:
        await manager.refuse(plain(body), error)
        raise kopf.TemporaryError("spec refused", delay=REFUSED_SPEC_SECONDS) from error


def _on_clusters(registry: kopf.OperatorRegistry, manager: Manager) -> None:
    resource = (names.GROUP, names.VERSION, names.CLUSTERS)

    @kopf.daemon(*resource, registry=registry, id="reconcile", cancellation_backoff=5.0, cancellation_timeout=5.0)
    async def reconcile(body: kopf.Body, stopped: kopf.DaemonStopped, **_: Any) -> None:
        flag = asyncio.Event()
        ticking = asyncio.ensure_future(_reconcile(manager, body, flag))
        waiting = asyncio.ensure_future(stopped.wait())
        await asyncio.wait({ticking, waiting}, return_when=asyncio.FIRST_COMPLETED)
        flag.set()
        waiting.cancel()
        await ticking

    @kopf.on.delete(*resource, registry=registry, id="delete")
    async def delete(body: kopf.Body, **_: Any) -> None:
        """Drain and remove (or orphan) everything; kopf keeps the finalizer until this returns without an error."""
        if not await manager.delete(plain(body)):
            raise kopf.TemporaryError("VMs are left", delay=DELETION_RETRY_SECONDS)

    @kopf.on.event(*resource, registry=registry, id="changed")
    async def changed(body: kopf.Body, **kwargs: Any) -> None:
        if kwargs["event"]["type"] == "DELETED":
            manager.forget(body["metadata"]["uid"])
        else:
            manager.changed(plain(body))
