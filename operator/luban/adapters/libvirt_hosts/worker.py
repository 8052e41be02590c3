"""A thread with a connection to a host: libvirt's calls block, and cannot be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from luban.adapters.libvirt_hosts.errors import doing, unreachable
from luban.adapters.libvirt_hosts.session import Connector, Session

T = TypeVar("T")


class Worker:
    """A daemon thread (so that a hung call cannot keep the process from ending) with its connection."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._session: Session | None = None
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._abandoned = threading.Event()
        self.ended = False
        """Whether it takes no more jobs."""
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
        self.ended = True
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
