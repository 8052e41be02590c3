"""A way for the guest to a server on any loopback address: QEMU's user-mode network leads to 127.0.0.1 alone."""

from __future__ import annotations

import contextlib
import socket
import threading

BLOCK = 65536
CONNECT_SECONDS = 5.0


class Relay:
    """Listens on 127.0.0.1 and passes each connection on to one address; ends with its `with` block.

    `cut` and `mend` take the way away and give it back, as an outage of the network would.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._open = True
        self._pairs: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        """Where it listens."""
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self) -> None:
        """End all connections and refuse new ones until `mend`."""
        self._open = False
        with self._lock:
            ends = list(self._pairs)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Pass connections on again."""
        self._open = True

    def close(self) -> None:
        """End all connections and stop listening."""
        self.cut()
        # It wakes the thread that waits in accept(); closing alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(near,), name="relay-connection", daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if not self._open:
                return
            with socket.create_connection(self.target, timeout=CONNECT_SECONDS) as far:
                far.settimeout(None)
                with self._lock:
                    self._pairs |= {near, far}
                back = threading.Thread(target=_copy, args=(far, near), name="relay-back", daemon=True)
                back.start()
                _copy(near, far)
                back.join()
                with self._lock:
                    self._pairs -= {near, far}


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, then say so to the target, which may still send the other way."""
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
