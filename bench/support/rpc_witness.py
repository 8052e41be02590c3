"""Who asks a libvirt daemon what: a socket in front of its own that passes everything on and counts the calls.

A witness that knows nothing of the operator, nor the operator of it. It speaks libvirt's protocol as far as the length
and the header of each message (https://libvirt.org/kbase/internals/rpc.html). It changes one thing: whoever asks for
QEMU gets the daemon's test driver, so that an operator that takes QEMU's URIs alone works on simulated domains.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from pathlib import Path

CALL = 0
"""Type of a message that asks for something; replies, events, streams and keepalives have others."""
OPEN_PROGRAM, OPEN_PROCEDURE = 0x20008086, 1
KEEPALIVE_PROGRAM = 0x6B656570
SIMULATED = b"test:///default"
PROCEDURES = {
    1: "open",
    2: "close",
    3: "getType",
    6: "getInfo",
    7: "getCapabilities",
    9: "create",
    11: "defineXML",
    14: "XMLDesc",
    23: "lookupByName",
    24: "lookupByUUID",
    59: "getHostname",
    60: "supportsFeature",
    66: "authList",
    84: "storagePoolLookupByName",
    87: "storagePoolInfo",
    102: "getFreeMemory",
    150: "isActive",
    154: "storagePoolIsActive",
    212: "state",
    227: "getCPUStats",
    228: "getMemoryStats",
    265: "metadata",
    273: "listAllDomains",
    281: "listAllStoragePools",
    282: "listAllVolumes",
    341: "DHCPLeases",
    344: "getAllDomainStats",
    353: "interfaceAddresses",
}
"""What those that are met most are called in libvirt's Python binding; others are shown by their number."""

_HEADER = struct.Struct(">6I")
"""Program, version, procedure, type, serial, status."""
_LENGTH = struct.Struct(">I")


class RpcWitness:
    """Stands in front of one daemon."""

    def __init__(self, daemon: Path, socket: Path) -> None:
        """`daemon`: its socket. `socket`: where clients shall come instead."""
        self.calls: Counter[str] = Counter()
        """Calls by procedure since the beginning."""
        self._daemon = daemon
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    @property
    def uri(self) -> str:
        """libvirt URI by which the operator comes this way."""
        return f"qemu+unix:///session?socket={self._socket}"

    async def __aenter__(self) -> RpcWitness:
        self._server = await asyncio.start_unix_server(self._accept, self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = asyncio.get_running_loop().create_task(self._pass_on(reader, writer))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        try:
            answers, questions = await asyncio.open_unix_connection(self._daemon)
        except OSError:
            writer.close()
            return
        ways = [asyncio.ensure_future(self._ask(reader, questions)), asyncio.ensure_future(_pump(answers, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            questions.close()
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, daemon: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                message = await reader.readexactly(length - _LENGTH.size)
                message = self.pass_through(message)
                daemon.write(_LENGTH.pack(_LENGTH.size + len(message)) + message)
                await daemon.drain()

    def pass_through(self, message: bytes) -> bytes:
        """Count a message; returns what the daemon shall get."""
        program, _, procedure, kind, *_ = _HEADER.unpack_from(message)
        if kind != CALL or program == KEEPALIVE_PROGRAM:
            return message
        self.calls[PROCEDURES.get(procedure, f"procedure {procedure}")] += 1
        if (program, procedure) == (OPEN_PROGRAM, OPEN_PROCEDURE):
            return _simulated(message)
        return message


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()


def _simulated(message: bytes) -> bytes:
    """The call `open`, but of the test driver. Its arguments: a name that may be missing, and flags."""
    name = struct.pack(">II", 1, len(SIMULATED)) + SIMULATED + bytes(-len(SIMULATED) % 4)
    return message[: _HEADER.size] + name + message[-4:]
