"""All clusters of this operator: their runtimes, and who wakes which."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from luban.api.cluster import LubanCluster
from luban.api.cluster_status import LubanClusterStatus
from luban.api.common import ObjectMeta
from luban.api.reading import read_leniently
from luban.core.model import ClusterRef, ConditionState
from luban.core.times import rfc3339
from luban.core.usable_hosts import HostPolicy
from luban.errors import LubanError
from luban.ports import Ports
from luban.render.balancer import settings_of
from luban.runtime.metrics import Metrics
from luban.runtime.records import awaits_us, cluster_ref, owner_of
from luban.runtime.remains import Gone, gone_owner_of, remains_of
from luban.runtime.status import spec_refused, with_conditions
from luban.runtime.sweeper import Sweeper
from luban.runtime.tick import ClusterRuntime, GoneRuntime
from luban.senses import Senses
from luban.senses.host_reports import node_of

log = structlog.get_logger(__name__)

MINIMUM_PERIOD_SECONDS = 0.2
"""At most one tick of a cluster in so long a time, however often it is woken."""

FOLLOW_SECONDS = 5.0
"""Between two reads of a LubanCluster that is being deleted."""

LEFTOVER_SECONDS = 10.0
"""Between two tries to learn whether a LubanVM's cluster is gone."""
TOLD_SECONDS = 5.0
"""A LubanCluster may be told of so much later than its LubanVMs, at the start: until then nobody is asked for it."""
LEFTOVER_READS = 4
"""So many LubanClusters are asked for at once, however many are gone."""


@dataclass
class Entry:
    """A cluster under care."""

    runtime: ClusterRuntime
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one loop that ticks it: the daemon's, or later the deletion's."""
    ending: asyncio.Task[None] | None = None
    """Ends what it has under way and drops its series, after its last tick. None: it is cared for."""


@dataclass
class Manager:
    """Starts, feeds and ends the runtimes."""

    ports: Ports
    metrics: Metrics
    hosts: HostPolicy = "Any"
    """Who may say where a host is."""
    _entries: dict[str, Entry] = field(default_factory=dict)
    """By uid of the LubanCluster."""
    _refused: dict[str, ClusterRef] = field(default_factory=dict)
    """Those whose spec cannot be read while no good one is known, by uid."""
    _stops: dict[asyncio.Event, str] = field(default_factory=dict)
    """Of all loops that run, with the LubanCluster's uid; empty: a loop for what is left of one that is no more."""
    _stopping: bool = False
    """No loop begins any more."""
    _leftovers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Loops for what is left of clusters that are no more."""
    _endings: set[asyncio.Task[None]] = field(default_factory=set)
    """Clusters that nobody takes care of any more, each until its last tick is over."""

    def __post_init__(self) -> None:
        self.senses = Senses.of(self.ports, self.hosts)
        self._reads = asyncio.Semaphore(LEFTOVER_READS)
        self.sweeper = Sweeper(self.ports, self.senses, self.metrics, self._clusters)

    async def begin(self) -> None:
        """Hear of LubanHosts and LubanVMs: of all there are before this returns."""
        await self.ports.cluster.follow_hosts(self.host_told)
        await self.ports.cluster.follow_vms(self.vm_told)

    def _clusters(self) -> list[LubanCluster]:
        return [entry.runtime.cluster for entry in self._entries.values()]

    def host_told(self, body: dict[str, Any], gone: bool) -> None:
        """A LubanHost was written, or is gone."""
        if self._stopping:
            return
        if gone:
            self.host_gone(body["metadata"]["name"])
        else:
            self.host_changed(body)

    def vm_told(self, body: dict[str, Any], gone: bool) -> None:
        """A LubanVM was written, or is gone. One that somebody deleted must be drained now; our own status writes need
        no second look."""
        if self._stopping:
            return
        self.sweeper.vm_told(body, gone=gone)
        deleted = bool(body["metadata"].get("deletionTimestamp"))
        if gone or deleted:
            self.wake(body["metadata"]["namespace"], body["spec"]["clusterName"])
        if deleted and not gone:
            self.vm_deleted(body)

    def take(self, body: dict[str, Any]) -> Entry:
        """The entry of a cluster, made at first sight.

        Raises ValueError if no good spec was ever seen, unless it is to be deleted: that needs none.
        """
        uid = body["metadata"]["uid"]
        entry = self._entries.get(uid)
        if entry is None:
            entry = Entry(ClusterRuntime(self.ports, self.metrics, _cluster_of(body), self.senses))
            self._entries[uid] = entry
            self._refused.pop(uid, None)
        else:
            entry.runtime.update(body)
        return entry

    def changed(self, body: dict[str, Any]) -> None:
        """A LubanCluster changed: tell its runtime, if it has one."""
        if body["metadata"]["uid"] in self._entries:
            self.take(body)

    def wake(self, namespace: str, cluster: str) -> None:
        """Something of a cluster changed: let it look at once."""
        for entry in self._entries.values():
            if (entry.runtime.ref.namespace, entry.runtime.ref.name) == (namespace, cluster):
                entry.runtime.wake.set()

    def vm_deleted(self, body: dict[str, Any]) -> None:
        """Somebody asks a LubanVM to leave. If its cluster is gone, nobody else does what that takes."""
        uid = owner_of(body)
        key = f"{body['metadata']['namespace']}/{body['spec']['clusterName']}/{uid}"
        if awaits_us(body) and uid not in self._entries and key not in self._leftovers:
            task = asyncio.ensure_future(self._let_go(body))
            self._leftovers[key] = task
            task.add_done_callback(lambda ended: self._let_go_ended(key, ended))

    def _let_go_ended(self, key: str, ended: asyncio.Task[None]) -> None:
        self._leftovers.pop(key, None)
        if not ended.cancelled() and (error := ended.exception()) is not None:
            log.error("what is left was not let go, by a fault of the operator", vms=key, exc_info=error)

    async def _let_go(self, body: dict[str, Any]) -> None:
        """Remove what is left of a LubanVM's cluster, if that is no more."""
        gone, stopped = gone_owner_of(body, rfc3339(self.ports.clock.now())), asyncio.Event()
        ref = cluster_ref(gone)
        self._stops[stopped] = ""
        try:
            if await self._is_gone(ref, stopped):
                log.warning("LubanVMs are left of a LubanCluster that is no more: they are removed", cluster=str(ref))
                await self._run_gone(gone, stopped)
        finally:
            del self._stops[stopped]

    async def _run_gone(self, gone: Gone, stopped: asyncio.Event) -> None:
        # In a registry of its own: a cluster of the same name may have its metrics in the other.
        runtime = GoneRuntime(self.ports, Metrics(CollectorRegistry()), gone, self.senses)
        try:
            await runtime.run(stopped, minimum_period=MINIMUM_PERIOD_SECONDS)
        finally:
            await runtime.close()

    async def _is_gone(self, ref: ClusterRef, stopped: asyncio.Event) -> bool:
        """Whether nobody tells of it, and the API server says so."""
        if not ref.uid:
            return True
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), TOLD_SECONDS)
        while not stopped.is_set():
            if ref.uid in self._entries or ref.uid in self._refused:
                return False
            try:
                async with self._reads:
                    return await self.ports.cluster.read_cluster(ref) is None
            except LubanError as error:
                log.warning("LubanCluster not read", cluster=str(ref), reason=error.reason, error=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), LEFTOVER_SECONDS)
        return False

    def host_changed(self, body: dict[str, Any]) -> None:
        """A LubanHost was written: the clusters that use it look at once, if it says something new to them."""
        name = body["metadata"]["name"]
        reported = self.senses.bonds.take(body, self.ports.clock.monotonic(), self.ports.clock.now())
        self._wake_those_on(name, registered=self.senses.registry.take(body), reported=reported)

    def host_gone(self, name: str) -> None:
        """A LubanHost was deleted."""
        self.senses.bonds.drop(name)
        self._wake_those_on(name, registered=self.senses.registry.drop(name), reported=True)

    def _wake_those_on(self, name: str, *, registered: bool, reported: bool) -> None:
        """`registered`: who may use the host is new. `reported`: the health of its bonds is."""
        for entry in self._entries.values():
            hosts = entry.runtime.cluster.spec.hosts
            if any((registered and it.name == name) or (reported and node_of(it) == name) for it in hosts):
                entry.runtime.wake.set()

    async def reconcile(self, body: dict[str, Any], stopped: asyncio.Event) -> bool:
        """Tick a cluster until `stopped`, or until it is gone: returns whether it is.

        Raises ValueError if its spec cannot be read and no good one was ever seen.
        """
        if self._stopping:
            return False
        entry = self.take(body)
        self._stops[stopped] = body["metadata"]["uid"]
        try:
            async with entry.turn:
                await entry.runtime.run(stopped, minimum_period=MINIMUM_PERIOD_SECONDS)
        finally:
            del self._stops[stopped]
        if entry.runtime.finished:
            self.forget(body["metadata"]["uid"])
        if entry.ending is not None:
            await asyncio.wait({entry.ending})
        return entry.runtime.finished

    async def delete(self, body: dict[str, Any]) -> bool:
        """Tick a cluster that is to be deleted until it is gone. False: broken off, for this operator is to end.

        It is read again and again meanwhile: kopf holds back its events until this returns.
        """
        following = asyncio.ensure_future(self._follow(body))
        try:
            finished = await self.reconcile(body, asyncio.Event())
            return finished or (following.done() and following.result())
        finally:
            following.cancel()

    async def _follow(self, body: dict[str, Any]) -> bool:
        """Tell what a user changes of a cluster that is being deleted; True when somebody took its finalizer off."""
        metadata = ObjectMeta.model_validate(body["metadata"])
        ref = ClusterRef(metadata.namespace, metadata.name, metadata.uid)
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                found = await self.ports.cluster.read_cluster(ref)
                if found is None:
                    await self._gone(ref)
                    return True
                self.changed(found)
            except LubanError as error:
                log.warning("LubanCluster not read", cluster=str(ref), reason=error.reason, error=error.message)
            except Exception:
                log.exception("LubanCluster not followed by a fault of the operator", cluster=str(ref))

    async def _gone(self, ref: ClusterRef) -> None:
        """Forget it, and take up LubanVMs that were asked to leave meanwhile: nobody tells of them again.

        Raises LubanError.
        """
        left = await self.ports.cluster.list_vms(ref, live=True)
        self.forget(ref.uid)
        for body in left:
            self.vm_deleted(body)

    async def refuse(self, body: dict[str, Any], error: ValueError) -> None:
        """Say that a cluster is left to itself: its spec cannot be read, and no good one is known.

        Never raises a LubanError: it is called again soon.
        """
        metadata = ObjectMeta.model_validate(body["metadata"])
        ref = ClusterRef(metadata.namespace, metadata.name, metadata.uid)
        before, _ = read_leniently(LubanClusterStatus, body.get("status"))
        news, now = _left_to_itself(error), self.ports.clock.now()
        after = with_conditions(before, news, metadata.generation, now).model_copy(update={"phase": "Degraded"})
        self._refused[metadata.uid] = ref
        # Also if the status says it already: a process that was just started has no series yet.
        self.metrics.record_conditions(ref, after.conditions)
        if after == before:
            return
        log.warning("spec refused", cluster=str(ref), error=news[0].message)
        try:
            await self.ports.cluster.patch_cluster_status(ref, after.wire())
        except LubanError as failure:
            log.warning("refusal not told", cluster=str(ref), reason=failure.reason, error=failure.message)

    async def stop(self) -> None:
        """End all loops, each after the tick that it is in, and what they have under way."""
        self._stopping = True
        for stopped in self._stops:
            stopped.set()
        for uid in [*self._entries, *self._refused]:
            self.forget(uid)
        await asyncio.gather(*self._leftovers.values(), return_exceptions=True)
        # All at once: each may wait a little for its last Events.
        await asyncio.gather(*self._endings)
        self.senses.usage.close()

    def forget(self, uid: str) -> None:
        """A cluster is gone, or another operator's: its loop ends, then what it has under way, and its series go."""
        refused, entry = self._refused.pop(uid, None), self._entries.pop(uid, None)
        if refused is not None:
            self._drop_series(refused)
        if entry is None:
            return
        for stopped, of in self._stops.items():
            if of == uid:
                stopped.set()
        entry.ending = asyncio.ensure_future(self._end(entry))
        self._endings.add(entry.ending)
        entry.ending.add_done_callback(self._endings.discard)

    async def _end(self, entry: Entry) -> None:
        """After the last tick: it would record again what is dropped here."""
        async with entry.turn:
            await entry.runtime.close()
        self._drop_series(entry.runtime.ref)
        log.info("loop ended", cluster=str(entry.runtime.ref))

    def _drop_series(self, ref: ClusterRef) -> None:
        """Forget a cluster's series, unless another one of its name has them now."""
        others = (*self._refused.values(), *(entry.runtime.ref for entry in self._entries.values()))
        if all((it.namespace, it.name) != (ref.namespace, ref.name) for it in others):
            self.metrics.forget(ref)


def _left_to_itself(error: ValueError) -> tuple[ConditionState, ...]:
    """What is true of a cluster whose spec is refused while no good one is known, the refusal first."""
    refused = spec_refused(error)
    return (
        replace(refused, message=f"{refused.message}; no good spec is known, so nothing is in force"),
        ConditionState("Ready", None, "NotReconciled", "the operator does not look: see condition Reconciled"),
        ConditionState("Reconciled", False, refused.reason, "VMs and httpd run on unattended: see condition SpecValid"),
    )


def _cluster_of(body: dict[str, Any]) -> LubanCluster:
    """The cluster, or what is known of one that is to be deleted. Raises ValueError for a spec that cannot be read."""
    try:
        cluster = LubanCluster.parse(body)
        settings_of(cluster.metadata.name, cluster.spec)
    except ValueError:
        if body["metadata"].get("deletionTimestamp"):
            return remains_of(body)
        raise
    return cluster
