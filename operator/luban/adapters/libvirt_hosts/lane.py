"""Blocking libvirt calls of one host from asyncio: few threads, one call at a time in each, a deadline on each call.

libvirt cannot interrupt a call. When a deadline passes, the caller hears of it at once, the thread is left behind with
its connection (it ends by itself when the call returns), and the next call gets a fresh pair.

A call about one domain that does not end says nothing about the host: it holds up calls about the same domain, but for
one that may free it, and nothing else. That a connection cannot be opened, or that a call about the whole host does not
end, holds up all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from luban.adapters.libvirt_hosts.backoff import MAX_HUNG, MAX_STUCK, Backoff, Pace
from luban.adapters.libvirt_hosts.errors import NotReached, timed_out, unexpected, unreachable
from luban.adapters.libvirt_hosts.session import Connector, Session
from luban.adapters.libvirt_hosts.worker import Worker
from luban.errors import HostUnreachable, LubanError

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Task:
    """A job with what its failure is told by."""

    what: str
    """What it does, in words."""
    deadline: float
    """In seconds, from when its turn has come."""
    subject: str = ""
    """uuid of the one domain that it is about; empty: about the host."""
    rescue: bool = False
    """Whether it may free a domain that hangs, as pulling the plug does."""

    @property
    def key(self) -> tuple[str, str]:
        """Jobs that wait for each other's end."""
        return self.subject, self.what


class Lane:
    """The calls of one kind to one host, at most `width` at a time, and one at a time about each domain."""

    def __init__(self, connector: Connector, pace: Pace, width: int = 1) -> None:
        self._connector = connector
        self._pace = pace
        self._slots = asyncio.Semaphore(width)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._stuck: list[tuple[Worker, Task]] = []
        """Threads that were left behind and have not ended, with what they do."""
        self._late: dict[Future[Any], Task] = {}
        """Jobs that were given up and have not ended. The threads themselves take them out."""
        self._backoff = Backoff(pace)
        self._pauses: dict[tuple[str, str], Backoff] = {}
        """By job: of those about one domain."""

    async def call(
        self, job: Callable[[Session], T], what: str, deadline: float, subject: str = "", *, rescue: bool = False
    ) -> T:
        """Run `job` in a thread. The other parameters: see Task.

        Raises nothing but LubanErrors: HostUnreachable if there is no connection, or if a job about the host does not
        end; TemporaryError LibvirtTimeout if one about a domain does not. For a while after a failure it is raised
        again without an attempt.
        """
        task = Task(what, deadline, subject, rescue)
        try:
            return await self._call(job, task)
        except LubanError:
            raise
        except Exception as error:
            raise self._unexpected(task, error) from error

    async def _call(self, job: Callable[[Session], T], task: Task) -> T:
        async with self._turn(task.subject):
            self._check(task)
            async with self._slots:
                self._backoff.check(_now(), stuck=self._count_stuck())
                worker = self._idle.pop() if self._idle else Worker(self._connector)
                self._busy.add(worker)
                try:
                    await self._connect(worker)
                    return await self._perform(worker, job, task)
                finally:
                    self._busy.discard(worker)
                    if not worker.ended:
                        self._idle.append(worker)

    def late(self, subject: str) -> list[Future[Any]]:
        """Jobs about a domain that were given up and have not ended yet."""
        return [future for future, task in self._late.copy().items() if task.subject == subject and not future.done()]

    async def close(self) -> None:
        """Close the connections and end the threads, unless they hang."""
        workers, self._idle = [*self._idle, *self._busy], []
        for worker in workers:
            worker.end()
        await asyncio.gather(*(asyncio.to_thread(worker.join, self._pace.close) for worker in workers))

    def _turn(self, subject: str) -> AbstractAsyncContextManager[None]:
        return self._turns.setdefault(subject, asyncio.Lock()) if subject else nullcontext()

    def _check(self, task: Task) -> None:
        """Raises the failure of the same job again while it is too early; or that of the one that hangs, while a job
        about the same domain does. One that may free it waits only for its like: so a domain costs two threads at most.
        """
        for future, late in self._late.copy().items():
            same = bool(task.subject) and late.subject == task.subject
            if same and not future.done() and (late.rescue or not task.rescue):
                raise self._no_answer(late)
        if pause := self._pauses.get(task.key):
            pause.check(_now())

    async def _connect(self, worker: Worker) -> None:
        future = worker.submit(worker.connect)
        try:
            await self._finish(worker, future, Task("connect", self._pace.connect))
        except HostUnreachable as error:
            worker.end()
            self._host_failed(error, longest=self._pace.last_knock if isinstance(error, NotReached) else None)
            raise

    async def _perform(self, worker: Worker, job: Callable[[Session], T], task: Task) -> T:
        future = worker.submit(partial(worker.perform, job, task.what))
        try:
            result = await self._finish(worker, future, task)
        except LubanError as error:
            if isinstance(error, HostUnreachable):
                worker.end()
            if worker.ended:
                self._failed(task, error)
            else:
                self._answered(task)
            raise
        self._answered(task)
        return result

    async def _finish(self, worker: Worker, future: Future[T], task: Task) -> T:
        """Wait for a job. Raises its error, or says that it has not ended in time and leaves the worker behind."""
        try:
            async with asyncio.timeout(task.deadline) as limit:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if not limit.expired():
                raise
            self._leave(worker, future, task)
            raise self._no_answer(task) from error
        except asyncio.CancelledError:
            self._leave(worker, future, task)
            raise
        except LubanError:
            raise
        except Exception as error:
            raise self._unexpected(task, error) from error

    def _no_answer(self, task: Task) -> LubanError:
        host, why = self._connector.host, f"{task.what}: no answer within {task.deadline:g} s"
        return timed_out(host, why) if task.subject else unreachable(host, why)

    def _unexpected(self, task: Task, error: Exception) -> LubanError:
        """Whatever it is, it is about this host alone: no caller should have to fear for the others."""
        host = self._connector.host
        log.error("unexpected error of a host", host=host.name, uri=host.uri, what=task.what, exc_info=error)
        return unexpected(host, task.what, error, about_host=not task.subject)

    def _leave(self, worker: Worker, future: Future[Any], task: Task) -> None:
        worker.end(abandon=True)
        self._stuck.append((worker, task))
        self._late[future] = task
        # Its error holds all that the job had in hand, so nothing of it may stay.
        future.add_done_callback(lambda ended: self._late.pop(ended, None))

    def _answered(self, task: Task) -> None:
        self._backoff.succeeded()
        self._pauses.pop(task.key, None)

    def _failed(self, task: Task, error: LubanError) -> None:
        """Hold back what would fail likewise: the same job, or all of them."""
        if not task.subject:
            self._host_failed(error)
            return
        now = _now()
        forgotten = now - self._pace.stuck_retry
        self._pauses = {key: pause for key, pause in self._pauses.items() if not pause.over_since(forgotten)}
        self._pauses.setdefault(task.key, Backoff(self._pace)).failed(now, error)
        stuck = self._count_stuck()
        if sum(bool(it.subject) for _, it in self._stuck) >= MAX_HUNG:
            told = unreachable(self._connector.host, f"{MAX_HUNG} calls to libvirt hang")
            self._backoff.failed(now, told, stuck=stuck, crowded=True)

    def _host_failed(self, error: LubanError, longest: float | None = None) -> None:
        stuck = self._count_stuck()
        crowded = sum(not it.subject for _, it in self._stuck) >= MAX_STUCK
        self._backoff.failed(_now(), error, stuck=stuck, crowded=crowded, longest=longest)

    def _count_stuck(self) -> int:
        """Threads that hang, after those that have ended are forgotten."""
        self._stuck = [(worker, task) for worker, task in self._stuck if worker.running]
        return len(self._stuck)


def _now() -> float:
    return asyncio.get_running_loop().time()
