"""What kopf hears is handed to the manager: each handler as kopf calls it, with a manager that takes notes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import kopf
import pytest

from luban.api import names
from luban.controller import handlers
from luban.controller.handlers import WATCH_SECONDS, build_registry

pytestmark = pytest.mark.looptime(end=600)

CLUSTER = {"metadata": {"name": "luban", "namespace": "team-a", "uid": "u1"}, "spec": {}}


class Notes:
    """Stands for the manager."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.is_over = False
        self.error: ValueError | None = None

    async def reconcile(self, body: dict[str, Any], stopped: asyncio.Event) -> bool:
        self.calls.append(("reconcile", body["metadata"]["name"]))
        if self.error is not None:
            raise self.error
        if not self.is_over:
            await stopped.wait()
        return self.is_over

    async def delete(self, body: dict[str, Any]) -> bool:
        self.calls.append(("delete", body["metadata"]["name"]))
        return self.is_over

    async def refuse(self, body: dict[str, Any], error: ValueError) -> None:
        self.calls.append(("refuse", str(error)))

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((name, *arguments))


class Side:
    """A registry, and its handlers by id."""

    def __init__(self) -> None:
        self.notes = Notes()
        self.registry = build_registry(self.notes)  # type: ignore[arg-type]
        parts = ("_activities", "_indexing", "_watching", "_spawning", "_changing")
        found = [handler for part in parts for handler in getattr(self.registry, part).get_all_handlers()]
        self._handlers = {handler.id.rpartition(".")[2]: handler.fn for handler in found}

    async def call(self, name: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
        return await self._handlers[name](body=body, **more)

    async def hear(self, name: str, type_: str | None, body: dict[str, Any]) -> None:
        """An event of a watch."""
        await self.call(name, body, event={"type": type_, "object": body})


@pytest.fixture
def side() -> Side:
    return Side()


async def test_a_changed_cluster(side: Side) -> None:
    await side.hear("changed", None, CLUSTER)
    await side.hear("changed", "MODIFIED", CLUSTER)
    await side.hear("changed", "DELETED", CLUSTER)
    assert side.notes.calls == [("changed", CLUSTER), ("changed", CLUSTER), ("forget", "u1")]


async def test_the_daemon_ends_with_the_tick_that_it_is_in(side: Side) -> None:
    stopped = asyncio.Event()
    daemon = asyncio.ensure_future(side.call("reconcile", CLUSTER, stopped=stopped))
    await asyncio.sleep(60)
    assert not daemon.done()
    stopped.set()
    await daemon
    assert side.notes.calls == [("reconcile", "luban")]


async def test_a_spec_that_is_refused_is_told_and_tried_again(side: Side) -> None:
    side.notes.error = ValueError("no hosts")
    with pytest.raises(kopf.TemporaryError) as caught:
        await side.call("reconcile", CLUSTER, stopped=asyncio.Event())
    assert caught.value.delay == handlers.REFUSED_SPEC_SECONDS
    assert side.notes.calls[-1] == ("refuse", "no hosts")


async def test_a_deletion_goes_on_until_nothing_is_left(side: Side) -> None:
    with pytest.raises(kopf.TemporaryError) as caught:
        await side.call("delete", CLUSTER)
    assert caught.value.delay == handlers.DELETION_RETRY_SECONDS
    side.notes.is_over = True
    await side.call("delete", CLUSTER)
    assert side.notes.calls == [("delete", "luban")] * 2


async def test_kopf_is_set_up_for_us(side: Side) -> None:
    seen = set()
    for _ in range(20):
        settings = kopf.OperatorSettings()
        await side.call("configure", settings=settings)
        assert settings.persistence.finalizer == names.FINALIZER_CLUSTER
        assert settings.posting.enabled is False
        timeout = settings.watching.server_timeout
        assert isinstance(timeout, int), "the API server refuses fractions"
        assert WATCH_SECONDS[0] <= timeout <= WATCH_SECONDS[1]
        seen.add(timeout)
    assert len(seen) > 1, "not all operators list everything at the same moment"


def test_a_body_is_copied() -> None:
    body = {"metadata": {"labels": {"a": "b"}}}
    copied = handlers.plain(body)
    body["metadata"]["labels"]["a"] = "c"
    assert copied == {"metadata": {"labels": {"a": "b"}}}
