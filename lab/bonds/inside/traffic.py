"""Traffic across the bonds: probes that are counted and streams that are not to stop. Standard library alone.

Two flows of each kind. Their source ports differ in the bit by which the kernel's layer3+4 hash chooses between two
slaves, so that each flow has a cable of its own where the mode works with flows. Every TICK each probe flow sends one
datagram and each stream its share of `rate` bytes a second; every tenth tick prints one line of JSON:

* `at`: CLOCK_MONOTONIC (ns)
* `sent`, `back`: datagrams of each flow so far, and answers to them
* `lost`: `[flow, sent at (ns)]` of each datagram that stayed without an answer for LOST_SECONDS, since the last line
* `acked`: bytes of each stream that the far side has confirmed
* `bytes`: `[received, sent]` of each interface since it exists
"""

import fcntl
import os
import selectors
import socket
import struct
import sys
import termios
import time
from contextlib import suppress
from json import dumps

TICK = 0.01
TICKS_PER_LINE = 10
LOST_SECONDS = 2.0
ECHO_PORT, SINK_PORT = 7777, 7778
PROBE_PORTS, STREAM_PORTS = (40000, 40002), (41000, 41002)
INTERFACES = ("bond0", "eth1", "eth2")
HEADER = struct.Struct("!HI")
PADDING = bytes(50)


class Probes:
    """Datagrams that the far side sends back."""

    def __init__(self, ours: str, theirs: str) -> None:
        self.sockets = []
        for port in PROBE_PORTS:
            one = socket.socket(type=socket.SOCK_DGRAM)
            one.bind((ours, port))
            one.connect((theirs, ECHO_PORT))
            one.setblocking(False)
            self.sockets.append(one)
        self.sent = [0] * len(self.sockets)
        self.back = [0] * len(self.sockets)
        self.waiting: dict[tuple[int, int], int] = {}
        self.lost: list[tuple[int, int]] = []

    def send(self) -> None:
        """Send one datagram of each flow. One that cannot be sent is lost."""
        for flow, one in enumerate(self.sockets):
            self.waiting[flow, self.sent[flow]] = time.monotonic_ns()
            with suppress(OSError):
                one.send(HEADER.pack(flow, self.sent[flow]) + PADDING)
            self.sent[flow] += 1

    def receive(self, flow: int) -> None:
        """Take what came back. Answers that come twice or too late do not count."""
        try:
            while True:
                key = HEADER.unpack_from(self.sockets[flow].recv(2048))
                if self.waiting.pop(key, None) is not None:
                    self.back[flow] += 1
        except OSError:
            return

    def forget(self) -> None:
        """Give up what waits for too long; the oldest come first."""
        limit = time.monotonic_ns() - int(LOST_SECONDS * 1e9)
        while self.waiting:
            key = next(iter(self.waiting))
            if self.waiting[key] > limit:
                return
            self.lost.append((key[0], self.waiting.pop(key)))


class Stream:
    """A long transfer at a steady rate; what it cannot send now it tries later, without catching up."""

    def __init__(self, ours: str, theirs: str, port: int, rate: int) -> None:
        self.socket = socket.socket()
        # The port is wanted again soon: no minute of TIME_WAIT after the end, nor after an end before ours.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.bind((ours, port))
        self.socket.settimeout(10)
        self.socket.connect((theirs, SINK_PORT))
        self.socket.setblocking(False)
        self.block = bytes(int(rate * TICK))
        self.written = 0

    def send(self) -> None:
        """Send this tick's share, as far as the buffer has room."""
        with suppress(BlockingIOError):
            self.written += self.socket.send(self.block)

    def acked(self) -> int:
        """Bytes that the far side has confirmed."""
        unsent = fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0\0\0\0")
        return self.written - int.from_bytes(unsent, sys.byteorder)


class Counters:
    """The interfaces' byte counters, read through files that stay open."""

    def __init__(self) -> None:
        self.files = {
            name: [os.open(f"/sys/class/net/{name}/statistics/{way}_bytes", os.O_RDONLY) for way in ("rx", "tx")]
            for name in INTERFACES
        }

    def read(self) -> dict[str, list[int]]:
        """`[received, sent]` of each."""
        return {name: [int(os.pread(file, 32, 0)) for file in files] for name, files in self.files.items()}


def main(ours: str, theirs: str, rate: int) -> None:
    """Send for ever."""
    probes, counters = Probes(ours, theirs), Counters()
    streams = [Stream(ours, theirs, port, rate) for port in STREAM_PORTS]
    selector = selectors.DefaultSelector()
    for flow, one in enumerate(probes.sockets):
        selector.register(one, selectors.EVENT_READ, flow)
    number, due = 0, time.monotonic()
    while True:
        while (rest := due - time.monotonic()) > 0:
            for key, _ in selector.select(rest):
                probes.receive(key.data)
        # No catching up after a pause: the probes stay one tick apart.
        due = max(due + TICK, time.monotonic())
        probes.send()
        for stream in streams:
            stream.send()
        number += 1
        if number % TICKS_PER_LINE == 0:
            probes.forget()
            line = {
                "at": time.monotonic_ns(),
                "sent": probes.sent,
                "back": probes.back,
                "lost": probes.lost,
                "acked": [stream.acked() for stream in streams],
                "bytes": counters.read(),
            }
            print(dumps(line), flush=True)
            probes.lost = []


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
