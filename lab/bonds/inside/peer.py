"""The far side of the traffic: sends every datagram back and swallows every stream. Standard library alone."""

import selectors
import socket
import sys
from collections.abc import Callable

ECHO_PORT, SINK_PORT = 7777, 7778
BLOCK = 65536


def main(address: str) -> None:
    """Serve for ever; prints `ready` when it listens."""
    selector = selectors.DefaultSelector()
    echo = socket.socket(type=socket.SOCK_DGRAM)
    echo.bind((address, ECHO_PORT))
    echo.setblocking(False)
    sink = socket.create_server((address, SINK_PORT))

    def send_back() -> None:
        # Until nothing waits: each select() costs as much as a packet.
        try:
            while True:
                echo.sendto(*echo.recvfrom(2048))
        except OSError:
            return

    def accept() -> None:
        connection, _ = sink.accept()
        selector.register(connection, selectors.EVENT_READ, lambda: swallow(connection))

    def swallow(connection: socket.socket) -> None:
        try:
            ended = not connection.recv(BLOCK)
        except OSError:
            ended = True  # the sender resets its streams
        if ended:
            selector.unregister(connection)
            connection.close()

    selector.register(echo, selectors.EVENT_READ, send_back)
    selector.register(sink, selectors.EVENT_READ, accept)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            handle: Callable[[], None] = key.data
            handle()


if __name__ == "__main__":
    main(sys.argv[1])
