"""What the API server holds of one resource: listed once, followed by a watch, with our own writes in it at once.

A watch lags a little behind. What we write ourselves is merged by resourceVersion, so that nobody who reads here sees
less than we did. While the watch is not open nothing is known: whoever asks must ask the API server.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from luban.adapters.kubernetes_api.calls import Call, Resource
from luban.adapters.kubernetes_api.transport import Transport
from luban.errors import LubanError, PermanentError, TemporaryError

log = structlog.get_logger(__name__)

Body = dict[str, Any]
Told = Callable[[Body, bool], None]
"""Is told of each object, as it is now, and whether it is gone. Not to be changed."""

WATCH_SECONDS = 240, 360
"""A watch ends after a time between these and goes on where it was; not all operators' at the same time."""
SILENCE_SECONDS = 90.0
"""The API server sends a bookmark about once a minute: a watch that says nothing for so long is dead."""
GAP_SECONDS = 2.0
"""So long between two watches what is known still holds."""
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
"""Seconds before a watch that failed is opened anew: doubled with each further failure in a row."""
MOST_PARTS = 1_000
"""So many different parts that objects share are remembered."""
SHORT_TEXT = 64
"""Characters of a text that may be in many objects."""
PAGE = 500
"""Objects in one answer to a list; the rest follows in further ones."""


@dataclass(frozen=True)
class Index:
    """One thing that objects are looked up by."""

    field: str
    """As a field selector names it."""
    value: Callable[[Mapping[str, Any]], str]
    across: bool = False
    """In all namespaces at once; else in one."""

    def key(self, namespace: str, value: str) -> tuple[str, str, str]:
        """Under which objects stand."""
        return self.field, "" if self.across else namespace, value


@dataclass(frozen=True)
class Scope:
    """Which objects are followed."""

    resource: Resource
    namespace: str
    """Empty: all namespaces."""
    selector: str = ""
    """Label selector; empty: all of them."""
    indexes: tuple[Index, ...] = ()
    """What objects are looked up by."""
    keeps: Callable[[Mapping[str, Any]], bool] = lambda _body: True
    """Whether an object is one of those that are asked for. Others take no memory, whoever made them."""
    shared: tuple[str, str] | None = None
    """Where objects have a part that many have alike, and that is most of what they take: it is kept once."""
    page: int = PAGE
    """Objects in one answer to a list."""

    def __str__(self) -> str:
        return f"{self.resource} in {self.namespace or 'all namespaces'}"


@dataclass
class Store:
    """Objects by namespace and name, and by what else they are looked up by."""

    scope: Scope
    _objects: dict[tuple[str, str], Body] = field(default_factory=dict)
    _found: defaultdict[tuple[str, str, str], set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    """By index, namespace and value: namespace and name."""
    _gone: set[str] = field(default_factory=set)
    """UIDs of objects that we know to be gone although the watch may still speak of them."""
    _parts: dict[str, Any] = field(default_factory=dict)
    """Parts that many objects have, by how they are written."""
    _listeners: list[Told] = field(default_factory=list)

    def get(self, namespace: str, name: str) -> Body | None:
        """One object. Not to be changed."""
        return self._objects.get((namespace, name))

    def tell(self, listener: Told) -> None:
        """Tell of all that there is now, and of every change from now on."""
        for body in list(self._objects.values()):
            self._say(listener, body, gone=False)
        self._listeners.append(listener)

    def select(self, field: str, namespace: str, value: str) -> list[Body]:
        """All objects with a value, by namespace and name. Not to be changed."""
        (index,) = (it for it in self.scope.indexes if it.field == field)
        return [self._objects[key] for key in sorted(self._found.get(index.key(namespace, value), ()))]

    def put(self, body: Body) -> None:
        """An object as it was read, written or told of. What is older than what is known changes nothing."""
        metadata = body["metadata"]
        known = self.get(*_place(body))
        if not self.scope.keeps(body):
            self._drop(known)
            return
        if _is_gone(body):
            self.remove(*_place(body), metadata["uid"])
            return
        if metadata["uid"] in self._gone or (known is not None and version_of(known) >= version_of(body)):
            return
        self._forget(known)
        # A third of an object, which nobody reads.
        lean = {**body, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
        lean = self._with_shared_part(_with_shared_texts(lean))
        self._objects[_place(body)] = lean
        for key in self._keys(body):
            self._found[key].add(_place(body))
        self._notify(lean, gone=False)

    def _with_shared_part(self, body: Body) -> Body:
        outer, inner = self.scope.shared or ("", "")
        part = (body.get(outer) or {}).get(inner)
        if part is None:
            return body
        if len(self._parts) >= MOST_PARTS:
            self._parts.clear()
        return {**body, outer: {**body[outer], inner: self._parts.setdefault(json.dumps(part, sort_keys=True), part)}}

    def _keys(self, body: Body) -> list[tuple[str, str, str]]:
        return [it.key(_place(body)[0], it.value(body)) for it in self.scope.indexes]

    def _notify(self, body: Body, *, gone: bool) -> None:
        for listener in self._listeners:
            self._say(listener, body, gone=gone)

    def _say(self, listener: Told, body: Body, *, gone: bool) -> None:
        try:
            listener(body, gone)
        except Exception:  # What is known must not depend on what others make of it.
            log.exception("not taken in by a fault of the operator", what=str(self.scope))

    def remove(self, namespace: str, name: str, uid: str) -> None:
        """An object is gone. The watch may tell of earlier changes of it yet."""
        self._gone.add(uid)
        known = self.get(namespace, name)
        if known is not None and known["metadata"]["uid"] == uid:
            self._drop(known)

    def told_gone(self, body: Body) -> None:
        """The watch says that an object is gone: it says no more of it."""
        uid = body["metadata"]["uid"]
        self.remove(*_place(body), uid)
        self._gone.discard(uid)

    def replace(self, bodies: list[Body], version: int) -> None:
        """A list of all objects, as of a version. What we wrote later than that stays."""
        listed = {_place(body) for body in bodies}
        for key, known in list(self._objects.items()):
            if key not in listed and version_of(known) <= version:
                self._drop(known)
        self._gone &= {body["metadata"]["uid"] for body in bodies}
        for body in bodies:
            self.put(body)

    def _drop(self, body: Body | None) -> None:
        """An object is gone, or is none of those that are asked for any more."""
        if body is not None:
            self._forget(body)
            self._notify(body, gone=True)

    def _forget(self, body: Body | None) -> None:
        if body is None:
            return
        del self._objects[_place(body)]
        for key in self._keys(body):
            self._found[key].discard(_place(body))
            if not self._found[key]:
                del self._found[key]


def _with_shared_texts(value: Any) -> Any:
    """The same with each short text once, whatever it stands in: every answer comes with its own."""
    if isinstance(value, dict):
        return {sys.intern(key): _with_shared_texts(it) for key, it in value.items()}
    if isinstance(value, list):
        return [_with_shared_texts(it) for it in value]
    return sys.intern(value) if isinstance(value, str) and len(value) <= SHORT_TEXT else value


def _place(body: Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name. Objects of the whole cluster have no namespace."""
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _is_gone(body: Mapping[str, Any]) -> bool:
    """Whether nothing keeps an object that is to be deleted: whoever shows it has just taken away what did."""
    return bool(body["metadata"].get("deletionTimestamp")) and not body["metadata"].get("finalizers")


def version_of(body: Mapping[str, Any]) -> int:
    """An object's resourceVersion: one of the same resource that is greater is later (Kubernetes promises it since
    1.35, and etcd's revisions always were)."""
    return int(body["metadata"]["resourceVersion"])


class Informer:
    """Follows one scope until it is closed."""

    def __init__(self, transport: Transport, scope: Scope, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.scope, self.store = scope, Store(scope)
        self._transport, self._monotonic = transport, monotonic
        self._version = ""
        """Up to where everything is known; empty: nothing is."""
        self._open = False
        self._answered = asyncio.Event()
        """Set once the objects were listed, or may not be."""
        self._until = float("-inf")
        self._task = asyncio.ensure_future(self._run())

    def merge(self, body: Body) -> None:
        """An answer to a write of ours. What the watch has told by now is not undone by it."""
        # One that this write ended keeps the version it had before.
        if _is_gone(body) or not self._version or version_of(body) > int(self._version):
            self.store.put(body)

    async def tell(self, listener: Told) -> None:
        """Tell of all objects, before this returns, and of every change until it is closed.

        Where they may not be listed it returns too, and tells of them once they may: all else goes on without.
        """
        self.store.tell(listener)
        await self._answered.wait()

    @property
    def current(self) -> bool:
        """Whether what is known holds now."""
        return self._open or self._monotonic() < self._until

    async def close(self) -> None:
        """Follow no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._follow()
                pause = FIRST_PAUSE
            except PermanentError as error:
                # All go on without it, by asking for each object; so nothing of this is repeated every second.
                pause = self._failed(error, LAST_PAUSE)
                self._answered.set()
            except LubanError as error:
                pause = self._failed(error, min(2 * pause, LAST_PAUSE))
            except Exception as error:
                log.exception("watch failed by a fault of ours", what=str(self.scope), error=str(error))
                pause = self._failed(None, LAST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (spreads operators, hides nothing)

    def _failed(self, error: LubanError | None, pause: float) -> float:
        self._version, self._until = "", float("-inf")
        if error is not None:
            log.warning("watch failed, it begins anew", what=str(self.scope), reason=error.reason, error=error.message)
        return pause

    async def _follow(self) -> None:
        """One watch, after a list if nothing is known yet. Raises LubanError if it broke, or what is known is too
        old to go on from."""
        if not self._version:
            await self._list()
        async with self._transport.watch(self._watch(), silence=SILENCE_SECONDS) as events:
            self._open = True
            try:
                async for event in events:
                    self._heard(event)
            finally:
                self._open, self._until = False, self._monotonic() + GAP_SECONDS

    async def _list(self) -> None:
        bodies: list[Body] = []
        going_on: dict[str, str] = {}
        while True:
            query = {**self._query(), "limit": str(self.scope.page), **going_on}
            answer = await self._transport.send(Call("list", self.scope.resource, self.scope.namespace, query=query))
            bodies += filter(self.scope.keeps, answer["items"])
            if not (token := answer["metadata"].get("continue")):
                break
            going_on = {"continue": token}
        self._version = answer["metadata"]["resourceVersion"]
        self.store.replace(bodies, int(self._version))
        self._answered.set()

    def _watch(self) -> Call:
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 (spreads operators, hides nothing)
        query = {
            **self._query(),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        }
        return Call("list", self.scope.resource, self.scope.namespace, query=query)

    def _query(self) -> dict[str, str]:
        return {"labelSelector": self.scope.selector} if self.scope.selector else {}

    def _heard(self, event: Mapping[str, Any]) -> None:
        body = event.get("object") or {}
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                self.store.put(body)
            case "DELETED":
                self.store.told_gone(body)
            case "ERROR":
                raise TemporaryError("WatchEnded", f"{self.scope}: {body.get('message')}")
        self._version = body["metadata"]["resourceVersion"]
