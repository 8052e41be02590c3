"""libvirt's event loop in a thread of its own: keepalive, lifecycle events and close callbacks run on it.

libvirt allows one event loop implementation per process, and it must be registered before the first connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

import libvirt
import structlog

log = structlog.get_logger(__name__)

FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
"""Seconds before the event loop goes on after a failure: doubled with each further one in a row, up to the second."""


class EventLoop:
    """The process's libvirt event loop; its thread runs while somebody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._timer: int | None = None
        self._ended = threading.Event()
        """Whether nobody uses it: cuts a pause short."""

    def acquire(self) -> None:
        """Start the thread if it does not run."""
        with self._lock:
            self._register()
            self._users += 1
            if self._thread is None:
                self._ended.clear()
                self._thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
                self._thread.start()

    def release(self) -> None:
        """End the thread if nobody else uses it; waits for it, as there must never be two."""
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._thread is None:
                return
            thread, self._thread = self._thread, None
            self._ended.set()
            libvirt.virEventUpdateTimeout(self._timer, 0)
            thread.join()

    def _register(self) -> None:
        if self._timer is not None:
            return
        # libvirt prints every error to stderr as well, unless it is told otherwise; ours travel as exceptions.
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        # The loop sleeps in poll(): a timer that is fired from outside is the way to wake it up.
        self._timer = libvirt.virEventAddTimeout(-1, self._woken, None)

    @staticmethod
    def _woken(timer: int, _opaque: object) -> None:
        libvirt.virEventUpdateTimeout(timer, -1)

    def _run(self) -> None:
        """Rounds until nobody uses it.

        A failure ends its own round only: the loop is started nowhere else, and without it keepalive and events would
        be over in silence.
        """
        me, pause = threading.current_thread(), FIRST_PAUSE
        while self._thread is me:
            try:
                libvirt.virEventRunDefaultImpl()
            except Exception:  # whatever it is, it must not end the thread
                log.exception("libvirt's event loop failed; it goes on", pause_seconds=pause)
                self._ended.wait(pause)
                pause = min(LAST_PAUSE, 2 * pause)
            else:
                pause = FIRST_PAUSE


EVENT_LOOP = EventLoop()
"""One per process, as libvirt wants it."""


class Watchers:
    """Who wants to hear of one host's events. `tell` may be called from any thread."""

    def __init__(self) -> None:
        self._entries: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[str], None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake` on the running asyncio loop for each event; returns the call that ends it."""
        key = object()
        self._entries[key] = (asyncio.get_running_loop(), wake)

        def remove() -> None:
            self._entries.pop(key, None)

        return remove

    def tell(self, uuid: str) -> None:
        """Hand an event to all watchers; an empty uuid means that the connection was lost."""
        for loop, wake in list(self._entries.values()):
            # A loop that was closed meanwhile has no use for the event.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(wake, uuid)

    def subscribe(self, connection: libvirt.virConnect) -> Callable[[], None]:
        """Listen on a connection. Returns the call that stops listening, which a lost connection has done already."""
        lifecycle = connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None
        )
        connection.registerCloseCallback(self._on_close, None)

        def unsubscribe() -> None:
            with suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(lifecycle)
            with suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()

        return unsubscribe

    def _on_lifecycle(
        self, _connection: object, domain: libvirt.virDomain, _event: int, _detail: int, _opaque: object
    ) -> None:
        self.tell(domain.UUIDString())

    def _on_close(self, _connection: object, _reason: int, _opaque: object) -> None:
        self.tell("")
