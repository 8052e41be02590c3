"""A deletion as kopf itself processes it: what it writes on the object, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
import pytest
from kopf._cogs.clients import api
from kopf._cogs.structs.ephemera import AnyMemo
from kopf._cogs.structs.references import Resource
from kopf._core.actions import lifecycles
from kopf._core.engines.indexing import OperatorIndexers
from kopf._core.reactor.inventory import ResourceMemories
from kopf._core.reactor.processing import process_resource_event

from luban.api import names
from luban.controller import handlers
from luban.controller.handlers import build_registry

pytestmark = pytest.mark.looptime(end=7200)

RESOURCE = Resource(names.GROUP, names.VERSION, names.CLUSTERS, "LubanCluster", namespaced=True)


class Deletion:
    """Stands for the manager: a deletion that takes an hour, unless it is broken off before."""

    def __init__(self) -> None:
        self.done = True

    async def delete(self, _body: dict[str, Any]) -> bool:
        """See Manager."""
        await asyncio.sleep(3600)
        return self.done

    def changed(self, _body: dict[str, Any]) -> None:
        """See Manager."""


class Kopf:
    """kopf, up to its client."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patches: list[Any] = []
        self.deletion = Deletion()
        self._registry = build_registry(self.deletion)  # type: ignore[arg-type]
        monkeypatch.setattr(api, "patch", self._patch)

    async def _patch(self, *, payload: Any, **_: Any) -> dict[str, Any]:
        self.patches.append(payload)
        return {}

    async def hear(self, annotations: dict[str, str] | None = None) -> None:
        """A LubanCluster that is to be deleted, as a watch tells of it."""
        settings = kopf.OperatorSettings()
        (configure,) = (it.fn for it in self._registry._activities.get_all_handlers() if it.id.endswith("configure"))
        await configure(settings=settings)  # type: ignore[call-arg,misc]
        metadata = {"name": "luban", "namespace": "team-a", "uid": "u1", "resourceVersion": "7"}
        marks = {"finalizers": [names.FINALIZER_CLUSTER], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        body = {"metadata": {**metadata, **marks, "annotations": annotations or {}}, "spec": {}}
        await process_resource_event(
            lifecycle=lifecycles.all_at_once,
            indexers=OperatorIndexers(),
            registry=self._registry,
            settings=settings,
            memories=ResourceMemories(),
            memobase=AnyMemo(kopf.Memo()),
            resource=RESOURCE,
            raw_event={"type": "MODIFIED", "object": body},  # type: ignore[typeddict-item]
            event_queue=asyncio.Queue(),
        )


def finalizer_off(patch: Any) -> bool:
    """Whether it takes the finalizer off."""
    paths = ("/metadata/finalizers", "/metadata/finalizers/0")
    return isinstance(patch, list) and any(it["op"] == "remove" and it["path"] in paths for it in patch)


async def test_the_finalizer_goes_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Kopf(monkeypatch)
    await it.hear()
    assert finalizer_off(it.patches[-1])
    assert not any(names.FINALIZER_CLUSTER in str(patch) for patch in it.patches[:-1])


async def test_it_stays_when_the_deletion_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Kopf(monkeypatch)
    it.deletion.done = False
    begun = asyncio.get_running_loop().time()
    await it.hear()
    assert asyncio.get_running_loop().time() - begun == pytest.approx(3600 + handlers.DELETION_RETRY_SECONDS, abs=1)
    (touch,) = it.patches
    assert list(touch["metadata"]["annotations"]) == ["kopf.luban.cloud/touch-dummy"], (
        "to hear of it again, and no more"
    )


async def test_a_time_that_an_earlier_version_wrote_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock may have been ahead of ours."""
    it = Kopf(monkeypatch)
    times = '"started":"2026-01-01T00:00:00.000000+00:00","delayed":"2999-01-01T00:00:00.000000+00:00"'
    progress = f'{{{times},"purpose":"delete","retries":7}}'
    await it.hear({"kopf.luban.cloud/delete": progress})
    assert finalizer_off(it.patches[-1])
    assert it.patches[0]["metadata"]["annotations"]["kopf.luban.cloud/delete"] is None
