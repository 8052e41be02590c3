"""What is followed by watches: never less than we wrote ourselves, and nothing at all while no watch is open."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from luban.adapters.kubernetes_api.cache import VM_INDEXES, Cache
from luban.adapters.kubernetes_api.calls import CONFIG_MAPS, HOSTS, VMS, Call
from luban.adapters.kubernetes_api.informer import GAP_SECONDS, LAST_PAUSE, Informer, Scope, Store
from luban.adapters.kubernetes_api.transport import Transport
from luban.api import names
from luban.errors import LubanError, NotFound, PermanentError, TemporaryError

pytestmark = pytest.mark.looptime(end=3600)

Body = dict[str, Any]
MINE = Call("list", VMS, "shop", query={"fieldSelector": "spec.clusterName=luban"}, may_lag=True)


def vm(name: str, version: int, *, uid: str = "", cluster: str = "luban", host: str = "host", **metadata: Any) -> Body:
    known = {"namespace": "shop", "name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"kind": "LubanVM", "metadata": {**known, **metadata}, "spec": {"clusterName": cluster, "host": host}}


def config_map(version: int, name: str = "b", **labels: str) -> Body:
    known = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": {**known, "labels": labels}, "data": {"version": str(version)}}


class Server:
    """An API server that holds what the test says, behind a transport."""

    def __init__(self, *bodies: Body, version: int = 10) -> None:
        self.bodies, self.version = list(bodies), version
        self.calls: list[Call] = []
        self.watches: list[Call] = []
        self.events: asyncio.Queue[Body | Exception | None] = asyncio.Queue()
        self.refusals: list[LubanError] = []
        self.answer: Body = {}
        self.closed = False

    async def send(self, call: Call) -> Body:
        self.calls.append(call)
        if call.verb == "list":
            return {"items": list(self.bodies), "metadata": {"resourceVersion": str(self.version)}}
        if not self.answer:
            raise NotFound("NotFound", "no such thing")
        return self.answer

    @asynccontextmanager
    async def watch(self, call: Call, *, silence: float) -> AsyncIterator[AsyncIterator[Body]]:
        self.watches.append(call)
        if self.refusals:
            raise self.refusals.pop(0)
        yield self._events()

    async def _events(self) -> AsyncIterator[Body]:
        while (event := await self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def close(self) -> None:
        self.closed = True

    def tell(self, kind: str, body: Body) -> None:
        self.events.put_nowait({"type": kind, "object": body})

    def reads(self) -> int:
        """Reads so far, without what informers listed."""
        return sum(not it.writes and "limit" not in it.query for it in self.calls)


def cache_of(server: Server, namespaces: Sequence[str] = ()) -> Cache:
    return Cache(cast(Transport, server), cast(Transport, server), namespaces)


async def listed(cache: Cache) -> dict[str, str]:
    """Names and versions of the cluster's LubanVMs, after what is under way has come."""
    await asyncio.sleep(0.01)
    items = (await cache.send(MINE))["items"]
    return {it["metadata"]["name"]: it["metadata"]["resourceVersion"] for it in items}


async def followed(*bodies: Body) -> tuple[Server, Cache]:
    """A cache that follows these LubanVMs."""
    server = Server(*bodies)
    cache = cache_of(server)
    await cache.send(MINE)
    await asyncio.sleep(0.01)
    server.calls.clear()
    return server, cache


async def test_what_is_followed_costs_no_reads() -> None:
    server, cache = await followed(vm("a", 5), vm("b", 6), vm("c", 7, cluster="other"))
    for _ in range(100):
        assert await listed(cache) == {"a": "5", "b": "6"}
    server.tell("MODIFIED", vm("a", 11))
    server.tell("ADDED", vm("d", 12))
    server.tell("DELETED", vm("b", 13))
    assert await listed(cache) == {"a": "11", "d": "12"}
    assert server.calls == []
    await cache.close()
    assert server.closed


async def test_vms_of_all_namespaces_are_found_by_their_host() -> None:
    elsewhere = vm("d", 8, namespace="team", cluster="other", host="host-c")
    server, cache = await followed(vm("a", 5), vm("b", 6, host="host-c"), elsewhere)
    on_host = Call("list", VMS, "", query={"fieldSelector": "spec.host=host-c"}, may_lag=True)
    assert [it["metadata"]["name"] for it in (await cache.send(on_host))["items"]] == ["b", "d"]
    server.tell("DELETED", vm("b", 13, host="host-c"))
    await asyncio.sleep(0.01)
    assert [it["metadata"]["name"] for it in (await cache.send(on_host))["items"]] == ["d"]
    assert server.calls == []
    await cache.close()


async def test_who_follows_is_told_of_all_there_are_and_of_every_change() -> None:
    server = Server(vm("a", 5), vm("b", 6))
    cache = cache_of(server)
    told: list[tuple[str, str, bool]] = []

    def take(body: Body, gone: bool) -> None:
        told.append((body["metadata"]["name"], body["metadata"]["resourceVersion"], gone))

    await cache.follow(VMS, take)
    assert sorted(told) == [("a", "5", False), ("b", "6", False)]
    told.clear()
    server.tell("MODIFIED", vm("a", 11))
    server.tell("DELETED", vm("b", 12))
    await asyncio.sleep(0.01)
    assert told == [("a", "11", False), ("b", "6", True)]
    told.clear()
    # Nobody can hear what happens now.
    server.bodies, server.version = [vm("c", 20)], 21
    server.events.put_nowait(TemporaryError("WatchEnded", "410 Gone"))
    await asyncio.sleep(LAST_PAUSE)
    assert sorted(told) == [("a", "11", True), ("c", "20", False)]
    await cache.close()


@pytest.mark.parametrize(
    ("error", "waits"), [(TemporaryError("Unreachable", "no"), True), (PermanentError("Forbidden", "no"), False)]
)
async def test_who_follows_waits_until_something_is_known_or_may_not_be(error: LubanError, waits: bool) -> None:
    server = Server(vm("a", 5))

    async def refuse(_call: Call) -> Body:
        raise error

    real, server.send = server.send, refuse  # type: ignore[method-assign]
    cache = cache_of(server)
    told: list[str] = []
    following = asyncio.ensure_future(cache.follow(VMS, lambda body, _gone: told.append(body["metadata"]["name"])))
    await asyncio.sleep(LAST_PAUSE)
    assert following.done() != waits
    server.send = real  # type: ignore[method-assign]
    await asyncio.sleep(2 * LAST_PAUSE)
    assert following.done()
    assert told == ["a"], "it is told as soon as it may be known"
    await cache.close()


async def test_one_that_cannot_take_it_in_harms_nobody_else() -> None:
    server, cache = await followed(vm("a", 5))
    await cache.follow(VMS, lambda body, _gone: body["nonsense"] if body["metadata"]["name"] == "b" else None)
    with capture_logs() as logs:
        server.tell("ADDED", vm("b", 12))
        assert await listed(cache) == {"a": "5", "b": "12"}
    assert [it["event"] for it in logs] == ["not taken in by a fault of the operator"]
    await cache.close()


async def test_objects_of_the_whole_cluster_have_no_namespace() -> None:
    body = {"kind": "LubanHost", "metadata": {"name": "host-b", "uid": "u", "resourceVersion": "5"}, "spec": {}}
    server = Server(body)
    cache = cache_of(server, ["shop"])
    told: list[str] = []
    await cache.follow(HOSTS, lambda found, _gone: told.append(found["metadata"]["name"]))
    assert told == ["host-b"]
    assert server.watches == [] or server.watches[0].namespace == ""
    await cache.close()


async def test_an_own_write_is_seen_at_once_and_undone_by_nothing_older() -> None:
    server, cache = await followed(vm("a", 5))
    server.answer = vm("new", 20)
    await cache.send(Call("create", VMS, "shop", body={}))
    server.answer = vm("a", 21)
    await cache.send(Call("patch", VMS.status, "shop", "a", body={}))
    server.tell("MODIFIED", vm("a", 15))
    server.tell("BOOKMARK", {"metadata": {"resourceVersion": "16"}})
    assert await listed(cache) == {"a": "21", "new": "20"}
    server.tell("MODIFIED", vm("a", 22))
    assert await listed(cache) == {"a": "22", "new": "20"}


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "Status", "details": {"uid": "uid-a"}},
        vm("a", 20, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[]),
        vm("a", 5, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=[]),
    ],
    ids=["deleted", "released", "released-with-the-version-from-before"],
)
async def test_what_we_removed_does_not_come_back(answer: Body) -> None:
    server, cache = await followed(vm("a", 5))
    server.answer = answer
    await cache.send(Call("delete", VMS, "shop", "a"))
    assert await listed(cache) == {}
    server.tell("MODIFIED", vm("a", 19))
    assert await listed(cache) == {}
    server.tell("DELETED", vm("a", 20))
    server.tell("ADDED", vm("a", 21, uid="another"))
    assert await listed(cache) == {"a": "21"}


async def test_an_answer_that_comes_after_the_news_of_its_end_raises_no_ghost() -> None:
    """The loop was busy, and the watch was read first."""
    server, cache = await followed(vm("a", 5))
    server.tell("MODIFIED", vm("a", 20))
    server.tell("DELETED", vm("a", 21))
    await asyncio.sleep(0.01)
    server.answer = vm("a", 20)
    await cache.send(Call("patch", VMS.status, "shop", "a", body={}))
    assert await listed(cache) == {}


async def test_what_the_api_server_does_not_know_is_not_known_here() -> None:
    _, cache = await followed(vm("a", 5))
    with pytest.raises(NotFound):
        await cache.send(Call("patch", VMS.status, "shop", "a", body={}))
    assert await listed(cache) == {}


async def test_a_new_term_believes_nothing() -> None:
    """A watch may have been dead for a while, and another operator have acted."""
    server, cache = await followed(vm("a", 5))
    server.bodies, server.version = [vm("b", 30)], 40
    await cache.begin_anew()
    assert [it["metadata"]["name"] for it in (await cache.send(MINE))["items"]] == ["b"]
    assert await listed(cache) == {"b": "30"}
    await cache.close()


async def test_only_a_balancers_config_map_is_kept() -> None:
    """A label is easily written: what others hang it on takes no memory."""
    server, cache = await followed()
    read = Call("get", CONFIG_MAPS, "shop", "b", may_lag=True)
    server.answer = config_map(7, **{names.LABEL_CLUSTER: "luban"})
    await cache.send(read)
    await asyncio.sleep(0.01)
    (informer,) = (it for (resource, _), it in cache._informers.items() if resource == CONFIG_MAPS)
    server.tell("ADDED", config_map(11, **{names.LABEL_CLUSTER: "luban"}))
    await asyncio.sleep(0.01)
    assert informer.store.get("shop", "b") is None
    assert informer.scope.page < 100
    await cache.close()


async def test_one_of_its_name_that_was_made_anew_stays() -> None:
    server, cache = await followed(vm("a", 5))
    server.answer = vm("a", 30, uid="another")
    await cache.send(Call("create", VMS, "shop", body={}))
    server.tell("DELETED", vm("a", 29))
    assert await listed(cache) == {"a": "30"}


async def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    server, cache = await followed(vm("a", 5))
    server.tell("BOOKMARK", {"metadata": {"resourceVersion": "40"}})
    server.events.put_nowait(None)
    assert await listed(cache) == {"a": "5"}
    assert server.calls == [], "what is known still holds for a moment"
    await asyncio.sleep(GAP_SECONDS)
    assert [it.query["resourceVersion"] for it in server.watches] == ["10", "40"]
    assert await listed(cache) == {"a": "5"}
    assert server.calls == []


@pytest.mark.parametrize(
    "end",
    [
        {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}},
        TemporaryError("APIServerUnreachable", "cut"),
        KeyError("odd"),
    ],
    ids=["too-old", "cut", "fault"],
)
async def test_a_watch_that_broke_begins_anew(end: Body | Exception) -> None:
    """Meanwhile the API server is asked; what vanished unseen is gone afterwards, what we wrote since is not."""
    server, cache = await followed(vm("a", 5), vm("b", 6))
    server.events.put_nowait(end)
    await asyncio.sleep(0.01)
    server.bodies = [vm("b", 50)]
    server.answer = vm("late", 99)
    await cache.send(Call("create", VMS, "shop", body={}))
    assert (await cache.send(MINE))["items"] == server.bodies
    assert server.reads() == 1
    server.version = 60
    await asyncio.sleep(LAST_PAUSE)
    assert await listed(cache) == {"b": "50", "late": "99"}
    assert server.reads() == 1


async def test_who_may_not_watch_reads_and_is_told_what_to_grant() -> None:
    server = Server(vm("a", 5))
    server.refusals = [PermanentError("Forbidden", 'grant the verb "watch"')] * 1000
    cache = cache_of(server)
    with capture_logs() as logs:
        for _ in range(60):
            assert await listed(cache) == {"a": "5"}
            await asyncio.sleep(1)
    assert 1 <= len([it for it in logs if "grant the verb" in it["error"]]) <= 5


async def test_that_something_is_not_there_is_asked_of_the_api_server() -> None:
    """One without our label is not followed."""
    server, cache = await followed()
    read = Call("get", CONFIG_MAPS, "shop", "b", may_lag=True)
    with pytest.raises(NotFound):
        await cache.send(read)
    server.answer = config_map(7)
    for _ in range(2):
        assert (await cache.send(read))["data"] == {"version": "7"}
    assert server.reads() == 3
    server.answer = config_map(18, name="luban-balancer-0", **{names.LABEL_CLUSTER: "luban"})
    await cache.send(Call("patch", CONFIG_MAPS, "shop", "luban-balancer-0", body={}))
    await asyncio.sleep(0.01)
    read = Call("get", CONFIG_MAPS, "shop", "luban-balancer-0", may_lag=True)
    assert (await cache.send(read))["data"] == {"version": "18"}
    assert server.reads() == 3
    assert (await cache.send(Call("get", CONFIG_MAPS, "shop", "luban-balancer-0")))["data"] == {"version": "18"}
    assert server.reads() == 4, "who is about to write must not lag"


async def test_namespaces_are_followed_one_by_one_where_the_operator_has_its_own() -> None:
    server = Server(vm("a", 5))
    cache = cache_of(server, ["shop", "mall"])
    await cache.send(MINE)
    await asyncio.sleep(0.01)
    assert {it.namespace for it in server.watches} == {"shop"}
    assert await listed(cache) == {"a": "5"}
    await cache.close()


async def test_a_long_list_comes_in_pieces() -> None:
    server = Server()
    pieces = [
        {"items": [vm("a", 5)], "metadata": {"resourceVersion": "10", "continue": "more"}},
        {"items": [vm("b", 6)], "metadata": {"resourceVersion": "10"}},
    ]
    asked: list[str] = []

    async def send(call: Call) -> Body:
        asked.append(call.query.get("continue", ""))
        return pieces[len(asked) - 1]

    server.send = send  # type: ignore[method-assign]
    informer = Informer(cast(Transport, server), Scope(VMS, "", indexes=VM_INDEXES))
    await asyncio.sleep(0.01)
    assert [it["metadata"]["name"] for it in informer.store.select("spec.clusterName", "shop", "luban")] == ["a", "b"]
    assert asked == ["", "more"]
    await informer.close()


def test_what_many_have_alike_is_kept_once() -> None:
    store = Store(Scope(VMS, "", shared=("spec", "template")))
    for number, name in enumerate("abc"):
        body = vm(name, number)
        store.put({**body, "spec": {**body["spec"], "template": {"port": 80 if name == "c" else 8080}}})
    store.put(vm("d", 9))
    a, b, c, d = (store.get("shop", name) or {} for name in "abcd")
    assert a["spec"]["template"] is b["spec"]["template"]
    assert (a["spec"]["template"], c["spec"]["template"]) == ({"port": 8080}, {"port": 80})
    assert "template" not in d["spec"]


def test_texts_of_many_objects_are_kept_once() -> None:
    store = Store(Scope(VMS, ""))
    for name in "ab":
        store.put(json.loads(json.dumps({**vm(name, 5), "status": {"balancers": ["shop-balancer-0"]}})))
    one, other = (store.get("shop", name) or {} for name in "ab")
    assert one["status"]["balancers"][0] is other["status"]["balancers"][0]
    assert [id(key) for key in one["metadata"]] == [id(key) for key in other["metadata"]]


def test_what_is_kept_is_lean() -> None:
    store = Store(Scope(VMS, ""))
    store.put(vm("a", 5, managedFields=[{"manager": "kubectl"}]))
    kept = store.get("shop", "a")
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
