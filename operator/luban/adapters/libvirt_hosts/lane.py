"""Blocking libvirt calls of one host from asyncio: one thread, one call at a time, a deadline on each.

libvirt cannot interrupt a call. When a deadline passes, the caller hears HostUnreachable at once, the thread is left
behind with its connection (it ends by itself when the call returns), and the next call gets a fresh pair.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from luban.adapters.libvirt_hosts.errors import doing, unreachable
from luban.adapters.libvirt_hosts.session import Connector, Session
from luban.errors import HostUnreachable

T = TypeVar("T")
MAX_STUCK = 8
"""Threads of one lane that may hang at a time before new attempts become rare."""


@dataclass(frozen=True)
class Pace:
    """Times in seconds."""

    connect: float = 5.0
    """Deadline for opening a connection."""
    first_retry: float = 0.5
    """After a failure, calls are refused for so long; doubles with each further failure."""
    last_retry: float = 15.0
    """Longest such time."""
    stuck_retry: float = 600.0
    """Such time while MAX_STUCK threads hang: each attempt could cost another one for ever."""
    close: float = 2.0
    """Longest wait for a thread to end."""


class Backoff:
    """When a host that failed may be tried again. Times are those of any clock in seconds."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0
        self._until = 0.0
        self._why = ""

    def check(self, now: float) -> None:
        """Raises HostUnreachable while it is too early.

        In the same words each time: they go into a status, which is written only when it changes.
        """
        if self._failures and now < self._until:
            raise HostUnreachable("HostUnreachable", self._why)

    def failed(self, now: float, why: str, *, stuck: int) -> None:
        """It failed; `stuck` threads hang."""
        usual = min(self._pace.last_retry, self._pace.first_retry * 2.0 ** min(self._failures, 16))
        self._until = now + (usual if stuck < MAX_STUCK else self._pace.stuck_retry)
        self._failures += 1
        self._why = why

    def succeeded(self) -> None:
        """It answers."""
        self._failures = 0


class Worker:
    """A daemon thread (so that a hung call cannot keep the process from ending) with its connection."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._session: Session | None = None
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._abandoned = threading.Event()
        name = f"libvirt-{connector.host.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread.is_alive()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run a job in the thread, after those before it."""
        future: Future[T] = Future()
        self._jobs.put((future, job))
        return future

    def connect(self) -> None:
        """Job: have an open connection."""
        if self._session is not None and not self._session.alive():
            self._disconnect()
        if self._session is None:
            self._session = self._connector.connect(self._abandoned)

    def perform(self, job: Callable[[Session], T], what: str) -> T:
        """Job: run `job` on the connection; libvirt's errors come out as ours."""
        if self._session is None:
            raise unreachable(self._connector.host, "not connected")
        with doing(self._connector.host, what):
            return job(self._session)

    def end(self, *, abandon: bool = False) -> None:
        """End after the job at hand. `abandon`: tell that job that nobody waits for it."""
        if abandon:
            self._abandoned.set()
        self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait for its end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None:
            future, job = entry
            if future.set_running_or_notify_cancel():
                _settle(future, job)
        self._disconnect()


def _settle(future: Future[T], job: Callable[[], T]) -> None:
    try:
        result = job()
    except BaseException as error:  # noqa: BLE001 - it is raised again where the result is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


class Lane:
    """The calls of one kind to one host, one after the other."""

    def __init__(self, connector: Connector, pace: Pace) -> None:
        self._connector = connector
        self._pace = pace
        self._lock = asyncio.Lock()
        self._worker: Worker | None = None
        self._stuck: list[Worker] = []
        self._backoff = Backoff(pace)

    async def call(self, job: Callable[[Session], T], what: str, deadline: float) -> T:
        """Run `job` in the thread; `what` says in words what it does.

        `deadline` in seconds counts from when the job's turn has come. Raises LubanError subclasses; HostUnreachable
        without an attempt for a while after a failure.
        """
        async with self._lock:
            self._backoff.check(asyncio.get_running_loop().time())
            worker = self._worker = self._worker or Worker(self._connector)
            try:
                await self._finish(worker, worker.submit(worker.connect), "connect", self._pace.connect)
                result = await self._finish(worker, worker.submit(partial(worker.perform, job, what)), what, deadline)
            except HostUnreachable as error:
                self._failed(error)
                raise
            self._backoff.succeeded()
            return result

    async def close(self) -> None:
        """Close the connection and end the thread, unless it hangs."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
            await asyncio.to_thread(worker.join, self._pace.close)

    async def _finish(self, worker: Worker, future: Future[T], what: str, deadline: float) -> T:
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            self._leave(worker)
            raise unreachable(self._connector.host, f"{what}: no answer within {deadline:g} s") from error
        except asyncio.CancelledError:
            self._leave(worker)
            raise

    def _leave(self, worker: Worker) -> None:
        worker.end(abandon=True)
        self._worker = None
        self._stuck = [stuck for stuck in self._stuck if stuck.running] + [worker]

    def _failed(self, error: HostUnreachable) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
        stuck = sum(1 for worker in self._stuck if worker.running)
        self._backoff.failed(asyncio.get_running_loop().time(), error.message, stuck=stuck)
