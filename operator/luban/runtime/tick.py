"""One cluster's runtime: ticks that never overlap, and what wakes the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog

from luban.api.cluster import LubanCluster
from luban.api.cluster_status import LubanClusterStatus
from luban.api.common import ObjectMeta
from luban.core.conditions import hosts_allowed
from luban.core.host_room import limits_of, room_of
from luban.core.left_out import HostRoom, Left
from luban.core.memory import ClusterMemory
from luban.core.model import ClusterRef, ConditionState, Failure, Observation, Plan
from luban.core.plan import plan
from luban.core.setbacks import memory_for
from luban.core.state import State
from luban.core.times import Now
from luban.errors import Conflict, LubanError, NotLeader
from luban.ports import HostRef, Ports
from luban.render.balancer import settings_of
from luban.runtime.adoption import Adopter
from luban.runtime.apply import Applier, fault
from luban.runtime.events import Event, action_events, bond_events, cluster_events
from luban.runtime.host_use import grants_of, with_refusals, with_rooms, with_spec
from luban.runtime.metrics import Metrics
from luban.runtime.observe import Look, Observer
from luban.runtime.recorder import EventRecorder
from luban.runtime.records import cluster_ref
from luban.runtime.remains import Gone, deletion_policy_of
from luban.runtime.status import (
    StatusWriter,
    build_status,
    remembered,
    schedules_refused,
    spec_refused,
    with_conditions,
)
from luban.runtime.trouble import RECONCILED, Trouble
from luban.senses import Senses

log = structlog.get_logger(__name__)

NOT_LEADER_SECONDS = 1.0
"""Time to the next tick of one who may not act: its loop is ended meanwhile."""
CHANGING_SECONDS = 0.5
"""Time to the next tick while somebody writes to the LubanCluster faster than we do."""
WRITE_ATTEMPTS = 5
"""A status is tried so often on the version that was read just before. Each of a user's edits makes two: theirs, and
kopf's note of it."""
SPEC_VALID = ConditionState("SpecValid", True, "Valid")


@dataclass
class ClusterRuntime:
    """observe -> plan -> apply -> report, again and again, for one LubanCluster."""

    ports: Ports
    metrics: Metrics
    cluster: LubanCluster
    senses: Senses
    """What is known beyond this cluster."""
    memory: ClusterMemory = field(default_factory=ClusterMemory)
    spec_condition: ConditionState = SPEC_VALID
    finished: bool = False
    _uids: frozenset[str] = frozenset()
    """Of the LubanVMs in the last look, and so of their domains."""

    def __post_init__(self) -> None:
        self._version = self.cluster.metadata.resource_version
        """Of the LubanCluster as it was read or written last."""
        self.wake = asyncio.Event()
        self.observer = Observer(self.ports, self.senses, self.wake.set, self.domain_changed)
        self.adopter = Adopter(self.ports)
        self.applier = Applier(self.ports, self.wake.set, self.senses.hosts.touch)
        if self.cluster.left_out:
            log.warning("parts of the status left out", cluster=str(self.ref), parts=self.cluster.left_out)
        # What cannot be read must not stay beside what is true now.
        self.writer = StatusWriter(
            self.ports.clock.monotonic, None if self.cluster.left_out else self.cluster.status.wire()
        )
        self.trouble = Trouble(self.ports.clock.monotonic)
        self.recorder = EventRecorder(self.ports.cluster, self.ref, self.ports.clock.monotonic)
        self.memory = remembered(self.cluster.status, self._moment())

    @property
    def ref(self) -> ClusterRef:
        """Which cluster."""
        return cluster_ref(self.cluster)

    def _moment(self) -> Now:
        return Now(self.ports.clock.now(), self.ports.clock.monotonic())

    def update(self, body: dict[str, Any]) -> None:
        """Take over a changed LubanCluster object. A spec that cannot be read leaves the last good one in force."""
        before = self._news()
        try:
            parsed = LubanCluster.parse(body)
            settings_of(parsed.metadata.name, parsed.spec)
        except ValueError as error:
            refused = spec_refused(error)
            self.spec_condition = replace(refused, message=f"{refused.message}; the last good spec stays in force")
            self._take_metadata(body)
        else:
            before_spec = self.cluster.spec
            # Our own status is newer than the one in a watch event.
            self.cluster = parsed.model_copy(update={"status": self.cluster.status})
            self.spec_condition = SPEC_VALID
            if parsed.spec != before_spec:
                self.memory = memory_for(parsed.spec, before_spec, self.memory)
                self.applier.retries.forget()
        if before != self._news():
            self.wake.set()

    def _take_metadata(self, body: Mapping[str, Any]) -> None:
        """Whatever the spec says: that the cluster is to be deleted holds, and what is to become of its VMs then."""
        metadata = ObjectMeta.model_validate(body["metadata"])
        spec = self.cluster.spec
        if metadata.deletion_timestamp is not None:
            spec = spec.model_copy(update={"deletion_policy": deletion_policy_of(body)})
        self.cluster = self.cluster.model_copy(update={"metadata": metadata, "spec": spec})

    def _news(self) -> object:
        """What is worth a look when it changes: not our own status, and not the list that a watch begins with."""
        return self.cluster.spec, self.cluster.metadata.deletion_timestamp, self.cluster.metadata.generation

    def domain_changed(self, uuid: str) -> None:
        """A domain on one of our hosts began or ended: look at once if it is ours. Empty: the connection was lost."""
        if not uuid or uuid in self._uids:
            self.wake.set()

    async def tick(self) -> float:
        """Do one tick; returns the seconds until the next if nothing wakes us. Never raises an Exception.

        A fault of our own is logged with its traceback and counted; the cluster keeps its loop, for the next tick
        starts from observation again. The status tells of it.
        """
        with self.metrics.ticks.labels(self.ref.namespace, self.ref.name).time():
            try:
                delay = await self._tick()
            except NotLeader:
                log.info("tick left off, another operator may act", cluster=str(self.ref))
                return NOT_LEADER_SECONDS
            except Conflict as error:
                # Whoever writes all the time is no trouble of ours, and nothing that a user could mend.
                log.info("tick left off, the LubanCluster changes under it", cluster=str(self.ref), why=error.message)
                return CHANGING_SECONDS
            except LubanError as error:
                log.warning("tick failed", cluster=str(self.ref), reason=error.reason, error=error.message)
                return await self._fail(Failure(error.reason, error.message, permanent=False))
            except Exception as error:
                log.exception("tick failed by a fault of the operator", cluster=str(self.ref))
                return await self._fail(fault(error), fault=True)
            self.trouble.over()
            return delay

    async def _fail(self, failure: Failure, *, fault: bool = False) -> float:
        """A tick failed. Returns the seconds until the next."""
        self.senses.claims.grant(self.ref, (), self.applier.being_made)
        self.metrics.errors.labels(self.ref.namespace, self.ref.name, failure.reason).inc()
        delay = self.trouble.failed(failure, fault=fault)
        try:
            await self._tell_of_trouble()
        except LubanError as error:
            log.warning("trouble not told", cluster=str(self.ref), reason=error.reason, error=error.message)
        except Exception:
            log.exception("trouble not told by a fault of the operator", cluster=str(self.ref))
        return delay

    async def _tell_of_trouble(self) -> None:
        """The status as it was, but for what is known no more. Raises LubanError if it cannot be written."""
        before, now = self.cluster.status, self.ports.clock.now()
        status = with_conditions(before, tuple(self.trouble.conditions()), self.cluster.metadata.generation, now)
        if self.trouble.blind and status.phase in ("Ready", "Progressing"):
            status = status.model_copy(update={"phase": "Degraded"})
        self.metrics.record_conditions(self.ref, status.conditions)
        if not self.writer.due(status.wire()):
            return
        await self._write(status)
        for event in cluster_events(self.cluster, before, status):
            self.recorder.record(event)
        self.cluster = self.cluster.model_copy(update={"status": status})

    async def _tick(self) -> float:
        seen = await self._look()
        if await self.adopter.adopt(self.ref, seen.orphans):
            seen = await self._look()
        self.applier.forget_others(seen.bodies)
        self._uids = frozenset(str(body["metadata"]["uid"]) for body in seen.bodies.values())
        moment = self._moment()
        now = moment.wall
        cluster, observation = self._with_hosts(seen)
        deleting = cluster.metadata.deletion_timestamp is not None
        made = plan(cluster.spec, cluster.metadata.name, observation, self.memory, moment, deleting=deleting)
        if made.hosts_back:
            # A host that is back may be what was missing.
            self.applier.retries.forget()
        # Whatever of this plan is carried out below, the next one must not take it back.
        self.memory = made.memory
        tried = self.applier.tried_now(made)
        self.senses.claims.grant(self.ref, grants_of(cluster, made, tried, observation), self.applier.being_made)
        self.metrics.record(self.ref, observation, made)
        before = self.cluster.status
        extra = (self._spec_condition(), hosts_allowed(State(observation)), RECONCILED)
        status = build_status(self.cluster, observation, made, extra, moment)
        self.metrics.record_conditions(self.ref, status.conditions)
        if _turned(before, status):
            self._log_decision(made)
        if _scaled(before, status):
            # Before the first VM is made or let go: a successor that is put in our place must want the same number.
            await self._write(status)
        await self.applier.apply(cluster, made, seen.bodies)
        await self._report(before, status, now)
        self.finished = made.finished
        return made.requeue_after

    async def _look(self) -> Look:
        self.applier.looking()
        return await self.observer.observe(
            self.cluster, self.applier.provision_failures, self.applier.action_failures, self.applier.balancers_written
        )

    def _with_hosts(self, seen: Look) -> tuple[LubanCluster, Observation]:
        """The cluster and what was seen of it, with its hosts as they may be used now: nothing is decided or done by an
        older spec or LubanHost."""
        choice = self.observer.chooser.choose(self.cluster.spec, seen.applicant)
        cluster = with_spec(self.cluster, choice.spec)
        observation = with_refusals(seen.observation, choice.spec, choice.refusals)
        return cluster, with_rooms(observation, partial(self._room_on, cluster, seen))

    def _room_on(self, cluster: LubanCluster, seen: Look, host: str) -> HostRoom | None:
        """What all clusters together leave on a host for one of ours; None: there is no limit."""
        limits, uris = self.senses.registry.libvirt(host), {it.name: it.uri for it in cluster.spec.hosts if it.uri}
        if limits is None or host not in uris:
            return None
        if host not in seen.neighbours:
            return HostRoom((Left(0, 0),), message="who has room there is not known yet")
        found = self.senses.hosts.contents(HostRef(host, uris[host]))
        claims = self.senses.claims.on(
            host, seen.neighbours[host], found.domains, asking=self.ref, under_way=self.applier.being_made
        )
        need = cluster.spec.template.spec.domain.memory.max.bytes
        return room_of(self.ref, claims, limits_of(limits, found.memory, found.foreign_memory), need)

    def _log_decision(self, made: Plan) -> None:
        decision = made.decision
        log.info(
            "decided",
            cluster=str(self.ref),
            verdict=decision.verdict,
            reason=decision.reason,
            desired=made.desired,
            why=decision.message,
        )

    def _spec_condition(self) -> ConditionState:
        """What the spec's condition says: also that something in it has no effect."""
        spec = self.cluster.spec
        if self.spec_condition.status and (refused := schedules_refused(self.cluster)):
            return ConditionState("SpecValid", False, "ScheduleRefused", f"{refused}; all else of the spec is in force")
        if self.spec_condition.status and spec.replicas is not None and spec.scaling.policy != "Manual":
            message = (
                f"spec.replicas ({spec.replicas}, as kubectl scale sets it) counts only with scaling.policy Manual"
            )
            return replace(self.spec_condition, reason="ReplicasIgnored", message=message)
        return self.spec_condition

    async def _report(self, before: LubanClusterStatus, status: LubanClusterStatus, now: float) -> None:
        outcomes = self.applier.take_outcomes()
        self.metrics.ended(self.ref, outcomes, now)
        if _turned(before, status):
            self.metrics.decided(self.ref, status)
        try:
            if self.writer.due(status.wire()):
                await self._write(status)
        finally:
            # Whatever becomes of the status: nobody tells again what was done.
            for event in action_events(self.cluster, outcomes):
                self.recorder.record(event)
        for event in _turns(self.cluster, before, status):
            self.recorder.record(event)
        self.cluster = self.cluster.model_copy(update={"status": status})

    async def _write(self, status: LubanClusterStatus) -> None:
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            try:
                await self._patch(status)
                break
            except Conflict:
                # Somebody else wrote since we read it last: look again before it is overwritten.
                if attempt == WRITE_ATTEMPTS or not await self._reread():
                    raise
        self.metrics.writes.labels(self.ref.namespace, self.ref.name).inc()
        self.writer.wrote(status.wire())

    async def _reread(self) -> bool:
        """Take over what others wrote to the LubanCluster. Returns whether it is still there."""
        body = await self.ports.cluster.read_cluster(self.ref)
        if body is None:
            return False
        self.update(body)
        self._version = body["metadata"]["resourceVersion"]
        return True

    async def _patch(self, status: LubanClusterStatus) -> None:
        if not self.ports.leadership.held():
            raise NotLeader("NotLeader", f"{self.ref}: its status is left to the operator that leads")
        self._version = await self.ports.cluster.patch_cluster_status(self.ref, status.wire(), version=self._version)

    async def run(self, stopped: asyncio.Event, *, minimum_period: float) -> None:
        """Tick until `stopped` is set or the cluster is gone; at most one tick in `minimum_period` seconds.

        What is under way then goes on: another run may follow, and `close` ends it.
        """
        while not stopped.is_set() and not self.finished:
            self.wake.clear()
            delay = await self.tick()
            await _first_of(stopped, seconds=minimum_period)
            if not self.finished:
                await _first_of(stopped, self.wake, seconds=max(0.0, delay - minimum_period))

    async def close(self) -> None:
        """End what is still under way."""
        self.observer.close()
        self.senses.claims.drop(self.ref)
        await self.applier.close()
        await self.recorder.close()


class GoneRuntime(ClusterRuntime):
    """Lets go what is left of a LubanCluster that is no more. Nothing is written of the cluster: nobody reads it."""

    async def _tick(self) -> float:
        delay = await super()._tick()
        self.finished = self.finished or not self._uids
        return delay

    async def _write(self, status: LubanClusterStatus) -> None:
        self.writer.wrote(status.wire())


async def _first_of(*events: asyncio.Event, seconds: float) -> None:
    """Wait until one of the events is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _turns(cluster: LubanCluster, before: LubanClusterStatus, after: LubanClusterStatus) -> Iterator[Event]:
    """What is worth telling between two statuses."""
    if isinstance(cluster, Gone):
        return
    yield from cluster_events(cluster, before, after)
    yield from bond_events(cluster, before, after)


def _scaled(before: LubanClusterStatus, after: LubanClusterStatus) -> bool:
    """Whether a wanted number or the time of the last scaling changed: what a restart reads back."""
    old, new = (
        (it.vms.desired, it.last_scale_time, it.tier.desired if it.tier is not None else 0) for it in (before, after)
    )
    return old != new


def _turned(before: LubanClusterStatus, after: LubanClusterStatus) -> bool:
    """Whether the verdict or its reason changed."""
    old, new = before.decision, after.decision
    return new is not None and (old is None or (old.verdict, old.reason) != (new.verdict, new.reason))
